"""Small checks of arguments, and fits that fail without a trace."""

import contextlib
import sys
import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.utils.validation import check_array, column_or_1d

from skmsc._sklearn import _check_sample_weight

_WEIGHTS = (1e-250, 1e250)  # their sum: what is computed with it is finite, and not 0
MOST_COST = 1e50  # costs up to which all sums over rows are finite, whatever the weights


def is_number(value):
    """Whether the value is a real number; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


def check_choice(name, value, valid):
    """Raise ValueError unless a parameter is one of the words, of which the last may be None."""
    if not (value is None or isinstance(value, str)) or value not in valid:
        *others, last = map(repr, valid)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}; got {value!r}.")


def check_number(name, value, interval, *, optional=False):
    """Raise ValueError unless a parameter is a number in an interval such as "(0, 1]", or None."""
    if optional and value is None:
        return
    low, high = map(float, interval[1:-1].split(", "))
    if not (
        is_number(value)
        and (low < value or (low == value and interval[0] == "["))
        and (value < high or (value == high and interval[-1] == "]"))
    ):
        otherwise = " or None" if optional else ""
        raise ValueError(f"{name} must be a number in {interval}{otherwise}; got {value!r}.")


def check_integer(name, value, least, *, optional=False):
    """Raise ValueError unless a parameter is an integer of at least so much, or None."""
    if optional and value is None:
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        otherwise = " or None" if optional else ""
        raise ValueError(f"{name} must be an integer >= {least}{otherwise}; got {value!r}.")


def check_bool(name, value):
    """Raise TypeError unless a parameter is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}.")


def check_two_classes(estimator, classes):
    """Raise ValueError where there is one class only."""
    if len(classes) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs at least two classes; got {len(classes)} class: "
            f"{classes.tolist()}."
        )


def warn(message, category=UserWarning):
    """Warn at the place that called this package."""
    frame, level = sys._getframe(1), 2
    ours = "skmsc.", "sklearn.callback."  # a `fit` with callbacks is called by the latter
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(ours):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def as_numbers(values, message):
    """The values as a float64 array; raises TypeError with the message when they are no numbers."""
    try:
        array = np.asarray(values)
    except ValueError:  # ragged
        raise TypeError(message) from None
    if array.dtype.kind not in "iuf" and array.size:
        raise TypeError(message)
    return array.astype(np.float64)


def check_weight(sample_weight, n_samples, name="sample_weight"):
    """Weights as a float64 array of shape (n_samples,), ones for None; not all of them may be 0."""
    rows = np.broadcast_to(0.0, n_samples)  # only their number matters to the check
    if isinstance(sample_weight, Real):  # of which scikit-learn does not ask that it is finite
        sample_weight = np.full(n_samples, sample_weight)
    try:
        weight = _check_sample_weight(
            sample_weight, rows, dtype=np.float64, ensure_non_negative=True
        )
    except (TypeError, ValueError) as error:
        if name == "sample_weight" and "weight" in str(error):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} must be weights of the rows: {error}") from error
    if not weight.any():
        raise ValueError(f"{name} is zero for every row; give some row a weight.")
    with np.errstate(over="ignore"):
        total = weight.sum()
    low, high = _WEIGHTS
    if not low <= total <= high:
        raise ValueError(f"{name} must have a sum from {low:g} to {high:g}; got {total:.3g}.")
    return weight


def check_column(values, name):
    """A one-dimensional array without nan or None."""
    values = column_or_1d(check_array(values, ensure_2d=False, dtype=None, input_name=name))
    if values.dtype == object and np.equal(values, None).any():
        raise ValueError(f"{name} must hold no None.")
    return values


def check_stage(stage):
    """Indices of the stages that answered rows, an array of shape (n_samples,)."""
    stage = check_column(stage, "stage")
    if stage.dtype.kind not in "iu" or stage.min() < 0:
        raise ValueError("stage must hold integers >= 0, such as route(X).stage.")
    return stage


def find_pos_label(labels, pos_label):
    """The positive one of sorted labels; raises where there are more than two, or none is clear."""
    known = labels.tolist()
    if labels.size > 2:
        raise ValueError(
            f"Only binary classification is supported. y holds {labels.size} classes: {labels}."
        )
    if pos_label is None:
        if not set(known) <= {-1, 0, 1}:
            raise ValueError(
                f"y holds the labels {known}, of which none is positive by convention: set "
                "pos_label."
            )
        return 1
    if labels.size == 2 and pos_label not in known:
        raise ValueError(f"pos_label must be one of {known}; got {pos_label!r}.")
    return pos_label


@contextlib.contextmanager
def no_half_fit(estimator, private=()):
    """Forget an earlier fit, and take all that was fitted away when the block raises.

    `private` names the fitted attributes that do not end in an underscore.
    """

    def forget():
        for name in list(vars(estimator)):
            if name.endswith("_") or name in private:
                delattr(estimator, name)

    forget()
    try:
        yield
    except BaseException:
        forget()
        raise


def check_unlabeled_label(unlabeled_label):
    """Raise unless this can mark rows without a label; returns whether it is a string."""
    is_text = isinstance(unlabeled_label, str)
    if not (is_text or is_number(unlabeled_label)) or unlabeled_label != unlabeled_label:
        raise ValueError(
            "unlabeled_label must be a string or a number other than nan, the value of y in rows "
            f"without a label; got {unlabeled_label!r}."
        )
    return is_text


def find_labeled(y, unlabeled_label):
    """Mask of the rows with a label; raises when the mark cannot be a value of y."""
    is_text = check_unlabeled_label(unlabeled_label)
    labels = np.asarray(y)
    if labels.dtype == object:
        kinds = {issubclass(kind, str) for kind in set(map(type, labels))}
    else:
        kinds = {labels.dtype.kind in "UT"}
    if is_text not in kinds:
        raise TypeError(
            "unlabeled_label must be of the kind of the labels: y holds "
            f"{'numbers' if is_text else 'strings'} only, got {unlabeled_label!r}."
        )
    return np.asarray(labels != unlabeled_label, dtype=bool)
