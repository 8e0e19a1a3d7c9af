"""Stages that raise at predict time; and that predicting writes nothing to a model.

The oracle is the same model while all is well: what it answers at a stage, had one to stop there.
"""

import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNetClassifier

import skmsc
from skmsc import (
    AlertBudget,
    ComposableHeadClassifier,
    EarlyExitClassifier,
    FeedbackCascadeClassifier,
    PassBudget,
)
from skmsc.metrics import neg_mean_cost_scorer
from skmsc.model_selection import FinalCutClassifier
from skmsc.neural import MultiExitNet, TabularNet
from skmsc.routing import StageErrors, route

X, y = make_classification(600, n_informative=5, weights=[0.8], flip_y=0.05, random_state=0)
X_NEW = make_classification(300, n_informative=5, weights=[0.8], flip_y=0.05, random_state=1)[0]
X3, y3 = make_classification(600, n_classes=3, n_informative=6, random_state=0)


class Service:
    """What stages ask; it may be down."""

    fault = None  # (name, error)

    @classmethod
    def ask(cls, name):
        if cls.fault is not None and cls.fault[0] == name:
            raise cls.fault[1]

    @classmethod
    @contextmanager
    def down(cls, name, error=None):
        cls.fault = (name, error or ConnectionError("no answer"))
        try:
            yield
        finally:
            cls.fault = None


class Asking(ClassifierMixin, BaseEstimator):
    """A logistic regression on the first columns that asks the service at every prediction."""

    def __init__(self, name, n_columns=20):
        self.name = name
        self.n_columns = n_columns

    def fit(self, X, y, sample_weight=None):
        self.model_ = LogisticRegression().fit(X[:, : self.n_columns], y, sample_weight)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X):
        Service.ask(self.name)
        return self.model_.predict_proba(X[:, : self.n_columns])


def asking_trunk(X):
    Service.ask("heads")
    return X


def cascade(**params):
    stages = [("a", Asking("a", 2)), ("b", Asking("b", 4)), ("c", Asking("c"))]
    params = {"stage_costs": [1, 10, 100], "thresholds": PassBudget(0.3), "cv": 3} | params
    return FeedbackCascadeClassifier(stages, random_state=0, **params)


def exits(**params):
    net = MultiExitNet(width=16, depth=2, max_epochs=3)
    params = {"stage_costs": [1, 10, 100], "thresholds": 0.9} | params
    return EarlyExitClassifier(Asking("first_stage"), net, cv=3, random_state=0, **params)


def heads(**params):
    trunk = FunctionTransformer(asking_trunk)
    params = {"stage_costs": [1, 10], "thresholds": 0.8} | params
    return ComposableHeadClassifier(Asking("first_stage", 3), trunk, random_state=0, **params)


@cache
def fitted(make, mode):
    """Such a model, which no test changes."""
    return make(on_stage_error=mode).fit(X, y)


@pytest.fixture(autouse=True)
def exits_ask(monkeypatch):
    run_exit = MultiExitNet.run_exit

    def asking(self, k, carry, log=False):
        Service.ask(f"exit_{k + 1}")
        return run_exit(self, k, carry, log=log)

    monkeypatch.setattr(MultiExitNet, "run_exit", asking)


LATER = pytest.mark.parametrize(
    ("make", "k", "name"),
    [
        (cascade, 1, "b"),
        (cascade, 2, "c"),
        (exits, 1, "exit_1"),
        (exits, 2, "exit_2"),
        (heads, 1, "heads"),
    ],
)
ALL = pytest.mark.parametrize("make", [cascade, exits, heads])
BOTH_MODES = pytest.mark.parametrize("mode", ["answer_earlier", "alert"])


def routed(model, X, match):
    with pytest.warns(RuntimeWarning, match=match) as caught:
        routing = model.route(X)
    assert len(caught) == 1
    return routing


@LATER
def test_rows_get_the_answer_of_the_stage_before(make, k, name):
    model = fitted(make, "answer_earlier")
    usual, staged = model.route(X_NEW), list(model.staged_predict_proba(X_NEW))
    assert not usual.failed.any()
    failed = usual.stage >= k
    assert 0 < failed.sum() < len(X_NEW)
    with Service.down(name):
        routing = routed(
            model,
            X_NEW,
            f"^Stage '{name}' raised ConnectionError on {failed.sum()} rows, which are answered by "
            "the stage before: no answer$",
        )
        with pytest.warns(RuntimeWarning):
            predicted = model.predict(X_NEW)
    np.testing.assert_array_equal(routing.failed, failed)
    np.testing.assert_array_equal(routing.stage, np.where(failed, k - 1, usual.stage))
    np.testing.assert_array_equal(
        routing.cost, np.cumsum(model.stage_costs_)[routing.stage + failed]
    )
    np.testing.assert_array_equal(routing.proba[~failed], usual.proba[~failed])
    np.testing.assert_allclose(routing.proba[failed], staged[k - 1][failed], rtol=1e-12)
    np.testing.assert_array_equal(predicted, model.classes_[routing.proba.argmax(axis=1)])


@LATER
def test_rows_become_alerts(make, k, name):
    model = fitted(make, "alert")
    usual = model.route(X_NEW)
    failed = usual.stage >= k
    with Service.down(name):
        routing = routed(model, X_NEW, "rows, which are answered as positive: no answer")
    np.testing.assert_array_equal(routing.failed, failed)
    np.testing.assert_array_equal(routing.proba[failed], np.tile([0.0, 1.0], (failed.sum(), 1)))
    np.testing.assert_array_equal(routing.proba[~failed], usual.proba[~failed])


@pytest.mark.parametrize("alert_threshold", [0.3, np.inf])
def test_alerts_count_the_rows_of_a_failed_stage(alert_threshold):
    model = cascade(on_stage_error="alert", thresholds=AlertBudget(5, per=1))
    model.fit(X, y, time=np.arange(len(y)) // 100)
    model.alert_threshold_ = alert_threshold  # infinite where a budget is too small for any
    usual, alerts = model.route(X_NEW), model.alerts(X_NEW)
    failed = usual.stage == 2
    assert failed.any()
    with Service.down("c"):
        with pytest.warns(RuntimeWarning, match="answered as positive"):
            np.testing.assert_array_equal(model.alerts(X_NEW), alerts & ~failed | failed)
        with pytest.warns(RuntimeWarning, match="answered as positive"):
            report = model.report(X_NEW)
    assert sum(report.columns["alerts"]) == (alerts | failed).sum()


def test_alerts_are_of_the_positive_class():
    labels = np.array(["fraud", "normal"])[1 - y]
    model = cascade(on_stage_error="alert", pos_label="fraud").fit(X, labels)
    with Service.down("c"), pytest.warns(RuntimeWarning):
        routing, predicted = model.route(X_NEW), model.predict(X_NEW)
    assert set(predicted[routing.failed]) == {"fraud"}


@LATER
def test_errors_go_on_by_default(make, k, name):
    model = fitted(make, "raise")
    with Service.down(name), pytest.raises(ConnectionError, match="no answer"):
        model.predict(X_NEW)


@BOTH_MODES
@pytest.mark.parametrize(
    ("make", "name"), [(cascade, "a"), (exits, "first_stage"), (heads, "first_stage")]
)
def test_errors_of_the_first_stage_go_on(make, name, mode):
    model = fitted(make, mode)
    with Service.down(name), pytest.raises(ConnectionError, match="no answer"):
        model.predict(X_NEW)


@BOTH_MODES
def test_an_interrupt_goes_on(mode):
    model = fitted(cascade, mode)
    with Service.down("b", KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        model.predict(X_NEW)


@BOTH_MODES
@pytest.mark.parametrize(("make", "name"), [(cascade, "c"), (exits, "exit_2"), (heads, "heads")])
def test_fits_and_tuning_and_scores_of_all_stages_raise(make, name, mode):
    model = fitted(make, mode)
    with Service.down(name):
        for call in (
            lambda: make(on_stage_error=mode).fit(X, y),
            lambda: model.tune_thresholds(X, y, thresholds=skmsc.Agreement(0.1)),
            lambda: model.stage_proba(X_NEW),
            lambda: next(model.staged_predict_proba(X_NEW)),
            lambda: model.measure_costs(X_NEW, n_repeats=1),
        ):
            with pytest.raises(ConnectionError, match="no answer"):
                call()


def test_scores_that_are_no_probabilities_are_an_error_of_the_stage():
    class Nan(Asking):
        def predict_proba(self, X):
            return super().predict_proba(X) * (np.nan if Service.fault else 1.0)

    stages = [("a", Asking("a", 2)), ("b", Nan("b"))]
    model = FeedbackCascadeClassifier(
        stages, thresholds=PassBudget(0.3), on_stage_error="answer_earlier", random_state=0
    ).fit(X, y)
    with Service.down("nobody"):
        routing = routed(model, X_NEW, "Stage 'b' raised ValueError on .* nan or infinite")
    assert routing.failed.any() and np.isfinite(routing.proba).all()


def test_of_rows_in_pieces_only_the_piece_fails(monkeypatch):
    model = fitted(exits, "answer_earlier")
    usual, staged = model.route(X_NEW), list(model.staged_predict_proba(X_NEW))
    waiting = np.flatnonzero(usual.stage >= 1)
    monkeypatch.setattr("skmsc.neural._multi_exit_net._ROWS_AT_ONCE", 40)
    n = -(-waiting.size // 40)
    assert n >= 3
    pieces = [waiting[k * waiting.size // n : (k + 1) * waiting.size // n] for k in range(n)]
    run_exit, runs = MultiExitNet.run_exit, []

    def failing(self, k, carry, log=False):
        runs.append(k)
        if (k, runs.count(k)) in ((1, 2), (0, 3)):
            raise ConnectionError("no answer")
        return run_exit(self, k, carry, log=log)

    monkeypatch.setattr(MultiExitNet, "run_exit", failing)
    second, third = pieces[1][usual.stage[pieces[1]] == 2], pieces[2]
    routing = routed(
        model,
        X_NEW,
        f"Stage 'exit_1' raised ConnectionError on {third.size} rows, .*: no answer; "
        f"Stage 'exit_2' raised ConnectionError on {second.size} rows, .*: no answer",
    )
    failed = np.zeros(len(X_NEW), dtype=bool)
    failed[second] = failed[third] = True
    np.testing.assert_array_equal(routing.failed, failed)
    expected = usual.proba.copy()
    expected[second], expected[third] = staged[1][second], staged[0][third]
    np.testing.assert_allclose(routing.proba, expected, atol=1e-6)


def test_errors_keep_no_rows_in_memory():
    class Rows(np.ndarray):
        """An array that may be referred to weakly."""

    def fails(carry):
        raise ValueError("broken")

    rows = np.zeros((4, 2)).view(Rows)
    seen, errors = weakref.ref(rows), StageErrors(lambda k, scores: scores)
    first = lambda carry: (np.full((4, 2), 0.5), carry)  # noqa: E731
    assert route([first, fails], rows, np.ones((2, 2)), on_error=errors).failed.all()
    del rows
    assert seen() is None


@pytest.mark.parametrize("seed", range(5))
def test_routing_marks_what_fails(seed):
    rng = np.random.default_rng(seed)
    stage_proba = rng.dirichlet(np.ones(3), size=(50, 4))
    thresholds = rng.uniform(0.4, 1.0, size=(4, 3))
    thresholds[-1] = -np.inf

    def step(k, rows):
        if k == 2:
            raise ValueError("broken")
        return stage_proba[rows, k], rows

    errors = StageErrors(lambda k, scores: -scores)
    steps = [lambda rows, k=k: step(k, rows) for k in range(4)]
    overwriting = lambda k, scores: np.multiply(scores, 2.0, out=scores)  # noqa: E731
    costs = np.array([1.0, 2.0, 4.0, 8.0])
    routing = route(steps, np.arange(50), thresholds, costs, answer=overwriting, on_error=errors)
    for i, scores in enumerate(stage_proba):
        answered = [k for k in range(2) if (scores[k] >= thresholds[k]).any()]
        assert routing.failed[i] == (not answered)
        assert routing.stage[i] == (answered or [1])[0]
        assert routing.cost[i] == ([1.0, 3.0][answered[0]] if answered else 7.0)
        expected = 2 * scores[answered[0]] if answered else -scores[1]
        np.testing.assert_array_equal(routing.proba[i], expected)
    n_failed = int(routing.failed.sum())
    assert repr(routing).endswith(f", {n_failed} failed)")
    assert errors.message("abcd", "go on") == (
        f"Stage 'c' raised ValueError on {n_failed} rows, which go on: broken"
    )


@LATER
def test_reports_count_them(make, k, name):
    model = fitted(make, "answer_earlier")
    usual = model.report(X, y)
    assert "failed" not in usual.columns
    weight = np.random.default_rng(0).integers(0, 3, size=len(y)).astype(float)
    with Service.down(name), pytest.warns(RuntimeWarning):
        routing, report = model.route(X), model.report(X, y, sample_weight=weight)
    expected = np.zeros(len(model.stage_costs_))
    expected[k] = weight[routing.failed].sum()
    assert report.columns["failed"] == tuple(expected)
    assert report.mean_cost == pytest.approx(np.average(routing.cost, weights=weight))
    answered = np.bincount(routing.stage, weight, minlength=expected.size)
    assert report.columns["answered"] == tuple(answered)
    assert "failed" in repr(report)


def test_a_report_with_labels_goes_on_without_the_retained_recall():
    model = fitted(cascade, "answer_earlier")
    with Service.down("c"), pytest.warns(RuntimeWarning) as caught:
        report = model.report(X, y)
    told = [str(warning.message) for warning in caught]
    assert len(told) == 2 and told[0].startswith("Stage 'c' raised")
    assert told[1].startswith("The report tells no retained recall")
    assert "retained_recall" not in report.columns
    assert "cumulative_recall" in report.columns


def test_a_monitor_goes_on():
    model = fitted(cascade, "answer_earlier")
    with Service.down("c"), pytest.warns(RuntimeWarning, match="Stage 'c' raised"):
        report = model.monitor(X_NEW)
    assert report.columns["rows_in"][2] == 0


@ALL
def test_wrong_values_are_refused(make):
    model = make(on_stage_error="pass")
    valid = "on_stage_error must be 'raise', 'answer_earlier' or 'alert'; got 'pass'."
    with pytest.raises(ValueError, match=valid):
        model.fit(X, y)
    assert not [name for name in vars(model) if name.endswith("_")]
    model = make().fit(X, y).set_params(on_stage_error="pass")
    with pytest.raises(ValueError, match=valid):
        model.predict(X_NEW)


@pytest.mark.parametrize(
    ("make", "params"), [(cascade, {"feedback": "none"}), (exits, {}), (heads, {})]
)
def test_alerts_need_two_classes(make, params):
    model = make(on_stage_error="alert", **params | {"thresholds": 0.9})
    message = "on_stage_error='alert' needs two classes, of which one is positive"
    with pytest.raises(ValueError, match=message):
        model.fit(X3, y3)
    model.set_params(on_stage_error="raise").fit(X3, y3).set_params(on_stage_error="alert")
    with pytest.raises(ValueError, match=message):
        model.predict(X3)


def test_a_third_class_is_refused_where_rows_become_alerts():
    model = heads(on_stage_error="alert", thresholds=1.1).fit(X3[y3 < 2], y3[y3 < 2])
    before = joblib.hash(model)
    with pytest.raises(ValueError, match="on_stage_error='alert' needs two classes"):
        model.add_class(X3[y3 == 2], 2)
    assert joblib.hash(model) == before


def test_through_pipelines_searches_and_cuts():
    make_model = {
        "pipeline": lambda model: make_pipeline(StandardScaler(), model),
        "search": lambda model: GridSearchCV(model, {"calibration": [None]}, cv=2),
        "cut": FinalCutClassifier,
    }
    for wrap in make_model.values():
        model = wrap(cascade(on_stage_error="answer_earlier")).fit(X, y)
        with Service.down("c"), pytest.warns(RuntimeWarning, match="Stage 'c' raised"):
            routing, predicted = skmsc.route(model, X_NEW), model.predict(X_NEW)
        assert routing.failed.any()
        np.testing.assert_array_equal(predicted, routing.proba.argmax(axis=1))


def test_a_scorer_of_costs_counts_the_failed_stage():
    model = fitted(cascade, "answer_earlier")
    usual = neg_mean_cost_scorer(model, X_NEW)
    with Service.down("c"), pytest.warns(RuntimeWarning):
        assert neg_mean_cost_scorer(model, X_NEW) == pytest.approx(usual)


# --- threads ----------------------------------------------------------------------------------
def net_stage():
    module = torch.nn.Sequential(
        torch.nn.Linear(20, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
    )
    return NeuralNetClassifier(
        module, criterion=torch.nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0
    )


SHARED = {
    "cascade of nets": lambda: FeedbackCascadeClassifier(
        [
            ("a", make_pipeline(StandardScaler(), LogisticRegression())),
            ("b", TabularNet(width=16, dropout=0.3, max_epochs=2)),
            ("c", make_pipeline(StandardScaler(), FunctionTransformer(np.float32), net_stage())),
        ],
        feedback="none",
        thresholds=[0.1, 0.2],
        cv=2,
        random_state=0,
    ),
    "cascade of trees": lambda: FeedbackCascadeClassifier(
        [
            ("a", HistGradientBoostingClassifier(max_iter=3)),
            ("b", RandomForestClassifier(5)),
        ],
        feedback="none",  # the binning of weighted rows is slow
        thresholds=PassBudget(0.4),
        cv=2,
        random_state=0,
    ),
    "exits": lambda: EarlyExitClassifier(
        LogisticRegression(), MultiExitNet(width=16, max_epochs=2), thresholds=0.9, random_state=0
    ),
    "heads": lambda: ComposableHeadClassifier(
        LogisticRegression(), TabularNet(width=16, max_epochs=2), thresholds=0.8, random_state=0
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_predicting_writes_nothing_and_threads_agree(name):
    model = SHARED[name]().fit(X, y)
    before = joblib.hash(model)
    parts = [X_NEW[start : start + 60] for start in range(0, 240, 10)]
    alone = [model.predict_proba(part) for part in parts]
    model.route(X_NEW), model.report(X, y), model.predict(X_NEW), model.stage_proba(X_NEW)
    assert joblib.hash(model) == before
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(model.predict_proba, parts))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert joblib.hash(model) == before


def test_the_hash_of_a_model_tells_what_is_written():
    model = SHARED["exits"]().fit(X, y)
    before = joblib.hash(model)
    model.net_.net_.module_.train()
    assert joblib.hash(model) != before
