"""Bad and odd input of composable heads: refused by name, nothing changed; or answered right."""

import contextlib
import copy
import itertools
import pickle
import re
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from packaging.version import Version
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC

from skmsc import (
    Agreement,
    ComposableHeadClassifier,
    CostBudget,
    CostlyFeatures,
    FixedHead,
    ImprintHead,
    LDAHead,
    LogisticHead,
    PairwiseHead,
    PassBudget,
    RecallFloor,
    RidgeHead,
)

N, D = 300, 8
NAMES = np.array(["a", "bb", "c", "dd", "the longest"])
COLUMNS = list("pqrstuvw")
bytes_are_refused = pytest.mark.skipif(
    Version(sklearn.__version__) < Version("1.7"), reason="needs scikit-learn 1.7"
)


def make_rows(seed=0, n_samples=N):
    """Features and labels 3, 13, ..., 43."""
    rng = np.random.default_rng(seed)
    codes = np.r_[np.arange(5), rng.integers(5, size=n_samples - 5)]
    centres = np.random.default_rng(9).normal(scale=1.5, size=(5, D))
    return rng.normal(size=(n_samples, D)) + centres[codes], 10 * codes + 3


X, y = make_rows()
OLD = y < 40
NEW = X[y == 43]
FRAME = pd.DataFrame(X, columns=COLUMNS)


def heads_only(head="ridge", trunk="passthrough", **params):
    """A classifier without a first stage in which nothing is held out."""
    defaults = {"validation_fraction": None, "calibration": None, "random_state": 0}
    return ComposableHeadClassifier(trunk=trunk, head=head, **(defaults | params))


def screened(first_stage=None, **params):
    """A classifier with a first stage."""
    first_stage = GaussianNB() if first_stage is None else first_stage
    defaults = {"trunk": "passthrough", "thresholds": 0.9, "random_state": 0}
    return ComposableHeadClassifier(first_stage, **(defaults | params))


def fitted(rows=OLD, labels=y, **params):
    return heads_only(**params).fit(X[rows], labels[rows])


def quietly(call, *args):
    """What a call gives, its warnings aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args)


def unchanged(model, call, error, words):
    """Check that a call raises with all words, and that the classifier is the same bit for bit."""
    before, proba = joblib.hash(model), model.predict_proba(X)
    with pytest.raises(error) as caught:
        call(model)
    for word in words:
        assert re.search(word, str(caught.value)), f"{word!r} is not in {caught.value}"
    assert joblib.hash(model) == before
    np.testing.assert_array_equal(model.predict_proba(X), proba)


class Untouchable(ClassifierMixin, BaseEstimator):
    """Fails the test when it is fitted."""

    def fit(self, X, y, sample_weight=None):
        raise AssertionError("the first stage was fitted before the input was refused")

    def predict_proba(self, X):
        raise AssertionError("the first stage was asked before the input was refused")

    def count_multiply_adds(self):
        return 1


class UntouchableTrunk(TransformerMixin, BaseEstimator):
    """Fails the test when it is fitted."""

    def fit(self, X, y=None):
        raise AssertionError("the trunk was fitted before the input was refused")

    def transform(self, X):
        raise AssertionError("the trunk was asked before the input was refused")


def refuse(error, words, *, X=X, y=y, sample_weight=None, fit_params=None, **params):
    """Check that fit raises before any fit, with all words, and that nothing is left behind."""
    defaults = {"first_stage": Untouchable(), "trunk": UntouchableTrunk(), "random_state": 0}
    model = ComposableHeadClassifier(**(defaults | params))
    known = set(vars(model))
    with pytest.raises(error) as caught:
        model.fit(X, y, sample_weight=sample_weight, **(fit_params or {}))
    for word in words:
        assert word in str(caught.value)
    assert set(vars(model)) == known


# fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params, error, words",
    [
        ({"first_stage": 5}, TypeError, ["'first_stage'", "classifier", "5"]),
        ({"first_stage": GaussianNB}, TypeError, ["'first_stage'", "classifier object or None"]),
        ({"first_stage": LinearRegression()}, TypeError, ["'first_stage' must be a classifier"]),
        (
            {"first_stage": FrozenEstimator(GaussianNB().fit(X, y))},
            TypeError,
            ["first_stage", "cannot be frozen", "GaussianNB"],
        ),
        ({"trunk": 5}, TypeError, ["trunk must be", "got 5"]),
        ({"trunk": "identity"}, ValueError, ["trunk must be", "got 'identity'"]),
        ({"trunk": StandardScaler}, TypeError, ["trunk must be", "StandardScaler"]),
        ({"trunk": FrozenEstimator(StandardScaler())}, NotFittedError, ["trunk", "fitted"]),
        ({"head": 5}, ValueError, ["head must be one of 'ridge'", "got 5"]),
        ({"head": "x"}, ValueError, ["head must be one of 'ridge'", "got 'x'"]),
        ({"head": RidgeHead}, ValueError, ["head must be", "object of", "RidgeHead"]),
        (
            {"head": RidgeHead(alpha=0)},
            ValueError,
            ["alpha of RidgeHead", "(0, inf) or None", "got 0"],
        ),
        ({"head": RidgeHead(alpha="a")}, ValueError, ["alpha of RidgeHead", "got 'a'"]),
        ({"head": RidgeHead(alpha=np.inf)}, ValueError, ["alpha of RidgeHead", "got inf"]),
        ({"head": RidgeHead(n_random_features=-1)}, ValueError, ["n_random_features", "-1"]),
        ({"head": RidgeHead(n_random_features=2.0)}, ValueError, ["n_random_features", "2.0"]),
        (
            {"head": LDAHead(shrinkage=2)},
            ValueError,
            ["shrinkage of LDAHead", "(0, 1] or None", "got 2"],
        ),
        ({"head": ImprintHead(scale=-1)}, ValueError, ["scale of ImprintHead", "got -1"]),
        ({"head": LogisticHead(C=np.nan)}, ValueError, ["C of LogisticHead", "got nan"]),
        ({"head": LogisticHead(max_iter=0)}, ValueError, ["max_iter of LogisticHead", "got 0"]),
        ({"head": PairwiseHead(loss="x")}, ValueError, ["loss of PairwiseHead", "got 'x'"]),
        ({"head": FixedHead("x")}, ValueError, ["kind of FixedHead", "got 'x'"]),
        ({"head": FixedHead(n_rows=2)}, ValueError, ["2 rows", "5 classes", "n_rows"]),
        ({"class_prior": "x"}, ValueError, ["class_prior must be 'train'", "got 'x'"]),
        ({"proba": "x"}, ValueError, ["proba must be 'conditional'", "got 'x'"]),
        ({"proba": ["open"]}, ValueError, ["proba must be 'conditional'", "['open']"]),
        ({"proba": "open"}, ValueError, ["unknown_label and proba='open' go together"]),
        ({"unknown_label": 3}, ValueError, ["unknown_label and proba='open' go together"]),
        (
            {"proba": "open", "unknown_label": 3},
            ValueError,
            ["unknown_label must be of the type of the labels [3, 13", "none of them; got 3"],
        ),
        (
            {"proba": "open", "unknown_label": "none"},
            TypeError,
            ["unknown_label must be of the kind of the known labels", "'none'"],
        ),
        ({"reject": 0.1}, ValueError, ["reject needs proba='open'", "'conditional'"]),
        (
            {"proba": "open", "unknown_label": 0, "reject": 1.0},
            ValueError,
            ["reject must be a number in (0, 1) or None; got 1.0"],
        ),
        ({"allow_new_classes": 1}, TypeError, ["allow_new_classes must be True or False; got 1"]),
        ({"thresholds": "x"}, TypeError, ["thresholds must be", "got 'x'"]),
        ({"thresholds": np.nan}, ValueError, ["thresholds must not hold nan"]),
        ({"thresholds": PassBudget}, TypeError, ["thresholds must be", "PassBudget"]),
        ({"thresholds": np.full((2, 4), -np.inf)}, ValueError, ["(2, 5)", "(2, 4)"]),
        ({"thresholds": np.zeros((2, 5))}, ValueError, ["last row of thresholds must be -inf"]),
        ({"thresholds": PassBudget(2)}, ValueError, ["max_pass_rate", "2"]),
        ({"thresholds": RecallFloor(0.9)}, ValueError, ["needs two classes; y has 5"]),
        (
            {"thresholds": Agreement(0.01, confidence=0.95)},
            ValueError,
            ["needs 299 rows", "validation_fraction=0.1", "got 30"],
        ),
        (
            {"thresholds": Agreement(0.2, per_class=True, confidence=0.9)},
            ValueError,
            ["needs 55 rows", "got 30"],  # 11 of each of 5 classes
        ),
        (
            {"thresholds": CostBudget(0.5), "stage_costs": [1, 2]},
            ValueError,
            ["max_cost=0.5 cannot be met", "costs 1.0"],
        ),
        ({"thresholds": CostBudget(None)}, TypeError, ["max_cost must be a number", "None"]),
        ({"on_violation": "x"}, ValueError, ["on_violation must be 'inf'", "got 'x'"]),
        ({"stage_costs": [1]}, ValueError, ["stage_costs must be", "'heads'", "[1]"]),
        ({"stage_costs": {"heads": 1}}, ValueError, ["stage_costs must hold", "'first_stage'"]),
        ({"stage_costs": [-1, 2]}, ValueError, ["stage_costs must be", "[-1, 2]"]),
        ({"stage_costs": "ab"}, TypeError, ["stage_costs must be", "'ab'"]),
        ({"validation_fraction": 1}, ValueError, ["validation_fraction", "(0, 1)", "got 1"]),
        ({"validation_fraction": True}, ValueError, ["validation_fraction", "got True"]),
        ({"validation_fraction": 0.999}, ValueError, ["validation_fraction=0.999 cannot be"]),
        ({"validation_fraction": None}, ValueError, ["validation_fraction=None leaves no rows"]),
        ({"calibration": "sigmoid"}, ValueError, ["calibration must be 'temperature' or None"]),
        ({"replay_size": -1}, ValueError, ["replay_size must be an integer >= 0; got -1"]),
        ({"replay_size": 2.0}, ValueError, ["replay_size must be an integer >= 0; got 2.0"]),
        ({"replay_size": True}, ValueError, ["replay_size must be an integer >= 0; got True"]),
        ({"random_state": "a"}, ValueError, ["'a' cannot be used to seed"]),
        (
            {"proba": "open", "unknown_label": [1, 2]},
            (TypeError, ValueError),
            ["unknown_label must", "[1, 2]"],
        ),
        ({"proba": "open", "unknown_label": np.nan}, ValueError, ["unknown_label must", "nan"]),
        ({"proba": "open", "unknown_label": -1.5}, ValueError, ["unknown_label must", "-1.5"]),
    ],
    ids=itertools.count(),
)
def test_parameters(params, error, words):
    refuse(error, words, **params)


def test_a_frozen_trunk_of_other_columns_is_refused_before_any_fit():
    trunk = FrozenEstimator(StandardScaler().fit(X[:, :3]))
    refuse(ValueError, ["trunk", "3 features", "8"], trunk=trunk)


def test_a_trunk_whose_cost_cannot_be_counted_is_refused_before_any_fit():
    refuse(ValueError, ["CostBudget", "trunk", "stage_costs"], thresholds=CostBudget(0.5))


@pytest.mark.parametrize(
    "given, error, words",
    [
        ({"X": X[:, 0]}, ValueError, ["2D array"]),
        ({"X": X[:-1]}, ValueError, ["inconsistent numbers of samples"]),
        ({"X": np.where(X > 3, np.nan, X)}, ValueError, ["Input X contains NaN"]),
        ({"X": np.where(X > 3, np.inf, X)}, ValueError, ["Input X contains infinity"]),
        ({"X": sparse.csr_array(X)}, TypeError, ["Sparse data was passed for X"]),
        ({"X": X[:0], "y": y[:0]}, ValueError, ["0 sample"]),
        ({"y": None}, ValueError, ["requires y to be passed"]),
        ({"y": y + 0.5}, ValueError, ["Unknown label type: continuous"]),
        ({"y": np.where(OLD, y, np.nan)}, ValueError, ["Input y contains NaN"]),
        ({"y": np.array([1, "a"] * 150, dtype=object)}, ValueError, ["Unknown label type"]),
        pytest.param(
            {"y": np.char.encode(y.astype(str))},
            TypeError,
            ["bytes is not supported"],
            marks=bytes_are_refused,
        ),
        ({"y": np.full(N, 3)}, ValueError, ["two classes; got 1 class: [3]"]),
        ({"y": np.column_stack([y, y])}, ValueError, ["1d array"]),
        ({"sample_weight": -np.ones(N)}, ValueError, ["Negative values", "sample_weight"]),
        ({"sample_weight": np.full(N, np.nan)}, ValueError, ["sample_weight contains NaN"]),
        ({"sample_weight": np.ones(3)}, ValueError, ["sample_weight.shape == (3,)"]),
        ({"sample_weight": np.zeros(N)}, ValueError, ["ample"]),
        ({"sample_weight": (y == 3) * 1.0}, ValueError, ["two classes; got 1 class: [3]"]),
        ({"fit_params": {"groups": y}}, ValueError, ["leaves no training row of the classes"]),
        ({"fit_params": {"groups": np.zeros(N)}}, ValueError, ["validation_fraction=0.1 cannot"]),
        ({"fit_params": {"groups": y[:5]}}, ValueError, ["inconsistent numbers of samples"]),
        ({"fit_params": {"amount": y}}, ValueError, ["'amount'"]),
    ],
    ids=itertools.count(),
)
def test_rows_to_fit_on(given, error, words):
    refuse(error, words, **given)


def test_rows_in_groups_are_not_independent():
    policy = Agreement(0.1, confidence=0.9)
    groups = {"groups": np.arange(N) // 2}
    refuse(ValueError, ["for independent rows only"], thresholds=policy, fit_params=groups)


def test_a_budget_below_what_the_first_stage_fetches():
    first = make_pipeline(CostlyFeatures(np.square, on=[0], cost=3.0), Untouchable())
    params = {"first_stage": first, "stage_costs": [1, 2], "thresholds": CostBudget(3.5)}
    refuse(
        ValueError, ["max_cost=3.5", "the first stage runs on every row and costs 4.0"], **params
    )


@pytest.mark.parametrize("part", ["first_stage", "trunk"])
def test_weights_of_a_part_alone(part):
    parts = {"first_stage": GaussianNB(), "trunk": StandardScaler()}
    with config_context(enable_metadata_routing=True):
        parts[part].set_fit_request(sample_weight="amount")
        words = [f"Stage '{part}' must get its weights from this classifier"]
        refuse(ValueError, words, **parts, fit_params={"amount": np.ones(N)})


# Labels -----------------------------------------------------------------------------------------


def object_array(values):
    return np.array(values.tolist(), dtype=object)


@pytest.mark.parametrize("as_y", [np.asarray, list, object_array, pd.Series, pd.Categorical])
def test_strings_are_never_cut(as_y):
    names = NAMES[y // 10]
    model = heads_only().fit(X[OLD], as_y(names[OLD]))
    model.add_class(NEW, "the longest")
    assert model.classes_.tolist() == NAMES.tolist()
    assert set(model.predict(X)) == set(NAMES)
    model.remove_class("the longest").add_classes(NEW, as_y(names[~OLD]))
    assert model.classes_.tolist() == NAMES.tolist()
    model.relabel(X[y == 3][:5], "a", "longer than the longest")
    assert model.classes_.tolist() == sorted([*NAMES, "longer than the longest"])
    assert model.compose(["the longest", "a"]).classes_.tolist() == ["a", "the longest"]
    heads = model.export_heads()
    again = heads_only().fit(X[y < 20], as_y(names[y < 20])).import_heads(heads)
    assert again.classes_.tolist() == model.classes_.tolist()


def test_a_long_unknown_label_and_a_long_expected_label():
    names = NAMES[y // 10]
    model = heads_only(proba="open", unknown_label="none of these at all")
    model.fit(X[OLD], names[OLD]).add_class(NEW, "the longest")
    assert model.classes_.tolist() == [*NAMES[:4], "none of these at all", "the longest"]
    model = heads_only().partial_fit(X[y < 20], names[y < 20], classes=NAMES)
    model.partial_fit(X[y > 20], names[y > 20])
    assert (model.predict(X) == names).mean() > 0.9


@pytest.mark.parametrize(
    "labels, new",
    [
        (-y, -100),
        (y.astype(np.int8), 300),
        (y.astype(np.uint8), -1),
        (y.astype(float), 50.0),
        (y.astype(float), np.float32(50.0)),
        (y.astype(str), ""),
        (y > 20, True),
    ],
    ids=itertools.count(),
)
def test_labels_of_every_kind(labels, new):
    model = heads_only().fit(X[OLD], labels[OLD])
    codes = {label: k for k, label in enumerate(np.unique(labels[OLD]))}
    expected = heads_only().fit(X[OLD], [codes[label] for label in labels[OLD]])
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))
    if new in codes:
        return
    model.add_class(NEW, new)
    assert new in model.classes_ and len(model.classes_) == 5
    assert (model.predict(NEW) == new).mean() > 0.7
    np.testing.assert_array_equal(
        model.remove_class(new).predict_proba(X), expected.predict_proba(X)
    )


@pytest.mark.parametrize("new", [43.0, np.float64(43)])
def test_integers_stay_integers(new):
    model = fitted()
    with contextlib.suppress(TypeError, ValueError):
        model.add_class(NEW, new)
    assert model.classes_.dtype.kind == "i"
    assert model.predict(X).dtype.kind == "i"


def test_64_bit_labels_are_told_apart():
    labels = np.array([7, 2**62 + 1, 2**62 + 2, 2**62 + 3, 2**62 + 4], dtype=np.uint64)
    model = heads_only().fit(X, labels[y // 10])
    model.remove_class(2**62 + 3)
    np.testing.assert_array_equal(model.classes_, labels[[0, 1, 2, 4]])
    np.testing.assert_array_equal(model.compose(labels[[1, 4]]).classes_, labels[[1, 4]])
    assert 2**62 + 9 in model.add_class(NEW, 2**62 + 9).classes_.tolist()


# Changes that are refused -----------------------------------------------------------------------

REFUSED = [
    (lambda m: m.add_class(NEW, 3), ValueError, [r"\[3\] are there already", r"known are \[3, 13"]),
    (lambda m: m.add_class(NEW, [43]), TypeError, [r"single value; got \[43\]"]),
    (lambda m: m.add_class(NEW, "43"), TypeError, ["kind of the known labels", "'43'"]),
    (lambda m: m.add_class(NEW, None), TypeError, ["kind of the known labels", "None"]),
    (lambda m: m.add_class(NEW, {43}), TypeError, ["kind of the known labels", "43"]),
    (lambda m: m.add_class(NEW, 43j), TypeError, ["kind of the known labels", "43j"]),
    (lambda m: m.add_class(NEW, 10**30), TypeError, ["kind of the known labels", "10000"]),
    (lambda m: m.add_class(NEW, np.nan), ValueError, [r"must be finite.*got \[nan\]"]),
    (lambda m: m.add_class(NEW, np.inf), ValueError, [r"must be finite.*got \[inf\]"]),
    (lambda m: m.add_class(NEW, 43.5), ValueError, [r"must be integers.*got \[43.5\]"]),
    (lambda m: m.add_class(NEW[0], 43), ValueError, ["2D array"]),
    (lambda m: m.add_class(NEW[:0], 43), ValueError, [r"0 sample\(s\)"]),
    (lambda m: m.add_class(NEW[:, 1:], 43), ValueError, ["7 features.*expecting 8"]),
    (lambda m: m.add_class(NEW * np.nan, 43), ValueError, ["Input X contains NaN"]),
    (lambda m: m.add_class("rows", 43), ValueError, ["2D array"]),
    (lambda m: m.add_class(None, 43), ValueError, ["2D array"]),
    (lambda m: m.add_class([["p"] * D], 43), ValueError, ["numeric"]),
    (lambda m: m.add_class(NEW, 43, -np.ones(len(NEW))), ValueError, ["sample_weight"]),
    (lambda m: m.add_class(NEW, 43, np.zeros(len(NEW))), ValueError, ["ample.weight"]),
    (lambda m: m.add_class(NEW, 43, [1, 2]), ValueError, [r"sample_weight.shape == \(2,\)"]),
    (lambda m: m.add_class(NEW, 43, np.full(len(NEW), np.nan)), ValueError, ["sample_weight"]),
    (lambda m: m.add_classes(X, y), ValueError, ["are there already", "partial_fit"]),
    (lambda m: m.add_classes(NEW, 43), TypeError, ["1 dimension"]),
    (lambda m: m.add_classes(NEW, [43, 53]), ValueError, [r"y must have shape \(\d+,\)"]),
    (lambda m: m.add_classes(NEW, ["z"] * len(NEW)), TypeError, ["y must be of the kind", "'z'"]),
    (lambda m: m.remove_class(4), ValueError, [r"no class 4; known are \[3, 13, 23, 33\]"]),
    (lambda m: m.remove_class("3"), TypeError, ["kind of the known labels", "'3'"]),
    (lambda m: m.remove_class(None), TypeError, ["kind of the known labels", "None"]),
    (lambda m: m.remove_class([3]), TypeError, [r"single value; got \[3\]"]),
    (lambda m: m.remove_class(np.nan), ValueError, [r"must be finite.*got \[nan\]"]),
    (lambda m: m.compose([]), ValueError, [r"two or more of \[3, 13", r"got \[\]"]),
    (lambda m: m.compose(3), ValueError, ["two or more", "got 3"]),
    (lambda m: m.compose(None), TypeError, ["kind of the known labels", "None"]),
    (lambda m: m.compose([3, 3, 13]), ValueError, [r"distinct; got \[3, 3, 13\]"]),
    (lambda m: m.compose([3, 4]), ValueError, ["no class 4"]),
    (lambda m: m.compose([3, "a"]), TypeError, ["kind of the known labels"]),
    (lambda m: m.compose([True, False, True]), TypeError, ["kind of the known labels"]),
    (lambda m: m.merge(None), TypeError, ["other must be a ComposableHeadClassifier; got None"]),
    (lambda m: m.merge(GaussianNB()), TypeError, ["other must be a Compos", "GaussianNB"]),
    (lambda m: m.merge(heads_only()), NotFittedError, ["not fitted"]),
    (lambda m: m.merge(fitted(labels=y.astype(str))), TypeError, ["labels of other", "'13'"]),
    (
        lambda m: m.merge(fitted(trunk=StandardScaler())),
        ValueError,
        ["trunks give other features", "FrozenEstimator"],
    ),
    (
        lambda m: m.merge(heads_only().fit(X[:, :3], y)),
        ValueError,
        ["trunks give other features", "FrozenEstimator"],
    ),
    (lambda m: m.merge(fitted(head="imprint")), ValueError, ["heads differ.*ImprintHead"]),
    (lambda m: m.partial_fit(X, y), ValueError, [r"new labels: \[43\]", "allow_new_classes"]),
    (lambda m: m.partial_fit(X, y, classes=[1, 2]), ValueError, [r"classes=\[1, 2\]", "not the"]),
    (lambda m: m.partial_fit(X, y[:5]), ValueError, [r"y must have shape \(300,\)"]),
    (lambda m: m.report(X, y), ValueError, [r"not seen in fit: \[43\]"]),
    (lambda m: m.report(X[OLD], y[OLD], sample_weight=[1]), ValueError, ["sample_weight"]),
    (lambda m: m.measure_costs(X, n_repeats=0), ValueError, ["n_repeats must be", "got 0"]),
    (lambda m: m.measure_costs(X, n_repeats=1.5), ValueError, ["n_repeats must be", "got 1.5"]),
    (lambda m: m.tune_thresholds(X, thresholds="x"), TypeError, ["thresholds must be", "'x'"]),
    (lambda m: m.tune_thresholds(X, thresholds=np.nan), ValueError, ["thresholds must not"]),
    (lambda m: m.tune_thresholds(X, thresholds=None), ValueError, ["requires y"]),
    (lambda m: m.tune_thresholds(X, y, thresholds=0.5), ValueError, [r"not seen in fit: \[43\]"]),
    (lambda m: m.predict(X[:, 1:]), ValueError, ["7 features.*expecting 8"]),
    (lambda m: m.route(X * np.nan), ValueError, ["Input X contains NaN"]),
    (lambda m: list(m.staged_predict_proba(X[0])), ValueError, ["2D array"]),
    (lambda m: m.add_classes(NEW, None), (TypeError, ValueError), [r"\by\b"]),
    (lambda m: m.compose([3, [13, 23]]), (TypeError, ValueError), ["classes"]),
    (lambda m: m.import_heads(None), (TypeError, ValueError), ["heads must"]),
    (lambda m: m.import_heads(["classes"]), (TypeError, ValueError), ["heads must"]),
]


@pytest.mark.parametrize("call, error, words", REFUSED, ids=itertools.count())
@pytest.mark.parametrize("first_stage", [None, GaussianNB()], ids=["heads", "screened"])
def test_refused_calls_change_nothing(first_stage, call, error, words):
    model = fitted() if first_stage is None else screened().fit(X[OLD], y[OLD])
    unchanged(model, call, error, words)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda m: m.relabel(X[y == 3], 3, 3), ValueError, ["two labels; both are 3"]),
        (lambda m: m.relabel(X[y == 3][:3], 4, 3), ValueError, ["no class 4"]),
        (lambda m: m.relabel(X[y == 3][:3], 3, "x"), TypeError, ["kind of the known", "'x'"]),
        (lambda m: m.relabel(X[y == 3][:3], [3], 13), TypeError, ["single value"]),
        (lambda m: m.relabel(X[y == 3], 3, 13), ValueError, ["class 3", "must stay", "remove_"]),
        (lambda m: m.relabel(X[y == 3][:3], 3, 13, [1, 1]), ValueError, ["sample_weight.shape"]),
        (lambda m: m.relabel(X[y == 3][:3], 3, 13, [1, 1, -1]), ValueError, ["sample_weight"]),
        (lambda m: m.relabel(X[y == 3][:3, 1:], 3, 13), ValueError, ["7 features"]),
        (lambda m: m.relabel(X[y == 3][:3], 3, np.nan), ValueError, ["nan|NaN"]),
        (lambda m: m.relabel(X[y == 3][:3], 3, np.inf), ValueError, ["inf"]),
        (lambda m: m.relabel(X[y == 3][:3], 3, 3.5), ValueError, ["3.5|label type"]),
        # at all, a Gram matrix with negative eigenvalues, and half of all answers are wrong.
        (lambda m: m.relabel(100 * X[y == 3][:20], 3, 13), ValueError, ["class 3"]),
    ],
    ids=itertools.count(),
)
@pytest.mark.parametrize("head", ["ridge", "lda"])
def test_relabelling_that_is_refused(head, call, error, words):
    unchanged(fitted(head=head), call, error, words)


def test_the_last_two_classes_stay():
    unchanged(
        fitted(y < 20), lambda m: m.remove_class(3), ValueError, ["Two classes must stay", "3"]
    )


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda m: m.add_class(NEW, 43), ValueError, ["LogisticHead", "set replay_size before"]),
        (lambda m: m.relabel(NEW, 3, 13), ValueError, ["LogisticHead", "fit again"]),
        (lambda m: m.refresh(), ValueError, ["set replay_size", "replay_size=0"]),
        (lambda m: m.merge(m), ValueError, [r"both have \[3, 13, 23, 33\]"]),
        (lambda m: m.import_heads(m.export_heads()), ValueError, ["both have"]),
        (lambda m: m.partial_fit(X[OLD], y[OLD]), AttributeError, ["partial_fit"]),
    ],
    ids=itertools.count(),
)
def test_heads_that_need_rows_and_have_none(call, error, words):
    unchanged(fitted(head="logistic"), call, error, words)


def test_the_first_call_of_partial_fit():
    for params, given, words in (
        ({}, {}, "classes must be passed on the first call"),
        ({}, {"classes": [3, 13]}, r"not in classes: \[23, 33, 43\]"),
        ({}, {"classes": NAMES}, r"not in classes: \[3, 13, 23, 33, 43\]"),
        (
            {"proba": "open", "unknown_label": 99},
            {"classes": [*np.unique(y), 99]},
            "unknown_label must be .* none of them; got 99",
        ),
        (
            {"head": "logistic", "replay_size": 3},
            {"classes": [*np.unique(y), 99]},
            r"rows of all classes; \[99\] have none",
        ),
    ):
        model = heads_only(**params)
        known = set(vars(model))
        with pytest.raises(ValueError, match=words):
            model.partial_fit(X, y, **given)
        assert set(vars(model)) == known


def test_columns_that_moved_or_changed_their_names():
    model = heads_only(trunk=StandardScaler()).fit(FRAME[OLD], y[OLD])
    before = joblib.hash(model)
    new = FRAME[~OLD]
    for bad in (new[COLUMNS[::-1]], new.add_prefix("x"), new.iloc[:, 1:], new.assign(more=1)):
        for call in (
            lambda rows: model.add_class(rows, 43),
            lambda rows: model.partial_fit(rows, np.full(len(rows), 3)),
            lambda rows: model.relabel(rows, 3, 13),
            model.predict,
        ):
            with pytest.raises(ValueError, match="feature names should match"):
                call(bad)
    with pytest.raises(ValueError, match="finite features"):
        model.add_class(new * np.nan, 43)
    assert joblib.hash(model) == before


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.predict(X),
        lambda m: m.predict_proba(X),
        lambda m: m.route(X),
        lambda m: m.report(X),
        lambda m: m.stage_proba(X),
        lambda m: list(m.staged_predict_proba(X)),
        lambda m: m.tune_thresholds(X, thresholds=0.5),
        lambda m: m.measure_costs(X),
        lambda m: m.add_class(X, 3),
        lambda m: m.add_classes(X, y),
        lambda m: m.remove_class(3),
        lambda m: m.relabel(X, 3, 13),
        lambda m: m.compose([3, 13]),
        lambda m: m.merge(m),
        lambda m: m.refresh(),
        lambda m: m.export_heads(),
        lambda m: m.import_heads({}),
    ],
    ids=itertools.count(),
)
def test_nothing_is_there_before_fit(call):
    with pytest.raises(NotFittedError):
        call(heads_only())


def test_a_bad_parameter_set_after_fit_changes_nothing():
    model = fitted().set_params(stage_costs=[1, 2, 3])
    unchanged(model, lambda m: m.add_class(NEW, 43), ValueError, ["stage_costs must be"])


def test_a_warning_that_is_an_error_changes_nothing():
    model = fitted(y < 20, head="logistic")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unchanged(
            model, lambda m: m.add_classes(X[y > 20], y[y > 20]), UserWarning, ["never trained"]
        )


@pytest.mark.parametrize(
    "call",
    [
        lambda: screened(thresholds=0.5).fit(X[OLD], y[OLD]).add_class(NEW, 43),
        lambda: screened(thresholds=0.5).fit(X[OLD], y[OLD]).add_classes(NEW, y[~OLD]),
        lambda: fitted(y < 20, head="logistic").add_classes(X[y > 20], y[y > 20]),
        lambda: ComposableHeadClassifier(trunk="passthrough").fit(X[:5], y[:5]),
    ],
    ids=["add_class", "add_classes", "strangers", "fit"],
)
def test_warnings_point_at_the_caller(call):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    assert [warning.filename for warning in seen] == [__file__]


# Unknown labels ---------------------------------------------------------------------------------


def is_open(**params):
    return heads_only(proba="open", unknown_label=99, **params)


def open_and_other():
    other = np.where(y == 43, 99, y)
    return is_open().fit(X[OLD], y[OLD]), heads_only().fit(X[y > 20], other[y > 20])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda m, _: m.add_class(NEW, 99), ["unknown_label=99, which is no class"]),
        (lambda m, _: m.add_class(NEW, 99.0), ["unknown_label=99, which is no class"]),
        (lambda m, _: m.add_classes(NEW, np.full(len(NEW), 99)), ["unknown_label=99"]),
        (lambda m, _: m.partial_fit(NEW, np.full(len(NEW), 99)), ["unknown_label=99"]),
        (lambda m, _: m.remove_class(99), ["unknown_label=99"]),
        (lambda m, _: m.compose([3, 99]), ["unknown_label=99"]),
        (lambda m, _: m.relabel(X[y == 3][:5], 99, 3), ["unknown_label=99"]),
        (lambda m, _: m.relabel(X[y == 3][:5], 3, 99), ["unknown_label"]),
        (lambda m, other: m.merge(other), ["unknown_label"]),
        (lambda m, other: m.import_heads(other.export_heads()), ["unknown_label"]),
    ],
    ids=itertools.count(),
)
def test_the_unknown_label_is_no_class(call, words):
    model, other = open_and_other()
    unchanged(model, lambda m: call(m, other), ValueError, words)


def test_the_unknown_label_stays_where_classes_come_and_go():
    model, _ = open_and_other()
    model.add_class(NEW, 43)
    assert model.classes_.tolist() == [3, 13, 23, 33, 43, 99]
    composed = model.remove_class(3).compose([13, 43])
    assert composed.classes_.tolist() == [13, 43, 99]
    odds = composed._set.heads.log_odds(X @ composed.coef_.T + composed.intercept_)
    expected = np.exp(np.column_stack([odds, np.zeros(N)]))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(composed.predict_proba(X), expected)
    report = model.report(X, np.where(y == 3, 99, y))
    assert "heads" in str(report)


@pytest.mark.parametrize("n_rows", [10, 11, 30])
@pytest.mark.parametrize("reject", [0.01, 0.5, 0.99])
def test_reject_on_few_rows(n_rows, reject):
    some, labels = np.r_[X[y == 3][:n_rows], X[y == 13][:n_rows]], np.repeat([3, 13], n_rows)
    model = ComposableHeadClassifier(
        trunk="passthrough",
        head=RidgeHead(0.1),
        proba="open",
        unknown_label=99,
        reject=reject,
        validation_fraction=0.3,
        calibration=None,
        random_state=0,
    ).fit(some, labels)
    assert np.isfinite(model.predict_proba(X)).all()
    assert np.isfinite(model._log_unknown)


# Heads that are imported ------------------------------------------------------------------------

HEADS = heads_only().fit(X[y > 30], y[y > 30] + 20).export_heads()


def imported(**arrays):
    return lambda m: m.import_heads({**HEADS, **arrays})


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda m: m.import_heads({}), ValueError, ["must hold the arrays", "'gram'"]),
        (imported(gram=HEADS["gram"][:, 1:]), ValueError, ["'gram'", r"\(2, 8, 8\)"]),
        (imported(count=1.0), ValueError, ["'count'", r"\(2,\)"]),
        (imported(classes=[1, 1]), ValueError, ["'classes'", r"distinct; got \[1, 1\]"]),
        (imported(classes=["a", "b"]), TypeError, ["'classes'", "kind of the known", "'a'"]),
        (imported(coef=np.full((2, D), "q")), (TypeError, ValueError), ["'coef'"]),
        (imported(classes=HEADS["classes"][:, None]), (TypeError, ValueError), ["'classes'"]),
        (imported(classes=[{}, [1]]), (TypeError, ValueError), ["'classes'"]),
        (imported(classes=[np.nan, 5.0]), (TypeError, ValueError), ["'classes'"]),
        (imported(gram=HEADS["gram"] * np.nan), ValueError, ["'gram'"]),
        (imported(coef=HEADS["coef"] * np.nan), ValueError, ["'coef'"]),
        (imported(coef=np.full((2, D), None)), (TypeError, ValueError), ["'coef'"]),
        (imported(intercept=np.full(2, np.nan)), ValueError, ["'intercept'"]),
        (imported(total=np.full((2, D), np.inf)), ValueError, ["'total'"]),
        (imported(count=np.full(2, np.nan)), ValueError, ["'count'"]),
        (imported(count=-HEADS["count"]), ValueError, ["'count'"]),
        (imported(gram=-HEADS["gram"]), ValueError, ["'gram'"]),
        (imported(coef=HEADS["coef"] * 1j), (TypeError, ValueError), ["'coef'"]),
        (imported(classes=[0.5, np.inf]), (TypeError, ValueError), ["'classes'"]),
    ],
    ids=itertools.count(),
)
def test_heads_that_are_refused(call, error, words):
    unchanged(fitted(), lambda m: quietly(call, m), error, words)


def test_trained_heads_that_are_no_numbers_are_refused():
    heads = heads_only("logistic").fit(X[y > 20], y[y > 20] + 100).export_heads()
    heads["coef"][0] = np.nan
    unchanged(
        fitted(y < 20, head="logistic"),
        lambda m: quietly(m.import_heads, heads),
        ValueError,
        ["'coef'"],
    )


def test_heads_may_come_in_any_order_and_from_a_file(tmp_path):
    np.savez(tmp_path / "heads.npz", **{name: part[::-1] for name, part in HEADS.items()})
    with np.load(tmp_path / "heads.npz") as heads:
        model = fitted().import_heads(heads)
    expected = fitted().import_heads(HEADS)
    assert model.classes_.tolist() == [3, 13, 23, 33, 53, 63]
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


def test_heads_exported_before_other_changes_come_in_after_them():
    model = fitted(np.ones(N, dtype=bool))
    expected = model.predict_proba(X)
    heads = model.compose([3, 43]).export_heads()
    model.remove_class(3).partial_fit(X[y == 13][:5], y[y == 13][:5]).remove_class(43)
    model.import_heads(heads)
    assert model.classes_.tolist() == [3, 13, 23, 33, 43]
    model.relabel(X[y == 13][:5], 13, 53).remove_class(53)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-9)


# What is shared ---------------------------------------------------------------------------------


def test_exported_arrays_are_copies():
    model = fitted()
    before = joblib.hash(model)
    for part in model.export_heads().values():
        part[...] = 0
    assert joblib.hash(model) == before


@pytest.mark.parametrize("head", ["ridge", "lda", "imprint", "logistic"])
def test_imported_arrays_are_copied(head):
    heads = heads_only(head).fit(X[y > 30], y[y > 30] + 20).export_heads()
    model = fitted(head=head)
    quietly(model.import_heads, heads)
    before = joblib.hash(model)
    for part in heads.values():
        part[...] = 0
    assert joblib.hash(model) == before


@pytest.mark.parametrize("head", ["ridge", "logistic", FixedHead(n_rows=8)], ids=repr)
def test_rows_and_labels_are_copied(head):
    rows, labels, new = X[OLD].copy(), y[OLD].copy(), NEW.copy()
    thresholds = np.array([[0.9] * 4, [-np.inf] * 4])
    model = screened(head=head, replay_size=10**6, thresholds=thresholds).fit(rows, labels)
    quietly(model.add_class, new, 43)
    before = joblib.hash({**vars(model), "thresholds": None})
    for part in (rows, labels, new, thresholds):
        part[...] = 0
    assert joblib.hash({**vars(model), "thresholds": None}) == before


@pytest.mark.parametrize("head", ["ridge", "imprint", LogisticHead(max_iter=20)], ids=repr)
@pytest.mark.parametrize("proba", ["conditional", "sigmoid"])
def test_changes_of_one_never_reach_the_other(head, proba):
    model = screened(head=head, proba=proba, replay_size=10).fit(X, y)
    others = {
        "composed": model.compose([3, 13, 43]),
        "tuned": model.tune_thresholds(X, thresholds=PassBudget(0.3), copy=True),
        "copied": copy.copy(model),
        "deep": copy.deepcopy(model),
        "pickled": pickle.loads(pickle.dumps(model)),
    }

    def change(one):
        one.add_class(100 * NEW[:5], 555).remove_class(3)
        one.partial_fit(X[y == 13], y[y == 13])
        one.tune_thresholds(X[y == 13], thresholds=PassBudget(0.1))
        one.measure_costs(X, n_repeats=1, store=True)
        one.refresh()
        one.merge(one) if head in ("ridge", "imprint") else None
        one.set_params(on_violation="keep")

    for name, other in others.items():
        rest = [part for part in (model, *others.values()) if part is not other]
        before = [joblib.hash(part) for part in rest]
        quietly(change, other)
        assert [joblib.hash(part) for part in rest] == before, name


@pytest.mark.parametrize("head", ["ridge", "lda", "imprint"])
def test_composing_twice_is_composing_once(head):
    model = screened(head=head).fit(X, y)
    twice, once = model.compose([43, 3, 13, 23]).compose([3, 43]), model.compose([43, 3])
    np.testing.assert_array_equal(twice.coef_, once.coef_)
    np.testing.assert_array_equal(twice.predict_proba(X), once.predict_proba(X))
    assert twice.route(X).stage.tolist() == once.route(X).stage.tolist()


@pytest.mark.parametrize("head", [RidgeHead(0.1), LDAHead(0.1), ImprintHead(10.0)], ids=repr)
def test_merged_with_itself(head):
    model = fitted(head=head)
    before, count = model.predict_proba(X), model.export_heads()["count"]
    model.merge(model)
    np.testing.assert_array_equal(model.export_heads()["count"], 2 * count)
    # To ridge twice the rows mean half the leverage of each, and so steeper log-odds.
    atol = 0.03 if isinstance(head, RidgeHead) else 1e-9
    np.testing.assert_allclose(model.predict_proba(X), before, atol=atol)


@pytest.mark.parametrize("trunk", ["passthrough", FrozenEstimator(StandardScaler().fit(X))])
def test_classifiers_of_other_columns_are_not_merged(trunk):
    one = heads_only(trunk=trunk)
    other = clone(one)
    quietly(one.fit, FRAME[y < 20], y[y < 20])
    quietly(other.fit, FRAME[COLUMNS[::-1]][y > 20], y[y > 20])
    with pytest.raises(ValueError, match="feature names"):
        quietly(one.merge, other)


def test_classifiers_of_columns_of_text_are_merged():
    frame = FRAME.assign(kind=np.where(X[:, 0] > 0, "up", "down"))
    trunk = make_column_transformer(
        (StandardScaler(), COLUMNS), (OneHotEncoder(handle_unknown="ignore"), ["kind"])
    ).fit(frame)
    one, other = (
        heads_only(trunk=FrozenEstimator(part)).fit(frame[rows], y[rows])
        for part, rows in ((trunk, y < 20), (pickle.loads(pickle.dumps(trunk)), y > 20))
    )
    assert one.merge(other).score(frame, y) > 0.9


@pytest.mark.parametrize("replay_size", [0, 30])
def test_merged_fixed_heads_have_rows_of_their_own(replay_size):
    one, other = (
        fitted(rows, head=FixedHead(n_rows=8), replay_size=replay_size)
        for rows in (y < 20, (y > 20) & OLD)
    )
    try:
        quietly(one.merge, other)
    except ValueError as error:
        assert "rows" in str(error)
        return
    rows = one.coef_ / np.linalg.norm(one.coef_, axis=1, keepdims=True)
    assert len(np.unique(rows.round(9), axis=0)) == 4


def test_fixed_heads_of_two_kinds_are_not_merged():
    one, other = fitted(y < 20, head="orthogonal"), fitted(y > 20, head="simplex")
    with pytest.raises(ValueError, match="heads differ"):
        quietly(one.merge, other)


# Rows of every form -----------------------------------------------------------------------------


def as_read_only(rows):
    rows = rows.copy()
    rows.flags.writeable = False
    return rows


@pytest.mark.parametrize(
    "form",
    [
        lambda rows: rows.tolist(),
        np.asfortranarray,
        as_read_only,
        lambda rows: np.repeat(rows, 2, axis=1)[:, ::2],
        sparse.csr_array,
        sparse.csc_matrix,
        sparse.coo_array,
        lambda rows: pd.DataFrame(rows, columns=COLUMNS),
        lambda rows: rows.astype(object),
    ],
    ids=itertools.count(),
)
def test_forms_of_rows(form):
    first = LogisticRegression()
    expected = screened(first).fit(X[OLD], y[OLD])
    model = screened(first).fit(form(X[OLD]), y[OLD])
    for one, new, rows in ((expected, NEW, X), (model, form(NEW), form(X))):
        quietly(one.add_class, new, 43)
        quietly(one.refresh, rows, y)
        one.relabel(rows[:1] if not isinstance(rows, sparse.coo_array) else X[:1], 3, 13)
        one.tune_thresholds(rows, y, thresholds=PassBudget(0.3))
        one.report(rows, y)
    np.testing.assert_allclose(model.predict_proba(form(X)), expected.predict_proba(X), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64])
def test_dtypes_of_rows(dtype):
    rows = (10 * X).astype(dtype)
    first = LogisticRegression(max_iter=1000)
    model = screened(first).fit(rows[OLD], y[OLD])
    quietly(model.add_class, rows[~OLD], 43)
    expected = screened(first).fit(rows[OLD].astype(float), y[OLD])
    quietly(expected.add_class, rows[~OLD].astype(float), 43)
    assert model.predict_proba(rows).dtype == np.float64
    np.testing.assert_allclose(
        model.predict_proba(rows), expected.predict_proba(rows.astype(float)), atol=1e-3
    )


def test_rows_of_weight_zero_are_absent():
    weight = np.ones(N)
    weight[::3] = 0
    kept = weight > 0
    model = heads_only().fit(X, y, weight)
    np.testing.assert_array_equal(
        model.predict_proba(X), heads_only().fit(X[kept], y[kept]).predict_proba(X)
    )
    assert heads_only().fit(X, y, (y != 3) * 1.0).classes_.tolist() == [13, 23, 33, 43]
    model = fitted(y < 20).add_classes(X[y > 20], y[y > 20], (y[y > 20] != 33) * 1.0)
    assert model.classes_.tolist() == [3, 13, 23, 43]
    kept = kept & (y == 43)
    one, other = fitted(), fitted()
    one.add_class(NEW, 43, weight[y == 43])
    other.add_class(X[kept], 43)
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("head", ["ridge", "lda", "imprint", "logistic"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: (X[:5], y[:5]),
        lambda: (np.repeat(X[:5], 9, axis=0), np.repeat(y[:5], 9)),
        lambda: (np.ones((N, D)), y),
        lambda: (np.zeros((N, D)), y),
        lambda: (np.column_stack([X, X, np.ones(N)]), y),
        lambda: (np.random.default_rng(0).normal(size=(20, 100)), np.arange(20) % 3),
        lambda: (X[:, :1], y),
    ],
    ids=["one each", "repeated", "constant", "zeros", "collinear", "wide", "one column"],
)
@pytest.mark.parametrize("proba", ["conditional", "open", "sigmoid"])
def test_degenerate_rows(head, make, proba):
    rows, labels = make()
    unknown = 99 if proba == "open" else None
    model = heads_only(head, proba=proba, unknown_label=unknown, replay_size=5).fit(rows, labels)
    model.add_class(rows[:1] + 1, 77)
    model.remove_class(77).partial_fit(rows[:1], labels[:1])
    assert np.isfinite(model.coef_).all() and np.isfinite(model.predict_proba(rows)).all()
    assert model.predict(rows[:1]).shape == (1,)


@pytest.mark.parametrize("counts", [(2, 2), (2, 40), (2, 3, 2), (5, 2, 2), (2, 2, 2, 2)])
def test_few_rows_and_what_is_held_out(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = np.random.default_rng(0).normal(size=(len(labels), 2))
    for seed in range(5):
        model = ComposableHeadClassifier(trunk="passthrough", random_state=seed).fit(rows, labels)
        assert np.isfinite(model.predict_proba(rows)).all()


def test_a_class_of_one_row_holds_nothing_out_and_says_so():
    model = ComposableHeadClassifier(trunk="passthrough")
    with pytest.warns(UserWarning, match=r"validation_fraction=0.1 holds nothing out.*\[3, 13"):
        model.fit(X[:5], y[:5])
    with pytest.raises(ValueError, match=r"validation_fraction=0\.1 cannot be held out"):
        screened(thresholds=PassBudget(0.3)).fit(X[:5], y[:5])


# Scales -----------------------------------------------------------------------------------------

SCALED = [RidgeHead(0.1), LDAHead(0.1), LogisticHead()]
SCALES = [np.full(D, 1e12), np.full(D, 1e-12), np.r_[1e7, np.ones(D - 1)]]


# every row the commonest class where all columns vary by less than 1e-6, and ridge and LDA heads
# drop all columns that vary by a millionth of the largest one.
@pytest.mark.parametrize("head", SCALED, ids=repr)
@pytest.mark.parametrize("scale", SCALES, ids=["large", "small", "mixed"])
def test_scales_of_the_features_do_not_matter(head, scale):
    expected = heads_only(head).fit(X, y).predict_proba(X)
    got = heads_only(head).fit(X * scale, y).predict_proba(X * scale)
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("head", SCALED, ids=repr)
@pytest.mark.parametrize("kind", ["amount", "time"])
def test_a_column_of_amounts_or_times_does_no_harm(head, kind):
    rng = np.random.default_rng(3)
    column = 1e6 * rng.lognormal(size=N) if kind == "amount" else 1.7e9 + 1e6 * rng.normal(size=N)
    rows = np.column_stack([X, column])
    expected = heads_only(head).fit(X, y).score(X, y)
    assert heads_only(head).fit(rows, y).score(rows, y) > expected - 0.03


# freedom of ridge heads are held against their sum: with a sum of 1 every row is unknown.
@pytest.mark.parametrize("head", [RidgeHead(0.1), LDAHead(0.1), ImprintHead(10.0)], ids=repr)
@pytest.mark.parametrize("proba", ["open", "sigmoid"])
@pytest.mark.parametrize("factor", [1 / N, 0.1])
def test_the_unit_of_the_weights_does_not_matter(head, proba, factor):
    unknown = 99 if proba == "open" else None
    model = heads_only(head, proba=proba, unknown_label=unknown)
    expected = clone(model).fit(X, y).predict_proba(X)
    got = clone(model).fit(X, y, np.full(N, factor)).predict_proba(X)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("head", ["ridge", "lda"])
def test_features_whose_squares_overflow_are_refused(head):
    with pytest.raises(ValueError, match="features"):
        quietly(heads_only(head).fit, 1e200 * X, y)


@pytest.mark.parametrize(
    "head, trunk, words",
    [
        (RidgeHead(alpha=1e-30), "passthrough", "alpha"),
        (LDAHead(shrinkage=1e-30), "passthrough", "shrinkage"),
        ("ridge", SelectFromModel(LogisticRegression(), threshold=1e9), "trunk"),
    ],
    ids=itertools.count(),
)
def test_heads_that_cannot_be_solved_for_are_refused_by_name(head, trunk, words):
    with pytest.raises(ValueError, match=words):
        quietly(heads_only(head, trunk).fit, np.column_stack([X, X]), y)


@pytest.mark.parametrize("head", ["ridge", "lda", "logistic"])
def test_far_rows_are_answered_with_the_likeliest_class(head):
    model = heads_only(head, proba="sigmoid").fit(X, y)
    odds = model._set.heads.log_odds(100 * X @ model.coef_.T + model.intercept_)
    np.testing.assert_array_equal(model.predict(100 * X), model.classes_[odds.argmax(axis=1)])


# scalers do.
@pytest.mark.parametrize(
    "trunk",
    [StandardScaler(), make_pipeline(StandardScaler(), Normalizer())],
    ids=["scaler", "pipeline"],
)
def test_weights_are_repetitions(trunk):
    times = np.random.default_rng(0).integers(1, 4, size=N)
    weighted = heads_only(trunk=trunk).fit(X, y, times)
    repeated = heads_only(trunk=trunk).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-9)


# The first stage --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first_stage",
    [LinearSVC(), make_pipeline(StandardScaler(), LinearSVC()), make_pipeline(GaussianNB())],
    ids=itertools.count(),
)
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_kinds_of_first_stages(first_stage, n_jobs):
    model = screened(first_stage, n_jobs=n_jobs, thresholds=PassBudget(0.5)).fit(X, y)
    assert model.score(X, y) > 0.9
    routing, stages = model.route(X), list(model.staged_predict_proba(X))
    np.testing.assert_allclose(stages[-1], routing.proba, atol=1e-12)
    assert 0 < routing.stage.mean() < 1
    np.testing.assert_allclose(stages[0].sum(axis=1), 1)


@pytest.mark.parametrize("proba", ["conditional", "open", "sigmoid"])
def test_from_two_classes_to_three_and_back(proba):
    two = y < 20
    unknown = 99 if proba == "open" else None
    model = screened(proba=proba, unknown_label=unknown, on_violation="keep")
    model.fit(X[two], y[two])
    before = model.predict_proba(X)
    quietly(model.add_class, X[y == 23], 23)
    assert model.report(X[y < 30], y[y < 30]) is not None
    assert model.thresholds_[0, model.classes_ == 23] == np.inf
    model.remove_class(23)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    report = str(model.report(X[two], y[two]))
    assert ("cumulative recall" in report) == (proba != "open")


def test_removing_opens_the_first_stage_again():
    model = screened(thresholds=0.5).fit(X[OLD], y[OLD])
    before = model.predict_proba(X)
    quietly(model.add_class, NEW, 43)
    model.remove_class(43)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def on_top_of_a_class():
    """Rows in the middle of class 13."""
    return X[y == 13].mean(axis=0) + 0.3 * np.random.default_rng(0).normal(size=(200, D))


# them are answered as another class, silently.
@pytest.mark.parametrize("on_violation", ["inf", "keep", "raise"])
def test_an_expected_class_that_comes_is_checked_against_the_first_stage(on_violation):
    model = screened(thresholds=Agreement(0.02), on_violation=on_violation)
    model.partial_fit(X[OLD], y[OLD], classes=[3, 13, 14, 23, 33])
    new = on_top_of_a_class()
    assert (model.route(new).stage == 0).mean() > 0.9

    def come(model=model):
        model.partial_fit(new, np.full(len(new), 14))

    if on_violation == "raise":
        with pytest.raises(ValueError, match="Nothing was changed"):
            come()
        return
    with pytest.warns(UserWarning, match="The first stage never saw"):
        come()
    assert on_violation == "keep" or (model.route(new).stage == 1).all()


@pytest.mark.parametrize("classes", [[3, 13, 23, 33, 43], [3, 13]])
def test_the_first_stage_answers_sigmoids_as_they_are(classes):
    model = screened(proba="sigmoid", thresholds=0.3, calibration=None).fit(X, y).compose(classes)
    copies = [model.first_stages_[label] for label in classes]
    p = np.stack([part.predict_proba(X)[:, 1] for part in copies], axis=1)
    routing = model.route(X)
    mine = routing.stage == 0
    assert mine.mean() > 0.2
    np.testing.assert_allclose(routing.proba[mine], p[mine], atol=1e-9)


@pytest.mark.parametrize("proba", ["conditional", "open", "sigmoid"])
def test_composing_classes_that_the_first_stage_never_saw(proba):
    unknown = 99 if proba == "open" else None
    model = screened(proba=proba, unknown_label=unknown).fit(X[y < 30], y[y < 30])
    quietly(model.add_classes, X[y > 30], y[y > 30])
    composed = model.compose([33, 43])
    assert (composed.route(X).stage == 1).all()
    assert np.isfinite(composed.stage_proba(X)).all()
    assert composed.score(X[y > 30], y[y > 30]) > 0.9


def test_no_pass_rate_is_told_that_is_not_known():
    model = screened(thresholds=0.6, validation_fraction=None).fit(X[OLD], y[OLD])
    with pytest.warns(UserWarning, match="It no longer answers") as seen:
        model.add_class(NEW, 43)
    assert "instead of 100.0%" not in str(seen[0].message)


def test_a_matrix_of_the_old_number_of_classes_is_refused_by_refresh():
    model = screened(thresholds=np.array([[0.9] * 4, [-np.inf] * 4])).fit(X[OLD], y[OLD])
    quietly(model.add_class, NEW, 43)
    unchanged(model, lambda m: m.refresh(X, y), ValueError, ["thresholds must be", r"\(2, 5\)"])


def test_a_matrix_of_the_old_number_of_classes_is_refused_by_tuning():
    model = screened().fit(X[OLD], y[OLD])
    quietly(model.add_class, NEW, 43)
    old = np.array([[0.9] * 4, [-np.inf] * 4])
    unchanged(
        model,
        lambda m: m.tune_thresholds(X, y, thresholds=old),
        ValueError,
        ["thresholds must be", r"\(2, 5\)", r"\(2, 4\)"],
    )


# is an IndexError.
@pytest.mark.parametrize("n_columns", [4, 5])
def test_a_matrix_for_expected_classes(n_columns):
    thresholds = np.array([[0.9] * n_columns, [-np.inf] * n_columns])
    model = screened(thresholds=thresholds)
    if n_columns == 5:
        model.partial_fit(X[OLD], y[OLD], classes=np.unique(y))
        np.testing.assert_array_equal(model.thresholds_[0], [0.9, 0.9, 0.9, 0.9, np.inf])
        return
    with pytest.raises(ValueError, match=r"thresholds must be .*\(2, 5\)"):
        model.partial_fit(X[OLD], y[OLD], classes=np.unique(y))


# one row only.
def test_refreshing_keeps_the_calibration_of_the_heads():
    model = screened().fit(X[OLD], y[OLD])
    kept = model._calibrations[-1]
    some = OLD & (np.arange(N) % 2 == 0)
    model.refresh(X[some], y[some])
    assert model._calibrations[-1] == kept
    first = np.r_[np.flatnonzero(y == 3)[:1], np.flatnonzero((y > 3) & OLD)]
    quietly(model.refresh, X[first], y[first])
    assert model._calibrations[-1] == kept


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda m: m.refresh(X, y), ValueError, [r"\[43\] unknown"]),
        (lambda m: m.refresh(X[y < 30], y[y < 30]), ValueError, [r"\[33\] are absent"]),
        (lambda m: m.refresh(X, y[:9]), ValueError, ["y must have shape"]),
        (lambda m: m.refresh(X, y.astype(str)), TypeError, ["y must be of the kind"]),
        (lambda m: m.refresh(X, y, -np.ones(N)), ValueError, ["sample_weight"]),
        (lambda m: m.refresh(X), (TypeError, ValueError), [r"\by\b"]),
        (lambda m: m.refresh(None, y), (TypeError, ValueError), ["X"]),
    ],
    ids=itertools.count(),
)
def test_rows_to_refresh_with(call, error, words):
    unchanged(screened().fit(X[OLD], y[OLD]), call, error, words)


def test_unequal_rows_prove_nothing_and_refresh_no_first_stage():
    policy = Agreement(0.5, confidence=0.5)
    model = screened(thresholds=policy).fit(X[OLD], y[OLD])
    model.set_params(first_stage=Untouchable())
    weight = np.linspace(1, 2, N)[OLD]
    words = ["for equally weighted rows only"]
    unchanged(model, lambda m: m.refresh(X[OLD], y[OLD], weight), ValueError, words)


def test_rows_refresh_no_first_stage_that_is_not_there():
    unchanged(fitted(), lambda m: m.refresh(X, y), ValueError, ["first_stage is None"])


def test_measured_costs_stay():
    model = screened(thresholds=0.9).fit(X[OLD], y[OLD])
    costs = model.measure_costs(X, n_repeats=1, store=True)
    quietly(model.add_class, NEW, 43)
    np.testing.assert_array_equal(model.stage_costs_, costs)


# Inside scikit-learn ----------------------------------------------------------------------------


def test_searches_and_cross_validation():
    grid = {
        "head__alpha": [0.1, 1.0],
        "proba": ["conditional", "sigmoid"],
        "trunk__standardscaler__with_mean": [True, False],
        "first_stage": [None, GaussianNB()],
    }
    model = screened(head=RidgeHead(), trunk=make_pipeline(StandardScaler()))
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_score_ > 0.85
    proba = cross_val_predict(heads_only(), X, y, cv=3, method="predict_proba")
    assert proba.shape == (N, 5) and (proba.argmax(axis=1) == y // 10).mean() > 0.85


def test_calibrators_and_thresholds_around_it():
    model = fitted().add_class(NEW, 43)
    calibrated = CalibratedClassifierCV(FrozenEstimator(model)).fit(X, y)
    assert calibrated.classes_.tolist() == [3, 13, 23, 33, 43] and calibrated.score(X, y) > 0.9
    two = y < 20
    model = screened().fit(X[two], y[two])
    fixed = FixedThresholdClassifier(FrozenEstimator(model), threshold=0.2).fit(X[two], y[two])
    np.testing.assert_array_equal(
        fixed.predict(X), np.where(model.predict_proba(X)[:, 1] >= 0.2, 13, 3)
    )


def test_clones_forget_and_copies_remember():
    model = screened().fit(X[OLD], y[OLD]).compose([3, 13])
    assert not hasattr(clone(model), "classes_")
    assert clone(model).fit(X, y).classes_.tolist() == [3, 13, 23, 33, 43]
    for again in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        assert joblib.hash(again) == joblib.hash(model)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"first_stage": GaussianNB(), "head": RidgeHead(alpha=1.0)},
        {"trunk": make_pipeline(StandardScaler()), "head": "lda"},
        {"trunk": torch.nn.Linear(3, 2)},
        {"trunk": FrozenEstimator(StandardScaler())},
        {"first_stage": 5, "trunk": 5, "head": 5, "thresholds": object},
    ],
    ids=itertools.count(),
)
def test_shown_as_text_and_html(params):
    model = ComposableHeadClassifier(**params)
    assert "ComposableHeadClassifier" in repr(model)
    assert "head" in model._repr_html_()
    assert not hasattr(model, "set_output") and not hasattr(model, "classes_")
    assert isinstance(hasattr(model, "partial_fit"), bool)


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_transformers_that_give_dataframes(output):
    model = screened(
        make_pipeline(StandardScaler(), GaussianNB()),
        trunk=StandardScaler(),
        head=RidgeHead(0.1, n_random_features=20),
    )
    expected = clone(model).fit(X, y).predict_proba(X)
    with config_context(transform_output=output):
        got = clone(model).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_groups_are_held_out_as_a_whole():
    groups = np.arange(N) // 4
    model = screened(first_stage=GaussianNB()).fit(X, y, groups=groups)
    assert model.score(X, y) > 0.9


def test_groups_with_metadata_routing():
    groups = np.arange(N) // 4
    expected = screened().fit(X, y, groups=groups)
    with config_context(enable_metadata_routing=True):
        model = screened().fit(X, y, groups=groups)
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_metadata_of_the_first_stage(n_jobs):
    with config_context(enable_metadata_routing=True):
        last = SGDClassifier(loss="log_loss", random_state=0).set_fit_request(intercept_init=True)
        model = screened(make_pipeline(StandardScaler(), last), n_jobs=n_jobs)
        model.fit(X, y, np.linspace(1, 2, N), intercept_init=np.zeros(1))
        assert model.score(X, y) > 0.9
        with pytest.raises(TypeError, match=r"unexpected argument.*'amount'"):
            clone(model).fit(X, y, amount=y)


@pytest.mark.parametrize(
    "trunk", [StandardScaler(), make_pipeline(StandardScaler(), PolynomialFeatures())], ids=repr
)
def test_ordinary_use_warns_of_nothing(trunk):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for head in ("ridge", "lda", "imprint", "logistic"):
            model = ComposableHeadClassifier(
                trunk=trunk, head=head, replay_size=20, random_state=0
            ).fit(X[OLD], y[OLD])
            model.add_class(NEW, 43).partial_fit(X[:20], y[:20])
            model.compose([3, 43]).report(X[(y == 3) | (y == 43)], y[(y == 3) | (y == 43)])
            model.remove_class(3).refresh()
            assert np.isfinite(model.predict_proba(X)).all()
