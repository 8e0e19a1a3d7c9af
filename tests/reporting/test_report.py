"""The stage report, worked by hand, and the functions that reach through wrappers."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.datasets import make_classification
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skmsc
from skmsc.metrics import neg_mean_cost_scorer, neg_pass_rate_scorer, retained_recall_scorer
from skmsc.neural import MultiExitNet
from skmsc.reporting._report import stage_report
from skmsc.reporting._table import binomial_interval, effective_size

X, Y = make_classification(400, weights=[0.8], random_state=0)


def cascade(**kwargs):
    stages = [("screen", LogisticRegression()), ("final", GaussianNB())]
    return skmsc.FeedbackCascadeClassifier(
        stages, thresholds=skmsc.PassBudget(0.3), stage_costs=[1, 9], cv=3, random_state=0, **kwargs
    )


def by_hand():
    # Three stages; rows: (stage, positive, answered with its class, caught)
    rows = np.array(
        [
            (0, 0, 1, 0), (0, 0, 1, 0), (0, 1, 0, 1), (0, 1, 0, 0),
            (1, 0, 1, 0), (1, 1, 0, 1),
            (2, 1, 1, 1), (2, 1, 0, 0), (2, 0, 0, 0), (2, 1, 1, 1),
        ]
    )  # fmt: skip
    stage, positive, correct, caught = rows.T
    return stage, positive.astype(bool), correct.astype(bool), caught.astype(bool)


def test_columns_by_hand():
    stage, positive, correct, caught = by_hand()
    report = stage_report(
        ["a", "b", "c"], stage, np.ones(10), answer=np.where(correct, positive, ~positive) * 1,
        classes=["no", "yes"], stage_costs=np.array([1.0, 2.0, 5.0]), correct=correct,
        positive=positive, caught=caught, seconds=np.array([0.5, 0.25, 2.0]),
    )  # fmt: skip
    ends = {name: report.columns.pop(name) for name in list(report.columns) if "recall_" in name}
    assert report.columns == {
        "stage": ("a", "b", "c"),
        "rows_in": (10, 6, 4),
        "answered": (4, 2, 4),
        "answered_as_no": (4, 2, 1),
        "answered_as_yes": (0, 0, 3),
        "passed": (6, 4, 0),
        "pass_rate": (1.0, 0.6, 0.4),
        "cost": (1.0, 1.2, 2.0),
        "cost_share": pytest.approx((1 / 4.2, 1.2 / 4.2, 2 / 4.2)),
        "seconds": (0.5, 0.25, 2.0),
        "positives_in": (6, 4, 3),
        "positives_lost": (2, 1, 1),
        "positives_kept": (4, 3, 2),
        "retained_recall": (0.75, 0.5, 0.5),
        "cumulative_recall": pytest.approx((4 / 6, 3 / 6, 2 / 6)),
    }
    assert report.mean_cost == pytest.approx(4.2)
    assert report.n_rows == 10
    for name, kept, n in (("retained_recall", (3, 2, 2), 4), ("cumulative_recall", (4, 3, 2), 6)):
        exact = [binomtest(k, n).proportion_ci(method="exact") for k in kept]
        assert ends[f"{name}_low"] == pytest.approx([ci.low for ci in exact])
        assert ends[f"{name}_high"] == pytest.approx([ci.high for ci in exact])


def test_intervals_at_the_ends_and_of_weights():
    low, high = binomial_interval([0.0, 1.0, np.nan], [20, 20, 0])
    exact = binomtest(0, 20).proportion_ci(method="exact").high
    assert (low[0], high[1]) == (0.0, 1.0)
    assert (high[0], 1 - low[1]) == pytest.approx((exact, exact))
    assert (low[2], high[2]) == (0.0, 1.0)
    assert effective_size(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_size(np.array([1.0, 0.0, 1.0])) == pytest.approx(2)
    assert effective_size(np.zeros(3)) == 0.0
    assert effective_size(np.empty(0)) == 0.0
    assert effective_size(np.full(7, 1e200)) == pytest.approx(7)
    assert effective_size(np.full(7, 1e-200)) == pytest.approx(7)


@pytest.mark.slow
def test_intervals_cover():
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.9):
        hits = rng.binomial(40, share, size=4000)
        low, high = binomial_interval(hits / 40, 40)
        assert ((low <= share) & (share <= high)).mean() >= 0.95 - 0.01


def test_text_html_and_frame_hold_the_same_cells():
    stage, positive, correct, _ = by_hand()
    report = stage_report(
        ["a", "b", "<c>"], stage, np.full(10, 0.5), correct=correct, positive=positive
    )
    assert "cumulative recall" in repr(report) and "retained" not in repr(report)
    assert "cost" not in repr(report)
    assert "&lt;c&gt;" in report._repr_html_()
    frame = report.to_frame()
    assert frame.loc["b", "rows_in"] == 3.0
    assert list(frame.columns) == list(report.columns)[1:]


def test_lines_fit_a_terminal_and_many_classes_stay_out():
    stage, positive, correct, caught = by_hand()
    known = {"correct": correct, "positive": positive, "caught": caught}
    report = stage_report(
        ["a", "b", "c"], stage, np.full(10, 1e5), stage_costs=np.ones(3), seconds=np.ones(3),
        answer=positive * 1, classes=["no", "yes"], **known,
    )  # fmt: skip
    lines = repr(report).splitlines()
    assert max(map(len, lines)) <= 100
    assert len([line for line in lines if line.startswith("stage")]) == 2
    many = stage_report(
        ["a", "b", "c"], stage, np.ones(10), answer=np.arange(10), classes=range(10)
    )
    assert " as " not in repr(many) and many.to_frame()["answered_as_9"].sum() == 1


def test_counts_by_class_and_time_of_a_cascade():
    model = cascade().fit(X, Y)
    report = model.report(X, measure_time=True)
    answer = model.predict(X)
    assert [sum(report.columns[f"answered_as_{c}"]) for c in (0, 1)] == np.bincount(answer).tolist()
    assert report.columns["answered_as_1"][0] == 0
    assert all(taken > 0 for taken in report.columns["seconds"])
    assert "seconds" not in skmsc.report(model, X).columns
    assert "seconds" in skmsc.report(model, X, measure_time=True).columns


def test_a_stage_without_rows_has_no_accuracy():
    report = stage_report(["a", "b"], np.zeros(3, int), np.ones(3), correct=np.ones(3, bool))
    assert repr(report).splitlines()[-1].endswith("-")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model,
        lambda model: make_pipeline(StandardScaler(), model),
        lambda model: make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), model)),
        lambda model: GridSearchCV(model, {"feedback": ["none"]}, cv=2),
        lambda model: make_pipeline(StandardScaler(), FixedThresholdClassifier(model)),
    ],
    ids=["bare", "pipeline", "nested", "search", "threshold"],
)
def test_route_and_report_reach_through_wrappers(wrap):
    model = wrap(cascade()).fit(X, Y)
    routing = skmsc.route(model, X)
    assert routing.stage.shape == (400,)
    report = skmsc.report(model, X, Y)
    assert report.columns["answered"] == tuple(np.bincount(routing.stage, minlength=2))
    assert neg_pass_rate_scorer(model, X, Y) == -np.mean(routing.stage == 1)
    assert neg_mean_cost_scorer(model, X) == -np.mean(routing.cost)
    assert retained_recall_scorer(model, X, Y) == report.columns["retained_recall"][-1]


def test_route_reaches_into_what_is_frozen():
    model = make_pipeline(FunctionTransformer(), cascade()).fit(X, Y)
    frozen = skmsc.route(FrozenEstimator(model), X)
    np.testing.assert_array_equal(frozen.proba, skmsc.route(model, X).proba)


def test_earlier_steps_run_once():
    calls = []

    def count(X):
        calls.append(len(X))
        return X

    model = make_pipeline(FunctionTransformer(count), cascade()).fit(X, Y)
    calls.clear()
    skmsc.report(model, X, Y)
    assert calls == [400]


def test_other_estimators_are_refused():
    with pytest.raises(TypeError, match="no fitted multi-stage classifier in the Logistic"):
        skmsc.route(LogisticRegression().fit(X, Y), X)


def test_scorers_that_lack_what_they_need_say_so():
    model = (
        cascade()
        .set_params(stage_costs=None, final=QuadraticDiscriminantAnalysis(reg_param=0.1))
        .fit(X, Y)
    )
    with pytest.raises(ValueError, match="set stage_costs"):
        neg_mean_cost_scorer(model, X)
    X3, y3 = make_classification(300, n_informative=5, n_classes=3, random_state=0)
    model = cascade(feedback="none").set_params(thresholds=0.9).fit(X3, y3)
    with pytest.raises(ValueError, match="needs a catch_threshold_, which"):
        retained_recall_scorer(model, X3, y3)


# --- alerts -----------------------------------------------------------------------------------
def early_exit():
    net = MultiExitNet(width=8, depth=2, max_epochs=3, random_state=0)
    return skmsc.EarlyExitClassifier(GaussianNB(), net, thresholds=0.9, cv=2, random_state=0)


def composable():
    return skmsc.ComposableHeadClassifier(GaussianNB(), "passthrough", thresholds=0.9)


AMOUNT = np.random.default_rng(0).uniform(1, 50, len(Y))
TIME = np.arange(len(Y)) // 20
POLICIES = {
    "budget": (skmsc.AlertBudget(3, per=1), {"time": TIME}),
    "money": (skmsc.ExpectedCost(None, 2.0), {"false_negative_cost": AMOUNT}),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("make", [cascade, early_exit, composable])
def test_alerts_are_told_beside_what_predict_says(make, policy):
    thresholds, metadata = POLICIES[policy]
    model = make().fit(X, Y)
    assert "alerts" not in model.report(X, Y).columns
    tuned = model.tune_thresholds(X, Y, thresholds=thresholds, copy=True, **metadata)
    report, stage, alerts = tuned.report(X, Y), tuned.route(X).stage, tuned.alerts(X)
    for name, rows in (("alerts", alerts), ("positives_alerted", alerts & (Y == 1))):
        counts = np.bincount(stage[rows], minlength=len(tuned.thresholds_))
        assert report.columns[name] == tuple(counts)
    assert alerts.any()
    assert "alerts" not in model.report(X, Y).columns
    assert "positives_alerted" not in tuned.report(X).columns


@pytest.mark.parametrize("make", [early_exit, composable])
def test_which_class_is_the_positive_one_is_told(make):
    labels = np.where(Y == 1, "fraud", "ok")
    model = make().fit(X, labels)
    report, monitor = model.report(X, labels), model.monitor(X, labels)
    assert report.pos_label == monitor.pos_label == "ok"
    assert "positives: rows of class ok" in repr(report)
    assert "recall of class ok: " in repr(monitor)
    assert model.report(X).pos_label is None and model.monitor(X).pos_label is None
    with pytest.warns(UserWarning, match="Alerts are of the second of two classes, 'ok'"):
        model.tune_thresholds(X, labels, thresholds=skmsc.ExpectedCost(5.0, 1.0))
