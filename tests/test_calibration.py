"""Calibration against independent fits, on awkward scores, and what it does to rankings."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from skmsc import FeedbackCascadeClassifier, PassBudget
from skmsc.calibration import fit_calibration

METHODS = pytest.mark.parametrize("method", ["sigmoid", "isotonic"])


def two_columns(positive, *, decisions=False):
    """Scores of both classes from those of the positive one."""
    positive = np.asarray(positive, dtype=float)
    return np.column_stack([-positive if decisions else 1 - positive, positive])


def calibrated(method, positive, y, weight=None, *, decisions=False, new=None):
    """Calibrated probabilities of the positive class."""
    scores, y = two_columns(positive, decisions=decisions), np.asarray(y)
    weight = np.ones(y.size) if weight is None else weight
    calibration = fit_calibration(method, scores, y, weight, from_decisions=decisions)
    return calibration(scores if new is None else two_columns(new, decisions=decisions))[:, 1]


def draw(seed, n_samples=200, *, ties=False):
    """Scores with some signal, labels, uneven weights."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n_samples) < rng.choice([0.5, 0.1])).astype(int)
    y[:2] = [0, 1]
    score = expit(rng.normal(size=n_samples) * 2 + 1.5 * y + rng.normal())
    score = np.clip(np.round(score, 1), 0.05, 0.95) if ties else score
    return score, y, rng.random(n_samples) + 1.0


def platt_by_scipy(z, y, weight):
    """Maximum likelihood of expit(a z + b) with Platt's targets, z with mean 0 and variance 1."""
    n_pos, n_neg = weight[y == 1].sum(), weight[y == 0].sum()
    target = np.where(y == 1, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))

    def loss(params):
        log_odds = params[0] * z + params[1]
        return np.sum(weight * (np.logaddexp(0, log_odds) - target * log_odds)) / weight.sum()

    slope, intercept = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-9}).x
    assert slope > 0
    return expit(slope * z + intercept)


# Against independent computations ---------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_sigmoid_is_the_maximum_of_the_likelihood(seed, ties):
    score, y, weight = draw(seed, ties=ties)
    limit = np.log(2 * weight.sum())  # what so many rows can tell
    z = np.clip(logit(score), -limit, limit)
    expected = platt_by_scipy((z - z.mean()) / z.std(), y, weight)
    np.testing.assert_allclose(calibrated("sigmoid", score, y, weight), expected, atol=1e-5)


def test_a_few_rows_that_a_booster_is_sure_of_and_wrong_about_do_not_flatten_the_slope():
    rng = np.random.default_rng(0)
    z = rng.normal(size=2000) * 2 - 3
    y = (rng.random(2000) < expit(z)).astype(int)
    z[:3], y[:3] = -40, 1
    order = np.argsort(z)
    got = calibrated("sigmoid", expit(z), y)
    assert got[order[-20:]].mean() > 0.5


@pytest.mark.parametrize(
    "scale, offset",
    [
        (1, 0),
        (1e-3, 2),
        (1e4, 0),
        (1e4, 30),
        (1e-9, 0),
        (1e9, 0),
        (1e4, 1000),
    ],
)
def test_sigmoid_of_decision_values_of_any_scale(scale, offset):
    score, y, weight = draw(0)
    z = (logit(score) - logit(score).mean()) / logit(score).std()
    got = calibrated("sigmoid", (z + offset) * scale, y, weight, decisions=True)
    np.testing.assert_allclose(got, platt_by_scipy(z, y, weight), atol=1e-6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_isotonic_passes_through_the_centres_of_scikit_learns_steps(seed, ties):
    score, y, weight = draw(seed, ties=ties)
    steps = IsotonicRegression().fit(logit(score), y, sample_weight=weight).predict(logit(score))
    for value in np.unique(steps):
        rows = steps == value
        centre = np.average(logit(score[rows]), weights=weight[rows])
        got = calibrated("isotonic", score, y, weight, new=[expit(centre)])
        assert got[0] == pytest.approx(value, abs=1e-10)


def test_isotonic_keeps_scores_that_differ_in_the_last_bit():
    score = np.array([0.2, 0.5, np.nextafter(0.5, 1), 0.2])
    assert np.isfinite(calibrated("isotonic", score, [0, 1, 1, 0])).all()


def test_isotonic_by_hand():
    # The labels 1, 0 in the middle are out of order and share their mean, at .5, the middle of
    # their scores; between the centres of steps the map is linear in the log-odds.
    score, centre = np.array([0.1, 0.4, 0.6, 0.9]), 0.5
    got = calibrated("isotonic", score, [0, 1, 0, 1], new=[*score, centre])
    share = (logit(0.4) - logit(0.1)) / (logit(0.5) - logit(0.1))
    np.testing.assert_allclose(got, [0, 0.5 * share, 1 - 0.5 * share, 1, 0.5])


@METHODS
@pytest.mark.parametrize("decisions", [False, True])
def test_weight_two_is_the_row_twice(method, decisions):
    score, y, _ = draw(1, ties=True)
    weight = np.arange(y.size) % 3 + 1
    repeated = np.repeat(np.arange(y.size), weight)
    weighted = calibrated(method, score, y, weight * 1.0, decisions=decisions)
    twice = calibrated(method, score[repeated], y[repeated], decisions=decisions, new=score)
    np.testing.assert_allclose(weighted, twice, atol=1e-8)


@METHODS
def test_labels_may_be_swapped(method):
    score, y, weight = draw(2)
    swapped = calibrated(method, 1 - score, 1 - y, weight)
    np.testing.assert_allclose(swapped, 1 - calibrated(method, score, y, weight), atol=1e-6)


# Scores that are calibrated already -------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("seed", range(3))
def test_calibrated_scores_stay_nearly_as_they_are(method, seed):
    rng = np.random.default_rng(seed)
    score = rng.beta(0.5, 3, 20000)
    y = (rng.random(score.size) < score).astype(int)
    assert np.abs(calibrated(method, score, y) - score).mean() < 0.02


def test_sigmoid_undoes_a_change_of_prior():
    # Halving the negatives doubles the odds; the fit must divide them by two again.
    rng = np.random.default_rng(0)
    score = rng.beta(1, 3, 40000)
    y = (rng.random(score.size) < score).astype(int)
    got = calibrated("sigmoid", expit(logit(score) + np.log(2)), y)
    np.testing.assert_allclose(got, score, atol=0.02)


# Scores of every awkward kind -------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("seed", range(5))
def test_the_map_is_monotone(method, seed):
    score, y, weight = draw(seed)
    grid = np.sort(np.r_[0, np.random.default_rng(seed).random(500), 1e-300, 1e-17, 1 - 1e-16, 1])
    assert (np.diff(calibrated(method, score, y, weight, new=grid)) >= 0).all()


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_zeros_and_ones_are_no_certainty(method):
    # What a forest gives: certain of most rows, and wrong about some of them.
    score = np.repeat([0, 0.3, 0.6, 1], [50, 10, 10, 20])
    y = np.r_[np.arange(50) < 2, np.arange(10) < 3, np.arange(10) < 6, np.arange(20) > 0]
    got = calibrated(method, score, y.astype(int))
    assert 0 < got[0] < got[50] < got[60] < got[70] < 1


@METHODS
def test_zeros_and_ones_do_not_spoil_the_fit(method):
    score = np.repeat([0, 0.3, 0.6, 1], [50, 100, 100, 20])
    y = np.r_[np.arange(50) < 2, np.arange(100) < 30, np.arange(100) < 60, np.arange(20) > 0]
    got = calibrated(method, score, y.astype(int))
    assert got[0] < 0.1 < 0.9 < got[-1]
    np.testing.assert_allclose(got[[50, 150]], [0.3, 0.6], atol=0.1)


@pytest.mark.parametrize(
    "method, value",
    [
        ("sigmoid", 1e-300),
        ("sigmoid", 0.3),
        ("sigmoid", 0.5),
        ("sigmoid", 0.0),
        ("sigmoid", 1.0),
        ("isotonic", 0.0),
        ("isotonic", 0.3),
        ("isotonic", 1.0),
    ],
)
def test_constant_scores_give_the_share_of_positives(method, value):
    y = (np.arange(400) % 4 == 0).astype(int)
    got = calibrated(method, np.full(400, value), y, new=[value])
    assert got[0] == pytest.approx(0.25, abs=0.005)


@METHODS
def test_scores_against_the_labels_are_not_turned_round(method):
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.1).astype(int)
    score = expit(rng.normal(size=2000) - 2.0 * y)
    got = calibrated(method, score, y)
    assert (np.diff(got[np.argsort(score)]) >= 0).all()


@pytest.mark.parametrize(
    "method",
    [
        "sigmoid",
        "isotonic",
    ],
)
def test_scores_without_use_give_the_share_of_positives(method):
    rng = np.random.default_rng(0)
    y = (rng.random(4000) < 0.02).astype(int)
    score = expit(rng.uniform(-5, 5, 4000) - y)
    assert calibrated(method, score, y).mean() == pytest.approx(y.mean(), abs=0.005)


@METHODS
@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_class(method, label):
    score, _, weight = draw(0)
    got = calibrated(method, score, np.full(score.size, label), weight)
    assert np.abs(got - label).mean() < 0.05


@METHODS
def test_separable_scores_stay_finite(method):
    got = calibrated(method, [1e-9, 1e-6, 0.2, 0.8], [0, 0, 1, 1], new=[0, 1e-300, 0.5, 1])
    assert np.isfinite(got).all()
    assert got[0] <= got[1] <= got[2] <= got[3]


@METHODS
def test_two_rows(method):
    got = calibrated(method, [0.4, 0.6], [0, 1])
    assert 0 <= got[0] < 0.5 < got[1] <= 1


def test_no_method_is_no_map():
    score, y, weight = draw(0)
    assert fit_calibration(None, two_columns(score), y, weight) is None


# More than two classes --------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("decisions", [False, True])
def test_rows_of_many_classes_sum_to_one(method, decisions):
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=300)
    scores = rng.normal(size=(300, 4)) + 2 * np.eye(4)[y]
    scores = scores if decisions else np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    calibration = fit_calibration(method, scores, y, np.ones(300), from_decisions=decisions)
    far = np.vstack([scores, np.eye(4), np.full((1, 4), -1e6 if decisions else 0.0)])
    proba = calibration(far)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    assert (proba >= 0).all()
    assert (proba[:300].argmax(axis=1) == y).mean() > 0.6


def test_each_of_many_classes_has_the_map_of_the_class_against_the_rest():
    rng = np.random.default_rng(0)
    y, weight = rng.integers(3, size=300), rng.random(300) + 0.1
    scores = rng.dirichlet([1, 1, 1], 300) / 2 + np.eye(3)[y] / 2 * rng.random((300, 1))
    scores = np.clip(scores / scores.sum(axis=1, keepdims=True), 1e-6, 1 - 1e-6)
    proba = fit_calibration("sigmoid", scores, y, weight)(scores)
    alone = [calibrated("sigmoid", scores[:, c], (y == c).astype(int), weight) for c in range(3)]
    expected = np.column_stack(alone)
    np.testing.assert_allclose(proba, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)


# What it does to the ranking of a cascade -------------------------------------------------------


def ranking(seed, calibration, *, n_samples=6000, n_trees=30):
    """Labels, scores and stages on new rows of a cascade whose stages are on different scales."""
    X, y = make_classification(
        4 * n_samples,
        n_informative=8,
        n_redundant=4,
        n_clusters_per_class=3,
        weights=[0.985],
        flip_y=0.005,
        class_sep=0.9,
        random_state=seed,
    )
    cascade = FeedbackCascadeClassifier(
        [
            ("screen", LogisticRegression(class_weight="balanced")),
            ("final", RandomForestClassifier(n_trees, min_samples_leaf=2)),
        ],
        feedback="none",
        thresholds=PassBudget(0.1),
        calibration=calibration,
        cv=3,
        random_state=0,
    )
    cascade.fit(X[:n_samples], y[:n_samples])
    new, y_new = X[n_samples:], y[n_samples:]
    routing = cascade.route(new)
    return y_new, routing.proba[:, 1], routing.stage, cascade.stage_proba(new)


def test_rows_that_the_last_stage_saw_keep_its_ranking():
    y, score, stage, stage_proba = ranking(0, "sigmoid", n_samples=2000, n_trees=10)
    seen = stage == 1
    ours = average_precision_score(y[seen], score[seen])
    alone = average_precision_score(y[seen], stage_proba[seen, 1, 1])
    # Raw scores that differ in the last bit may tie as log-odds.
    assert ours == pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_calibrated_stages_mix_better_than_raw_ones(seed):
    y, raw, *_ = ranking(seed, None)
    for method in ("sigmoid", "isotonic"):
        _, score, stage, stage_proba = ranking(seed, method)
        assert average_precision_score(y, score) > average_precision_score(y, raw) + 0.05
        assert roc_auc_score(y, score) > roc_auc_score(y, raw) + 0.05
        # As good as ranking all passed rows, by the last stage, above all rejected ones.
        ideal = np.where(stage == 1, 1 + stage_proba[:, 1, 1], stage_proba[:, 0, 1])
        assert average_precision_score(y, score) > average_precision_score(y, ideal) - 0.05
