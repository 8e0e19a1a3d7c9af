"""What a policy sees, and what a threshold matrix means."""

from dataclasses import dataclass

import numpy as np


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


@dataclass(frozen=True)
class StageScores:
    """What a policy sees: scores of every stage on rows that it may learn from.

    Attributes
    ----------
    stage_proba : ndarray of shape (n_samples, n_stages, n_classes)
        Raw scores.
    y : ndarray of shape (n_samples,)
        Class codes, 0 to n_classes - 1.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.
    negative : int or None
        Code of the class that early stages may answer; None when they may answer any class.
    caught : ndarray of shape (n_samples,) of bool or None
        Positives that the last stage catches; None when there is no positive class.
    stage_costs : ndarray of shape (n_stages,) or None
        Cost of running each stage on one row.
    stage_names : tuple of str
        Names, for messages.
    untouched : bool
        Whether no stage, calibrator or catch threshold saw these rows.

    Examples
    --------
    A policy of one's own has a method that turns these into a threshold matrix (and may have a
    ``check(*, n_stages, stage_costs)``, which is called before anything is fitted):

    >>> class PassHalf:
    ...     def find_thresholds(self, scores):
    ...         cuts = [np.median(scores.confidence(k)) for k in range(scores.n_stages - 1)]
    ...         return scores.matrix(cuts)
    >>> import numpy as np
    >>> from skmsc.thresholds import StageScores
    >>> positive = np.array([[0.1, 0.2], [0.3, 0.1], [0.6, 0.8], [0.7, 0.9]])
    >>> scores = StageScores(
    ...     stage_proba=np.stack([1 - positive, positive], axis=2),
    ...     y=np.array([0, 0, 1, 1]),
    ...     sample_weight=np.ones(4),
    ...     negative=0,
    ...     caught=np.array([False, False, True, True]),
    ...     stage_costs=None,
    ...     stage_names=("screen", "final"),
    ...     untouched=False,
    ... )
    >>> PassHalf().find_thresholds(scores)
    array([[0.55,  inf],
           [-inf, -inf]])
    """

    stage_proba: np.ndarray
    y: np.ndarray
    sample_weight: np.ndarray
    negative: int | None
    caught: np.ndarray | None
    stage_costs: np.ndarray | None
    stage_names: tuple
    untouched: bool

    @property
    def n_stages(self):
        """Number of stages."""
        return self.stage_proba.shape[1]

    def confidence(self, k):
        """Score that stage k is cut at, one number a row."""
        scores = self.stage_proba[:, k]
        return scores.max(axis=1) if self.negative is None else scores[:, self.negative]

    def disagrees(self, k):
        """Whether an answer by stage k would differ from the last stage's most likely class."""
        last = self.stage_proba[:, -1].argmax(axis=1)
        early = self.stage_proba[:, k].argmax(axis=1) if self.negative is None else self.negative
        return early != last

    def matrix(self, cuts):
        """Threshold matrix of shape (n_stages, n_classes) from one cut for each early stage."""
        thresholds = np.full(self.stage_proba.shape[1:], np.inf)
        columns = slice(None) if self.negative is None else self.negative
        thresholds[:-1, columns] = np.reshape(cuts, (-1, 1) if self.negative is None else -1)
        thresholds[-1] = -np.inf
        return thresholds

    def pass_rates(self, thresholds):
        """Weighted share of rows that reach each stage; the first is 1."""
        stage = eager_stage(self.stage_proba, thresholds)
        answered = np.bincount(stage, self.sample_weight, minlength=self.n_stages)
        return np.cumsum(answered[::-1])[::-1] / answered.sum()
