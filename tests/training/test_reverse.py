"""The reverse pass: the automatic choice of feedback against a table computed by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import (
    GridSearchCV,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from skmsc import AutoFeedback, CaughtFeedback, FeedbackCascadeClassifier, GainFeedback, PassBudget
from skmsc.calibration import fit_calibration
from skmsc.training.reverse import share_passed

N = 400
X, TRUTH = make_classification(
    N, n_features=8, n_informative=6, n_redundant=0, weights=[0.7], flip_y=0.1, random_state=5
)
RNG = np.random.default_rng(0)
LABELED = RNG.uniform(size=N) < 0.6
Y = np.where(LABELED, TRUTH, -1)
WEIGHT = RNG.uniform(0.5, 2.0, N)
CV = StratifiedKFold(3)
SCREEN = LogisticRegression(C=0.01, solver="newton-cholesky", tol=1e-12)
STAGES = [("screen", SCREEN), ("final", GaussianNB())]
SECOND = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-12)
THREE = [("first", SCREEN), ("second", SECOND), ("third", GaussianNB())]


def cascade(stages=STAGES, **params):
    params = {
        "thresholds": PassBudget(0.3),
        "cv": CV,
        "random_state": 0,
        "unlabeled_label": -1,
        "store_oof": True,
        **params,
    }
    return FeedbackCascadeClassifier(stages, **params)


# What passes


def share_by_hand(score, weight, tests, pass_rate):
    """Row by row: what is left of the budget after all that score higher, shared by ties."""
    shares = [[] for _ in score]
    for test in tests:
        budget = pass_rate * sum(weight[test])
        for i in test:
            above = sum(weight[j] for j in test if score[j] > score[i])
            tied = sum(weight[j] for j in test if score[j] == score[i])
            shares[i].append(min(max((budget - above) / tied, 0.0), 1.0))
    return np.array([np.mean(share) if share else 0.0 for share in shares])


@pytest.mark.parametrize("n_values", [1, 3, 1000])
@pytest.mark.parametrize("pass_rate", [0.01, 0.25, 0.6, 0.99])
def test_share_passed_is_what_is_left_of_the_budget(n_values, pass_rate):
    rng = np.random.default_rng(n_values)
    score, weight = rng.integers(0, n_values, 40) / n_values, rng.uniform(0.2, 3, 40)
    tests = [rng.permutation(35)[:20] for _ in range(3)]  # some rows twice, some never
    share = share_passed(score, weight, tests, pass_rate)
    np.testing.assert_allclose(share, share_by_hand(score, weight, tests, pass_rate), atol=1e-12)
    (alone,) = tests[:1]
    share = share_passed(score, weight, [alone], pass_rate)
    assert share @ weight == pytest.approx(pass_rate * weight[alone].sum())


def test_share_passed_is_the_mean_over_every_order_of_ties():
    score = np.array([0.9, 0.5, 0.5, 0.5, 0.1, 0.9])
    passed = np.zeros(6)
    orders = list(itertools.permutations(range(6)))
    for order in orders:
        first = sorted(order, key=lambda i: -score[i])[:3]  # sorted keeps the order of ties
        passed[first] += 1 / len(orders)
    np.testing.assert_allclose(share_passed(score, np.ones(6), [np.arange(6)], 0.5), passed)


def test_share_passed_of_weight_two_is_that_of_the_row_twice():
    rng = np.random.default_rng(1)
    score, weight = rng.integers(0, 6, 30), rng.integers(1, 4, 30)
    rows = np.arange(30).repeat(weight)
    weighted = share_passed(score, weight.astype(float), [np.arange(30)], 0.3)
    repeated = share_passed(score[rows], np.ones(rows.size), [np.arange(rows.size)], 0.3)
    np.testing.assert_allclose(weighted[rows], repeated, atol=1e-12)


# The table


def table_by_hand(fits, k, y, weight, splits, pass_rate, judge):
    """Retained recall, difference and standard error of cascades that differ in their scheme.

    The first of `fits` has feedback "none"; `judge` are the chances of rows to be caught.
    """
    caught = np.flatnonzero(judge * weight)
    mass = (judge * weight)[caught]
    tests = [test for _, test in splits]
    shares = [
        share_by_hand(fit.oof_stage_proba_[:, k, 1], weight, tests, pass_rate)[caught]
        for fit in fits
    ]
    known = y != -1
    ratio = sum(known[test].sum() / known[train].sum() for train, test in splits)
    table = []
    for share in shares:
        difference = share - shares[0]
        mean = mass @ difference / mass.sum()
        variance = (mass**2 @ (difference - mean) ** 2 + mass.max() ** 2) / mass.sum() ** 2
        error = np.sqrt(variance * (1 + ratio)) if share is not shares[0] else 0.0
        table.append((mass @ share / mass.sum(), mean, error))
    return np.array(table).T


def caught_labeled(model, y):
    """Positives that the last stage catches, by its out-of-fold scores."""
    with np.errstate(invalid="ignore"):
        last = model.oof_stage_proba_[:, -1, 1]
        return ((y == 1) & (last >= model.catch_threshold_)).astype(float)


SPLITTERS = {
    "stratified": CV,
    "repeated": RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0),
    "in time": TimeSeriesSplit(3),
    "overlapping": ShuffleSplit(4, test_size=0.4, random_state=0),
}


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
@pytest.mark.parametrize("splitter", SPLITTERS)
def test_the_table_is_the_one_computed_by_hand(splitter, weight):
    cv = SPLITTERS[splitter]
    candidates = ["caught", GainFeedback(temperature=2.0)]
    automatic = AutoFeedback(0.2, candidates=candidates)
    model = cascade(feedback=automatic, cv=cv).fit(X, TRUTH, sample_weight=weight)
    fits = [
        cascade(feedback=feedback, cv=cv).fit(X, TRUTH, sample_weight=weight)
        for feedback in ["none", *candidates]
    ]
    weights = np.ones(N) if weight is None else weight
    judge = caught_labeled(fits[0], TRUTH)
    expected = table_by_hand(fits, 0, TRUTH, weights, list(cv.split(X, TRUTH)), 0.2, judge)
    table = model.feedback_comparison_
    assert list(table) == [
        "stage",
        "feedback",
        "retained_recall",
        "difference",
        "standard_error",
        "chosen",
    ]
    for name, column in zip(list(table)[2:5], expected, strict=True):
        np.testing.assert_allclose(table[name], column, atol=1e-9)
    assert table["stage"].tolist() == ["screen"] * 3
    assert table["feedback"].tolist() == ["none", "caught", "GainFeedback(temperature=2.0)"]
    assert table["chosen"].dtype == bool and table["chosen"].sum() == 1


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_unlabelled_rows_count_in_the_table_by_their_chance(weight):
    model = cascade(feedback="auto").fit(X, Y, sample_weight=weight)
    fits = [
        cascade(feedback=feedback).fit(X, Y, sample_weight=weight)
        for feedback in ("none", "caught", "gain")
    ]
    weights = np.ones(N) if weight is None else weight
    # Without feedback a cascade does not score unlabelled rows; here its fits do.
    oof = np.full((N, 2, 2), np.nan)
    for train, test in CV.split(X, Y):
        mine = train[LABELED[train]]
        by_fold = clone(SCREEN).fit(X[mine], Y[mine], sample_weight=weights[mine])
        oof[test, 0] = by_fold.predict_proba(X[test])
    fits[0].oof_stage_proba_ = oof
    last = fits[1].oof_stage_proba_[:, 1]
    calibrate = fit_calibration("sigmoid", last[LABELED], Y[LABELED], weights[LABELED])
    of_all = GaussianNB().fit(X[LABELED], Y[LABELED], weights[LABELED]).predict_proba(X[~LABELED])
    judge = caught_labeled(fits[1], Y)
    judge[~LABELED] = calibrate(of_all)[:, 1] * (of_all[:, 1] >= model.catch_threshold_)
    assert 0 < judge[~LABELED].sum() < (judge[~LABELED] > 0).sum()
    expected = table_by_hand(fits, 0, Y, weights, list(CV.split(X, Y)), 0.1, judge)
    names = ("retained_recall", "difference", "standard_error")
    for name, column in zip(names, expected, strict=True):
        np.testing.assert_allclose(model.feedback_comparison_[name], column, atol=1e-9)


def test_tied_scores_share_what_is_left():
    stages = [("screen", DecisionTreeClassifier(max_depth=2)), ("final", GaussianNB())]
    model = cascade(stages, feedback="auto", thresholds=0.3).fit(X, TRUTH)
    fits = [
        cascade(stages, feedback=feedback, thresholds=0.3).fit(X, TRUTH)
        for feedback in ("none", "caught", "gain")
    ]
    judge = caught_labeled(fits[0], TRUTH)
    splits = list(CV.split(X, TRUTH))
    expected = table_by_hand(fits, 0, TRUTH, np.ones(N), splits, 0.1, judge)
    np.testing.assert_allclose(model.feedback_comparison_["retained_recall"], expected[0])


# The choice


def rule(table, margin):
    """Best difference from "none", if it is more than so many standard errors; else "none"."""
    best = int(np.argmax(table["difference"]))
    return best if table["difference"][best] > margin * table["standard_error"][best] else 0


@pytest.mark.parametrize("y", [TRUTH, Y], ids=["labelled", "some unlabelled"])
@pytest.mark.parametrize("margin", [0, 0.2, 0.5, 1.0, 3.0, 100.0])
def test_the_choice_follows_the_table(margin, y):
    candidates = ["caught", "gain", lambda positive, *_: 1.0 + 4 * positive]
    automatic = AutoFeedback(0.2, candidates=candidates, margin=margin)
    model = cascade(feedback=automatic).fit(X, y)
    table = model.feedback_comparison_
    place = int(table["chosen"].argmax())
    assert place == rule(table, margin)
    alone = cascade(feedback=["none", *candidates][place]).fit(X, y)
    np.testing.assert_array_equal(model.stage_proba(X), alone.stage_proba(X))
    np.testing.assert_array_equal(model.feedback_weights_, alone.feedback_weights_)
    # Scores of more rows at once may be rounded in another way: without feedback the unlabelled
    # rows are scored here, for the comparison, and not there.
    scored = y >= 0
    for got, expected in [
        (model.oof_stage_proba_[scored], alone.oof_stage_proba_[scored]),
        (model.thresholds_, alone.thresholds_),
        (model.predict_proba(X), alone.predict_proba(X)),
    ]:
        np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("candidate", ["caught", "gain"])
def test_a_chosen_candidate_is_the_fit_with_it_alone_bit_for_bit(candidate):
    stages = [("screen", DecisionTreeClassifier(max_features=2)), ("final", GaussianNB())]

    def off(positive, later_proba, catch_threshold):
        return np.where(positive, 1e-3 + (later_proba[:, -1] < catch_threshold), 1.0)

    params = {"thresholds": 0.3, "random_state": 3}
    for y in (TRUTH, Y):
        automatic = AutoFeedback(0.3, candidates=[off, candidate, off], margin=0.0)
        model = cascade(stages, feedback=automatic, **params).fit(X, y)
        place = int(model.feedback_comparison_["chosen"].argmax())
        alone = cascade(stages, feedback=["none", off, candidate, off][place], **params).fit(X, y)
        np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(X))
        np.testing.assert_array_equal(model.feedback_weights_, alone.feedback_weights_)


def test_feedback_is_chosen_where_the_last_stage_cannot_see_half_of_the_positives():
    """And what emphasises the other half never is."""
    rng = np.random.default_rng(0)
    y = (rng.uniform(size=1500) < 0.15).astype(int)
    kind = rng.uniform(size=1500) < 0.5
    rows = rng.normal(size=(1500, 6))
    rows[y == 1, 0] += 1.5 * kind[y == 1]
    rows[(y == 1) & kind, 3:] += 2.0
    rows[(y == 1) & ~kind, 1] += 2.5

    def backwards(positive, later_proba, catch_threshold):
        return np.where(positive, 0.01 + (later_proba[:, -1] < catch_threshold), 1.0)

    cheap = ColumnTransformer([("cheap", "passthrough", [0, 1, 2])])
    costly = ColumnTransformer([("costly", "passthrough", [3, 4, 5])])
    stages = [
        ("screen", make_pipeline(cheap, SCREEN)),
        ("final", make_pipeline(costly, GaussianNB())),
    ]
    for candidates, expected in [
        (["caught", backwards], 1),
        ([backwards, "caught"], 2),
        ([backwards], 0),
    ]:
        model = cascade(stages, feedback=AutoFeedback(0.1, candidates=candidates))
        assert model.fit(rows, y).feedback_comparison_["chosen"].argmax() == expected


def test_equal_candidates_are_a_tie_that_the_first_wins():
    automatic = AutoFeedback(0.2, candidates=["gain", "gain", GainFeedback()], margin=0.0)
    table = cascade(feedback=automatic).fit(X, TRUTH).feedback_comparison_
    assert np.ptp(table["difference"][1:]) == 0
    assert table["chosen"].argmax() in (0, 1)
    assert table["chosen"].argmax() == rule(table, 0.0)


def test_a_frozen_screen_has_nothing_to_choose():
    frozen = FrozenEstimator(clone(SCREEN).fit(X[:50], TRUTH[:50]))
    model = cascade([("screen", frozen), ("final", GaussianNB())], feedback=AutoFeedback(margin=0))
    table = model.fit(X, Y).feedback_comparison_
    np.testing.assert_array_equal(table["difference"], 0.0)
    assert table["feedback"][table["chosen"]].tolist() == ["none"]


@pytest.mark.parametrize("y", [TRUTH, Y], ids=["labelled", "some unlabelled"])
def test_without_a_caught_row_there_is_no_feedback(y):
    model = cascade(
        feedback=AutoFeedback(candidates=["caught"], margin=0), catch_threshold=1.0
    ).fit(X, y)
    table = model.feedback_comparison_
    np.testing.assert_array_equal(table["chosen"], [True, False])
    assert np.isnan(table["retained_recall"]).all() and np.isnan(table["difference"]).all()
    neutral = cascade(feedback="none", catch_threshold=1.0).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), neutral.predict_proba(X))


def test_a_single_caught_positive_decides_nothing():
    """One row that changes sides is no more than one standard error."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        few = np.flatnonzero(TRUTH == 1)[rng.permutation((TRUTH == 1).sum())[:6]]
        rows = np.append(np.flatnonzero(TRUTH == 0), few)
        last = cascade(feedback="none", unlabeled_label=None).fit(X[rows], TRUTH[rows])
        scores = np.sort(last.oof_stage_proba_[TRUTH[rows] == 1, 1, 1])
        model = cascade(feedback="auto", catch_threshold=(scores[-1] + scores[-2]) / 2)
        table = model.fit(X[rows], TRUTH[rows]).feedback_comparison_
        assert table["chosen"].tolist() == [True, False, False]
        assert (table["standard_error"][1:] >= np.abs(table["difference"][1:])).all()


class ByStage(GainFeedback):
    """One strategy for the second stage, one for the first."""

    def __init__(self, second=None, first=None):
        self.second = second
        self.first = first

    def check(self, stage_costs=None):
        pass

    def weigh(self, signal):
        strategy = self.second if signal.later_proba.shape[1] == 1 else self.first
        if strategy == "none":
            return signal.positive, np.ones(signal.positive.size)
        return {"caught": CaughtFeedback, "gain": GainFeedback}[strategy]().weigh(signal)


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0])
def test_of_three_stages_the_later_choice_comes_first(margin):
    model = cascade(THREE, feedback=AutoFeedback(0.2, margin=margin), thresholds=0.3)
    table = pd.DataFrame(model.fit(X, TRUTH).feedback_comparison_)
    assert table["stage"].tolist() == ["first"] * 3 + ["second"] * 3
    assert table["feedback"].tolist() == ["none", "caught", "gain"] * 2
    chosen = table[table["chosen"]].set_index("stage")["feedback"]
    for k, name in enumerate(["first", "second"]):
        fits = [
            cascade(
                THREE,
                feedback=ByStage(*((chosen["second"], scheme) if k == 0 else (scheme, "none"))),
                thresholds=0.3,
            ).fit(X, TRUTH)
            for scheme in ("none", "caught", "gain")
        ]
        expected = table_by_hand(
            fits,
            k,
            TRUTH,
            np.ones(N),
            list(CV.split(X, TRUTH)),
            0.2,
            caught_labeled(fits[0], TRUTH),
        )
        mine = table[table["stage"] == name].reset_index(drop=True)
        np.testing.assert_allclose(mine["retained_recall"], expected[0], atol=1e-9)
        np.testing.assert_allclose(mine["standard_error"], expected[2], atol=1e-9)
        assert mine["chosen"].argmax() == rule(mine, margin)


def test_gain_that_leaves_nothing_to_learn_is_no_feedback_in_the_table():
    candidates = ["caught", GainFeedback(error_costs=(1e-9, 1.0))]
    model = cascade(feedback=AutoFeedback(candidates=candidates), stage_costs=[0, 1])
    table = model.fit(X, Y).feedback_comparison_
    assert table["difference"][2] == 0 and not table["chosen"][2]


def test_auto_stands_for_automatic_feedback_as_it_is():
    by_name, by_object = (cascade(feedback=f).fit(X, Y) for f in ("auto", AutoFeedback()))
    np.testing.assert_array_equal(by_name.predict_proba(X), by_object.predict_proba(X))
    for name, column in by_name.feedback_comparison_.items():
        np.testing.assert_array_equal(column, by_object.feedback_comparison_[name])


def test_one_stage_has_nothing_to_compare():
    model = cascade([("only", GaussianNB())], feedback="auto").fit(X, Y)
    assert not hasattr(model, "feedback_comparison_")


def test_its_parameters_are_those_of_the_cascade():
    model = cascade(feedback=AutoFeedback(candidates=["gain"]), store_oof=False)
    grid = {"feedback__pass_rate": [0.05, 0.5], "feedback__margin": [0.0, 100.0]}
    search = GridSearchCV(model, grid, cv=2, refit=False).fit(X, TRUTH)
    for params, score in zip(
        search.cv_results_["params"], search.cv_results_["split0_test_score"], strict=True
    ):
        train, test = next(StratifiedKFold(2).split(X, TRUTH))
        fit = clone(model).set_params(**params).fit(X[train], TRUTH[train])
        assert score == fit.score(X[test], TRUTH[test])
    fresh = clone(model.set_params(feedback__pass_rate=0.4))
    assert fresh.feedback.pass_rate == 0.4 and fresh.feedback is not model.feedback
    assert repr(fresh.feedback) == "AutoFeedback(candidates=['gain'], pass_rate=0.4)"
    nested = AutoFeedback(candidates=[GainFeedback(temperature=0.5)])
    assert clone(nested).candidates[0] is not nested.candidates[0]
    assert repr(clone(nested)) == repr(nested)


class Untouchable(LogisticRegression):
    def fit(self, X, y, sample_weight=None):
        raise AssertionError("a stage was fitted")


@pytest.mark.parametrize(
    "params, match",
    [
        ({"pass_rate": 0}, r"pass_rate must be a number in \(0, 1\); got 0"),
        ({"pass_rate": 1.0}, r"pass_rate must be a number in \(0, 1\); got 1.0"),
        ({"pass_rate": np.nan}, "pass_rate must be .*; got nan"),
        ({"pass_rate": True}, "pass_rate must be .*; got True"),
        ({"pass_rate": "10%"}, "pass_rate must be .*; got '10%'"),
        ({"margin": -0.1}, r"margin must be a number in \[0, inf\); got -0.1"),
        ({"margin": np.inf}, r"margin must be a number in \[0, inf\); got inf"),
        ({"margin": None}, "margin must be .*; got None"),
        ({"candidates": []}, r"candidates must be a list of feedbacks .*; got \[\]"),
        ({"candidates": "caught"}, "candidates must be a list .*; got 'caught'"),
        ({"candidates": None}, "candidates must be a list .*; got None"),
        ({"candidates": ["caught", "none"]}, "A candidate must be a feedback .* got 'none'"),
        ({"candidates": ["caught", "auto"]}, "A candidate must be a feedback .* got 'auto'"),
        ({"candidates": [AutoFeedback()]}, r"A candidate must be .* got AutoFeedback\(\)"),
        ({"candidates": ["cought"]}, "feedback must be 'caught', 'gain', .*; got 'cought'"),
        ({"candidates": [CaughtFeedback]}, "feedback must be .*; got <class"),
        ({"candidates": [AutoFeedback]}, "feedback must be .*; got <class"),
        ({"candidates": [3]}, "feedback must be .*; got 3"),
        ({"candidates": [CaughtFeedback(strength=2)]}, "strength must be .*; got 2"),
        ({"candidates": [GainFeedback(error_costs=(1, 1))]}, "set stage_costs too"),
    ],
)
def test_bad_parameters_raise_before_any_fit(params, match):
    stages = [("screen", Untouchable()), ("final", Untouchable())]
    with pytest.raises(ValueError, match=match):
        cascade(stages, feedback=AutoFeedback(**params)).fit(X, Y)


def test_the_class_is_no_feedback():
    with pytest.raises(ValueError, match=r"feedback must be .*; got <class"):
        cascade(feedback=AutoFeedback).fit(X, Y)


# What counts as caught


@pytest.mark.parametrize("catch_threshold, expected", [(0.2, 0.2), (1, 1.0), ("argmax", 0.5)])
def test_catch_thresholds_that_need_no_rows(catch_threshold, expected):
    model = cascade(catch_threshold=catch_threshold, feedback="none").fit(X, Y)
    assert model.catch_threshold_ == expected and isinstance(model.catch_threshold_, float)


def test_the_cut_of_best_f1_is_that_of_labelled_rows():
    model = cascade().fit(X, Y)
    score = model.oof_stage_proba_[LABELED, 1, 1]
    best = max(f1_score(Y[LABELED], score >= cut) for cut in score)
    assert f1_score(Y[LABELED], score >= model.catch_threshold_) == pytest.approx(best)
