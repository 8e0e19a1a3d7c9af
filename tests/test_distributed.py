"""What dask's workers answer is what the model answers itself, on a real cluster of two."""

import os
import sys

import dask
import dask.array as da
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
import pytest
from dask.dataframe.utils import assert_eq
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skmsc
from skmsc import FeedbackCascadeClassifier, PassBudget
from skmsc.distributed import predict, predict_proba, route
from skmsc.model_selection import ThresholdSearchCV

ARRAY, CODES = make_classification(
    600, n_features=6, n_informative=4, weights=[0.8], random_state=0
)
X = pd.DataFrame(ARRAY, columns=list("abcdef"))
Y = np.where(CODES == 1, "fraud", "fine")
# An id before, a text behind the features; an index with gaps.
ROWS = X.assign(note="n" + X.index.astype(str)).set_axis(2 * X.index)
ROWS.insert(0, "card", np.arange(len(X)) + 5000)
PROBA = ["proba_fine", "proba_fraud"]


def cascade(**params):
    stages = [("screen", LogisticRegression()), ("final", GaussianNB())]
    how = {"thresholds": PassBudget(0.3), "stage_costs": [1, 2], "cv": 3} | params
    return FeedbackCascadeClassifier(stages, pos_label="fraud", random_state=0, **how)


@pytest.fixture(scope="module")
def model():
    return cascade().fit(X, Y)


@pytest.fixture(scope="module")
def client():
    from distributed import Client, LocalCluster

    how = {"n_workers": 2, "threads_per_worker": 2, "processes": True}
    with (
        LocalCluster(**how, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(params=["threads", "cluster"])
def engine(request):
    """Dask's threads, or the cluster as the client that dask finds."""
    if request.param == "threads":
        with dask.config.set(scheduler="threads"):
            yield
    else:
        with request.getfixturevalue("client").as_current():
            yield


def check_equal(found, expected):
    """Hold dask's answer, computed by what computes here, and its meta against a dataframe."""
    pd.testing.assert_frame_equal(found.compute(), expected)
    pd.testing.assert_frame_equal(found._meta, expected[:0], check_index_type=False)


def local_table(model, rows):
    """The routing of a dataframe's rows as the table that dask's should equal."""
    routing = skmsc.route(model, rows if hasattr(model, "feature_names_in_") else rows.to_numpy())
    columns = {"stage": routing.stage, "cost": routing.cost}
    columns |= dict(zip(PROBA, routing.proba.T, strict=True))
    return pd.DataFrame(columns, index=rows.index)


def test_frames_are_answered_as_the_model_answers(engine, model):
    data = dd.from_pandas(ROWS, npartitions=5)
    features = ROWS[list("abcdef")]
    labels = pd.Series(model.predict(features), index=ROWS.index, name="prediction")
    table = local_table(model, features)

    found = predict(model, data)
    assert found.divisions == data.divisions
    assert found.name == "prediction"
    check_equal(found.to_frame(), labels.to_frame())
    check_equal(predict_proba(model, data), table[PROBA])
    assert len(table.stage.unique()) == 2
    kept = route(model, data, keep=["card"])
    check_equal(kept, pd.concat([ROWS[["card"]], table], axis=1))


def test_meta_and_divisions_are_those_of_the_partitions(model):
    data = dd.from_pandas(ROWS, npartitions=5)
    features = ROWS[list("abcdef")]
    table = local_table(model, features)
    with dask.config.set(scheduler="synchronous"):
        labels = pd.Series(model.predict(features), index=ROWS.index, name="prediction")
        assert_eq(predict(model, data), labels)
        notes = data.compute()[["note", "card"]]
        assert_eq(route(model, data, keep=["note", "card"]), pd.concat([notes, table], axis=1))


def test_arrays_are_answered_as_the_model_answers(engine):
    model = cascade().fit(ARRAY, Y)
    data = da.from_array(ARRAY, chunks=((100, 0, 300, 200), -1))
    routing = model.route(ARRAY)
    found, proba = predict(model, data), predict_proba(model, data)
    assert found.chunks == (data.chunks[0],) and found.dtype == model.classes_.dtype
    assert proba.chunks == (data.chunks[0], (2,)) and proba.dtype == np.float64
    np.testing.assert_array_equal(found.compute(), model.predict(ARRAY))
    np.testing.assert_allclose(proba.compute(), routing.proba, rtol=0, atol=1e-12)
    check_equal(route(model, data), local_table(model, X))


def test_chunks_may_be_sparse():
    rows = sparse.csr_array(ARRAY)
    stages = [("screen", LogisticRegression()), ("final", LogisticRegression(C=5.0))]
    model = cascade().set_params(stages=stages).fit(rows, Y)
    data = da.from_array(ARRAY, chunks=(200, -1)).map_blocks(sparse.csr_array)
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(predict(model, data).compute(), model.predict(rows))


# Of dask's own writing and reading of an index.
inplace_of_dask = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")


@inplace_of_dask
def test_parquet_in_and_scored_parquet_out(client, model, tmp_path):
    dd.from_pandas(ROWS, npartitions=4).to_parquet(tmp_path / "in")
    with client.as_current():
        data = dd.read_parquet(tmp_path / "in")
        route(model, data, keep=["card"]).to_parquet(tmp_path / "out")
    scored = pd.read_parquet(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.parquet"))) > 1
    table = local_table(model, ROWS[list("abcdef")])
    pd.testing.assert_frame_equal(
        scored, pd.concat([ROWS[["card"]], table], axis=1), check_names=False
    )


@inplace_of_dask
def test_only_the_columns_used_are_read(model, tmp_path):
    dd.from_pandas(ROWS, npartitions=2).to_parquet(tmp_path / "in")
    data = dd.read_parquet(tmp_path / "in")
    found = predict(model, data, keep=["card"]).expr.simplify()
    (read,) = found.find_operations(type(data.expr))
    assert set(read.operand("columns")) == {*"abcdef", "card"}


def test_partitions_without_rows_are_answered_by_none(engine, model):
    data = dd.from_pandas(ROWS, npartitions=5)
    some = data[data.card >= 5300]  # the first partitions are empty
    expected = local_table(model, ROWS.loc[ROWS.card >= 5300, list("abcdef")])
    check_equal(route(model, some), expected)
    nothing = predict(model, data[data.card < 0], keep=["card"]).compute()
    assert nothing.shape == (0, 2)
    assert nothing.dtypes.equals(predict(model, data, keep=["card"]).compute().dtypes)


def counting_cascade(path):
    """A fitted cascade that notes, in a file, each process that unpickles it."""

    class Counting(FeedbackCascadeClassifier):  # made here, so that it travels by itself
        def __setstate__(self, state):
            with open(path, "a") as file:
                file.write(f"{os.getpid()}\n")
            super().__setstate__(state)

    model = Counting(**cascade().get_params(deep=False)).fit(X, Y)
    path.write_text("")
    return model


def test_each_worker_gets_the_model_once(client, tmp_path):
    path = tmp_path / "pids"
    model = counting_cascade(path)
    data = dd.from_pandas(ROWS, npartitions=12)
    with client.as_current():
        found = route(model, data).compute()
    pd.testing.assert_frame_equal(found, local_table(model, ROWS[list("abcdef")]))
    workers = client.run(os.getpid).values()
    assert sorted(map(int, path.read_text().split())) == sorted(workers)


def test_threads_share_the_model(tmp_path):
    path = tmp_path / "pids"
    model = counting_cascade(path)
    with dask.config.set(scheduler="threads"):
        route(model, dd.from_pandas(ROWS, npartitions=12)).compute()
    assert path.read_text() == ""


def test_nothing_is_computed_before_it_is_asked_for(model):
    def fails(frame):
        raise AssertionError("computed too early")

    data = dd.from_pandas(ROWS, npartitions=2)
    data = data.map_partitions(fails, meta=data._meta)
    for tell in (predict, predict_proba, route):
        tell(model, data)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: make_pipeline(StandardScaler(), inner),
        lambda inner: GridSearchCV(inner, {"calibration": [None]}, cv=2),
        lambda inner: FixedThresholdClassifier(inner, threshold=0.3, pos_label="fraud"),
        lambda inner: ThresholdSearchCV(inner, [PassBudget(0.2), PassBudget(0.4)], cv=2),
    ],
    ids=["pipeline", "grid", "threshold", "search"],
)
def test_what_is_around_a_classifier_is_understood(wrap):
    model = wrap(cascade()).fit(X, Y)
    data = dd.from_pandas(X, npartitions=3)
    with dask.config.set(scheduler="synchronous"):
        assert_eq(predict(model, data), pd.Series(model.predict(X), name="prediction"))
        assert_eq(route(model, data), local_table(model, X))


def test_columns_are_those_given_or_all_that_are_not_kept():
    model = cascade().fit(ARRAY, Y)  # it knows no names
    expected = pd.Series(model.predict(ARRAY), name="prediction", index=ROWS.index)
    data = dd.from_pandas(ROWS, npartitions=2)
    with dask.config.set(scheduler="synchronous"):
        assert_eq(predict(model, data, columns=list("abcdef")), expected)
        kept = predict(model, data, keep=["note", "card"])
        assert kept.columns.tolist() == ["note", "card", "prediction"]
        assert_eq(kept.prediction, expected)


def test_unknown_costs_are_nan_and_classes_of_any_type_are_named():
    model = FeedbackCascadeClassifier(
        [("screen", cascade().fit(X, Y).named_stages_["screen"]), ("final", GaussianNB())],
        feedback="none",
        thresholds=0.5,
        cv=3,
    ).fit(X, np.digitize(X.a, [-1, 1]) * 10)
    model.stage_costs_ = None
    with dask.config.set(scheduler="synchronous"):
        table = route(model, dd.from_pandas(X, npartitions=2)).compute()
    assert table.columns.tolist() == ["stage", "cost", "proba_0", "proba_10", "proba_20"]
    assert table.cost.isna().all() and table.cost.dtype == np.float64


FRAME, BLOCKS = dd.from_pandas(ROWS, npartitions=2), da.from_array(ARRAY, chunks=(300, -1))


@pytest.mark.parametrize(
    ("data", "how", "error", "message"),
    [
        (X, {}, TypeError, r"dask dataframe or a dask array.*got pandas\S*\.DataFrame"),
        (FRAME.a, {}, TypeError, r"dask dataframe or a dask array.*got \S*\.Series"),
        (FRAME[["a", "b"]], {}, ValueError, r"feature_names_in_ .*lacks \['c', 'd', 'e', 'f'\]"),
        (FRAME, {"columns": ["a", "z"]}, ValueError, r"columns must be .*lacks \['z'\]"),
        (FRAME, {"columns": ["a", "a"]}, ValueError, r"columns must be different columns"),
        (FRAME, {"columns": ["a", "b"]}, ValueError, r"fitted on 6 features; columns are 2"),
        (FRAME, {"keep": ["z"]}, ValueError, r"keep must be .*lacks \['z'\]"),
        (FRAME, {"keep": "card"}, TypeError, r"keep must be a list of column names; got 'card'"),
        (BLOCKS, {"keep": ["card"]}, ValueError, r"data is an array; got columns=None, keep"),
        (BLOCKS[:, :3], {}, ValueError, r"shape \(n_samples, 6\).*got \(600, 3\)"),
        (BLOCKS[:, 0], {}, ValueError, r"shape \(n_samples, 6\).*got \(600,\)"),
        (BLOCKS.rechunk((600, 3)), {}, ValueError, r"rechunk\(\{1: -1\}\).*got 2 chunks"),
    ],
)
def test_wrong_data_raise_at_once(data, how, error, message, model):
    with pytest.raises(error, match=message):
        predict(model, data, **how)


def test_wrong_models_and_names_raise_at_once(model):
    with pytest.raises(TypeError, match="fitted classifier with predict; got FeedbackCascade"):
        predict(cascade(), FRAME)
    with pytest.raises(TypeError, match="no fitted multi-stage classifier in the LogisticRegr"):
        route(LogisticRegression().fit(X, Y), FRAME)
    with pytest.raises(ValueError, match=r"keep must not hold a name that the result gives"):
        route(model, FRAME.assign(stage=1), keep=["stage"])


def test_without_dask_the_error_tells_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ImportError, match=r"needs dask.array: pip install 'skmsc\[distributed\]'"):
        predict(model, FRAME)


@pytest.mark.slow
def test_fits_are_the_same_on_dask_workers(client):
    model = cascade(store_oof=True)
    search = ThresholdSearchCV(model, [PassBudget(0.1), PassBudget(0.4)], scoring="accuracy", cv=2)
    expected, found = clone(model).fit(X, Y), clone(search).fit(X, Y)
    with client.as_current(), joblib.parallel_config(backend="dask"):
        other = clone(model).set_params(n_jobs=2).fit(X, Y)
        searched = clone(search).set_params(n_jobs=2).fit(X, Y)
    np.testing.assert_array_equal(other.oof_stage_proba_, expected.oof_stage_proba_)
    np.testing.assert_array_equal(other.predict_proba(X), expected.predict_proba(X))
    np.testing.assert_array_equal(
        searched.cv_results_["mean_test_score"], found.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(searched.predict_proba(X), found.predict_proba(X))
