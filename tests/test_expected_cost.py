"""ExpectedCost: against brute force over all cuts, by hand, and with costs of each row."""

import itertools

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skmsc import (
    ComposableHeadClassifier,
    EarlyExitClassifier,
    ExpectedCost,
    FeedbackCascadeClassifier,
    PassBudget,
)
from skmsc.thresholds import StageScores, check_policy, eager_stage, fit_thresholds
from skmsc.thresholds import _expected_cost as module

coarse_scores = pytest.mark.filterwarnings("ignore:.*distinct scores")


def random_case(seed, n_stages=2, n_samples=14, n_values=6):
    """Scores with ties, uneven weights, costs of each row and of each stage."""
    rng = np.random.default_rng(seed)
    negative = int(rng.integers(2))
    y = rng.permutation(np.arange(n_samples) % 3 == 0).astype(int)
    noise = rng.normal(size=(n_samples, n_stages)) * np.linspace(1.5, 0.4, n_stages)
    positive = np.round(1 / (1 + np.exp(-(y[:, None] - 0.5 + noise))) * n_values) / n_values
    proba = np.stack([1 - positive, positive], axis=2)
    if negative == 1:
        proba, y = proba[:, :, ::-1], 1 - y
    return StageScores(
        stage_proba=proba,
        y=y,
        sample_weight=rng.integers(1, 4, n_samples).astype(float),
        negative=negative,
        caught=None,
        stage_costs=np.r_[1.0, rng.integers(1, 5, n_stages - 1)].cumsum(),
        stage_names=tuple(f"s{k}" for k in range(n_stages)),
        untouched=False,
        row_values={
            "false_negative_cost": rng.integers(0, 30, n_samples).astype(float),
            "false_positive_cost": rng.integers(1, 6, n_samples).astype(float),
        },
    )


def cost_of(scores, thresholds, alert_cut, stage_price):
    """Total cost, row by row, as the docstring has it."""
    total, stage = 0.0, eager_stage(scores.stage_proba, thresholds)
    for i, k in enumerate(stage):
        alert = k == scores.n_stages - 1 and (
            scores.stage_proba[i, -1, 1 - scores.negative] >= alert_cut
        )
        cost = stage_price * scores.stage_costs[: k + 1].sum()
        if scores.y[i] != scores.negative and not alert:
            cost += scores.row_values["false_negative_cost"][i]
        if scores.y[i] == scores.negative and alert:
            cost += scores.row_values["false_positive_cost"][i]
        total += scores.sample_weight[i] * cost
    return total


def all_cuts(scores):
    """Cuts of every early stage: never, or at any of its confidences."""
    return [[np.inf, *np.unique(scores.confidence(k)).tolist()] for k in range(scores.n_stages - 1)]


def least_cost(scores, cuts, stage_price):
    """Least cost over the product of the early stages' cuts and every cut of the last stage."""
    alert_cuts = [np.inf, *np.unique(scores.stage_proba[:, -1, 1 - scores.negative])]
    return min(
        cost_of(scores, scores.matrix(early), alert_cut, stage_price)
        for early in itertools.product(*cuts)
        for alert_cut in alert_cuts
    )


def cost_with_best_alerts(scores, thresholds, stage_price):
    alert_cuts = [np.inf, *np.unique(scores.stage_proba[:, -1, 1 - scores.negative])]
    return min(cost_of(scores, thresholds, cut, stage_price) for cut in alert_cuts)


@coarse_scores
@pytest.mark.parametrize("stage_price", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(15))
def test_two_stages_cost_what_the_best_pair_of_cuts_costs(seed, stage_price):
    scores = random_case(seed)
    thresholds = fit_thresholds(ExpectedCost(stage_price=stage_price), scores)
    least = least_cost(scores, all_cuts(scores), stage_price)
    assert cost_with_best_alerts(scores, thresholds, stage_price) == pytest.approx(least)


@coarse_scores
@pytest.mark.parametrize("stage_price", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(10))
def test_three_stages_cost_what_the_best_cuts_cost(seed, stage_price):
    scores = random_case(seed, n_stages=3, n_samples=9, n_values=4)
    thresholds = fit_thresholds(ExpectedCost(stage_price=stage_price), scores)
    least = least_cost(scores, all_cuts(scores), stage_price)
    assert cost_with_best_alerts(scores, thresholds, stage_price) == pytest.approx(least)


@coarse_scores
@pytest.mark.parametrize("seed", range(8))
def test_no_change_of_one_early_cut_of_many_costs_less(seed):
    scores = random_case(seed, n_stages=4, n_samples=16)
    thresholds = fit_thresholds(ExpectedCost(stage_price=0.2), scores)
    cost = cost_with_best_alerts(scores, thresholds, 0.2)
    choices, found = all_cuts(scores), thresholds[:-1, scores.negative]
    for k, changed in enumerate(choices):
        others = [[cut] for cut in found]
        others[k] = changed
        assert least_cost(scores, others, 0.2) >= cost - 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_many_positives_end_where_neither_cut_alone_costs_less(seed, monkeypatch):
    scores = random_case(seed, n_samples=30, n_values=10**6)
    exact = fit_thresholds(ExpectedCost(), scores)
    monkeypatch.setattr(module, "_MOST_LEVELS", 4)
    thresholds = fit_thresholds(ExpectedCost(), scores)
    positive = scores.stage_proba[:, -1, 1 - scores.negative]
    alert_cuts = [np.inf, *np.unique(positive)]
    costs = {
        (cut, alert): cost_of(scores, scores.matrix([cut]), alert, 0.0)
        for cut in [thresholds[0, scores.negative], *all_cuts(scores)[0]]
        for alert in alert_cuts
    }
    mine = min(costs[thresholds[0, scores.negative], alert] for alert in alert_cuts)
    best_alert = min(alert_cuts, key=lambda alert: costs[thresholds[0, scores.negative], alert])
    assert min(costs[cut, best_alert] for cut in all_cuts(scores)[0]) >= mine - 1e-9
    assert mine <= 1.2 * cost_with_best_alerts(scores, exact, 0.0)


def by_hand(y=(1, 0, 0, 1), **row_values):
    screen, final = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.6, 0.1, 0.7, 0.9])
    positive = np.stack([screen, final], axis=1)
    return StageScores(
        stage_proba=np.stack([1 - positive, positive], axis=2),
        y=np.array(y),
        sample_weight=np.ones(4),
        negative=0,
        caught=None,
        stage_costs=np.array([1.0, 10.0]),
        stage_names=("screen", "final"),
        untouched=False,
        row_values=row_values,
    )


@pytest.mark.parametrize(
    "policy, n_pass",
    [
        # Alerts from .6 on: rows 0, 2, 3. Row 0 saves 20 and its way costs row 2's alarm, 7.
        (ExpectedCost(20, 7), 4),
        # The alarm costs more than row 0 saves: alerts from .9 on, and only row 3 need pass.
        (ExpectedCost(20, 21), 1),
        # To pass rows 0 to 2 costs 30 more, and saves 13.
        (ExpectedCost(20, 7, stage_price=1.0), 1),
        # Where running costs little, it pays again.
        (ExpectedCost(20, 7, stage_price=0.4), 4),
        # Nothing is worth a call of the last stage.
        (ExpectedCost(20, 7, stage_price=3.0), 0),
    ],
)
def test_by_hand(policy, n_pass):
    scores = by_hand()
    thresholds = fit_thresholds(policy, scores)
    assert (eager_stage(scores.stage_proba, thresholds) == 1).sum() == n_pass


def test_costs_of_each_row_by_hand():
    # A positive of little worth is left to the screen.
    dear = by_hand(false_negative_cost=np.array([20.0, 0, 0, 30]))
    cheap = by_hand(false_negative_cost=np.array([2.0, 0, 0, 30]))
    policy = ExpectedCost(false_positive_cost=7)
    n_pass = [
        (eager_stage(s.stage_proba, fit_thresholds(policy, s)) == 1).sum() for s in (dear, cheap)
    ]
    assert n_pass == [4, 1]


def test_of_cuts_that_cost_the_same_the_one_that_passes_least():
    scores = by_hand(y=(0, 0, 0, 1))
    thresholds = fit_thresholds(ExpectedCost(20, 7), scores)
    assert thresholds[0, 0] == pytest.approx(1 - 0.6)


def test_weight_two_is_the_row_twice():
    scores = random_case(3, n_samples=40, n_values=10**6)
    twice = scores.only(np.repeat(np.arange(40), scores.sample_weight.astype(int)))
    twice = StageScores(**{**vars_of(twice), "sample_weight": np.ones(twice.y.size)})
    policy = ExpectedCost(stage_price=0.1)
    np.testing.assert_array_equal(fit_thresholds(policy, scores), fit_thresholds(policy, twice))


def vars_of(scores):
    return {name: getattr(scores, name) for name in StageScores.__dataclass_fields__}


# In the estimators ------------------------------------------------------------------------------


class Column(ClassifierMixin, BaseEstimator):
    """Scores rows by the logistic function of one column; learns nothing but the classes."""

    def __init__(self, place=0):
        self.place = place

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        positive = 1 / (1 + np.exp(-X[:, self.place]))
        return np.column_stack([1 - positive, positive])


class Witness(BaseEstimator):
    """A policy that checks that each row's cost is the one that belongs to its scores."""

    row_metadata = ("false_negative_cost",)

    def __init__(self, seen=None):
        self.seen = seen

    def per_row(self, given, sample_weight):
        return {"cost": np.asarray(given["false_negative_cost"], dtype=float)}

    def find_thresholds(self, scores):
        odds = np.log(scores.stage_proba[:, 0, 1] / scores.stage_proba[:, 0, 0])
        np.testing.assert_allclose(scores.row_values["cost"], np.exp(odds), rtol=1e-6)
        SEEN.append(scores.y.size)
        return scores.matrix(np.full(scores.n_stages - 1, np.inf))


SEEN = []
RNG = np.random.default_rng(0)
Y = (RNG.random(300) < 0.3).astype(int)
X = RNG.normal(size=(300, 2)) + Y[:, None]
COST = np.exp(X[:, 0])
STAGES = [("screen", Column(0)), ("final", Column(1))]
SOME = np.where(np.arange(300) % 5 == 0, -1, Y)  # without a label where -1


def cascade(thresholds, **params):
    return FeedbackCascadeClassifier(
        STAGES, thresholds=thresholds, feedback="none", random_state=0, **params
    )


@pytest.mark.parametrize(
    "params, fit_params, n_seen",
    [
        ({}, {}, 300),
        ({"cv": StratifiedKFold(3, shuffle=True, random_state=0)}, {}, 300),
        ({"cv": TimeSeriesSplit(3)}, {}, 225),
        ({"validation_fraction": 0.2}, {}, 60),
        ({"cv": TimeSeriesSplit(3), "validation_fraction": 0.2}, {}, 60),
        ({}, {"sample_weight": np.arange(300) % 3}, 200),
        ({"validation_fraction": 0.2}, {"sample_weight": np.arange(300) % 3}, 40),
        ({"unlabeled_label": -1}, {"y": SOME}, 240),
        ({"unlabeled_label": -1, "feedback": "caught"}, {"y": SOME}, 240),
        ({"survivor_rate": 1.0}, {}, 300),
    ],
)
def test_costs_follow_their_rows(params, fit_params, n_seen):
    SEEN.clear()
    model = cascade(Witness()).set_params(**params)
    model.fit(X, **({"y": Y} | fit_params), false_negative_cost=COST)
    assert SEEN == [n_seen]
    model.tune_thresholds(
        X[:50], Y[:50], thresholds=Witness(), sample_weight=Y[:50], false_negative_cost=COST[:50]
    )
    assert SEEN == [n_seen, Y[:50].sum()]


def test_costs_follow_their_rows_in_early_exits():
    from skmsc.neural import MultiExitNet

    SEEN.clear()
    model = EarlyExitClassifier(
        Column(0),
        MultiExitNet(width=4, max_epochs=1),
        ensemble=False,
        confidence="margin",
        thresholds=Witness(),
        validation_fraction=0.4,
        random_state=0,
    )
    model.fit(X.astype(np.float32), Y, false_negative_cost=COST)
    assert SEEN == [120]
    model.tune_thresholds(
        X, Y, thresholds=ExpectedCost(false_positive_cost=1.0), false_negative_cost=COST
    )
    proba = model.predict_proba(X)
    np.testing.assert_array_equal(model.alerts(X), proba[:, 1] >= model.alert_threshold_)
    dismissed = model.route(X).stage < len(model.thresholds_) - 1
    assert dismissed.any() and not model.alerts(X)[dismissed].any()
    np.testing.assert_array_equal(model.predict(X), proba.argmax(axis=1))


@pytest.mark.parametrize("proba", ["conditional", "sigmoid"])
def test_costs_follow_their_rows_in_composable_heads(proba):
    SEEN.clear()
    model = ComposableHeadClassifier(
        LogisticRegression(), "passthrough", proba=proba, thresholds=0.5, random_state=0
    ).fit(X, Y)
    odds = np.log(np.divide(*model.stage_proba(X)[:, 0].T[::-1]))
    model.tune_thresholds(X, Y, thresholds=Witness(), false_negative_cost=np.exp(odds), copy=True)
    assert SEEN == [300]
    policy = ExpectedCost(false_positive_cost=1.0)
    model.tune_thresholds(X, Y, thresholds=policy, false_negative_cost=COST)
    dismissed = model.route(X).stage == 0
    assert dismissed.any() and not model.alerts(X)[dismissed].any()
    assert not model.predict(X)[dismissed].any()
    shares = np.bincount(model.predict(X), dismissed, minlength=2) / 300
    assert model._screen.shares == {0: shares[0], 1: shares[1]}


def test_alerts_of_heads_alone_need_rows_held_out():
    heads = ComposableHeadClassifier(None, "passthrough", thresholds=ExpectedCost(3, 1))
    assert 0 < heads.fit(X, Y).alert_threshold_ < 1
    with pytest.raises(ValueError, match="validation_fraction=None leaves no rows for"):
        heads.set_params(validation_fraction=None).fit(X, Y)


def total_cost(alerts, y=Y):
    return COST[(y == 1) & ~alerts].sum() + 0.9 * (alerts & (y == 0)).sum()


def test_alerts_cost_what_the_best_pair_of_cuts_costs():
    policy = ExpectedCost(false_positive_cost=0.9)
    model = cascade(policy).fit(X, Y, false_negative_cost=COST)
    tuned = model.tune_thresholds(X, Y, thresholds=policy, false_negative_cost=COST, copy=True)
    costs = [
        total_cost((X[:, 0] >= screen) & (X[:, 1] >= final))
        for screen, final in itertools.product(X[Y == 1, 0], X[Y == 1, 1])
    ]
    assert total_cost(tuned.alerts(X)) == pytest.approx(min(costs))
    assert total_cost(tuned.alerts(X)) < total_cost(tuned.predict(X) == 1)
    np.testing.assert_array_equal(tuned.predict(X), tuned.predict_proba(X).argmax(axis=1))
    fixed = FixedThresholdClassifier(FrozenEstimator(tuned), threshold=tuned.alert_threshold_)
    np.testing.assert_array_equal(fixed.fit(X, Y).predict(X) == 1, tuned.alerts(X))


def test_alerts_need_a_policy_that_sets_their_threshold():
    policy = ExpectedCost(3.0, 1.0)
    model = cascade(policy).fit(X, Y)
    assert 0 < model.alert_threshold_ < 1
    served = model.alert_threshold_
    other = model.tune_thresholds(X, Y, thresholds=PassBudget(0.2), copy=True)
    assert model.alert_threshold_ == served and other.alert_threshold_ is None
    with pytest.raises(ValueError, match="no alert threshold: set its thresholds by AlertBudget"):
        other.alerts(X)


def test_one_stage_alone_gets_the_cheapest_alerts():
    model = FeedbackCascadeClassifier([("only", Column(1))], thresholds=ExpectedCost(3.0, 1.0))
    model.fit(X, Y)
    assert model.predict(X).sum() < model.alerts(X).sum()


def test_a_positive_class_that_comes_first():
    policy = ExpectedCost(false_positive_cost=0.9)
    flipped = cascade(policy, pos_label=0).fit(-X, 1 - Y, false_negative_cost=COST)
    plain = cascade(policy).fit(X, Y, false_negative_cost=COST)
    np.testing.assert_array_equal(flipped.alerts(-X), plain.alerts(X))


# Metadata ---------------------------------------------------------------------------------------


def pipeline(model):
    return make_pipeline(FunctionTransformer(), model)


def test_through_pipelines_and_searches_without_routing():
    SEEN.clear()
    plain = pipeline(cascade(Witness()))
    plain.fit(X, Y, feedbackcascadeclassifier__false_negative_cost=COST)
    search = GridSearchCV(plain, {"feedbackcascadeclassifier__cv": [2, 3]}, cv=3)
    search.fit(X, Y, feedbackcascadeclassifier__false_negative_cost=COST)
    assert SEEN == [300] + 6 * [200] + [300]


@pytest.mark.parametrize("request_it", [True, False])
def test_through_pipelines_and_searches_with_routing(request_it):
    SEEN.clear()
    with config_context(enable_metadata_routing=True):
        model = cascade(Witness())
        if request_it:
            model.set_fit_request(false_negative_cost=True)
        model.fit(X, Y, false_negative_cost=COST)
        pipeline(model).fit(X, Y, false_negative_cost=COST)
        GridSearchCV(pipeline(model), {}, cv=3).fit(X, Y, false_negative_cost=COST)
    assert SEEN == [300, 300] + 3 * [200] + [300]


def test_an_alias_of_the_costs():
    SEEN.clear()
    with config_context(enable_metadata_routing=True):
        model = cascade(Witness()).set_fit_request(false_negative_cost="amount")
        pipeline(model).fit(X, Y, amount=COST)
    assert SEEN == [300]


def test_costs_that_nobody_asked_for_are_refused_by_routing():
    with (
        config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match="false_negative_cost"),
    ):
        pipeline(cascade(PassBudget(0.2))).fit(X, Y, false_negative_cost=COST)


# Bad input --------------------------------------------------------------------------------------


class Untouchable(Column):
    """Fails the test when it is fitted."""

    def fit(self, X, y, sample_weight=None):
        raise AssertionError("a stage was fitted before the input was refused")


NEGATIVE, NAN, HUGE = (np.where(np.arange(300) == 7, odd, COST) for odd in (-1.0, np.nan, 1e308))


@pytest.mark.parametrize(
    "policy, given, error, message",
    [
        (ExpectedCost(None, 1), {}, ValueError, r"reads false_negative_cost of each row, and none"),
        (ExpectedCost(1), {}, ValueError, r"reads false_positive_cost of each row, and none"),
        (ExpectedCost(None, 1), {"false_negative_cost": COST[:9]}, ValueError, r"got shape \(9,\)"),
        (ExpectedCost(None, 1), {"false_negative_cost": 3.0}, ValueError, r"got shape \(\)"),
        (ExpectedCost(None, 1), {"false_negative_cost": NEGATIVE}, ValueError, "-1.0 in row 7"),
        (ExpectedCost(None, 1), {"false_negative_cost": NAN}, ValueError, "nan in row 7"),
        (ExpectedCost(None, 1), {"false_negative_cost": ["a"] * 300}, TypeError, "must be numbers"),
        (ExpectedCost(2, 1), {"false_negative_cost": COST}, ValueError, "leave one of the two out"),
        (ExpectedCost(-2, 1), {}, ValueError, "false_negative_cost must be .* >= 0.*; got -2"),
        (ExpectedCost(2, np.nan), {}, ValueError, "false_positive_cost must be .*; got nan"),
        (ExpectedCost("2", 1), {}, TypeError, "false_negative_cost must be .*; got '2'"),
        (ExpectedCost(2, 1, stage_price=-1), {}, ValueError, "stage_price must be .*; got -1"),
        (ExpectedCost(2, 1, stage_price=None), {}, TypeError, "stage_price must be .*; got None"),
        (ExpectedCost(0, 1), {}, ValueError, "false_negative_cost=0 makes it free"),
        (ExpectedCost(1e308, 1), {}, ValueError, r"at most 1e\+50, or None .*; got 1e\+308"),
        (ExpectedCost(2, 1e308), {}, ValueError, "false_positive_cost must be .* at most 1e"),
        (ExpectedCost(None, 1), {"false_negative_cost": HUGE}, ValueError, r"1e\+308 in row 7"),
    ],
)
def test_bad_costs(policy, given, error, message):
    model = cascade(policy).set_params(stages=[("a", Untouchable()), ("b", Untouchable())])
    with pytest.raises(error, match=message):
        model.fit(X, Y, **given)
    fitted = cascade(PassBudget(0.3)).fit(X, Y)
    before = fitted.thresholds_.copy()
    with pytest.raises(error, match=message):
        fitted.tune_thresholds(X, Y, thresholds=policy, **given)
    np.testing.assert_array_equal(fitted.thresholds_, before)


def test_costs_at_the_bound_under_the_largest_weights():
    weight = np.full(300, 1e250 / 301)
    policy = ExpectedCost(1e50, 1e50)
    one = cascade(policy).fit(X, Y, weight)
    other = cascade(ExpectedCost(1, 1)).fit(X, Y)
    np.testing.assert_allclose(one.thresholds_, other.thresholds_, rtol=1e-6)


def test_stages_that_cost_more_than_a_sum_can_hold():
    with pytest.raises(ValueError, match=r"stage_price must be .* at most 1e\+50; got 1e\+308"):
        ExpectedCost(2, 1, stage_price=1e308).check(n_stages=2)
    fitted = cascade(PassBudget(0.3), stage_costs=[1e300, 1e300]).fit(X, Y)
    with pytest.raises(ValueError, match=r"stage_price=1\d+\.0 times .* at most 1e\+50"):
        fitted.tune_thresholds(X, Y, thresholds=ExpectedCost(2, 1, stage_price=1e10))


def test_costs_of_rows_without_weight_are_not_read():
    weight = np.where(np.arange(300) == 7, 0.0, 1.0)
    policy = ExpectedCost(false_positive_cost=1)
    one = cascade(policy).fit(X, Y, weight, false_negative_cost=NEGATIVE)
    other = cascade(policy).fit(X, Y, weight, false_negative_cost=COST)
    np.testing.assert_array_equal(one.thresholds_, other.thresholds_)


def test_costs_that_are_not_read_are_warned_of():
    with pytest.warns(UserWarning, match=r"thresholds=PassBudget.* does not read it") as told:
        cascade(PassBudget(0.2)).fit(X, Y, false_negative_cost=COST)
    assert told[0].filename == __file__


def test_a_price_needs_costs():
    with pytest.raises(ValueError, match="needs the cost of every stage"):
        cascade(ExpectedCost(2, 1, stage_price=1.0)).fit(X, Y)


def test_no_positive_worth_anything():
    worthless = np.where(Y == 1, 0.0, 1.0)
    with pytest.raises(ValueError, match="no positive that costs anything to miss among the 300"):
        cascade(ExpectedCost(None, 1)).fit(X, Y, false_negative_cost=worthless)


def test_more_than_two_classes():
    with pytest.raises(ValueError, match="needs two classes; y has 3"):
        check_policy(ExpectedCost(2, 1), n_stages=2, n_classes=3, untouched=False)


def test_a_classifier_that_takes_no_costs_says_so():
    model = ComposableHeadClassifier(Column(0), thresholds=ExpectedCost(2))
    with pytest.raises(ValueError, match="reads false_positive_cost of each row"):
        model.fit(X, Y)
