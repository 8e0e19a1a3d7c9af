"""ThresholdSearchCV equals GridSearchCV over `thresholds`, at one fit a fold."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.datasets import make_classification
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

import skmsc
from skmsc import (
    Agreement,
    AlertBudget,
    ComposableHeadClassifier,
    CostBudget,
    CostlyFeatures,
    EarlyExitClassifier,
    ExpectedCost,
    FeedbackCascadeClassifier,
    PassBudget,
    RecallFloor,
    RidgeHead,
)
from skmsc.metrics import (
    neg_mean_cost_scorer,
    neg_pass_rate_scorer,
    retained_recall_scorer,
)
from skmsc.model_selection import LabeledTestFolds, ThresholdSearchCV

X, Y = make_classification(300, weights=[0.8], flip_y=0.05, class_sep=0.8, random_state=0)
W = np.random.default_rng(0).integers(1, 4, size=300).astype(float)
BUDGETS = [PassBudget(0.1), PassBudget(0.3), PassBudget(0.6)]
# Of both kinds, those that see probabilities and those that see predictions, and our own.
SCORING = {
    "ap": "average_precision",
    "log_loss": "neg_log_loss",
    "f1": "f1",
    "neg_cost": neg_mean_cost_scorer,
    "neg_pass": neg_pass_rate_scorer,
    "retained": retained_recall_scorer,
}


def cascade(*stages, **params):
    """A cascade of light stages with known costs and few folds."""
    stages = stages or (GaussianNB(), LogisticRegression())
    pairs = [(f"stage{k}", stage) for k, stage in enumerate(stages)]
    defaults = {"cv": 2, "random_state": 0, "stage_costs": [0.1, 1.0, 3.0][: len(pairs)]}
    return FeedbackCascadeClassifier(pairs, **(defaults | params))


def both(estimator, settings, *, name="thresholds", fit=None, **params):
    """The search and GridSearchCV over the same settings, fitted."""
    fit = fit or {}
    X_fit, y_fit = fit.pop("X", X), fit.pop("y", Y)
    ours = ThresholdSearchCV(estimator, settings, **params).fit(X_fit, y_fit, **fit)
    theirs = GridSearchCV(estimator, {name: settings}, **params).fit(X_fit, y_fit, **fit)
    return ours, theirs


def assert_same_results(ours, theirs, rtol=1e-12):
    """All that GridSearchCV tells of tests is told, and is the same."""
    told = [name for name in theirs.cv_results_ if "_test_" in name]
    assert told
    for name in told:
        np.testing.assert_allclose(
            ours.cv_results_[name], theirs.cv_results_[name], rtol=rtol, err_msg=name
        )
    assert set(theirs.cv_results_) <= set(ours.cv_results_)
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]


# --- equality with GridSearchCV ---------------------------------------------------------------
MIXED = [*BUDGETS[::2], CostBudget(0.5), RecallFloor(0.9, of="positives"), Agreement(0.05), 0.2]


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param(cascade(), id="default"),
        pytest.param(cascade(validation_fraction=0.3), id="held out"),
        pytest.param(cascade(calibration=None), id="uncalibrated", marks=pytest.mark.slow),
        pytest.param(cascade(calibration="isotonic"), id="isotonic", marks=pytest.mark.slow),
        pytest.param(cascade(survivor_rate=1.0), id="survivors", marks=pytest.mark.slow),
        pytest.param(cascade(feedback="gain"), id="gain", marks=pytest.mark.slow),
    ],
)
def test_cascade_equals_grid_search(estimator):
    scoring = {name: SCORING[name] for name in ("ap", "log_loss", "retained")}
    ours, theirs = both(estimator, MIXED, scoring=scoring, refit="ap", cv=2)
    assert_same_results(ours, theirs)
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_score_ == theirs.best_score_
    assert ours.score(X, Y) == theirs.score(X, Y)


def test_three_stages_and_numbers_for_each():
    model = cascade(GaussianNB(), LogisticRegression(), DecisionTreeClassifier(max_depth=4))
    settings = [PassBudget(0.3), PassBudget([0.5, 0.2]), [0.1, 0.3], 0.2]
    ours, theirs = both(model, settings, scoring="average_precision", cv=2)
    assert_same_results(ours, theirs)


def test_more_classes():
    X3, y3 = make_classification(300, n_informative=5, n_classes=3, random_state=0)
    model = cascade(feedback="none")
    settings = [Agreement(0.01), Agreement(0.1), 0.6, np.array([[0.7] * 3, [-np.inf] * 3])]
    ours = ThresholdSearchCV(model, settings, scoring="neg_log_loss", cv=2).fit(X3, y3)
    theirs = GridSearchCV(model, {"thresholds": settings}, scoring="neg_log_loss", cv=2)
    theirs.fit(X3, y3)
    for name in ("mean_test_score", "std_test_score", "rank_test_score", "split1_test_score"):
        np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], rtol=1e-12)


def test_early_exit_equals_grid_search():
    from skmsc.neural import MultiExitNet

    net = MultiExitNet(width=8, depth=2, max_epochs=4, lr=0.05, device="cpu", dtype="float64")
    model = EarlyExitClassifier(GaussianNB(), net, cv=2, random_state=0)
    settings = [Agreement(0.05), CostBudget(0.6), 0.9]
    names = ("log_loss", "f1", "neg_cost")
    scoring = {name: SCORING[name] for name in names}
    ours, theirs = both(model, settings, scoring=scoring, refit="log_loss", cv=2)
    # A product of a whole batch rounds otherwise than that of the rows that still wait.
    assert_same_results(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("proba", [pytest.param("conditional", marks=pytest.mark.slow), "sigmoid"])
def test_composable_head_equals_grid_search(proba):
    X3, y3 = make_classification(300, n_informative=5, n_classes=3, random_state=0)
    model = ComposableHeadClassifier(
        GaussianNB(), "passthrough", head=RidgeHead(), proba=proba, random_state=0
    )
    settings = [Agreement(0.01), Agreement(0.2), 0.8, None]
    scoring = {"accuracy": "accuracy", "neg_pass": neg_pass_rate_scorer}
    ours, theirs = both(
        model, settings, fit={"X": X3, "y": y3}, scoring=scoring, refit="accuracy", cv=2
    )
    assert_same_results(ours, theirs, rtol=1e-9)


def test_numbers_and_policies_without_rows_held_out():
    """Without held-out rows only numbers can be set: the others fail, as in GridSearchCV."""
    model = ComposableHeadClassifier(
        GaussianNB(), "passthrough", validation_fraction=None, calibration=None, random_state=0
    )
    with (
        pytest.warns(FitFailedWarning, match="leaves no rows"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search = ThresholdSearchCV(model, [0.7, Agreement(0.1), 0.9], cv=3).fit(X, Y)
    np.testing.assert_array_equal(
        np.isnan(search.cv_results_["mean_test_score"]), [False, True, False]
    )


class Spy(TransformerMixin, BaseEstimator):
    """A transformer that counts its calls."""

    calls = []

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        Spy.calls.append(len(X))
        return X * 2.0

    def __sklearn_is_fitted__(self):
        return True


@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_pipelines(depth):
    model, name = make_pipeline(Spy(), StandardScaler(), cascade()), "feedbackcascadeclassifier"
    if depth == 2:
        model, name = make_pipeline(FunctionTransformer(), model), f"pipeline__{name}"
    name += "__thresholds"
    ours, theirs = both(model, MIXED[::2], name=name, scoring=SCORING, refit="ap", cv=2)
    assert_same_results(ours, theirs)
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    Spy.calls.clear()
    ThresholdSearchCV(model, MIXED, scoring=SCORING, refit=False, cv=2).fit(X, Y)
    assert len(Spy.calls) == 4  # each fold's training and test rows, whatever the settings


def test_a_scorer_may_look_at_other_rows_and_at_steps():
    def scorer(estimator, X, y):
        assert estimator.named_steps["standardscaler"].scale_.shape == (20,)
        half = estimator.predict_proba(X[::2])[:, 1]
        np.testing.assert_allclose(half, estimator.predict_proba(X)[::2, 1], rtol=1e-12)
        assert isinstance(estimator[-1], FeedbackCascadeClassifier)
        return half.mean()

    model = make_pipeline(StandardScaler(), cascade())
    name = "feedbackcascadeclassifier__thresholds"
    ours, theirs = both(model, BUDGETS, name=name, scoring=scorer, cv=2)
    assert_same_results(ours, theirs)


class CountedNB(GaussianNB):
    """Counts the rows that it is fitted on and scores."""

    fits, scored = [], []

    def fit(self, X, y, sample_weight=None):
        CountedNB.fits.append(len(X))
        return super().fit(X, y, sample_weight)

    def predict_proba(self, X):
        CountedNB.scored.append(len(X))
        return super().predict_proba(X)


def test_each_fold_is_fitted_once_and_scored_once():
    model = cascade(CountedNB(), LogisticRegression())
    CountedNB.fits.clear(), CountedNB.scored.clear()
    ThresholdSearchCV(model, MIXED, scoring=SCORING, refit=False, cv=5).fit(X, Y)
    assert len(CountedNB.fits) == 5 * (2 + 1)  # cv=2 of the cascade, and all rows
    assert CountedNB.scored.count(60) == 5  # test rows; 120 are out-of-fold


def test_callable_scoring_of_several_scores():
    def scorer(estimator, X, y):
        return {"top": estimator.predict_proba(X)[:, 1].max(), "right": estimator.score(X, y)}

    ours, theirs = both(cascade(), BUDGETS, scoring=scorer, refit="right", cv=2)
    assert_same_results(ours, theirs)
    assert ours.multimetric_ and ours.best_score_ == theirs.best_score_


# --- rows -------------------------------------------------------------------------------------
def test_sample_weight():
    fit = {"sample_weight": W}
    ours, theirs = both(
        cascade(), BUDGETS, fit=fit, scoring={"ap": "average_precision"}, refit="ap", cv=2
    )
    assert_same_results(ours, theirs)
    train, test = next(StratifiedKFold(2).split(X, Y))
    model = cascade(thresholds=BUDGETS[1]).fit(X[train], Y[train], sample_weight=W[train])
    routing = model.route(X[test])
    passed = np.average(routing.stage == 1, weights=W[test])
    assert ours.cv_results_["split0_test_pass_rate"][1] == pytest.approx(passed, rel=1e-12)
    cost = np.average(routing.cost, weights=W[test])
    assert ours.cv_results_["split0_test_cost"][1] == pytest.approx(cost, rel=1e-12)


def test_groups_choose_the_folds():
    groups = np.arange(300) % 7
    ours, theirs = both(
        cascade(), BUDGETS, fit={"groups": groups}, scoring="roc_auc", cv=GroupKFold(2)
    )
    assert_same_results(ours, theirs)


def test_metadata_routing():
    groups = np.arange(300) % 7
    with sklearn.config_context(enable_metadata_routing=True):
        model = cascade(cv=GroupKFold(2)).set_fit_request(sample_weight=True)
        scoring = {
            "ap": make_scorer(
                sklearn.metrics.average_precision_score, response_method="predict_proba"
            ).set_score_request(sample_weight=True),
            "auc": make_scorer(
                sklearn.metrics.roc_auc_score, response_method="predict_proba"
            ).set_score_request(sample_weight=False),
        }
        ours, theirs = both(
            make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model),
            BUDGETS,
            name="feedbackcascadeclassifier__thresholds",
            fit={"sample_weight": W, "groups": groups},
            scoring=scoring,
            refit="ap",
            cv=GroupKFold(2),
        )
    assert_same_results(ours, theirs)


COST = np.random.default_rng(1).lognormal(size=300)
DAY = np.arange(300) // 10


@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize("routing", [False, True])
def test_settings_may_read_other_metadata_than_their_neighbours(routing, in_pipeline):
    settings = [
        (ExpectedCost(None, 2.0), {"false_negative_cost": COST}),
        (ExpectedCost(3.0, 2.0), {}),
        (AlertBudget(4, per=1), {"time": DAY}),
        (0.2, {}),
    ]
    model, before = cascade(thresholds=0.5), ""  # which itself asks for nothing
    name = "thresholds"
    if in_pipeline:
        model, name = (
            make_pipeline(StandardScaler(), model),
            "feedbackcascadeclassifier__thresholds",
        )
        before = "" if routing else "feedbackcascadeclassifier__"
    params = {"cv": 2, "scoring": "neg_log_loss"}
    fit = {f"{before}false_negative_cost": COST, f"{before}time": DAY}
    with sklearn.config_context(enable_metadata_routing=routing):
        ours = ThresholdSearchCV(model, [one for one, _ in settings], **params).fit(X, Y, **fit)
        for i, (setting, reads) in enumerate(settings):
            alone = GridSearchCV(clone(model).set_params(**{name: setting}), {}, **params)
            alone.fit(X, Y, **{before + key: values for key, values in reads.items()})
            score = ours.cv_results_["mean_test_score"][i]
            assert score == pytest.approx(alone.best_score_, rel=1e-12)
            if i == ours.best_index_:
                np.testing.assert_allclose(ours.predict_proba(X), alone.predict_proba(X))


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("thresholds", ["pairs", BUDGETS])
def test_metadata_that_no_setting_reads_is_warned_of_once(routing, thresholds):
    model = cascade(thresholds=ExpectedCost(None, 1.0))
    search = ThresholdSearchCV(model, thresholds, n_cuts=3, scoring="f1", cv=2)
    message = "false_negative_cost was given for each row, but none of the thresholds tried reads"
    with (
        sklearn.config_context(enable_metadata_routing=routing),
        pytest.warns(UserWarning, match=message) as told,
    ):
        search.fit(X, Y, false_negative_cost=COST)
    assert len(told) == 1
    assert search.best_score_ > 0.5


def test_dataframes_and_text_labels():
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(X.shape[1])])
    labels = pd.Series(np.where(Y == 1, "fraud", "fine"))
    fit = {"X": frame, "y": labels}
    ours, theirs = both(cascade(pos_label="fraud"), BUDGETS, fit=fit, scoring="roc_auc", cv=2)
    assert_same_results(ours, theirs)
    assert ours.feature_names_in_.tolist() == frame.columns.tolist()
    assert ours.classes_.tolist() == ["fine", "fraud"]


def test_rows_without_a_label():
    y = np.where(np.arange(300) % 5 == 0, -1, Y)
    model = cascade(unlabeled_label=-1)
    fit, cv = {"y": y}, LabeledTestFolds(2, unlabeled_label=-1)
    ours, theirs = both(model, BUDGETS, fit=fit, scoring="average_precision", cv=cv)
    assert_same_results(ours, theirs)


def test_nan_where_the_stages_take_it():
    trees = [DecisionTreeClassifier(max_depth=2), DecisionTreeClassifier(max_depth=6)]
    holes = np.where(np.random.default_rng(0).uniform(size=X.shape) < 0.1, np.nan, X)
    with pytest.warns(UserWarning, match="distinct scores"):
        ours, theirs = both(
            cascade(*trees), [0.1, 0.2, PassBudget(0.4)], fit={"X": holes}, scoring="roc_auc", cv=2
        )
    assert_same_results(ours, theirs)


def fetch(keys):
    """Two columns for the keys, which are row numbers."""
    fetch.rows.append(len(keys))
    return X[np.asarray(keys, dtype=int).ravel(), :2]


@pytest.mark.filterwarnings("ignore:The thresholds pass:UserWarning")
def test_costly_features_are_fetched_once_for_each_row_and_kind():
    """A cascade that is spared features in training is fitted apart from one that is not."""
    keyed = np.column_stack([np.arange(300.0), X])
    costly = make_pipeline(CostlyFeatures(fetch, on=[0], cost=1.0), LogisticRegression())
    scoring = {"ap": "average_precision", "retained": retained_recall_scorer}
    model = cascade(
        LinearDiscriminantAnalysis(), costly, feedback="none", survivor_rate=0.5, stage_costs=[1, 1]
    )
    settings = [PassBudget(0.3), RecallFloor(0.9, of="positives"), PassBudget(0.5)]
    fetch.rows = []
    ours = ThresholdSearchCV(model, settings, scoring=scoring, refit=False, cv=2).fit(keyed, Y)
    rows_of_search = sum(fetch.rows)
    theirs = GridSearchCV(model, {"thresholds": settings}, scoring=scoring, refit=False, cv=2)
    theirs.fit(keyed, Y)
    assert_same_results(ours, theirs)
    # Two folds and two kinds, each at most 150 training and 150 test rows.
    assert rows_of_search <= 2 * 2 * 300


# --- the choice -------------------------------------------------------------------------------
def searched(**params):
    """A fitted search over more budgets."""
    settings = [PassBudget(r) for r in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)]
    model = cascade(feedback="none", calibration=None)
    return ThresholdSearchCV(model, settings, cv=2, **params).fit(X, Y)


def test_constraints_by_brute_force():
    scoring = {"retained": retained_recall_scorer, "accuracy": "accuracy"}
    search = searched(scoring=scoring, refit="retained", constraints={"cost": ("<=", 0.35)})
    results = search.cv_results_
    allowed = [i for i in range(6) if results["mean_test_cost"][i] <= 0.35]
    assert 0 < len(allowed) < 6
    best = max(allowed, key=lambda i: results["mean_test_retained"][i])
    assert search.best_index_ == best < np.argmax(results["mean_test_retained"])
    assert search.best_score_ == results["mean_test_retained"][best]
    assert search.best_estimator_.thresholds.max_pass_rate == 0.2

    floor = results["mean_test_retained"][3]
    search = searched(scoring=scoring, refit="cost", constraints={"retained": (">=", floor)})
    allowed = [i for i in range(6) if results["mean_test_retained"][i] >= floor]
    assert search.best_index_ == min(allowed, key=lambda i: results["mean_test_cost"][i])
    assert search.best_score_ == results["mean_test_cost"][search.best_index_]
    assert search.score(X, Y) == neg_mean_cost_scorer(search.best_estimator_, X)


def test_no_setting_meets_the_constraints():
    with pytest.raises(ValueError, match=r"None of the 6 settings meets cost <= 0.1 and") as told:
        searched(constraints={"cost": ("<=", 0.1), "score": (">=", 0.5)})
    cheapest = searched().cv_results_["mean_test_cost"].min()
    assert "the nearest is {'thresholds': PassBudget(max_pass_rate=0.02)}" in str(told.value)
    assert f"cost={cheapest:.6g}" in str(told.value)


def test_ties_go_to_the_cheapest_then_the_first():
    def flat(estimator, X, y):
        return 1.0

    settings = [PassBudget(r) for r in (0.5, 0.1, 0.1, 0.3)]
    search = ThresholdSearchCV(cascade(), settings, scoring=flat, cv=3).fit(X, Y)
    assert search.best_index_ == 1
    assert search.cv_results_["rank_test_score"].tolist() == [1, 1, 1, 1]
    assert search.cv_results_["rank_test_cost"].tolist() == [4, 1, 1, 3]


def test_pareto_front_by_brute_force():
    search = searched(scoring="average_precision")
    cost, score = (search.cv_results_[f"mean_test_{n}"] for n in ("cost", "score"))

    def beaten(i):
        return any(
            cost[j] <= cost[i]
            and score[j] >= score[i]
            and (cost[j], score[j]) != (cost[i], score[i])
            for j in range(6)
        )

    front = search.pareto_front_
    assert sorted(front) == [i for i in range(6) if not beaten(i)]
    assert (np.diff(cost[front]) >= 0).all()


def test_unknown_costs_are_left_out():
    class Uncounted(GaussianNB):
        pass

    model = cascade(Uncounted(), LogisticRegression(), stage_costs=None)
    search = ThresholdSearchCV(model, BUDGETS, cv=3).fit(X, Y)
    assert "mean_test_cost" not in search.cv_results_
    assert "mean_test_pass_rate" in search.cv_results_
    with pytest.raises(ValueError, match="ask for 'cost': set stage_costs"):
        clone(search).set_params(constraints={"cost": ("<=", 1)}).fit(X, Y)
    assert not hasattr(clone(search), "cv_results_")


def test_refit_of_all_kinds():
    names = {"ap": "average_precision", "f1": "f1"}
    search = searched(scoring=names, refit=False)
    assert not hasattr(search, "best_index_") and search.pareto_front_.size
    assert not hasattr(search, "predict")
    search = searched(scoring=names, refit=lambda results: 4)
    assert search.best_index_ == 4 and not hasattr(search, "best_score_")
    assert search.best_estimator_.thresholds.max_pass_rate == 0.4
    search = searched(refit="pass_rate")
    assert search.best_index_ == 0


# --- failures ---------------------------------------------------------------------------------
def test_a_setting_that_fails_gets_the_error_score():
    settings = [PassBudget(0.3), CostBudget(0.05), RecallFloor(0.9, of="caught")]
    model = cascade(catch_threshold=1.0, feedback="none")  # catches nothing
    params = {"scoring": "average_precision", "cv": 3, "error_score": 0.25}
    with pytest.warns(FitFailedWarning, match="6 fits failed out of a total of 9"):
        ours, theirs = both(model, settings, **params)
    assert_same_results(ours, theirs)
    assert np.isnan(ours.cv_results_["mean_test_cost"]).tolist() == [False, True, True]
    with pytest.raises(ValueError, match="cannot be met: the first stage"):
        ThresholdSearchCV(model, settings, cv=3, error_score="raise").fit(X, Y)


def test_nan_ranks_last_and_is_warned_of():
    with (
        pytest.warns(FitFailedWarning),
        pytest.warns(UserWarning, match="One or more of the test scores are non-finite"),
    ):
        ours, theirs = both(cascade(), [CostBudget(0.05), *BUDGETS], scoring="roc_auc", cv=2)
    assert_same_results(ours, theirs)
    assert ours.cv_results_["rank_test_score"][0] == 4


class Broken(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        raise RuntimeError("broken on purpose")

    def predict_proba(self, X):
        raise NotImplementedError


def test_stages_that_cannot_be_fitted():
    search = ThresholdSearchCV(cascade(GaussianNB(), Broken()), BUDGETS, cv=3)
    with pytest.raises(ValueError, match=r"(?s)All the 9 fits failed.*broken on purpose"):
        search.fit(X, Y)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        search.set_params(error_score="raise").fit(X, Y)
    assert not hasattr(search, "n_splits_")


def test_a_scorer_that_fails():
    def scorer(estimator, X, y):
        raise RuntimeError("no score")

    with (
        pytest.warns(UserWarning, match="Scoring failed"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search = ThresholdSearchCV(cascade(), BUDGETS, scoring=scorer, cv=3).fit(X, Y)
    assert np.isnan(search.cv_results_["mean_test_score"]).all()
    assert search.cv_results_["rank_test_score"].tolist() == [1, 1, 1]


def test_an_invalid_policy_is_told_before_any_stage_is_fitted():
    model = cascade(Broken(), LogisticRegression())
    search = ThresholdSearchCV(model, [PassBudget(0.1), PassBudget(2.0)], error_score="raise")
    with pytest.raises(ValueError, match=r"max_pass_rate of PassBudget\(max_pass_rate=2.0\)"):
        search.fit(X, Y)


@pytest.mark.parametrize(
    "params, error, message",
    [
        ({"thresholds": []}, ValueError, "thresholds must be a list of settings"),
        ({"thresholds": PassBudget(0.1)}, TypeError, "thresholds must be a list of settings"),
        ({"thresholds": "pair"}, ValueError, "or 'pairs'; got 'pair'"),
        ({"thresholds": [PassBudget]}, TypeError, "Each of thresholds must be a policy"),
        ({"thresholds": [0.1, "x"]}, TypeError, "or None; got 'x'"),
        ({"thresholds": [np.nan]}, ValueError, "or None; got nan"),
        ({"estimator": LogisticRegression()}, TypeError, "got LogisticRegression"),
        (
            {"estimator": make_pipeline(StandardScaler(), LogisticRegression())},
            TypeError,
            r"got Pipeline that ends in LogisticRegression\(\)",
        ),
        ({"scoring": {"cost": "accuracy"}, "refit": "cost"}, ValueError, "must not use the names"),
        ({"refit": "f1"}, ValueError, r"refit must be a bool, a callable or of \['score', 'cost'"),
        ({"scoring": ["f1", "recall"]}, ValueError, "For multi-metric scoring"),
        ({"constraints": {"f1": (">=", 1)}}, ValueError, "constraints must be on names of"),
        ({"constraints": [("cost", 1)]}, TypeError, "constraints must be a dict such as"),
        ({"constraints": {"cost": 0.1}}, ValueError, "The constraint on 'cost' must be"),
        ({"constraints": {"cost": ("<", 0.1)}}, ValueError, "The constraint on 'cost' must be"),
        ({"constraints": {"cost": ("<=", np.nan)}}, ValueError, "The constraint on 'cost' must"),
        (
            {"constraints": {"cost": ("<=", 1)}, "refit": len},
            ValueError,
            "constraints must be None where refit is a callable",
        ),
        (
            {"scoring": ["f1", "recall"], "refit": False, "constraints": {"f1": (">=", 0)}},
            ValueError,
            "constraints need refit to name the score",
        ),
        ({"cv": []}, ValueError, "cv gives no split"),
        ({"n_jobs": "two"}, ValueError, "'n_jobs' parameter"),
        ({"thresholds": "pairs", "n_cuts": 0}, ValueError, "n_cuts must be an integer >= 1"),
        (
            {"thresholds": "pairs", "n_cuts": (True, 2)},
            ValueError,
            r"n_cuts must be an integer >= 1 or two of them; got \(True, 2\)",
        ),
    ],
)
def test_bad_arguments(params, error, message):
    params = {"estimator": cascade(Broken(), Broken()), "thresholds": BUDGETS} | params
    with pytest.raises(error, match=message):
        ThresholdSearchCV(**params).fit(X, Y)


# --- a citizen of scikit-learn ----------------------------------------------------------------
def assert_jobs_change_nothing(capsys):
    settings = [PassBudget(0.1), 0.2]
    one = ThresholdSearchCV(cascade(), settings, cv=3, verbose=2).fit(X, Y)
    told = capsys.readouterr().out
    assert "Fitting each of 3 folds once, for 2 settings" in told and "[CV 3/3]" in told
    two = ThresholdSearchCV(cascade(), settings, cv=3, n_jobs=2).fit(X, Y)
    for name in ("mean_test_score", "split1_test_cost", "rank_test_pass_rate"):
        np.testing.assert_array_equal(one.cv_results_[name], two.cv_results_[name])


def test_jobs_and_verbose_change_nothing(capsys):
    with joblib.parallel_config("threading"):
        assert_jobs_change_nothing(capsys)


@pytest.mark.slow
def test_processes_change_nothing(capsys):
    assert_jobs_change_nothing(capsys)
    found = [
        ThresholdSearchCV(cascade(), "pairs", n_cuts=9, scoring="f1", cv=3, n_jobs=n).fit(X, Y)
        for n in (None, 2)
    ]
    np.testing.assert_array_equal(*[one.cv_results_["mean_test_score"] for one in found])


def test_times_add_up():
    search = ThresholdSearchCV(cascade(), BUDGETS, cv=3).fit(X, Y)
    results = search.cv_results_
    assert len(set(results["mean_fit_time"])) == 1
    assert search.search_time_ == pytest.approx(3 * results["mean_score_time"].sum())
    assert search.refit_time_ > 0


def test_pickles_clones_and_functions_of_the_package():
    search = searched(scoring="average_precision")
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    assert "evidence" not in str(vars(search.best_estimator_))
    assert clone(search).get_params(deep=False).keys() == search.get_params(deep=False).keys()
    assert skmsc.route(search, X).stage.shape == (300,)
    assert skmsc.report(search, X, Y).columns["stage"] == ("stage0", "stage1")
    assert search.set_params(estimator__feedback="none").estimator.feedback == "none"
    assert len(cross_val_score(search, X, Y, cv=2)) == 2


def test_the_estimator_and_its_settings_stay_as_they_are():
    model = make_pipeline(StandardScaler(), cascade(thresholds=0.7))
    search = ThresholdSearchCV(model, BUDGETS, cv=3).fit(X, Y)
    assert model[-1].thresholds == 0.7 and not hasattr(model[-1], "classes_")
    assert (
        isinstance(model, Pipeline) and search.best_params_["feedbackcascadeclassifier__thresholds"]
    )


SAME_AS_GRID_SEARCH = {
    "check_classifiers_one_label_sample_weights": "fails for GridSearchCV around a cascade, too",
    "check_fit2d_1feature": "fails for GridSearchCV around a cascade, too: folds of one class",
}


@pytest.mark.filterwarnings("ignore:The positive class .* is the more frequent one:UserWarning")
@pytest.mark.filterwarnings("ignore:Stage .* gives only .* distinct scores:UserWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:The scoring .* does not support sample_weight:UserWarning")
@pytest.mark.slow
@parametrize_with_checks(
    [
        ThresholdSearchCV(
            cascade(LogisticRegression(), DecisionTreeClassifier(max_depth=3)),
            [PassBudget(0.5), 0.3],
            cv=2,
            error_score="raise",
        )
    ],
    expected_failed_checks=lambda search: SAME_AS_GRID_SEARCH,
)
def test_estimator_checks(estimator, check):
    check(estimator)
