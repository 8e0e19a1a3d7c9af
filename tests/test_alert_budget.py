"""AlertBudget: against counting alerts day by day for every cut, and in the estimators."""

import datetime

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmsc import AlertBudget, ComposableHeadClassifier, FeedbackCascadeClassifier, PassBudget
from skmsc.model_selection import TimeDelaySplit
from skmsc.thresholds import StageScores, check_policy, eager_stage, fit_thresholds

coarse_scores = pytest.mark.filterwarnings("ignore:.*distinct scores")
no_alert = pytest.mark.filterwarnings("ignore:.*leaves no alert")
EPS = 1e-9


def random_case(seed, policy, n_stages=2, n_samples=60, n_values=12, n_days=5):
    """Scores, times in days and weights; the values that the policy reads are its own."""
    rng = np.random.default_rng(seed)
    proba = rng.multinomial(n_values, [0.5, 0.5], (n_samples, n_stages)) / n_values
    negative, weight = int(rng.integers(2)), rng.integers(1, 4, n_samples).astype(float)
    day = rng.integers(n_days, size=n_samples) + 100
    return day, StageScores(
        stage_proba=proba,
        y=np.zeros(n_samples, dtype=int),
        sample_weight=weight,
        negative=negative,
        caught=None,
        stage_costs=None,
        stage_names=tuple(f"s{k}" for k in range(n_stages)),
        untouched=False,
        row_values=policy.per_row({"time": day}, weight),
    )


def busiest(scores, day, alerts):
    return max(scores.sample_weight[alerts & (day == d)].sum() for d in np.unique(day))


def per_mean_day(scores, day, alerts):
    return scores.sample_weight[alerts].sum() / (day.max() - day.min() + 1)


@no_alert
@pytest.mark.parametrize("average, count", [(False, busiest), (True, per_mean_day)])
@pytest.mark.parametrize("seed", range(20))
def test_the_cut_is_the_lowest_within_the_budget(seed, average, count):
    budget = [1, 3, 6.5, 12, 1000][seed % 5]
    policy = AlertBudget(budget, per=1, average=average)
    day, scores = random_case(seed, policy)
    proba = scores.stage_proba[:, 0, 1]
    cut = policy.find_alert_threshold(proba, scores)
    within = [c for c in [*np.unique(proba), np.inf] if count(scores, day, proba >= c) <= budget]
    np.testing.assert_array_equal(proba >= cut, proba >= min(within))


@no_alert
@coarse_scores
@pytest.mark.parametrize("n_stages", [2, 3])
@pytest.mark.parametrize("seed", range(15))
def test_early_stages_keep_the_alerts_of_the_last(seed, n_stages):
    policy = AlertBudget(8, per=1, min_kept=[1.0, 0.8, 0.5][seed % 3])
    day, scores = random_case(seed, policy, n_stages)
    last = scores.stage_proba[:, -1, 1 - scores.negative]
    within = [c for c in [*np.unique(last), np.inf] if busiest(scores, day, last >= c) <= 8]
    alerts = last >= min(within)
    reached = eager_stage(scores.stage_proba, fit_thresholds(policy, scores)) == n_stages - 1
    weight, worth = scores.sample_weight, scores.sample_weight * last
    least = policy.min_kept * worth[alerts].sum() - EPS
    assert worth[alerts & reached].sum() >= least
    if n_stages == 2:  # and no row more than these need
        conf = scores.confidence(0)
        rates = [
            weight[conf < c].sum()
            for c in [*np.unique(conf), np.inf]
            if worth[alerts & (conf < c)].sum() >= least
        ]
        assert weight[reached].sum() == min(rates)


def test_by_hand():
    policy = AlertBudget(2, per="1D")
    time = np.array(["2024-05-01T01", "2024-05-01T12", "2024-05-01T23", "2024-05-02T00"], "M8[h]")
    scores = StageScores(
        stage_proba=np.zeros((4, 2, 2)),
        y=np.zeros(4, dtype=int),
        sample_weight=np.ones(4),
        negative=0,
        caught=None,
        stage_costs=None,
        stage_names=("a", "b"),
        untouched=False,
        row_values=policy.per_row({"time": time}, np.ones(4)),
    )
    proba = np.array([0.5, 0.7, 0.9, 0.6])
    # Of the first day the third likeliest row, .5, is one too many; the second day has room.
    assert policy.find_alert_threshold(proba, scores) == pytest.approx(0.55)
    # Three alerts in two days are a mean of 1.5; four are within the budget.
    mean = AlertBudget(1.5, average=True)
    assert mean.find_alert_threshold(proba, scores) == pytest.approx(0.55)


@pytest.mark.parametrize(
    "convert",
    [
        lambda time: pd.Series(time),
        lambda time: pd.Series(time).dt.tz_localize("UTC"),
        lambda time: [datetime.datetime(1970, 1, 1) + datetime.timedelta(int(d)) for d in D],
        lambda time: list(time),
    ],
)
def test_times_of_any_kind(convert):
    time, policy = D.astype("M8[D]"), AlertBudget(3)
    np.testing.assert_array_equal(
        policy.per_row({"time": convert(time)}, np.ones(D.size))["period"],
        policy.per_row({"time": time}, np.ones(D.size))["period"],
    )


D = np.array([3, 3, 5, 9, 9])


@pytest.mark.parametrize("per", ["2D", "48h", np.timedelta64(2, "D"), datetime.timedelta(2)])
def test_durations_of_any_kind(per):
    found = AlertBudget(3, per=per).per_row({"time": D.astype("M8[D]")}, np.ones(D.size))
    np.testing.assert_array_equal(found["period"], [0, 0, 1, 3, 3])
    np.testing.assert_array_equal(found["period_rows"], [2, 2, 1, 2, 2])


def test_each_row_stands_for_those_of_its_period_without_scores():
    policy, day = AlertBudget(4, per=1), np.repeat([0, 1], [40, 10])
    values = policy.per_row({"time": day}, np.ones(50))
    scores = StageScores(
        stage_proba=np.zeros((50, 2, 2)),
        y=np.zeros(50, dtype=int),
        sample_weight=np.ones(50),
        negative=0,
        caught=None,
        stage_costs=None,
        stage_names=("a", "b"),
        untouched=False,
        row_values=values,
    )
    some = scores.only(np.r_[0:20, 40:50])  # every second row of day 0, all of day 1
    proba = np.r_[np.linspace(0.9, 0.5, 20), np.linspace(0.8, 0.4, 10)]
    alerts = proba >= policy.find_alert_threshold(proba, some)
    assert alerts[:20].sum() == 2 and alerts[20:].sum() <= 4


# In the estimators ------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
N = 1200
Y = (RNG.random(N) < 0.1).astype(int)
X = RNG.normal(size=(N, 3)) + 1.5 * Y[:, None]
DAY = np.sort(RNG.integers(20, size=N))
TIME = np.datetime64("2024-05-01T00") + (DAY * 24 + RNG.integers(24, size=N)).astype("m8[h]")


def cascade(thresholds, **params):
    stages = [
        ("screen", make_pipeline(StandardScaler(), LogisticRegression(C=0.01))),
        ("final", LogisticRegression()),
    ]
    defaults = {"stages": stages, "feedback": "none", "random_state": 0}
    return FeedbackCascadeClassifier(**(defaults | params), thresholds=thresholds)


def per_day(alerts, day=DAY):
    return np.bincount(day[alerts], minlength=20)


def test_no_day_of_the_rows_set_on_has_more_alerts():
    model = cascade(AlertBudget(5)).fit(X, Y, time=TIME)
    budget = AlertBudget(3, min_kept=1.0)
    assert model.tune_thresholds(X, thresholds=budget, time=TIME) is model
    counts = per_day(model.alerts(X))
    assert counts.max() == 3
    # One more alert among the rows that the last stage saw would break it.
    proba, passed = model.predict_proba(X)[:, 1], model.route(X).stage == 1
    following = proba[passed & (proba < model.alert_threshold_)].max()
    assert per_day(proba >= following).max() > 3


def test_alerts_are_a_fixed_threshold_and_predict_stays_the_likeliest_class():
    model = cascade(AlertBudget(8)).fit(X, Y, time=TIME)
    proba = model.predict_proba(X)
    np.testing.assert_array_equal(model.predict(X), model.classes_[proba.argmax(axis=1)])
    fixed = FixedThresholdClassifier(FrozenEstimator(model), threshold=model.alert_threshold_)
    np.testing.assert_array_equal(fixed.fit(X, Y).predict(X) == 1, model.alerts(X))
    assert (model.alerts(X) != (model.predict(X) == 1)).any()


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"validation_fraction": 0.3},
        {"cv": TimeSeriesSplit(4)},
        {"cv": TimeDelaySplit(3, test_size="4D", gap="2D")},
        {"unlabeled_label": -1},
    ],
)
def test_the_population_is_all_rows_given(params):
    # Few rows have scores; the cut is that of all rows of their days, up to their noise.
    y = np.where(np.arange(N) % 3 == 0, -1, Y) if "unlabeled_label" in params else Y
    model = cascade(AlertBudget(6, average=True)).set_params(**params).fit(X, y, time=TIME)
    assert 3 < per_day(model.alerts(X)).mean() < 9


@pytest.mark.parametrize("calibration", ["sigmoid", "isotonic", None])
@pytest.mark.parametrize("max_alerts", [1, 4, 12])
def test_a_dismissed_row_is_no_alert_and_keeps_its_rank(max_alerts, calibration):
    model = cascade(PassBudget(0.1), calibration=calibration).fit(X, Y)
    screen, budget = model.stage_proba(X)[:, 0, 1], AlertBudget(max_alerts, min_kept=0.5)
    model.tune_thresholds(X, thresholds=budget, time=TIME)
    after, dismissed = model.predict_proba(X), model.route(X).stage == 0
    assert not model.alerts(X)[dismissed].any()
    assert after[dismissed, 1].max() < model.alert_threshold_
    np.testing.assert_allclose(after.sum(axis=1), 1)
    order = np.argsort(screen[dismissed], kind="stable")
    assert (np.diff(after[dismissed, 1][order]) >= 0).all()
    routed = model.route(X)
    staged = list(model.staged_predict_proba(X))[-1]
    np.testing.assert_allclose(routed.proba, staged)


def test_where_all_that_reach_the_last_stage_may_be_alerts_dismissed_rows_are_none():
    # Isotonic probabilities are 0 at the low end, in both stages.
    model = cascade(AlertBudget(1000), calibration="isotonic").fit(X, Y, time=TIME)
    proba, stage = model.predict_proba(X), model.route(X).stage
    assert (proba[stage == 0, 1] == 0).any() and np.isfinite(proba).all()
    np.testing.assert_array_equal(model.alerts(X), (stage == 1) & (proba[:, 1] > 0))
    assert type(model.alert_threshold_) is float


def test_composable_heads_are_tuned_to_a_budget():
    model = ComposableHeadClassifier(LogisticRegression(), "passthrough", thresholds=0.3)
    model.fit(X, Y)
    tuned = model.tune_thresholds(X, thresholds=AlertBudget(3), time=TIME, copy=True)
    assert per_day(tuned.alerts(X)).max() == 3 and model.alert_threshold_ is None
    tuned.relabel(X[:9], 0, 1)  # changes the heads, thus their probabilities
    with pytest.raises(ValueError, match="after a change of heads"):
        tuned.alerts(X)


def test_a_budget_per_day_fits_where_labels_are_missing():
    y = np.where(DAY >= 15, -1, Y)
    model = cascade(AlertBudget(5), unlabeled_label=-1).fit(X, y, time=TIME)
    counts = per_day(model.alerts(X))
    assert counts[:15].max() <= 7  # scores there were out-of-fold
    tuned = model.tune_thresholds(X, thresholds=AlertBudget(5), time=TIME)
    assert per_day(tuned.alerts(X)).max() == 5


def test_through_pipelines_and_searches():
    budget = AlertBudget(5)
    plain = cascade(budget, cv=2).fit(X, Y, time=TIME)
    pipe = make_pipeline(StandardScaler(with_mean=False, with_std=False), cascade(budget, cv=2))
    pipe.fit(X, Y, feedbackcascadeclassifier__time=TIME)
    assert pipe[-1].alert_threshold_ == plain.alert_threshold_
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(cascade(budget, cv=2), {"thresholds__max_alerts": [5]}, cv=2)
        search.fit(X, Y, time=TIME)
        splitter = TimeDelaySplit(2, test_size="4D", gap="2D")
        GridSearchCV(cascade(budget, cv=2), {}, cv=splitter).fit(X, Y, time=TIME)
        by_time = cascade(PassBudget(0.2), cv=splitter)  # time is the splitter's alone
        make_pipeline(StandardScaler(), by_time).fit(X, Y, time=TIME)
    assert search.best_estimator_.alert_threshold_ == plain.alert_threshold_


def test_the_cap_holds_with_a_warning():
    with pytest.warns(UserWarning, match=r"AlertBudget.* the cap holds, and 0\.\d+ of the alerts"):
        model = cascade(AlertBudget(9, min_kept=1.0, max_pass_rate=0.05)).fit(X, Y, time=TIME)
    assert (model.route(X).stage == 1).mean() < 0.07


@coarse_scores
def test_ties_beyond_the_budget_leave_no_alert():
    policy = AlertBudget(2, per=1)
    with pytest.warns(UserWarning, match="leaves no alert: the rows that tie at the highest"):
        cascade(policy, stages=[("a", Constant()), ("b", Constant())]).fit(X, Y, time=DAY)


class Constant(LogisticRegression):
    """Scores all rows alike."""

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)


# Bad input --------------------------------------------------------------------------------------


class Untouchable(LogisticRegression):
    """Fails the test when it is fitted."""

    def fit(self, X, y, sample_weight=None):
        raise AssertionError("a stage was fitted before the input was refused")


@pytest.mark.parametrize(
    "policy, time, error, message",
    [
        (AlertBudget(5), None, ValueError, "reads time of each row, and none was given"),
        (AlertBudget(5), TIME[:7], ValueError, r"time must have shape \(1200,\)"),
        (AlertBudget(5), DAY, TypeError, "time holds numbers, so that per is one.* got '1D'"),
        (AlertBudget(5, per=1), TIME, TypeError, "time holds dates, so that per is a duration"),
        (AlertBudget(5), np.full(N, "NaT", "M8[s]"), ValueError, "time is missing"),
        (AlertBudget(5), ["a"] * N, TypeError, "time must hold dates or numbers"),
        (AlertBudget(0), TIME, ValueError, "max_alerts must be a finite number > 0; got 0"),
        (AlertBudget("9"), TIME, TypeError, "max_alerts must be a finite number > 0; got '9'"),
        (AlertBudget(np.inf), TIME, ValueError, "max_alerts must be .*; got inf"),
        (AlertBudget(5, per="1 month"), TIME, ValueError, "per must be .*; got '1 month'"),
        (AlertBudget(5, per="0D"), TIME, ValueError, "per must be a duration above 0"),
        (AlertBudget(5, per=-1), DAY, ValueError, "per must be a duration above 0"),
        (AlertBudget(5, per=None), TIME, TypeError, "per must be .*; got None"),
        (AlertBudget(5, average=1), TIME, TypeError, "average must be True or False; got 1"),
        (AlertBudget(5, min_kept=0), TIME, ValueError, r"min_kept .* in \(0, 1\]; got 0"),
        (AlertBudget(5, max_pass_rate=2), TIME, ValueError, r"max_pass_rate .* \[0, 1\]; got 2"),
    ],
)
def test_bad_budgets(policy, time, error, message):
    model = cascade(policy, stages=[("a", Untouchable()), ("b", Untouchable())])
    with pytest.raises(error, match=message):
        model.fit(X, Y, **({} if time is None else {"time": time}))
    with pytest.raises(error, match=message):
        cascade(PassBudget(0.3)).fit(X, Y).tune_thresholds(X, thresholds=policy, time=time)


@pytest.mark.parametrize(
    "time", [[0.0, 1e300], [-1.5e308, 1.5e308], [-(2**62), 2**62]], ids=["large", "floats", "ints"]
)
def test_times_too_far_apart_are_refused(time):
    with pytest.raises(ValueError, match=r"time spans .* periods of per=1, too many to count"):
        AlertBudget(5, per=1).per_row({"time": np.array(time)}, np.ones(2))


def test_a_period_too_short_for_the_times_is_refused():
    with pytest.raises(ValueError, match=r"time spans .* periods of per=1e-300, too many to count"):
        AlertBudget(5, per=1e-300).per_row({"time": np.array([0.0, 1e300])}, np.ones(2))


def test_a_time_beyond_integers_is_refused():
    with pytest.raises(ValueError, match=r"time must be below 2\*\*63; got 9223372036854775808"):
        AlertBudget(5, per=1).per_row({"time": np.array([1, 2**63], np.uint64)}, np.ones(2))


def test_times_that_are_large_but_near_each_other():
    time = 2**62 + np.array([0, 1, 5, 9])
    read = AlertBudget(5, per=5).per_row({"time": time}, np.ones(4))
    np.testing.assert_array_equal(read["period"], time // 5 - time[0] // 5)


def test_the_time_of_a_row_without_weight_is_not_read():
    read = AlertBudget(5, per=1).per_row({"time": np.array([3.0, 1e300, 4.0])}, np.array([1, 0, 1]))
    np.testing.assert_array_equal(read["period"][[0, 2]], [0, 1])
    np.testing.assert_array_equal(read["period_rows"][[0, 2]], [1, 1])


def test_more_than_two_classes():
    with pytest.raises(ValueError, match="needs two classes; y has 3"):
        check_policy(AlertBudget(5), n_stages=2, n_classes=3, untouched=False, given=["time"])


def test_a_time_that_nobody_reads_is_refused():
    with pytest.raises(TypeError, match="takes no time"):
        cascade(PassBudget(0.2)).fit(X, Y, time=TIME)
    with config_context(enable_metadata_routing=True), pytest.raises(TypeError, match="time"):
        cascade(PassBudget(0.2)).fit(X, Y, time=TIME)
