"""What a threshold matrix means: which scores act on it, and what reaches it. NumPy only."""

import numpy as np

CONFIDENCES = ("max_proba", "margin", "entropy")


def acting_scores(proba, confidence):
    """Class scores that thresholds act on, from probabilities, both of shape (..., n_classes).

    With "max_proba" they are the probabilities. The likeliest class has, with "margin", its lead
    over the second, and with "entropy" one minus the entropy in units of that of a uniform
    distribution: 1 is certain, 0 knows nothing. Another class has what it lacks to the likeliest,
    a score below 0.
    """
    if confidence == "max_proba":
        return proba
    second, first = np.moveaxis(np.partition(proba, -2, axis=-1)[..., -2:], -1, 0)
    if confidence == "margin":
        own = first - second
    else:
        logs = np.log(np.where(proba > 0, proba, 1.0))
        own = 1.0 + (proba * logs).sum(axis=-1) / np.log(proba.shape[-1])
        np.clip(own, 0.0, 1.0, out=own)  # a uniform distribution may round to less
    scores = proba - first[..., None]
    np.put_along_axis(scores, proba.argmax(axis=-1)[..., None], own[..., None], axis=-1)
    return scores


def reaches(proba, thresholds):
    """Whether a row's score reaches the threshold of some class.

    `proba` has shape (..., n_classes) and `thresholds` broadcasts against it; the result has shape
    (...).
    """
    # Class by class: a reduction over a last axis of two or three is slow.
    reached = proba[..., 0] >= thresholds[..., 0]
    for c in range(1, proba.shape[-1]):
        reached |= proba[..., c] >= thresholds[..., c]
    return reached


def eager_stage(stage_proba, thresholds):
    """Index of the stage that answers each row, from the scores of all stages.

    `stage_proba` has shape (n_samples, n_stages, n_classes), `thresholds` has shape (n_stages,
    n_classes), the result (n_samples,).
    """
    reached = reaches(stage_proba, thresholds)
    reached[:, -1] = True
    return reached.argmax(axis=1)


def answered_class(proba, thresholds):
    """Code of the class that each row is answered with: the likeliest of those that reached.

    Both arguments have shape (n_samples, n_classes), `thresholds` already taken at the answering
    stage; the result has shape (n_samples,).
    """
    return np.where(proba >= thresholds, proba, -np.inf).argmax(axis=1)
