"""Policies: each turns `StageScores` into a threshold matrix and states what it promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import binom
from sklearn.base import BaseEstimator

from skmsc._acting import eager_stage
from skmsc._checks import (
    as_numbers,
    check_bool,
    check_choice,
    check_number,
    is_number,
    warn,
)
from skmsc.thresholds._cuts import (
    SLACK,
    cut_for_loss,
    cuts_by_agreement,
    cuts_by_class,
    cuts_by_loss,
    cuts_by_pass,
    geometric,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skmsc._typing import Floats
    from skmsc.thresholds import StageScores


class PassBudget(BaseEstimator):
    """Let at most a given share of the rows reach the last stage.

    What it promises: on the rows that it was set on, the (weighted) share that reaches the last
    stage is at most `max_pass_rate`. On new rows it is a quantile estimated from these: rows
    exchangeable with them pass about as often, and others, of another month, may not.

    Parameters
    ----------
    max_pass_rate : float or sequence of float, default=0.1
        Share of rows in [0, 1] that may reach the last stage. A sequence of n_stages - 1 rates, one
        for each later stage, sets them one by one.
    spread : {"geometric", "agreement"}, default=None
        Which stages answer the others, with more than two stages. "geometric": the pass rates fall
        by one factor from stage to stage. "agreement": a stage answers when the chance that the
        last would answer otherwise, a function of the confidence that is fitted for each stage, is
        worth less than what the next stage costs, at one price for all stages (equal costs where
        they are not known). None: "agreement" in an `EarlyExitClassifier`, "geometric" in a
        cascade.

    Examples
    --------
    >>> from skmsc import PassBudget
    >>> PassBudget(max_pass_rate=0.05)
    PassBudget(max_pass_rate=0.05)
    """

    needs_labels = False

    def __init__(
        self,
        max_pass_rate: float | Sequence[float] = 0.1,
        spread: Literal["geometric", "agreement"] | None = None,
    ) -> None:
        self.max_pass_rate = max_pass_rate
        self.spread = spread

    @property
    def needs_last_stage(self) -> bool:
        """Whether it looks at the last stage's scores, too."""
        return self.spread == "agreement"

    def check(self, *, n_stages: int, stage_costs: Floats | None = None) -> None:
        """Validate the parameters, for so many stages of such costs (None: unknown)."""
        check_choice("spread", self.spread, ("geometric", "agreement", None))
        if is_number(self.max_pass_rate):
            check_share(self, "max_pass_rate")
            return
        message = (
            f"max_pass_rate must be a number in [0, 1] or {n_stages - 1} such numbers, one for "
            f"each later stage; got {self.max_pass_rate!r}."
        )
        rates = as_numbers(self.max_pass_rate, message)
        if rates.shape != (n_stages - 1,) or not ((rates >= 0) & (rates <= 1)).all():
            raise ValueError(message)

    def find_thresholds(self, scores: StageScores) -> Floats:
        """Threshold matrix for the given `StageScores`."""
        n_early, rates = scores.n_stages - 1, self.max_pass_rate
        if np.ndim(rates) == 0:
            if _spreads_by_agreement(self, scores):
                weight = scores.sample_weight

                def pass_rate(stage):
                    return weight[stage == n_early].sum() / weight.sum()

                return scores.matrix(cuts_by_agreement(scores, pass_rate, rates))
            rates = geometric(rates, n_early)
        return scores.matrix(cuts_by_pass(scores, rates))


class CostBudget(BaseEstimator):
    """Keep the mean cost of a row at or below a given amount.

    What it promises: on the rows that it was set on, the (weighted) mean cost is at most
    `max_cost`; new rows exchangeable with them cost about as much. It needs the costs of the
    stages.

    Parameters
    ----------
    max_cost : float
        Mean cost of a row, in the units of the estimator's ``stage_costs``. The first stage runs
        on every row, so it must be at least that stage's cost.
    spread : {"geometric", "agreement"}, default=None
        As in `PassBudget`.

    Examples
    --------
    >>> from skmsc import CostBudget
    >>> CostBudget(max_cost=2.5)
    CostBudget(max_cost=2.5)
    """

    needs_costs = True
    needs_labels = False

    def __init__(
        self, max_cost: float, spread: Literal["geometric", "agreement"] | None = None
    ) -> None:
        self.max_cost = max_cost
        self.spread = spread

    @property
    def needs_last_stage(self) -> bool:
        """Whether it looks at the last stage's scores, too."""
        return self.spread == "agreement"

    def check(self, *, n_stages: int, stage_costs: Floats | None = None) -> None:
        """Validate the parameters, for so many stages of such costs (None: unknown)."""
        check_choice("spread", self.spread, ("geometric", "agreement", None))
        if not is_number(self.max_cost):
            raise TypeError(f"max_cost must be a number >= 0; got {self.max_cost!r}.")
        if not self.max_cost >= 0:
            raise ValueError(f"max_cost must be a number >= 0; got {self.max_cost!r}.")
        if stage_costs is not None and stage_costs[0] > self.max_cost * (1 + SLACK):
            raise ValueError(
                f"max_cost={self.max_cost} cannot be met: the first stage runs on every row and "
                f"costs {stage_costs[0]}."
            )

    def check_known(self, n_stages: int, stage_costs: Floats | None) -> None:
        """Raise unless the costs are known and the budget covers the first stage's."""
        if stage_costs is None:
            raise ValueError(
                f"{self!r} needs the cost of every stage, and it could not be counted: set "
                "stage_costs (measure_costs(X) gives seconds per row)."
            )
        self.check(n_stages=n_stages, stage_costs=stage_costs)

    def find_thresholds(self, scores: StageScores) -> Floats:
        """Threshold matrix for the given `StageScores`."""
        costs = scores.stage_costs
        self.check_known(scores.n_stages, costs)
        n_early = scores.n_stages - 1
        if _spreads_by_agreement(self, scores):
            total = np.cumsum(costs)

            def mean_cost(stage):
                return np.average(total[stage], weights=scores.sample_weight)

            return scores.matrix(cuts_by_agreement(scores, mean_cost, self.max_cost))
        # One family of settings, from cheap to dear, indexed by the pass rate of the last stage:
        # the planned cost grows with it, so bisection finds the dearest one within the budget.
        low, high = 0.0, 1.0
        for _ in range(60):
            rate = (low + high) / 2
            planned = costs[0] + geometric(rate, n_early) @ costs[1:]
            low, high = (rate, high) if planned <= self.max_cost else (low, rate)
        rate = 1.0 if costs.sum() <= self.max_cost * (1 + SLACK) else low
        return scores.matrix(cuts_by_pass(scores, geometric(rate, n_early)))


class RecallFloor(BaseEstimator):
    """Let through at least a given share of the positives, at the lowest cost.

    What it promises: on the rows that it was set on, at least `min_recall` of the (weighted)
    positives reach the last stage, unless `max_pass_rate` binds, which is warned of. With
    `confidence`, for new rows exchangeable with those that it was set on: the expected share that
    reaches the last stage is at least `min_recall` with that confidence over the draw of the rows.
    Fraud drifts: rows of another month are not exchangeable with these. Set anew on rows that came
    back with labels, it refuses to dismiss more when nothing that is dismissed now has a label: see
    `skmsc.routing.Routing.shadow`.

    Early stages answer the negative class only, also those of an `EarlyExitClassifier`, whose
    positive class is ``classes_[1]``.

    Parameters
    ----------
    min_recall : float, default=0.99
        Share in (0, 1].
    of : {"caught", "positives"}, default="caught"
        Share of what: of the positives that the last stage would catch (its score reaches the
        catch threshold; in early exits the positive class is its likeliest), or of all positives.
        The second can be costly: to keep a positive that no stage recognises, nearly every row
        must pass.
    max_pass_rate : float, default=None
        Cap on the share of rows that reach the last stage; where the floor needs more, the cap
        holds and a warning tells the share of positives that is kept.
    confidence : float, default=None
        Confidence in (0, 1), such as 0.95. None sets the floor on the sample itself. Needs rows
        that are independent draws of equal weight (not groups of related rows), that no stage,
        calibrator or catch threshold saw, and enough positives among them: see Notes.

    Notes
    -----
    With n positives, dismiss below the k-th smallest of their scores, with k the largest number for
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

    needs_two_classes = True
    needs_dismissed = True

    def __init__(
        self,
        min_recall: float = 0.99,
        of: Literal["caught", "positives"] = "caught",
        max_pass_rate: float | None = None,
        confidence: float | None = None,
    ) -> None:
        self.min_recall = min_recall
        self.of = of
        self.max_pass_rate = max_pass_rate
        self.confidence = confidence

    def check(self, *, n_stages: int, stage_costs: Floats | None = None) -> None:
        """Validate the parameters, for so many stages of such costs (None: unknown)."""
        check_share(self, "min_recall", low_open=True)
        check_share(self, "max_pass_rate", optional=True)
        check_number("confidence", self.confidence, "(0, 1)", optional=True)
        check_choice("of", self.of, ("caught", "positives"))
        if self.confidence is not None and self.min_recall == 1:
            raise ValueError("min_recall=1 cannot be promised with any confidence; lower it.")

    def find_thresholds(self, scores: StageScores) -> Floats:
        """Threshold matrix for the given `StageScores`."""
        if scores.negative is None:
            scores = scores.answering_only(0)
        kept = scores.caught if self.of == "caught" else scores.y != scores.negative
        loss = scores.sample_weight * kept
        total = loss.sum()
        if total == 0:
            raise ValueError(
                f"{self!r} has no {'caught positive' if self.of == 'caught' else 'positive'} to "
                f"keep among the {scores.y.size} rows that it is set on."
            )
        if self.confidence is None:
            cuts = cuts_by_loss(scores, lambda k: loss, (1 - self.min_recall) * total)
        else:
            cuts = self._certified_cuts(scores, kept)
        what = f"of the {'caught ' if self.of == 'caught' else ''}positives"
        need = f"A recall of {self.min_recall}"
        return capped(scores.matrix(cuts), scores, self.max_pass_rate, loss, need, what)

    def _certified_cuts(self, scores, kept):
        """One cut for each early stage by order statistics of the kept positives' confidences."""
        n_early, n_kept = scores.n_stages - 1, int(kept.sum())
        share, error = (1 - self.min_recall) / n_early, (1 - self.confidence) / n_early
        n_lost = most_lost(n_kept, share, error)
        if n_lost < 0:
            needed = caught_positives_needed(self, scores.n_stages)
            raise ValueError(
                f"{self!r} cannot be promised: it needs {needed} "
                f"{'caught ' if self.of == 'caught' else ''}positives among the rows that it is "
                f"set on; got {n_kept}."
            )
        return [cut_for_loss(scores.confidence(k), kept * 1.0, n_lost) for k in range(n_early)]


class Agreement(BaseEstimator):
    """Answer early as long as the answer is the one that the last stage would give.

    What it promises: on the rows that it was set on, at most `max_disagreement` of the (weighted)
    rows get another class than the last stage's most likely one; with `per_class`, at most that
    share of the rows of each class, as the last stage tells it. With `confidence`, for new rows
    exchangeable with those that it was set on: the chance of a row to get another class than the
    last stage's is at most `max_disagreement`, with that confidence over the draw of the rows. It
    needs no labels, and says nothing of the last stage's own errors.

    Parameters
    ----------
    max_disagreement : float, default=0.01
        Share of rows in [0, 1].
    per_class : bool, default=False
        Whether the share holds in every class. Where one class is rare a small share of all rows
        may be all of its rows. With two classes, both of which an early stage may answer, each
        class then has a threshold of its own.
    confidence : float, default=None
        Confidence in (0, 1), such as 0.95. None sets the share on the sample itself. Needs rows
        that are independent draws of equal weight and that no stage saw, and enough of them: see
        Notes.

    Notes
    -----
    With two stages the confidence is by order statistics, as in `RecallFloor`: of n rows the lowest
    cut is taken at which so few disagree that, were the chance above `max_disagreement`, no more
    would with probability at most 1 - `confidence`. With `per_class` it is the highest of the cuts
    of all classes; where each of two classes has a cut of its own, each gets half of the allowed
    error (union bound). It takes log(1 - confidence) / log(1 - max_disagreement) rows, 299 for .01
    at .95.

    With more stages there is no single cut, and the confidence is by fixed-sequence testing (A. N.
    Angelopoulos et al., Learn then Test, arXiv 2110.01052; for early exits M. Jazbec et al., arXiv
    2405.20915). Half of the rows, chosen without looking at them, propose a family of thresholds,
    from safe to fast, those that keep a growing share on these rows; on the other half it is walked
    while the hypothesis that the chance is above `max_disagreement` is rejected by an exact
    binomial test at level 1 - `confidence`, and the last member that passed is taken. With
    `per_class` every class must pass. It takes as many rows as above in either half.

    Examples
    --------
    >>> from skmsc import Agreement
    >>> Agreement(max_disagreement=0.02)
    Agreement(max_disagreement=0.02)
    """

    needs_labels = False

    def __init__(
        self,
        max_disagreement: float = 0.01,
        per_class: bool = False,
        confidence: float | None = None,
    ) -> None:
        self.max_disagreement = max_disagreement
        self.per_class = per_class
        self.confidence = confidence

    def check(self, *, n_stages: int, stage_costs: Floats | None = None) -> None:
        """Validate the parameters, for so many stages of such costs (None: unknown)."""
        check_share(self, "max_disagreement")
        check_bool("per_class", self.per_class)
        check_number("confidence", self.confidence, "(0, 1)", optional=True)
        if self.confidence is not None and self.max_disagreement == 0:
            raise ValueError("max_disagreement=0 cannot be promised with any confidence; raise it.")

    def find_thresholds(self, scores: StageScores) -> Floats:
        """Threshold matrix for the given `StageScores`."""
        if self.confidence is None:
            return self._keeping(self.max_disagreement, scores)
        found = self._certified_cut if scores.n_stages == 2 else self._certified_member
        thresholds = found(scores)
        if not np.isfinite(thresholds[:-1]).any():
            warn(
                f"{self!r} lets no early stage answer: even the safest thresholds did not pass the "
                "test."
            )
        return thresholds

    def _keeping(self, share, scores):
        """Threshold matrix that keeps a share on the rows given."""
        return self._losing(share * self._weights(scores), scores)

    def _weights(self, scores):
        """Weights of the rows of each class, as the last stage tells it, or of all rows."""
        weight, n_classes = scores.sample_weight, scores.stage_proba.shape[2]
        if self.per_class:
            return np.bincount(scores.answers[:, -1], weight, n_classes)
        return np.array([weight.sum()])

    def _losing(self, most, scores):
        """Threshold matrix that loses at most these weights, of each class or of all rows."""
        if self.per_class:
            return scores.matrix(cuts_by_class(scores, most))
        weight = scores.sample_weight
        return scores.matrix(cuts_by_loss(scores, lambda k: weight * scores.disagrees(k), most[0]))

    def _certified_cut(self, scores):
        """Threshold matrix of the one early stage, by order statistics of its confidences."""
        weight = scores.sample_weight[0]  # the same of all rows
        n_rows = np.rint(self._weights(scores) / weight).astype(int)
        has_two_cuts = self.per_class and n_rows.size == 2 and scores.negative is None
        error = (1 - self.confidence) / (2 if has_two_cuts else 1)
        n_lost = np.array([most_lost(n, self.max_disagreement, error) for n in n_rows])
        if n_lost.min() < 0:
            raise ValueError(
                f"{self!r} cannot be promised: it needs {agreement_rows_needed(self, error)} rows"
                f"{' of each class' if self.per_class else ''} among the rows that it is set on; "
                f"got {n_rows.min()}."
            )
        return self._losing(weight * n_lost, scores)

    def _certified_member(self, scores):
        """Threshold matrix of several early stages by fixed-sequence testing."""
        propose, test = map(scores.only, halves(scores.y.size))
        last = test.answers[:, -1]
        classes = range(test.stage_proba.shape[2]) if self.per_class else [None]
        masks = [np.ones(last.size, dtype=bool) if c is None else last == c for c in classes]
        needed, least = agreement_rows_needed(self), min(mask.sum() for mask in masks)
        if least < needed:
            raise ValueError(
                f"{self!r} cannot be promised: half of the rows test it, and that must be "
                f"{needed} rows{' of each class' if self.per_class else ''}; got {least}."
            )
        best = scores.matrix(np.full(scores.n_stages - 1, np.inf))
        for share in self.max_disagreement * np.linspace(0, 4, 41):
            thresholds = self._keeping(share, propose)
            disagrees = test.early_answers(thresholds) != last
            p_values = [
                binom.cdf(disagrees[mask].sum(), mask.sum(), self.max_disagreement)
                for mask in masks
            ]
            if max(p_values) > (1 - self.confidence) * (1 + SLACK):
                break
            best = thresholds
        return best


def most_lost(n, share, error):
    """Most losses of n rows that prove a chance of loss of at most `share`; -1 where none does.

    If the chance were larger, so few losses, or fewer, would have one of at most `error`.
    """
    most = int(binom.ppf(error, n, share))
    return most if binom.cdf(most, n, share) <= error * (1 + SLACK) else most - 1


def halves(n_rows):
    """Indices of two halves of the rows, chosen by chance, always the same: rows may come in pairs.

    The first has one more where the number is odd.
    """
    order = np.random.RandomState(0).permutation(n_rows)
    return np.sort(order[::2]), np.sort(order[1::2])


def rows_needed(policy, n_stages, n_classes):
    """Fewest rows, and fewest caught positives, from which a policy's promise can be kept."""
    n_tests = 2 if n_stages > 2 else 1  # as many rows propose
    if getattr(policy, "per_class", False):
        n_tests *= n_classes
    return n_tests * agreement_rows_needed(policy), caught_positives_needed(policy, n_stages)


def agreement_rows_needed(policy, error=None):
    """Fewest rows of a test that an `Agreement` with confidence can pass; 0 without.

    `error` is the test's, by default that of the confidence.
    """
    if not isinstance(policy, Agreement) or policy.confidence is None:
        return 0
    if policy.max_disagreement >= 1:
        return 1
    error = 1 - policy.confidence if error is None else error
    return int(np.ceil(np.log(error) / np.log1p(-policy.max_disagreement) - SLACK))


def caught_positives_needed(policy, n_stages):
    """Fewest positives from which a `RecallFloor` with confidence can be promised; 0 without."""
    if getattr(policy, "confidence", None) is None or not isinstance(policy, RecallFloor):
        return 0
    n_early = max(n_stages - 1, 1)
    share, error = (1 - policy.min_recall) / n_early, (1 - policy.confidence) / n_early
    return int(np.ceil(np.log(error) / np.log1p(-share) - SLACK))


def capped(thresholds, scores, cap, kept, need, what):
    """The thresholds, or where they pass a larger share of the rows than the cap, those of the cap.

    `kept` are the weights of the rows that are to be kept, shape (n_samples,); the warning names
    the need, and the share of what is to be kept that the cap keeps.
    """
    if cap is None or scores.pass_rates(thresholds)[-1] <= cap + SLACK:
        return thresholds
    thresholds = PassBudget(cap, spread="geometric").find_thresholds(scores)
    reached = eager_stage(scores.acting, thresholds) == scores.n_stages - 1
    warn(
        f"{need} needs more than max_pass_rate={cap:.3g} of the rows to pass: the cap holds, "
        f"and {kept[reached].sum() / kept.sum():.3f} {what} reach the last stage."
    )
    return thresholds


def _spreads_by_agreement(policy, scores):
    """Whether all stages answer at one price of agreement; two stages have one cut either way."""
    return scores.n_stages > 2 and (policy.spread or scores.spread) == "agreement"


def check_share(policy, name, *, low_open=False, optional=False):
    """Raise unless the attribute is a number in [0, 1] or (0, 1]."""
    value = getattr(policy, name)
    if optional and value is None:
        return
    interval = "(0, 1]" if low_open else "[0, 1]"
    if not is_number(value):
        raise TypeError(f"{name} of {policy!r} must be a number in {interval}; got {value!r}.")
    if not 0 <= value <= 1 or (low_open and value == 0):
        raise ValueError(f"{name} of {policy!r} must be in {interval}; got {value!r}.")
