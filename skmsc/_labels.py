"""Labels that come later, in the type of those that are known."""

import numpy as np


def cast_labels(labels, known, what):
    """Labels as an array in the type of the known ones; raises unless each of them fits."""
    try:
        labels = np.asarray(labels)
    except ValueError:  # ragged
        raise TypeError(f"{what} must hold labels; got {labels!r}.") from None
    kinds = [_kind(part) for part in (labels, known)]
    told = f"the known labels {known.tolist()}; got {labels.ravel()[:5].tolist()}"
    if kinds[0] != kinds[1]:
        raise TypeError(f"{what} must be of the kind of {told}.")
    if kinds[1] != "number":
        return labels
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"{what} must be finite, as {told}.")
    with np.errstate(invalid="ignore"):
        cast = labels.astype(known.dtype)
    if known.dtype.kind in "iu":
        if (cast == labels).all() and (cast.astype(object) == labels.astype(object)).all():
            return cast
        wider = np.int64 if labels.dtype.kind in "iu" else known.dtype
        again = labels.astype(wider)
        if known.dtype != np.uint64 and (again.astype(object) == labels.astype(object)).all():
            return again
        raise ValueError(f"{what} must be integers, as {told}.")
    return cast


def _kind(labels):
    """What labels are compared as: numbers, truth values, strings or objects."""
    kind = np.asarray(labels).dtype.kind
    if kind in "iuf":
        return "number"
    if kind == "O":
        kinds = {"U" if isinstance(label, str) else "O" for label in np.ravel(labels)}
        return kinds.pop() if len(kinds) == 1 else "O"
    return kind
