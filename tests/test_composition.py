"""A cascade among the rest: inside scikit-learn's tools, around any stage, on any input.

Expected values are computed by other means wherever there are any; what is only run is marked by
its name ("..._runs").
"""

import copy
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from packaging.version import Version
from sklearn import __version__ as sklearn_version
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    TimeSeriesSplit,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier

import skmsc
from skmsc import (
    Agreement,
    CaughtFeedback,
    FeedbackCascadeClassifier,
    GainFeedback,
    PassBudget,
    RecallFloor,
)
from skmsc.metrics import neg_mean_cost_scorer, neg_pass_rate_scorer, retained_recall_scorer

since_1_7 = pytest.mark.skipif(
    Version(sklearn_version) < Version("1.7"), reason="needs scikit-learn 1.7"
)
X, y = make_classification(
    300, 6, n_informative=4, n_redundant=0, weights=[0.8], flip_y=0.05, random_state=0
)
GROUPS = np.arange(len(y)) // 5
WEIGHT = np.random.default_rng(0).uniform(0.5, 2.0, len(y))
X3, y3 = make_classification(300, 6, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
NAMES = [f"amount_{i}" for i in range(X.shape[1])]


def logistic(**params):
    return LogisticRegression(**params)


def tree():
    return DecisionTreeClassifier(max_depth=3)


def scaled(model=None):
    return make_pipeline(StandardScaler(), logistic() if model is None else model)


def cascade(screen=None, final=None, **params):
    """A small, fast cascade of a scaled logistic regression and a tree."""
    stages = [("screen", scaled() if screen is None else screen)]
    stages.append(("final", tree() if final is None else final))
    defaults = {"thresholds": PassBudget(0.4), "cv": 3, "random_state": 0}
    return FeedbackCascadeClassifier(stages, **(defaults | params))


def proba_of(model, X=X, y=y, **fit_params):
    """Probabilities of the rows that a clone of the model is fitted on."""
    return clone(model).fit(X, y, **fit_params).predict_proba(X)


class CountedTree(DecisionTreeClassifier):
    """A tree that counts its fits."""

    fits = 0

    def fit(self, X, y, sample_weight=None, check_input=True):
        type(self).fits += 1
        return super().fit(X, y, sample_weight=sample_weight, check_input=check_input)


class Recorder(LogisticRegression):
    """A classifier that keeps what its fits were handed: (X, weights, amount, note)."""

    seen = []

    def fit(self, X, y, sample_weight=None, amount=None, note=None):
        self.seen.append((X, sample_weight, amount, note))
        return super().fit(X, y, sample_weight)


class RecordingNeighbors(KNeighborsClassifier):
    """A classifier that takes no weights and keeps what its fits were handed."""

    def fit(self, X, y, amount=None, note=None):
        Recorder.seen.append((X, None, amount, note))
        return super().fit(X, y)


class RecordingScaler(StandardScaler):
    """A scaler that keeps the weights that its fits were handed."""

    seen = []

    def fit(self, X, y=None, sample_weight=None):
        self.seen.append(sample_weight)
        return super().fit(X, y, sample_weight)


class CostlyColumns(TransformerMixin, BaseEstimator):
    """Keeps the given columns and counts the rows that it is asked for."""

    rows = []

    def __init__(self, columns):
        self.columns = columns

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        self.rows.append(X)
        return X[self.columns]


@pytest.fixture(autouse=True)
def forget():
    """Every test starts with empty records."""
    CountedTree.fits = 0
    for recorder in (Recorder.seen, RecordingScaler.seen, CostlyColumns.rows):
        recorder.clear()


@pytest.fixture
def routing():
    """Metadata routing is on."""
    with config_context(enable_metadata_routing=True):
        yield


# ---------------------------------------------------------------------------------------------
# Searches
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "grid"),
    [
        (cascade(), {"screen__logisticregression__C": [0.01, 1.0], "final__max_depth": [2]}),
        (cascade(), {"thresholds": [0.1, 0.3, PassBudget(0.2), RecallFloor(0.8)]}),
        (cascade(), {"thresholds__max_pass_rate": [0.1, 0.5]}),
        (cascade(thresholds=RecallFloor(0.8)), {"thresholds__of": ["caught", "positives"]}),
        (cascade(), {"feedback": ["caught", "gain", "none", CaughtFeedback(0.5), GainFeedback()]}),
        (cascade(feedback=CaughtFeedback()), {"feedback__strength": [0.0, 0.5, 1.0]}),
        (cascade(feedback=GainFeedback()), {"feedback__temperature": [0.5, 2.0]}),
        (cascade(), {"final": [tree(), logistic(), "drop"], "screen": [logistic()]}),
        (cascade(), {"screen": ["drop", logistic()]}),
        (cascade(), {"stages": [[("only", tree())], [("a", logistic()), ("b", tree())]]}),
        (cascade(), {"survivor_rate": [None, 0.5], "calibration": ["isotonic", None]}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_search_scores_what_a_loop_scores(model, grid):
    scoring = ["average_precision", "roc_auc"]
    search = GridSearchCV(model, grid, scoring=scoring, cv=2, refit=False, error_score="raise")
    results = search.fit(X, y).cv_results_
    expected = [
        cross_validate(clone(model).set_params(**params), X, y, scoring=scoring, cv=2)
        for params in results["params"]
    ]
    for metric in scoring:
        means = [scores[f"test_{metric}"].mean() for scores in expected]
        assert np.isfinite(means).all()
        np.testing.assert_allclose(results[f"mean_test_{metric}"], means)


def test_search_with_the_reporting_scorers():
    model = cascade(stage_costs=[1, 10])
    scoring = {
        "pass": neg_pass_rate_scorer,
        "cost": neg_mean_cost_scorer,
        "recall": retained_recall_scorer,
    }
    search = GridSearchCV(
        model, {"thresholds": [0.0, 0.2, 1.0]}, scoring=scoring, refit=False, cv=2
    )
    results = search.fit(X, y).cv_results_
    passed = []
    for train, test in StratifiedKFold(2).split(X, y):
        stage = clone(model).set_params(thresholds=0.2).fit(X[train], y[train]).route(X[test]).stage
        passed.append(stage.mean())
    np.testing.assert_allclose(-results["mean_test_pass"], [1, np.mean(passed), 0])
    np.testing.assert_allclose(-results["mean_test_cost"], [11, 1 + 10 * np.mean(passed), 1])
    assert results["mean_test_recall"][0] == 1
    assert results["mean_test_recall"][2] == 0


def test_memory_makes_a_search_over_thresholds_fit_nothing_twice(tmp_path):
    model = cascade(scaled(Recorder()), Recorder(C=0.1), memory=str(tmp_path))
    grid = {"thresholds": [*np.linspace(0.05, 0.9, 19), PassBudget(0.3)]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    # 2 stages, each 3 folds and all rows, for 2 outer splits and the refit
    assert len(Recorder.seen) == 2 * (3 + 1) * (2 + 1)
    uncached = clone(search.best_estimator_).set_params(memory=None)
    np.testing.assert_array_equal(proba_of(uncached), search.predict_proba(X))


# ---------------------------------------------------------------------------------------------
# scikit-learn's meta-estimators
# ---------------------------------------------------------------------------------------------


def test_pipeline_in_front_is_transforming_first():
    pipeline = make_pipeline(StandardScaler(), cascade(logistic())).fit(X, y)
    Z = StandardScaler().fit_transform(X)
    expected = cascade(logistic()).fit(Z, y)
    np.testing.assert_array_equal(pipeline.predict_proba(X), expected.predict_proba(Z))
    np.testing.assert_array_equal(skmsc.route(pipeline, X).stage, expected.route(Z).stage)


def test_cross_val_predict_is_a_loop():
    expected = np.empty((len(y), 2))
    for train, test in StratifiedKFold(3).split(X, y):
        expected[test] = cascade().fit(X[train], y[train]).predict_proba(X[test])
    actual = cross_val_predict(cascade(), X, y, cv=3, method="predict_proba")
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibrated_classifier_holds_cascades_of_the_folds(method):
    calibrated = CalibratedClassifierCV(cascade(), method=method, cv=2).fit(X, y)
    for (train, _), member in zip(
        StratifiedKFold(2).split(X, y), calibrated.calibrated_classifiers_, strict=True
    ):
        expected = cascade().fit(X[train], y[train]).predict_proba(X)
        np.testing.assert_array_equal(member.estimator.predict_proba(X), expected)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


def test_calibrated_classifier_around_a_frozen_cascade():
    fitted = cascade().fit(X, y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), ensemble=False).fit(X, y)
    (member,) = calibrated.calibrated_classifiers_
    np.testing.assert_array_equal(member.estimator.predict_proba(X), fitted.predict_proba(X))


def test_fixed_and_tuned_thresholds_cut_predict_proba():
    expected = proba_of(cascade())[:, 1]
    fixed = FixedThresholdClassifier(cascade(), threshold=0.2).fit(X, y)
    tuned = TunedThresholdClassifierCV(cascade(), cv=2).fit(X, y)
    np.testing.assert_array_equal(fixed.predict(X), expected >= 0.2)
    np.testing.assert_array_equal(tuned.predict(X), expected >= tuned.best_threshold_)
    np.testing.assert_array_equal(skmsc.route(fixed, X).stage, skmsc.route(tuned, X).stage)


def test_voting_averages_and_stacking_reads_a_cascade():
    members = [("cascade", cascade()), ("tree", DecisionTreeClassifier(max_depth=2))]
    voting = VotingClassifier(members, voting="soft").fit(X, y)
    expected = np.mean([proba_of(model) for _, model in members], axis=0)
    np.testing.assert_allclose(voting.predict_proba(X), expected)
    stacking = StackingClassifier(members, cv=2).fit(X, y)
    np.testing.assert_array_equal(stacking.transform(X)[:, 0], proba_of(cascade())[:, 1])


@pytest.mark.filterwarnings("ignore:The positive class .* is the more frequent one:UserWarning")
def test_one_vs_rest_of_cascades():
    model = OneVsRestClassifier(cascade()).fit(X3, y3)
    raw = np.column_stack([proba_of(cascade(), X3, y3 == label)[:, 1] for label in range(3)])
    np.testing.assert_allclose(model.predict_proba(X3), raw / raw.sum(axis=1, keepdims=True))


# ---------------------------------------------------------------------------------------------
# Any classifier as a stage
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage",
    [
        BaggingClassifier(tree(), n_estimators=2, random_state=0),
        CalibratedClassifierCV(logistic(), cv=2),
        FixedThresholdClassifier(logistic(), threshold=0.3),
        GridSearchCV(logistic(), {"C": [0.1, 1.0]}, cv=2),
        LinearSVC(),
        OneVsRestClassifier(logistic()),
        StackingClassifier([("tree", tree())], cv=2),
        StackingClassifier([("tree", tree())], final_estimator=logistic(), cv=2),
        VotingClassifier([("tree", tree()), ("logistic", logistic())], voting="soft"),
        cascade(),
        make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), cascade())),
    ],
    ids=lambda stage: type(stage).__name__,
)
@pytest.mark.parametrize("metadata_routing", [False, True])
def test_meta_estimator_as_a_stage(stage, metadata_routing):
    with config_context(enable_metadata_routing=metadata_routing):
        first = cascade(stage, feedback="none", thresholds=0.3).fit(X, y)
        last = cascade(final=stage, feedback="none", calibration=None).fit(X, y)
    np.testing.assert_allclose(first.stage_proba(X)[:, 0], last.stage_proba(X)[:, 1], atol=0.2)
    passed = last.route(X).stage == 1
    assert 0 < passed.mean() < 0.6
    np.testing.assert_array_equal(last.predict_proba(X)[passed], last.stage_proba(X)[passed, 1])
    fitted = last.named_stages_["final"]
    decided = last.predict(X)[passed] == fitted.predict(X)[passed]
    assert decided.mean() > 0.9 or isinstance(stage, FixedThresholdClassifier)


@pytest.mark.parametrize(
    "stage",
    [
        BaggingClassifier(logistic(), n_estimators=2),
        CalibratedClassifierCV(logistic(), cv=2),
        cascade(),
        make_pipeline(StandardScaler(), CalibratedClassifierCV(logistic(), cv=2)),
        make_pipeline(StandardScaler(), cascade()),
        make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), logistic())),
    ],
    ids=lambda stage: type(stage).__name__,
)
def test_weights_reach_a_meta_estimator_with_routing_as_without(stage):
    model = cascade(stage, feedback="caught")
    expected = proba_of(model, sample_weight=WEIGHT)
    with config_context(enable_metadata_routing=True):
        np.testing.assert_array_equal(proba_of(model, sample_weight=WEIGHT), expected)


def test_cascade_as_a_stage_of_a_cascade():
    outer = cascade(cascade(final=logistic()), logistic(), feedback="none", thresholds=0.3)
    outer.set_params(screen__thresholds__max_pass_rate=0.3).fit(X, y)
    inner = outer.named_stages_["screen"]
    assert isinstance(inner, FeedbackCascadeClassifier)
    np.testing.assert_array_equal(outer.stage_proba(X)[:, 0], inner.predict_proba(X))
    assert outer.get_params()["screen__screen__logisticregression__C"] == 1.0
    outer.set_params(screen__screen="drop").fit(X, y)
    assert list(outer.named_stages_["screen"].named_stages_) == ["final"]


def test_changing_the_screen_leaves_the_last_stage_as_it_is():
    forest = RandomForestClassifier(5)
    first = cascade(logistic(), forest).fit(X, y)
    second = cascade(tree(), forest, feedback="none", thresholds=0.3).fit(X, y)
    third = FeedbackCascadeClassifier(
        [("a", tree()), ("b", logistic()), ("final", forest)], thresholds=0.3, random_state=0, cv=3
    ).fit(X, y)
    expected = first.named_stages_["final"].predict_proba(X)
    for other in (second, third):
        np.testing.assert_array_equal(other.named_stages_["final"].predict_proba(X), expected)
    renamed = FeedbackCascadeClassifier([("a", tree()), ("b", forest)], random_state=0, cv=3)
    last = renamed.set_params(thresholds=0.3).fit(X, y).named_stages_["b"]
    assert not np.array_equal(last.predict_proba(X), expected)


def test_frozen_stages_are_not_fitted_again():
    screen = CountedTree(max_depth=2).fit(X, y)
    final = CountedTree(max_depth=4).fit(X, y)
    model = cascade(FrozenEstimator(screen), FrozenEstimator(final), store_oof=True)
    model.set_params(thresholds=0.2).fit(X, y)
    assert CountedTree.fits == 2
    assert [stage.estimator for stage in model.stages_] == [screen, final]
    np.testing.assert_array_equal(model.oof_stage_proba_[:, 0], screen.predict_proba(X))
    np.testing.assert_array_equal(model.stage_proba(X)[:, 1], final.predict_proba(X))


def test_frozen_stage_of_other_classes_is_refused_and_unfitted_ones_say_so():
    with pytest.raises(ValueError, match=r"Stage 'screen' was fitted on the classes \[5 6\], but"):
        cascade(FrozenEstimator(logistic().fit(X, y + 5))).fit(X, y)
    with pytest.raises(NotFittedError):
        cascade(FrozenEstimator(logistic())).fit(X, y)


# ---------------------------------------------------------------------------------------------
# Copies and representations
# ---------------------------------------------------------------------------------------------


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("copied", [pickled, copy.deepcopy])
@pytest.mark.parametrize(
    "params", [{}, {"calibration": "isotonic"}, {"survivor_rate": 0.5}, {"store_oof": True}]
)
def test_copies_predict_the_same(copied, params):
    model = cascade(LinearSVC(), **params).fit(X, y)
    twin = copied(model)
    np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))
    assert repr(twin.report(X, y)) == repr(model.report(X, y))


def test_pickle_after_joblib_dump(tmp_path):
    model = cascade().fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    twin = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))


def test_clone_is_unfitted_and_equal():
    model = cascade(feedback=GainFeedback(0.5), stage_costs={"screen": 1, "final": 5}).fit(X, y)
    twin = clone(model)
    assert not [name for name in vars(twin) if name.endswith("_")]
    assert twin.get_params()["feedback__strength"] == 0.5
    assert twin.stages[0][1] is not model.stages[0][1]
    np.testing.assert_array_equal(proba_of(twin), model.predict_proba(X))


@pytest.mark.parametrize(
    "model",
    [
        cascade(),
        FeedbackCascadeClassifier(),
        cascade().set_params(screen="drop"),
        cascade(thresholds=RecallFloor(0.9), feedback=GainFeedback()),
        cascade(cascade()),
    ],
)
@pytest.mark.filterwarnings("ignore:A recall of .* needs more than max_pass_rate=:UserWarning")
def test_representations_before_and_after_fit(model):
    model = clone(model)
    text = repr(model)
    assert text.startswith("FeedbackCascadeClassifier(")
    assert "FeedbackCascadeClassifier" in model._repr_html_()
    model.fit(X, y)
    assert repr(model) == text
    assert "fitted" in model._repr_html_()


def test_html_shows_the_stages_by_name():
    html = cascade()._repr_html_()
    assert all(text in html for text in ("screen", "final", "LogisticRegression", "DecisionTree"))


@pytest.mark.parametrize("stages", ["x", [1, 2], [("a", logistic()), 3], []])
def test_bad_stages_are_shown_and_cloned_but_not_fitted(stages):
    model = clone(FeedbackCascadeClassifier(stages))
    assert "FeedbackCascadeClassifier" in repr(model) + model._repr_html_()
    with pytest.raises((TypeError, ValueError), match="stages must be a list of"):
        model.fit(X, y)


def test_stages_in_a_tuple_are_refused_since_they_cannot_be_replaced_by_name():
    model = FeedbackCascadeClassifier((("screen", logistic()), ("final", tree())))
    with pytest.raises(TypeError, match="stages must be a list of"):
        model.fit(X, y)


# ---------------------------------------------------------------------------------------------
# Splitters
# ---------------------------------------------------------------------------------------------

SPLITTERS = [
    3,
    KFold(3),
    KFold(3, shuffle=True, random_state=0),
    TimeSeriesSplit(3),
    GroupKFold(3),
    StratifiedGroupKFold(3),
    RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0),
    ShuffleSplit(3, test_size=0.2, random_state=0),
    PredefinedSplit(np.arange(len(y)) % 4 - 1),
    list(KFold(3).split(X)),
    [(np.arange(len(y)) < 200, np.arange(len(y)) >= 150)],  # masks that overlap
]


@pytest.mark.parametrize("cv", SPLITTERS, ids=lambda cv: type(cv).__name__)
def test_any_splitter_inside(cv):
    groups = {"groups": GROUPS} if "Group" in type(cv).__name__ else {}
    model = cascade(logistic(C=0.1), logistic(), cv=cv, feedback="none", store_oof=True)
    oof = model.fit(X, y, **groups).oof_stage_proba_
    splits = {int: StratifiedKFold(3)}.get(type(cv), cv)
    splits = splits if isinstance(splits, list) else splits.split(X, y, **groups)
    total, count = np.zeros((len(y), 2, 2)), np.zeros(len(y))
    for train, test in splits:
        for k, C in enumerate([0.1, 1.0]):
            total[test, k] += logistic(C=C).fit(X[train], y[train]).predict_proba(X[test])
        count[test] += 1
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(oof, total / count[:, None, None])
    scored = count > 0
    passed = (oof[scored, 0, 0] < model.thresholds_[0, 0]).mean()
    assert 0.4 - 1.01 / scored.sum() <= passed <= 0.4


@pytest.mark.parametrize("cv", SPLITTERS[:1] + SPLITTERS[3:7] + SPLITTERS[8:10], ids=str)
def test_any_splitter_outside_runs(cv):
    groups = {"groups": GROUPS} if "Group" in str(cv) else {}
    search = GridSearchCV(cascade(), {"thresholds": [0.1, 0.3]}, cv=cv, error_score="raise")
    assert np.isfinite(search.fit(X, y, **groups).cv_results_["mean_test_score"]).all()


def test_hold_out_of_whole_groups_and_of_the_last_rows():
    groups = np.random.default_rng(0).permutation(GROUPS)
    model = cascade(cv=GroupKFold(3), validation_fraction=0.3, store_oof=True)
    held = np.isnan(model.fit(X, y, groups=groups).feedback_weights_[:, 0])
    assert held.mean() == pytest.approx(0.3, abs=0.02)
    assert not set(groups[held]) & set(groups[~held])
    model = cascade(cv=TimeSeriesSplit(3), validation_fraction=0.25, store_oof=True).fit(X, y)
    held = np.isnan(model.feedback_weights_[:, 0])
    np.testing.assert_array_equal(np.flatnonzero(held), np.arange(225, 300))


def test_generator_of_splits_is_read_once():
    expected = proba_of(cascade(cv=list(KFold(3).split(X))))
    model = cascade(cv=KFold(3).split(X))
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), expected)
    with pytest.raises(ValueError, match="cv gives no split"):
        model.fit(X, y)


def test_asking_for_the_routing_does_not_use_a_generator_up(routing):
    pipeline = Pipeline([("scaler", StandardScaler()), ("cascade", cascade(cv=KFold(3).split(X)))])
    assert pipeline.fit(X, y, sample_weight=None).predict(X).shape == y.shape
    model = cascade(cv=KFold(3).split(X))
    model.get_metadata_routing()
    model.fit(X, y)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (1, "n_splits=1"),
        (2.5, "Expected `?cv`? as an integer"),
        ("abc", "Expected `?cv`? as an integer"),
        ([], "cv gives no split"),
        ([([0, 1], [300])], "must hold indices from 0 to 299"),
        ([(np.flatnonzero(y == 0), np.flatnonzero(y == 1))], "holds no row of class 1"),
        ([(np.arange(300), np.flatnonzero(y == 0))], "scores no row of the positive class 1"),
        (GroupKFold(3), "'groups' parameter should not be None"),
    ],
    ids=str,
)
def test_bad_splits_raise_before_any_fit(cv, message):
    model = cascade(CountedTree(), CountedTree(), cv=cv)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    assert CountedTree.fits == 0
    assert not hasattr(model, "classes_")


# ---------------------------------------------------------------------------------------------
# Metadata routing
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, WEIGHT, np.where(np.arange(len(y)) % 3, 1.0, 0.0)])
def test_routing_on_changes_nothing_by_itself(weight):
    expected = proba_of(cascade(), sample_weight=weight)
    with config_context(enable_metadata_routing=True):
        np.testing.assert_array_equal(proba_of(cascade(), sample_weight=weight), expected)


@since_1_7
def test_weights_and_groups_through_pipeline_and_search(routing):
    inner = cascade(logistic(), cv=GroupKFold(3)).set_fit_request(sample_weight=True)
    scaler = StandardScaler().set_fit_request(sample_weight=True)
    pipeline = Pipeline(
        [("scaler", scaler), ("cascade", inner.set_score_request(sample_weight=True))]
    )
    search = GridSearchCV(pipeline, {"cascade__thresholds": [0.2]}, cv=GroupKFold(2))
    search.fit(X, y, sample_weight=WEIGHT, groups=GROUPS)
    Z = StandardScaler().fit(X, sample_weight=WEIGHT).transform(X)
    by_hand = cascade(logistic(), cv=list(GroupKFold(3).split(X, y, GROUPS)), thresholds=0.2)
    expected = by_hand.fit(Z, y, sample_weight=WEIGHT).predict_proba(Z)
    np.testing.assert_allclose(search.predict_proba(X), expected)


@pytest.mark.parametrize("wrap", [lambda model: model, scaled], ids=["bare", "pipeline"])
def test_extra_fit_parameters_reach_the_stage_that_asks(routing, wrap):
    stage = Recorder().set_fit_request(amount=True, note=True)
    model = cascade(wrap(stage), feedback="none", cv=KFold(3))
    rows = np.arange(len(y), dtype=float)
    model.fit(X, y, sample_weight=rows + 1, amount=rows, note="from the caller")
    expected = [rows, *(rows[train] for train, _ in KFold(3).split(X))]
    assert len(Recorder.seen) == 4
    for (_, weight, amount, note), idx in zip(Recorder.seen, expected, strict=True):
        np.testing.assert_array_equal(amount, idx)
        np.testing.assert_array_equal(weight, idx + 1)
        assert note == "from the caller"


@pytest.mark.parametrize("params", [{}, {"validation_fraction": 0.3}, {"survivor_rate": 0.5}])
@pytest.mark.parametrize("share", [0.0, 0.3], ids=["no zero weights", "zero weights"])
@pytest.mark.parametrize("stage", [Recorder(), RecordingNeighbors()], ids=["weighs", "resamples"])
@pytest.mark.filterwarnings("ignore:Stage 'final' .* takes no sample_weight:UserWarning")
def test_fit_parameters_stay_beside_their_rows(routing, stage, share, params):
    weight = WEIGHT * (np.random.default_rng(0).random(len(y)) >= share)
    model = cascade(final=clone(stage).set_fit_request(amount=True), **params)
    model.fit(X, y, sample_weight=weight, amount=X[:, 0])
    assert len(Recorder.seen) >= 4
    for rows, _, amount, _ in Recorder.seen:
        np.testing.assert_array_equal(amount, rows[:, 0])


@pytest.mark.filterwarnings("ignore:Stage 'final' .* takes no sample_weight:UserWarning")
def test_fit_parameter_that_has_no_rows_reaches_a_resampled_stage(routing):
    model = cascade(final=RecordingNeighbors().set_fit_request(note=True))
    model.fit(X, y, sample_weight=WEIGHT, note="a scalar")
    assert [note for *_, note in Recorder.seen] == ["a scalar"] * 4


@pytest.mark.parametrize("metadata_routing", [False, True])
@pytest.mark.parametrize("feedback", ["none", "caught"])
def test_weights_reach_the_scaler_and_feedback_the_classifier(metadata_routing, feedback):
    with config_context(enable_metadata_routing=metadata_routing):
        screen = make_pipeline(RecordingScaler(), Recorder())
        model = cascade(screen, logistic(), feedback=feedback, store_oof=True)
        model.fit(X, y, sample_weight=WEIGHT)
    np.testing.assert_array_equal(RecordingScaler.seen[0], WEIGHT)
    expected = WEIGHT * model.feedback_weights_[:, 0]
    np.testing.assert_allclose(Recorder.seen[0][1], expected)
    assert (np.ptp(model.feedback_weights_[:, 0]) > 0) == (feedback == "caught")


def test_scaler_that_declines_weights_gets_none(routing):
    scaler = RecordingScaler().set_fit_request(sample_weight=False)
    cascade(make_pipeline(scaler, logistic())).fit(X, y, sample_weight=WEIGHT)
    assert RecordingScaler.seen == [None] * 4


@pytest.mark.parametrize(
    ("metadata_routing", "error", "message"),
    [(False, ValueError, "enable_metadata_routing=True"), (True, TypeError, "not routed")],
)
def test_unknown_fit_parameters_raise(metadata_routing, error, message):
    with config_context(enable_metadata_routing=metadata_routing):
        with pytest.raises(error, match=message):
            cascade(CountedTree()).fit(X, y, foo=3)
    assert CountedTree.fits == 0


# ---------------------------------------------------------------------------------------------
# DataFrames, sparse matrices, missing values
# ---------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(X, columns=NAMES).assign(
    country=np.array(["de", "fr", None], dtype=object)[np.arange(len(y)) % 3]
)
FRAME.loc[::7, "amount_0"] = np.nan


def encoded(model):
    """A stage that encodes countries and fills gaps."""
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["country"]),
        (make_pipeline(SimpleImputer(), StandardScaler()), NAMES),
    )
    return make_pipeline(columns, model)


@pytest.mark.parametrize(
    "frame", [FRAME, pl.from_pandas(FRAME).with_columns(pl.col("amount_0").fill_null(np.nan))]
)
def test_dataframes_with_strings_and_gaps(frame):
    model = cascade(encoded(logistic()), encoded(tree()), store_oof=True, feedback="none")
    model.fit(frame, y)
    assert model.feature_names_in_.tolist() == [*NAMES, "country"]
    by_hand = encoded(logistic()).fit(frame, y).predict_proba(frame)
    np.testing.assert_allclose(model.stage_proba(frame)[:, 0], by_hand)
    np.testing.assert_array_equal(model.predict(frame), model.predict(FRAME))


@pytest.mark.parametrize("to_frame", [pd.DataFrame, pl.DataFrame])
def test_dataframe_is_the_array_with_names(to_frame):
    frame = to_frame(dict(zip(NAMES, X.T, strict=True)))
    model = cascade().fit(frame, y)
    np.testing.assert_allclose(model.predict_proba(frame), proba_of(cascade()))
    np.testing.assert_array_equal(model.feature_names_in_, NAMES)


def test_wrong_names_and_counts():
    frame = pd.DataFrame(X, columns=NAMES)
    model = cascade().fit(frame, y)
    with pytest.raises(ValueError, match="must be in the same order"):
        model.predict(frame[NAMES[::-1]])
    with pytest.raises(ValueError, match="unseen at fit time"):
        model.predict(frame.rename(columns={"amount_0": "other"}))
    with pytest.raises(ValueError, match="now missing"):
        model.predict(frame.drop(columns="amount_0"))
    with pytest.warns(UserWarning, match="X does not have valid feature names") as caught:
        model.predict(X)
    assert "FeedbackCascadeClassifier was fitted with" in str(caught[0].message)
    unnamed = cascade().fit(X, y)
    assert not hasattr(unnamed, "feature_names_in_")
    with pytest.warns(UserWarning, match="fitted without feature names"):
        unnamed.predict(frame)
    with pytest.raises(ValueError, match="X has 5 features, but FeedbackCascadeClassifier"):
        unnamed.predict(X[:, :5])


@pytest.mark.parametrize("to_sparse", [sp.csr_matrix, sp.csc_array, sp.coo_array])
def test_sparse_is_the_dense_array(to_sparse):
    Z = np.where(np.abs(X) > 0.5, X, 0.0)
    model = cascade(tree(), DecisionTreeClassifier(max_depth=2), thresholds=0.2)
    expected = proba_of(model, Z)
    np.testing.assert_allclose(proba_of(model, to_sparse(Z)), expected)


def test_sparse_is_refused_where_a_stage_refuses_it():
    with pytest.raises(TypeError, match="Sparse data was passed"):
        cascade(CountedTree(), HistGradientBoostingClassifier()).fit(sp.csr_array(X), y)
    assert CountedTree.fits == 0


GAPS = np.where(np.random.default_rng(1).random(X.shape) < 0.1, np.nan, X)


def boosting(max_iter=5):
    return HistGradientBoostingClassifier(max_iter=max_iter, early_stopping=False)


@pytest.mark.parametrize(
    "screen",
    [boosting(2), tree(), make_pipeline(SimpleImputer(), logistic())],
    ids=["boosting", "tree", "imputer"],
)
def test_nan_where_every_stage_takes_it(screen):
    model = cascade(screen, boosting(), feedback="none", thresholds=0.2).fit(GAPS, y)
    expected = [clone(stage).fit(GAPS, y).predict_proba(GAPS) for _, stage in model.stages]
    np.testing.assert_allclose(model.stage_proba(GAPS), np.stack(expected, axis=1))


def test_nan_is_refused_before_any_fit_where_a_stage_refuses_it():
    with pytest.raises(ValueError, match="Input X contains NaN"):
        cascade(logistic(), CountedTree()).fit(GAPS, y)
    assert CountedTree.fits == 0
    with pytest.raises(ValueError, match="Input X contains infinity"):
        cascade(boosting(), boosting()).fit(np.where(np.isnan(GAPS), np.inf, GAPS), y)
    fitted = cascade().fit(X, y)
    for method in (fitted.predict, fitted.route, fitted.stage_proba, fitted.report):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            method(GAPS)


def test_later_stage_sees_its_own_columns_of_exactly_the_rows_that_reach_it():
    frame = pd.DataFrame(X, columns=NAMES, index=np.random.default_rng(0).permutation(len(y)))
    screen = make_pipeline(FunctionTransformer(lambda X: X[NAMES[:2]]), scaled())
    final = make_pipeline(CostlyColumns(NAMES[2:]), tree())
    model = cascade(screen, final).fit(frame, y)
    CostlyColumns.rows.clear()
    routing = model.route(frame)
    (seen,) = CostlyColumns.rows
    assert 0 < len(seen) < len(y)
    pd.testing.assert_frame_equal(seen, frame[routing.stage == 1])
    CostlyColumns.rows.clear()
    assert model.predict(frame[routing.stage == 0]).shape == ((routing.stage == 0).sum(),)
    assert CostlyColumns.rows == []


# ---------------------------------------------------------------------------------------------
# Labels and weights
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "pos_label"),
    [
        (np.array(["ok", "zebra"])[y], None),
        (np.array(["ok", "fraud"])[y], "fraud"),
        (np.array(["ok", "fraud"], dtype=object)[y], "fraud"),
        (y == 1, None),
        (y == 0, False),
        (2 * y - 1, None),
        (1 - y, 0),
        (y.astype(float), None),
        (y.tolist(), 1),
        (pd.Series(y, index=np.arange(len(y))[::-1]), None),
        (pd.Series(np.array(["ok", "fraud"])[y], dtype="string"), "fraud"),
        (pd.Categorical.from_codes(y, ["ok", "fraud"]), "fraud"),
        (pd.Series(pd.Categorical.from_codes(y, ["ok", "fraud"])), "fraud"),
        (pl.Series(np.array(["ok", "fraud"])[y].tolist()), "fraud"),
    ],
    ids=str,
)
def test_any_labels(labels, pos_label):
    model = cascade(thresholds=0.2, pos_label=pos_label).fit(X, labels)
    plain = cascade(thresholds=0.2).fit(X, y)
    np.testing.assert_array_equal(model.classes_, np.unique(np.asarray(labels)))
    positive = model.classes_.tolist().index(np.asarray(labels)[y == 1][0])
    np.testing.assert_array_equal(model.route(X).stage, plain.route(X).stage)
    np.testing.assert_allclose(model.predict_proba(X)[:, positive], plain.predict_proba(X)[:, 1])
    np.testing.assert_array_equal(model.predict(X) == model.classes_[positive], plain.predict(X))
    assert model.score(X, labels) == plain.score(X, y)


def test_column_of_labels_warns():
    with pytest.warns(UserWarning, match="A column-vector y was passed"):
        cascade().fit(X, y[:, None])


@pytest.mark.parametrize("pos_label", [7, "1", [1]])
def test_unknown_pos_label_raises(pos_label):
    with pytest.raises(ValueError, match=r"pos_label must be one of \[0, 1\]; got"):
        cascade(pos_label=pos_label).fit(X, y)


def test_frequent_positive_class_warns_with_plain_labels():
    message = "The positive class 'ok' is the more frequent one; .* only the other, 'fraud'"
    with pytest.warns(UserWarning, match=message):
        cascade().fit(X, np.array(["ok", "fraud"])[y])


@pytest.mark.parametrize(
    "labels",
    [np.where(y, 1.0, np.nan), X[:, 0], None, np.column_stack([y, y]), y[:-1], np.zeros_like(y)],
    ids=["nan", "continuous", "None", "two columns", "short", "one class"],
)
@pytest.mark.parametrize("rows", [X, pd.DataFrame(X)], ids=["array", "dataframe"])
def test_bad_labels_raise_before_any_fit(rows, labels):
    with pytest.raises(ValueError):
        cascade(CountedTree(), CountedTree()).fit(rows, labels)
    assert CountedTree.fits == 0


@pytest.mark.parametrize(
    "kind", [list, pd.Series, pl.Series, np.float32, lambda w: w[:, None][:, 0]]
)
def test_weights_of_any_kind(kind):
    weight = np.round(WEIGHT, 1).astype(np.float32).astype(float)
    expected = proba_of(cascade(), sample_weight=weight)
    actual = proba_of(cascade(), sample_weight=kind(weight))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-WEIGHT, "Negative values"),
        (np.full(len(y), np.nan), "contains NaN"),
        (np.full(len(y), np.inf), "contains infinity"),
        (WEIGHT[:5], r"sample_weight.shape == \(5,\)"),
        (np.column_stack([WEIGHT, WEIGHT]), "must be 1D"),
        (np.zeros(len(y)), "non-zero|zero for every row"),
        (1.0 - y, r"1 class: \[0"),
    ],
    ids=["negative", "nan", "inf", "short", "2d", "zero", "one class left"],
)
def test_bad_weights_raise_before_any_fit(weight, message):
    with pytest.raises(ValueError, match=message):
        cascade(CountedTree(), CountedTree()).fit(X, y, sample_weight=weight)
    assert CountedTree.fits == 0


@pytest.mark.parametrize("params", [{}, {"validation_fraction": 0.3}, {"survivor_rate": 0.5}])
@pytest.mark.parametrize("rows", [X, pl.DataFrame(X), sp.csr_array(X)], ids=["array", "df", "csr"])
def test_zero_weight_is_absence(rows, params):
    kept = np.arange(len(y)) % 3 > 0
    model = cascade(tree(), tree(), thresholds=0.2, **params)
    expected = clone(model).fit(rows[np.flatnonzero(kept)], y[kept]).predict_proba(rows)
    actual = clone(model).fit(rows, y, sample_weight=kept * 1.0).predict_proba(rows)
    np.testing.assert_allclose(actual, expected)


@pytest.mark.parametrize("scale", [2.0**10, 2.0**-10])
@pytest.mark.parametrize("calibration", [None, "isotonic"])
@pytest.mark.parametrize("feedback", ["caught", "gain", "none"])
def test_scale_of_the_weights_does_not_matter_to_scale_free_stages(scale, calibration, feedback):
    model = cascade(tree(), tree(), calibration=calibration, feedback=feedback, thresholds=0.2)
    expected = proba_of(model, sample_weight=WEIGHT)
    np.testing.assert_allclose(proba_of(model, sample_weight=scale * WEIGHT), expected)


@pytest.mark.parametrize("scale", [1000.0, 0.001, 1 / len(y)])
def test_scale_of_the_weights_hardly_moves_sigmoid_calibration(scale):
    # Platt's smoothing counts rows by their weights: large weights are many rows. Weights that
    # sum to 1 are common too and must not be taken for a single row.
    model = cascade(tree(), RandomForestClassifier(20, max_depth=4), thresholds=0.2)
    expected = clone(model).fit(X, y)
    actual = clone(model).fit(X, y, sample_weight=np.full(len(y), scale))
    np.testing.assert_array_equal(actual.route(X).stage, expected.route(X).stage)
    assert np.abs(actual.predict_proba(X) - expected.predict_proba(X)).mean() < 0.05
    assert (actual.predict(X) != expected.predict(X)).mean() < 0.02


@pytest.mark.parametrize("scale", [1000.0, 0.001])
def test_scale_of_the_weights_reaches_penalised_stages_as_it_is(scale):
    weight = np.full(len(y), scale)
    model = cascade(logistic(), logistic(), feedback="none").fit(X, y, sample_weight=weight)
    expected = logistic().fit(X, y, sample_weight=weight).predict_proba(X)
    np.testing.assert_array_equal(model.stage_proba(X)[:, 1], expected)
    assert np.isfinite(model.predict_proba(X)).all()


# ---------------------------------------------------------------------------------------------
# skorch nets
# ---------------------------------------------------------------------------------------------

NET_PARAMS = {"max_epochs": 2, "lr": 0.1, "train_split": None, "verbose": 0}


def two_outputs():
    torch.manual_seed(0)
    module = torch.nn.Linear(X.shape[1], 2)
    return NeuralNetClassifier(module, criterion=torch.nn.CrossEntropyLoss, **NET_PARAMS)


def one_output():
    torch.manual_seed(0)
    return NeuralNetBinaryClassifier(torch.nn.Linear(X.shape[1], 1), **NET_PARAMS)


nets = pytest.mark.parametrize("net", [two_outputs, one_output])
places = pytest.mark.parametrize(
    "place",
    [
        lambda net: net,
        lambda net: make_pipeline(StandardScaler(with_mean=False), net),
        lambda net: make_pipeline("passthrough", make_pipeline("passthrough", net)),
    ],
    ids=["bare", "pipeline", "nested"],
)


@nets
@places
def test_net_on_any_input_is_the_net_on_float32(net, place):
    model = cascade(logistic(C=0.1), place(net()))
    expected = proba_of(model)
    for rows in (pd.DataFrame(X, columns=NAMES), sp.csr_array(X), X.tolist(), pl.DataFrame(X)):
        np.testing.assert_allclose(proba_of(model, rows), expected, atol=1e-6)


@nets
@places
def test_net_with_strings_and_pickle(net, place):
    labels = np.array(["ok", "stolen"])[y]
    model = cascade(final=place(net())).fit(X, labels)
    np.testing.assert_array_equal(
        pickled(model).predict_proba(X), proba_of(cascade(final=place(net())))
    )
    np.testing.assert_array_equal(
        model.predict(X) == "stolen", cascade(final=place(net())).fit(X, y).predict(X)
    )


@nets
def test_net_scores_are_those_of_its_module(net):
    model = cascade(final=net()).fit(X, y)
    fitted = model.named_stages_["final"].net_
    with torch.no_grad():
        logits = fitted.module_(torch.as_tensor(X, dtype=torch.float32)).double()
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)[:, -2:]
    expected = torch.softmax(both, dim=1).numpy()
    np.testing.assert_allclose(model.stage_proba(X)[:, 1], expected, atol=1e-6)
    assert len(fitted.history) == 2
    assert model.stage_costs_ is not None


@nets
@places
def test_net_takes_weights_by_resampling(net, place):
    model = cascade(final=place(net()))
    expected = clone(model).fit(X, y).stage_proba(X)[:, 1, 1]
    with pytest.warns(UserWarning, match=r"Stage 'final' \(NeuralNet\w*\) takes no sample_weight"):
        weighted = clone(model).fit(X, y, sample_weight=np.where(y == 1, 2.5, 1.0))
    assert weighted.stage_proba(X)[:, 1, 1].mean() > expected.mean() + 0.02
    equal = clone(model).fit(X, y, sample_weight=np.full(len(y), 3.0))
    np.testing.assert_array_equal(equal.stage_proba(X)[:, 1, 1], expected)


def test_net_before_a_tree_with_feedback_resamples():
    with pytest.warns(UserWarning, match="Stage 'screen' .* takes no sample_weight"):
        model = cascade(two_outputs()).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()


def test_net_in_a_search_and_with_memory_and_jobs(tmp_path):
    model = cascade(final=two_outputs())
    expected = proba_of(model)
    cached = clone(model).set_params(memory=str(tmp_path))
    np.testing.assert_array_equal(proba_of(cached), expected)
    np.testing.assert_array_equal(proba_of(cached), expected)
    search = GridSearchCV(model, {"final__lr": [0.1, 0.001]}, cv=2, error_score="raise").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@nets
def test_frozen_net(net):
    fitted = net().fit(X.astype(np.float32), y.astype(np.float32 if net is one_output else int))
    model = cascade(final=FrozenEstimator(fitted)).fit(X, y)
    expected = fitted.predict_proba(X.astype(np.float32))
    np.testing.assert_allclose(model.stage_proba(X)[:, 1], expected, atol=1e-6)


def test_net_with_three_classes():
    module = torch.nn.Linear(X3.shape[1], 3)
    net = NeuralNetClassifier(module, criterion=torch.nn.CrossEntropyLoss, **NET_PARAMS)
    model = cascade(final=net, feedback="none").fit(X3, y3)
    np.testing.assert_allclose(model.predict_proba(X3).sum(axis=1), 1)
    with pytest.raises(ValueError, match=r"Stage 'final' must give scores of shape"):
        cascade(final=one_output(), feedback="none").fit(X3, y3)


# ---------------------------------------------------------------------------------------------
# Little to learn from
# ---------------------------------------------------------------------------------------------


def few_positives(n_positive, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(100) < n_positive).astype(int)
    return rng.normal(size=(100, 3)) + 1.5 * labels[:, None], labels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_positive", [2, 3, 5])
@pytest.mark.parametrize("feedback", ["caught", "gain", "none"])
@pytest.mark.parametrize("calibration", ["sigmoid", "isotonic"])
def test_few_positives_give_numbers(seed, n_positive, feedback, calibration):
    rows, labels = few_positives(n_positive, seed)
    model = cascade(cv=2, feedback=feedback, calibration=calibration)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*leaves nothing to learn", UserWarning)
        proba = model.fit(rows, labels).predict_proba(rows)
    assert np.isfinite(proba).all()
    assert np.isfinite(model.catch_threshold_)


@pytest.mark.parametrize("thresholds", [None, 0.1, PassBudget(0.2), RecallFloor(0.9), Agreement()])
@pytest.mark.filterwarnings("ignore:A recall of .* needs more than max_pass_rate=:UserWarning")
def test_one_positive_per_fold(thresholds):
    rows, labels = few_positives(5, 0)
    assert np.isfinite(proba_of(cascade(cv=5, thresholds=thresholds), rows, labels)).all()


def test_single_positive_raises_clearly():
    rows, labels = few_positives(1, 0)
    with (
        pytest.warns(UserWarning, match="The least populated class in y has only 1 members"),
        pytest.raises(ValueError, match="holds no row of class 1: every stage must see two"),
    ):
        cascade(CountedTree()).fit(rows, labels)
    assert CountedTree.fits == 0


@pytest.mark.parametrize("thresholds", [None, 0.1, 0.4, PassBudget(0.2), RecallFloor(0.9)])
@pytest.mark.parametrize("calibration", ["sigmoid", "isotonic", None])
@pytest.mark.filterwarnings("ignore:Stage 'screen' gives only . distinct scores:UserWarning")
@pytest.mark.filterwarnings("ignore:A recall of .* needs more than max_pass_rate=:UserWarning")
def test_constant_features(thresholds, calibration):
    labels = np.arange(100) % 5 == 0
    model = cascade(thresholds=thresholds, calibration=calibration)
    proba = proba_of(model, np.ones((100, 2)), labels)
    # Platt's targets are 1/82 away from 0 for the 80 negatives, 1/22 from 1 for the positives.
    np.testing.assert_allclose(proba[:, 1], 0.2, atol=0.03)
    assert np.ptp(proba, axis=0).max() == 0


def test_answered_rows_keep_their_calibrated_probabilities():
    # No score is anywhere near 1/2: nothing needs to be scaled for the answer to be the likeliest.
    rng = np.random.default_rng(0)
    labels = rng.random(1000) < 0.1
    rows = rng.normal(size=(1000, 2)) + 0.5 * labels[:, None]
    alone = FeedbackCascadeClassifier([("screen", logistic())], cv=3).fit(rows, labels)
    expected = alone.predict_proba(rows)
    assert expected[:, 1].max() < 0.5
    answers_all = cascade(logistic(), feedback="none", thresholds=1.0).fit(rows, labels)
    np.testing.assert_allclose(answers_all.predict_proba(rows).mean(axis=0), [0.9, 0.1], atol=0.02)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("calibration", ["sigmoid", "isotonic", None])
@pytest.mark.parametrize("final", [tree(), logistic(C=1e6), LinearSVC()], ids=str)
def test_separable_classes_warn_of_nothing(seed, calibration, final):
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 3 == 0
    rows = rng.normal(size=(60, 2)) + 12 * labels[:, None]
    model = cascade(final=final, calibration=calibration, thresholds=PassBudget(0.5))
    np.testing.assert_array_equal(model.fit(rows, labels).predict(rows), labels)


@pytest.mark.parametrize("seed", range(6))
def test_scores_without_signal_warn_of_nothing(seed):
    rng = np.random.default_rng(seed)
    rows, labels = rng.integers(0, 3, (24, 2)).astype(float), np.arange(24) % 2
    assert np.isfinite(proba_of(cascade(thresholds=0.5), rows, labels)).all()


def test_scores_that_say_nothing_at_all_warn_of_nothing():
    # Out-of-fold scores of 0 and 1 with no relation to the label: the best slope is 0.
    rows = np.array([[i, j] for i in (1, 2, 3) for j in (1, 2, 3, 4)], dtype=float)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1])
    assert np.isfinite(proba_of(cascade(thresholds=0.5), rows, labels)).all()


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_impossible_validation_fraction_is_named(fraction):
    with pytest.raises(ValueError, match="validation_fraction"):
        cascade(CountedTree(), validation_fraction=fraction).fit(X, y)


def test_survivors_of_one_class_leave_the_last_stage_as_it_is():
    labels = np.arange(60) % 2
    rows = np.random.default_rng(0).normal(size=(60, 2)) + 12 * labels[:, None]
    expected = cascade(thresholds=0.5).fit(rows, labels).stage_proba(rows)
    model = cascade(thresholds=0.5, survivor_rate=0.3)
    with pytest.warns(UserWarning, match="survivor_rate") as caught:
        model.fit(rows, labels)
    assert "rows of one class" in str(caught[0].message)
    np.testing.assert_array_equal(model.stage_proba(rows), expected)


# ---------------------------------------------------------------------------------------------
# More than two classes
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thresholds", [None, 0.9, Agreement(0.1), PassBudget(0.3)], ids=str)
@pytest.mark.parametrize("labels", [y3, np.array(["b", "c", "a"])[y3]], ids=["int", "str"])
def test_three_classes(thresholds, labels):
    forest = RandomForestClassifier(10, max_depth=4)
    model = cascade(final=forest, feedback="none", thresholds=thresholds, store_oof=True)
    model.fit(X3, labels)
    confidence = model.stage_proba(X3)[:, 0].max(axis=1)
    np.testing.assert_array_equal(model.route(X3).stage, confidence < model.thresholds_[0, 0])
    np.testing.assert_array_equal(model.classes_, np.unique(labels))
    assert model.score(X3, labels) > 0.7
    early = model.oof_stage_proba_[:, 0].max(axis=1) >= model.thresholds_[0, 0]
    answers, last = model.oof_stage_proba_.argmax(axis=2).T
    limits = {
        None: lambda: (early & (answers != last)).mean() <= 0.01,
        0.9: lambda: model.thresholds_[0].tolist() == [0.9] * 3,
        0.1: lambda: (early & (answers != last)).mean() <= 0.1,
        0.3: lambda: 0.29 < 1 - early.mean() < 0.3 + 1e-9,
    }
    number = getattr(
        thresholds, "max_pass_rate", getattr(thresholds, "max_disagreement", thresholds)
    )
    assert limits[number]()


def test_three_classes_in_a_search():
    model = cascade(logistic(), feedback="none")
    grid = {"thresholds": [0.6, Agreement(0.1), PassBudget(0.2)], "calibration": ["isotonic", None]}
    search = GridSearchCV(model, grid, scoring="roc_auc_ovr", cv=2, error_score="raise")
    assert np.isfinite(search.fit(X3, y3).cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("feedback", ["caught", "gain", CaughtFeedback(), lambda *args: args[0]])
def test_feedback_needs_two_classes(feedback):
    with pytest.raises(ValueError, match=r"Only binary classification is supported\."):
        cascade(feedback=feedback).fit(X3, y3)


# ---------------------------------------------------------------------------------------------
# Jobs, seeds, repeated and failed fits
# ---------------------------------------------------------------------------------------------


def test_jobs_do_not_change_the_result(tmp_path):
    model = cascade(final=RandomForestClassifier(5))
    expected = proba_of(model)
    np.testing.assert_array_equal(proba_of(clone(model).set_params(n_jobs=2)), expected)
    joblib.dump(X, tmp_path / "X.joblib")
    read_only = joblib.load(tmp_path / "X.joblib", mmap_mode="r")
    parallel = clone(model).set_params(n_jobs=2).fit(read_only, y)
    np.testing.assert_array_equal(parallel.predict_proba(read_only), expected)


@pytest.mark.parametrize("seed", [0, np.random.RandomState(3)], ids=["int", "RandomState"])
def test_same_seed_same_bits(seed):
    model = cascade(RandomForestClassifier(3), RandomForestClassifier(5), validation_fraction=0.3)
    model.set_params(thresholds=0.2)
    first = proba_of(model.set_params(random_state=copy.deepcopy(seed)))
    again = proba_of(model.set_params(random_state=copy.deepcopy(seed)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, proba_of(model.set_params(random_state=99)))


def test_second_fit_forgets_the_first():
    model = cascade(store_oof=True).fit(X3, y3 == 1).set_params(store_oof=False)
    model.fit(pd.DataFrame(X[:, :4], columns=NAMES[:4]), y)
    assert not hasattr(model, "oof_stage_proba_")
    model.fit(X, y)
    assert not hasattr(model, "feature_names_in_")
    np.testing.assert_array_equal(model.predict_proba(X), proba_of(cascade()))


def test_parameters_set_after_fit_wait_for_the_next_fit():
    model = cascade().fit(X, y)
    expected, report = model.predict_proba(X), repr(model.report(X, y))
    model.set_params(thresholds=0.9, calibration=None, screen="drop", stage_costs=[1])
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    assert repr(model.report(X, y)) == report
    assert list(model.named_stages_) == ["screen", "final"]
    assert list(model.fit(X, y).named_stages_) == ["final"]


@pytest.mark.parametrize("params", [{"cv": 1}, {"screen": LinearSVC(C=-1)}, {"thresholds": "x"}])
def test_failed_fit_leaves_nothing_fitted(params):
    model = cascade().fit(X, y).set_params(**params)
    with pytest.raises((TypeError, ValueError)):
        model.fit(X, y)
    assert not [name for name in vars(model) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_fit_changes_none_of_its_arguments():
    rows, labels, weight = X.copy(), y.copy(), WEIGHT.copy()
    for array in (rows, labels, weight):
        array.flags.writeable = False
    stages = [("screen", scaled()), ("final", tree())]
    model = FeedbackCascadeClassifier(stages, thresholds=0.2, cv=3)
    model.fit(rows, labels, sample_weight=weight)
    assert model.stages is stages
    assert not hasattr(stages[1][1], "tree_")
    assert stages[1][1].random_state is None


@pytest.mark.parametrize(
    "rows",
    [X.tolist(), np.asfortranarray(X), X[:, ::-1][:, ::-1], X.astype(object), X.astype(">f8")],
    ids=["list", "Fortran", "strided", "object", "big-endian"],
)
def test_the_same_numbers_in_another_shape(rows):
    np.testing.assert_allclose(proba_of(cascade(), rows), proba_of(cascade()), atol=1e-8)


def test_shuffled_indices_are_only_labels():
    rng = np.random.default_rng(0)
    index = rng.permutation(len(y))
    frame = pd.DataFrame(X, columns=NAMES, index=index)
    labels, weight = pd.Series(y, index=index[::-1]), pd.Series(WEIGHT, index=index)
    actual = proba_of(cascade(), frame, labels, sample_weight=weight)
    np.testing.assert_allclose(actual, proba_of(cascade(), sample_weight=WEIGHT))


def test_float32_and_integers_give_sensible_answers():
    np.testing.assert_allclose(
        proba_of(cascade(), X.astype(np.float32)), proba_of(cascade()), atol=1e-4
    )
    whole = np.round(10 * X)
    np.testing.assert_allclose(proba_of(cascade(), whole.astype(int)), proba_of(cascade(), whole))


@pytest.mark.parametrize(
    "rows",
    [X[0], X[:0], X[:, :, None], X.astype(str), X * 1j, X[:, :3]],
    ids=["1d", "empty", "3d", "strings", "complex", "narrow"],
)
def test_bad_rows_raise_in_every_method(rows):
    model = cascade().fit(X, y)
    methods = (
        model.predict,
        model.predict_proba,
        model.route,
        model.stage_proba,
        model.report,
        model.measure_costs,
        lambda X: list(model.staged_predict_proba(X)),
        lambda X: model.tune_thresholds(X, y[: len(X)], thresholds=0.2),
    )
    for method in methods:
        with pytest.raises(ValueError):
            method(rows)


def test_empty_dataframe_raises():
    frame = pd.DataFrame(X, columns=NAMES)
    with pytest.raises(ValueError, match="0 sample"):
        cascade().fit(frame.iloc[:0], y[:0])
    with pytest.raises(ValueError, match="0 sample"):
        cascade().fit(frame, y).predict(frame.iloc[:0])


def test_single_row_is_answered_as_among_others():
    model = cascade().fit(X, y)
    expected, stage = model.predict_proba(X), model.route(X).stage
    for i in [*np.flatnonzero(stage == 0)[:3], *np.flatnonzero(stage == 1)[:3]]:
        np.testing.assert_allclose(model.predict_proba(X[i : i + 1])[0], expected[i], atol=1e-9)


def test_knn_stage_warns_of_ties_and_resampling():
    model = cascade(KNeighborsClassifier(), thresholds=PassBudget(0.3))
    with pytest.warns(UserWarning) as caught:
        model.fit(X, y)
    messages = " ".join(str(warning.message) for warning in caught)
    assert "Stage 'screen' (KNeighborsClassifier) takes no sample_weight" in messages
    assert "Stage 'screen' gives only" in messages
    assert (model.route(X).stage == 1).mean() <= 0.5


def test_cross_validate_returns_fitted_cascades():
    result = cross_validate(cascade(), X, y, cv=2, return_estimator=True, error_score="raise")
    for (train, _), fitted in zip(StratifiedKFold(2).split(X, y), result["estimator"], strict=True):
        expected = cascade().fit(X[train], y[train]).predict_proba(X)
        np.testing.assert_array_equal(fitted.predict_proba(X), expected)
