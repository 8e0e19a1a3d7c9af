"""Displays by what they draw: the data of their artists against the rows."""

import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skmsc
from skmsc.metrics import neg_mean_cost_scorer
from skmsc.model_selection import ThresholdSearchCV
from skmsc.neural import MultiExitNet
from skmsc.reporting import (
    CostScoreDisplay,
    StageCalibrationDisplay,
    StageFlowDisplay,
    ThresholdDisplay,
)
from skmsc.reporting._cost_display import find_front

X, Y = make_classification(1500, weights=[0.9], flip_y=0.02, random_state=0)
X3, Y3 = make_classification(900, n_informative=6, n_classes=3, random_state=0)
NAMES = np.array(["ok", "fraud"])


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def cascade(**kwargs):
    stages = [("screen", LogisticRegression()), ("final", GaussianNB())]
    parameters = {"thresholds": skmsc.PassBudget(0.3), "feedback": "none", "cv": 3}
    return skmsc.FeedbackCascadeClassifier(stages, random_state=0, **{**parameters, **kwargs})


def early_exit(**kwargs):
    net = MultiExitNet(width=8, depth=2, max_epochs=3, random_state=0)
    return skmsc.EarlyExitClassifier(
        LogisticRegression(), net, thresholds=0.8, cv=3, random_state=0, **kwargs
    )


def composable():
    return skmsc.ComposableHeadClassifier(
        GaussianNB(), "passthrough", thresholds=0.8, random_state=0
    )


MODEL = cascade().fit(X, Y)
EXITS = early_exit().fit(X, Y)
HEADS = composable().fit(X3, Y3)
EVERY = pytest.mark.parametrize(
    "model, rows, labels",
    [(MODEL, X, Y), (EXITS, X, Y), (HEADS, X3, Y3), (early_exit(confidence="margin"), X3, Y3)],
    ids=["cascade", "early_exit", "composable", "three_exits"],
)


def fitted(model, rows, labels):
    return model if hasattr(model, "thresholds_") else model.fit(rows, labels)


def height(patch):
    """Height of a patch; 0 where there is none."""
    return 0.0 if patch is None else patch.get_path().get_extents(patch.get_transform()).height


def overlap(artists, figure):
    """Pairs of texts that overlap on the page."""
    figure.canvas.draw()
    boxes = [(t.get_text(), plt.Text.get_window_extent(t)) for t in artists]  # without arrows
    return [
        (a[0], b[0]) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a[1].overlaps(b[1])
    ]


# --- flow -------------------------------------------------------------------------------------
@EVERY
def test_flow_heights_are_shares(model, rows, labels):
    model = fitted(model, rows, labels)
    display = StageFlowDisplay.from_estimator(model, rows, labels)
    routing, n_stages = model.route(rows), len(model.thresholds_)
    wrong = model.predict(rows) != labels
    second = labels == 1 if len(model.classes_) == 2 else wrong
    for flow, of_flow in enumerate([np.ones(len(labels), bool), second]):
        unit = height(display.nodes_[flow][0])
        for k in range(n_stages):
            reach = (of_flow & (routing.stage >= k)).sum()
            leave = of_flow & (routing.stage == k)
            lost = (leave & wrong).sum() * flow
            drawn = [
                height(patches[flow][k]) / unit * of_flow.sum()
                for patches in (display.nodes_, display.passes_, display.exits_, display.losses_)
            ]
            last = k == n_stages - 1
            wanted = [reach, 0 if last else reach - leave.sum(), leave.sum() - lost, lost]
            np.testing.assert_allclose(drawn, wanted, atol=1e-6 * of_flow.sum() + 1e-6)
    assert overlap(display.texts_, display.figure_) == []


def test_flow_says_the_numbers_and_marks_what_is_lost():
    display = StageFlowDisplay.from_estimator(MODEL, X, Y)
    text = "\n".join(t.get_text() for t in display.texts_)
    report = MODEL.report(X, Y).columns
    assert f"as 0: {report['answered'][0]:,.0f}" in text
    assert f"lost {report['positives_lost'][0]:.0f}" in text
    assert f"{Y.sum()} positives" in text
    assert display.losses_[1][0].get_hatch() and not display.exits_[0][0].get_hatch()


def test_flow_without_labels_has_one_lane():
    display = StageFlowDisplay.from_estimator(MODEL, X)
    assert len(display.nodes_) == 1
    none = StageFlowDisplay.from_estimator(MODEL, X, np.zeros(len(Y), dtype=int))
    assert len(none.nodes_) == 1  # of no positives no share is drawn


def test_flow_from_predictions_is_that_of_the_estimator():
    weight = np.random.default_rng(0).uniform(size=len(Y))
    routing = MODEL.route(X)
    of_rows = StageFlowDisplay.from_predictions(
        routing.stage, NAMES[Y], NAMES[MODEL.predict(X)], pos_label="fraud",
        stage_names=["screen", "final"], sample_weight=weight,
    )  # fmt: skip
    of_model = StageFlowDisplay.from_estimator(MODEL, X, Y, sample_weight=weight)
    for kind in ("nodes_", "passes_", "exits_", "losses_"):
        for a, b in zip(getattr(of_rows, kind), getattr(of_model, kind), strict=True):
            assert [height(p) for p in a] == pytest.approx([height(p) for p in b])
    assert len(StageFlowDisplay.from_predictions(routing.stage).nodes_[0]) == 2


# --- thresholds -------------------------------------------------------------------------------
def in_bins(display, name, score, weight=None):
    values, edges, _ = display.steps_[name].get_data()
    counts = np.histogram(np.clip(score, edges[0], edges[-1]), edges, weights=weight)[0]
    np.testing.assert_allclose(values, counts / counts.sum())


@pytest.mark.parametrize("stage", [0, "screen", 1, "final"])
def test_threshold_display_of_a_cascade(stage):
    weight = np.random.default_rng(0).integers(0, 3, size=len(Y)).astype(float)
    display = ThresholdDisplay.from_estimator(MODEL, X, Y, stage=stage, sample_weight=weight)
    k = {"screen": 0, "final": 1}.get(stage, stage)
    score, reaches = MODEL.stage_proba(X)[:, k, 1], MODEL.route(X).stage >= k
    for label in (0, 1):
        rows = reaches & (Y == label)
        in_bins(display, f"class {label}", score[rows], weight[rows])
    cuts = [line.get_xdata()[0] for line in display.cuts_]
    assert cuts == pytest.approx([1 - MODEL.thresholds_[0, 0]] * (k == 0))
    assert len(display.answers_) == (k == 0)


def test_threshold_display_of_both_sides():
    display = ThresholdDisplay.from_estimator(EXITS, X, Y)
    cuts = [line.get_xdata()[0] for line in display.cuts_]
    np.testing.assert_allclose(cuts, [0.2, 0.8])
    assert [t.get_text() for t in display.texts_] == ["0 below\n0.2", "1 from\n0.8"]
    in_bins(display, "class 1", EXITS.stage_proba(X)[Y == 1, 0, 1])


def test_threshold_display_of_three_classes():
    display = ThresholdDisplay.from_estimator(HEADS, X3, Y3)
    proba = HEADS.stage_proba(X3)[:, 0]
    right = proba.argmax(axis=1) == Y3
    in_bins(display, "likeliest class is right", proba[right].max(axis=1))
    in_bins(display, "likeliest class is wrong", proba[~right].max(axis=1))
    assert [line.get_xdata()[0] for line in display.cuts_] == pytest.approx([0.8])


def test_a_rare_class_is_as_high_as_a_common_one():
    display = ThresholdDisplay.from_estimator(MODEL, X, Y)
    assert [sum(s.get_data().values) for s in display.steps_.values()] == pytest.approx([1, 1])
    looks = [(s.get_linestyle(), s.get_hatch()) for s in display.steps_.values()]
    assert len(set(looks)) == 2


def test_small_cuts_are_drawn_on_a_logit_axis():
    rng = np.random.default_rng(0)
    score = np.append(rng.beta(0.1, 5, size=500), [0.0, 1.0])
    y = (rng.uniform(size=502) < score).astype(int)
    display = ThresholdDisplay.from_predictions(y, score, cuts={"cut": 0.01})
    assert display.ax_.get_xscale() == "logit"
    assert sum(display.steps_["class 0"].get_data().values) == pytest.approx(1.0)  # ends included
    linear = ThresholdDisplay.from_predictions(y, score * 100, cuts={"cut": 1.0})
    assert linear.ax_.get_xscale() == "linear"


# --- calibration ------------------------------------------------------------------------------
@EVERY
def test_calibration_by_hand(model, rows, labels):
    model = fitted(model, rows, labels)
    display = StageCalibrationDisplay.from_estimator(model, rows, labels, n_bins=4)
    routing = model.route(rows)
    two = len(model.classes_) == 2
    predicted = routing.proba[:, 1] if two else routing.proba.max(axis=1)
    happened = labels == 1 if two else routing.proba.argmax(axis=1) == labels
    for k, name in enumerate(model._stage_names):
        mine = routing.stage == k
        curve = display.curves.get(name, {"weight": np.zeros(0)})
        assert curve["weight"].sum() == mine.sum()
        if curve["weight"].size:
            assert curve["weight"] @ curve["predicted"] == pytest.approx(predicted[mine].sum())
            assert curve["weight"] @ curve["share"] == pytest.approx(happened[mine].sum())
            line = display.lines_[name].lines[0]
            np.testing.assert_allclose(line.get_xydata().T, [curve["predicted"], curve["share"]])


def test_bins_hold_the_same_number_of_rows_and_exact_intervals():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=400)
    y = rng.uniform(size=400) < p
    curve = StageCalibrationDisplay(np.zeros(400, int), p, y, n_bins=4).curves["stage 0"]
    order = np.argsort(p).reshape(4, 100)
    np.testing.assert_allclose(curve["predicted"], p[order].mean(axis=1))
    np.testing.assert_allclose(curve["share"], y[order].mean(axis=1))
    exact = [binomtest(int(y[rows].sum()), 100).proportion_ci(method="exact") for rows in order]
    np.testing.assert_allclose(curve["low"], [ci.low for ci in exact])
    np.testing.assert_allclose(curve["high"], [ci.high for ci in exact])


def test_weights_of_two_are_rows_twice_but_for_the_interval():
    rng = np.random.default_rng(0)
    p, weight = rng.uniform(size=60), rng.integers(1, 3, size=60)
    y = rng.uniform(size=60) < p
    one = StageCalibrationDisplay(np.zeros(60, int), p, y, sample_weight=weight, n_bins=3).curves[
        "stage 0"
    ]
    twice = np.repeat(np.arange(60), weight)
    two = StageCalibrationDisplay(np.zeros(twice.size, int), p[twice], y[twice], n_bins=3)
    for name in ("predicted", "share", "weight"):
        np.testing.assert_allclose(one[name], two.curves["stage 0"][name])


def test_rare_positives_get_room():
    y = np.zeros(400, dtype=int)
    y[:4] = 1
    p = np.full(400, 0.01)
    p[:4] = 0.012
    display = StageCalibrationDisplay.from_predictions(y, p, np.zeros(400, int))
    assert display.ax_.get_xscale() == "function"
    common = StageCalibrationDisplay.from_predictions(1 - y, 1 - p, np.zeros(400, int))
    assert common.ax_.get_xscale() == "linear"


# --- cost and score ---------------------------------------------------------------------------
def test_front_by_brute_force():
    rng = np.random.default_rng(0)
    cost, score = np.round(rng.uniform(size=(2, 60)), 1)
    cost[3] = np.nan
    front = find_front(cost, score)
    points = list(zip(cost, score, strict=True))
    beaten = [any(c <= a and s >= b and (c < a or s > b) for c, s in points) for a, b in points]
    assert {points[i] for i in front} == {
        p for p, b in zip(points, beaten, strict=True) if not b and p[0] == p[0]
    }
    assert (np.diff(cost[front]) > 0).all() and (np.diff(score[front]) > 0).all()


def test_cost_display_draws_what_it_was_given():
    cost, score = [1.0, 2.0, 3.0, 40.0], [0.5, 0.7, 0.6, 0.8]
    display = CostScoreDisplay(cost, score, chosen=1, single={"a": (5.0, 0.7), "b": (5.1, 0.7)})
    display.plot()
    np.testing.assert_array_equal(display.points_.get_xydata(), np.column_stack([cost, score]))
    assert display.front_.get_xdata().tolist() == [1.0, 2.0, 40.0]
    assert display.chosen_.get_xydata().tolist() == [[2.0, 0.7]]
    assert [line.get_xdata()[0] for line in display.single_] == [5.0, 5.1]
    assert [text.get_text() for text in display.texts_] == ["chosen", "a", "b"]
    assert overlap(display.texts_, display.figure_) == []
    assert display.ax_.get_xscale() == "log"


def test_cost_display_of_searches():
    scoring = {"ap": "average_precision", "cost": neg_mean_cost_scorer}
    grid = {"thresholds": [skmsc.PassBudget(rate) for rate in (0.1, 0.3, 0.6)]}
    search = GridSearchCV(cascade(stage_costs=[1, 9]), grid, scoring=scoring, refit="ap", cv=2)
    display = CostScoreDisplay.from_estimator(search.fit(X, Y))
    np.testing.assert_allclose(display.cost, -search.cv_results_["mean_test_cost"])
    np.testing.assert_allclose(display.score, search.cv_results_["mean_test_ap"])
    assert display.chosen == search.best_index_
    assert display.ax_.get_ylabel() == "ap"
    results = {"mean_test_score": np.array([0.1, 0.2]), "mean_test_pass_rate": np.array([0.5, 0.6])}
    found = SimpleNamespace(cv_results_=results, best_index_=1, pareto_front_=np.array([0, 1]))
    display = CostScoreDisplay.from_estimator(found, single={"net": (1.0, 0.3)})
    assert display.front_.get_xdata().tolist() == [0.5, 0.6]
    assert display.ax_.get_xlabel() == "pass rate (less is better)"


def test_cost_display_of_a_threshold_search_in_a_pipeline():
    settings = [skmsc.PassBudget(rate) for rate in (0.1, 0.3, 0.6)]
    search = ThresholdSearchCV(cascade(stage_costs=[1, 9]), settings, cv=2)
    pipeline = make_pipeline(StandardScaler(), search).fit(X, Y)
    search = pipeline[-1]
    for cost in ("cost", "pass_rate"):
        display = CostScoreDisplay.from_estimator(pipeline, cost=cost)
        np.testing.assert_allclose(display.cost, search.cv_results_[f"mean_test_{cost}"])
    assert display.chosen == search.best_index_
    front = CostScoreDisplay.from_estimator(search).front
    assert sorted(front) == sorted(search.pareto_front_)


@pytest.mark.parametrize("kind", [lambda: GridSearchCV(cascade(), {}), lambda: MODEL])
def test_cost_display_of_what_is_no_fitted_search(kind):
    with pytest.raises(TypeError, match="search must be a fitted search"):
        CostScoreDisplay.from_estimator(kind())


# --- all --------------------------------------------------------------------------------------
FROM = [StageFlowDisplay, ThresholdDisplay, StageCalibrationDisplay]


@pytest.mark.parametrize("kind", FROM)
def test_pipelines_are_unwrapped_and_axes_are_used(kind):
    model = make_pipeline(StandardScaler(), cascade()).fit(X, Y)
    figure, ax = plt.subplots()
    display = kind.from_estimator(model, X, Y, ax=ax)
    assert display.ax_ is ax and display.figure_ is figure
    assert display.plot() is display and display.ax_ is not ax


@pytest.mark.parametrize("kind", FROM)
def test_rows_without_a_label_are_left_out(kind):
    y = Y.copy()
    y[::3] = -1
    model = cascade(unlabeled_label=-1).fit(X, y)
    some, known = kind.from_estimator(model, X, y), y >= 0
    wanted = kind.from_estimator(model, X[known], y[known])
    titles = [[t.get_text() for t in d.figure_.findobj(plt.Text)] for d in (some, wanted)]
    assert titles[0] == titles[1]


def test_matplotlib_is_asked_for_only_when_plotting(monkeypatch):
    display = CostScoreDisplay([1.0], [1.0])
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"CostScoreDisplay.plot requires matplotlib: pip"):
        display.plot()


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: StageFlowDisplay.from_predictions([0, 1], [0, 1]),
            "y_true and y_pred go together",
        ),
        (
            lambda: StageFlowDisplay.from_predictions([0, 1], stage_names=["a"]),
            "name all stages, 2",
        ),
        (lambda: ThresholdDisplay.from_estimator(MODEL, X, Y, stage="x"), "stage must be one of"),
        (lambda: ThresholdDisplay.from_estimator(MODEL, X, Y, stage=2), "number below 2; got 2"),
        (lambda: ThresholdDisplay.from_estimator(MODEL, X, Y, bins=1), "bins must be .* got 1"),
        (lambda: ThresholdDisplay({"a": []}), "holds no row"),
        (lambda: StageCalibrationDisplay([0], [0.5, 0.1], [1]), "must be of one shape"),
        (lambda: CostScoreDisplay([1], [1, 2]), "must be of one shape"),
        (lambda: CostScoreDisplay([np.nan], [1]), "both a cost and a score"),
        (lambda: CostScoreDisplay([1], [1], chosen=1), "chosen must be an index below 1; got 1"),
        (lambda: StageFlowDisplay.from_predictions([0.5]), "stage must hold integers"),
        (lambda: StageFlowDisplay.from_predictions([0, 1], [0, 1], [0]), "inconsistent numbers"),
        (
            lambda: StageFlowDisplay.from_predictions([0, 1], [0, 1], [0, 1], pos_label=2),
            r"pos_label must be one of \[0, 1\]; got 2",
        ),
        (lambda: StageCalibrationDisplay([0], [1.5], [1]), "predicted must hold probabilities"),
        (lambda: StageCalibrationDisplay([0], [np.nan], [1]), "predicted must hold probabilities"),
        (lambda: StageCalibrationDisplay([0], [0.5], [1], n_bins=0), "n_bins must be .* got 0"),
        (
            lambda: StageCalibrationDisplay([1], [0.5], [1], stage_names=["a"]),
            "stage_names must name all stages, 2 at least",
        ),
        (
            lambda: StageCalibrationDisplay.from_predictions(["a", "b"], [0.5, 0.5], [0, 0]),
            "set pos_label",
        ),
        (lambda: StageCalibrationDisplay.from_estimator(MODEL, X, None), "y must hold the labels"),
        (lambda: ThresholdDisplay.from_estimator(MODEL, X, None), "y must hold the labels"),
        (lambda: ThresholdDisplay.from_predictions([0, 1], [0.5]), "inconsistent numbers"),
        (lambda: ThresholdDisplay({"a": [np.nan]}), "scores must be finite; those of 'a'"),
        (lambda: ThresholdDisplay({"a": [1.0]}, cuts={"b": np.inf}), "cuts must be .* for 'b'"),
        (
            lambda: CostScoreDisplay.from_estimator(
                SimpleNamespace(cv_results_={"mean_test_score": np.ones(1)})
            ),
            r"no cost among \['score'\]: name one in its scoring",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
