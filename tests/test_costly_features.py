"""Fetched features: the same table as a join by hand, each row asked for once."""

import pickle
import threading

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmsc._sklearn import take_rows
from skmsc.costly_features import CostlyFeatures

# Four rows: a customer, an amount, a day.
FRAME = pd.DataFrame(
    {"customer": [3, 1, 3, 2], "amount": [0.5, np.nan, 2.5, 3.5], "day": [7.0] * 4}
)
ARRAY = FRAME.to_numpy()
BALANCE = np.array([0.0, 10.0, 20.0, 30.0])  # by customer
KIND = np.array(["none", "gold", "tin", "gold"], dtype=object)


class Service:
    """A client that cannot be copied, and counts what it is asked."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []
        self.lock = threading.Lock()

    def __call__(self, keys):
        with self.lock:
            self.asked.append(keys)
        return self.answer(keys)


def balance(customers):
    return BALANCE[np.asarray(customers).astype(int)]


class Double:
    """A function whose repr, which names scikit-learn's checks, holds no address."""

    def __call__(self, keys):
        return 2 * np.asarray(keys)

    def __repr__(self):
        return "double"


double = Double()


def bureau(customers):
    """A dataframe, with an index of its own that means nothing."""
    idx = customers.to_numpy()
    return pd.DataFrame(
        {"balance": BALANCE[idx], "kind": KIND[idx]}, index=np.arange(len(idx))[::-1]
    )


def answers(*results):
    """A fetch that gives one prepared result after the other."""
    results = iter(results)
    return lambda keys: next(results)


@parametrize_with_checks(
    [
        CostlyFeatures(double, on=[0], cost=1.0),
        CostlyFeatures(double, on=0, remainder="drop"),
        CostlyFeatures(double),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "on, kept",
    [(0, [1, 2]), ([0], [1, 2]), (-3, [1, 2]), ([2, 0], [1]), (None, [0, 1, 2])],
)
def test_an_array_is_joined_by_position(on, kept):
    table = CostlyFeatures(double, on=on).fit_transform(ARRAY)
    keys = ARRAY if on is None else ARRAY[:, on].reshape(4, -1)
    np.testing.assert_array_equal(table, np.hstack([ARRAY[:, kept], 2 * keys]))
    alone = CostlyFeatures(double, on=on, remainder="drop").fit_transform(ARRAY)
    np.testing.assert_array_equal(alone, 2 * keys)


def test_a_dataframe_is_joined_by_position_whatever_the_index():
    X = FRAME.set_index(pd.Index([5, 5, 0, 1]))
    table = CostlyFeatures(bureau, on="customer").fit_transform(X)
    expected = X[["amount", "day"]].assign(balance=[30.0, 10, 30, 20], kind=KIND[[3, 1, 3, 2]])
    pd.testing.assert_frame_equal(table, expected)


def test_polars_stays_polars():
    service = Service(lambda keys: keys.to_frame("twice") * 2)
    features = CostlyFeatures(service, on="customer")
    X = pl.from_pandas(FRAME)
    assert features.fit_transform(X).equals(
        X.select("amount", "day", twice=2 * pl.col("customer")), null_equal=True
    )
    assert isinstance(service.asked[0], pl.Series)
    alone = CostlyFeatures(double, on=["customer", "day"], remainder="drop").fit_transform(X)
    assert alone.to_dict(as_series=False) == {"fetched0": [6, 2, 6, 4], "fetched1": [14.0] * 4}
    assert features.transform(X[:0]).schema == features.transform(X).schema


@pytest.mark.parametrize(
    "on, kind, shape",
    [
        ("customer", pd.Series, (4,)),
        (0, pd.Series, (4,)),
        (["customer"], pd.DataFrame, (4, 1)),
        (["day", "customer"], pd.DataFrame, (4, 2)),
        (None, pd.DataFrame, (4, 3)),
    ],
)
def test_what_the_fetch_is_given(on, kind, shape):
    service = Service(lambda keys: np.ones(4))
    CostlyFeatures(service, on=on).fit(FRAME)
    assert type(service.asked[0]) is kind and service.asked[0].shape == shape


def test_each_row_is_fetched_once():
    service = Service(balance)
    features = CostlyFeatures(service, on=0)
    features.fit_transform(ARRAY)
    features.transform(ARRAY[:3])
    features.transform(ARRAY[:0])
    assert [len(keys) for keys in service.asked] == [4, 3]
    pipeline = make_pipeline(CostlyFeatures(service, on=0), HistGradientBoostingClassifier())
    pipeline.fit(ARRAY, [0, 1, 0, 1]).predict(ARRAY[:2])
    assert [len(keys) for keys in service.asked] == [4, 3, 4, 2]


@pytest.mark.parametrize("X", [ARRAY, FRAME], ids=["array", "pandas"])
@pytest.mark.parametrize("remainder", ["passthrough", "drop"])
def test_zero_rows_have_the_columns_of_all_rows(X, remainder):
    features = CostlyFeatures(balance, on=0, remainder=remainder)
    table = features.fit_transform(X)
    empty = features.transform(X[:0])
    assert type(empty) is type(table) and empty.shape == (0, table.shape[1])
    assert pd.DataFrame(empty).dtypes.equals(pd.DataFrame(table).dtypes)


def test_a_pipeline_is_its_classifier_on_the_table_joined_by_hand():
    X, y = make_classification(300, random_state=0)
    X[:, 0] = np.arange(300)
    joined = np.column_stack([X[:, 1:], 2 * X[:, 0]])
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    got = cross_val_predict(make_pipeline(CostlyFeatures(double, on=0), classifier), X, y)
    np.testing.assert_array_equal(got, cross_val_predict(classifier, joined, y))


def test_a_fitted_head_is_put_before_steps_that_were_fitted_on_slices_of_its_table():
    X, y = make_classification(300, random_state=0)
    features = CostlyFeatures(double, on=[0, 1])
    table, train = features.fit_transform(X), np.arange(0, 300, 2)
    classifier = LogisticRegression().fit(take_rows(table, train), y[train])
    stage = Pipeline([("costly", features), ("classifier", classifier)])
    np.testing.assert_array_equal(stage.predict_proba(X), classifier.predict_proba(table))


def test_strings_beside_numbers_make_objects():
    fetch = answers(np.array(["a", "b"]), np.array(["long", "longer"]), [("x", 1.5), ("y", 2.0)])
    features = CostlyFeatures(fetch, on=0).fit(ARRAY[:2])
    assert features.transform(ARRAY[2:]).tolist() == [[2.5, 7, "long"], [3.5, 7, "longer"]]
    listed = CostlyFeatures(fetch, on=0, remainder="drop").fit_transform(ARRAY[:2])
    assert listed.tolist() == [["x", 1.5], ["y", 2.0]]


def test_objects_in_a_dataframe_stay_objects():
    fetch = answers(np.array(["a", None, "b", "c"], dtype=object), np.full(4, None))
    features = CostlyFeatures(fetch, on="customer")
    assert features.fit_transform(FRAME).dtypes.equals(features.transform(FRAME).dtypes)


def test_a_fetched_dataframe_stays_when_nothing_else_does():
    fetched = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    features = CostlyFeatures(answers(fetched, fetched), on=0, remainder="drop")
    pd.testing.assert_frame_equal(features.fit_transform(ARRAY[2:]), fetched)
    features.set_params(remainder="passthrough")
    assert features.fit_transform(ARRAY[2:]).tolist() == [[2.5, 7, 1, "x"], [3.5, 7, 2, "y"]]


def test_a_series_keeps_its_dtype():
    kind = pd.Categorical(["a", "b", "a", "b"])
    fetch = answers(pd.Series(kind, name="customer"))
    table = CostlyFeatures(fetch, on="customer").fit_transform(FRAME)
    assert table["fetched0"].dtype == kind.dtype


@pytest.mark.parametrize(
    "X, fetch, names",
    [
        (ARRAY, balance, ["x1", "x2", "fetched0"]),
        (FRAME, bureau, ["amount", "day", "balance", "kind"]),
        (pd.DataFrame(ARRAY), balance, ["x1", "x2", "fetched0"]),
        (FRAME, lambda keys: pd.DataFrame(np.ones((4, 1))), ["amount", "day", "fetched0"]),
    ],
    ids=["array", "named", "no-names", "no-names-fetched"],
)
def test_names(X, fetch, names):
    features = CostlyFeatures(fetch, on=0).set_output(transform="pandas")
    assert list(features.fit_transform(X).columns) == names
    assert features.get_feature_names_out().tolist() == names


@pytest.mark.parametrize(
    "params, error, match",
    [
        ({"fetch": "bureau"}, TypeError, "fetch must be callable; got 'bureau'"),
        ({"cost": -1.0}, ValueError, r"cost must be a finite number >= 0.*; got -1\.0"),
        ({"cost": np.nan}, ValueError, "cost must be .*; got nan"),
        ({"cost": np.inf}, ValueError, "cost must be .*; got inf"),
        ({"cost": True}, ValueError, "cost must be .*; got True"),
        ({"cost": "5"}, ValueError, "cost must be .* or None when it is not known; got '5'"),
        ({"remainder": "keep"}, ValueError, "'passthrough' or 'drop'; got 'keep'"),
        ({"on": "x"}, ValueError, r"got 'x', and X has 3 columns, named \['customer', 'amount',"),
        ({"on": ["customer", "x"]}, ValueError, r"on must be .* got \['customer', 'x'\]"),
        ({"on": 3}, ValueError, "got 3, and X has 3 columns"),
        ({"on": -4}, ValueError, "got -4"),
        ({"on": []}, ValueError, r"a list of them that is not empty, or None; got \[\]"),
        ({"on": [True, False, False]}, ValueError, r"got \[True, False, False\]"),
        ({"on": 0.0}, ValueError, "the name or position of one column of X.*; got 0.0"),
    ],
)
def test_bad_parameters_are_refused(params, error, match):
    features = CostlyFeatures(**({"fetch": balance, "on": 0} | params))
    with pytest.raises(error, match=f"^CostlyFeatures: .*{match}"):
        features.fit(FRAME)


def test_names_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match="got 'customer', and X has 3 columns, without names"):
        CostlyFeatures(balance, on="customer").fit(ARRAY)


def test_rows_are_needed_for_fit():
    with pytest.raises(ValueError, match=r"X must have a row and a column; got shape \(0, 3\)"):
        CostlyFeatures(balance, on=0).fit(FRAME[:0])


@pytest.mark.parametrize(
    "fetched, error, match",
    [
        (None, TypeError, r"fetch must return an array of shape .*; got NoneType, shape \(\)"),
        (1.5, TypeError, r"got float, shape \(\)"),
        ({"balance": [1.0] * 4}, TypeError, "got dict"),
        ((b for b in BALANCE), TypeError, "got generator"),
        (np.ones((4, 1, 1)), TypeError, r"got ndarray, shape \(4, 1, 1\)"),
        ([[1.0], [1.0, 2.0], [], []], ValueError, "got rows of different lengths"),
        (BALANCE[:3], ValueError, "fetch returned 3 rows, asked for 4"),
        (FRAME[["day"]], ValueError, r"unique, and none that a remaining .* has; got \['day'\]"),
        (pl.DataFrame({"a": BALANCE}), ValueError, "a polars dataframe for rows in one of pandas"),
    ],
)
def test_bad_results_are_refused(fetched, error, match):
    features = CostlyFeatures(answers(fetched), on="customer")
    with pytest.raises(error, match=match):
        features.fit_transform(FRAME)


@pytest.mark.parametrize(
    "fetched, match",
    [
        (BALANCE[:2], "fetch returned 2 rows, asked for 4"),
        (np.ones((4, 2)), "fetch returned 2 columns, in fit 1: .'fetched0', 'fetched1'., in fit"),
        (pd.DataFrame({"debt": BALANCE}), "in fit 1: .'debt'., in fit .'fetched0'"),
        (BALANCE.astype(int), "column 'fetched0' with dtype int64, in fit float64; let it return"),
        (["a", "b", "c", "d"], "with dtype object, in fit float64"),
    ],
)
def test_a_result_unlike_that_of_fit_is_refused(fetched, match):
    features = CostlyFeatures(answers(BALANCE, fetched), on="customer").fit(FRAME)
    with pytest.raises(ValueError, match=f"^CostlyFeatures: .*{match}"):
        features.transform(FRAME)


def test_categories_are_part_of_a_dtype():
    first, second = (
        pd.DataFrame({"kind": pd.Categorical(list(kinds))}) for kinds in ("abab", "acac")
    )
    features = CostlyFeatures(answers(first, second), on="customer").fit(FRAME)
    with pytest.raises(ValueError, match="column 'kind' with dtype category"):
        features.transform(FRAME)


def test_an_error_of_the_fetch_is_told_with_its_stage():
    def fail(keys):
        raise OSError("bureau is down")

    features = CostlyFeatures(fail, on=0)
    message = "CostlyFeatures: fetch, asked for 4 rows, raised OSError: bureau is down"
    with pytest.raises(RuntimeError, match=f"^{message}$") as caught:
        features.fit(ARRAY)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(NotFittedError):
        features.transform(ARRAY)
    with pytest.raises(RuntimeError, match=r"^Stage 'final': fetch, asked for 4 rows, raised"):
        clone(features._for_stage("final")).fit(ARRAY)


def test_the_stages_name_stays_through_fit():
    features = CostlyFeatures(answers(BALANCE, BALANCE[:1]), on=0)
    named = features._for_stage("final").fit(ARRAY)
    with pytest.raises(ValueError, match=r"^Stage 'final': fetch returned 1 rows, asked for 4"):
        named.transform(ARRAY)
    assert features._stage is None and not hasattr(features, "schema_")


def test_clones_share_the_fetch_and_nothing_else():
    service = Service(balance)
    features = CostlyFeatures(service, on=[0], cost=2.0).set_output(transform="pandas").fit(ARRAY)
    cloned = clone(features)
    assert cloned.fetch is service and cloned.on == [0] and cloned.on is not features.on
    assert not hasattr(cloned, "schema_") and hasattr(features, "schema_")
    cloned.set_output(transform="default")
    assert isinstance(features.transform(ARRAY), pd.DataFrame)
    search = GridSearchCV(
        make_pipeline(CostlyFeatures(service, on=0), HistGradientBoostingClassifier()),
        {"costlyfeatures__cost": [1.0, 2.0]},
        cv=2,
    )
    search.fit(ARRAY, [0, 0, 1, 1])
    assert search.best_estimator_[0].fetch is service


def test_pickles():
    features = CostlyFeatures(balance, on=0, cost=1.0).fit(ARRAY)
    again = pickle.loads(pickle.dumps(features))
    np.testing.assert_array_equal(again.transform(ARRAY), features.transform(ARRAY))


def test_metadata_routing_changes_nothing():
    stage = make_pipeline(CostlyFeatures(balance, on=0), HistGradientBoostingClassifier())
    with config_context(enable_metadata_routing=True):
        routed = stage.fit(ARRAY, [0, 1, 0, 1]).predict_proba(ARRAY)
    np.testing.assert_array_equal(routed, stage.fit(ARRAY, [0, 1, 0, 1]).predict_proba(ARRAY))


def test_keys_in_another_order_than_asked_are_refused():
    """As by ``table[table.index.isin(keys)]``, right only as long as the keys come sorted."""
    table = pd.DataFrame({"balance": BALANCE}, index=[0, 1, 2, 3])
    frame = pd.DataFrame({"customer": [1, 2, 3], "amount": 1.0})
    costly = CostlyFeatures(lambda keys: table[table.index.isin(keys)], on="customer").fit(frame)
    with pytest.raises(ValueError, match="fetch returned the rows in another order than the keys"):
        costly.transform(frame.iloc[[2, 0, 1]])
    right = CostlyFeatures(lambda keys: table.loc[keys], on="customer").fit(frame)
    np.testing.assert_array_equal(right.transform(frame.iloc[[2, 0, 1]])["balance"], [30, 10, 20])
    kept = CostlyFeatures(lambda keys: table.loc[keys].set_index(keys.index), on="customer")
    np.testing.assert_array_equal(kept.fit_transform(frame.iloc[[2, 0]])["balance"], [30, 10])
