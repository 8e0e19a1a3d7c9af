"""Threshold policies: the scores of all stages in, a matrix of thresholds out.

``thresholds[k, c]`` is the score of class c at which stage k answers a row; `inf` means never, and
the last row is `-inf`, since the last stage always answers. A policy decides how confident an early
stage must be. For two classes an early stage may answer the negative class only and its confidence
is that class's score; for more it may answer any class and its confidence is its largest score.

Cuts lie midway between neighbouring distinct confidences. Rows that tie at a cut stay on the cheap
side, so that a budget is never exceeded on the rows that it was set on.
"""

import warnings
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from scipy.stats import binom
from sklearn.base import BaseEstimator

__all__ = ["Agreement", "CostBudget", "PassBudget", "RecallFloor", "StageScores"]

# Sums of weights carry rounding; a budget of .29 on 100 rows means 29 rows.
_SLACK = 1e-9

_NEEDS_UNTOUCHED = (
    "{!r} promises its confidence only on rows that no stage, calibrator or catch threshold saw: "
    "set validation_fraction, or call tune_thresholds with new rows."
)


def reaches(proba, thresholds):
    """Whether a row's score reaches the threshold of some class.

    `proba` has shape (..., n_classes) and `thresholds` broadcasts against it; the result has shape
    (...).
    """
    return (proba >= thresholds).any(axis=-1)


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
    A policy of one's own has a method that turns these into a threshold matrix:

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


def fit_thresholds(thresholds, scores):
    """Threshold matrix from a policy, a number, or an array of numbers.

    Parameters
    ----------
    thresholds : policy, float, array-like or None
        As in the estimators; see `check_policy` for what is valid. None keeps quality: for two
        classes a `RecallFloor` of .99 of the caught positives with a cap on the pass rate of .2,
        or twice the share of caught positives where they are common; for more, `Agreement(0.01)`.
    scores : StageScores
        The rows to learn from; numbers do not need them.

    Returns
    -------
    matrix : ndarray of shape (n_stages, n_classes)

    Raises
    ------
    ValueError
        When the policy cannot be met, or needs what the scores do not have.
    """
    if scores.n_stages == 1:
        return np.full(scores.stage_proba.shape[1:], -np.inf)
    if thresholds is None:
        thresholds = _default_policy(scores)
    if not hasattr(thresholds, "find_thresholds"):
        return _matrix_from_numbers(np.asarray(thresholds, dtype=np.float64), scores)
    if getattr(thresholds, "confidence", None) is not None:
        _check_untouched(thresholds, scores)
    _warn_about_ties(scores)
    return thresholds.find_thresholds(scores)


def check_policy(thresholds, *, n_stages, n_classes, untouched):
    """Validate a `thresholds` argument before any work is done.

    `untouched` tells whether the policy will see rows that nothing was fitted on.

    Valid are: an object with a ``find_thresholds(scores)`` method (its ``check()`` is called where
    it has one); a number; one number for each of the n_stages - 1 early stages; a matrix of shape
    (n_stages, n_classes), whose last row must be -inf.
    """
    if thresholds is None:
        return
    if hasattr(thresholds, "find_thresholds") and not isinstance(thresholds, type):
        if hasattr(thresholds, "check"):
            thresholds.check()
        if n_classes > 2 and isinstance(thresholds, RecallFloor):
            raise ValueError(f"{thresholds!r} needs two classes; y has {n_classes}.")
        if getattr(thresholds, "confidence", None) is not None and not untouched:
            raise ValueError(_NEEDS_UNTOUCHED.format(thresholds))
        return
    valid = (
        f"a number, {n_stages - 1} numbers (one for each early stage), a matrix of shape "
        f"({n_stages}, {n_classes}) with -inf in its last row, a policy such as PassBudget(0.1), "
        "or None"
    )
    try:
        values = np.asarray(thresholds, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"thresholds must be {valid}; got {thresholds!r}.") from None
    if np.isnan(values).any():
        raise ValueError(f"thresholds must not hold nan; got {thresholds!r}.")
    if values.ndim == 2 and values.shape == (n_stages, n_classes):
        if not (values[-1] == -np.inf).all():
            raise ValueError(f"The last row of thresholds must be -inf; got {values[-1]}.")
    elif values.shape not in ((), (n_stages - 1,)):
        raise ValueError(f"thresholds must be {valid}; got an array of shape {values.shape}.")


def _default_policy(scores):
    """Policy that keeps quality where the user names none."""
    if scores.negative is None:
        return Agreement(0.01)
    # A fifth of the rows is plenty for rare positives and cannot hold common ones.
    share = np.average(scores.caught, weights=scores.sample_weight)
    return RecallFloor(0.99, max_pass_rate=float(np.clip(2 * share, 0.2, 1.0)))


def _matrix_from_numbers(values, scores):
    """Threshold matrix from numbers in the user's terms."""
    if values.ndim == 2:
        return values.copy()
    cuts = np.broadcast_to(values, (scores.n_stages - 1,))
    if scores.negative is not None:
        # The user says: pass when the positive score is above t. The negative score is 1 minus
        # it, up to a rounding that must not let a row at t pass.
        cuts = np.nextafter(1.0 - cuts, -np.inf)
    return scores.matrix(cuts)


def _check_untouched(policy, scores):
    """Refuse a guarantee on rows that something was fitted on, or that are not equal draws."""
    if not scores.untouched:
        raise ValueError(_NEEDS_UNTOUCHED.format(policy))
    if np.ptp(scores.sample_weight) > _SLACK * scores.sample_weight.max():
        raise ValueError(
            f"{policy!r} promises its confidence for equally weighted rows only; got sample_weight "
            f"between {scores.sample_weight.min()} and {scores.sample_weight.max()}."
        )


def _warn_about_ties(scores):
    """Warn of early stages whose scores are too coarse to be cut where wanted."""
    for k, name in enumerate(scores.stage_names[:-1]):
        n_distinct = np.unique(scores.confidence(k)).size
        if n_distinct < 20 <= scores.y.size:
            warnings.warn(
                f"Stage {name!r} gives only {n_distinct} distinct scores, and tied rows are cut "
                "together: the share of rows that passes can be far below the one asked for.",
                UserWarning,
                stacklevel=2,
            )


def _tail_sums(confidence, *loads):
    """Distinct confidences, highest first, and the sums of each load over the rows down to each.

    Returns arrays of shape (n_distinct,) and, for each load, (n_distinct + 1,): entry j sums the
    rows with the j highest confidences, those that are answered when the cut is below them.
    """
    values, inverse = np.unique(confidence, return_inverse=True)
    sums = [
        np.concatenate([[0.0], np.cumsum(np.bincount(inverse, load, values.size)[::-1])])
        for load in loads
    ]
    return values[::-1], *sums


def _cut_below(values, j):
    """Cut that answers the j highest of the distinct confidences, midway to the next."""
    if j == 0:
        return np.inf
    if j == values.size:
        return values[-1]
    midway = values[j] + (values[j - 1] - values[j]) / 2
    return midway if midway > values[j] else values[j - 1]


def _cut_for_pass(confidence, weight, most):
    """Highest cut at which rows of at most this weight pass; -inf when none may."""
    values, answered = _tail_sums(confidence, weight)
    passing = answered[-1] - answered
    j = np.argmax(passing <= most + _SLACK * answered[-1])
    return -np.inf if j == values.size else _cut_below(values, j)


def _cut_for_loss(confidence, loss, most):
    """Lowest cut at which the answered rows lose at most this much."""
    values, lost = _tail_sums(confidence, loss)
    j = np.flatnonzero(lost <= most + _SLACK * lost[-1])[-1]
    return _cut_below(values, j)


def _cuts_by_loss(scores, loss_of, most):
    """One cut for each early stage; together the stages lose at most `most`.

    Each stage may use its equal part of the allowance, and what the stages before it left over.
    """
    waiting = np.ones(scores.y.size, dtype=bool)
    n_early, spent, cuts = scores.n_stages - 1, 0.0, []
    for k in range(n_early):
        confidence, loss = scores.confidence(k), loss_of(k)
        allowed = most * (k + 1) / n_early - spent
        cut = _cut_for_loss(confidence[waiting], loss[waiting], allowed)
        cuts.append(cut)
        answered = waiting & (confidence >= cut)
        spent += loss[answered].sum()
        waiting &= ~answered
        if not waiting.any():
            return cuts + [np.inf] * (n_early - k - 1)
    return cuts


def _cuts_by_pass(scores, rates):
    """One cut for each early stage, so that at most ``rates[k]`` of all rows pass stage k."""
    waiting = np.ones(scores.y.size, dtype=bool)
    total, cuts = scores.sample_weight.sum(), []
    for k, rate in enumerate(rates):
        confidence = scores.confidence(k)
        if not waiting.any():
            cuts.append(np.inf)
            continue
        cut = _cut_for_pass(confidence[waiting], scores.sample_weight[waiting], rate * total)
        cuts.append(cut)
        waiting &= confidence < cut
    return cuts


def _geometric(rate, n_early):
    """Pass rates that fall by one factor from stage to stage and end at `rate`."""
    return rate ** (np.arange(1, n_early + 1) / n_early)


def _check_share(policy, name, *, low_open=False, optional=False):
    """Raise unless the attribute is a number in [0, 1] or (0, 1]."""
    value = getattr(policy, name)
    if optional and value is None:
        return
    interval = "(0, 1]" if low_open else "[0, 1]"
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} of {policy!r} must be a number in {interval}; got {value!r}.")
    if not 0 <= value <= 1 or (low_open and value == 0):
        raise ValueError(f"{name} of {policy!r} must be in {interval}; got {value!r}.")


class PassBudget(BaseEstimator):
    """Let at most a given share of the rows reach the last stage.

    What it promises: on the rows that it was set on, the (weighted) share that reaches the last
    stage is at most `max_pass_rate`. On new rows it is a quantile estimated from these, and moves
    with the data.

    Parameters
    ----------
    max_pass_rate : float or sequence of float, default=0.1
        Share of rows in [0, 1] that may reach the last stage. With more than two stages the rates
        of the stages between fall by one factor from stage to stage; a sequence of n_stages - 1
        rates, one for each later stage, sets them one by one.

    Examples
    --------
    >>> from skmsc import PassBudget
    >>> PassBudget(max_pass_rate=0.05)
    PassBudget(max_pass_rate=0.05)
    """

    def __init__(self, max_pass_rate=0.1):
        self.max_pass_rate = max_pass_rate

    def check(self):
        """Validate the parameters."""
        if isinstance(self.max_pass_rate, (Real, str)) or self.max_pass_rate is None:
            _check_share(self, "max_pass_rate")
            return
        rates = np.asarray(self.max_pass_rate, dtype=np.float64)
        if rates.ndim != 1 or not ((rates >= 0) & (rates <= 1)).all():
            raise ValueError(
                "max_pass_rate must be a number in [0, 1] or a sequence of such numbers; got "
                f"{self.max_pass_rate!r}."
            )

    def find_thresholds(self, scores):
        """Threshold matrix for the given `StageScores`."""
        n_early = scores.n_stages - 1
        if np.ndim(self.max_pass_rate) == 0:
            rates = _geometric(self.max_pass_rate, n_early)
        elif len(self.max_pass_rate) == n_early:
            rates = self.max_pass_rate
        else:
            raise ValueError(
                f"max_pass_rate must hold one rate for each of the {n_early} later stages; got "
                f"{self.max_pass_rate!r}."
            )
        return scores.matrix(_cuts_by_pass(scores, rates))


class CostBudget(BaseEstimator):
    """Keep the mean cost of a row at or below a given amount.

    What it promises: on the rows that it was set on, the (weighted) mean cost is at most
    `max_cost`. It needs the costs of the stages.

    Parameters
    ----------
    max_cost : float
        Mean cost of a row, in the units of the estimator's ``stage_costs``. The first stage runs
        on every row, so it must be at least that stage's cost.

    Examples
    --------
    >>> from skmsc import CostBudget
    >>> CostBudget(max_cost=2.5)
    CostBudget(max_cost=2.5)
    """

    def __init__(self, max_cost):
        self.max_cost = max_cost

    def check(self):
        """Validate the parameters."""
        if not isinstance(self.max_cost, Real) or isinstance(self.max_cost, bool):
            raise TypeError(f"max_cost must be a number >= 0; got {self.max_cost!r}.")
        if not self.max_cost >= 0:
            raise ValueError(f"max_cost must be a number >= 0; got {self.max_cost!r}.")

    def find_thresholds(self, scores):
        """Threshold matrix for the given `StageScores`."""
        costs = scores.stage_costs
        if costs is None:
            raise ValueError(
                f"{self!r} needs the cost of every stage, and it could not be counted: set "
                "stage_costs (measure_costs(X) gives seconds per row)."
            )
        if costs[0] > self.max_cost * (1 + _SLACK):
            raise ValueError(
                f"max_cost={self.max_cost} cannot be met: the first stage runs on every row and "
                f"costs {costs[0]}."
            )
        n_early = scores.n_stages - 1
        # One family of settings, from cheap to dear, indexed by the pass rate of the last stage:
        # the planned cost grows with it, so bisection finds the dearest one within the budget.
        low, high = 0.0, 1.0
        for _ in range(60):
            rate = (low + high) / 2
            planned = costs[0] + _geometric(rate, n_early) @ costs[1:]
            low, high = (rate, high) if planned <= self.max_cost else (low, rate)
        rate = 1.0 if costs.sum() <= self.max_cost * (1 + _SLACK) else low
        return scores.matrix(_cuts_by_pass(scores, _geometric(rate, n_early)))


class RecallFloor(BaseEstimator):
    """Let through at least a given share of the positives, at the lowest cost.

    What it promises: on the rows that it was set on, at least `min_recall` of the (weighted)
    positives reach the last stage, unless `max_pass_rate` binds, which is warned of. With
    `confidence`, for new rows exchangeable with those that it was set on: the expected share that
    reaches the last stage is at least `min_recall` with that confidence over the draw of the rows.
    Fraud drifts: rows of another month are not exchangeable with these.

    Parameters
    ----------
    min_recall : float, default=0.99
        Share in (0, 1].
    of : {"caught", "positives"}, default="caught"
        Share of what: of the positives that the last stage would catch (its score reaches the
        catch threshold), or of all positives. The second can be costly: to keep a positive that
        no stage recognises, nearly every row must pass.
    max_pass_rate : float, default=None
        Cap on the share of rows that reach the last stage; where the floor needs more, the cap
        holds and a warning tells the share of positives that is kept.
    confidence : float, default=None
        Confidence in (0, 1), such as 0.95. None sets the floor on the sample itself. Needs rows
        that no stage, calibrator or catch threshold saw, and enough positives among them:
        see Notes.

    Notes
    -----
    With n positives, reject below the k-th smallest of their scores, with k the largest number for
    which a binomial variable of n trials and chance 1 - `min_recall` is at most k - 1 with
    probability at most 1 - `confidence`: the usual tolerance bound from order statistics (S. S.
    Wilks, Determination of sample sizes for setting tolerance limits, Annals of Mathematical
    Statistics 12, 1941). It is impossible for fewer than
    log(1 - confidence) / log(min_recall) positives: 59 for a recall of .95 and 299 for .99 at a
    confidence of .95. With more than two stages each stage gets an equal part of the allowed
    loss and of the allowed error (union bound).

    Examples
    --------
    >>> from skmsc import RecallFloor
    >>> RecallFloor(min_recall=0.95, max_pass_rate=0.2)
    RecallFloor(max_pass_rate=0.2, min_recall=0.95)
    """

    def __init__(self, min_recall=0.99, of="caught", max_pass_rate=None, confidence=None):
        self.min_recall = min_recall
        self.of = of
        self.max_pass_rate = max_pass_rate
        self.confidence = confidence

    def check(self):
        """Validate the parameters."""
        _check_share(self, "min_recall", low_open=True)
        _check_share(self, "max_pass_rate", optional=True)
        _check_confidence(self)
        if self.of not in ("caught", "positives"):
            raise ValueError(f"of must be 'caught' or 'positives'; got {self.of!r}.")
        if self.confidence is not None and self.min_recall == 1:
            raise ValueError("min_recall=1 cannot be promised with any confidence; lower it.")

    def find_thresholds(self, scores):
        """Threshold matrix for the given `StageScores`."""
        kept = scores.caught if self.of == "caught" else scores.y != scores.negative
        loss = scores.sample_weight * kept
        total = loss.sum()
        if total == 0:
            raise ValueError(
                f"{self!r} has no {'caught positive' if self.of == 'caught' else 'positive'} to "
                f"keep among the {scores.y.size} rows that it is set on."
            )
        if self.confidence is None:
            cuts = _cuts_by_loss(scores, lambda k: loss, (1 - self.min_recall) * total)
        else:
            cuts = self._certified_cuts(scores, kept)
        thresholds = scores.matrix(cuts)
        cap = self.max_pass_rate
        if cap is None or scores.pass_rates(thresholds)[-1] <= cap + _SLACK:
            return thresholds
        thresholds = PassBudget(cap).find_thresholds(scores)
        reached = eager_stage(scores.stage_proba, thresholds) == scores.n_stages - 1
        warnings.warn(
            f"A recall of {self.min_recall} needs more than max_pass_rate={cap} of the rows to "
            f"pass: the cap holds, and {loss[reached].sum() / total:.3f} of the "
            f"{'caught ' if self.of == 'caught' else ''}positives reach the last stage.",
            UserWarning,
            stacklevel=2,
        )
        return thresholds

    def _certified_cuts(self, scores, kept):
        """One cut for each early stage by order statistics of the kept positives' confidences."""
        n_early, n_kept = scores.n_stages - 1, int(kept.sum())
        share, error = (1 - self.min_recall) / n_early, (1 - self.confidence) / n_early
        # k - 1 positives may be lost: the largest count that a loss above `share` would undercut
        # with a chance of at most `error`.
        n_lost = int(binom.ppf(error, n_kept, share))
        if binom.cdf(n_lost, n_kept, share) > error:
            n_lost -= 1
        if n_lost < 0:
            needed = caught_positives_needed(self, scores.n_stages)
            raise ValueError(
                f"{self!r} cannot be promised: it needs {needed} "
                f"{'caught ' if self.of == 'caught' else ''}positives among the rows that it is "
                f"set on; got {n_kept}."
            )
        return [_cut_for_loss(scores.confidence(k), kept * 1.0, n_lost) for k in range(n_early)]


class Agreement(BaseEstimator):
    """Answer early as long as the answer is the one that the last stage would give.

    What it promises: on the rows that it was set on, at most `max_disagreement` of the (weighted)
    rows get another class than the last stage's most likely one. It needs no labels.

    Parameters
    ----------
    max_disagreement : float, default=0.01
        Share of rows in [0, 1].

    Examples
    --------
    >>> from skmsc import Agreement
    >>> Agreement(max_disagreement=0.02)
    Agreement(max_disagreement=0.02)
    """

    def __init__(self, max_disagreement=0.01):
        self.max_disagreement = max_disagreement

    def check(self):
        """Validate the parameters."""
        _check_share(self, "max_disagreement")

    def find_thresholds(self, scores):
        """Threshold matrix for the given `StageScores`."""
        weight = scores.sample_weight
        allowed = self.max_disagreement * weight.sum()
        cuts = _cuts_by_loss(scores, lambda k: weight * scores.disagrees(k), allowed)
        return scores.matrix(cuts)


def caught_positives_needed(policy, n_stages):
    """Fewest positives from which a `RecallFloor` with confidence can be promised; 0 without."""
    if getattr(policy, "confidence", None) is None or not isinstance(policy, RecallFloor):
        return 0
    n_early = max(n_stages - 1, 1)
    share, error = (1 - policy.min_recall) / n_early, (1 - policy.confidence) / n_early
    return int(np.ceil(np.log(error) / np.log1p(-share) - _SLACK))


def _check_confidence(policy):
    """Raise unless `confidence` is None or a number in (0, 1)."""
    value = policy.confidence
    if value is None:
        return
    if not isinstance(value, Real) or isinstance(value, (bool, Integral)) or not 0 < value < 1:
        raise ValueError(f"confidence must be None or a number in (0, 1); got {value!r}.")
