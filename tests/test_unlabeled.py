"""Rows without a label: equal to loops written by hand, and in nothing where they cannot be.

`reverse_pass` is the whole reverse pass with unlabelled rows in plain NumPy, for stages that take
weights; it shares no code with the package.
"""

import pickle

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import skorch
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import make_classification
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    make_scorer,
    roc_auc_score,
)
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from skmsc import (
    AutoFeedback,
    CaughtFeedback,
    CostlyFeatures,
    FeedbackCascadeClassifier,
    GainFeedback,
    PassBudget,
    RecallFloor,
)
from skmsc.metrics import neg_pass_rate_scorer, retained_recall_scorer
from skmsc.model_selection import LabeledTestFolds, TimeDelaySplit
from skmsc.neural import TabularNet
from skmsc.training import reverse

N = 260
X, TRUTH = make_classification(
    N, n_features=6, n_informative=4, n_redundant=0, weights=[0.7], flip_y=0.1, random_state=3
)
RNG = np.random.default_rng(0)
LABELED = RNG.uniform(size=N) < 0.6
Y = np.where(LABELED, TRUTH, -1)
WEIGHT = RNG.uniform(0.5, 2.0, N)
GROUPS = RNG.integers(0, 150, N)
TIME = RNG.permutation(N).astype(float)
CV = StratifiedKFold(3)
SPLITS = list(CV.split(X, Y))


def exact(**params):
    """A logistic regression that two libraries' roundings lead to the same place."""
    return LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000, **params)


STAGES = [("screen", exact(C=0.1)), ("final", GaussianNB())]
THREE = [("first", exact(C=0.01)), ("second", exact(C=0.1)), ("third", GaussianNB())]


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


def assert_same_fit(model, other, *, oof=True, exact=True):
    """Equal in all that a fit leaves."""
    equal = np.testing.assert_array_equal
    if not exact:

        def equal(got, expected):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)

    np.testing.assert_array_equal(model.classes_, other.classes_)
    equal(model.thresholds_, other.thresholds_)
    equal(model.catch_threshold_, other.catch_threshold_)
    equal(model.stage_proba(X), other.stage_proba(X))
    equal(model.predict_proba(X), other.predict_proba(X))
    if oof:
        equal(model.oof_stage_proba_, other.oof_stage_proba_)
        equal(model.feedback_weights_, other.feedback_weights_)


# The reverse pass by hand


def soft(proba, cut, temperature=1.0):
    proba = np.clip(proba, 1e-12, 1 - 1e-12)
    return expit((logit(proba) - logit(cut)) / temperature)


def platt(proba, y, weight):
    """Sigmoid of the log-odds, of greatest likelihood for Platt's smoothed targets."""
    n_pos, n_neg = weight[y == 1].sum(), weight[y == 0].sum()
    bound = np.log(2 * (n_pos + n_neg))
    target = np.where(y == 1, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))

    def odds(proba):
        with np.errstate(divide="ignore"):
            odds = np.clip(np.log(proba / (1 - proba)), -1e3, 1e3)
        held = np.clip(odds, -bound, bound)
        return held + 1e-6 * (odds - held)

    score = odds(proba)

    def loss(theta):
        z = theta[0] * score + theta[1]
        return np.average(np.logaddexp(0, z) - target * z, weights=weight)

    def slope(theta):
        rest = weight / weight.sum() * (expit(theta[0] * score + theta[1]) - target)
        return np.array([rest @ score, rest.sum()])

    theta = minimize(loss, [1.0, 0.0], jac=slope, method="BFGS", options={"gtol": 1e-10}).x
    return lambda proba: expit(theta[0] * odds(proba) + theta[1])


def caught(strength=1.0, temperature=1.0):
    """By hand: what `CaughtFeedback` does with labelled rows and with others."""

    def weigh(y, later, weight, cut, pool, p):
        q, q_pool = (soft(proba[:, -1], cut, temperature) for proba in (later, pool))
        mean = np.average(q[y == 1], weights=weight[y == 1])
        of_labeled = np.where(y == 1, (1 - strength) + strength * q / mean, 1.0)
        as_positive = p * ((1 - strength) + strength * q_pool / mean)
        return y, of_labeled, np.column_stack([1 - p, as_positive])

    return weigh


def gain(costs=None, later_costs=(0.2,), strength=1.0, temperature=1.0):
    """By hand: what `GainFeedback` does, by V_j = c_j + q_j V_{j+1} + (1 - q_j) C_FN y."""

    def weigh(y, later, weight, cut, pool, p):
        c_fn, c_fp = costs or (weight[y == 0].sum() / weight[y == 1].sum(), 1.0)
        prices = later_costs[-later.shape[1] :]

        def gain_of(y, proba, c_fn=c_fn, c_fp=c_fp):
            value = c_fp * (1 - y)
            for k in reversed(range(proba.shape[1])):
                last = k == proba.shape[1] - 1
                q = soft(proba[:, k], cut if last else 0.5, temperature)
                value = prices[k] + q * value + (1 - q) * c_fn * y
            return c_fn * y - value

        gains, zero, one = gain_of(y, later), np.zeros(len(p)), np.ones(len(p))
        scale = np.average(np.abs(gains), weights=weight)
        calls = -gain_of(zero, pool, c_fp=0.0)
        as_negative = -gain_of(zero, pool) - calls  # what a false alarm costs
        as_positive = gain_of(one, pool) + calls
        guess = np.column_stack([(1 - p) * as_negative + calls, p * as_positive]) / scale
        guess = strength * guess + (1 - strength) * np.column_stack([1 - p, p])
        return gains > 0, strength * np.abs(gains) / scale + 1 - strength, guess

    return weigh


def by_rank(positive, later_proba, catch_threshold):
    """A feedback of one's own, each row by itself."""
    return np.where(positive, 2.0, 1.0) * (0.2 + later_proba.prod(axis=1)) + catch_threshold


def own(weigh=by_rank):
    """By hand: what a callable's weights are made of."""

    def weigh_all(y, later, weight, cut, pool, p):
        as_negative = weigh(np.zeros(len(p), dtype=bool), pool, cut)
        as_positive = weigh(np.ones(len(p), dtype=bool), pool, cut)
        guess = np.column_stack([(1 - p) * as_negative, p * as_positive])
        return y, weigh(y == 1, later, cut), guess

    return weigh_all


def reverse_pass(estimators, X, y, splits, weigh, weight, cut):
    """Fits, out-of-fold scores and weights of all stages, the last one first; -1 is unlabelled."""
    n, free = len(y), y == -1
    pool = np.flatnonzero(free)
    parts = [np.arange(n), *(train for train, _ in splits)]
    scored = np.zeros(n, dtype=bool)
    for _, test in splits:
        scored[test[~free[test]]] = True
    fits, oofs, pools, weights = [], [], [], []
    for k in reversed(range(len(estimators))):
        target, of_labeled = y.copy(), np.ones(n)
        guesses = [np.zeros((pool.size, 2))] * len(parts)
        if oofs:
            later = np.column_stack([oof[scored] for oof in oofs])
            calibrate = platt(oofs[-1][scored], y[scored], weight[scored])
            guesses = []
            for f in range(len(parts)):
                of_pool = np.column_stack([by_fit[f] for by_fit in pools])
                wanted, of_scored, guess = weigh(
                    y[scored], later, weight[scored], cut, of_pool, calibrate(of_pool[:, -1])
                )
                guesses.append(guess)
            target[scored], of_labeled[scored] = wanted, of_scored
        models = []
        for part, guess in zip(parts, guesses, strict=True):
            mine = part[~free[part]]
            # As often as the training part holds a row; an unlabelled one as either class.
            other = np.bincount(part, minlength=n)[pool][:, None] * guess * weight[pool, None]
            learned = other.sum(axis=1) > 0
            rows = np.concatenate([mine, pool[learned], pool[learned]])
            labels = np.append(target[mine], np.repeat([0, 1], learned.sum()))
            emphasis = np.append((weight * of_labeled)[mine], other[learned].T)
            models.append(clone(estimators[k]).fit(X[rows], labels, sample_weight=emphasis))
        total, count = np.zeros(n), np.zeros(n)
        for model, (_, test) in zip(models[1:], splits, strict=True):
            total[test] += model.predict_proba(X[test])[:, 1]
            count[test] += 1
        with np.errstate(invalid="ignore"):
            oofs.insert(0, total / count)
        pools.insert(0, [model.predict_proba(X)[pool, 1] for model in models])
        fits.insert(0, models[0])
        weights.insert(0, np.where(free, np.nan, of_labeled))
        if len(fits) > 1:  # the last stage learns no unlabelled row
            weights[0][pool] = guesses[0].sum(axis=1)
    return fits, np.column_stack(oofs), np.column_stack(weights)


SCHEMES = {
    "caught": ("caught", caught()),
    "half caught": (CaughtFeedback(0.5, 2.0), caught(0.5, 2.0)),
    "gain": ("gain", gain()),
    "part of gain": (GainFeedback(0.7, 0.5), gain(None, [0.2], 0.7, 0.5)),
    "own": (by_rank, own()),
}


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_fit_is_the_loop_written_by_hand(scheme, weight):
    feedback, weigh = SCHEMES[scheme]
    model = cascade(feedback=feedback, calibration=None).fit(X, Y, sample_weight=weight)
    weights = np.ones(N) if weight is None else weight
    fits, oof, taught = reverse_pass(
        [exact(C=0.1), GaussianNB()], X, Y, SPLITS, weigh, weights, model.catch_threshold_
    )
    np.testing.assert_allclose(model.feedback_weights_[LABELED], taught[LABELED], rtol=1e-6)
    np.testing.assert_allclose(model.oof_stage_proba_[LABELED, :, 1], oof[LABELED], rtol=1e-6)
    np.testing.assert_allclose(model.named_stages_["screen"].coef_, fits[0].coef_, rtol=1e-6)
    np.testing.assert_array_equal(model.named_stages_["final"].theta_, fits[1].theta_)

    # The budget: labelled rows above the cut weigh at most 30 %, and with the next row more.
    score, mass = model.oof_stage_proba_[LABELED, 0, 0], weights[LABELED]
    passes = score < model.thresholds_[0, 0]
    following = score <= score[~passes].min()
    assert mass[passes].sum() <= 0.3 * mass.sum() < mass[following].sum()
    # Without calibration the answer is the raw score of the stage that gives it; that of an early
    # one stays below 1/2.
    early, late = (fit.predict_proba(X) for fit in fits)
    passes = early[:, 0] < model.thresholds_[0, 0]
    proba = model.predict_proba(X)
    assert 0 < passes.sum() < N
    np.testing.assert_allclose(proba[passes], late[passes], rtol=1e-6)
    low = early[:, 1] < 0.25
    np.testing.assert_allclose(proba[low & ~passes], early[low & ~passes], rtol=1e-6)
    assert (proba[~passes, 1] < 0.5).all()


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_the_weights_shown_of_an_unlabelled_row_are_both_its_own_together(weight):
    model = cascade().fit(X, Y, sample_weight=weight)
    weights = np.ones(N) if weight is None else weight
    *_, taught = reverse_pass(
        [exact(C=0.1), GaussianNB()], X, Y, SPLITS, caught(), weights, model.catch_threshold_
    )
    # Before the caller's weights are multiplied in; the last stage learns no such row.
    np.testing.assert_allclose(model.feedback_weights_, taught, rtol=1e-6)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
@pytest.mark.parametrize(
    "feedback, weigh",
    [
        ("caught", caught()),
        (GainFeedback(temperature=2.0), gain(None, [0.2 * 5 / 20, 0.2], 1.0, 2.0)),
        (GainFeedback(error_costs=(90.0, 20.0)), gain((90.0, 20.0), [5.0, 20.0])),
        (by_rank, own()),
    ],
    ids=["caught", "gain", "gain at given costs", "own"],
)
def test_three_stages_are_the_loop_written_by_hand(feedback, weigh, weight):
    model = cascade(THREE, feedback=feedback, stage_costs=[1, 5, 20], thresholds=0.3)
    model.fit(X, Y, sample_weight=weight)
    weights = np.ones(N) if weight is None else weight
    fits, oof, taught = reverse_pass(
        [stage for _, stage in THREE], X, Y, SPLITS, weigh, weights, model.catch_threshold_
    )
    np.testing.assert_allclose(model.feedback_weights_[LABELED], taught[LABELED], rtol=1e-5)
    np.testing.assert_allclose(model.oof_stage_proba_[LABELED, :, 1], oof[LABELED], rtol=1e-5)
    for k in range(2):
        np.testing.assert_allclose(model.stages_[k].coef_, fits[k].coef_, rtol=1e-5)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_calibration_sees_the_labelled_rows_that_reach_the_stage(weight):
    model = cascade(thresholds=PassBudget(0.5)).fit(X, Y, sample_weight=weight)
    weights = np.ones(N) if weight is None else weight
    late = model.oof_stage_proba_[:, 0, 0] < model.thresholds_[0, 0]
    for k, rows in enumerate([LABELED, LABELED & late]):
        calibrate = platt(model.oof_stage_proba_[rows, k, 1], Y[rows], weights[rows])
        mine = model.route(X).stage == k
        np.testing.assert_allclose(
            model.predict_proba(X)[mine, 1],
            calibrate(model.stage_proba(X)[mine, k, 1]),
            rtol=1e-4,
            atol=1e-8,
        )


def test_the_catch_threshold_has_the_best_f1_on_the_labelled_rows():
    model = cascade().fit(X, Y, sample_weight=WEIGHT)
    score, y, weight = model.oof_stage_proba_[LABELED, 1, 1], Y[LABELED], WEIGHT[LABELED]

    def f1(cut):
        called = score >= cut
        return 2 * weight[called & (y == 1)].sum() / (weight[called].sum() + weight @ y)

    assert f1(model.catch_threshold_) == pytest.approx(max(map(f1, score)))


@pytest.mark.parametrize(
    "splits",
    [
        list(KFold(4).split(X)),
        list(TimeSeriesSplit(3).split(X)),
        list(RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0).split(X, Y)),
        list(GroupKFold(3).split(X, groups=GROUPS)),
        [(train[::-1], test[::-1]) for train, test in SPLITS],
        list(TimeDelaySplit(3, test_size=40, gap=20).split(X, time=TIME)),
    ],
    ids=["k-fold", "in time", "repeated", "groups", "backwards", "by elapsed time"],
)
def test_any_splits_are_the_loop_written_by_hand(splits):
    model = cascade(cv=splits).fit(X, Y, sample_weight=WEIGHT)
    fits, oof, taught = reverse_pass(
        [exact(C=0.1), GaussianNB()], X, Y, splits, caught(), WEIGHT, model.catch_threshold_
    )
    np.testing.assert_allclose(model.feedback_weights_[LABELED], taught[LABELED], rtol=1e-6)
    np.testing.assert_allclose(
        model.oof_stage_proba_[LABELED, :, 1], oof[LABELED], rtol=1e-6, atol=1e-12
    )
    np.testing.assert_allclose(model.named_stages_["screen"].coef_, fits[0].coef_, rtol=1e-6)


def test_scores_of_unlabelled_rows_are_those_of_the_fold_that_tests_them():
    splits = list(TimeSeriesSplit(3).split(X))
    model = cascade(cv=splits).fit(X, Y)
    _, oof, _ = reverse_pass(
        [exact(C=0.1), GaussianNB()], X, Y, splits, caught(), np.ones(N), model.catch_threshold_
    )
    assert np.isnan(oof[:65]).all()
    np.testing.assert_allclose(model.oof_stage_proba_[..., 1], oof, rtol=1e-6, atol=1e-12)


def bootstrap():
    """Training parts of as many rows as there are, some of them twice."""
    for seed in range(3):
        train = np.random.default_rng(seed).choice(N, N)
        yield train, np.setdiff1d(np.arange(N), train)


@pytest.mark.parametrize("y", [TRUTH, Y], ids=["all labelled", "some unlabelled"])
def test_a_bootstrap_split_trains_on_the_rows_that_were_drawn(y):
    splits = list(bootstrap())
    model = cascade(cv=splits).fit(X, y)
    _, oof, taught = reverse_pass(
        [exact(C=0.1), GaussianNB()], X, y, splits, caught(), np.ones(N), model.catch_threshold_
    )
    mine = (y >= 0) & ~np.isnan(oof[:, 0])
    np.testing.assert_allclose(model.oof_stage_proba_[mine, :, 1], oof[mine], rtol=1e-6)
    np.testing.assert_allclose(model.feedback_weights_[mine], taught[mine], rtol=1e-6)


def test_a_bootstrap_split_without_feedback_trains_on_the_rows_that_were_drawn():
    train, test = next(bootstrap())
    model = cascade(cv=[(train, test)], feedback="none").fit(X, TRUTH)
    screen = exact(C=0.1).fit(X[train], TRUTH[train])
    np.testing.assert_allclose(
        model.oof_stage_proba_[test, 0], screen.predict_proba(X[test]), rtol=1e-9
    )


# What a row may not tell


@pytest.mark.parametrize("stages", [STAGES, THREE], ids=["two stages", "three stages"])
@pytest.mark.parametrize("fold", range(3))
def test_no_label_of_a_test_part_comes_to_its_scores_by_way_of_unlabelled_rows(
    stages, fold, monkeypatch
):
    """With all that is global held still: weights of labelled rows, the cut, the calibration."""

    def as_it_is(*_):
        return lambda proba: proba

    monkeypatch.setattr(reverse, "fit_calibration", as_it_is)
    params = {"feedback": lambda positive, *_: np.ones(positive.size), "catch_threshold": 0.4}
    model = cascade(stages, cv=SPLITS, thresholds=0.3, **params)
    test = SPLITS[fold][1]
    flipped = Y.copy()
    flipped[test] = np.where(Y[test] == -1, -1, 1 - Y[test])
    before = model.fit(X, Y).oof_stage_proba_
    after = model.fit(X, flipped).oof_stage_proba_
    np.testing.assert_array_equal(after[test], before[test])
    others = np.setdiff1d(np.flatnonzero(LABELED), test)
    assert (np.abs(after[others] - before[others]).max(axis=(0, 2)) > 0.01).all()


def test_nothing_but_the_calibration_lets_labels_of_a_test_part_through():
    """Its two numbers are learned from all labelled rows: the scores hardly move."""
    params = {"feedback": lambda positive, *_: np.ones(positive.size), "catch_threshold": 0.4}
    model = cascade(cv=SPLITS, thresholds=0.3, **params)
    test = SPLITS[0][1][LABELED[SPLITS[0][1]]][0]
    flipped = Y.copy()
    flipped[test] = 1 - Y[test]
    before = model.fit(X, Y).oof_stage_proba_[test, 0, 1]
    assert abs(model.fit(X, flipped).oof_stage_proba_[test, 0, 1] - before) < 0.01


FEEDBACKS = ["caught", "gain", "none", "auto", by_rank]


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_a_mark_that_no_row_has_changes_no_bit(feedback, weight):
    with_mark = cascade(feedback=feedback).fit(X, TRUTH, sample_weight=weight)
    without = cascade(feedback=feedback, unlabeled_label=None).fit(X, TRUTH, sample_weight=weight)
    assert_same_fit(with_mark, without)


@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_unlabelled_rows_of_weight_zero_are_absent(feedback):
    weight = np.where(LABELED, WEIGHT, 0.0)
    place = np.cumsum(LABELED) - 1
    splits = [tuple(place[part[LABELED[part]]] for part in pair) for pair in SPLITS]
    model = cascade(feedback=feedback, cv=SPLITS).fit(X, Y, sample_weight=weight)
    alone = cascade(feedback=feedback, cv=splits, unlabeled_label=None)
    alone.fit(X[LABELED], Y[LABELED], sample_weight=WEIGHT[LABELED])
    assert_same_fit(model, alone, oof=False)
    np.testing.assert_array_equal(model.oof_stage_proba_[LABELED], alone.oof_stage_proba_)
    np.testing.assert_array_equal(model.feedback_weights_[LABELED], alone.feedback_weights_)
    assert np.isnan(model.feedback_weights_[~LABELED]).all()


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_without_feedback_unlabelled_rows_are_absent(weight):
    stages = [
        ("screen", make_pipeline(StandardScaler(), exact())),
        ("final", RandomForestClassifier(5)),
    ]
    place = np.cumsum(LABELED) - 1
    splits = [tuple(place[part[LABELED[part]]] for part in pair) for pair in SPLITS]
    model = cascade(stages, feedback="none").fit(X, Y, sample_weight=weight)
    alone = cascade(stages, feedback="none", cv=splits, unlabeled_label=None)
    alone.fit(X[LABELED], Y[LABELED], None if weight is None else weight[LABELED])
    assert_same_fit(model, alone, oof=False)
    np.testing.assert_array_equal(model.oof_stage_proba_[LABELED], alone.oof_stage_proba_)
    assert np.isnan(model.oof_stage_proba_[~LABELED]).all()
    assert np.isnan(model.feedback_weights_[~LABELED]).all()


class Fetch:
    """Counts the rows that it is asked for."""

    def __init__(self):
        self.keys = []

    def __call__(self, keys):
        self.keys += np.asarray(keys).ravel().tolist()
        return np.sin(np.asarray(keys, dtype=float))


@pytest.mark.parametrize("feedback, n_fetched", [("none", LABELED.sum()), ("caught", N)])
def test_costly_features_are_fetched_once_for_each_row_that_teaches(feedback, n_fetched):
    fetch = Fetch()
    table = np.column_stack([X, np.arange(N)])
    final = make_pipeline(CostlyFeatures(fetch, on=-1, cost=5.0), GaussianNB())
    stages = [("screen", make_pipeline(StandardScaler(), exact())), ("final", final)]
    cascade(stages, feedback=feedback).fit(table, Y)
    assert len(fetch.keys) == len(set(fetch.keys)) == n_fetched
    assert set(np.flatnonzero(LABELED)) <= set(fetch.keys)


def test_costly_features_with_unlabelled_rows_are_the_joined_table():
    table = np.column_stack([X, np.arange(N)])
    joined = np.column_stack([X, np.sin(np.arange(N))])
    screen = make_pipeline(StandardScaler(), exact())
    costly = make_pipeline(CostlyFeatures(np.sin, on=-1), GaussianNB())
    fetched = cascade([("screen", screen), ("final", costly)]).fit(table, Y)
    # The screens see another last column, which is why only what comes of the last stage is equal.
    plain = cascade([("screen", screen), ("final", GaussianNB())]).fit(joined, Y)
    np.testing.assert_array_equal(
        fetched.oof_stage_proba_[LABELED, 1], plain.oof_stage_proba_[LABELED, 1]
    )
    np.testing.assert_allclose(fetched.feedback_weights_, plain.feedback_weights_, rtol=1e-12)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_unlabelled_rows_are_in_no_score_and_no_report(weight):
    model = cascade(stage_costs=[1, 10]).fit(X, Y)
    some = None if weight is None else weight[LABELED]
    np.testing.assert_array_equal(model.classes_, [0, 1])
    assert model.score(X, Y, weight) == accuracy_score(
        Y[LABELED], model.predict(X[LABELED]), sample_weight=some
    )
    assert model.score(X.tolist(), Y.tolist()) == model.score(X[LABELED], Y[LABELED])
    frame, labels = pd.DataFrame(X), pd.Series(Y, index=np.arange(N)[::-1])
    assert model.score(frame, labels) == model.score(X, Y)
    report = model.report(X, Y, sample_weight=weight)
    alone = model.report(X[LABELED], Y[LABELED], sample_weight=some)
    assert report.columns.keys() == alone.columns.keys()
    for name, column in report.columns.items():
        assert column == pytest.approx(alone.columns[name]), name
    assert report.mean_cost == pytest.approx(alone.mean_cost)
    assert retained_recall_scorer(model, X, Y) == retained_recall_scorer(
        model, X[LABELED], Y[LABELED]
    )


@pytest.mark.parametrize(
    "policy", [PassBudget(0.2), RecallFloor(0.9), RecallFloor(0.7, confidence=0.9), None, 0.4]
)
@pytest.mark.parametrize("pos_label", [0, 1])
@pytest.mark.filterwarnings("ignore:The positive class:UserWarning")
@pytest.mark.filterwarnings("ignore:A recall of:UserWarning")
def test_thresholds_are_tuned_on_labelled_rows(policy, pos_label):
    model = cascade(pos_label=pos_label).fit(X, Y)
    tuned = model.tune_thresholds(X, Y, thresholds=policy, copy=True)
    alone = model.tune_thresholds(X[LABELED], Y[LABELED], thresholds=policy, copy=True)
    np.testing.assert_array_equal(tuned.thresholds_, alone.thresholds_)


def test_thresholds_of_the_fit_are_those_of_the_labelled_rows_scores():
    """A score above that of every labelled row would be the cut's neighbour, if it counted."""
    model = cascade(thresholds=RecallFloor(1.0)).fit(X, Y)
    score = model.oof_stage_proba_[:, 0, 0]
    caught_rows = (Y == 1) & (model.oof_stage_proba_[:, 1, 1] >= model.catch_threshold_)
    assert (score[caught_rows] < model.thresholds_[0, 0]).all()
    rejected = LABELED & (score >= model.thresholds_[0, 0])
    assert rejected.any()
    assert score[LABELED & ~rejected].max() == pytest.approx(score[caught_rows].max())


# Splits


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_held_out_are_labelled_rows_and_thresholds_are_theirs(weight):
    model = cascade(validation_fraction=0.3).fit(X, Y, sample_weight=weight)
    gone = np.isnan(model.feedback_weights_[:, 0])
    held = gone & LABELED
    assert held.sum() == pytest.approx(0.3 * LABELED.sum(), abs=2)
    assert not (gone & ~LABELED).any()
    train = LABELED & ~gone
    final = GaussianNB().fit(X[train], Y[train], None if weight is None else weight[train])
    np.testing.assert_array_equal(model.named_stages_["final"].theta_, final.theta_)
    tuned = cascade(validation_fraction=0.3).fit(X, Y, sample_weight=weight)
    tuned.tune_thresholds(
        X[held],
        Y[held],
        thresholds=PassBudget(0.3),
        sample_weight=None if weight is None else weight[held],
    )
    np.testing.assert_array_equal(model.thresholds_, tuned.thresholds_)


def test_confidence_asks_for_equal_weights_of_labelled_rows_only():
    floor = RecallFloor(0.7, confidence=0.9)
    params = {"thresholds": floor, "validation_fraction": 0.4}
    weight = np.where(LABELED, 1.0, 2.0)
    assert np.isfinite(cascade(**params).fit(X, Y, sample_weight=weight).thresholds_[0, 0])
    with pytest.raises(ValueError, match="equally weighted rows only"):
        cascade(**params).fit(X, Y, sample_weight=WEIGHT)


@pytest.mark.parametrize("feedback", ["caught", "none"])
@pytest.mark.parametrize("n_unlabeled", [1, 3])
def test_a_few_unlabelled_rows_warn_of_nothing(feedback, n_unlabeled):
    """Their mark is no class that every split must hold."""
    y = TRUTH.copy()
    y[:n_unlabeled] = -1
    assert np.isfinite(cascade(feedback=feedback, cv=5).fit(X, y).predict_proba(X)).all()


@pytest.mark.parametrize("feedback", ["caught", "none"])
def test_a_single_unlabelled_row_does_not_keep_rows_from_being_held_out(feedback):
    y = TRUTH.copy()
    y[0] = -1
    model = cascade(feedback=feedback, validation_fraction=0.3).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("cv", [StratifiedKFold(4), KFold(3), 4])
def test_labelled_test_folds_inside_are_what_the_cascade_does_itself(cv):
    wrapped = cascade(cv=LabeledTestFolds(cv, unlabeled_label=-1)).fit(X, Y)
    assert_same_fit(wrapped, cascade(cv=cv).fit(X, Y))


def test_wrapped_splits_by_position_stay_beside_rows_of_weight_zero():
    weight = np.where(np.arange(N) < 40, 0.0, 1.0)
    fold = PredefinedSplit(np.arange(N) % 3)
    wrapped = cascade(cv=LabeledTestFolds(fold)).fit(X, Y, sample_weight=weight)
    assert_same_fit(wrapped, cascade(cv=fold).fit(X, Y, sample_weight=weight))


@pytest.mark.parametrize("wrap", [lambda cv: cv, LabeledTestFolds], ids=["bare", "wrapped"])
@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("groups", [None, GROUPS], ids=["", "groups"])
def test_time_reaches_the_splitter(wrap, routing, groups):
    splitter = TimeDelaySplit(3, test_size=40, gap=20)
    splits = list(splitter.split(X, Y, groups=groups, time=TIME))
    params = {"time": TIME} if groups is None else {"time": TIME, "groups": groups}
    with config_context(enable_metadata_routing=routing):
        model = cascade(cv=wrap(splitter)).fit(X, Y, **params)
    assert_same_fit(model, cascade(cv=splits).fit(X, Y))
    assert np.isnan(model.oof_stage_proba_[max(TIME) - 120 >= TIME]).all()


def test_the_latest_rows_are_held_out_after_the_gap():
    splitter = TimeDelaySplit(2, test_size=40, gap=20)
    model = cascade(cv=splitter, validation_fraction=0.2).fit(X, Y, time=TIME)
    n_held = round(0.2 * LABELED.sum())
    start = np.sort(TIME[LABELED])[-n_held]
    trains = TIME < start - 20
    trains |= ~LABELED
    final = GaussianNB().fit(X[trains & LABELED], Y[trains & LABELED])
    np.testing.assert_array_equal(model.named_stages_["final"].theta_, final.theta_)
    np.testing.assert_array_equal(np.isnan(model.feedback_weights_[:, 0]), ~trains)
    held = (start <= TIME) & LABELED
    again = model.tune_thresholds(X[held], Y[held], thresholds=PassBudget(0.3), copy=True)
    np.testing.assert_array_equal(model.thresholds_, again.thresholds_)


def test_the_latest_rows_are_held_out_where_known_groups_are_purged():
    splitter = TimeDelaySplit(2, test_size=60, gap=20, purge="known")
    model = cascade(cv=splitter, validation_fraction=0.3).fit(X, Y, time=TIME, groups=GROUPS)
    labels = {"groups": GROUPS[LABELED], "y": Y[LABELED]}
    train, held = np.zeros((2, N), dtype=bool)
    train[LABELED], held[LABELED] = splitter.hold_out(0.3, TIME[LABELED], **labels)
    train |= ~LABELED
    np.testing.assert_array_equal(np.isnan(model.feedback_weights_[:, 0]), ~train)
    again = model.tune_thresholds(X[held], Y[held], thresholds=PassBudget(0.3), copy=True)
    np.testing.assert_array_equal(model.thresholds_, again.thresholds_)


def test_time_and_groups_in_a_pipeline_with_routing():
    splitter = TimeDelaySplit(3, test_size=40, gap=20)
    scaled = StandardScaler().fit_transform(X)
    with config_context(enable_metadata_routing=True):
        model = make_pipeline(StandardScaler(), cascade(cv=splitter).set_fit_request())
        model.fit(X, Y, time=TIME, groups=GROUPS)
    alone = cascade(cv=splitter).fit(scaled, Y, time=TIME, groups=GROUPS)
    np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(scaled))


@pytest.mark.parametrize(
    "cv, params",
    [(TimeSeriesSplit(3), {}), (TimeDelaySplit(2, test_size=30, gap=10), {"time": np.arange(N)})],
)
def test_the_last_labelled_rows_are_held_out_when_later_ones_have_none(cv, params):
    y = np.where(np.arange(N) < 200, TRUTH, -1)
    model = cascade(cv=cv, validation_fraction=0.2).fit(X, y, **params)
    trained = np.flatnonzero(~np.isnan(model.feedback_weights_[:, 0]))
    later = np.arange(200, N) if params else []  # by place, nothing trains behind held-out rows
    np.testing.assert_array_equal(trained, [*range(150 if params else 160), *later])


def test_groups_are_held_out_as_a_whole():
    model = cascade(cv=GroupKFold(3), validation_fraction=0.3).fit(X, Y, groups=GROUPS)
    gone = np.isnan(model.feedback_weights_[:, 0])
    assert gone[LABELED].any() and gone[~LABELED].any()
    assert not set(GROUPS[gone]) & set(GROUPS[~gone])


def test_folds_whose_test_part_has_no_label_fall_away():
    """The labels of the latest rows have not come yet."""
    y = np.where(np.arange(N) < 160, TRUTH, -1)
    splits = list(TimeSeriesSplit(4).split(X))  # tests from 52, 104, 156 and 208 on
    assert (y[splits[3][1]] == -1).all() and (y[splits[0][0]] != -1).all()
    model = cascade(cv=splits).fit(X, y)
    kept = cascade(cv=splits[:3]).fit(X, y)
    assert_same_fit(model, kept)
    fits, _, taught = reverse_pass(
        [exact(C=0.1), GaussianNB()], X, y, splits[:3], caught(), np.ones(N), model.catch_threshold_
    )
    np.testing.assert_allclose(model.feedback_weights_, taught, rtol=1e-6)
    np.testing.assert_allclose(model.named_stages_["screen"].coef_, fits[0].coef_, rtol=1e-6)


def test_weight_two_is_the_row_twice_and_zero_is_absence():
    rng = np.random.default_rng(0)
    weight, fold = rng.integers(0, 3, N), rng.integers(0, 3, N)

    def splits(fold):
        return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]

    stages = [
        ("first", make_pipeline(StandardScaler(), exact(C=0.1))),
        ("second", make_pipeline(StandardScaler(), exact(C=0.1))),
        ("third", GaussianNB()),
    ]
    for feedback in ("caught", "gain", by_rank):
        weighted = cascade(stages, cv=splits(fold), feedback=feedback, thresholds=0.3)
        weighted.fit(X, Y, sample_weight=weight)
        repeated = cascade(stages, cv=splits(fold.repeat(weight)), feedback=feedback)
        repeated.set_params(thresholds=0.3).fit(X.repeat(weight, axis=0), Y.repeat(weight))
        assert_same_fit(weighted, repeated, oof=False, exact=False)
        rows = np.arange(N).repeat(weight)
        np.testing.assert_allclose(
            weighted.oof_stage_proba_[rows], repeated.oof_stage_proba_, rtol=1e-6
        )
        # Both copies of a repeated row weigh what the row does.
        np.testing.assert_allclose(
            weighted.feedback_weights_[rows], repeated.feedback_weights_, rtol=1e-6
        )


# Inside scikit-learn


@pytest.mark.parametrize("scoring", ["average_precision", None])
@pytest.mark.parametrize("wrap", [None, StandardScaler()], ids=["bare", "pipeline"])
def test_a_search_scores_what_a_loop_scores(scoring, wrap):
    model, prefix = cascade(store_oof=False), ""
    if wrap is not None:
        model, prefix = make_pipeline(wrap, model), "feedbackcascadeclassifier__"
    grid = {f"{prefix}screen__C": [0.01, 1.0], f"{prefix}feedback": ["none", "caught"]}
    search = GridSearchCV(model, grid, cv=LabeledTestFolds(StratifiedKFold(3)), scoring=scoring)
    search.fit(X, Y)
    measure = {
        "average_precision": lambda y, fit, rows: average_precision_score(
            y, fit.predict_proba(rows)[:, 1]
        ),
        None: lambda y, fit, rows: (fit.predict(rows) == y).mean(),
    }[scoring]
    for params, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        scores = []
        for train, test in StratifiedKFold(3).split(X, Y):
            test = test[LABELED[test]]
            fit = clone(model).set_params(**params).fit(X[train], Y[train])
            scores.append(measure(TRUTH[test], fit, X[test]))
        assert score == pytest.approx(np.mean(scores))
    best = clone(model).set_params(**search.best_params_).fit(X, Y)
    np.testing.assert_array_equal(search.predict_proba(X), best.predict_proba(X))


def test_plain_splitters_score_the_mark_as_a_class():
    model = cascade(cv=3, store_oof=False)
    self_training = SelfTrainingClassifier(LogisticRegression())
    for semi_supervised in (model, self_training):
        with pytest.warns(UserWarning, match="Scoring failed"):
            plain = cross_validate(semi_supervised, X, Y, scoring="roc_auc", cv=StratifiedKFold(3))
        assert np.isnan(plain["test_score"]).all()
        folds = cross_validate(semi_supervised, X, Y, scoring="roc_auc", cv=LabeledTestFolds(3))
        assert np.isfinite(folds["test_score"]).all()
    # Accuracy is the cascade's own affair.
    own = cross_validate(model, X, Y, cv=StratifiedKFold(3))["test_score"]
    folds = cross_validate(model, X, Y, cv=LabeledTestFolds(3))["test_score"]
    np.testing.assert_array_equal(own, folds)


def test_the_reporting_scorers_in_a_search():
    scoring = {"kept": retained_recall_scorer, "pass": neg_pass_rate_scorer}
    model = cascade(store_oof=False)
    results = cross_validate(model, X, Y, scoring=scoring, cv=LabeledTestFolds(3))
    for i, (train, test) in enumerate(LabeledTestFolds(3).split(X, Y)):
        fit = clone(model).fit(X[train], Y[train])
        report = fit.report(X[test], TRUTH[test]).columns
        assert results["test_kept"][i] == pytest.approx(report["retained_recall"][-1])
        assert results["test_pass"][i] == pytest.approx(-report["rows_in"][1] / len(test))


def test_time_in_a_search_around_a_cascade_with_routing():
    outer = LabeledTestFolds(TimeDelaySplit(2, test_size=60, gap=20))
    inner = TimeDelaySplit(2, test_size=30, gap=10)
    grid = {"feedback": ["none", "caught"]}
    with config_context(enable_metadata_routing=True):
        model = cascade(cv=inner, store_oof=False).set_fit_request(sample_weight=True)
        scorer = make_scorer(roc_auc_score, response_method="predict_proba")
        scorer.set_score_request(sample_weight=False)
        search = GridSearchCV(model, grid, cv=outer, scoring=scorer)
        search.fit(X, Y, time=TIME, sample_weight=WEIGHT)
    scores = []
    for train, test in TimeDelaySplit(2, test_size=60, gap=20).split(X, time=TIME):
        test = test[LABELED[test]]
        fit = cascade(cv=inner, feedback="caught")
        fit.fit(X[train], Y[train], sample_weight=WEIGHT[train], time=TIME[train])
        proba = fit.predict_proba(X[test])[:, 1]
        scores.append(roc_auc_score(TRUTH[test], proba))
    assert search.cv_results_["mean_test_score"][1] == pytest.approx(np.mean(scores))


class Counted(GaussianNB):
    """Counts its fits."""

    fitted = 0

    def fit(self, X, y, sample_weight=None):
        Counted.fitted += 1
        return super().fit(X, y, sample_weight)


def test_memory_fits_nothing_twice(tmp_path):
    Counted.fitted = 0
    stages = [("screen", Counted()), ("final", GaussianNB())]
    plain = cascade(stages).fit(X, Y)
    assert Counted.fitted == 4
    model = cascade(stages, memory=str(tmp_path)).fit(X, Y)
    assert_same_fit(model, plain)
    assert Counted.fitted == 8
    model.set_params(thresholds=0.1).fit(X, Y)
    model.set_params(thresholds=PassBudget(0.3)).fit(X, Y)
    assert Counted.fitted == 8
    assert_same_fit(model, plain)
    other = Y.copy()
    other[np.flatnonzero(~LABELED)[0]] = 0
    assert (model.fit(X, other).predict_proba(X) != plain.predict_proba(X)).any()
    assert Counted.fitted == 12


@pytest.mark.parametrize("feedback", ["caught", "gain", "auto"])
def test_jobs_change_nothing(feedback):
    stages = [("screen", DecisionTreeClassifier(max_depth=3)), ("final", RandomForestClassifier(5))]
    params = {"feedback": feedback, "thresholds": 0.3}
    with joblib.parallel_config(backend="threading"):
        parallel = cascade(stages, n_jobs=2, **params).fit(X, Y)
    assert_same_fit(parallel, cascade(stages, **params).fit(X, Y))


class Noted(GaussianNB):
    """Asks for a number of each row, and keeps the numbers beside the rows."""

    __metadata_request__fit = {"number": True, "sample_weight": True}

    def fit(self, X, y, sample_weight=None, number=None):
        self.noted_ = X, y, number
        return super().fit(X, y, sample_weight)


def test_fit_parameters_stay_beside_both_copies_of_their_rows():
    with config_context(enable_metadata_routing=True):
        screen = Noted().set_fit_request(number=True)
        stages = [("screen", make_pipeline(StandardScaler(), screen)), ("final", GaussianNB())]
        model = cascade(stages, thresholds=0.3).fit(X, Y, number=np.arange(N))
    rows, labels, number = model.stages_[0][-1].noted_
    np.testing.assert_allclose(rows, StandardScaler().fit_transform(X)[number], atol=1e-9)
    np.testing.assert_array_equal(np.bincount(number), np.where(LABELED, 1, 2))
    np.testing.assert_array_equal(labels[LABELED[number]], Y[number[LABELED[number]]])
    plain = [("screen", make_pipeline(StandardScaler(), GaussianNB())), ("final", GaussianNB())]
    plain = cascade(plain, thresholds=0.3).fit(X, Y)
    np.testing.assert_allclose(model.stage_proba(X), plain.stage_proba(X), rtol=1e-9)


def test_copies_and_parameters():
    model = cascade().fit(X, Y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.score(X, Y) == model.score(X, Y)
    fresh = clone(model)
    assert fresh.unlabeled_label == -1 and not hasattr(fresh, "classes_")
    assert "unlabeled_label=-1" in repr(model)
    assert model.get_params()["unlabeled_label"] == -1
    labels = np.where(Y == -1, 7, Y)
    assert_same_fit(fresh.set_params(unlabeled_label=7, cv=SPLITS).fit(X, labels), model)
    with pytest.raises(ValueError, match="named like a parameter"):
        cascade([("unlabeled_label", GaussianNB())]).fit(X, Y)


def test_a_second_fit_forgets_the_first():
    model = cascade(feedback="auto").fit(X, Y)
    assert hasattr(model, "feedback_comparison_")
    model.set_params(feedback="caught").fit(X, Y)
    assert not hasattr(model, "feedback_comparison_")
    assert_same_fit(model, cascade().fit(X, Y))


# Labels


def marked(negative, positive, mark, dtype=None):
    labels = [{0: negative, 1: positive, -1: mark}[code] for code in Y.tolist()]
    return np.array(labels, dtype=dtype)


@pytest.mark.parametrize(
    "labels, mark",
    [
        (marked("honest", "stolen", "?"), "?"),
        (marked("honest", "stolen", "?", object), "?"),
        (marked("b", "c", "a"), "a"),
        (marked("a", "c", "b"), "b"),
        (pd.Series(marked("a", "b", ""), index=RNG.permutation(N) + 5), ""),
        (pd.Series(marked("a", "b", "?"), dtype="string"), "?"),
        (pd.Series(marked("a", "b", "?"), dtype="category"), "?"),
        (marked("a", "b", "?").tolist(), "?"),
        # As scikit-learn's semi-supervised classifiers want it.
        (marked("a", "b", -1, object), -1),
        (pl.Series(marked("a", "b", "?").tolist()), "?"),
        (marked(-1, 1, 0), 0),
        (marked(-1, 1, 99), 99),
        (marked(0.0, 1.0, -1.0), -1),
        (marked(3, 4, 2).astype(np.uint8), 2),
        (marked(0, 1, -1).astype(np.int8), np.float64(-1)),
        (pd.Series(marked(0, 1, -1), index=RNG.permutation(N), dtype="Int64"), -1),
    ],
)
def test_any_labels_and_any_mark(labels, mark):
    model = cascade(cv=SPLITS, unlabeled_label=mark).fit(X, labels)
    base = cascade(cv=SPLITS).fit(X, Y)
    assert len(model.classes_) == 2 and mark not in model.classes_.tolist()
    np.testing.assert_array_equal(model.predict_proba(X), base.predict_proba(X))
    np.testing.assert_array_equal(model.predict(X), model.classes_[base.predict(X)])
    assert model.score(X, labels) == base.score(X, Y)
    reports = model.report(X, labels), base.report(X, Y)
    assert [*reports[0].columns.values()] == [*reports[1].columns.values()]


@pytest.mark.parametrize("feedback", ["caught", "gain", by_rank])
def test_the_positive_class_may_be_the_first(feedback):
    """Only the order of the classes differs, and with it some roundings."""
    swapped = np.where(LABELED, 1 - Y, -1)
    model = cascade(THREE, feedback=feedback, pos_label=0, cv=SPLITS, thresholds=0.3)
    base = cascade(THREE, feedback=feedback, cv=SPLITS, thresholds=0.3).fit(X, Y)
    model.fit(X, swapped)
    np.testing.assert_allclose(model.feedback_weights_, base.feedback_weights_, rtol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X)[:, ::-1], base.predict_proba(X), rtol=1e-5)


def test_boolean_labels_have_no_room_for_a_mark():
    model = cascade().fit(X, TRUTH.astype(bool))
    np.testing.assert_array_equal(model.predict_proba(X), cascade().fit(X, TRUTH).predict_proba(X))


@pytest.mark.parametrize("kind", ["csr", "csc", "pandas", "polars"])
def test_any_rows(kind):
    rows = {
        "csr": sp.csr_array(X),
        "csc": sp.csc_array(X),
        "pandas": pd.DataFrame(X, index=RNG.permutation(N), columns=list("abcdef")),
        "polars": pl.DataFrame(X, schema=list("abcdef")),
    }[kind]
    stages = [("screen", exact(C=0.1)), ("final", exact(C=3.0))]
    model = cascade(stages).fit(rows, Y)
    expected = cascade(stages).fit(X, Y)
    np.testing.assert_allclose(model.predict_proba(rows), expected.predict_proba(X), rtol=1e-6)
    np.testing.assert_allclose(model.feedback_weights_, expected.feedback_weights_, rtol=1e-6)
    assert model.score(rows, Y) == expected.score(X, Y)
    assert model.report(rows, Y).columns == expected.report(X, Y).columns


class Untouchable(LogisticRegression):
    def fit(self, X, y, sample_weight=None):
        raise AssertionError("a stage was fitted")


class OnlyWeighs:
    def weigh(self, signal):
        return signal.positive, np.ones(signal.positive.size)


@pytest.mark.parametrize(
    "y, params, error, match",
    [
        (np.full(N, -1), {}, ValueError, "y holds no label: every row with a weight is .*=-1"),
        (np.where(Y == 1, -1, Y), {}, ValueError, r"at least two classes; got 1 class: \[0\]"),
        (Y, {"unlabeled_label": np.nan}, ValueError, "a number other than nan.*; got nan"),
        (Y, {"unlabeled_label": True}, ValueError, "must be a string or a number.*; got True"),
        (Y, {"unlabeled_label": [-1]}, ValueError, r"a string or a number.*; got \[-1\]"),
        (Y, {"unlabeled_label": "?"}, TypeError, "y holds numbers only, got '?'"),
        (marked("a", "b", "?"), {}, TypeError, "y holds strings only, got -1"),
        (Y, {"pos_label": -1}, ValueError, r"pos_label must be one of \[0, 1\]; got -1"),
        (Y, {"unlabeled_label": None}, ValueError, "Only binary classification is supported"),
        (Y, {"unlabeled_label": 9}, ValueError, "Only binary classification is supported"),
        (Y, {"feedback": OnlyWeighs()}, ValueError, "it needs a method weigh_unlabeled"),
        (
            Y,
            {"feedback": AutoFeedback(candidates=[OnlyWeighs()])},
            ValueError,
            "it needs a method weigh_unlabeled",
        ),
        (
            np.where((np.arange(N) % 2 == 0) & (Y == 1), -1, Y),
            {"cv": PredefinedSplit(np.arange(N) % 2)},
            ValueError,
            "training part of split 1 of cv holds no row of class 1",
        ),
        (
            np.where(np.arange(N) % 2 == 0, -1, TRUTH),
            {"cv": [(np.arange(1, N, 2), np.arange(0, N, 2))]},
            ValueError,
            "cv gives no split whose test part holds a labelled row",
        ),
    ],
)
def test_bad_labels_and_marks_raise_before_any_fit(y, params, error, match):
    stages = [("screen", Untouchable()), ("final", Untouchable())]
    with pytest.raises(error, match=match.replace("'?'", r"'\?'")):
        cascade(stages, **params).fit(X, y)


def test_weights_must_leave_a_label():
    with pytest.raises(ValueError, match="y holds no label"):
        cascade().fit(X, Y, sample_weight=(~LABELED).astype(float))


def test_labels_and_marks_after_the_fit():
    model = cascade().fit(X, Y)
    with pytest.raises(ValueError, match="y holds no label"):
        model.tune_thresholds(X, np.full(N, -1), thresholds=0.3)
    with pytest.raises(ValueError, match="y holds no label"):
        model.report(X, np.full(N, -1))
    with pytest.raises(ValueError, match=r"labels that were not seen in fit: \[7\]"):
        model.report(X, np.where(Y == -1, 7, Y))


def test_a_strategy_of_ones_own_may_weigh_unlabelled_rows():
    class Doubtful(CaughtFeedback):
        def weigh_unlabeled(self, signal, later_proba, chance):
            return np.zeros((len(chance), 2))

    place = np.cumsum(LABELED) - 1
    splits = [tuple(place[part[LABELED[part]]] for part in pair) for pair in SPLITS]
    model = cascade(feedback=Doubtful(), cv=SPLITS).fit(X, Y)
    alone = cascade(cv=splits).fit(X[LABELED], Y[LABELED])
    assert_same_fit(model, alone, oof=False, exact=False)
    np.testing.assert_array_equal(model.feedback_weights_[~LABELED, 0], 0.0)


@pytest.mark.parametrize("labels", [[0, 1, 2], ["a", "b", "c"]])
def test_three_classes_without_feedback(labels):
    X3, truth = make_classification(200, 6, n_informative=4, n_classes=3, random_state=0)
    known = np.random.default_rng(1).uniform(size=200) < 0.6
    names = np.array(labels)
    mark = {"i": 9, "U": "?"}[names.dtype.kind]
    y = np.where(known, names[truth], mark)
    model = cascade(feedback="none", thresholds=0.8, cv=3, unlabeled_label=mark).fit(X3, y)
    np.testing.assert_array_equal(model.classes_, names)
    final = GaussianNB().fit(X3[known], y[known])
    np.testing.assert_array_equal(model.named_stages_["final"].theta_, final.theta_)
    assert model.score(X3, y) == (model.predict(X3[known]) == y[known]).mean()
    with pytest.raises(ValueError, match="Only binary classification is supported"):
        cascade(cv=3, unlabeled_label=mark).fit(X3, y)


# Stages of any kind


class Recorder(ClassifierMixin, BaseEstimator):
    """Takes no weights and keeps what it was fitted on."""

    def fit(self, X, y):
        self.seen_ = X, y
        self.classes_ = np.unique(y)
        self.model_ = GaussianNB().fit(X, y)
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


def test_a_screen_without_weights_is_fitted_on_rows_in_proportion():
    with pytest.warns(UserWarning, match="Stage 'screen' .* resampled in proportion"):
        model = cascade([("screen", Recorder()), ("final", GaussianNB())]).fit(X, Y)
    *_, taught = reverse_pass(
        [GaussianNB(), GaussianNB()], X, Y, SPLITS, caught(), np.ones(N), model.catch_threshold_
    )
    rows, labels = model.stages_[0].seen_
    drawn = np.array([[(labels[(rows == x).all(axis=1)] == c).sum() for c in (0, 1)] for x in X])
    np.testing.assert_allclose(model.feedback_weights_, taught, rtol=1e-6)
    lesson = LABELED.sum() + 2 * (~LABELED).sum()
    scale = lesson / np.nansum(taught[:, 0])
    assert drawn.sum() == pytest.approx(lesson, abs=1)
    # Labelled rows: of their class only, floor or ceil of their weight times.
    assert (drawn[LABELED, 1 - Y[LABELED]] == 0).all()
    np.testing.assert_array_less(
        np.abs(drawn[LABELED].sum(axis=1) - scale * taught[LABELED, 0]), 1 + 1e-9
    )
    np.testing.assert_array_less(
        np.abs(drawn[~LABELED].sum(axis=1) - scale * taught[~LABELED, 0]), 2 + 1e-9
    )


@pytest.mark.parametrize("screen", [KNeighborsClassifier(25), LinearDiscriminantAnalysis()])
def test_screens_without_weights_rank_rows(screen):
    with pytest.warns(UserWarning, match="Stage 'screen' .* resampled in proportion"):
        model = cascade([("screen", screen), ("final", GaussianNB())], thresholds=0.3).fit(X, Y)
    positive = model.stage_proba(X)[~LABELED, 0, 1]
    truth = TRUTH[~LABELED]
    assert (np.subtract.outer(positive[truth == 1], positive[truth == 0]) > 0).mean() > 0.6


def test_a_last_stage_without_weights_is_not_resampled_by_weights_of_unlabelled_rows():
    stages = [("screen", exact(C=0.1)), ("final", KNeighborsClassifier(25, weights="distance"))]
    model = cascade(stages).fit(X, Y, sample_weight=np.where(LABELED, 1.0, 2.0))
    alone = clone(stages[1][1]).fit(X[LABELED], Y[LABELED])
    np.testing.assert_array_equal(model.stages_[1].predict_proba(X), alone.predict_proba(X))


def test_a_screen_of_decision_values_learns_the_same_weights():
    svc = LinearSVC(C=0.1, dual=False, tol=1e-10)
    model = cascade([("screen", svc), ("final", GaussianNB())]).fit(X, Y)
    base = cascade().fit(X, Y)
    np.testing.assert_array_equal(model.feedback_weights_, base.feedback_weights_)
    screen = model.stages_[0]
    unlabeled, shown = np.flatnonzero(~LABELED), model.feedback_weights_[:, 0]
    weights = platt(base.oof_stage_proba_[LABELED, 1, 1], Y[LABELED], np.ones(LABELED.sum()))
    p = weights(GaussianNB().fit(X[LABELED], Y[LABELED]).predict_proba(X[unlabeled])[:, 1])
    rows = np.concatenate([np.flatnonzero(LABELED), unlabeled, unlabeled])
    by_hand = clone(svc).fit(
        X[rows],
        np.concatenate([Y[LABELED], np.zeros(p.size), np.ones(p.size)]),
        sample_weight=np.concatenate([shown[LABELED], 1 - p, shown[unlabeled] - (1 - p)]),
    )
    np.testing.assert_allclose(screen.coef_, by_hand.coef_, rtol=1e-5)
    # The map to probabilities is fitted on labelled rows only.
    oof = model.oof_stage_proba_[LABELED, 0, 1]
    assert np.isfinite(oof).all()
    odds = logit(model.stage_proba(X)[:, 0, 1])
    slope, _ = np.polyfit(screen.decision_function(X), odds, 1)
    assert slope > 0


def test_a_last_stage_of_decision_values_gives_chances_fold_by_fold():
    svc = LinearSVC(C=0.1, dual=False, tol=1e-10)
    model = cascade([("screen", exact(C=0.1)), ("final", svc)]).fit(X, Y)
    decisions, of_pool = np.full(N, np.nan), []
    for train, test in [(np.arange(N), np.arange(0)), *SPLITS]:
        mine = train[LABELED[train]]
        fold = clone(svc).fit(X[mine], Y[mine])
        decisions[test] = fold.decision_function(X[test]) if test.size else 0.0
        of_pool.append(fold.decision_function(X[~LABELED]))
    oof = model.oof_stage_proba_[LABELED, 1, 1]
    slope, intercept = np.polyfit(decisions[LABELED], logit(oof), 1)
    np.testing.assert_allclose(logit(oof), slope * decisions[LABELED] + intercept, rtol=1e-6)
    # Of the fit on all rows, through both maps.
    proba = expit(slope * of_pool[0] + intercept)
    p = platt(oof, Y[LABELED], np.ones(LABELED.sum()))(proba)
    q, known = soft(proba, model.catch_threshold_), soft(oof, model.catch_threshold_)
    shown = 1 - p + p * q / known[Y[LABELED] == 1].mean()
    np.testing.assert_allclose(model.feedback_weights_[~LABELED, 0], shown, rtol=1e-5)


@pytest.mark.parametrize("splits", [SPLITS, list(TimeSeriesSplit(3).split(X))])
def test_a_frozen_last_stage_tells_its_own_scores(splits):
    rng = np.random.default_rng(5)
    frozen = FrozenEstimator(GaussianNB().fit(X + rng.normal(size=X.shape), TRUTH))
    model = cascade([("screen", exact(C=0.1)), ("final", frozen)], cv=splits).fit(X, Y)
    fits, oof, taught = reverse_pass(
        [exact(C=0.1), frozen], X, Y, splits, caught(), np.ones(N), model.catch_threshold_
    )
    np.testing.assert_allclose(model.feedback_weights_, taught, rtol=1e-6)
    np.testing.assert_allclose(
        model.oof_stage_proba_[LABELED, :, 1], oof[LABELED], rtol=1e-6, atol=1e-12
    )
    np.testing.assert_allclose(model.stages_[0].coef_, fits[0].coef_, rtol=1e-6)


@pytest.mark.parametrize("feedback", ["caught", "gain", "auto"])
def test_a_frozen_screen_stays_as_it_is(feedback):
    frozen = FrozenEstimator(exact().fit(X[:50], TRUTH[:50]))
    stages = [("first", frozen), ("second", exact(C=0.1)), ("third", GaussianNB())]
    model = cascade(stages, feedback=feedback, thresholds=0.3).fit(X, Y)
    np.testing.assert_array_equal(model.stage_proba(X)[:, 0], frozen.predict_proba(X))
    np.testing.assert_array_equal(
        model.oof_stage_proba_[LABELED, 0], frozen.predict_proba(X[LABELED])
    )


def test_a_frozen_stage_between_is_the_same_by_hand():
    frozen = FrozenEstimator(exact().fit(X[:50, :], TRUTH[:50]))
    stages = [("first", exact(C=0.01)), ("second", frozen), ("third", GaussianNB())]
    model = cascade(stages, feedback="gain", stage_costs=[1, 5, 20], thresholds=0.3).fit(X, Y)
    fits, _, taught = reverse_pass(
        [stage for _, stage in stages],
        X,
        Y,
        SPLITS,
        gain(None, [0.05, 0.2]),
        np.ones(N),
        model.catch_threshold_,
    )
    np.testing.assert_allclose(model.feedback_weights_[:, 0], taught[:, 0], rtol=1e-6)
    np.testing.assert_allclose(model.stages_[0].coef_, fits[0].coef_, rtol=1e-6)


def test_survivors_are_labelled_rows():
    model = cascade(survivor_rate=0.4, thresholds=PassBudget(0.3)).fit(X, Y)
    score = model.oof_stage_proba_[:, 0, 1]
    n_survivors = int(0.4 * LABELED.sum())
    survive = LABELED & (score >= np.sort(score[LABELED])[-n_survivors])
    final = GaussianNB().fit(X[survive], Y[survive])
    np.testing.assert_array_equal(model.named_stages_["final"].theta_, final.theta_)
    for train, test in SPLITS:
        fold = GaussianNB().fit(X[train][survive[train]], Y[train][survive[train]])
        mine = test[LABELED[test]]
        np.testing.assert_allclose(
            model.oof_stage_proba_[mine, 1], fold.predict_proba(X[mine]), atol=1e-12
        )
    np.testing.assert_array_equal(
        model.named_stages_["screen"].coef_, cascade().fit(X, Y).stages_[0].coef_
    )


def test_a_transformer_sees_each_row_once():
    """Scaled are all rows of the training part alike, whatever the chances."""
    scaler = StandardScaler()
    stages = [("screen", make_pipeline(scaler, exact(C=0.1))), ("final", GaussianNB())]
    model = cascade(stages).fit(X, Y)
    np.testing.assert_allclose(model.stages_[0][0].mean_, X.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(model.stages_[0][0].var_, X.var(axis=0), rtol=1e-9)
    weighted = cascade(stages).fit(X, Y, sample_weight=WEIGHT)
    np.testing.assert_allclose(
        weighted.stages_[0][0].mean_, np.average(X, axis=0, weights=WEIGHT), atol=1e-12
    )


def net():
    torch.manual_seed(0)
    return skorch.NeuralNetClassifier(
        torch.nn.Linear(6, 2),
        criterion=torch.nn.CrossEntropyLoss,
        max_epochs=3,
        lr=0.1,
        train_split=None,
        verbose=0,
    )


def tabular():
    return TabularNet(width=16, depth=1, dropout=0.0, lr=0.02, max_epochs=20, validation=None)


@pytest.mark.parametrize("feedback", ["caught", "gain"])
@pytest.mark.parametrize(
    "final", [net, tabular, lambda: HistGradientBoostingClassifier(max_iter=5)]
)
def test_any_last_stage_gives_chances(final, feedback):
    """The last stage is what it is alone, and the screen learns what comes of its scores."""
    stages = [("screen", exact(C=0.1)), ("final", final())]
    model = cascade(stages, feedback=feedback, thresholds=0.3, catch_threshold=0.3).fit(X, Y)
    place = np.cumsum(LABELED) - 1
    splits = [tuple(place[part[LABELED[part]]] for part in pair) for pair in SPLITS]
    alone = cascade(stages[1:], cv=splits).fit(X[LABELED], Y[LABELED])
    np.testing.assert_array_equal(model.stage_proba(X)[:, 1], alone.stage_proba(X)[:, 0])
    np.testing.assert_array_equal(model.oof_stage_proba_[LABELED, 1], alone.oof_stage_proba_[:, 0])
    frozen = cascade([("screen", exact(C=0.1)), ("final", FrozenEstimator(model.stages_[1]))])
    assert np.isfinite(model.feedback_weights_[:, 0]).all()
    assert np.isnan(model.feedback_weights_[~LABELED, 1]).all()
    assert frozen.fit(X, Y).classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    "screen",
    [
        tabular,
        lambda: HistGradientBoostingClassifier(max_iter=5),
        lambda: RandomForestClassifier(5, class_weight="balanced"),
        lambda: make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced")),
    ],
)
def test_any_screen_learns_unlabelled_rows(screen):
    stages = [("screen", screen()), ("final", GaussianNB())]
    model = cascade(stages, thresholds=0.3).fit(X, Y)
    np.testing.assert_array_equal(
        cascade(stages, thresholds=0.3).fit(X, Y).predict_proba(X), model.predict_proba(X)
    )
    neutral = cascade(stages, thresholds=0.3, feedback="none").fit(X, Y)
    assert (model.stage_proba(X)[:, 0] != neutral.stage_proba(X)[:, 0]).any()


def test_a_raw_net_as_screen_is_resampled():
    with pytest.warns(UserWarning, match="Stage 'screen' .* resampled in proportion"):
        model = cascade([("screen", net()), ("final", GaussianNB())], thresholds=0.3).fit(X, Y)
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("calibration", ["isotonic", None])
def test_calibration_of_answers_leaves_the_feedback_alone(calibration):
    """The chances of unlabelled rows are calibrated by a sigmoid, however answers are."""
    model = cascade(calibration=calibration).fit(X, Y)
    base = cascade().fit(X, Y)
    np.testing.assert_array_equal(model.feedback_weights_, base.feedback_weights_)
    np.testing.assert_array_equal(model.thresholds_, base.thresholds_)


def test_one_stage_alone_learns_labelled_rows():
    model = cascade([("only", exact())], calibration=None).fit(X, Y)
    alone = exact().fit(X[LABELED], Y[LABELED])
    np.testing.assert_allclose(model.predict_proba(X), alone.predict_proba(X), rtol=1e-9)


def test_a_dropped_stage_is_no_stage():
    stages = [("gone", "drop"), *STAGES]
    assert_same_fit(cascade(stages).fit(X, Y), cascade().fit(X, Y))


def test_an_unlabelled_pool_helps_a_screen_of_few_labels():
    """With a last stage that knows, the pool stands for labels: the screen nears that of all."""
    rng = np.random.default_rng(0)
    rows, truth = make_classification(
        3000, n_features=12, n_informative=8, weights=[0.8], flip_y=0.0, random_state=1
    )
    new, rows, new_truth, truth = rows[:1500], rows[1500:], truth[:1500], truth[1500:]
    last = FrozenEstimator(RandomForestClassifier(50, random_state=0).fit(rows, truth))
    y = np.where(rng.uniform(size=1500) < 0.05, truth, -1)
    scores = {}
    for name, feedback, labels in [
        ("few", "none", y),
        ("pool", "caught", y),
        ("all", "none", truth),
    ]:
        model = cascade([("screen", exact()), ("final", last)], cv=3, thresholds=0.3)
        proba = model.set_params(feedback=feedback).fit(rows, labels).stage_proba(new)[:, 0, 1]
        scores[name] = average_precision_score(new_truth, proba)
    assert scores["few"] < scores["pool"]
    assert scores["all"] - scores["pool"] < 0.3 * (scores["all"] - scores["few"])


@pytest.mark.parametrize("strategy", [CaughtFeedback, GainFeedback])
def test_the_weight_of_unlabelled_rows_is_one_of_the_callers(strategy):
    some = cascade(feedback=strategy(unlabeled_weight=0.25)).fit(X, Y)
    by_caller = cascade(feedback=strategy())
    by_caller.fit(X, Y, sample_weight=np.where(LABELED, 1.0, 0.25))
    np.testing.assert_allclose(some.predict_proba(X), by_caller.predict_proba(X), rtol=1e-5)
    none = cascade(feedback=strategy(unlabeled_weight=0.0), cv=SPLITS).fit(X, Y)
    alone = cascade(feedback=strategy(), cv=SPLITS)
    alone.fit(X, Y, sample_weight=LABELED.astype(float))
    np.testing.assert_allclose(none.predict_proba(X), alone.predict_proba(X), rtol=1e-5)
