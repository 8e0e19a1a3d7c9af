"""Thresholds set anew on what came back: shadow labels, what is refused, and the ratchet."""

import pickle

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin

from skmsc import (
    Agreement,
    ExpectedCost,
    FeedbackCascadeClassifier,
    PassBudget,
    RecallFloor,
)
from skmsc.routing import Routing
from skmsc.thresholds import StageScores, fit_thresholds

# Routing.shadow ---------------------------------------------------------------------------------


def routing_of(stage, n_stages=3):
    stage = np.asarray(stage)
    return Routing(stage, np.full((stage.size, 2), 0.5), None, n_stages)


def test_only_rows_answered_early_are_marked_and_weigh_more():
    routing = routing_of(np.arange(3000) % 3)
    marked, weight = routing.shadow(0.25, random_state=0)
    early = routing.stage < 2
    assert not marked[~early].any()
    np.testing.assert_array_equal(weight, np.select([~early, marked], [1.0, 4.0], 0.0))
    assert abs(marked[early].mean() - 0.25) < 0.04


def test_a_share_of_one_marks_every_row():
    marked, weight = routing_of([0, 1, 2]).shadow(1)
    np.testing.assert_array_equal(marked, [True, True, False])
    np.testing.assert_array_equal(weight, [1, 1, 1])


def test_the_draw_is_seeded_and_may_come_in_batches():
    whole, again = (routing_of(np.zeros(50, int)).shadow(0.4, random_state=3)[0] for _ in range(2))
    np.testing.assert_array_equal(whole, again)
    rng = np.random.RandomState(3)
    parts = [routing_of(np.zeros(n, int)).shadow(0.4, random_state=rng)[0] for n in (1, 20, 29)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_weighted_sums_are_right_in_the_mean():
    rng, stage = np.random.RandomState(0), np.r_[np.zeros(40, int), 2]
    values = np.linspace(-1, 2, 41)
    sums = [
        (routing_of(stage).shadow(0.1, random_state=rng)[1] * values).sum() for _ in range(4000)
    ]
    error = np.std(sums) / np.sqrt(4000)
    assert abs(np.mean(sums) - values.sum()) < 4 * error


@pytest.mark.parametrize(
    "share, error", [(0, ValueError), (1.5, ValueError), (np.nan, ValueError), ("a", TypeError)]
)
def test_bad_shares(share, error):
    with pytest.raises(error, match=r"share must be a number in \(0, 1\]; got"):
        routing_of([0]).shadow(share)


def test_without_a_number_of_stages_nothing_is_the_last():
    with pytest.raises(ValueError, match="does not know how many stages"):
        Routing(np.array([0]), np.ones((1, 2)), None).shadow(0.5)


# What a floor refuses ---------------------------------------------------------------------------


class Column(ClassifierMixin, BaseEstimator):
    """Scores rows by the logistic function of one column; learns nothing but the classes."""

    def __init__(self, place=0):
        self.place = place

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        positive = expit(X[:, self.place])
        return np.column_stack([1 - positive, positive])


STAGES = [("screen", Column(0)), ("final", Column(1))]
FLOOR = RecallFloor(0.97)


def cards(rng, n_samples, share=0.01):
    """Rows whose frauds both stages score higher, the screen with more noise."""
    y = (rng.random(n_samples) < share).astype(int)
    X = rng.normal(size=(n_samples, 2)) * [1.0, 1.2] + y[:, None] * [3.0, 6.0] - [0, 3.0]
    return X, y


def fitted(rng, **params):
    defaults = {"feedback": "none", "catch_threshold": 0.5, "thresholds": FLOOR, "cv": 2}
    model = FeedbackCascadeClassifier(**({"stages": STAGES} | defaults | params))
    return model.fit(*cards(rng, 20_000))


def passed_rows(model, X):
    return model.route(X).stage == len(model.stages_) - 1


@pytest.mark.filterwarnings("ignore:A recall of .* the cap holds")  # of the few rows that passed
@pytest.mark.parametrize("floor", [FLOOR, RecallFloor(0.9, confidence=0.9), None])
def test_a_floor_does_not_dismiss_more_where_nothing_dismissed_has_a_label(floor):
    rng = np.random.default_rng(0)
    model = fitted(rng)
    X, y = cards(rng, 20_000)
    rows = passed_rows(model, X)
    served = pickle.dumps(model)
    with pytest.raises(ValueError, match=r"none of the .* labelled rows is one that it dismisses"):
        model.tune_thresholds(X[rows], y[rows], thresholds=floor)
    assert pickle.dumps(model) == served
    # Rows of weight 0 tell as little.
    with pytest.raises(ValueError, match=r"'screen' dismiss more rows than now.*Routing\.shadow"):
        model.tune_thresholds(X, y, thresholds=floor, sample_weight=rows * 1.0)
    if floor is None:
        return
    tuned = model.tune_thresholds(X, y, thresholds=floor, copy=True)
    assert tuned.thresholds_[0, 0] != model.thresholds_[0, 0]


def test_a_floor_may_dismiss_fewer_without_such_labels():
    rng = np.random.default_rng(0)
    model = fitted(rng)
    X, y = cards(rng, 20_000)
    X, y = (part[passed_rows(model, X)] for part in (X, y))
    lowest = X[:, 0].argmin()
    X[lowest, 1], y[lowest] = 5.0, 1  # a caught positive just above the cut
    tuned = model.tune_thresholds(X, y, thresholds=RecallFloor(1.0))
    assert tuned.thresholds_[0, 0] == np.inf


def test_a_stage_that_dismisses_nothing_hides_nothing():
    rng = np.random.default_rng(0)
    model = fitted(rng, thresholds=PassBudget(1.0))
    X, y = cards(rng, 20_000)
    tuned = model.tune_thresholds(X, y, thresholds=FLOOR)
    assert not passed_rows(tuned, X).all()


def test_each_stage_is_asked():
    rng = np.random.default_rng(0)
    model = fitted(
        rng,
        stages=[("a", Column(0)), ("b", Column(0)), ("final", Column(1))],
        thresholds=[0.5, 0.8],
    )
    X, y = cards(rng, 20_000)
    rows = model.route(X).stage != 1  # what the second stage dismisses has no label
    with pytest.raises(ValueError, match="stage 'b' dismiss more"):
        model.tune_thresholds(X[rows], y[rows], thresholds=RecallFloor(0.5))


def test_rows_that_an_early_stage_calls_positive_tell_nothing_of_those_it_dismisses():
    rng = np.random.default_rng(0)
    both = [[0.9, 0.9], [-np.inf, -np.inf]]
    model = fitted(rng, thresholds=both)
    X, y = cards(rng, 20_000)
    dismissed = model.stage_proba(X)[:, 0, 0] >= 0.9
    called = (model.route(X).stage == 0) & ~dismissed
    assert called.any()
    with pytest.raises(ValueError, match=r"none of the .* labelled rows is one that it dismisses"):
        model.tune_thresholds(X[~dismissed], y[~dismissed], thresholds=RecallFloor(0.2))
    model.tune_thresholds(X, y, thresholds=RecallFloor(0.2))


def test_other_policies_are_not_asked():
    rng = np.random.default_rng(0)
    model = fitted(rng)
    X, y = cards(rng, 20_000)
    rows = passed_rows(model, X)
    for policy in (PassBudget(0.5), Agreement(0.3), ExpectedCost(1, 1), 0.9):
        model.tune_thresholds(X[rows], y[rows], thresholds=policy, copy=True)


# Six weeks of late labels -----------------------------------------------------------------------


def true_recall(model, X, y):
    """Share of the positives that the last stage catches which still reach it."""
    caught = (y == 1) & (X[:, 1] >= 0)
    return passed_rows(model, X)[caught].mean()


def naive_retuning(model, weeks):
    """Floors set on passed rows alone: the policy itself, which knows no thresholds of before."""
    for X, y in weeks:
        rows = passed_rows(model, X)
        positive = expit(X[rows])
        scores = StageScores(
            stage_proba=np.stack([1 - positive, positive], axis=2),
            y=y[rows],
            sample_weight=np.ones(rows.sum()),
            negative=0,
            caught=(y[rows] == 1) & (positive[:, 1] >= 0.5),
            stage_costs=None,
            stage_names=("screen", "final"),
            untouched=True,
        )
        model = model.tune_thresholds(X, thresholds=fit_thresholds(FLOOR, scores), copy=True)
    return model


def shadowed_retuning(model, weeks, share):
    """Floors set on passed rows and a share of the others, of the last three weeks."""
    known = []
    for week, (X, y) in enumerate(weeks):
        _, weight = model.route(X).shadow(share, random_state=week)
        rows = weight > 0
        known = [*known[-2:], (X[rows], y[rows], weight[rows])]
        X, y, weight = (np.concatenate(parts) for parts in zip(*known, strict=True))
        model = model.tune_thresholds(X, y, thresholds=FLOOR, sample_weight=weight, copy=True)
    return model


def six_weeks(seed, share=0.2, n_samples=20_000):
    """True retained recall at the start, after naive retuning, and with shadow labels."""
    rng = np.random.default_rng(seed)
    model, weeks = fitted(rng), [cards(rng, n_samples) for _ in range(6)]
    models = model, naive_retuning(model, weeks), shadowed_retuning(model, weeks, share)
    X, y = cards(rng, 20_000, share=0.5)
    return [true_recall(m, X, y) for m in models]


def test_naive_retuning_loses_what_shadow_labels_keep():
    start, naive, shadowed = six_weeks(0)
    assert naive < start - 0.1
    assert shadowed > start - 0.03


@pytest.mark.slow
def test_retained_recall_does_not_ratchet_down_with_shadow_labels():
    recall = np.array([six_weeks(seed) for seed in range(20)])
    start, naive, shadowed = recall.mean(axis=0)
    error = recall.std(axis=0).max() / np.sqrt(20)
    assert naive < start - 0.1
    assert shadowed > start - 0.01 - 3 * error
    assert shadowed > FLOOR.min_recall - 0.01 - 3 * error
