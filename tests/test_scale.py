"""Many rows: the same answers some at a time, in bounded memory; fits on any joblib backend."""

import select
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import skmsc
from skmsc import (
    AlertBudget,
    ComposableHeadClassifier,
    CostlyFeatures,
    EarlyExitClassifier,
    FeedbackCascadeClassifier,
    PassBudget,
)
from skmsc.model_selection import ThresholdSearchCV
from skmsc.neural import MultiExitNet

X, Y = make_classification(700, weights=[0.8], flip_y=0.05, random_state=0)


def scaled(classifier):
    return make_pipeline(StandardScaler(), classifier)


def few_at_once(monkeypatch, n_rows=37):
    """Let rows be routed so few at a time, as a matter of their number only."""
    monkeypatch.setattr("skmsc._rows._ROWS_AT_ONCE", n_rows)
    monkeypatch.setattr("skmsc._rows._FEW_ROWS", 1)


MODELS = {
    "cascade": FeedbackCascadeClassifier(
        [
            ("screen", scaled(LogisticRegression())),
            ("middle", GaussianNB()),
            ("final", RandomForestClassifier(10, random_state=0)),
        ],
        thresholds=AlertBudget(15, per=1, max_pass_rate=0.4),
        stage_costs=[1, 2, 5],
        cv=3,
    ),
    "exits": EarlyExitClassifier(
        scaled(LogisticRegression()),
        MultiExitNet(width=8, max_epochs=2),
        thresholds=PassBudget(0.3),
        cv=3,
        random_state=0,
    ),
    "exits only": EarlyExitClassifier(
        net=MultiExitNet(width=8, max_epochs=2), thresholds=PassBudget(0.3), random_state=0
    ),
    "heads": ComposableHeadClassifier(
        GaussianNB(), "passthrough", thresholds=PassBudget(0.4), random_state=0
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def fitted(request):
    params = {"time": np.arange(len(Y)) // 100} if request.param == "cascade" else {}
    return clone(MODELS[request.param]).fit(X, Y, **params)


def all_answers(model):
    """What a classifier says of X, in arrays by name."""
    routing = model.route(X)
    return {
        "predict": model.predict(X),
        "predict_proba": model.predict_proba(X),
        "stage": routing.stage,
        "proba": routing.proba,
        "cost": routing.cost,
        "stage_proba": model.stage_proba(X),
        "at last": list(model.staged_predict_proba(X))[-1],
        "report": model.report(X, Y).to_frame().select_dtypes("number").to_numpy(),
        "alerts": model.alerts(X) if model.alert_threshold_ is not None else np.empty(0),
    }


def test_answers_do_not_depend_on_how_many_rows_go_together(fitted, monkeypatch):
    together = all_answers(fitted)
    few_at_once(monkeypatch)
    apart = all_answers(fitted)
    # Nets compute in float32, and products of other shapes round otherwise.
    atol = 1e-6 if isinstance(fitted, EarlyExitClassifier) else 1e-12
    for name, expected in together.items():
        assert apart[name].dtype == expected.dtype
        np.testing.assert_allclose(apart[name], expected, rtol=0, atol=atol, err_msg=name)
    assert len(np.unique(together["stage"])) > 1


@pytest.mark.parametrize(
    "as_rows",
    [
        sparse.csr_array,
        lambda X: pd.DataFrame(X, columns=[f"v{i}" for i in range(X.shape[1])]),
        lambda X: pl.DataFrame(X, schema=[f"v{i}" for i in range(X.shape[1])]),
        np.asfortranarray,
    ],
    ids=["sparse", "pandas", "polars", "Fortran"],
)
def test_rows_of_any_container_go_some_at_a_time(as_rows, monkeypatch):
    stages = [("screen", LogisticRegression()), ("final", DecisionTreeClassifier(max_depth=4))]
    rows, labels = as_rows(X), np.where(Y == 1, "fraud", "fine")
    model = FeedbackCascadeClassifier(
        stages, thresholds=PassBudget(0.4), stage_costs=[1, 2], cv=3, pos_label="fraud"
    ).fit(rows, labels)
    expected = model.route(rows)
    answer = model.classes_[expected.proba.argmax(axis=1)]
    few_at_once(monkeypatch)
    routing = model.route(rows)
    np.testing.assert_array_equal(routing.stage, expected.stage)
    np.testing.assert_allclose(routing.proba, expected.proba, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(model.predict(rows), answer)


def test_a_final_cut_counts_the_same_some_rows_at_a_time(monkeypatch):
    stages = [("screen", LogisticRegression()), ("final", GaussianNB())]
    model = FeedbackCascadeClassifier(stages, stage_costs=[1, 2], cv=3)
    search = ThresholdSearchCV(model, "pairs", scoring="f1", cv=3).fit(X, Y)
    expected = search.predict(X)
    few_at_once(monkeypatch)
    np.testing.assert_array_equal(search.predict(X), expected)


class Watched(LogisticRegression):
    """A logistic regression that keeps the number of rows of each call."""

    calls = []

    def predict_proba(self, X):
        self.calls.append(len(X))
        return super().predict_proba(X)


def watched_cascade(rows, labels, **params):
    stages = [("screen", Watched()), ("final", GaussianNB())]
    model = FeedbackCascadeClassifier(
        stages, thresholds=PassBudget(0.2), stage_costs=[1, 2], cv=2, **params
    ).fit(rows, labels)
    Watched.calls.clear()
    return model


def test_rows_together_fill_the_working_memory_and_no_more():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 100))
    model = watched_cascade(rows, rows[:, 0] > 1)
    model.predict(rows)
    assert Watched.calls == [4000]
    Watched.calls.clear()
    with config_context(working_memory=2):  # MiB, for four copies of 100 columns and two scores
        model.predict(rows)
    at_once = 2 * 2**20 // (4 * (100 + 2) * 8)
    n = -(-4000 // at_once)
    assert Watched.calls == [(k + 1) * 4000 // n - k * 4000 // n for k in range(n)]
    assert max(Watched.calls) <= at_once


def test_zeros_of_sparse_rows_take_no_working_memory():
    rows = sparse.csr_array(sparse.random(3000, 5000, density=0.001, random_state=0))
    labels = np.asarray(rows[:, :100].sum(axis=1)) > 0.1
    model = FeedbackCascadeClassifier(
        [("screen", LogisticRegression())], stage_costs=[1], cv=2
    ).fit(rows, labels)
    with config_context(working_memory=1):
        assert model._rows_at_once(rows) > 3000
        assert model._rows_at_once(rows.toarray()) == 256  # the least


def test_what_is_not_finite_shows_before_any_stage_runs(monkeypatch):
    model = watched_cascade(X, Y)
    few_at_once(monkeypatch)
    rows = X.copy()
    rows[-1, 3] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict(rows)
    assert Watched.calls == []


def test_costly_features_are_fetched_once_for_the_rows_that_go_together(monkeypatch):
    asked = []

    def fetch(ids):
        asked.append(np.asarray(ids).tolist())
        return np.asarray(ids)[:, None] % 7

    rows = np.column_stack([X, np.arange(len(X))])
    final = make_pipeline(CostlyFeatures(fetch, on=X.shape[1], cost=5), GaussianNB())
    model = FeedbackCascadeClassifier(
        [("screen", scaled(LogisticRegression())), ("final", final)],
        thresholds=PassBudget(0.4),
        stage_costs=[1, 2],
        cv=2,
    ).fit(rows, Y)
    few_at_once(monkeypatch, 100)
    asked.clear()
    stage = model.route(rows).stage
    reach = np.flatnonzero(stage == 1)
    assert asked == [reach[reach // 100 == k].tolist() for k in range(7)]


# --- memory ------------------------------------------------------------------------------------
SCRIPT = """
import sys
import joblib, numpy as np
rows = np.memmap(sys.argv[1], dtype=np.float32, mode="r").reshape(-1, 20)
for path in sys.argv[2:]:
    model = joblib.load(path)
    for n_rows in (600_000, len(rows)):
        print("ready", flush=True)
        sys.stdin.readline()
        model.predict(rows[:n_rows])
        print("done", flush=True)
        sys.stdin.readline()
"""
STATUS = Path("/proc/self/status")
N_ROWS = 2_000_000


def anonymous_mb(pid):
    """Resident memory of a process that is of no file, in MB."""
    line = next(s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if "RssAnon" in s)
    return int(line.split()[1]) * 1024 / 1e6


@pytest.mark.skipif(
    not STATUS.exists() or "RssAnon" not in STATUS.read_text(), reason="/proc does not tell memory"
)
@pytest.mark.parametrize(
    "names", [["cascade", "heads"], pytest.param(["exits"], marks=pytest.mark.slow)]
)
def test_memory_beyond_a_mapping_and_the_answer_is_bounded(names, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N_ROWS, 20), dtype=np.float32)
    train, labels = rows[:2000], rows[:2000, 0] > 1
    rows.tofile(tmp_path / "rows")  # 160 MB; the scaler alone would make as much of it
    how = {"thresholds": PassBudget(0.2), "random_state": 0}
    first = scaled(LogisticRegression())
    models = {
        "cascade": FeedbackCascadeClassifier(
            [("screen", first), ("final", scaled(GaussianNB()))], cv=2, **how
        ),
        "exits": EarlyExitClassifier(first, MultiExitNet(width=8, max_epochs=3), cv=2, **how),
        "heads": ComposableHeadClassifier(first, "passthrough", **how),
    }
    models = [models[name] for name in names]
    paths = [tmp_path / str(k) for k in range(len(models))]
    for model, path in zip(models, paths, strict=True):
        joblib.dump(model.fit(train, labels), path)
    peaks = []
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, tmp_path / "rows", *paths],
        cwd=Path(skmsc.__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        for _ in 2 * models:
            assert child.stdout.readline() == "ready\n"
            child.stdin.write("go\n")
            child.stdin.flush()
            peak = 0.0
            while not select.select([child.stdout], [], [], 0.005)[0]:
                peak = max(peak, anonymous_mb(child.pid))
            assert child.stdout.readline() == "done\n"
            child.stdin.write("go\n")
            child.stdin.flush()
            peaks.append(peak)
    assert child.returncode == 0
    # A copy of the 1,400,000 further rows would be 112 MB, a slice of them is 21.
    further = np.subtract(peaks[1::2], peaks[::2])
    assert further.max() < 40, further.round(1)


# --- joblib ------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_a_fit_is_the_same_on_any_backend(backend):
    model = FeedbackCascadeClassifier(
        [
            ("screen", scaled(LogisticRegression())),
            ("final", RandomForestClassifier(5, max_depth=4)),
        ],
        thresholds=PassBudget(0.3),
        stage_costs=[1, 2],
        cv=3,
        store_oof=True,
        random_state=0,
    )
    search = ThresholdSearchCV(model, [PassBudget(0.1), PassBudget(0.4)], scoring="f1", cv=2)
    expected, found = clone(model).fit(X, Y), clone(search).fit(X, Y)
    with joblib.parallel_config(backend=backend):
        other = clone(model).set_params(n_jobs=2).fit(X, Y)
        searched = clone(search).set_params(n_jobs=2).fit(X, Y)
    np.testing.assert_array_equal(other.oof_stage_proba_, expected.oof_stage_proba_)
    np.testing.assert_array_equal(other.thresholds_, expected.thresholds_)
    np.testing.assert_array_equal(other.predict_proba(X), expected.predict_proba(X))
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(searched.cv_results_[name], found.cv_results_[name])
    np.testing.assert_array_equal(searched.predict_proba(X), found.predict_proba(X))
