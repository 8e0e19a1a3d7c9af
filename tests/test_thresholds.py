"""Policies, worked by hand and against brute force over all cuts."""

import itertools

import numpy as np
import pytest

from skmsc.thresholds import (
    Agreement,
    CostBudget,
    PassBudget,
    RecallFloor,
    StageScores,
    caught_positives_needed,
    check_policy,
    eager_stage,
    fit_thresholds,
)

INF = np.inf
coarse_scores = pytest.mark.filterwarnings("ignore:.*distinct scores")


def binary_scores(*positive_scores, y, weight=None, costs=None, untouched=False, caught=None):
    """StageScores of two classes from the positive scores of each stage."""
    positive = np.column_stack([np.asarray(score, dtype=float) for score in positive_scores])
    y = np.asarray(y)
    return StageScores(
        stage_proba=np.stack([1 - positive, positive], axis=2),
        y=y,
        sample_weight=np.ones(y.size) if weight is None else np.asarray(weight, dtype=float),
        negative=0,
        caught=(y == 1) if caught is None else np.asarray(caught),
        stage_costs=costs if costs is None else np.asarray(costs, dtype=float),
        stage_names=tuple(f"s{k}" for k in range(positive.shape[1])),
        untouched=untouched,
    )


def random_scores(seed, n_stages=2, n_samples=12, n_values=6, **kwargs):
    """A small case with ties and uneven weights."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n_samples) % 3 == 0).astype(int)
    scores = [rng.integers(1, n_values, n_samples) / n_values for _ in range(n_stages)]
    return binary_scores(*scores, y=y, weight=rng.integers(1, 4, n_samples), **kwargs)


def all_matrices(scores):
    """Threshold matrices of every way to cut the early stages."""
    choices = []
    for k in range(scores.n_stages - 1):
        values = np.unique(scores.confidence(k))
        choices.append([INF, *values])
    return [scores.matrix(cuts) for cuts in itertools.product(*choices)]


def reached(scores, thresholds):
    return eager_stage(scores.stage_proba, thresholds) == scores.n_stages - 1


def test_cuts_lie_midway_between_neighbours():
    scores = binary_scores([0.1, 0.2, 0.6, 0.9], [0.5] * 4, y=[0, 0, 1, 1])
    cut = fit_thresholds(PassBudget(0.5), scores)
    np.testing.assert_allclose(cut, [[1 - 0.4, INF], [-INF, -INF]])
    floor = fit_thresholds(RecallFloor(1.0), scores)
    np.testing.assert_allclose(floor, cut)


def test_ties_at_the_cut_stay_on_the_cheap_side():
    scores = binary_scores([0.1, 0.5, 0.5, 0.9], [0.5] * 4, y=[0, 0, 1, 1])
    thresholds = fit_thresholds(PassBudget(0.5), scores)
    np.testing.assert_array_equal(reached(scores, thresholds), [False, False, False, True])


def test_nothing_passes_when_the_top_rows_tie_beyond_the_budget():
    scores = binary_scores([0.5] * 4, [0.5] * 4, y=[0, 0, 1, 1])
    thresholds = fit_thresholds(PassBudget(0.5), scores)
    assert not reached(scores, thresholds).any()


@pytest.mark.parametrize("rate, n_pass", [(0.0, 0), (0.29, 29), (0.3, 30), (1.0, 100)])
def test_budgets_survive_rounding(rate, n_pass):
    scores = binary_scores(np.linspace(0, 1, 100), [0.5] * 100, y=np.arange(100) > 90)
    assert reached(scores, fit_thresholds(PassBudget(rate), scores)).sum() == n_pass


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_pass_budget_is_the_largest_pass_within_it(seed, rate):
    scores = random_scores(seed)
    thresholds = fit_thresholds(PassBudget(rate), scores)
    rates = [scores.pass_rates(matrix)[-1] for matrix in [*all_matrices(scores), thresholds]]
    best = max((r for r in rates if r <= rate + 1e-12), default=0.0)
    assert rates[-1] == pytest.approx(best)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("recall", [0.5, 0.8, 1.0])
def test_recall_floor_is_the_smallest_pass_that_meets_it(seed, recall):
    scores = random_scores(seed)
    thresholds = fit_thresholds(RecallFloor(recall), scores)

    def kept(matrix):
        mine = scores.caught & reached(scores, matrix)
        return scores.sample_weight[mine].sum() / scores.sample_weight[scores.caught].sum()

    feasible = [m for m in all_matrices(scores) if kept(m) >= recall - 1e-12]
    assert kept(thresholds) >= recall - 1e-12
    smallest = min(scores.pass_rates(m)[-1] for m in feasible)
    assert scores.pass_rates(thresholds)[-1] == pytest.approx(smallest)


@coarse_scores
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("policy", [RecallFloor(0.7), RecallFloor(0.7, of="positives")])
def test_recall_floor_holds_over_three_stages(seed, policy):
    scores = random_scores(seed, n_stages=3, n_samples=40, n_values=15)
    kept = scores.caught & reached(scores, fit_thresholds(policy, scores))
    weight = scores.sample_weight
    assert weight[kept].sum() >= 0.7 * weight[scores.caught].sum() - 1e-9


@coarse_scores
@pytest.mark.parametrize("seed", range(10))
def test_budgets_hold_over_four_stages(seed):
    scores = random_scores(seed, 4, 60, 25, costs=[1.0, 2.0, 5.0, 20.0])
    by_rate = fit_thresholds(PassBudget([0.6, 0.3, 0.1]), scores)
    assert (scores.pass_rates(by_rate)[1:] <= np.array([0.6, 0.3, 0.1]) + 1e-9).all()
    assert scores.pass_rates(fit_thresholds(PassBudget(0.1), scores))[-1] <= 0.1 + 1e-9
    by_cost = fit_thresholds(CostBudget(6.0), scores)
    assert scores.pass_rates(by_cost) @ scores.stage_costs <= 6.0 + 1e-9


@pytest.mark.parametrize("max_cost, n_pass", [(1.0, 0), (3.0, 2), (5.9, 4), (11.0, 10), (99.0, 10)])
def test_cost_budget_spends_what_it_may(max_cost, n_pass):
    scores = binary_scores(np.arange(10) / 10, [0.5] * 10, y=np.arange(10) > 7, costs=[1.0, 10.0])
    assert reached(scores, fit_thresholds(CostBudget(max_cost), scores)).sum() == n_pass


def test_weight_two_is_the_row_twice():
    rng = np.random.default_rng(0)
    score, y = rng.uniform(size=50), np.arange(50) % 5 == 0
    weight = rng.integers(1, 4, 50)
    weighted = binary_scores(score, score, y=y, weight=weight)
    repeated = binary_scores(score.repeat(weight), score.repeat(weight), y=y.repeat(weight))
    for policy in (PassBudget(0.3), RecallFloor(0.8), Agreement(0.05)):
        np.testing.assert_array_equal(
            fit_thresholds(policy, weighted), fit_thresholds(policy, repeated)
        )


def test_the_cap_binds_with_a_warning_that_tells_the_recall():
    scores = binary_scores(np.linspace(0, 1, 25), [0.9] * 25, y=[0, 1, 0, 1, 1] * 5)
    with pytest.warns(UserWarning, match=r"the cap holds, and 0\.200 of the caught positives"):
        thresholds = fit_thresholds(RecallFloor(0.9, max_pass_rate=0.2), scores)
    assert reached(scores, thresholds).sum() == 5


def test_few_distinct_scores_warn():
    scores = binary_scores(np.arange(30) % 6 / 6, [0.5] * 30, y=np.arange(30) % 2)
    with pytest.warns(UserWarning, match="Stage 's0' gives only 6 distinct scores"):
        fit_thresholds(PassBudget(0.3), scores)


def test_more_than_two_classes_are_cut_at_the_largest_score():
    rng = np.random.default_rng(0)
    stage_proba = rng.dirichlet(np.ones(3), size=(200, 2))
    scores = StageScores(
        stage_proba, rng.integers(0, 3, 200), np.ones(200), None, None, None, ("a", "b"), False
    )
    thresholds = fit_thresholds(Agreement(0.05), scores)
    early = ~reached(scores, thresholds)
    differs = stage_proba[:, 0].argmax(axis=1) != stage_proba[:, 1].argmax(axis=1)
    assert (early & differs).sum() <= 10
    # One more row, the most confident of those that wait, would break the promise or agree.
    confidence = stage_proba[:, 0].max(axis=1)
    more = confidence >= np.sort(confidence[~early])[-1]
    assert (more & differs).sum() > 10
    assert (thresholds[0] == thresholds[0, 0]).all()


@pytest.mark.parametrize(
    "number, positive_score, passes",
    [(0.7, 0.7, False), (0.7, 0.71, True), (0.3, 0.3, False), (0.0, 0.0, False), (0.0, 1e-9, True)],
)
def test_a_number_passes_what_is_above_it(number, positive_score, passes):
    scores = binary_scores([positive_score], [0.5], y=[1])
    assert reached(scores, fit_thresholds(number, scores))[0] == passes


def test_numbers_and_matrices_are_taken_as_they_are():
    scores = binary_scores([0.5], [0.5], [0.5], y=[1])
    np.testing.assert_allclose(
        fit_thresholds([0.2, 0.4], scores), [[0.8, INF], [0.6, INF], [-INF, -INF]]
    )
    matrix = np.array([[0.9, 0.7], [INF, INF], [-INF, -INF]])
    np.testing.assert_array_equal(fit_thresholds(matrix, scores), matrix)


def test_one_stage_needs_no_policy():
    scores = binary_scores([0.5], y=[1])
    np.testing.assert_array_equal(fit_thresholds(PassBudget(0.1), scores), [[-INF, -INF]])


@pytest.mark.parametrize(
    "recall, confidence, n_stages, needed",
    [(0.95, 0.95, 2, 59), (0.99, 0.95, 2, 299), (0.9, 0.9, 2, 22), (0.95, 0.95, 3, 146)],
)
def test_impossible_floors_say_how_many_positives_are_needed(recall, confidence, n_stages, needed):
    policy = RecallFloor(recall, confidence=confidence)
    assert caught_positives_needed(policy, n_stages) == needed
    score = np.arange(1, needed + 1) / (needed + 2)
    enough = binary_scores(*[score] * n_stages, y=np.ones(needed, int), untouched=True)
    thresholds = fit_thresholds(policy, enough)
    assert reached(enough, thresholds).all()
    few = binary_scores(*[score[1:]] * n_stages, y=np.ones(needed - 1, int), untouched=True)
    with pytest.raises(ValueError, match=f"needs {needed} caught positives .* got {needed - 1}"):
        fit_thresholds(policy, few)


def test_confidence_is_refused_on_rows_that_were_seen():
    scores = binary_scores(np.linspace(0, 1, 400), np.ones(400), y=np.ones(400, int))
    with pytest.raises(ValueError, match="no stage, calibrator or catch threshold saw"):
        fit_thresholds(RecallFloor(0.9, confidence=0.9), scores)


def test_confidence_is_refused_for_unequal_weights():
    weight = np.linspace(1, 2, 400)
    scores = binary_scores(
        np.linspace(0, 1, 400), np.ones(400), y=np.ones(400, int), weight=weight, untouched=True
    )
    with pytest.raises(ValueError, match="equally weighted rows only"):
        fit_thresholds(RecallFloor(0.9, confidence=0.9), scores)


def test_default_cap_gives_way_to_common_positives():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    score = np.clip(y * 0.5 + rng.uniform(0, 0.5, 200), 0, 1)
    scores = binary_scores(score, score, y=y)
    thresholds = fit_thresholds(None, scores)
    assert (scores.caught & reached(scores, thresholds)).sum() >= 99


@pytest.mark.parametrize(
    "thresholds, error, match",
    [
        ("high", TypeError, "thresholds must be a number"),
        ([0.1, 0.2, 0.3], ValueError, r"shape \(3,\)"),
        (np.zeros((2, 2)), ValueError, "last row of thresholds must be -inf"),
        (np.zeros((3, 2)), ValueError, r"shape \(3, 2\)"),
        (float("nan"), ValueError, "must not hold nan"),
        (PassBudget, TypeError, "thresholds must be"),
        (PassBudget(1.5), ValueError, r"max_pass_rate .* must be in \[0, 1\]; got 1.5"),
        (PassBudget("a"), TypeError, "max_pass_rate"),
        (PassBudget([0.1, -0.2]), ValueError, "max_pass_rate"),
        (CostBudget(-1), ValueError, "max_cost must be a number >= 0; got -1"),
        (RecallFloor(0), ValueError, r"min_recall .* must be in \(0, 1\]; got 0"),
        (RecallFloor(of="all"), ValueError, "of must be 'caught' or 'positives'; got 'all'"),
        (RecallFloor(confidence=1), ValueError, r"confidence must be .* \(0, 1\) or None; got 1"),
        (RecallFloor(0.9, confidence=0.9), ValueError, "set validation_fraction"),
        (Agreement(2), ValueError, "max_disagreement"),
    ],
)
def test_bad_policies_are_refused(thresholds, error, match):
    with pytest.raises(error, match=match):
        check_policy(thresholds, n_stages=2, n_classes=2, untouched=False)
