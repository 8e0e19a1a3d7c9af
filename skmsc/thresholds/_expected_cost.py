"""ExpectedCost: the cuts at which errors, and running the stages, cost least."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator

from skmsc._checks import MOST_COST, as_numbers, is_number
from skmsc.thresholds._cuts import SLACK, cut_below, tail_sums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from skmsc._typing import Floats
    from skmsc.thresholds import StageScores

# Distinct scores of each of two stages up to which all pairs of cuts are compared: 8 MB a table.
_MOST_LEVELS = 1024

# A search over several early stages also starts where they pass these shares of the positives.
_STARTS = (0.75,)


class ExpectedCost(BaseEstimator):
    """Set all cuts where errors, and on request the running of the stages, cost least.

    The cost of the rows is what the missed positives cost, plus what the false alarms cost, plus
    `stage_price` times the costs of the stages that run. It is minimised over the cuts of the
    early stages together with the cut of the last stage from which a row is an alert, since what
    it is worth to pass a row depends on what the last stage will say of it.

    What it promises: on the rows that it was set on, with two stages no other pair of cuts costs
    less (see Notes for many positives); with more no change of one early cut, with or without the
    last one, does. On new rows it is an estimate: the cheapest of many cuts looks cheaper than it
    is, the more so the fewer positives there are, and only rows exchangeable with these cost alike.

    The cut of the last stage is kept as ``alert_threshold_``, on the probability that
    `predict_proba` gives, where dismissed rows stay below it: ``alerts(X)`` tells the rows that
    reach it. `predict` stays the likeliest class, and would alert from 1/2 on, whatever errors
    cost.

    Early stages answer the negative class only, also those of an `EarlyExitClassifier`, whose
    positive class is ``classes_[1]``.

    Parameters
    ----------
    false_negative_cost : float, default=None
        Cost >= 0 of a positive that is no alert, in any unit. None: each row has its own, given
        to `fit` or `tune_thresholds` as ``false_negative_cost``, an array of shape (n_samples,):
        the amount of the transaction, say.
    false_positive_cost : float, default=None
        Cost >= 0 of a negative that is an alert, in the same unit: the time of an analyst, the
        customer's annoyance. None: as above, as ``false_positive_cost``.
    stage_price : float, default=0.0
        Price >= 0 of one unit of the estimator's ``stage_costs``, in the unit of the two costs: 1
        where stage costs are money already. 0: stages run for nothing, and of cuts that cost the
        same those are taken that pass the fewest rows.

    Notes
    -----
    Costs are sums over rows, so that each comparison is of exact counts. For two stages one table
    holds what every pair of cuts saves: passing and alerted rows, binned by both scores, and
    summed along both axes. Where there are more than 1,024 distinct scores among the positives,
    the table is of that many quantiles, and either cut is then moved to its best place, the other
    fixed, until nothing changes. With more than two stages each early cut is set so together with
    the last one, in turn, until nothing changes; of four such searches, from all rows passing or
    from cuts that pass most positives, and from the first stage on or from the last, the best
    counts.

    A positive that costs 0, and a row of weight 0, count as absent. Where an isotonic calibration
    gives rows on both sides of the last cut one probability, they are alerts together or not. A
    row of probability 0 is no alert.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skmsc import ExpectedCost, FeedbackCascadeClassifier
    >>> X, y = make_classification(1000, weights=[0.9], random_state=0)
    >>> amount = np.random.default_rng(0).lognormal(4, 1, y.size)
    >>> cascade = FeedbackCascadeClassifier(
    ...     [("screen", GaussianNB()), ("final", LogisticRegression())],
    ...     thresholds=ExpectedCost(false_positive_cost=5.0),
    ... ).fit(X, y, false_negative_cost=amount)
    >>> bool(cascade.alerts(X).sum() > cascade.predict(X).sum())
    True
    """

    needs_two_classes = True

    def __init__(
        self,
        false_negative_cost: float | None = None,
        false_positive_cost: float | None = None,
        stage_price: float = 0.0,
    ) -> None:
        self.false_negative_cost = false_negative_cost
        self.false_positive_cost = false_positive_cost
        self.stage_price = stage_price

    @property
    def row_metadata(self) -> tuple[str, ...]:
        """Names of what each row must come with."""
        names = ("false_negative_cost", "false_positive_cost")
        return tuple(name for name in names if getattr(self, name) is None)

    @property
    def needs_costs(self) -> bool:
        """Whether it needs the costs of the stages."""
        return is_number(self.stage_price) and self.stage_price > 0

    def check(self, *, n_stages: int, stage_costs: Floats | None = None) -> None:
        """Validate the parameters, for so many stages of such costs (None: unknown)."""
        for name in ("false_negative_cost", "false_positive_cost", "stage_price"):
            value = getattr(self, name)
            if value is None and name != "stage_price":
                continue
            advice = ""
            if name != "stage_price":
                advice = f", or None for costs of each row, which fit takes as {name}"
            valid = f"{name} must be a number >= 0, at most {MOST_COST:g}{advice}; got {value!r}."
            if not is_number(value):
                raise TypeError(valid)
            if not 0 <= value <= MOST_COST:
                raise ValueError(valid)
        if self.false_negative_cost == 0:
            raise ValueError(
                "false_negative_cost=0 makes it free to miss every positive, so that no row should "
                "pass; give it a cost."
            )
        if stage_costs is not None:
            self.check_known(n_stages, stage_costs)

    def check_known(self, n_stages: int, stage_costs: Floats | None) -> None:
        """Raise when running has a price and the costs are not known, or too large to add up."""
        if not self.needs_costs:
            return
        if stage_costs is None:
            raise ValueError(
                f"{self!r} needs the cost of every stage, and it could not be counted: set "
                "stage_costs, or stage_price=0."
            )
        if max(stage_costs) > MOST_COST / self.stage_price:
            raise ValueError(
                f"stage_price={self.stage_price} times the largest of the stage costs "
                f"{list(map(float, stage_costs))} must be at most {MOST_COST:g}: give them in "
                "larger units."
            )

    def per_row(
        self, given: Mapping[str, ArrayLike], sample_weight: Floats
    ) -> dict[str, NDArray[Any]]:
        """What `find_thresholds` reads of each row, from the metadata and weights of all rows."""
        return {name: check_costs(name, given[name], sample_weight) for name in self.row_metadata}

    def find_thresholds(self, scores: StageScores) -> Floats:
        """Threshold matrix for the given `StageScores`."""
        self.check_known(scores.n_stages, scores.stage_costs)
        if scores.negative is None:
            scores = scores.answering_only(0)
        gain = self._gains(scores)
        if not (gain > 0).any():
            raise ValueError(
                f"{self!r} has no positive that costs anything to miss among the {scores.y.size} "
                "rows that it is set on."
            )
        running = np.zeros(scores.n_stages)
        if self.needs_costs:
            running = self.stage_price * scores.stage_costs
        confidence = np.stack([scores.confidence(k) for k in range(scores.n_stages - 1)], axis=1)
        alert_score = scores.stage_proba[:, -1, 1 - scores.negative]
        return scores.matrix(
            cheapest_cuts(confidence, alert_score, gain, scores.sample_weight, running)
        )

    def find_alert_threshold(self, proba: Floats, scores: StageScores) -> float:
        """Probability from which alerts cost least.

        `proba` has shape (n_samples,): the positive probabilities of the rows that reach the last
        stage, nan for the others.
        """
        if scores.negative is None:
            scores = scores.answering_only(0)
        passed = ~np.isnan(proba)
        values, saved = tail_sums(proba[passed], self._gains(scores)[passed])
        best = saved >= saved.max() - SLACK * np.abs(saved).max()
        return cut_below(values, int(best.argmax()))

    def _gains(self, scores):
        """What each row saves as an alert, against none; below 0 where it is a false alarm."""
        missed, alarm = (
            scores.row_values[name] if getattr(self, name) is None else getattr(self, name)
            for name in ("false_negative_cost", "false_positive_cost")
        )
        positive = scores.y != scores.negative
        return scores.sample_weight * np.where(positive, missed, np.negative(alarm))


def check_costs(name, costs, sample_weight):
    """Costs of the rows as an array of shape (n_samples,), valid where rows have weight.

    Raises
    ------
    TypeError, ValueError
        When they are no numbers, of another length, or not valid.
    """
    shape = f"({sample_weight.size},)"
    valid = f"{name} must be numbers >= 0, at most {MOST_COST:g}, of shape {shape}, one a row"
    array = as_numbers(costs, f"{valid}; got {type(costs).__name__}.")
    if array.shape != sample_weight.shape:
        raise ValueError(f"{valid}; got shape {array.shape}.")
    wrong = ~((array >= 0) & (array <= MOST_COST)) & (sample_weight > 0)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(f"{valid}; {wrong.sum()} are not, such as {array[first]} in row {first}.")
    return array


def cheapest_cuts(confidence, alert_score, gain, weight, running):
    """Cuts of the early stages at which alerts save most, less what it costs to run the stages.

    Parameters
    ----------
    confidence : ndarray of shape (n_samples, n_early)
        A stage dismisses the rows whose confidence reaches its cut.
    alert_score : ndarray of shape (n_samples,)
        Score of the last stage; a row that reaches it is an alert from some score on.
    gain : ndarray of shape (n_samples,)
        What the row saves as an alert, weighted.
    weight : ndarray of shape (n_samples,)
        Weights.
    running : ndarray of shape (n_stages,)
        Cost of running each stage on one row.

    Returns
    -------
    cuts : ndarray of shape (n_early,)
    """
    n_early = confidence.shape[1]
    starts, orders = [np.full(n_early, np.inf)], [range(n_early)]
    if n_early > 1:
        starts += list(np.quantile(confidence[gain > 0], _STARTS, axis=0))
        orders.append(range(n_early)[::-1])
    found = [
        _search(confidence, alert_score, gain, weight, running, start.copy(), order)
        for start in starts
        for order in orders
    ]
    return max(found, key=lambda one: one[0])[1]


def _search(confidence, alert_score, gain, weight, running, cuts, order):
    """What is saved, and the cuts, once none of the stages, taken in order, moves its own."""
    n_early, best = cuts.size, -np.inf
    while True:
        for k in order:
            passes = confidence < cuts
            waiting = passes[:, :k].all(axis=1)
            goes_on, ahead = np.ones(weight.size, dtype=bool), np.full(weight.size, running[k + 1])
            for j in range(k + 1, n_early):
                goes_on &= passes[:, j]
                ahead += running[j + 1] * goes_on
            cuts[k] = _cheapest_pair(
                confidence[waiting, k],
                alert_score[waiting],
                (gain * goes_on)[waiting],
                (weight * ahead)[waiting],
            )
        saved = _most_saved(confidence, alert_score, gain, weight, running, cuts)
        if saved <= best + SLACK * np.abs(gain).sum():
            return saved, cuts
        best = saved


def _most_saved(confidence, alert_score, gain, weight, running, cuts):
    """What is saved at such cuts of the early stages, and the best one of the last."""
    passes = np.logical_and.accumulate(confidence < cuts, axis=1)
    reached = passes[:, -1]
    _, saved = tail_sums(alert_score[reached], gain[reached])
    return saved.max() - weight @ passes @ running[1:]


def _cheapest_pair(confidence, alert_score, gain, spent):
    """Cut of one early stage that is best together with the best cut of the last stage.

    Of the rows that wait for the stage: `gain` is what a row saves as an alert, `spent` what it
    costs to pass it.
    """
    if not confidence.size:
        return np.inf
    # The rows with the lowest of both are passed and alerted. It is best to stop at a row of gain.
    both, useful = (confidence, -alert_score), gain > 0
    levels = [np.unique(part[useful]) for part in both]
    few = [_thinned(part) for part in levels]
    slack = SLACK * np.abs(gain).sum()
    saved, passed, alerted = _best_pair(both, few, gain, spent)
    if saved <= slack:
        passed = -np.inf
    elif any(part.size > _MOST_LEVELS for part in levels):
        passed = _moved(both, levels, gain, spent, (saved, passed, alerted))
    above = confidence > passed
    if not above.any():
        return np.inf
    if above.all():
        return confidence.min()
    return cut_below(np.array([confidence[above].min(), confidence[~above].max()]), 1)


def _thinned(levels):
    """At most so many of the levels, evenly by rank."""
    if levels.size <= _MOST_LEVELS:
        return levels
    return levels[np.linspace(0, levels.size - 1, _MOST_LEVELS).round().astype(np.intp)]


def _best_pair(both, levels, gain, spent):
    """Most that any pair of levels saves, and the pair; of equals the one that passes least."""
    n_rows, n_columns = (part.size for part in levels)
    if not n_rows:
        return 0.0, -np.inf, -np.inf
    i, j = (np.searchsorted(of, part) for of, part in zip(levels, both, strict=True))
    inside = (i < n_rows) & (j < n_columns)
    cells = np.bincount(i[inside] * n_columns + j[inside], gain[inside], n_rows * n_columns)
    table = cells.reshape(n_rows, n_columns).cumsum(axis=0).cumsum(axis=1)
    table -= np.bincount(i, spent, n_rows + 1)[:-1].cumsum()[:, None]
    best = int((table >= table.max() - SLACK * np.abs(gain).sum()).argmax())
    return table.flat[best], levels[0][best // n_columns], levels[1][best % n_columns]


def _moved(both, levels, gain, spent, best):
    """Level to pass up to, once either level is at its best place for the other; `best` is one."""
    saved, passed, alerted = best
    while True:
        _, passed = _best_level(levels[0], both[0], gain * (both[1] <= alerted) - spent)
        rows = both[0] <= passed
        more, alerted = _best_level(levels[1], both[1][rows], gain[rows])
        more -= spent[rows].sum()
        if more <= saved + SLACK * np.abs(gain).sum():
            return passed
        saved = more


def _best_level(levels, values, gain):
    """Most that is gained by the rows with values up to a level, and the first level for it."""
    sums = np.bincount(np.searchsorted(levels, values), gain, levels.size + 1)[:-1].cumsum()
    best = int((sums >= sums.max() - SLACK * np.abs(gain).sum()).argmax())
    return sums[best], levels[best]
