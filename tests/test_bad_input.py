"""Bad input is refused by name, before any stage is fitted, and leaves no fitted attributes."""

import copy
import itertools

import joblib
import numpy as np
import pandas as pd
import pytest
from packaging.version import Version
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmsc import (
    Agreement,
    CaughtFeedback,
    CostBudget,
    FeedbackCascadeClassifier,
    GainFeedback,
    PassBudget,
    RecallFloor,
)

N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
y = (X[:, 0] + RNG.normal(size=N) > 0.6).astype(int)
FRAME = pd.DataFrame(X, columns=["p", "q", "r"])
WITH_NAN = np.where(np.arange(3 * N).reshape(N, 3) == 7, np.nan, X)
HALVES = (np.arange(0, N, 2), np.arange(1, N, 2))
NONE, ALL = np.zeros(N), np.ones(N)
joblib_checks_n_jobs = pytest.mark.skipif(
    Version(joblib.__version__) < Version("1.4"), reason="needs joblib 1.4"
)


class FirstColumn(ClassifierMixin, BaseEstimator):
    """Scores rows by the logistic function of the first column; learns nothing but the classes."""

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        positive = 1 / (1 + np.exp(-np.asarray(X)[:, 0]))
        return np.column_stack([1 - positive, positive])


class Untouchable(FirstColumn):
    """Fails the test when it is fitted."""

    def fit(self, X, y, sample_weight=None):
        raise AssertionError("a stage was fitted before the input was refused")


class Broken(FirstColumn):
    """Raises in its n-th fit."""

    n_fits = 0

    def __init__(self, breaks_at=1):
        self.breaks_at = breaks_at

    def fit(self, X, y, sample_weight=None):
        Broken.n_fits += 1
        if Broken.n_fits == self.breaks_at:
            raise RuntimeError("out of order")
        return super().fit(X, y)


class Answers(FirstColumn):
    """Gives whatever a function makes of the scores."""

    def __init__(self, change=None):
        self.change = change

    def predict_proba(self, X):
        return self.change(super().predict_proba(X))


def two(first=Untouchable, last=Untouchable):
    return [("screen", first()), ("final", last())]


def fitted_attributes(estimator):
    return [name for name in vars(estimator) if name.endswith("_")]


def refuse(error, words, *, X=X, y=y, sample_weight=None, fit_params=None, **params):
    """Check that fit raises, that the message holds all words, and that nothing is left behind."""
    cascade = FeedbackCascadeClassifier(**({"stages": two()} | params))
    with pytest.raises(error) as caught:
        cascade.fit(X, y, sample_weight=sample_weight, **(fit_params or {}))
    for word in words:
        assert word in str(caught.value)
    assert fitted_attributes(cascade) == []


def fitted(**params):
    params = {"stages": two(FirstColumn, FirstColumn), "thresholds": 0.5} | params
    return FeedbackCascadeClassifier(**params).fit(X, y)


# Constructor arguments ------------------------------------------------------------------------


VALID_THRESHOLDS = "a number, a list of 1 (one for each early stage), a matrix of shape (2, 2)"


@pytest.mark.parametrize(
    "thresholds, error, words",
    [
        ("high", TypeError, [VALID_THRESHOLDS, "'high'"]),
        ("0.5", TypeError, [VALID_THRESHOLDS, "'0.5'"]),
        (b"x", TypeError, [VALID_THRESHOLDS, "b'x'"]),
        (1j, TypeError, [VALID_THRESHOLDS, "1j"]),
        ({}, TypeError, [VALID_THRESHOLDS, "{}"]),
        (object, TypeError, [VALID_THRESHOLDS, "<class 'object'>"]),
        (len, TypeError, [VALID_THRESHOLDS, "<built-in function len>"]),
        (True, TypeError, [VALID_THRESHOLDS, "True"]),
        ([0.5, 0.5], ValueError, [VALID_THRESHOLDS, "shape (2,)"]),
        ([], ValueError, [VALID_THRESHOLDS, "shape (0,)"]),
        ([[0.5, 0.5]], ValueError, [VALID_THRESHOLDS, "shape (1, 2)"]),
        (np.full((3, 2), -np.inf), ValueError, [VALID_THRESHOLDS, "shape (3, 2)"]),
        (np.full((2, 3), -np.inf), ValueError, [VALID_THRESHOLDS, "shape (2, 3)"]),
        ([[0.5, 0.5], [0, 0]], ValueError, ["last row of thresholds must be -inf", "[0. 0.]"]),
        (np.nan, ValueError, ["thresholds must not hold nan"]),
        ([np.nan], ValueError, ["thresholds must not hold nan; got [nan]"]),
        (PassBudget, TypeError, [VALID_THRESHOLDS, "PassBudget'>", "such as PassBudget(0.1)"]),
        (RecallFloor, TypeError, [VALID_THRESHOLDS, "RecallFloor'>"]),
    ],
)
def test_thresholds(thresholds, error, words):
    refuse(error, words, thresholds=thresholds)


@pytest.mark.parametrize(
    "policy, error, words",
    [
        (PassBudget(1.1), ValueError, ["max_pass_rate", "[0, 1]", "1.1"]),
        (PassBudget(-0.1), ValueError, ["max_pass_rate", "[0, 1]", "-0.1"]),
        (PassBudget(np.nan), ValueError, ["max_pass_rate", "[0, 1]", "nan"]),
        (PassBudget("a"), TypeError, ["max_pass_rate", "[0, 1]", "'a'"]),
        (PassBudget(None), TypeError, ["max_pass_rate", "[0, 1]", "None"]),
        (PassBudget(True), TypeError, ["max_pass_rate", "[0, 1]", "True"]),
        (PassBudget([1.5]), ValueError, ["max_pass_rate", "[0, 1]", "[1.5]"]),
        (PassBudget([np.nan]), ValueError, ["max_pass_rate", "[0, 1]", "[nan]"]),
        (PassBudget([[0.1]]), ValueError, ["max_pass_rate", "such numbers", "[[0.1]]"]),
        (PassBudget(["a"]), (TypeError, ValueError), ["max_pass_rate", "[0, 1]", "['a']"]),
        (PassBudget(["0.1"]), (TypeError, ValueError), ["max_pass_rate", "[0, 1]", "['0.1']"]),
        (PassBudget({}), (TypeError, ValueError), ["max_pass_rate", "[0, 1]", "{}"]),
        (PassBudget([0.2, 0.1]), ValueError, ["max_pass_rate", "1 such numbers", "[0.2, 0.1]"]),
        (PassBudget([]), ValueError, ["max_pass_rate", "[]"]),
        (CostBudget(-1), ValueError, ["max_cost", ">= 0", "-1"]),
        (CostBudget(np.nan), ValueError, ["max_cost", ">= 0", "nan"]),
        (CostBudget("a"), TypeError, ["max_cost", ">= 0", "'a'"]),
        (CostBudget(None), TypeError, ["max_cost", ">= 0", "None"]),
        (CostBudget(True), TypeError, ["max_cost", ">= 0", "True"]),
        (CostBudget(0.5), ValueError, ["max_cost=0.5", "first stage", "costs 1.0"]),
        (RecallFloor(0), ValueError, ["min_recall", "(0, 1]", "got 0"]),
        (RecallFloor(1.01), ValueError, ["min_recall", "(0, 1]", "1.01"]),
        (RecallFloor(np.nan), ValueError, ["min_recall", "(0, 1]", "nan"]),
        (RecallFloor("a"), TypeError, ["min_recall", "(0, 1]", "'a'"]),
        (RecallFloor(of="all"), ValueError, ["of must be", "'caught' or 'positives'", "'all'"]),
        (RecallFloor(of=None), ValueError, ["of must be", "'caught' or 'positives'", "None"]),
        (RecallFloor(max_pass_rate=2), ValueError, ["max_pass_rate", "[0, 1]", "got 2"]),
        (RecallFloor(max_pass_rate="a"), TypeError, ["max_pass_rate", "[0, 1]", "'a'"]),
        (RecallFloor(confidence=1), ValueError, ["confidence", "(0, 1)", "got 1"]),
        (RecallFloor(confidence=0.0), ValueError, ["confidence", "(0, 1)", "0.0"]),
        (RecallFloor(confidence=np.nan), ValueError, ["confidence", "(0, 1)", "nan"]),
        (RecallFloor(confidence="a"), ValueError, ["confidence", "(0, 1)", "'a'"]),
        (RecallFloor(1.0, confidence=0.9), ValueError, ["min_recall=1", "confidence"]),
        (RecallFloor(0.9, confidence=0.9), ValueError, ["validation_fraction", "tune_thresholds"]),
        (Agreement(1.1), ValueError, ["max_disagreement", "[0, 1]", "1.1"]),
        (Agreement(-0.1), ValueError, ["max_disagreement", "[0, 1]", "-0.1"]),
        (Agreement("a"), TypeError, ["max_disagreement", "[0, 1]", "'a'"]),
        (Agreement(None), TypeError, ["max_disagreement", "[0, 1]", "None"]),
    ],
    ids=repr,
)
def test_policies(policy, error, words):
    refuse(error, words, thresholds=policy, stage_costs=[1, 2])


@pytest.mark.parametrize(
    "feedback, error, words",
    [
        ("both", ValueError, ["feedback must be 'caught', 'gain', 'none'", "'both'"]),
        (None, ValueError, ["feedback must be 'caught', 'gain', 'none'", "None"]),
        (1, ValueError, ["feedback must be 'caught', 'gain', 'none'", "got 1"]),
        (CaughtFeedback, ValueError, ["feedback must be", "such as CaughtFeedback()"]),
        (CaughtFeedback(strength=1.5), ValueError, ["strength", "[0, 1]", "1.5"]),
        (CaughtFeedback(strength=np.nan), ValueError, ["strength", "[0, 1]", "nan"]),
        (CaughtFeedback(strength="a"), ValueError, ["strength", "[0, 1]", "'a'"]),
        (CaughtFeedback(strength=True), ValueError, ["strength", "[0, 1]", "True"]),
        (CaughtFeedback(temperature=0), ValueError, ["temperature", "(0, inf)", "got 0"]),
        (CaughtFeedback(temperature=np.inf), ValueError, ["temperature", "(0, inf)", "got inf"]),
        (CaughtFeedback(temperature=None), ValueError, ["temperature", "(0, inf)", "None"]),
        (GainFeedback(strength=-0.1), ValueError, ["strength", "[0, 1]", "-0.1"]),
        (GainFeedback(temperature=-1), ValueError, ["temperature", "(0, inf)", "-1"]),
        (GainFeedback(temperature=True), ValueError, ["temperature", "(0, inf)", "True"]),
        (GainFeedback(error_costs=5), ValueError, ["error_costs", "two finite numbers", "got 5"]),
        (GainFeedback(error_costs=(1, 2, 3)), ValueError, ["error_costs", ">= 0", "(1, 2, 3)"]),
        (GainFeedback(error_costs=(1, -2)), ValueError, ["error_costs", ">= 0", "(1, -2)"]),
        (GainFeedback(error_costs=(1, np.inf)), ValueError, ["error_costs", "finite", "inf"]),
        (GainFeedback(error_costs="ab"), (TypeError, ValueError), ["error_costs", "'ab'"]),
        (GainFeedback(error_costs=("1", "2")), (TypeError, ValueError), ["error_costs", "'1'"]),
        (GainFeedback(error_costs={}), (TypeError, ValueError), ["error_costs", "{}"]),
    ],
    ids=repr,
)
def test_feedback(feedback, error, words):
    refuse(error, words, feedback=feedback, stage_costs=[1, 2], thresholds=0.5)


def test_error_costs_need_stage_costs():
    refuse(ValueError, ["error_costs=(1, 1)", "stage_costs"], feedback=GainFeedback(1, 1, (1, 1)))


VALID_COSTS = "one finite number >= 0 for each of the stages ['screen', 'final']"


@pytest.mark.parametrize(
    "stage_costs, error, words",
    [
        ("a", TypeError, ["'a'"]),
        (3, ValueError, ["got 3"]),
        ([1], ValueError, ["[1]"]),
        ([1, 2, 3], ValueError, ["[1, 2, 3]"]),
        ([1, -1], ValueError, ["[1, -1]"]),
        ([1, np.nan], ValueError, ["[1, nan]"]),
        ([1, np.inf], ValueError, ["[1, inf]"]),
        ([1, "a"], TypeError, ["[1, 'a']"]),
        ([[1, 2]], ValueError, ["[[1, 2]]"]),
        ({"screen": 1}, ValueError, ["{'screen': 1}"]),
        ({"screen": 1, "finl": 2}, ValueError, ["'finl'"]),
        ({"screen": 1, "final": -2}, ValueError, ["-2"]),
        ({"screen": 1, "final": 2, "extra": 3}, ValueError, ["'extra'"]),
        (["1", "2"], (TypeError, ValueError), ["['1', '2']"]),
    ],
)
def test_stage_costs(stage_costs, error, words):
    refuse(error, ["stage_costs", VALID_COSTS, *words], stage_costs=stage_costs, thresholds=0.5)


def test_costs_of_dropped_stages_are_allowed():
    stages = [("screen", FirstColumn()), ("middle", "drop"), ("final", FirstColumn())]
    costs = {"screen": 1, "middle": 5, "final": 2}
    assert fitted(stages=stages, stage_costs=costs).stage_costs_.tolist() == [1, 2]


@pytest.mark.parametrize(
    "parameter, value, words",
    [
        ("catch_threshold", "best", ["'best_f1', 'argmax' or a number in [0, 1]"]),
        ("catch_threshold", "0.5", ["'best_f1', 'argmax' or a number in [0, 1]"]),
        ("catch_threshold", None, ["'best_f1', 'argmax' or a number in [0, 1]"]),
        ("catch_threshold", -0.1, ["'best_f1', 'argmax' or a number in [0, 1]"]),
        ("catch_threshold", 1.1, ["'best_f1', 'argmax' or a number in [0, 1]"]),
        ("catch_threshold", np.nan, ["'best_f1', 'argmax' or a number in [0, 1]"]),
        ("catch_threshold", True, ["'best_f1', 'argmax' or a number in [0, 1]"]),
        ("survivor_rate", 0, ["(0, 1]"]),
        ("survivor_rate", 1.1, ["(0, 1]"]),
        ("survivor_rate", np.nan, ["(0, 1]"]),
        ("survivor_rate", "a", ["(0, 1]"]),
        ("survivor_rate", True, ["(0, 1]"]),
        ("survivor_rate", np.array([0.1, 0.2]), ["(0, 1] or None", "array"]),
        ("validation_fraction", 0, ["(0, 1)"]),
        ("validation_fraction", 1, ["(0, 1)"]),
        ("validation_fraction", np.nan, ["(0, 1)"]),
        ("validation_fraction", "a", ["(0, 1)"]),
        ("validation_fraction", True, ["(0, 1)"]),
        ("validation_fraction", 1e-5, []),
        ("validation_fraction", 0.999, []),
        ("calibration", "platt", ["'sigmoid', 'isotonic', 'temperature' or None"]),
        ("calibration", True, ["'sigmoid', 'isotonic', 'temperature' or None"]),
        ("calibration", [], ["'sigmoid', 'isotonic', 'temperature' or None"]),
        ("pos_label", 7, ["one of [0, 1]"]),
        ("pos_label", "yes", ["one of [0, 1]"]),
        ("pos_label", [1], ["one of [0, 1]"]),
    ],
)
def test_other_parameters(parameter, value, words):
    refuse(ValueError, [parameter, repr(value), *words], **{parameter: value})


@pytest.mark.parametrize(
    "parameter, value, words",
    [
        ("memory", 5, ["memory='5'", "None", "joblib.Memory"]),
        ("random_state", "a", ["'a'", "seed"]),
        ("random_state", 1.5, ["1.5", "seed"]),
        ("n_jobs", 0, ["n_jobs == 0"]),
        pytest.param("n_jobs", "two", ["n_jobs"], marks=joblib_checks_n_jobs),
    ],
)
def test_parameters_that_others_check(parameter, value, words):
    refuse(ValueError, words, thresholds=0.5, **{parameter: value})


@pytest.mark.parametrize(
    "cv, error, words",
    [
        ("a", ValueError, ["cv", "as an integer", "Got a"]),
        (2.5, ValueError, ["cv", "as an integer", "Got 2.5"]),
        (1, ValueError, ["n_splits=1"]),
        (-1, ValueError, ["n_splits=-1"]),
        (1000, ValueError, ["n_splits=1000", "n_samples=60"]),
        (GroupKFold(3), ValueError, ["'groups'"]),
        ([], ValueError, ["cv gives no split"]),
        ([(np.arange(N), [])], ValueError, ["cv gives no split"]),
        ([(HALVES[0], np.arange(N, N + 5))], ValueError, ["test part of split 0 of cv", "59"]),
        ([HALVES, (np.arange(-1, 9), [0])], ValueError, ["training part of split 1 of cv", "-1"]),
        ([([], np.arange(N))], ValueError, ["training part of split 0 of cv", "class 0 or 1"]),
        ([(np.flatnonzero(y == 0), [0])], ValueError, ["split 0 of cv holds no row of class 1"]),
        ([(np.arange(N), np.flatnonzero(y == 0))], ValueError, ["no row of the positive class 1"]),
        ([1, 2], (TypeError, ValueError), ["cv"]),
        ([(1, 2, 3)], (TypeError, ValueError), ["cv"]),
        ([(HALVES[0],)], (TypeError, ValueError), ["cv"]),
        ([([0.0, 1.0], [2.0])], (TypeError, ValueError), ["cv"]),
        ([(["a"], ["b"])], (TypeError, ValueError), ["cv"]),
        ([(np.ones(N - 5, dtype=bool), np.ones(N - 5, dtype=bool))], ValueError, ["cv", "60"]),
        (StratifiedKFold, (TypeError, ValueError), ["cv"]),
    ],
    ids=itertools.count(),
)
def test_cv(cv, error, words):
    refuse(error, words, cv=cv, thresholds=0.5)


@pytest.mark.parametrize(
    "stages, error, words",
    [
        (5, TypeError, ["list of (name, classifier) pairs", "got 5"]),
        ({}, TypeError, ["list of (name, classifier) pairs", "{}"]),
        (Untouchable(), TypeError, ["list of (name, classifier) pairs", "Untouchable()"]),
        ([Untouchable()], TypeError, ["list of (name, classifier) pairs", "[Untouchable()]"]),
        ([("a", Untouchable(), 1)], TypeError, ["list of (name, classifier) pairs"]),
        ([(1, Untouchable())], TypeError, ["list of (name, classifier) pairs"]),
        ([], ValueError, ["list of (name, classifier) pairs", "[]"]),
        ([("a", "drop")], ValueError, ["not 'drop'", "[('a', 'drop')]"]),
        ([("a", Untouchable()), ("a", Untouchable())], ValueError, ["unique", "'a'"]),
        ([("a__b", Untouchable())], ValueError, ["'__'", "'a__b'"]),
        ([("", Untouchable())], ValueError, ["empty", "''"]),
        ([("cv", Untouchable())], ValueError, ["parameter", "'cv'"]),
        ([("a", Untouchable)], TypeError, ["Stage 'a'", "classifier object"]),
        ([("a", None)], TypeError, ["Stage 'a'", "classifier object", "None"]),
        ([("a", "dorp")], TypeError, ["Stage 'a'", "'drop'", "'dorp'"]),
        ([("a", LinearRegression())], TypeError, ["Stage 'a'", "classifier", "LinearRegression"]),
        ([("a", make_pipeline(StandardScaler()))], TypeError, ["Stage 'a'", "classifier"]),
    ],
    ids=itertools.count(),
)
def test_stages(stages, error, words):
    refuse(error, words, stages=stages)


@pytest.mark.parametrize(
    "frozen, words",
    [
        (FrozenEstimator(LogisticRegression()), ["'frozen'"]),
        (FrozenEstimator(LogisticRegression().fit(X, y + 5)), ["'frozen'", "[5 6]", "[0 1]"]),
        (FrozenEstimator(LogisticRegression().fit(X[:, :2], y)), ["2 features"]),
    ],
    ids=["unfitted", "other classes", "fewer features"],
)
def test_a_frozen_stage_is_checked_before_the_others_are_fitted(frozen, words):
    refuse(ValueError, words, stages=[("frozen", frozen), ("final", Untouchable())])


@pytest.mark.parametrize(
    "params, words",
    [
        ({"screem": FirstColumn()}, ["'screem'", "'screen'"]),
        ({"screem__depth": 3}, ["'screem'"]),
        ({"screen__depth": 3}, ["'depth'", "FirstColumn"]),
        ({"max_pass_rate": 0.1}, ["'max_pass_rate'"]),
    ],
)
def test_set_params_refuses_unknown_names(params, words):
    cascade = FeedbackCascadeClassifier(two(FirstColumn, FirstColumn))
    with pytest.raises(ValueError) as caught:
        cascade.set_params(**params)
    for word in words:
        assert word in str(caught.value)


# Rows, labels and weights ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows, error, words",
    [
        (X[:0], ValueError, ["0 sample(s)", "minimum of 1"]),
        (FRAME[:0], ValueError, ["0 sample(s)", "minimum of 1"]),
        (X[:, :0], ValueError, ["0 feature(s)", "minimum of 1"]),
        (X[:, 0], ValueError, ["Expected 2D array, got 1D array"]),
        (X[None], ValueError, ["dim 3"]),
        (X[:50], ValueError, ["[50, 60]"]),
        (FRAME[:50], ValueError, ["[50, 60]"]),
        (WITH_NAN, ValueError, ["X contains NaN"]),
        (np.where(np.isnan(WITH_NAN), np.inf, X), ValueError, ["X contains infinity"]),
        (sparse.csr_matrix(X), TypeError, ["Sparse data"]),
        (np.full((N, 3), "a", dtype=object), ValueError, ["could not convert string"]),
        (X * 1j, ValueError, ["Complex data"]),
    ],
    ids=itertools.count(),
)
def test_rows(rows, error, words):
    refuse(error, words, X=rows, y=y[: rows.shape[0]] if rows.shape[0] == 0 else y)


@pytest.mark.parametrize(
    "labels, words",
    [
        (None, ["y"]),
        (y[:50], ["[60, 50]"]),
        (np.where(np.arange(N) == 3, np.nan, y), ["y contains NaN"]),
        (np.where(np.arange(N) == 3, np.inf, y), ["y contains infinity"]),
        (X[:, 0], ["continuous"]),
        (np.column_stack([y, y]), ["(60, 2)"]),
        (ALL, ["1 class"]),
        (np.arange(N) % 3, ["Only binary classification is supported.", "multiclass"]),
    ],
    ids=itertools.count(),
)
@pytest.mark.parametrize("rows", [X, FRAME], ids=["array", "frame"])
def test_labels(rows, labels, words):
    refuse(ValueError, words, X=rows, y=labels)


@pytest.mark.parametrize(
    "params, words",
    [
        ({"pos_label": 1}, ["pos_label=1", "3 classes"]),
        ({"thresholds": RecallFloor()}, ["RecallFloor()", "two classes", "3"]),
        ({"feedback": "gain"}, ["Only binary classification is supported."]),
        ({"thresholds": np.full((2, 2), -np.inf)}, ["shape (2, 3)", "shape (2, 2)"]),
    ],
)
def test_what_has_no_meaning_for_three_classes(params, words):
    refuse(ValueError, words, y=np.arange(N) % 3, **({"feedback": "none"} | params))


@pytest.mark.parametrize(
    "weight, words",
    [
        (NONE, ["ero"]),
        (-ALL, ["Negative values", "sample_weight"]),
        (np.where(y == 1, ALL, NONE), ["1 class"]),
        (np.full(N, np.nan), ["sample_weight contains NaN"]),
        (ALL[:5], ["sample_weight.shape == (5,)", "(60,)"]),
        (ALL[:, None], ["1D array"]),
    ],
    ids=["all zero", "negative", "one class left", "nan", "short", "2D"],
)
def test_weights(weight, words):
    refuse(ValueError, words, sample_weight=weight)


@pytest.mark.parametrize(
    "fit_params, params, words",
    [
        ({"groups": NONE}, {"cv": GroupKFold(2)}, ["n_splits=2", "groups: 1"]),
        ({"groups": ALL[:5]}, {"cv": GroupKFold(2)}, ["inconsistent numbers of samples"]),
        ({"colour": "red"}, {}, ["enable_metadata_routing"]),
    ],
)
def test_fit_parameters(fit_params, params, words):
    refuse(ValueError, words, fit_params=fit_params, **params)


# Promises that cannot be kept -----------------------------------------------------------------


def test_too_few_positives_say_how_many_are_needed():
    floor = RecallFloor(0.9, confidence=0.95)
    refuse(ValueError, ["it needs 29 positives", "0.2"], thresholds=floor, validation_fraction=0.2)


def test_unequal_weights_cannot_be_certified():
    floor = RecallFloor(0.5, confidence=0.6)
    weight = np.linspace(1, 2, N)
    words = ["equally weighted"]
    refuse(ValueError, words, sample_weight=weight, thresholds=floor, validation_fraction=0.4)


def test_cost_budget_without_costs():
    cascade = FeedbackCascadeClassifier(two(FirstColumn, FirstColumn), thresholds=CostBudget(3))
    with pytest.raises(ValueError, match=r"CostBudget\(max_cost=3\) needs .* set stage_costs"):
        cascade.fit(X, y)
    assert fitted_attributes(cascade) == []


def test_no_caught_positive():
    floor = RecallFloor(0.9)
    stages = two(FirstColumn, FirstColumn)
    cascade = FeedbackCascadeClassifier(stages, catch_threshold=1.0, thresholds=floor)
    with pytest.raises(ValueError, match="no caught positive to keep among the 60 rows"):
        cascade.fit(X, y)
    assert fitted_attributes(cascade) == []


# Stages that misbehave ------------------------------------------------------------------------


@pytest.mark.parametrize("breaks_at", [1, 3, 4, 6])
def test_a_stage_that_fails_is_named_in_the_notes(breaks_at):
    Broken.n_fits = 0
    # Two folds and a fit on all rows make three fits of each stage, the last stage's first.
    stages = [("screen", Broken(breaks_at)), ("final", Broken(breaks_at))]
    cascade = FeedbackCascadeClassifier(stages, cv=2)
    with pytest.raises(RuntimeError, match="out of order") as caught:
        cascade.fit(X, y)
    name = ["final", "screen"][breaks_at > 3]
    assert caught.value.__notes__ == [f"This happened in the fit of stage {name!r}."]
    assert fitted_attributes(cascade) == []


def first_nan(proba):
    proba[0] = np.nan
    return proba


def first_infinite(proba):
    proba[0] = [-np.inf, np.inf]
    return proba


def outside(proba):
    return np.add(proba, [0.5, -0.5])


def halved(proba):
    return proba / 2


def three_columns(proba):
    return np.column_stack([proba, proba[:, 0]])


def one_column(proba):
    return proba[:, 1]


def one_row_less(proba):
    return proba[:-1]


@pytest.mark.parametrize(
    "change, words",
    [
        (first_nan, ["nan or infinite"]),
        (first_infinite, ["nan or infinite"]),
        (three_columns, ["shape (30, 2)", "(30, 3)"]),
        (one_column, ["shape (30, 2)", "(30,)"]),
        (one_row_less, []),
        # Decision values passed off as probabilities would come out of a calibration as nan.
        (outside, []),
        (halved, []),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_scores_that_are_no_probabilities_are_refused(change, words, place):
    stages = two(FirstColumn, FirstColumn)
    stages[place] = ("odd", Answers(change))
    cascade = FeedbackCascadeClassifier(stages, cv=2, thresholds=0.5)
    with pytest.raises(ValueError) as caught:
        cascade.fit(X, y)
    message = str(caught.value)
    for word in ["'odd'", *words]:
        assert word in message
    assert fitted_attributes(cascade) == []


def only_large_batches(proba):
    return first_nan(proba) if len(proba) > 40 else proba


@pytest.mark.parametrize("place", [0, 1])
def test_nan_scores_are_refused_after_the_fit(place):
    stages = two(FirstColumn, FirstColumn)
    stages[place] = ("odd", Answers(only_large_batches))
    cascade = FeedbackCascadeClassifier(stages, cv=2, thresholds=-1.0).fit(X, y)
    with pytest.raises(ValueError, match="Stage 'odd' gave scores that are nan or infinite"):
        cascade.predict(X)


@pytest.mark.parametrize(
    "weights, words",
    [
        (lambda y, p, t: np.ones(3), ["weights of shape (60,)", "shape (3,)"]),
        (lambda y, p, t: None, ["weights >= 0, one for each of 60 rows", "NoneType"]),
        (lambda y, p, t: -np.ones(len(y)), ["weights >= 0", "-1.0"]),
        (lambda y, p, t: np.full(len(y), np.nan), ["finite", "nan"]),
        (lambda y, p, t: np.zeros(len(y)), ["not all of them 0", "0.0"]),
        (lambda y, p, t: ["a"] * len(y), ["callable", "list"]),
    ],
    ids=["short", "None", "negative", "nan", "zero", "text"],
)
def test_weights_of_a_feedback_callable(weights, words):
    # Only the last stage is fitted when they are known.
    stages = two(Untouchable, FirstColumn)
    refuse((TypeError, ValueError), words, stages=stages, feedback=weights)


def test_gain_that_leaves_a_fold_with_one_class_is_no_riddle():
    # One positive alone is worth passing; the fold that holds it out has no target to learn.
    rows = np.column_stack([np.where(np.arange(N) == 0, 5.0, -1.0), X[:, 1:]])
    labels = (np.arange(N) < 6).astype(int)
    stages = [("screen", LogisticRegression()), ("final", FirstColumn())]
    feedback = GainFeedback(temperature=0.01)
    cascade = FeedbackCascadeClassifier(stages, cv=2, feedback=feedback, thresholds=PassBudget(0.5))
    with pytest.warns(UserWarning, match="feedback"):
        cascade.fit(rows, labels)
    assert np.isfinite(cascade.predict_proba(rows)).all()


# A refit that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params, labels",
    [
        ({"cv": 1}, y),
        ({"stages": 5}, y),
        ({}, ALL),
        ({"thresholds": PassBudget(2)}, y),
        ({"stages": [("a", FirstColumn()), ("b", Broken(1))]}, y),
    ],
    ids=["cv", "stages", "labels", "policy", "stage"],
)
def test_a_refit_that_fails_leaves_the_estimator_unfitted(params, labels):
    Broken.n_fits = 0
    cascade = fitted(store_oof=True, stage_costs=[1, 2]).set_params(**params)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        cascade.fit(X, labels)
    assert fitted_attributes(cascade) == []
    for method in ("predict", "route", "report", "stage_proba"):
        with pytest.raises(NotFittedError):
            getattr(cascade, method)(X)


# After the fit --------------------------------------------------------------------------------


METHODS = {
    "predict": lambda cascade, X: cascade.predict(X),
    "predict_proba": lambda cascade, X: cascade.predict_proba(X),
    "route": lambda cascade, X: cascade.route(X),
    "stage_proba": lambda cascade, X: cascade.stage_proba(X),
    "staged_predict_proba": lambda cascade, X: list(cascade.staged_predict_proba(X)),
    "report": lambda cascade, X: cascade.report(X),
    "measure_costs": lambda cascade, X: cascade.measure_costs(X),
    "tune_thresholds": lambda cascade, X: cascade.tune_thresholds(X, y, thresholds=0.5),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "rows, error, match",
    [
        (X[:, :2], ValueError, "2 features, but .* 3 features"),
        (np.column_stack([X, X]), ValueError, "6 features, but .* 3 features"),
        (X[:0], ValueError, r"0 sample\(s\)"),
        (X[0], ValueError, "Expected 2D array"),
        (WITH_NAN, ValueError, "X contains NaN"),
        (sparse.csr_matrix(X), TypeError, "Sparse data"),
    ],
    ids=["fewer columns", "more columns", "no rows", "1D", "nan", "sparse"],
)
def test_rows_after_the_fit(method, rows, error, match):
    with pytest.raises(error, match=match):
        METHODS[method](fitted(cv=2), rows)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "rows, match",
    [
        (FRAME[["p", "q"]], "feature names should match"),
        (FRAME[["q", "p", "r"]], "feature names should match"),
        (FRAME.rename(columns={"p": "z"}), "feature names should match"),
        (FRAME[:0], r"0 sample\(s\)"),
    ],
    ids=["fewer columns", "other order", "other names", "no rows"],
)
def test_frames_after_the_fit(method, rows, match):
    cascade = FeedbackCascadeClassifier(two(FirstColumn, FirstColumn), cv=2, thresholds=0.5)
    cascade.fit(FRAME, y)
    with pytest.raises(ValueError, match=match):
        METHODS[method](cascade, rows)


@pytest.mark.parametrize("method", ["report", "tune_thresholds"])
@pytest.mark.parametrize(
    "labels, match",
    [
        (y + 5, r"labels that were not seen in fit: \[5 6\]; known are \[0 1\]"),
        (np.array(["a"] * N), r"labels that were not seen in fit: \['a'\]"),
        (y[:5], r"y must have shape \(60,\); got \(5,\)"),
        (y[:, None], r"y must have shape \(60,\); got \(60, 1\)"),
        (np.where(y == 1, np.nan, 0), "y contains NaN"),
    ],
    ids=["unknown", "text", "short", "2D", "nan"],
)
def test_labels_after_the_fit(method, labels, match):
    params = {"report": {}, "tune_thresholds": {"thresholds": 0.5}}[method]
    with pytest.raises(ValueError, match=match):
        getattr(fitted(cv=2), method)(X, labels, **params)


def test_tuning_needs_labels():
    with pytest.raises(ValueError, match=r"thresholds=RecallFloor.* requires y to be passed"):
        fitted(cv=2).tune_thresholds(X, None, thresholds=RecallFloor(0.9))


@pytest.mark.parametrize("method", ["report", "tune_thresholds"])
@pytest.mark.parametrize(
    "weight, match",
    [
        (NONE, "ero"),
        (-ALL, "Negative values"),
        (ALL[:5], r"sample_weight.shape == \(5,\)"),
        (np.full(N, np.nan), "sample_weight contains NaN"),
    ],
    ids=["zero", "negative", "short", "nan"],
)
def test_weights_after_the_fit(method, weight, match):
    params = {"report": {}, "tune_thresholds": {"thresholds": 0.5}}[method]
    with pytest.raises(ValueError, match=match):
        getattr(fitted(cv=2), method)(X, y, sample_weight=weight, **params)


@pytest.mark.parametrize(
    "thresholds, labels, match",
    [
        ("high", y, "thresholds must be"),
        ([0.5, 0.5], y, r"shape \(2,\)"),
        (np.nan, y, "must not hold nan"),
        (PassBudget, y, "thresholds must be"),
        (PassBudget(2), y, "max_pass_rate"),
        (PassBudget([0.2, 0.1]), y, "max_pass_rate"),
        (CostBudget(0.5), y, "max_cost=0.5 cannot be met"),
        (RecallFloor(0.99, confidence=0.95), y, "it needs 299 caught positives"),
        (RecallFloor(0.9), NONE, "no caught positive"),
    ],
    ids=itertools.count(),
)
def test_tuning_that_fails_changes_nothing(thresholds, labels, match):
    cascade = fitted(cv=2, stage_costs=[1, 2])
    before = copy.deepcopy(cascade.thresholds_)
    with pytest.raises((TypeError, ValueError), match=match):
        cascade.tune_thresholds(X, labels, thresholds=thresholds)
    np.testing.assert_array_equal(cascade.thresholds_, before)


@pytest.mark.parametrize("n_repeats", [0, -1, "a"])
def test_measuring_needs_repeats(n_repeats):
    with pytest.raises((TypeError, ValueError), match="n_repeats"):
        fitted(cv=2).measure_costs(X, n_repeats=n_repeats)


@pytest.mark.parametrize("method", METHODS)
def test_unfitted(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        METHODS[method](FeedbackCascadeClassifier(), X)
