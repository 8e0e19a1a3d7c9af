"""How a budget is spread over more than two stages."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from skmsc import CostBudget, PassBudget
from skmsc.thresholds import StageScores, check_policy, eager_stage, fit_thresholds


def scores_of(stage_proba, costs=None, spread="geometric", weight=None):
    n, n_stages, _ = stage_proba.shape
    return StageScores(
        stage_proba=stage_proba,
        y=np.zeros(n, dtype=int),
        sample_weight=np.ones(n) if weight is None else weight,
        negative=None,
        caught=None,
        stage_costs=None if costs is None else np.asarray(costs, dtype=float),
        stage_names=tuple(f"s{k}" for k in range(n_stages)),
        untouched=True,
        spread=spread,
    )


def draw(seed, n=400, n_stages=4, n_classes=3):
    """Stages that see the last one's logits through less and less noise."""
    rng = np.random.default_rng(seed)
    base = 2 * rng.normal(size=(n, 1, n_classes))
    noise = np.linspace(1.5, 0, n_stages)[:, None] * rng.normal(size=(n, n_stages, n_classes))
    logits = base + noise
    proba = np.exp(logits - logits.max(axis=2, keepdims=True))
    return proba / proba.sum(axis=2, keepdims=True)


def by_hand(scores, measure, most):
    """The same rule by a scan of all prices, with scikit-learn's logistic regression.

    Its targets are not smoothed as ours are, so levels differ a little; the rule is the same.
    """
    n_early = scores.n_stages - 1
    last = scores.stage_proba[:, -1].argmax(axis=1)
    levels = []
    for k in range(n_early):
        top = scores.stage_proba[:, k].max(axis=1)
        odds = np.log(top / (1 - top))[:, None]
        agrees = scores.stage_proba[:, k].argmax(axis=1) == last
        model = LogisticRegression(C=1e6).fit(odds, agrees, scores.sample_weight)
        levels.append(model.predict_proba(odds)[:, 1])
    levels = np.column_stack(levels)
    if scores.stage_costs is not None:
        levels = (levels - 1) / scores.stage_costs[1:]
    best = np.full(len(last), n_early)
    for level in np.sort(levels, axis=None)[::-1]:
        if measure(best) <= most:
            return best
        answered = np.column_stack([levels >= level, np.ones(len(last), bool)])
        best = answered.argmax(axis=1)
    return best


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("budget", [1.5, 2.5, 4.0, 6.0])
def test_cost_budget_by_a_scan_of_prices(seed, budget):
    scores = scores_of(draw(seed), [0.5, 1, 2, 4])
    total = np.cumsum(scores.stage_costs)
    expected = by_hand(scores, lambda stage: total[stage].mean(), budget)
    thresholds = fit_thresholds(CostBudget(budget, spread="agreement"), scores)
    got = eager_stage(scores.acting, thresholds)
    assert total[got].mean() <= budget
    assert total[got].mean() == pytest.approx(total[expected].mean(), abs=0.05)
    assert (got == expected).mean() > 0.95


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.6])
def test_pass_budget_by_a_scan_of_levels(seed, rate):
    scores = scores_of(draw(seed))
    expected = by_hand(scores, lambda stage: (stage == 3).mean(), rate)
    thresholds = fit_thresholds(PassBudget(rate, spread="agreement"), scores)
    got = eager_stage(scores.acting, thresholds)
    assert (got == 3).mean() <= rate
    assert (got == expected).mean() > 0.95


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [1, 2, 8])
def test_a_budget_is_never_exceeded_ties_or_not(seed, decimals):
    rng = np.random.default_rng(seed)
    proba = np.round(draw(seed, n=150), decimals)
    scores = scores_of(proba, [0.2, 1, 1, 1], weight=rng.random(150) + 0.1)
    total = np.cumsum(scores.stage_costs)
    for budget in (0.2, 0.5, 1.0, 2.0, 3.2):
        stage = eager_stage(
            scores.acting, scores_matrix(CostBudget(budget, spread="agreement"), scores)
        )
        assert np.average(total[stage], weights=scores.sample_weight) <= budget + 1e-9


def scores_matrix(policy, scores):
    """Thresholds without the warning of few distinct scores."""
    return policy.find_thresholds(scores)


def test_all_or_nothing():
    scores = scores_of(draw(0), [1, 1, 1, 1])
    everything = fit_thresholds(CostBudget(4, spread="agreement"), scores)
    assert (eager_stage(scores.acting, everything) == 3).all()
    nothing = fit_thresholds(CostBudget(1, spread="agreement"), scores)
    assert (eager_stage(scores.acting, nothing) == 0).all()
    assert (eager_stage(scores.acting, fit_thresholds(PassBudget(0.0), scores)) < 3).all()


def test_a_dear_next_stage_lets_a_stage_answer_more():
    proba = draw(0)
    answered = []
    for dear in (1.0, 10.0):
        scores = scores_of(proba, [1, 1, dear, 1])
        thresholds = fit_thresholds(CostBudget(0.5 * (3 + dear), spread="agreement"), scores)
        stage = eager_stage(scores.acting, thresholds)
        answered.append((stage == 1).sum() / (stage >= 1).sum())
    assert answered[1] > answered[0] + 0.05


@pytest.mark.parametrize("policy", [CostBudget(2.0), PassBudget(0.3)], ids=repr)
def test_the_scores_say_how_where_the_policy_does_not(policy):
    of = {how: scores_of(draw(0), [1, 1, 1, 1], spread=how) for how in ("geometric", "agreement")}
    found = {how: fit_thresholds(policy, scores) for how, scores in of.items()}
    assert not np.allclose(found["geometric"][:-1], found["agreement"][:-1])
    for how in of:
        said = policy.set_params(spread=how)
        np.testing.assert_array_equal(fit_thresholds(said, of["geometric"]), found[how])
        assert said.needs_last_stage == (how == "agreement")
    policy.set_params(spread=None)


@pytest.mark.parametrize("policy", [CostBudget(1.3), PassBudget(0.3)], ids=repr)
def test_with_two_stages_there_is_one_cut_either_way(policy):
    proba = draw(0, n_stages=2)
    one, other = (
        fit_thresholds(policy, scores_of(proba, [1, 1], spread=how))
        for how in ("geometric", "agreement")
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("policy", [CostBudget(1.0, spread="even"), PassBudget(spread="even")])
def test_unknown_spreads_are_refused(policy):
    message = "spread must be 'geometric', 'agreement' or None; got 'even'"
    with pytest.raises(ValueError, match=message):
        check_policy(policy, n_stages=3, n_classes=3, untouched=True)
