"""What a policy sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from skmsc._acting import acting_scores, eager_stage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from skmsc._typing import Bools, Floats, Ints


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
    measure : {"max_proba", "margin", "entropy"}, default="max_proba"
        What thresholds act on; see `acting`.
    spread : {"geometric", "agreement"}, default="geometric"
        How a budget is spread over more than two stages where the policy does not say.
    row_values : dict of str to ndarray of shape (n_samples,), default=None
        What a policy's own ``per_row`` made of the metadata of the rows.

    Examples
    --------
    A policy of one's own has a method that turns these into a threshold matrix. It may have a
    ``check(*, n_stages, stage_costs)``, which is called before anything is fitted; names of
    metadata of each row in ``row_metadata``, which ``per_row(given, sample_weight)`` makes arrays
    of all rows from; and ``find_alert_threshold(proba, scores)``, which finds the cut of the
    positive probabilities that the fitted classifier gives these rows.

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
    measure: str = "max_proba"
    spread: str = "geometric"
    row_values: dict | None = None

    @property
    def n_stages(self) -> int:
        """Number of stages."""
        return self.stage_proba.shape[1]

    @cached_property
    def acting(self) -> Floats:
        """Class scores that thresholds act on, of the shape of `stage_proba`."""
        return acting_scores(self.stage_proba, self.measure)

    @cached_property
    def _confidence(self) -> Floats:
        """Scores that stages are cut at, of shape (n_samples, n_stages)."""
        if self.negative is not None:
            return self.acting[..., self.negative]
        # Class by class: a reduction over a last axis of two or three is slow.
        return reduce(np.maximum, np.moveaxis(self.acting, 2, 0))

    @cached_property
    def answers(self) -> Ints:
        """Class that each stage would answer, of shape (n_samples, n_stages); the last answers all.

        It is the likeliest, or the negative one where early stages may answer no other.
        """
        answers = self.stage_proba.argmax(axis=2)
        if self.negative is not None:
            answers[:, :-1] = self.negative
        return answers

    def answering_only(self, negative: int) -> StageScores:
        """The same for early stages that may answer the negative class only.

        A positive is caught when it is the last stage's likeliest class.
        """
        caught = (self.y != negative) & (self.stage_proba[:, -1].argmax(axis=1) != negative)
        return replace(self, negative=negative, caught=caught)

    def only(self, rows: NDArray[Any]) -> StageScores:
        """The same of some of the rows, a slice, mask or indices."""
        of_rows = ("stage_proba", "y", "sample_weight", "caught")
        parts = {name: getattr(self, name) for name in of_rows}
        parts = {name: None if part is None else part[rows] for name, part in parts.items()}
        row_values = {name: values[rows] for name, values in (self.row_values or {}).items()}
        return replace(self, **parts, row_values=row_values)

    def early_answers(self, thresholds: Floats) -> Ints:
        """Class that each row is answered with at the stage where it is, of shape (n_samples,)."""
        stage = eager_stage(self.acting, thresholds)
        return np.take_along_axis(self.answers, stage[:, None], axis=1)[:, 0]

    def confidence(self, k: int) -> Floats:
        """Score that stage k is cut at, one number a row."""
        return self._confidence[:, k]

    def disagrees(self, k: int) -> Bools:
        """Whether an answer by stage k would differ from the last stage's most likely class."""
        return self.answers[:, k] != self.answers[:, -1]

    def matrix(self, cuts: ArrayLike) -> Floats:
        """Threshold matrix of shape (n_stages, n_classes) from the cuts of the early stages.

        One cut for each, of what it may answer, or an array of shape (n_early, n_classes).
        """
        thresholds = np.full(self.stage_proba.shape[1:], np.inf)
        if np.ndim(cuts) == 2:
            thresholds[:-1] = cuts
        elif self.negative is None:
            thresholds[:-1] = np.reshape(cuts, (-1, 1))
        else:
            thresholds[:-1, self.negative] = cuts
        thresholds[-1] = -np.inf
        return thresholds

    def pass_rates(self, thresholds: Floats) -> Floats:
        """Weighted share of rows that reach each stage; the first is 1."""
        stage = eager_stage(self.acting, thresholds)
        answered = np.bincount(stage, self.sample_weight, minlength=self.n_stages)
        return np.cumsum(answered[::-1])[::-1] / answered.sum()
