"""EarlyExitClassifier against independent computations, in scikit-learn's tools, on any input."""

import copy
import pickle
from functools import cache, partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from packaging.version import Version
from sklearn import __version__ as sklearn_version
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC

import skmsc
from skmsc import (
    Agreement,
    CostBudget,
    CostlyFeatures,
    EarlyExitClassifier,
    LearnedWeights,
    PassBudget,
    RecallFloor,
    SurvivorWeights,
)
from skmsc.calibration import fit_calibration
from skmsc.model_selection import TimeDelaySplit
from skmsc.neural import MultiExitNet, TabularNet

# Of torch itself, when it first takes a forward-mode derivative.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")

INF = np.inf
since_1_7 = pytest.mark.skipif(
    Version(sklearn_version) < Version("1.7"), reason="needs scikit-learn 1.7"
)
MEASURES = ("max_proba", "margin", "entropy")
coarse_scores = pytest.mark.filterwarnings("ignore:.*distinct scores")


def make(n_classes, n_samples=400, **params):
    """Rows that a small net learns in a few epochs."""
    defaults = {"n_informative": 4, "n_redundant": 0, "class_sep": 1.3, "random_state": 0}
    return make_classification(n_samples, 6, n_classes=n_classes, **(defaults | params))


DATA = {n_classes: make(n_classes) for n_classes in (2, 3, 5)}
X, y = DATA[2]
X3, y3 = DATA[3]
GROUPS = np.random.default_rng(0).integers(80, size=len(y))


class RecordingNet(MultiExitNet):
    """A net that keeps what it was trained on, and how it was to be validated."""

    seen = []

    def fit_exits(self, X, y, sample_weight=None, split_params=None, **how):
        self.seen.append({"X": X, "y": y, "weight": sample_weight, **how})
        return super().fit_exits(X, y, sample_weight, split_params, **how)


class RecordingModel(LogisticRegression):
    """A first stage that keeps what its fits were handed."""

    seen = []

    def fit(self, X, y, sample_weight=None):
        self.seen.append({"X": X, "y": y, "weight": sample_weight})
        return super().fit(X, y, sample_weight)


@pytest.fixture(autouse=True)
def forget():
    """Every test starts with empty records."""
    RecordingNet.seen.clear()
    RecordingModel.seen.clear()


@pytest.fixture
def routing():
    """Metadata routing is on."""
    with config_context(enable_metadata_routing=True):
        yield


def small_net(make=MultiExitNet, **params):
    return make(**({"width": 12, "depth": 2, "lr": 0.03, "max_epochs": 5} | params))


def early_exit(first_stage="logistic", **params):
    """A small, fast early exit whose stages answer each by itself."""
    defaults = {
        "net": small_net(),
        "exit_weighting": "uniform",
        "ensemble": False,
        "cv": 3,
        "random_state": 0,
    }
    first_stage = LogisticRegression() if first_stage == "logistic" else first_stage
    return EarlyExitClassifier(first_stage, **(defaults | params))


@cache
def fitted(n_classes, **params):
    """A fitted model that tests do not change."""
    return early_exit(**params).fit(*DATA[n_classes])


def with_thresholds(model, thresholds):
    """A copy of the model with other thresholds."""
    return model.tune_thresholds(DATA[2][0], thresholds=thresholds, copy=True)


def training_rows():
    """Rows that the recording net was trained on last."""
    return RecordingNet.seen[-1]["X"]


def idx_of(rows, among=X):
    """Indices of rows among others, that are all distinct."""
    place = {row.tobytes(): i for i, row in enumerate(np.ascontiguousarray(among))}
    return np.array([place[row.tobytes()] for row in np.ascontiguousarray(rows)])


def held_out_rows(among=X):
    """Indices of the rows that the recording net was not trained on."""
    return np.setdiff1d(np.arange(len(among)), idx_of(training_rows(), among))


# Lazy equals eager ------------------------------------------------------------------------------


def acting(proba, measure):
    """What thresholds act on, of scores of shape (..., n_classes): see test_agreement.py."""
    ordered = np.sort(proba, axis=-1)
    top = proba == ordered[..., -1:]
    if measure == "max_proba":
        return proba
    if measure == "margin":
        return np.where(top, ordered[..., -1:] - ordered[..., -2:-1], proba - ordered[..., -1:])
    logs = np.log(np.where(proba > 0, proba, 1))
    certainty = 1 + (proba * logs).sum(axis=-1, keepdims=True) / np.log(proba.shape[-1])
    return np.where(top, certainty, -INF)


def eager(model, X):
    """Stage of each row by the scores of all stages, and whether some score is near a cut."""
    scores = acting(model.stage_proba(X), model.confidence)
    reached = scores >= model.thresholds_
    reached[:, -1] = True
    known = np.isfinite(scores) & np.isfinite(model.thresholds_)
    near = known & np.isclose(scores, model.thresholds_, rtol=0, atol=1e-6)
    return reached.any(axis=2).argmax(axis=1), near.any(axis=(1, 2))


def random_matrices(n_stages, n_classes, measure, n_matrices=12):
    rng, matrices = np.random.default_rng(0), []
    for _ in range(n_matrices):
        high = 1.0 if measure == "max_proba" else 0.9
        matrix = rng.uniform(0.1, high, (n_stages, n_classes))
        special = rng.random(matrix.shape)
        matrix[special < 0.15] = INF
        matrix[special > 0.95] = -INF
        matrix[-1] = -INF
        matrices.append(matrix)
    return [*matrices, *(matrix[:, :1].repeat(n_classes, axis=1) for matrix in matrices[:4])]


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("calibration", [None, "temperature"])
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("measure", MEASURES)
def test_lazy_is_eager(measure, n_classes, calibration, ensemble):
    model = fitted(n_classes, confidence=measure, calibration=calibration, ensemble=ensemble)
    rows, used = DATA[n_classes][0], set()
    for matrix in random_matrices(3, n_classes, measure):
        cut = with_thresholds(model, matrix)
        routing, (stage, near) = cut.route(rows), eager(cut, rows)
        assert near.mean() < 0.05
        np.testing.assert_array_equal(routing.stage[~near], stage[~near])
        *_, proba = cut.staged_predict_proba(rows)
        np.testing.assert_allclose(routing.proba[~near], proba[~near], rtol=0, atol=1e-6)
        np.testing.assert_allclose(routing.proba.sum(axis=1), 1, atol=1e-9)
        np.testing.assert_array_equal(cut.predict_proba(rows), routing.proba)
        np.testing.assert_allclose(
            routing.cost, np.cumsum(model.stage_costs_)[routing.stage], rtol=1e-12
        )
        used |= set(stage.tolist())
    assert used == {0, 1, 2}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("measure", MEASURES)
def test_without_calibration_an_answer_is_the_score_of_the_stage(measure, n_classes):
    model = fitted(n_classes, confidence=measure, calibration=None)
    rows = DATA[n_classes][0]
    cut = with_thresholds(model, [0.6, 0.7])
    routing, scores = cut.route(rows), cut.stage_proba(rows)
    assert np.bincount(routing.stage).min() > 0
    expected = scores[np.arange(len(rows)), routing.stage]
    np.testing.assert_allclose(routing.proba, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("thresholds", [[0.9, 0.9], [INF, 0.2], [0.2, INF], [-INF, 0.5]])
def test_the_predicted_class_is_the_one_that_was_answered(measure, thresholds):
    # Isotonic steps alone may turn the likeliest class round.
    model = fitted(3, confidence=measure, calibration="isotonic")
    cut = with_thresholds(model, thresholds)
    routing, scores = cut.route(X3), cut.stage_proba(X3)
    early = routing.stage < 2
    answers = scores[np.arange(len(X3)), routing.stage].argmax(axis=1)
    np.testing.assert_array_equal(cut.predict(X3)[early], answers[early])


@pytest.mark.parametrize("measure", MEASURES)
def test_a_class_that_may_never_be_answered_early_is_not(measure):
    model = fitted(2, confidence=measure, calibration=None)
    matrix = np.array([[INF, -INF], [INF, -INF], [-INF, -INF]])
    cut = with_thresholds(model, matrix)
    # Some score of class 1 reaches every -inf, and class 1 alone may be answered.
    assert (cut.route(X).stage == 0).all()
    assert (cut.predict(X) == 1).all()


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("ensemble", [False, True])
def test_no_row_depends_on_the_others(n_classes, ensemble):
    rows = DATA[n_classes][0]
    model = with_thresholds(fitted(n_classes, ensemble=ensemble), [0.7, 0.8])
    _, near = eager(model, rows)
    whole = model.route(rows)
    for idx in (*np.arange(40)[:, None], np.random.default_rng(0).permutation(len(rows))):
        idx = idx[~near[idx]]
        part = model.route(rows[idx])
        np.testing.assert_array_equal(part.stage, whole.stage[idx])
        np.testing.assert_allclose(part.proba, whole.proba[idx], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "as_rows", [np.asarray, pd.DataFrame, pl.DataFrame], ids=["np", "pd", "pl"]
)
@pytest.mark.parametrize("ensemble", [False, True])
def test_rows_in_pieces_are_routed_alike(monkeypatch, ensemble, as_rows):
    rows = as_rows(X3) if as_rows is np.asarray else as_rows(dict(zip("abcdef", X3.T, strict=True)))
    model = early_exit(ensemble=ensemble, thresholds=[0.7, 0.8]).fit(rows, y3)
    whole, scores = model.route(rows), model.stage_proba(rows)
    report = model.report(rows, y3).columns
    monkeypatch.setattr("skmsc.neural._multi_exit_net._ROWS_AT_ONCE", 37)
    pieces = model.route(rows)
    _, near = eager(model, rows)
    np.testing.assert_array_equal(pieces.stage[~near], whole.stage[~near])
    np.testing.assert_allclose(pieces.proba[~near], whole.proba[~near], rtol=0, atol=1e-6)
    np.testing.assert_allclose(pieces.cost[~near], whole.cost[~near])
    np.testing.assert_allclose(model.stage_proba(rows), scores, rtol=0, atol=1e-6)
    assert model.report(rows, y3).columns == report


def test_pieces_of_rows_without_costs(monkeypatch):
    model = early_exit(UncountedModel(), thresholds=0.8).fit(X, y)
    monkeypatch.setattr("skmsc.neural._multi_exit_net._ROWS_AT_ONCE", 37)
    assert model.route(X).cost is None


@pytest.mark.parametrize("ensemble", [False, True])
def test_blocks_run_only_on_rows_that_wait(ensemble):
    model = with_thresholds(fitted(3, ensemble=ensemble), [0.7, 0.8])
    module, rows, hooks = model.net_.net_.module_, [], []
    for k, part in enumerate(module.blocks):
        hooks.append(part.register_forward_hook(lambda m, x, out, k=k: rows.append((k, len(out)))))
    stage = model.route(X3).stage
    for hook in hooks:
        hook.remove()
    waiting = [(stage > 0).sum(), (stage > 1).sum()]
    assert 0 < waiting[1] < waiting[0] < len(X3)
    assert rows == [(0, waiting[0]), (1, waiting[1])]


def test_nothing_of_the_net_runs_when_the_first_stage_answers_all(monkeypatch):
    model = with_thresholds(fitted(3), 0.0)

    def run_exit(net, k, carry, **how):
        raise AssertionError("an exit ran on no row")

    monkeypatch.setattr(MultiExitNet, "run_exit", run_exit)
    assert (model.route(X3).stage == 0).all()


@pytest.mark.parametrize("ensemble", [False, True])
def test_the_last_staged_answer_is_the_answer(ensemble):
    model = with_thresholds(fitted(3, ensemble=ensemble), [0.7, 0.8])
    first, second, last = model.staged_predict_proba(X3)
    proba, stage = model.predict_proba(X3), model.route(X3).stage
    np.testing.assert_allclose(last, proba, rtol=0, atol=1e-6)
    np.testing.assert_allclose(first[stage == 0], proba[stage == 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(second[stage <= 1], proba[stage <= 1], rtol=0, atol=1e-6)
    assert np.abs(first - proba).max() > 0.01


# Its parts alone --------------------------------------------------------------------------------


FIRST_STAGES = {
    "logistic": LogisticRegression(),
    "svc": SVC(),
    "knn": KNeighborsClassifier(25),
    "bayes": GaussianNB(),
    "forest": RandomForestClassifier(8, random_state=0),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression(C=0.1)),
    "linear svc": LinearSVC(dual=False),
}


def expected_first(model, rows, labels, new):
    """Probabilities of a first stage fitted on the rows; decisions mapped out-of-fold."""
    model = clone(model).fit(rows, labels)
    if hasattr(model, "predict_proba"):
        return model.predict_proba(new)
    decisions = [
        cross_val_predict(clone(model), rows, labels, cv=3, method="decision_function"),
        model.decision_function(new),
    ]
    seen, new = (np.column_stack([-d, d]) if d.ndim == 1 else d for d in decisions)
    codes = np.searchsorted(model.classes_, labels)
    mapped = fit_calibration("sigmoid", seen, codes, np.ones(len(seen)), from_decisions=True)
    return mapped(new)


@coarse_scores
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", FIRST_STAGES)
def test_exit_0_alone_is_the_first_stage(name, n_classes):
    rows, labels = DATA[n_classes]
    first = FIRST_STAGES[name]
    model = early_exit(first, net=small_net(RecordingNet), thresholds=0.0, calibration=None)
    got = model.fit(rows, labels).predict_proba(rows)
    assert (model.route(rows).stage == 0).all()
    seen = RecordingNet.seen[-1]
    np.testing.assert_allclose(got, expected_first(first, seen["X"], seen["y"], rows), atol=1e-8)


@pytest.mark.parametrize("thresholds", [INF, 2.0, [INF, 1.5]])
@pytest.mark.parametrize("first_stage", [None, "logistic"])
def test_thresholds_that_nothing_reaches_leave_the_net_alone(first_stage, thresholds):
    depth = 2 + (first_stage is None)
    model = early_exit(
        first_stage, net=small_net(depth=depth), thresholds=thresholds, calibration=None
    ).fit(X3, y3)
    np.testing.assert_allclose(model.predict_proba(X3), model.net_.predict_proba(X3), atol=1e-6)
    np.testing.assert_array_equal(model.predict(X3), model.net_.predict(X3))


def test_scores_are_those_of_the_parts():
    model = fitted(3)
    scores = model.stage_proba(X3)
    np.testing.assert_allclose(scores[:, 0], model.first_stage_.predict_proba(X3), atol=1e-12)
    np.testing.assert_allclose(scores[:, 1:], model.net_.exit_proba(X3), atol=1e-6)


def test_a_net_of_one_exit_is_a_tabular_net():
    net = small_net(RecordingNet, depth=1, random_state=3)
    model = early_exit(None, net=net, calibration=None).fit(X3, y3)
    seen = RecordingNet.seen[-1]
    alone = small_net(TabularNet, depth=1, random_state=3).fit(seen["X"], seen["y"])
    np.testing.assert_allclose(model.predict_proba(X3), alone.predict_proba(X3), atol=1e-6)
    np.testing.assert_array_equal(model.thresholds_, np.full((1, 3), -INF))
    assert model.exit_distribution(X3).tolist() == [1.0]
    assert model.stage_costs_.tolist() == [1.0]


def test_a_frozen_first_stage_is_used_as_it_is():
    first = RecordingModel().fit(X3[:100], y3[:100])
    RecordingModel.seen.clear()
    model = early_exit(
        FrozenEstimator(first), net=small_net(RecordingNet), thresholds=0.0, calibration=None
    ).fit(X3, y3)
    assert RecordingModel.seen == []
    np.testing.assert_allclose(model.predict_proba(X3), first.predict_proba(X3), atol=1e-12)
    confidence = RecordingNet.seen[-1]["first_confidence"]
    np.testing.assert_allclose(confidence, first.predict_proba(training_rows()).max(axis=1))


# What the parts are trained on ------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_net_learns_of_out_of_fold_confidences(n_classes):
    rows, labels = DATA[n_classes]
    early_exit(net=small_net(RecordingNet)).fit(rows, labels)
    seen = RecordingNet.seen[-1]
    expected = cross_val_predict(
        LogisticRegression(), seen["X"], seen["y"], cv=3, method="predict_proba"
    )
    np.testing.assert_allclose(seen["first_confidence"], expected.max(axis=1), atol=1e-9)
    own = LogisticRegression().fit(seen["X"], seen["y"]).predict_proba(seen["X"])
    assert np.abs(seen["first_confidence"] - own.max(axis=1)).max() > 1e-4


def test_without_a_first_stage_there_is_no_confidence_of_it():
    early_exit(None, net=small_net(RecordingNet)).fit(X, y)
    assert RecordingNet.seen[-1]["first_confidence"] is None


@pytest.mark.parametrize("fraction", [0.1, 0.4])
def test_rows_held_out_reach_no_part(fraction):
    early_exit(RecordingModel(), net=small_net(RecordingNet), validation_fraction=fraction).fit(
        X, y
    )
    held = held_out_rows()
    assert held.size == round(fraction * len(y))
    assert abs(y[held].mean() - y.mean()) < 0.02
    fits = [idx_of(seen["X"]) for seen in RecordingModel.seen]
    assert sorted(map(len, fits))[-1] == len(y) - held.size
    assert len(fits) == 4
    assert not np.isin(held, np.concatenate(fits)).any()
    split = RecordingNet.seen[-1]["split"]
    assert np.intersect1d(*split).size == 0


def split_of_the_net(among=X):
    """Indices of the rows that trained the net and of those that validated it."""
    split = RecordingNet.seen[-1]["split"]
    rows = idx_of(training_rows(), among)
    return rows[split[0]], rows[split[1]]


@pytest.mark.parametrize("validation", ["auto", 0.3])
def test_no_group_is_on_two_sides(validation):
    early_exit(
        RecordingModel(),
        net=small_net(RecordingNet, validation=validation),
        cv=GroupKFold(3),
    ).fit(X, y, groups=GROUPS)
    held, trained = held_out_rows(), idx_of(training_rows())
    assert 0.08 < held.size / len(y) < 0.25
    assert not np.isin(GROUPS[held], GROUPS[trained]).any()
    fits = [set(GROUPS[idx_of(seen["X"])]) for seen in RecordingModel.seen]
    sizes = sorted(map(len, fits))
    assert sizes[-1] == np.unique(GROUPS[trained]).size
    assert max(sizes[:3]) <= 0.7 * sizes[-1]
    train, valid = split_of_the_net()
    assert not np.isin(GROUPS[train], GROUPS[valid]).any()
    assert abs(valid.size / trained.size - {"auto": 0.1, 0.3: 0.3}[validation]) < 0.08


def test_no_group_is_on_two_sides_of_few_rows():
    few = np.arange(90)
    early_exit(net=small_net(RecordingNet, validation=0.3), cv=GroupKFold(2)).fit(
        X[few], y[few], groups=GROUPS[few]
    )
    train, valid = split_of_the_net(X[few])
    assert not np.isin(GROUPS[train], GROUPS[valid]).any()


@pytest.mark.filterwarnings("ignore:.*distinct scores")
def test_rows_in_time_order():
    model = early_exit(RecordingModel(), net=small_net(RecordingNet), cv=TimeSeriesSplit(3)).fit(
        X, y
    )
    assert np.isfinite(model.predict_proba(X)).all()
    np.testing.assert_array_equal(held_out_rows(), np.arange(340, 400))
    train, valid = split_of_the_net()
    np.testing.assert_array_equal(train, np.arange(306))
    np.testing.assert_array_equal(valid, np.arange(306, 340))
    # Rows before the first test window have no out-of-fold score: nothing is known of them.
    confidence = RecordingNet.seen[-1]["first_confidence"]
    assert (confidence[:85] == 0).all()
    assert (confidence[85:] >= 0.5).all()
    for seen in RecordingModel.seen:
        idx = idx_of(seen["X"])
        np.testing.assert_array_equal(idx, np.arange(len(idx)))


def test_rows_with_a_time():
    time = np.random.default_rng(0).permutation(len(y)).astype(float)
    early_exit(
        RecordingModel(), net=small_net(RecordingNet), cv=TimeDelaySplit(2, test_size=50, gap=20)
    ).fit(X, y, time=time)
    trained = idx_of(training_rows())
    # The latest 60 are held out and the 20 before them are no training rows.
    assert time[trained].max() <= 400 - 60 - 20
    for seen in RecordingModel.seen:
        assert np.isin(idx_of(seen["X"]), trained).all()
    train, valid = split_of_the_net()
    assert time[train].max() + 20 <= time[valid].min()


@pytest.mark.parametrize("first_stage", [None, "logistic"])
def test_a_weight_of_0_is_absence(first_stage):
    weight = (np.arange(len(y)) % 4 > 0) * 1.0
    model = early_exit(first_stage).fit(X, y, sample_weight=weight)
    absent = early_exit(first_stage).fit(X[weight > 0], y[weight > 0])
    np.testing.assert_array_equal(model.predict_proba(X), absent.predict_proba(X))
    np.testing.assert_array_equal(model.thresholds_, absent.thresholds_)


def test_a_weight_of_0_breaks_no_promise_of_confidence():
    policy = Agreement(0.2, confidence=0.8)
    weight = (np.arange(len(y)) % 4 > 0) * 1.0
    model = early_exit(thresholds=policy, validation_fraction=0.3)
    got = model.fit(X, y, sample_weight=weight).thresholds_
    expected = clone(model).fit(X[weight > 0], y[weight > 0]).thresholds_
    np.testing.assert_array_equal(got, expected)


def test_weights_reach_both_parts():
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    early_exit(RecordingModel(), net=small_net(RecordingNet)).fit(X, y, sample_weight=weight)
    for seen in [*RecordingModel.seen, *RecordingNet.seen]:
        np.testing.assert_array_equal(seen["weight"], weight[idx_of(seen["X"])])


# Costs ------------------------------------------------------------------------------------------


class UncountedModel(LogisticRegression):
    """A classifier of which nobody knows the multiply-adds."""


def test_costs_are_shares_of_the_multiply_adds():
    # Logistic: 6 features, 3 classes. Blocks of 12 units: 6 * 12, then 12 * 12; heads 12 * 3.
    model = fitted(3)
    counts = np.array([18.0, 72 + 36, 144 + 36])
    np.testing.assert_array_equal(model.multiply_adds_, counts)
    np.testing.assert_allclose(model.stage_costs_, counts / counts.sum())
    alone = fitted(3, first_stage=None)
    np.testing.assert_array_equal(alone.multiply_adds_, counts[1:])
    routing = with_thresholds(model, [0.7, 0.8]).route(X3)
    np.testing.assert_allclose(routing.cost, (counts.cumsum() / counts.sum())[routing.stage])


@pytest.mark.parametrize(
    "stage_costs",
    [[1, 2, 5], np.array([1.0, 2.0, 5.0]), {"exit_2": 5, "first_stage": 1, "exit_1": 2}],
)
def test_given_costs(stage_costs):
    model = early_exit(stage_costs=stage_costs, thresholds=[0.7, 0.8]).fit(X3, y3)
    np.testing.assert_array_equal(model.stage_costs_, [1, 2, 5])
    routing = model.route(X3)
    np.testing.assert_array_equal(routing.cost, np.array([1, 3, 8])[routing.stage])
    assert model.multiply_adds_.tolist() == [18, 108, 180]


def test_costs_that_cannot_be_counted_are_not_known():
    model = early_exit(UncountedModel(), thresholds=0.8).fit(X, y)
    assert model.stage_costs_ is None and model.multiply_adds_ is None
    assert model.route(X).cost is None
    assert model.report(X).mean_cost is None
    with pytest.raises(ValueError, match=r"CostBudget\(max_cost=0.5\) needs the cost of every"):
        model.tune_thresholds(X, thresholds=CostBudget(0.5))
    given = early_exit(UncountedModel(), stage_costs=[1, 2, 5], thresholds=CostBudget(3)).fit(X, y)
    assert given.route(X).cost.mean() < 8


def test_measured_costs():
    model = early_exit(thresholds=0.8).fit(X, y)
    before = model.stage_costs_.copy()
    costs = model.measure_costs(X, n_repeats=2)
    assert costs.shape == (3,) and (costs > 0).all()
    np.testing.assert_array_equal(model.stage_costs_, before)
    stored = model.measure_costs(X, n_repeats=2, store=True)
    np.testing.assert_array_equal(model.stage_costs_, stored)
    np.testing.assert_allclose(model.route(X).cost, stored.cumsum()[model.route(X).stage])
    budget = CostBudget(stored[:2].sum())
    tuned = model.tune_thresholds(X, thresholds=budget)
    assert tuned.route(X).cost.mean() <= budget.max_cost * (1 + 1e-9)


# Thresholds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
def test_the_default_agrees_with_the_last_stage(measure, ensemble):
    rows, labels = make(3, 1000)
    model = early_exit(net=small_net(RecordingNet), confidence=measure, ensemble=ensemble)
    model.fit(rows, labels)
    held = rows[held_out_rows(rows)]
    scores, stage = model.stage_proba(held), model.route(held).stage
    answers = scores.argmax(axis=2)
    wrong = answers[np.arange(len(held)), stage] != answers[:, -1]
    assert wrong.sum() <= 0.01 * len(held)
    assert (stage < 2).any()
    assert (model.thresholds_ == model.thresholds_[:, :1]).all()


def test_the_default_agrees_with_the_last_stage_in_each_of_two_classes():
    rows, labels = make(2, 3000, weights=[0.9])
    model = early_exit(net=small_net(RecordingNet)).fit(rows, labels)
    held = rows[held_out_rows(rows)]
    answers, stage = model.stage_proba(held).argmax(axis=2), model.route(held).stage
    got, last = answers[np.arange(len(held)), stage], answers[:, -1]
    for c in (0, 1):
        assert (got != last)[last == c].sum() <= 0.01 * (last == c).sum()
    assert (stage < 2).any()
    assert model.thresholds_[0, 0] != model.thresholds_[0, 1]


@pytest.mark.parametrize(
    "policy", [Agreement(0.1), PassBudget(0.3), CostBudget(0.5), 0.8, [0.9, 0.7]], ids=repr
)
@pytest.mark.parametrize("ensemble", [False, True])
def test_tuning_is_fitting_with_other_thresholds(policy, ensemble):
    params = {"ensemble": ensemble, "stage_costs": [0.1, 0.4, 0.5]}
    tuned = early_exit(RecordingModel(), net=small_net(RecordingNet), thresholds=0.6, **params)
    tuned.fit(X3, y3)
    refitted = early_exit(thresholds=policy, **params).fit(X3, y3)
    held, n_fits = held_out_rows(X3), (len(RecordingModel.seen), len(RecordingNet.seen))
    before = tuned.thresholds_.copy()
    changed = tuned.tune_thresholds(X3[held], y3[held], thresholds=policy, copy=True)
    np.testing.assert_allclose(changed.thresholds_, refitted.thresholds_, rtol=1e-6)
    np.testing.assert_array_equal(tuned.thresholds_, before)
    assert changed.net_ is tuned.net_ and changed.first_stage_ is tuned.first_stage_
    without = tuned.tune_thresholds(X3[held], thresholds=policy)
    assert without is tuned
    np.testing.assert_array_equal(tuned.thresholds_, changed.thresholds_)
    assert (len(RecordingModel.seen), len(RecordingNet.seen)) == n_fits


def test_a_cost_budget_is_kept_on_the_rows_that_it_is_set_on():
    model = fitted(3)
    for budget in (0.1, 0.3, 0.6, 0.9, 1.0):
        cut = model.tune_thresholds(X3, thresholds=CostBudget(budget), copy=True)
        assert cut.route(X3).cost.mean() <= budget * (1 + 1e-9)
        assert cut.route(X3).cost.mean() >= budget - 0.05


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "floor",
    [RecallFloor(0.8), RecallFloor(0.95, of="positives"), RecallFloor(0.7, confidence=0.7)],
    ids=repr,
)
def test_a_recall_floor_answers_only_negatives_early(measure, floor):
    rows, labels = make(2, 900)
    model = early_exit(
        net=small_net(RecordingNet),
        confidence=measure,
        thresholds=floor,
        validation_fraction=0.3,
        calibration=None,
    ).fit(rows, labels)
    assert (model.thresholds_[:-1, 1] == INF).all()
    held = held_out_rows(rows)
    stage, scores = model.route(rows[held]).stage, model.stage_proba(rows[held])
    assert (model.predict(rows[held])[stage < 2] == 0).all()
    assert (stage < 2).any()
    positive = labels[held] == 1
    kept = {"caught": positive & (scores[:, -1, 1] > 0.5), "positives": positive}[floor.of]
    assert (stage[kept] == 2).mean() >= floor.min_recall


@pytest.mark.parametrize("measure", MEASURES)
def test_a_recall_floor_with_a_cap(measure):
    model = fitted(2, confidence=measure)
    floor = RecallFloor(1.0, of="positives", max_pass_rate=0.3)
    with pytest.warns(UserWarning, match=r"the cap holds, and 0\.\d+ of the positives reach"):
        cut = model.tune_thresholds(X, y, thresholds=floor, copy=True)
    stage = cut.route(X).stage
    assert 0.2 < (stage == 2).mean() <= 0.3
    assert (cut.predict(X)[stage < 2] == 0).all()


def test_exit_distribution():
    model = with_thresholds(fitted(3), [0.7, 0.8])
    shares = model.exit_distribution(X3)
    stage = model.route(X3).stage
    np.testing.assert_allclose(shares, [(stage == k).mean() for k in range(3)])
    assert with_thresholds(model, INF).exit_distribution(X3).tolist() == [0, 0, 1]
    assert model.exit_distribution(X3[:1]).sum() == 1


# Reports ----------------------------------------------------------------------------------------


def test_a_report_of_many_classes():
    model = with_thresholds(fitted(3), [0.7, 0.8])
    columns, stage = model.report(X3, y3).columns, model.route(X3).stage
    assert list(columns) == [
        "stage", "rows_in", "answered", "answered_as_0", "answered_as_1", "answered_as_2", "passed",
        "pass_rate", "cost", "cost_share", "accuracy",
    ]  # fmt: skip
    assert columns["stage"] == ("first_stage", "exit_1", "exit_2")
    np.testing.assert_array_equal(columns["answered"], np.bincount(stage))
    right = model.predict(X3) == y3
    np.testing.assert_allclose(columns["accuracy"], [right[stage == k].mean() for k in range(3)])
    assert "accuracy" not in model.report(X3).columns


def test_a_report_of_two_classes():
    model = with_thresholds(fitted(2), [0.7, 0.8])
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    report, stage = model.report(X, y, sample_weight=weight), model.route(X).stage
    columns, wrong = report.columns, model.predict(X) != y
    assert list(columns) == [
        "stage", "rows_in", "answered", "answered_as_0", "answered_as_1", "passed", "pass_rate",
        "cost", "cost_share", "positives_in", "positives_lost", "positives_kept",
        "cumulative_recall", "cumulative_recall_low", "cumulative_recall_high", "accuracy",
    ]  # fmt: skip
    lost = [weight[(stage == k) & (y == 1) & wrong].sum() for k in range(3)]
    np.testing.assert_allclose(columns["positives_lost"], lost)
    total = weight[y == 1].sum()
    np.testing.assert_allclose(columns["cumulative_recall"], 1 - np.cumsum(lost) / total)
    waiting = [weight[(stage >= k) & (y == 1)].sum() for k in range(3)]
    np.testing.assert_allclose(columns["positives_in"], waiting)
    assert report.mean_cost == pytest.approx(np.average(model.route(X).cost, weights=weight))


# Input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
def test_labels_of_any_type(n_classes):
    rows, codes = DATA[n_classes]
    names = np.array(["a", "bb", "ccc"])
    model, named = fitted(n_classes), early_exit().fit(rows, names[codes])
    assert named.classes_.tolist() == names[:n_classes].tolist()
    np.testing.assert_array_equal(named.predict_proba(rows), model.predict_proba(rows))
    np.testing.assert_array_equal(named.predict(rows), names[model.predict(rows)])
    assert named.score(rows, names[codes]) == model.score(rows, codes) > 0.7
    booleans = early_exit().fit(X, y.astype(bool))
    np.testing.assert_array_equal(booleans.predict_proba(X), fitted(2).predict_proba(X))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_dataframes(frame):
    rows = frame({f"f{i}": X3[:, i] for i in range(6)})
    model = early_exit().fit(rows, y3)
    assert model.feature_names_in_.tolist() == [f"f{i}" for i in range(6)]
    assert model.n_features_in_ == 6
    cut = model.tune_thresholds(rows, thresholds=[0.7, 0.8])
    assert set(cut.route(rows).stage) == {0, 1, 2}
    expected = with_thresholds(fitted(3), [0.7, 0.8])
    np.testing.assert_allclose(cut.predict_proba(rows), expected.predict_proba(X3), atol=1e-6)
    np.testing.assert_allclose(cut.stage_proba(rows), expected.stage_proba(X3), atol=1e-6)


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("container", [sp.csr_matrix, sp.csr_array, sp.csc_array])
def test_sparse_rows(container, ensemble):
    dense = np.where(np.abs(X3) < 0.8, 0.0, X3)
    params = {"ensemble": ensemble, "thresholds": [0.7, 0.8]}
    model = early_exit(**params).fit(container(dense), y3)
    routing, expected = (
        m.route(rows)
        for m, rows in [(model, container(dense)), (early_exit(**params).fit(dense, y3), dense)]
    )
    assert set(routing.stage) == {0, 1, 2}
    assert (routing.stage == expected.stage).mean() > 0.98
    np.testing.assert_allclose(routing.proba, expected.proba, atol=0.02)


def test_missing_values_where_both_parts_take_them():
    from sklearn.ensemble import HistGradientBoostingClassifier

    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
    model = early_exit(
        HistGradientBoostingClassifier(max_iter=5), net=small_net(missing="mean"), thresholds=0.8
    ).fit(holes, y)
    assert np.isfinite(model.predict_proba(holes)).all()
    with pytest.raises(ValueError, match="contains NaN"):
        model.set_params(net=small_net()).fit(holes, y)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, object])
def test_rows_of_any_number(dtype):
    rows = np.round(np.abs(X3)).astype(dtype)
    model = early_exit(thresholds=[0.6, 0.6]).fit(rows, y3)
    expected = early_exit(thresholds=[0.6, 0.6]).fit(rows.astype(float), y3)
    np.testing.assert_allclose(
        model.predict_proba(rows), expected.predict_proba(rows.astype(float)), atol=1e-5
    )


def test_the_rows_given_are_not_changed():
    rows, labels, weight = X.copy(), y.copy(), np.ones(len(y))
    model = early_exit(thresholds=0.8).fit(rows, labels, sample_weight=weight)
    model.predict_proba(rows)
    model.report(rows, labels)
    np.testing.assert_array_equal(rows, X)
    np.testing.assert_array_equal(labels, y)


# scikit-learn's tools ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "grid"),
    [
        ({}, {"thresholds": [0.7, [0.9, 0.6], PassBudget(0.3), None]}),
        ({"thresholds": PassBudget(0.3)}, {"thresholds__max_pass_rate": [0.1, 0.6]}),
        ({}, {"exit_weighting": ["uniform", "focal", SurvivorWeights()]}),
        (
            {"exit_weighting": LearnedWeights(every=20, n_hidden=8)},
            {"exit_weighting__eps": [0.1, 0.4]},
        ),
        ({}, {"first_stage__C": [1e-4, 1.0], "net__width": [4, 12]}),
        ({}, {"first_stage": [None, GaussianNB()], "confidence": ["margin"]}),
        ({}, {"calibration": [None, "sigmoid", "isotonic"]}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_search_scores_what_a_loop_scores(params, grid):
    model = early_exit(**params)
    search = GridSearchCV(model, grid, scoring="neg_log_loss", cv=2, error_score="raise")
    search.fit(X, y)
    expected = [
        cross_val_score(clone(model).set_params(**setting), X, y, scoring="neg_log_loss", cv=2)
        for setting in search.cv_results_["params"]
    ]
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], np.mean(expected, axis=1), rtol=1e-6
    )
    assert search.best_score_ > np.log(0.5)
    for name, value in search.best_params_.items():
        assert repr(search.best_estimator_.get_params()[name]) == repr(value)


def test_names_of_parameters_inside_the_parts():
    model = early_exit(exit_weighting=LearnedWeights(), thresholds=CostBudget(0.5))
    model.set_params(
        first_stage__C=3.0, net__width=4, exit_weighting__eps=0.2, thresholds__max_cost=0.7
    )
    assert model.first_stage.C == 3.0 and model.net.width == 4
    assert model.exit_weighting.eps == 0.2 and model.thresholds.max_cost == 0.7
    with pytest.raises(ValueError, match="Invalid parameter 'widht'"):
        model.set_params(net__widht=3)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize(
    "exit_weighting", ["uniform", "learned", lambda loss, confidence: loss + 1]
)
def test_copies_of_a_fitted_model(copied, exit_weighting):
    model = early_exit(exit_weighting=exit_weighting, thresholds=0.8).fit(X, y)
    model.exit_weighting = "uniform"  # a lambda cannot be pickled; of the fit nothing is left
    again = copied(model)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.stage_proba(X), model.stage_proba(X))


def test_a_clone_is_unfitted_and_fits_alike():
    model = early_exit(exit_weighting=SurvivorWeights(), thresholds=PassBudget(0.3)).fit(X, y)
    again = clone(model)
    assert not [name for name in vars(again) if name.endswith("_") and name[0] != "_"]
    assert not hasattr(model.net, "net_") and not hasattr(model.first_stage, "classes_")
    np.testing.assert_array_equal(again.fit(X, y).predict_proba(X), model.predict_proba(X))


def test_the_repr_names_what_was_set():
    assert repr(EarlyExitClassifier()) == "EarlyExitClassifier()"
    model = EarlyExitClassifier(LogisticRegression(C=2), confidence="margin", thresholds=0.9)
    assert repr(model) == (
        "EarlyExitClassifier(confidence='margin', first_stage=LogisticRegression(C=2),\n"
        "                    thresholds=0.9)"
    )


@pytest.mark.parametrize(
    ("model", "names", "absent"),
    [
        pytest.param(
            EarlyExitClassifier(),
            ["net", "MultiExitNet"],
            ["first_stage: ", "LogisticRegression"],
            marks=since_1_7,
        ),
        (EarlyExitClassifier(LogisticRegression()), ["LogisticRegression", "MultiExitNet"], []),
        (
            EarlyExitClassifier(make_pipeline(StandardScaler(), GaussianNB()), small_net()),
            ["StandardScaler", "GaussianNB", "MultiExitNet"],
            [],
        ),
    ],
    ids=["default", "first stage", "pipeline"],
)
def test_html(model, names, absent):
    html = model._repr_html_()
    for name in names:
        assert name in html
    for name in absent:
        assert name not in html


def test_route_and_report_through_wrappers():
    inner = early_exit(thresholds=[0.7, 0.8])
    model = make_pipeline(FunctionTransformer(lambda rows: rows * 2 + 1), inner).fit(X3, y3)
    expected = clone(inner).fit(X3 * 2 + 1, y3)
    got = skmsc.route(model, X3)
    np.testing.assert_array_equal(got.stage, expected.route(X3 * 2 + 1).stage)
    np.testing.assert_array_equal(got.proba, model.predict_proba(X3))
    assert skmsc.report(model, X3, y3).columns == expected.report(X3 * 2 + 1, y3).columns
    search = GridSearchCV(model, {"earlyexitclassifier__thresholds": [0.8]}, cv=2).fit(X3, y3)
    assert skmsc.route(search, X3).stage.shape == (len(X3),)


def test_weights_through_metadata_routing(routing):
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    model = early_exit(RecordingModel(), net=small_net(RecordingNet))
    model.set_fit_request(sample_weight=True)
    make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model).fit(
        X, y, sample_weight=weight
    )
    assert all(seen["weight"] is not None for seen in [*RecordingModel.seen, *RecordingNet.seen])
    with config_context(enable_metadata_routing=False):
        expected = early_exit().fit(X, y, sample_weight=weight)
    got = early_exit().fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(got.predict_proba(X), expected.predict_proba(X))


def test_groups_through_metadata_routing(routing):
    early_exit(net=small_net(RecordingNet), cv=GroupKFold(3)).fit(X, y, groups=GROUPS)
    held, trained = held_out_rows(), idx_of(training_rows())
    assert not np.isin(GROUPS[held], GROUPS[trained]).any()
    train, valid = split_of_the_net()
    assert not np.isin(GROUPS[train], GROUPS[valid]).any()


class WithAmount(LogisticRegression):
    """A first stage that takes an amount with each row."""

    seen = []

    def fit(self, X, y, sample_weight=None, amount=None):
        self.seen.append((X, amount))
        return super().fit(X, y, sample_weight)


def test_other_metadata_goes_to_the_first_stage(routing):
    WithAmount.seen.clear()
    amount = np.arange(len(y))
    first = WithAmount().set_fit_request(amount=True)
    early_exit(first, net=small_net(RecordingNet)).fit(X, y, amount=amount)
    assert len(WithAmount.seen) == 4
    for rows, given in WithAmount.seen:
        np.testing.assert_array_equal(given, idx_of(rows))


# Random numbers ---------------------------------------------------------------------------------


FOREST = RandomForestClassifier(4)


@pytest.mark.parametrize("exit_weighting", ["uniform", "learned", "survivors", "focal"])
def test_the_same_seed_gives_the_same_bits(exit_weighting):
    model = early_exit(FOREST, exit_weighting=exit_weighting, thresholds=0.8)
    first = clone(model).fit(X, y).predict_proba(X)
    torch.manual_seed(5)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), first)
    other = clone(model).set_params(random_state=1).fit(X, y).predict_proba(X)
    assert np.abs(other - first).max() > 0.01


def test_the_number_of_jobs_does_not_matter():
    model = early_exit(FOREST, thresholds=0.8)
    alone, two = (clone(model).set_params(n_jobs=n).fit(X, y) for n in (None, 2))
    np.testing.assert_array_equal(two.predict_proba(X), alone.predict_proba(X))
    np.testing.assert_array_equal(two.thresholds_, alone.thresholds_)


def test_another_first_stage_does_not_change_the_net():
    nets = [
        early_exit(first, thresholds=0.8).fit(X, y).net_.predict_proba(X)
        for first in (None, LogisticRegression(), GaussianNB())
    ]
    np.testing.assert_array_equal(nets[0], nets[1])
    np.testing.assert_array_equal(nets[1], nets[2])


def test_fits_leave_the_global_random_states_alone():
    state = np.random.mtrand._rand.get_state(legacy=False)["state"]
    numpy_state, torch_state = state["key"].copy(), torch.get_rng_state()
    early_exit(exit_weighting="learned", thresholds=0.8).fit(X, y)
    state = np.random.mtrand._rand.get_state(legacy=False)["state"]
    np.testing.assert_array_equal(state["key"], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_folds_that_the_hold_out_leaves_too_few_rows_for():
    rows = np.r_[np.flatnonzero(y == 0)[:6], np.flatnonzero(y == 1)[:6]]
    few = partial(early_exit, cv=6, thresholds=0.8, validation_fraction=0.3, calibration=None)
    with pytest.warns(UserWarning, match="cv=6 is lowered to 4: once validation_fraction is held"):
        few().fit(X[rows], y[rows])


def test_an_unshuffled_splitter_is_used_as_given():
    early_exit(net=small_net(RecordingNet), cv=StratifiedKFold(4)).fit(X, y)
    seen = RecordingNet.seen[-1]
    expected = cross_val_predict(
        LogisticRegression(), seen["X"], seen["y"], cv=StratifiedKFold(4), method="predict_proba"
    )
    np.testing.assert_allclose(seen["first_confidence"], expected.max(axis=1), atol=1e-9)


# What is promised of the last stage ---------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("calibration", ["temperature", "sigmoid", "isotonic", None])
def test_the_last_stages_class_is_what_others_are_held_to(calibration, n_classes):
    data, labels = DATA[n_classes]
    model = early_exit(thresholds=2.0, calibration=calibration).fit(data, labels)
    last = model.stage_proba(data)[:, -1].argmax(axis=1)
    np.testing.assert_array_equal(model.predict(data), model.classes_[last])
    *_, staged = model.staged_predict_proba(data)
    np.testing.assert_allclose(staged, model.predict_proba(data), atol=1e-6)


class Bureau:
    """Costly features, a column for each row given, and how often each row was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, rows):
        rows = np.asarray(rows)
        self.asked.append(rows[:, 0])
        return rows[:, :1] ** 2


def test_costly_features_of_the_first_stage_are_fetched_once_and_counted():
    bureau = Bureau()
    first = make_pipeline(CostlyFeatures(bureau, cost=5.0), LogisticRegression())
    model = early_exit(first, stage_costs=[1, 1, 1]).fit(X, y)
    asked = np.concatenate(bureau.asked)
    assert asked.size == np.unique(asked).size == len(y)
    np.testing.assert_allclose(model.stage_costs_, [6.0, 1.0, 1.0])


def test_what_the_net_refuses_is_refused_before_the_first_stages_fits():
    frame = pd.DataFrame(X.copy())
    frame.iloc[0, 0] = np.nan
    before = len(RecordingModel.seen)
    imputing = make_pipeline(SimpleImputer(), RecordingModel())
    with pytest.raises(ValueError, match="contains NaN"):
        early_exit(imputing).fit(frame, y)
    with pytest.raises(ValueError, match="validation=1e-05 leaves none of"):
        early_exit(RecordingModel(), net=small_net(validation=1e-5)).fit(X, y)
    assert len(RecordingModel.seen) == before


def test_a_splitter_of_the_net_gets_the_groups():
    net = small_net(RecordingNet, validation=GroupKFold(4))
    early_exit(net=net, cv=GroupKFold(3)).fit(X, y, groups=GROUPS)
    train, valid = split_of_the_net()
    assert valid.size and not np.isin(GROUPS[train], GROUPS[valid]).any()


def test_a_time_that_nobody_takes_is_refused_without_a_first_stage_too():
    with pytest.raises(TypeError, match="cv=5 takes no time; a TimeDelaySplit does"):
        early_exit(None, cv=5).fit(X, y, time=np.arange(len(y)))


class Uncounted(torch.nn.Module):
    """Two exits; what the second block does is no matrix product."""

    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(n_inputs, 4), torch.nn.ReLU()])
        self.heads = torch.nn.ModuleList([torch.nn.Linear(4, n_classes), Means(n_classes)])


class Means(torch.nn.Module):
    """The first columns, scaled."""

    def __init__(self, n_classes):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(n_classes))

    def forward(self, x):
        """Logits."""
        return x[:, : len(self.scale)] * self.scale


def test_a_stage_that_seems_to_compute_nothing_has_no_known_cost():
    net = small_net(trunk=Uncounted, trunk_params={})
    model = early_exit(None, net=net).fit(X, y)
    assert model.multiply_adds_ is None and model.stage_costs_ is None
    with pytest.raises(ValueError, match="needs the cost of every stage"):
        early_exit(None, net=net, thresholds=CostBudget(0.5)).fit(X, y)
