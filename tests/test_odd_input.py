"""Odd input ends in scikit-learn's kind of error, or in the answer to the same rows plainly given.

Which of the two, a peer tells: a classifier of scikit-learn that was fitted on the same rows.
"""

import functools
import re
import tempfile

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.extra.numpy import arrays
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from skmsc import (
    ComposableHeadClassifier,
    EarlyExitClassifier,
    ExpectedCost,
    FeedbackCascadeClassifier,
    PassBudget,
    RidgeHead,
)
from skmsc.neural import MultiExitNet, TabularNet

N = 120
RNG = np.random.default_rng(0)
X = RNG.integers(0, 60, size=(N, 3)).astype(float)
Y = (X[:, 0] + 20 * RNG.normal(size=N) > 45).astype(int)
NAMES = np.where(Y == 1, "yes", "no")
FRAME = pd.DataFrame(X, columns=list("pqr"))
WITH_NAN = np.where(np.arange(3 * N).reshape(N, 3) % 23 == 7, np.nan, X)

set_hypothesis_home_dir(f"{tempfile.gettempdir()}/hypothesis")  # what it keeps of modules it reads

pytestmark = pytest.mark.filterwarnings(
    # Arrays are given to what was fitted on dataframes and the other way round.
    "ignore:X (does not have valid|has) feature names:UserWarning",
    "ignore:the matrix subclass is not the recommended way:PendingDeprecationWarning",
)


def examples(n):
    """Settings of hypothesis: the same examples in every run, and no database of them."""
    return settings(
        max_examples=n,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


# Classifiers, each fitted once ------------------------------------------------------------------


def cascade(first, last):
    return FeedbackCascadeClassifier(
        [("screen", first), ("final", last)], thresholds=PassBudget(0.4), cv=2, random_state=0
    )


def early_exits(first_stage=None, **params):
    net = MultiExitNet(width=8, depth=2, max_epochs=3, lr=0.1, **params)
    return EarlyExitClassifier(
        first_stage, net, exit_weighting="uniform", thresholds=0.8, cv=2, random_state=0
    )


def heads(first_stage=None, **params):
    return ComposableHeadClassifier(
        first_stage, "passthrough", thresholds=0.8, random_state=0, **params
    )


def net():
    return TabularNet(width=8, max_epochs=3, lr=0.1, random_state=0)


def forest():
    return RandomForestClassifier(3, max_depth=3, random_state=0)


def boosted(max_iter):
    return HistGradientBoostingClassifier(max_iter=max_iter, min_samples_leaf=5)


linear = LogisticRegression
MODELS = {  # a classifier, its peer, and the rows and labels of both
    "cascade": (lambda: cascade(linear(), forest()), linear, X, NAMES),
    "cascade of a frame": (lambda: cascade(linear(), forest()), linear, FRAME, Y),
    "cascade of sparse rows": (
        lambda: cascade(linear(), forest()),
        linear,
        sparse.csr_array(X),
        Y,
    ),
    "cascade with nan": (lambda: cascade(boosted(2), boosted(5)), forest, WITH_NAN, Y),
    "early exits": (lambda: early_exits(linear()), linear, X, NAMES),
    "early exits with nan": (lambda: early_exits(missing="mean"), forest, WITH_NAN, Y),
    "heads": (lambda: heads(linear()), linear, X, NAMES),
    "random heads": (lambda: heads(head=RidgeHead(n_random_features=8)), linear, X, Y),
    "net": (net, linear, X, NAMES),
}
STAGED = [name for name in MODELS if name != "net"]
TAKES_SPARSE = [name for name in MODELS if name != "cascade with nan"]


@functools.cache
def fitted(name):
    """A classifier and its peer."""
    model, peer, rows, labels = MODELS[name]
    return model().fit(rows, labels), peer().fit(rows, labels)


def one_by_one(method, rows):
    """What a method gives for each row of a plain array by itself, put together."""
    return np.concatenate([method(rows[i : i + 1]) for i in range(len(rows))])


def error_of(function, *args, **params):
    """The error that a call ends in: its type, and its first line without a classifier's name."""
    with pytest.raises((ValueError, TypeError)) as caught:
        function(*args, **params)
    line = str(caught.value).partition("\n")[0]
    return caught.type, re.sub(r"\w+(Classifier|Regression|Net)\b", "_", line)


# Rows that are answered -------------------------------------------------------------------------


class OnlyInterface:
    """Rows that have nothing of an array but its interface."""

    def __init__(self, rows):
        self.__array_interface__ = rows.__array_interface__
        self.rows = rows


def on_disk(rows):
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, dtype=float, mode="w+", shape=rows.shape)
    mapped[:] = rows
    return mapped


def read_only(rows):
    rows = rows.copy()
    rows.flags.writeable = False
    return rows


def as_frame(rows, dtype=float):
    return pd.DataFrame(rows, columns=list("pqr")).astype(dtype)


def as_polars(rows, dtype=pl.Float64):
    return pl.DataFrame({name: rows[:, j] for j, name in enumerate("pqr")}).cast(dtype)


def with_explicit_zeros(rows):
    matrix = sparse.csr_array(rows + 1)
    matrix.data -= 1
    return matrix


def with_long_indices(rows):
    matrix = sparse.csc_matrix(rows)
    matrix.indices, matrix.indptr = matrix.indices.astype("i8"), matrix.indptr.astype("i8")
    return matrix


DTYPES = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "g", ">i4", ">f4", ">f8"]
FORMS = {
    **{dtype: functools.partial(np.asarray, dtype=dtype) for dtype in DTYPES},
    "plain": np.copy,
    "Fortran": np.asfortranarray,
    "strided": lambda rows: rows.repeat(2, axis=0).repeat(3, axis=1)[::2, ::3],
    "negative strides": lambda rows: rows[::-1, ::-1].copy()[::-1, ::-1],
    "field": lambda rows: np.array([(row,) for row in rows], dtype=[("a", "<f8", 3)])["a"],
    "read-only": read_only,
    "memmap": on_disk,
    "masked": np.ma.array,
    "object": lambda rows: rows.astype(object),
    "list": np.ndarray.tolist,
    "tuple": lambda rows: tuple(map(tuple, rows)),
    "list of arrays": list,
    "pandas": as_frame,
    "pandas of objects": functools.partial(as_frame, dtype=object),
    "pandas Int64": functools.partial(as_frame, dtype="Int64"),
    "pandas Float32": functools.partial(as_frame, dtype="Float32"),
    "pandas of Arrow": functools.partial(as_frame, dtype="int64[pyarrow]"),
    "pandas, rows of one name": lambda rows: as_frame(rows).set_axis([7] * len(rows)),
    "polars": as_polars,
    "polars UInt8": functools.partial(as_polars, dtype=pl.UInt8),
}
SPARSE_FORMS = {
    "csr": sparse.csr_array,
    "csc": sparse.csc_matrix,
    "coo": sparse.coo_array,
    "lil": sparse.lil_matrix,
    "float32": lambda rows: sparse.csr_array(rows.astype("f4")),
    "int8": lambda rows: sparse.csr_array(rows.astype("i1")),
    "long double": lambda rows: sparse.csr_array(rows.astype("g")),
    "explicit zeros": with_explicit_zeros,
    "64-bit indices": with_long_indices,
    "pandas": lambda rows: as_frame(rows, dtype=pd.SparseDtype(float, 0.0)),
}
whole = st.integers(0, 60).map(float)  # any dtype has them
some_rows = st.integers(1, 3).flatmap(lambda n: arrays(float, (n, 3), elements=whole))


def check_answers(model, rows, plain):
    proba = model.predict_proba(rows)
    assert proba.dtype == np.float64 and np.isfinite(proba).all() and (proba >= 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    np.testing.assert_allclose(proba, one_by_one(model.predict_proba, plain), atol=1e-6)


def check_stages(model, rows, plain):
    *_, eager = model.staged_predict_proba(rows)
    np.testing.assert_allclose(eager, model.route(rows).proba, atol=1e-6)
    stage = one_by_one(lambda row: model.route(row).stage, plain)
    np.testing.assert_array_equal(model.route(rows).stage, stage)
    np.testing.assert_allclose(
        model.stage_proba(rows), one_by_one(model.stage_proba, plain), atol=1e-6
    )


@pytest.mark.parametrize("name", MODELS)
@examples(15)
@given(plain=some_rows, form=st.sampled_from(list(FORMS)))
def test_a_row_has_one_answer_in_any_form(name, plain, form):
    check_answers(fitted(name)[0], FORMS[form](plain), plain)


@pytest.mark.parametrize("name", STAGED)
def test_rows_that_have_nothing_but_the_interface_of_an_array(name):
    check_answers(fitted(name)[0], OnlyInterface(X[:3]), X[:3])


@pytest.mark.parametrize("name", TAKES_SPARSE)
@examples(15)
@given(plain=some_rows, form=st.sampled_from(list(SPARSE_FORMS)))
def test_a_sparse_row_has_the_answer_of_the_dense_one(name, plain, form):
    check_answers(fitted(name)[0], SPARSE_FORMS[form](plain), plain)


@pytest.mark.parametrize("name", STAGED)
@examples(6)
@given(plain=some_rows, form=st.sampled_from(list(FORMS)))
def test_a_row_takes_one_way_in_any_form(name, plain, form):
    check_stages(fitted(name)[0], FORMS[form](plain), plain)


def answer_or_error(method, rows):
    # Where a stage makes float32 of the rows, scikit-learn's cast warns before its check raises.
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            return method(rows)
        except ValueError as error:
            return error


@pytest.mark.parametrize("name", MODELS)
@examples(20)
@given(data=st.data(), dtype=st.sampled_from([np.float32, np.float64]))
def test_any_finite_rows_end_as_each_of_them_does(name, data, dtype):
    width = 8 * np.dtype(dtype).itemsize
    extremes = [dtype(v) for v in (np.finfo(dtype).max, np.finfo(dtype).min, 5e-324, -0.0)]
    values = st.one_of(whole, st.sampled_from(extremes), st.floats(-1e6, 1e6, width=32))
    values |= st.floats(allow_nan=False, allow_infinity=False, width=width)
    rows = data.draw(arrays(dtype, (4, 3), elements=values))
    model = fitted(name)[0]
    together = answer_or_error(model.predict_proba, rows)
    apart = [answer_or_error(model.predict_proba, rows[i : i + 1].astype(float)) for i in range(4)]
    refused = [isinstance(one, ValueError) for one in apart]
    assert isinstance(together, ValueError) == any(refused)
    if not any(refused):
        assert np.isfinite(together).all() and (together >= 0).all()
        np.testing.assert_allclose(together.sum(axis=1), 1.0)
        np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-6)


# Rows that are refused --------------------------------------------------------------------------


def same_kind(outcome):
    """What an error tells of the rows, "" of answers."""
    told = re.match(r"Input X contains (NaN|infinity)", str(outcome))
    return told.group() if told else ""


@pytest.mark.parametrize("name", MODELS)
@examples(15)
@given(
    value=st.sampled_from([np.nan, np.inf, -np.inf, None]),
    dtype=st.sampled_from([np.float32, np.float64, ">f8", object]),
    place=st.tuples(st.integers(0, 3), st.integers(0, 2)),
)
def test_what_is_no_number_is_refused_where_the_peer_refuses_it(name, value, dtype, place):
    model, peer = fitted(name)
    rows = X[:4].astype(dtype)
    rows[place] = value
    expected, got = (answer_or_error(known.predict_proba, rows) for known in (peer, model))
    assert type(got) is type(expected)
    assert same_kind(got) == same_kind(expected)


REFUSED = {
    "no rows": (lambda rows: rows[:0], ValueError, "0 sample"),
    "no columns": (lambda rows: rows[:, :0], ValueError, "0 feature"),
    "few columns": (lambda rows: rows[:, :2], ValueError, "X has 2 features, but _ is expecting 3"),
    "many columns": (lambda rows: np.c_[rows, rows], ValueError, "X has 6 features"),
    "vector": (lambda rows: rows[0], ValueError, "Expected 2D array, got 1D array"),
    "number": (lambda rows: 3.0, ValueError, "Expected 2D array, got scalar array"),
    "three dimensions": (lambda rows: rows[None], ValueError, "array with dim 3"),
    "ragged": (lambda rows: [[1.0, 2.0, 3.0], [1.0]], ValueError, "inhomogeneous"),
    "complex": (lambda rows: rows + 1j, ValueError, "Complex data not supported"),
    "text": (lambda rows: np.full((2, 3), "a", object), ValueError, "could not convert string"),
    "matrix": (np.matrix, TypeError, "np.matrix is not supported"),
    "Series": (
        lambda rows: pd.Series(rows[:, 0]),
        ValueError,
        "Expected a 2-dimensional container",
    ),
    "one sparse row": (lambda rows: sparse.coo_array(rows[0]), ValueError, "Expected 2D input"),
}


@pytest.mark.parametrize("name", TAKES_SPARSE)
@examples(len(REFUSED))
@given(form=st.sampled_from(list(REFUSED)))
def test_rows_that_are_none(name, form):
    make, error, words = REFUSED[form]
    model, peer = fitted(name)
    refusal = error_of(model.predict_proba, make(X[:4]))
    assert refusal == (error, refusal[1]) and words in refusal[1]
    assert error_of(peer.predict_proba, make(X[:4]))[0] is error


WRONG_FRAMES = {
    "reordered": lambda frame: frame[list("rqp")],
    "missing": lambda frame: frame[["p", "q"]],
    "further": lambda frame: frame.assign(s=1.0),
    "renamed": lambda frame: frame.rename(columns={"p": "P"}),
    "repeated": lambda frame: frame[["p", "p", "q", "r"]],
    "names of two kinds": lambda frame: frame.rename(columns={"p": 0}),
    "no rows": lambda frame: frame[:0],
    "pd.NA": lambda frame: frame.astype("Int64").mask(np.eye(4, 3) > 0),
    "nan": lambda frame: frame.mask(np.eye(4, 3) > 0),
    "infinity": lambda frame: frame.mask(np.eye(4, 3) > 0, np.inf),
    "category": lambda frame: frame.assign(q=pd.Categorical(list("abca"))),
    "text of Arrow": lambda frame: frame.assign(q=pd.array(list("abca"), "string[pyarrow]")),
    "dates": lambda frame: frame.assign(q=pd.date_range("2020", periods=4)),
    "complex": lambda frame: frame + 1j,
    "polars, reordered": lambda frame: as_polars(frame.to_numpy())[list("rqp")],
    "polars, null": lambda frame: as_polars(frame.to_numpy()).with_columns(q=pl.lit(None)),
    "polars, text": lambda frame: as_polars(frame.to_numpy()).with_columns(q=pl.lit("a")),
}


@examples(2 * len(WRONG_FRAMES))
@given(form=st.sampled_from(list(WRONG_FRAMES)))
def test_frames_are_refused_with_the_words_of_the_peer(form):
    model, peer = fitted("cascade of a frame")
    frame = WRONG_FRAMES[form](FRAME[:4])
    (error, words), (got, told) = (error_of(known.predict_proba, frame) for known in (peer, model))
    assert got is error
    assert told.rstrip(".") == words.removesuffix(" by _.").rstrip(".")


def test_a_record_array_with_a_field_named_columns_is_no_dataframe():
    rows = np.zeros(4, dtype=[("columns", float)]).view(np.recarray)
    assert "Expected 2D array" in error_of(fitted("cascade")[0].predict, rows)[1]


def test_a_lazy_frame_is_refused_without_being_collected_or_warned_of():
    error, words = error_of(fitted("cascade")[0].predict, as_polars(X).lazy())
    assert error is TypeError and "LazyFrame" in words


# Labels -----------------------------------------------------------------------------------------

FITS = {
    "cascade": lambda: cascade(LogisticRegression(), GaussianNB()),
    "early exits": early_exits,
    "heads": lambda: heads(LogisticRegression()),
    "net": net,
}
LABELS = {
    **{dtype: Y.astype(dtype) for dtype in ["i1", "u8", "f2", "f8", "g", "?", ">i4", "U"]},
    "list": Y.tolist(),
    "objects of text": NAMES.astype(object),
    "read-only": np.broadcast_to(Y, (2, N))[0],
    "negative strides": Y[::-1].copy()[::-1],
    "large": np.where(Y == 1, 2**63 - 1, 2**63 - 2),
    "beyond int64": np.where(Y == 1, 2**64 - 1, 2**64 - 2).astype("u8"),
    "empty text": np.where(Y == 1, "x", ""),
    "dates": Y.astype("M8[D]"),
    "Series of another order": pd.Series(Y, index=np.arange(N)[::-1]),
    "Int64": pd.Series(Y, dtype="Int64"),
    "boolean": pd.Series(Y > 0, dtype="boolean"),
    "text of Arrow": pd.Series(NAMES, dtype="string[pyarrow]"),
    "category": pd.Categorical(NAMES, categories=["yes", "no"]),
    "polars": pl.Series(Y),
    "polars category": pl.Series(NAMES).cast(pl.Categorical),
}


@functools.cache
def plain_fit(name):
    return FITS[name]().fit(X, Y).predict_proba(X)


@pytest.mark.parametrize("name", FITS)
@examples(8)
@given(form=st.sampled_from(list(LABELS)), rows=st.sampled_from([X, FRAME]))
def test_labels_are_any_two_values(name, form, rows):
    labels = LABELS[form]
    model = FITS[name]().fit(rows, labels)
    peer = LogisticRegression().fit(X, labels)
    np.testing.assert_array_equal(model.classes_, peer.classes_)
    assert model.classes_.dtype == peer.classes_.dtype
    np.testing.assert_allclose(model.predict_proba(rows), plain_fit(name), atol=1e-6)


def with_first(labels, value, dtype):
    labels = np.asarray(labels).astype(dtype)
    labels[0] = value
    return labels


WRONG_LABELS = {
    "nan": with_first(Y, np.nan, float),
    "infinity": with_first(Y, np.inf, float),
    "nan among text": with_first(NAMES, np.nan, object),
    "None among text": with_first(NAMES, None, object),
    "None among numbers": with_first(Y, None, object),
    "pd.NA": pd.Series(with_first(Y, pd.NA, object), dtype="Int64"),
    "NA among text of Arrow": pd.Series(with_first(NAMES, pd.NA, object), dtype="string[pyarrow]"),
    "text among numbers": with_first(Y, "yes", object),
    "objects of numbers": Y.astype(object),
    "all None": np.full(N, None),
    "None": None,
    "a number": 1,
    "no dimension": np.array(1),
    "short": Y[1:],
    "long": np.r_[Y, 0],
    "two columns": np.c_[Y, 1 - Y],
    "three dimensions": Y[:, None, None],
    "none": [],
    "one class": np.ones(N),
    "continuous": X[:, 0] / 7,
    "complex": Y + 0j,
    "tuples": list(zip(Y, Y, strict=True)),
    "bytes": np.where(Y == 1, b"a", b"b").astype(object),
    "sparse": sparse.csr_array(Y[:, None]),
}


@pytest.mark.parametrize("name", FITS)
@examples(len(WRONG_LABELS))
@given(form=st.sampled_from(list(WRONG_LABELS)), rows=st.sampled_from([X, FRAME]))
def test_wrong_labels_are_refused_as_the_peer_refuses_them(name, form, rows):
    labels, model = WRONG_LABELS[form], FITS[name]()
    error, words = error_of(LogisticRegression().fit, rows, labels)
    refusal = error_of(model.fit, rows, labels)
    assert refusal[0] is error
    assert form == "one class" or refusal[1] == words
    assert not hasattr(model, "classes_")


@pytest.mark.parametrize("labels", [["no", None], [None, None], [{}, {}]], ids=repr)
def test_labels_that_do_not_compare_are_told_where_they_are_unknown(labels):
    error, words = error_of(fitted("cascade")[0].report, X[:2], np.array(labels, dtype=object))
    assert error is ValueError and "y holds labels that were not seen in fit: [" in words


# Weights ----------------------------------------------------------------------------------------


def weight_with(value, dtype=float):
    return with_first(np.ones(N), value, dtype)


USES_OF_WEIGHTS = {
    "report": lambda model, weight: model.report(X, sample_weight=weight).columns,
    "monitor": lambda model, weight: model.monitor(X, sample_weight=weight).columns,
    "tune": lambda model, weight: {
        "cuts": model.tune_thresholds(
            X, NAMES, thresholds=ExpectedCost(5, 1), sample_weight=weight, copy=True
        ).thresholds_
    },
}
WEIGHTS = {
    **{dtype: (np.arange(N) % 5).astype(dtype) for dtype in ["i1", "u8", "f2", "f4", "g", ">f8"]},
    "bool": np.arange(N) % 5 > 0,
    "list": (np.arange(N) % 5).tolist(),
    "objects": (np.arange(N) % 5).astype(object),
    "negative strides": (np.arange(N) % 5.0)[::-1].copy()[::-1],
    "read-only": np.broadcast_to(2.0, N),
    "a number": 3,
    "Series of another order": pd.Series(np.arange(N) % 5, index=np.arange(N)[::-1]),
    "Int64": pd.Series(np.arange(N) % 5, dtype="Int64"),
    "polars": pl.Series(np.arange(N) % 5),
}


@pytest.mark.parametrize("name", ["cascade", "early exits", "heads"])
@examples(15)
@given(use=st.sampled_from(list(USES_OF_WEIGHTS)), form=st.sampled_from(list(WEIGHTS)))
def test_weights_count_the_same_in_any_form(name, use, form):
    model, weight = fitted(name)[0], WEIGHTS[form]
    plain = np.broadcast_to(np.asarray(weight), N).astype(float)
    got, expected = (USES_OF_WEIGHTS[use](model, w) for w in (weight, plain))
    assert got.keys() == expected.keys()
    for column, values in got.items():
        np.testing.assert_array_equal(values, expected[column])


OF_ROWS = "sample_weight must be weights of the rows"
WRONG_WEIGHTS = {
    "negative": (weight_with(-1), ValueError, "Negative values in data passed to `sample_weight`"),
    "nan": (weight_with(np.nan), ValueError, "sample_weight contains NaN"),
    "infinity": (weight_with(np.inf), ValueError, "sample_weight contains infinity"),
    "None": (weight_with(None, object), ValueError, "sample_weight contains NaN"),
    "nan for all": (np.nan, ValueError, "sample_weight contains NaN"),
    "infinity for all": (np.inf, ValueError, "sample_weight contains infinity"),
    "zero": (np.zeros(N), ValueError, "zero"),
    "zero for all": (0, ValueError, "zero"),
    "short": (np.ones(N - 1), ValueError, "sample_weight.shape == (119,), expected (120,)"),
    "column": (np.ones((N, 1)), ValueError, "Sample weights must be 1D array or scalar"),
    "text": ("balanced", ValueError, f"{OF_ROWS}: could not convert string to float: 'balanced'"),
    "NA": (weight_with(pd.NA, object), TypeError, f"{OF_ROWS}: "),
    "complex": (np.ones(N) + 1j, ValueError, "Complex data not supported"),
    "sum that overflows": (np.full(N, 1e308), ValueError, "sample_weight must have a sum from"),
    "sum that vanishes": (np.full(N, 5e-324), ValueError, "sample_weight must have a sum from"),
    "sparse": (sparse.csr_array(np.ones((N, 1))), TypeError, "Sparse data was passed"),
}


@pytest.mark.parametrize("name", FITS)
@examples(len(WRONG_WEIGHTS))
@given(form=st.sampled_from(list(WRONG_WEIGHTS)))
def test_no_fit_takes_wrong_weights(name, form):
    weight, error, words = WRONG_WEIGHTS[form]
    refusal = error_of(FITS[name]().fit, X, Y, sample_weight=weight)
    assert refusal[0] is error and words in refusal[1]


@pytest.mark.parametrize("name", ["cascade", "early exits", "heads"])
@examples(15)
@given(use=st.sampled_from(list(USES_OF_WEIGHTS)), form=st.sampled_from(list(WRONG_WEIGHTS)))
def test_nothing_takes_wrong_weights(name, use, form):
    weight, error, words = WRONG_WEIGHTS[form]
    refusal = error_of(USES_OF_WEIGHTS[use], fitted(name)[0], weight)
    assert refusal[0] is error and words in refusal[1]


def test_weights_of_float32_are_summed_in_float64():
    weight = np.full(N, 3e38, dtype=np.float32)  # whose sum is no float32
    model = fitted("cascade")[0]
    report, plain = (model.report(X, NAMES, sample_weight=w) for w in (weight, None))
    np.testing.assert_allclose(report.n_rows, N * float(weight[0]))
    for column in ("pass_rate", "cumulative_recall", "cumulative_recall_low"):
        np.testing.assert_allclose(report.columns[column], plain.columns[column], rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_the_unit_of_weights_changes_no_share(factor):
    model = fitted("cascade")[0]
    report, plain = (model.report(X, NAMES, sample_weight=factor * w) for w in (np.ones(N), 1))
    expected = model.report(X, NAMES)
    for column in ("pass_rate", "cumulative_recall", "cumulative_recall_low"):
        np.testing.assert_allclose(report.columns[column], expected.columns[column])
        np.testing.assert_allclose(plain.columns[column], expected.columns[column])
