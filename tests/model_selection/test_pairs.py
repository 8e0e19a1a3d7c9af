"""All pairs of cuts at once: equal to loops over pairs, to scikit-learn's metrics, to a search."""

import pickle

import numpy as np
import pytest
import sklearn
from packaging.version import Version
from sklearn import metrics
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, make_scorer
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import skmsc
from skmsc import FeedbackCascadeClassifier, PassBudget
from skmsc.metrics import neg_mean_cost_scorer
from skmsc.model_selection import FinalCutClassifier, ThresholdSearchCV
from skmsc.model_selection._pairs import count_pairs, metric_of_counts, spread_cuts

X, Y = make_classification(300, weights=[0.8], flip_y=0.05, class_sep=0.8, random_state=0)
W = np.random.default_rng(0).integers(1, 4, size=300).astype(float)
CASCADE = FeedbackCascadeClassifier(
    [("screen", GaussianNB()), ("final", LogisticRegression())],
    cv=2,
    random_state=0,
    stage_costs=[0.1, 1],
)
COUNTED = {
    "accuracy": "accuracy",
    "balanced": "balanced_accuracy",
    "f1": "f1",
    "f2": make_scorer(metrics.fbeta_score, beta=2),
    "jaccard": "jaccard",
    "mcc": "matthews_corrcoef",
    "precision": make_scorer(metrics.precision_score, zero_division=0),
    "recall": "recall",
    "error": make_scorer(metrics.accuracy_score, greater_is_better=False),
}


def random_rows(n_rows=200, decimals=1, seed=0):
    """Confidences, last scores, labels, weights; with many ties."""
    rng = np.random.default_rng(seed)
    confidence, last = rng.uniform(size=(2, n_rows)).round(decimals)
    return confidence, last, rng.uniform(size=n_rows) < 0.3, rng.uniform(0, 2, size=n_rows)


# --- counts -----------------------------------------------------------------------------------
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("flags", [False, True])
def test_counts_equal_a_loop_over_pairs(weighted, flags):
    confidence, last, positive, weight = random_rows()
    weight = weight if weighted else np.ones(weight.size)
    flagged = last > 0.7 if flags else np.zeros(weight.size, dtype=bool)
    cuts, final_cuts = np.array([-0.1, 0.2, 0.25, 0.6, 1.0, 1.1]), np.array([0.0, 0.3, 0.35, 2.0])
    counts = count_pairs(
        confidence,
        last,
        positive,
        weight if weighted else None,
        cuts,
        final_cuts,
        flagged=flagged if flags else None,
    )
    for i, cut in enumerate(cuts):
        passed = confidence < cut
        assert counts.passed[i, 0] == pytest.approx(weight[passed].sum())
        for j, final_cut in enumerate(final_cuts):
            told = np.where(passed, last >= final_cut, flagged)
            found = [getattr(counts, name)[i, j] for name in ("tp", "fp", "fn", "tn")]
            wanted = [
                weight[told & positive].sum(),
                weight[told & ~positive].sum(),
                weight[~told & positive].sum(),
                weight[~told & ~positive].sum(),
            ]
            np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_counts_without_weights_are_whole_numbers():
    confidence, last, positive, _ = random_rows()
    counts = count_pairs(confidence, last, positive, None, np.array([0.5]), np.array([0.5]))
    assert counts.tp.dtype.kind == counts.passed.dtype.kind == "i"


@pytest.mark.parametrize("name", COUNTED)
def test_metrics_of_counts_equal_scikit_learns(name):
    confidence, last, positive, weight = random_rows()
    cuts, final_cuts = np.array([0.0, 0.3, 1.1]), np.array([0.0, 0.5, 0.95, 2.0])
    counts = count_pairs(confidence, last, positive, weight, cuts, final_cuts)
    scorer = get_scorer(COUNTED[name])
    found = metric_of_counts(name, scorer, 1)(counts)
    kwargs = dict(scorer._kwargs)
    if name in ("f1", "f2", "jaccard"):
        kwargs["zero_division"] = 0  # else scikit-learn warns of what it takes for 0
    for i, cut in enumerate(cuts):
        for j, final_cut in enumerate(final_cuts):
            told = (confidence < cut) & (last >= final_cut)
            wanted = scorer._sign * scorer._score_func(
                positive.astype(int), told.astype(int), sample_weight=weight, **kwargs
            )
            assert found[i, j] == pytest.approx(wanted, abs=1e-12)


def test_metrics_where_there_is_no_positive():
    confidence, last, _, _ = random_rows()
    positive = np.zeros(last.size, dtype=bool)
    counts = count_pairs(confidence, last, positive, None, np.array([1.1]), np.array([0.5]))
    told = (last >= 0.5).mean()
    assert metric_of_counts("b", get_scorer("balanced_accuracy"), 1)(counts) == pytest.approx(
        1 - told
    )
    assert metric_of_counts("r", get_scorer("recall"), 1)(counts) == 0
    nan = make_scorer(metrics.recall_score, zero_division=np.nan)
    assert np.isnan(metric_of_counts("r", nan, 1)(counts)).all()


@pytest.mark.parametrize(
    "scorer, message",
    [
        ("f1_macro", "cannot count the scorer 'mine'"),
        (make_scorer(metrics.cohen_kappa_score), "cannot count the scorer 'mine'"),
        (make_scorer(metrics.accuracy_score, normalize=False), "cannot count the scorer 'mine'"),
        (lambda estimator, X, y: 1.0, "cannot count the scorer 'mine'"),
        (make_scorer(metrics.f1_score, pos_label="fraud"), "give make_scorer.*pos_label=1"),
    ],
)
def test_scorers_that_cannot_be_counted(scorer, message):
    scorer = get_scorer(scorer) if isinstance(scorer, str) else scorer
    with pytest.raises(ValueError, match=message):
        metric_of_counts("mine", scorer, 1)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "neg_log_loss"])
def test_scorers_that_no_final_cut_changes(name):
    assert metric_of_counts(name, get_scorer(name), 1) is None
    assert metric_of_counts("cost", neg_mean_cost_scorer, 1) is None


# --- cuts -------------------------------------------------------------------------------------
def test_cuts_tell_every_wanted_score_apart():
    wanted = np.array([0.5, 0.3, 0.3, 0.9])
    np.testing.assert_allclose(spread_cuts(wanted, 0.1, 100), [0.2, 0.4, 0.7])
    lowest = spread_cuts(wanted, 0.3, 100)
    assert lowest[0] < 0.3 and lowest.size == 3
    few = spread_cuts(np.random.default_rng(0).uniform(size=1000), 0.0, 10)
    assert few.size == 10 and (np.diff(few) > 0).all()


# --- the search -------------------------------------------------------------------------------
def brute_force(search, estimator, **params):
    """GridSearchCV over the same pairs."""
    grid = {
        name.removeprefix("param_"): np.unique(values.data).tolist()
        for name, values in search.cv_results_.items()
        if name.startswith("param_")
    }
    return GridSearchCV(estimator, grid, cv=2, **params).fit(X, Y)


def assert_equal_results(search, theirs):
    for name in theirs.cv_results_:
        if "_test_" in name:
            np.testing.assert_allclose(
                search.cv_results_[name], theirs.cv_results_[name], rtol=1e-12, err_msg=name
            )
    assert search.cv_results_["params"] == theirs.cv_results_["params"]


@pytest.mark.parametrize("calibration", ["sigmoid", pytest.param(None, marks=pytest.mark.slow)])
def test_pairs_equal_grid_search_over_final_cut_classifier(calibration):
    cascade = clone(CASCADE).set_params(calibration=calibration)
    few = {name: COUNTED[name] for name in ("f2", "balanced", "precision", "error")}
    scoring = {**few, "auc": "roc_auc", "neg_cost": neg_mean_cost_scorer}
    search = ThresholdSearchCV(
        cascade, "pairs", n_cuts=(2, 4), scoring=scoring, refit="f2", cv=2
    ).fit(X, Y)
    assert len(search.cv_results_["params"]) == 8
    theirs = brute_force(search, FinalCutClassifier(cascade), scoring=scoring, refit="f2")
    assert_equal_results(search, theirs)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_cost"], -theirs.cv_results_["mean_test_neg_cost"]
    )
    np.testing.assert_array_equal(search.predict(X), search.best_estimator_.predict(X))
    assert search.score(X, Y) == get_scorer(COUNTED["f2"])(search.best_estimator_, X, Y)


def test_pairs_in_a_pipeline_with_weights():
    model = make_pipeline(StandardScaler(), CASCADE)
    step = "feedbackcascadeclassifier"
    fit = {f"{step}__sample_weight": W}
    search = ThresholdSearchCV(model, "pairs", n_cuts=2, scoring="f1", cv=2).fit(X, Y, **fit)
    assert list(search.best_params_) == [f"{step}__estimator__thresholds", f"{step}__final_cut"]
    wrapped = clone(model).set_params(**{step: FinalCutClassifier(CASCADE)})
    grid = {
        name.removeprefix("param_"): np.unique(values.data).tolist()
        for name, values in search.cv_results_.items()
        if name.startswith("param_")
    }
    theirs = GridSearchCV(wrapped, grid, scoring="f1", cv=2).fit(X, Y, **fit)
    assert_equal_results(search, theirs)
    np.testing.assert_array_equal(search.predict(X), theirs.predict(X))
    assert skmsc.route(search, X).stage.shape == (300,)


@pytest.mark.skipif(
    Version(sklearn.__version__) < Version("1.7"), reason="GridSearchCV of 1.6 weighs no scores"
)
def test_pairs_with_weights():
    search = ThresholdSearchCV(CASCADE, "pairs", n_cuts=2, cv=2).fit(X, Y, sample_weight=W)
    grid = {
        name: np.unique(search.cv_results_[f"param_{name}"].data).tolist()
        for name in ("estimator__thresholds", "final_cut")
    }
    theirs = GridSearchCV(FinalCutClassifier(CASCADE), grid, cv=2, scoring="accuracy")
    assert_equal_results(search, theirs.fit(X, Y, sample_weight=W))


def test_pairs_of_early_exits_count_early_positives():
    from skmsc import ComposableHeadClassifier

    model = ComposableHeadClassifier(GaussianNB(), "passthrough", random_state=0)
    search = ThresholdSearchCV(
        model, "pairs", n_cuts=3, scoring=["f1", "accuracy"], refit="f1", cv=2
    )
    search.fit(X, Y)
    theirs = brute_force(search, FinalCutClassifier(model), scoring=["f1", "accuracy"], refit="f1")
    assert_equal_results(search, theirs)
    # Both classes are answered early, so that some pair must have early positives.
    model = theirs.best_estimator_.estimator_
    early = model.route(X).stage == 0
    assert set(model.predict(X)[early]) == {0, 1}


def test_text_labels_and_another_positive_class():
    labels = np.where(Y == 1, "a fraud", "fine")
    cascade = clone(CASCADE).set_params(pos_label="a fraud")
    scorer = make_scorer(metrics.f1_score, pos_label="a fraud")
    search = ThresholdSearchCV(cascade, "pairs", n_cuts=30, scoring=scorer, cv=2).fit(X, labels)
    same = ThresholdSearchCV(CASCADE, "pairs", n_cuts=30, scoring="f1", cv=2).fit(X, Y)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], same.cv_results_["mean_test_score"]
    )


def test_best_pair_by_brute_force_over_scores():
    """The best F1 of all pairs on one test part is that of a loop over scores themselves."""
    train, test = np.arange(150), np.arange(150, 300)
    search = ThresholdSearchCV(
        CASCADE, "pairs", n_cuts=1000, scoring="f1", cv=[(train, test)], refit=False
    ).fit(X, Y)
    model = clone(CASCADE).set_params(thresholds=0.5).fit(X[train], Y[train])
    screen, last = np.moveaxis(model.stage_proba(X[test])[..., 1], 1, 0)
    y, best = Y[test], 0.0
    for t in np.append(-1.0, screen):
        for c in last:
            told = (screen > t) & (last >= c)
            best = max(best, 2 * (told & (y == 1)).sum() / (told.sum() + y.sum()))
    found = search.cv_results_["mean_test_score"].max()
    # Cuts lie between neighbouring positives, not at every row, so that they may win a bit less.
    assert best - 0.03 <= found <= best + 1e-12


def test_constraints_of_pairs():
    search = ThresholdSearchCV(
        CASCADE,
        "pairs",
        n_cuts=50,
        scoring={
            "recall": "recall",
            "precision": make_scorer(metrics.precision_score, zero_division=0),
        },
        refit="cost",
        constraints={"recall": (">=", 0.6), "precision": (">=", 0.6)},
        cv=2,
    ).fit(X, Y)
    results = search.cv_results_
    allowed = (results["mean_test_recall"] >= 0.6) & (results["mean_test_precision"] >= 0.6)
    assert 0 < allowed.sum() < allowed.size
    assert search.best_score_ == results["mean_test_cost"][allowed].min()
    cost, score = results["mean_test_cost"], results["mean_test_recall"]
    front = search.pareto_front_
    for i in range(0, cost.size, 97):
        beaten = (
            (cost <= cost[i]) & (score >= score[i]) & ((cost < cost[i]) | (score > score[i]))
        ).any()
        assert beaten == (i not in front)


def test_ranked_scorers_thin_the_cuts():
    params = {"n_cuts": 60, "cv": 2, "refit": False}
    y = np.tile([0, 1, 1], 100)  # so many positives that all cuts are used
    ranked = ThresholdSearchCV(clone(CASCADE).set_params(calibration=None, pos_label=0), "pairs")
    ranked.set_params(**params, scoring="average_precision").fit(X, y)
    counted = clone(ranked).set_params(scoring="accuracy").fit(X, y)
    n_cuts = [
        np.unique(s.cv_results_["param_estimator__thresholds"]).size for s in (ranked, counted)
    ]
    assert n_cuts == [50, 60]


def test_more_stages_or_classes_are_refused():
    three = FeedbackCascadeClassifier(
        [("a", GaussianNB()), ("b", GaussianNB()), ("c", GaussianNB())], stage_costs=[1, 1, 1]
    )
    with pytest.raises(ValueError, match="thresholds='pairs' needs two stages; there are 3"):
        ThresholdSearchCV(three, "pairs").fit(X, Y)
    cascade = clone(CASCADE).set_params(feedback="none")
    with pytest.raises(ValueError, match="Only binary classification is supported"):
        ThresholdSearchCV(cascade, "pairs", cv=2).fit(X, np.arange(300) % 3)
    with pytest.raises(ValueError, match="cannot count the scorer 'score'"):
        ThresholdSearchCV(three, "pairs", scoring="f1_macro").fit(X, Y)


def test_a_search_can_be_pickled():
    search = ThresholdSearchCV(CASCADE, "pairs", n_cuts=5, cv=2).fit(X, Y)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))


# --- FinalCutClassifier -----------------------------------------------------------------------
def test_final_cut_by_hand():
    model = FinalCutClassifier(clone(CASCADE).set_params(thresholds=PassBudget(0.5)), 0.2).fit(X, Y)
    inner = model.estimator_
    passed = inner.route(X).stage == 1
    told = passed & (inner.stage_proba(X)[:, 1, 1] >= 0.2)
    np.testing.assert_array_equal(model.predict(X), told.astype(int))
    np.testing.assert_array_equal(model.predict_proba(X), inner.predict_proba(X))
    assert told.sum() > inner.predict(X).sum() > 0


def test_a_fixed_threshold_flags_rejected_rows_and_a_final_cut_does_not():
    cascade = clone(CASCADE).set_params(thresholds=PassBudget(0.1))
    passed = clone(cascade).fit(X, Y).route(X).stage == 1
    final = FinalCutClassifier(cascade, 0.01).fit(X, Y)
    fixed = FixedThresholdClassifier(cascade, threshold=0.01, response_method="predict_proba")
    assert final.predict(X)[~passed].sum() == 0 < fixed.fit(X, Y).predict(X)[~passed].sum()


@pytest.mark.parametrize(
    "params, error, message",
    [
        ({"estimator": GaussianNB()}, TypeError, "must be a multi-stage classifier"),
        ({"final_cut": "0.5"}, ValueError, "final_cut must be a number or None; got '0.5'"),
        ({"final_cut": np.nan}, ValueError, "final_cut must be a number or None; got nan"),
    ],
)
def test_final_cut_refuses(params, error, message):
    with pytest.raises(error, match=message):
        FinalCutClassifier(**({"estimator": CASCADE} | params)).fit(X, Y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The positive class .* is the more frequent one:UserWarning")
@parametrize_with_checks(
    [FinalCutClassifier(clone(CASCADE).set_params(thresholds=PassBudget(0.5)))],
    expected_failed_checks=lambda _: {
        "check_classifiers_one_label_sample_weights": "fails for any wrapper of a cascade",
    },
)
def test_estimator_checks_of_final_cut(estimator, check):
    check(estimator)
