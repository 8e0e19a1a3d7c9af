"""Feedback: what the later stages tell an earlier one about which rows matter.

A strategy turns the out-of-fold scores of the later stages into a target and a weight for each
training row of the earlier stage. The published idea, training in the reverse of the working order
with sample weights from the later stage, is that of arXiv 2311.06823; the formulas are our own
derivation from the cost of the cascade and are not claimed to be the paper's.

Notation: rows i; y = 1 for a positive; stage j passes a row on with the soft decision q_j; the last
stage's decision is q = sigma((logit p - logit t) / T) for its score p, catch threshold t and
temperature T, so q tends to 1[p >= t] as T tends to 0.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from sklearn.base import BaseEstimator

from skmsc._checks import as_numbers, is_number

__all__ = ["CaughtFeedback", "GainFeedback"]

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
    """Targets and weights of an earlier stage's training rows.

    Parameters
    ----------
    feedback : strategy, "caught", "gain" or callable
        A checked `feedback` argument other than "none".
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
    if isinstance(feedback, str):
        feedback = {"caught": CaughtFeedback, "gain": GainFeedback}[feedback]()
    if hasattr(feedback, "weigh"):
        return feedback.weigh(signal)
    weight = feedback(signal.positive, signal.later_proba, signal.catch_threshold)
    if isinstance(weight, np.ndarray) and weight.dtype.kind == "b":
        weight = weight.astype(np.float64)
    weight = as_numbers(
        weight,
        "The feedback callable must return finite weights >= 0, one for each of "
        f"{signal.positive.size} rows; got {type(weight).__name__}.",
    )
    if weight.shape != signal.positive.shape:
        raise ValueError(
            f"The feedback callable must return weights of shape {signal.positive.shape}; got "
            f"shape {weight.shape}."
        )
    if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise ValueError(
            "The feedback callable must return finite weights >= 0, not all of them 0; got values "
            f"between {weight.min()} and {weight.max()}."
        )
    return signal.positive, weight


def check_feedback(feedback, stage_costs=None):
    """Validate a `feedback` argument before any work is done; costs None: not given."""
    if isinstance(feedback, str) and feedback in ("caught", "gain", "none"):
        return
    if hasattr(feedback, "weigh") and not isinstance(feedback, type):
        if hasattr(feedback, "check"):
            feedback.check(stage_costs)
        return
    if isinstance(feedback, (str, type)) or not callable(feedback):
        raise ValueError(
            "feedback must be 'caught', 'gain', 'none', a strategy such as CaughtFeedback(), or a "
            f"callable (positive, later_proba, catch_threshold) -> weights; got {feedback!r}."
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


def find_catch_threshold(catch_threshold, proba, rows, positive):
    """Score of the last stage from which a positive counts as caught; None without positives.

    `proba` are the last stage's out-of-fold scores of the `TrainingRows`, `positive` the code of
    the positive class or None.
    """
    if positive is None:
        return None
    if not isinstance(catch_threshold, str):
        return float(catch_threshold)
    if catch_threshold == "argmax":
        return 0.5
    scored = rows.fitter.scored
    is_positive = rows.fitter.codes[scored] == positive
    return best_f1_cut(is_positive, proba[scored, positive], rows.weight[scored])


def feed_back(feedback, later_fits, rows, positive, catch_threshold, stage_costs):
    """What later stages want an earlier one to be trained on.

    Parameters
    ----------
    feedback : strategy, "caught", "gain" or callable
        A checked `feedback` argument other than "none".
    later_fits : list of CrossFit
        The later stages in working order.
    rows : TrainingRows
        Rows that have no out-of-fold scores count as they are.
    positive : int
        Code of the positive class of two.
    catch_threshold : float
        Score at which the last stage catches.
    stage_costs : ndarray of shape (n_stages,) or None
        Costs of all stages, as given.

    Returns
    -------
    wanted : ndarray of shape (n_samples,)
        Class codes: the positive one for the rows that the stage should pass.
    weight : ndarray of shape (n_samples,)
        Weights, before the caller's are multiplied in.

    Raises
    ------
    ValueError
        When the weights of a callable leave one class.
    """
    codes, scored = rows.fitter.codes, rows.fitter.scored
    signal = LaterStages(
        positive=codes[scored] == positive,
        later_proba=np.column_stack([fit.proba[scored, positive] for fit in later_fits]),
        catch_threshold=catch_threshold,
        sample_weight=rows.weight[scored],
        later_costs=None if stage_costs is None else stage_costs[-len(later_fits) :],
    )
    wanted, weight = codes.copy(), np.ones(codes.size)
    passes, weight[scored] = feedback_for(feedback, signal)
    wanted[scored] = np.where(passes, positive, 1 - positive)
    if rows.fitter.can_train(wanted, weight > 0):
        return wanted, weight
    if callable(feedback):
        raise ValueError(
            f"The weights of feedback={feedback!r} are 0 for a whole class in some training part "
            "of cv, which leaves nothing to learn."
        )
    warnings.warn(
        f"By feedback={feedback!r} it pays, in some training part of cv, to pass every row "
        "or none, which leaves nothing to learn: the stage is trained without feedback. Consider "
        "other costs or another catch_threshold.",
        UserWarning,
        stacklevel=3,
    )
    return codes, np.ones(codes.size)


class CaughtFeedback(BaseEstimator):
    """Positives count in proportion to the chance that the last stage catches them.

    A positive that the last stage misses is lost whether it is passed or not, so an earlier stage
    need not learn to pass it. Targets stay the true labels, negatives count alike, and the weights
    have mean 1 within each class. Feedback can only help where the last stage errs.

    Parameters
    ----------
    strength : float, default=1.0
        Share of the feedback in the weight, in [0, 1]: ``(1 - strength) + strength * w``.
    temperature : float, default=1.0
        Softness T > 0 of the last stage's decision, on the scale of its log-odds.

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

    def __init__(self, strength=1.0, temperature=1.0):
        self.strength = strength
        self.temperature = temperature

    def check(self, stage_costs=None):
        """Validate the parameters, for stages of such costs (None: not given)."""
        _check_strength_and_temperature(self)

    def weigh(self, signal):
        """Targets and weights from a `LaterStages`; both of shape (n_samples,)."""
        positive = signal.positive
        caught = _soft_decision(signal.later_proba[:, -1], signal.catch_threshold, self.temperature)
        # A positive's weight is the chance that the last stage catches it, scaled so that the
        # positives keep their joint weight; a negative's is 1.
        weight = np.ones(positive.size)
        mean = np.average(caught[positive], weights=signal.sample_weight[positive])
        if mean > 0:
            weight[positive] = caught[positive] / mean
        return positive, (1 - self.strength) + self.strength * weight


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

    Notes
    -----
    Let ``V_j`` be the cost that a row still causes when it reaches stage j, ``c_j`` the cost of
    running it and ``q_j`` its soft decision to pass (for the last stage: to call it positive).
    After the last stage ``V = C_FP (1 - y)`` for a row called positive; before,
    ``V_j = c_j + q_j V_{j+1} + (1 - q_j) C_FN y``. Rejecting a row at the stage before j costs
    ``C_FN y``, so passing it gains ``D = C_FN y - V_j``: the target is ``D > 0``, the weight
    ``|D|``, scaled to mean 1. An intermediate stage trained by gain passes at a score of 1/2.

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

    def __init__(self, strength=1.0, temperature=1.0, error_costs=None):
        self.strength = strength
        self.temperature = temperature
        self.error_costs = error_costs

    def check(self, stage_costs=None):
        """Validate the parameters, for stages of such costs (None: not given)."""
        _check_strength_and_temperature(self)
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

    def weigh(self, signal):
        """Targets and weights from a `LaterStages`; both of shape (n_samples,)."""
        gain = self.gain(signal)
        target, weight = gain > 0, np.abs(gain)
        mean = np.average(weight, weights=signal.sample_weight)
        weight = weight / mean if mean > 0 else np.ones(weight.size)
        return target, (1 - self.strength) + self.strength * weight

    def gain(self, signal):
        """Gain of passing each row, ndarray of shape (n_samples,), in the units of the costs."""
        (cost_fn, cost_fp), later_costs = self._costs(signal)
        y = signal.positive.astype(np.float64)
        n_later = signal.later_proba.shape[1]
        value = cost_fp * (1 - y)  # of a row that the last stage calls positive
        for j in reversed(range(n_later)):
            # The last stage decides at the catch threshold. A stage between was trained on
            # 1[gain > 0] with weight |gain|, so it should pass a row at a score of 1/2.
            cut = signal.catch_threshold if j == n_later - 1 else 0.5
            q = _soft_decision(signal.later_proba[:, j], cut, self.temperature)
            value = later_costs[j] + q * value + (1 - q) * cost_fn * y
        return cost_fn * y - value

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


def _soft_decision(proba, threshold, temperature):
    """Chance that a score is taken to reach the threshold: a logistic step in log-odds."""
    tiny = 1e-12  # keeps infinite log-odds from meeting as inf - inf
    proba, threshold = np.clip(proba, tiny, 1 - tiny), np.clip(threshold, tiny, 1 - tiny)
    return expit((logit(proba) - logit(threshold)) / temperature)


def _check_strength_and_temperature(strategy):
    """Raise unless 0 <= strength <= 1 and temperature > 0."""
    strength, temperature = strategy.strength, strategy.temperature
    if not is_number(strength) or not 0 <= strength <= 1:
        raise ValueError(f"strength must be a number in [0, 1]; got {strength!r}.")
    if not is_number(temperature) or not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be a finite number > 0; got {temperature!r}.")
