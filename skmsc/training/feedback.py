"""Feedback: what the later stages tell an earlier one about which rows matter.

A strategy turns the out-of-fold scores of the later stages into a target and a weight for each
training row of the earlier stage. The published idea, training in the reverse of the working order
with sample weights from the later stage, is that of arXiv 2311.06823; the formulas are our own
derivation from the cost of the cascade and are not claimed to be the paper's.

Notation: rows i; y = 1 for a positive; stage j passes a row on with the soft decision q_j; the last
stage's decision is q = sigma((logit p - logit t) / T) for its score p, catch threshold t and
temperature T, so q tends to 1[p >= t] as T tends to 0.

An unlabelled row is a positive with the chance that the last stage's calibrated score gives it, and
is learned twice, as a positive and as a negative: a weighted loss of the two is the loss expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit
from sklearn.base import BaseEstimator

from skmsc._checks import as_numbers, check_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skmsc._typing import Bools, Floats, StageCosts

__all__ = ["AutoFeedback", "CaughtFeedback", "GainFeedback"]

# One call of the last stage costs this much where the costs of errors are not given.
LAST_STAGE_COST = 0.2


@dataclass(frozen=True)
class LaterStages:
    """What is known of the later stages when an earlier one is to be trained.

    Attributes
    ----------
    positive : ndarray of shape (n_samples,) of bool
        Whether the row is a positive.
    later_proba : ndarray of shape (n_samples, n_later)
        Positive scores of the later stages in working order, out-of-fold.
    catch_threshold : float
        Score at which the last stage catches.
    sample_weight : ndarray of shape (n_samples,)
        The caller's weights.
    later_costs : ndarray of shape (n_later,) or None
        Costs of the later stages; None where they are not known.
    """

    positive: np.ndarray
    later_proba: np.ndarray
    catch_threshold: float
    sample_weight: np.ndarray
    later_costs: np.ndarray | None


def feedback_for(feedback, signal):
    """Targets and weights of an earlier stage's labelled training rows.

    Parameters
    ----------
    feedback : strategy, "caught", "gain" or callable
        A checked `feedback` argument other than "none" and "auto".
    signal : LaterStages
        Scores of the later stages on n_samples rows.

    Returns
    -------
    target : ndarray of shape (n_samples,) of bool
        Whether the stage should pass the row.
    weight : ndarray of shape (n_samples,)
        How much the row counts, before the caller's weights are multiplied in.

    Raises
    ------
    ValueError
        When a callable returns weights of a wrong shape, negative, or not finite.
    """
    feedback = _strategy(feedback)
    if hasattr(feedback, "weigh"):
        return feedback.weigh(signal)
    return signal.positive, _weights_of(
        feedback, signal.positive, signal.later_proba, signal.catch_threshold
    )


def guesses_for(feedback, signal, later_proba, chance):
    """Weights with which unlabelled rows are learned as negatives and as positives.

    Parameters
    ----------
    feedback : strategy, "caught", "gain" or callable
        A checked `feedback` argument other than "none" and "auto".
    signal : LaterStages
        Scores of the later stages on the labelled rows, which set the scale.
    later_proba : ndarray of shape (n_unlabeled, n_later)
        Positive scores of the later stages on the unlabelled rows.
    chance : ndarray of shape (n_unlabeled,)
        Chance that each is a positive.

    Returns
    -------
    weight : ndarray of shape (n_unlabeled, 2)
        As a negative, as a positive; before the caller's weights are multiplied in.
    """
    feedback = _strategy(feedback)
    if hasattr(feedback, "weigh"):
        return feedback.weigh_unlabeled(signal, later_proba, chance)
    # A callable sees the labelled rows, then the unlabelled ones as negatives and as positives.
    as_either = np.repeat([False, True], chance.size)
    positive = np.concatenate([signal.positive, as_either])
    later_proba = np.concatenate([signal.later_proba, later_proba, later_proba])
    weight = _weights_of(feedback, positive, later_proba, signal.catch_threshold)
    return weight[signal.positive.size :].reshape(2, -1).T * _as_either(chance)


def _strategy(feedback):
    """The strategy that a name stands for."""
    if isinstance(feedback, str):
        return {"caught": CaughtFeedback, "gain": GainFeedback}[feedback]()
    return feedback


def _weights_of(feedback, positive, later_proba, catch_threshold):
    """Checked weights that a callable gives."""
    weight = feedback(positive, later_proba, catch_threshold)
    if isinstance(weight, np.ndarray) and weight.dtype.kind == "b":
        weight = weight.astype(np.float64)
    weight = as_numbers(
        weight,
        "The feedback callable must return finite weights >= 0, one for each of "
        f"{positive.size} rows; got {type(weight).__name__}.",
    )
    if weight.shape != positive.shape:
        raise ValueError(
            f"The feedback callable must return weights of shape {positive.shape}; got "
            f"shape {weight.shape}."
        )
    if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise ValueError(
            "The feedback callable must return finite weights >= 0, not all of them 0; got values "
            f"between {weight.min()} and {weight.max()}."
        )
    return weight


def _as_either(chance):
    """Weights of a row as a negative and as a positive when nothing else counts, (n, 2)."""
    return np.column_stack([1 - chance, chance])


def check_feedback(feedback, stage_costs=None, unlabeled=False):
    """Validate a `feedback` argument before any work is done.

    `stage_costs` are None when they are not given; `unlabeled` tells whether some rows may have no
    label.
    """
    if isinstance(feedback, str) and feedback in ("auto", "caught", "gain", "none"):
        return
    if isinstance(feedback, AutoFeedback):
        feedback.check(stage_costs, unlabeled)
        return
    if hasattr(feedback, "weigh") and not isinstance(feedback, type):
        if hasattr(feedback, "check"):
            feedback.check(stage_costs)
        if unlabeled and not hasattr(feedback, "weigh_unlabeled"):
            raise ValueError(
                f"feedback={feedback!r} does not say how rows without a label count: it needs a "
                "method weigh_unlabeled, or unlabeled_label=None."
            )
        return
    if isinstance(feedback, (str, type)) or not callable(feedback):
        raise ValueError(
            "feedback must be 'caught', 'gain', 'none', 'auto', a strategy such as "
            "CaughtFeedback(), or a callable (positive, later_proba, catch_threshold) -> weights; "
            f"got {feedback!r}."
        )


def best_f1_cut(positive, score, sample_weight):
    """Score from which calling a row positive has the best F1, midway to the next lower score.

    All three arguments have shape (n_samples,). When every row must be called positive, it is the
    lowest score.
    """
    values, inverse = np.unique(score, return_inverse=True)
    called = np.bincount(inverse, sample_weight)[::-1].cumsum()[::-1]
    true = np.bincount(inverse, sample_weight * positive)[::-1].cumsum()[::-1]
    best = (2 * true / (called + true[0])).argmax()
    return float(values[best] if best == 0 else (values[best - 1] + values[best]) / 2)


class CaughtFeedback(BaseEstimator):
    """Positives count in proportion to the chance that the last stage catches them.

    A positive that the last stage misses is lost whether it is passed or not, so an earlier stage
    need not learn to pass it. Targets stay the true labels, negatives count alike, and the weights
    have mean 1 within each class. On labelled rows feedback only helps where the last stage errs.

    An unlabelled row that is positive with chance r weighs 1 - r as a negative, and as a positive r
    times what a labelled positive of its chance to be caught would.

    Parameters
    ----------
    strength : float, default=1.0
        Share of the feedback in the weight, in [0, 1]: ``(1 - strength) + strength * w``.
    temperature : float, default=1.0
        Softness T > 0 of the last stage's decision, on the scale of its log-odds.
    unlabeled_weight : float, default=1.0
        Factor >= 0 of the weights of rows without a label. Less than 1 where the last stage, by
        whose word they are learned, makes errors that the labels would tell.

    References
    ----------
    Training a Multi-Stage Deep Classifier with Feedback Signals, arXiv 2311.06823, for the idea of
    guiding an earlier stage by the later one's sample weights. The formula here is ours.

    Examples
    --------
    >>> from skmsc import CaughtFeedback
    >>> CaughtFeedback(temperature=0.5)
    CaughtFeedback(temperature=0.5)
    """

    def __init__(
        self, strength: float = 1.0, temperature: float = 1.0, unlabeled_weight: float = 1.0
    ) -> None:
        self.strength = strength
        self.temperature = temperature
        self.unlabeled_weight = unlabeled_weight

    def check(self, stage_costs: StageCosts = None) -> None:
        """Validate the parameters, for stages of such costs (None: not given)."""
        _check_common(self)

    def weigh(self, signal: LaterStages) -> tuple[Bools, Floats]:
        """Targets and weights from a `LaterStages`; both of shape (n_samples,)."""
        positive = signal.positive
        weight = np.ones(positive.size)
        weight[positive] = self._weight_of_positives(signal, signal.later_proba[positive])
        return positive, weight

    def weigh_unlabeled(self, signal: LaterStages, later_proba: Floats, chance: Floats) -> Floats:
        """Weights as negatives and as positives, shape (n_unlabeled, 2); see `guesses_for`."""
        weight = self._weight_of_positives(signal, later_proba)
        return self.unlabeled_weight * np.column_stack([1 - chance, chance * weight])

    def _weight_of_positives(self, signal, later_proba):
        """The chance to be caught, scaled so that the positives keep their joint weight."""
        cut, positive = signal.catch_threshold, signal.positive
        caught = _soft_decision(later_proba[:, -1], cut, self.temperature)
        known = _soft_decision(signal.later_proba[positive, -1], cut, self.temperature)
        mean = np.average(known, weights=signal.sample_weight[positive])
        weight = caught / mean if mean > 0 else np.ones(caught.size)
        return (1 - self.strength) + self.strength * weight


class GainFeedback(BaseEstimator):
    """Rows count by what the cascade gains or loses when the stage passes them.

    The target of the earlier stage is whether passing the row pays, given what the later stages
    will do with it, and its weight is how much: the weighted 0-1 loss of the stage then is the
    expected cost of the cascade up to a constant.

    Parameters
    ----------
    strength : float, default=1.0
        Share of the feedback in the weight, in [0, 1]: ``(1 - strength) + strength * w``.
    temperature : float, default=1.0
        Softness T > 0 of the later stages' decisions, on the scale of their log-odds.
    error_costs : tuple of two floats, default=None
        Costs of a false negative and of a false positive, in the units of the estimator's
        ``stage_costs``, which must then be known. None means (n_negative / n_positive, 1) by
        weight, in units in which one call of the last stage costs 0.2.
    unlabeled_weight : float, default=1.0
        Factor >= 0 of the weights of rows without a label; see `CaughtFeedback`.

    Notes
    -----
    Let ``V_j`` be the cost that a row still causes when it reaches stage j, ``c_j`` the cost of
    running it and ``q_j`` its soft decision to pass (for the last stage: to call it positive).
    After the last stage ``V = C_FP (1 - y)`` for a row called positive; before,
    ``V_j = c_j + q_j V_{j+1} + (1 - q_j) C_FN y``. Dismissing a row at the stage before j costs
    ``C_FN y``, so passing it gains ``D = C_FN y - V_j``: the target is ``D > 0``, the weight
    ``|D|``, scaled to mean 1. An intermediate stage trained by gain passes at a score of 1/2.

    With Q the product of the q from stage j on and C the expected cost of the calls, ``D = Q (C_FN
    y - C_FP (1 - y)) - C``. An unlabelled row that is positive with chance r has the expected gain
    ``r Q C_FN - ((1 - r) Q C_FP + C)``: it is learned as a positive with the first term as its
    weight and as a negative with the second.

    References
    ----------
    B. Zadrozny, J. Langford, N. Abe. Cost-sensitive learning by cost-proportionate example
    weighting. ICDM 2003, DOI 10.1109/ICDM.2003.1250950. The reverse order of training is that of
    arXiv 2311.06823; the derivation is ours.

    Examples
    --------
    >>> from skmsc import GainFeedback
    >>> GainFeedback(error_costs=(10.0, 1.0))
    GainFeedback(error_costs=(10.0, 1.0))
    """

    def __init__(
        self,
        strength: float = 1.0,
        temperature: float = 1.0,
        error_costs: tuple[float, float] | None = None,
        unlabeled_weight: float = 1.0,
    ) -> None:
        self.strength = strength
        self.temperature = temperature
        self.error_costs = error_costs
        self.unlabeled_weight = unlabeled_weight

    def check(self, stage_costs: StageCosts = None) -> None:
        """Validate the parameters, for stages of such costs (None: not given)."""
        _check_common(self)
        if self.error_costs is None:
            return
        message = (
            "error_costs must be None or two finite numbers >= 0 (false negative, false positive); "
            f"got {self.error_costs!r}."
        )
        costs = as_numbers(self.error_costs, message)
        if costs.shape != (2,) or not np.isfinite(costs).all() or (costs < 0).any():
            raise ValueError(message)
        if stage_costs is None:
            raise ValueError(
                f"{self!r} states error costs in the units of stage_costs: set stage_costs too."
            )

    def weigh(self, signal: LaterStages) -> tuple[Bools, Floats]:
        """Targets and weights from a `LaterStages`; both of shape (n_samples,)."""
        gain = self.gain(signal)
        weight = np.abs(gain) / self._scale(signal)
        return gain > 0, (1 - self.strength) + self.strength * weight

    def weigh_unlabeled(self, signal: LaterStages, later_proba: Floats, chance: Floats) -> Floats:
        """Weights as negatives and as positives, shape (n_unlabeled, 2); see `guesses_for`."""
        if_positive, if_negative, calls = self._consequences(signal, later_proba)
        weight = np.column_stack([(1 - chance) * if_negative + calls, chance * if_positive])
        weight /= self._scale(signal)
        weight = (1 - self.strength) * _as_either(chance) + self.strength * weight
        return self.unlabeled_weight * weight

    def gain(self, signal: LaterStages) -> Floats:
        """Gain of passing each row, ndarray of shape (n_samples,), in the units of the costs."""
        if_positive, if_negative, calls = self._consequences(signal, signal.later_proba)
        return np.where(signal.positive, if_positive, -if_negative) - calls

    def _scale(self, signal):
        """Mean absolute gain of the labelled rows; 1 where none gains or loses."""
        return np.average(np.abs(self.gain(signal)), weights=signal.sample_weight) or 1.0

    def _consequences(self, signal, later_proba):
        """What passing a row saves if it is positive and loses if not, and what the calls cost.

        Expected over the later stages' decisions; three arrays of shape (n_rows,).
        """
        (cost_fn, cost_fp), later_costs = self._costs(signal)
        # The last stage decides at the catch threshold. A stage between was trained on 1[gain > 0]
        # with weight |gain|, so it should pass a row at a score of 1/2.
        cuts = np.array([0.5] * (later_proba.shape[1] - 1) + [signal.catch_threshold])
        passes = _soft_decision(later_proba, cuts, self.temperature)
        runs = np.cumprod(np.column_stack([np.ones(len(passes)), passes]), axis=1)
        called_positive = runs[:, -1]
        return cost_fn * called_positive, cost_fp * called_positive, runs[:, :-1] @ later_costs

    def _costs(self, signal):
        """Costs of the two errors and of the later stages, in one unit."""
        n_later = signal.later_proba.shape[1]
        if self.error_costs is not None:
            return self.error_costs, signal.later_costs
        n_pos = signal.sample_weight[signal.positive].sum()
        n_neg = signal.sample_weight[~signal.positive].sum()
        if signal.later_costs is None or signal.later_costs[-1] == 0:
            costs = np.full(n_later, LAST_STAGE_COST)
        else:
            costs = LAST_STAGE_COST * signal.later_costs / signal.later_costs[-1]
        return (n_neg / n_pos, 1.0), costs


class AutoFeedback(BaseEstimator):
    """Whichever feedback keeps most, measured by cross-validation, or none.

    For each early stage the candidates and "none" are fitted in turn, and their out-of-fold scores
    are compared by retained recall: the share of the positives caught by the last stage that the
    stage would pass on when it passes a given share of each test part. The best candidate is kept
    if it lies above "none" by more than `margin` standard errors; "none" otherwise. The cascade
    keeps what was compared as ``feedback_comparison_``.

    Rows without a label that are in a test part count too, by the chance that the last stage's
    calibrated score gives them: with few labels it is they who tell the candidates apart.

    Parameters
    ----------
    pass_rate : float, default=0.1
        Share of rows in (0, 1) that pass in the comparison; the rate at which the cascade will
        work.
    candidates : sequence of str, strategy or callable, default=("caught", "gain")
        What to compare with "none", each as the `feedback` of the cascade. One that leaves nothing
        to learn counts as "none".
    margin : float, default=1.0
        Standard errors >= 0 of the paired difference by which a candidate must lie above "none".
        With few caught positives the errors are large, and small gains are not found.

    Notes
    -----
    The difference is paired over the caught rows. Its standard error is that of their mean
    times ``sqrt(1 + n_splits * n_test / n_train)``, since the fits of the folds share rows, and no
    less than if one more row had changed sides.

    References
    ----------
    C. Nadeau, Y. Bengio. Inference for the generalization error. Machine Learning 52, 2003, DOI
    10.1023/A:1024068626366: the factor for shared training rows.

    Examples
    --------
    >>> from skmsc import AutoFeedback, GainFeedback
    >>> AutoFeedback(pass_rate=0.05, candidates=["caught", GainFeedback(temperature=0.5)])
    AutoFeedback(candidates=['caught', GainFeedback(temperature=0.5)],
                 pass_rate=0.05)
    """

    def __init__(
        self,
        pass_rate: float = 0.1,
        *,
        candidates: Sequence[Any] = ("caught", "gain"),
        margin: float = 1.0,
    ) -> None:
        self.pass_rate = pass_rate
        self.candidates = candidates
        self.margin = margin

    def check(self, stage_costs: StageCosts = None, unlabeled: bool = False) -> None:
        """Validate the parameters; see `check_feedback`."""
        check_number("pass_rate", self.pass_rate, "(0, 1)")
        check_number("margin", self.margin, "[0, inf)")
        if not isinstance(self.candidates, (list, tuple)) or not self.candidates:
            raise ValueError(
                f"candidates must be a list of feedbacks to compare with 'none'; got "
                f"{self.candidates!r}."
            )
        for candidate in self.candidates:
            if isinstance(candidate, AutoFeedback) or str(candidate) in ("auto", "none"):
                raise ValueError(
                    f"A candidate must be a feedback that 'none' can be compared with; got "
                    f"{candidate!r}."
                )
            check_feedback(candidate, stage_costs, unlabeled)


def _soft_decision(proba, threshold, temperature):
    """Chance that a score is taken to reach the threshold: a logistic step in log-odds."""
    tiny = 1e-12  # keeps infinite log-odds from meeting as inf - inf
    proba, threshold = np.clip(proba, tiny, 1 - tiny), np.clip(threshold, tiny, 1 - tiny)
    return expit((logit(proba) - logit(threshold)) / temperature)


def _check_common(strategy):
    """Raise unless the parameters that both strategies have are valid."""
    check_number("strength", strategy.strength, "[0, 1]")
    check_number("temperature", strategy.temperature, "(0, inf)")
    check_number("unlabeled_weight", strategy.unlabeled_weight, "[0, inf)")
