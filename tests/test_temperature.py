"""The calibration "temperature": one factor of log-probabilities, by penalised likelihood."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.tree import DecisionTreeClassifier

from skmsc import FeedbackCascadeClassifier
from skmsc.calibration import fit_calibration
from skmsc.thresholds import eager_stage

MANY = 1e7  # rows that a weight stands for where the prior on the slope is to have no say
CLASSES = pytest.mark.parametrize("n_classes", [2, 3, 6])


def temperature(proba, y, weight=None):
    """The fitted map."""
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=float)
    return fit_calibration("temperature", proba, np.asarray(y), weight)


def draw(seed, n_classes=3, n_samples=200, scale=1.0):
    """Scores with some signal, labels, uneven weights.

    Up to a scale of 1 no score is so extreme that it is held back.
    """
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(n_classes), rng.integers(n_classes, size=n_samples - n_classes)]
    logits = np.clip(rng.normal(size=(n_samples, n_classes)), -2.5, 2.5)
    logits[np.arange(n_samples), y] += 1.0
    return softmax(scale * logits, axis=1), y, rng.random(n_samples) + 1.0


def tempered(proba, slope):
    """Probabilities to the power of the slope, normalised: the map where nothing is held back."""
    powers = proba**slope
    return powers / powers.sum(axis=1, keepdims=True)


def loss_at(slope, proba, y, weight=None):
    """scikit-learn's log-loss of the scores at a slope."""
    return log_loss(y, tempered(proba, slope), sample_weight=weight, labels=range(proba.shape[1]))


# Against independent computations ---------------------------------------------------------------


@CLASSES
@pytest.mark.parametrize("slope", [0.2, 1.0, 3.0])
def test_a_planted_slope_is_recovered(slope, n_classes):
    # Every row once with each class, weighed by its true probability: the expected log-loss, which
    # is least at the truth and nowhere else.
    logits = np.random.default_rng(0).normal(size=(60, n_classes))
    truth = softmax(slope * logits, axis=1)
    rows, y = np.divmod(np.arange(truth.size), n_classes)
    got = temperature(softmax(logits, axis=1)[rows], y, MANY * truth.ravel())
    assert got.slope == pytest.approx(slope, rel=1e-5)
    new = np.random.default_rng(1).normal(size=(20, n_classes))
    expected = softmax(slope * new, axis=1)
    np.testing.assert_allclose(got(softmax(new, axis=1)), expected, atol=1e-5)


def test_a_planted_slope_is_recovered_from_drawn_labels():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4))
    truth = softmax(0.5 * logits, axis=1)
    y = (truth.cumsum(axis=1) > rng.random(20_000)[:, None]).argmax(axis=1)
    assert temperature(softmax(logits, axis=1), y).slope == pytest.approx(0.5, rel=0.06)


@CLASSES
@pytest.mark.parametrize("seed", range(5))
def test_no_slope_of_a_grid_has_a_smaller_log_loss(seed, n_classes):
    proba, y, weight = draw(seed, n_classes)
    reached = log_loss(y, temperature(proba, y, MANY * weight)(proba), sample_weight=weight)
    grid = [loss_at(slope, proba, y, weight) for slope in np.geomspace(0.02, 20, 80)]
    assert reached <= min(grid) + 1e-9
    assert max(grid) > reached + 0.05


@CLASSES
@pytest.mark.parametrize("seed", range(5))
def test_the_slope_is_the_one_that_scipy_finds_for_scikit_learns_log_loss(seed, n_classes):
    proba, y, weight = draw(seed, n_classes)

    def penalised(slope):  # a normal prior on the logarithm of the slope, with sd 1/2
        return weight.sum() * loss_at(slope, proba, y, weight) + np.log(slope) ** 2 / (2 * 0.5**2)

    best = minimize_scalar(penalised, bounds=(0.01, 20), method="bounded", options={"xatol": 1e-9})
    got = temperature(proba, y, weight)
    assert got.slope == pytest.approx(best.x, rel=1e-5)
    np.testing.assert_allclose(got(proba), tempered(proba, best.x), atol=1e-5)


def test_by_hand():
    # Ten rows say 0.8 and seven are right: the odds of 4 must become 7/3.
    proba = np.tile([0.8, 0.2], (10, 1))
    got = temperature(proba, np.repeat([0, 1], [7, 3]), np.full(10, MANY))
    assert got.slope == pytest.approx(np.log(7 / 3) / np.log(4), rel=1e-5)
    np.testing.assert_allclose(got(proba), np.tile([0.7, 0.3], (10, 1)), atol=1e-6)


# Invariants -------------------------------------------------------------------------------------


@CLASSES
@pytest.mark.parametrize("scale", [0.1, 2.0, 8.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_classes_of_a_row_stays(seed, scale, n_classes):
    proba, y, weight = draw(seed, n_classes, scale=scale)
    proba_new, *_ = draw(seed + 100, n_classes, scale=scale)
    got = temperature(proba, y, weight)(proba_new)
    np.testing.assert_array_equal(got.argmax(axis=1), proba_new.argmax(axis=1))
    ordered = np.take_along_axis(got, proba_new.argsort(axis=1), axis=1)
    assert (np.diff(ordered, axis=1) >= 0).all()
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-12)


@CLASSES
@pytest.mark.parametrize("seed", range(3))
def test_scores_that_speak_against_the_labels_are_not_turned_round(seed, n_classes):
    proba, y, _ = draw(seed, n_classes)
    got = temperature(proba, (y + 1) % n_classes)
    assert 0 < got.slope < 0.2
    np.testing.assert_array_equal(got(proba).argmax(axis=1), proba.argmax(axis=1))


@CLASSES
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_log_loss_is_not_above_that_of_the_raw_scores(seed, scale, n_classes):
    proba, y, weight = draw(seed, n_classes, scale=scale)
    raw, got = (
        log_loss(y, scores, sample_weight=weight)
        for scores in (proba, temperature(proba, y, weight)(proba))
    )
    assert got <= raw + 1e-9


@CLASSES
@pytest.mark.parametrize("seed", range(5))
def test_a_weight_of_two_is_the_row_twice(seed, n_classes):
    proba, y, _ = draw(seed, n_classes, 80, scale=6.0)
    weight = np.random.default_rng(seed).integers(1, 4, len(y))
    weighted = temperature(proba, y, weight)
    repeated = temperature(proba.repeat(weight, axis=0), y.repeat(weight))
    assert weighted.slope == pytest.approx(repeated.slope, rel=1e-6)
    assert weighted.limit == pytest.approx(repeated.limit)
    unweighted = temperature(proba, y)
    assert abs(unweighted.slope - repeated.slope) > 1e-4


def test_weights_with_a_mean_below_1_are_relative():
    proba, y, weight = draw(0)
    small = temperature(proba, y, weight / 1000)
    scaled = temperature(proba, y, weight / weight.mean())
    assert small.slope == pytest.approx(scaled.slope, rel=1e-6)
    assert small.limit == pytest.approx(scaled.limit)


@CLASSES
def test_scores_of_0_and_1(n_classes):
    # A tree's scores: of the sure ones a tenth is wrong.
    rng = np.random.default_rng(0)
    y = rng.integers(n_classes, size=200)
    proba = np.eye(n_classes)[np.where(np.arange(200) % 10 == 0, (y + 1) % n_classes, y)]
    got = temperature(proba, y, np.full(200, MANY))(proba)
    assert ((got > 0) & (got < 1)).all()
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(got.argmax(axis=1), proba.argmax(axis=1))
    np.testing.assert_allclose(got.max(axis=1), 0.9, atol=1e-3)


def test_zeros_beside_ordinary_scores():
    proba, y, _ = draw(0, 3)
    proba = np.where(proba < 0.05, 0.0, proba)
    proba /= proba.sum(axis=1, keepdims=True)
    assert (proba == 0).any()
    got = temperature(proba, y)(proba)
    assert np.isfinite(got).all() and (got >= 0).all()
    np.testing.assert_array_equal(got.argmax(axis=1), proba.argmax(axis=1))
    # What has a score stays above what has none.
    assert (
        np.where(proba > 0, got, 1).min(axis=1) >= np.where(proba == 0, got, 0).max(axis=1)
    ).all()


@CLASSES
def test_scores_that_are_all_right_become_surer_but_not_certain(n_classes):
    # Sixty rows cannot tell that no row in six hundred is wrong.
    y = np.arange(60) % n_classes
    proba = np.full((60, n_classes), 0.2 / (n_classes - 1))
    proba[np.arange(60), y] = 0.8
    got = temperature(proba, y)(proba)[np.arange(60), y]
    assert (got > 0.9).all()
    assert (got < 1 - 1 / 600).all()


@CLASSES
def test_scores_that_know_nothing(n_classes):
    y = np.arange(60) % n_classes
    proba = np.full((60, n_classes), 1 / n_classes)
    np.testing.assert_allclose(temperature(proba, y)(proba), proba, atol=1e-12)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_row_does_not_depend_on_the_others_and_the_scores_are_as_they_were(overwrite):
    proba, y, _ = draw(0, scale=10.0)
    got, given = temperature(proba, y), proba.copy()
    whole = got(given, overwrite)
    single = np.vstack([got(proba[[i]]) for i in range(len(y))])
    np.testing.assert_allclose(whole, single, rtol=1e-12)
    np.testing.assert_array_equal(got(proba), single)


# In a cascade -----------------------------------------------------------------------------------


def cascade(thresholds, calibration="temperature"):
    # Trees of a few rows are too sure of themselves, so that the temperature is far from 1.
    stages = [("screen", DecisionTreeClassifier(max_depth=6, min_samples_leaf=2, random_state=0))]
    stages.append(("final", LogisticRegression()))
    return FeedbackCascadeClassifier(
        stages,
        feedback="none",
        thresholds=thresholds,
        calibration=calibration,
        store_oof=True,
        random_state=0,
        cv=3,
    )


def slope_by_scipy(proba, y):
    """Most likely slope, scores held back at what so many rows can tell."""
    limit = np.log(2 * len(y))
    logs = np.maximum(np.log(np.maximum(proba, 1e-300)), -limit)
    codes = np.arange(len(y)), np.searchsorted(np.unique(y), y)
    best = minimize_scalar(
        lambda slope: 2 * np.log(slope) ** 2 - np.log(softmax(slope * logs, axis=1)[codes]).sum(),
        bounds=(0.01, 10),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return best.x, limit


@pytest.mark.filterwarnings("ignore:.*distinct scores")
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_cascade_answers_with_tempered_scores(n_classes):
    X, y = make_classification(
        400, 6, n_informative=4, n_redundant=0, n_classes=n_classes, flip_y=0.2, random_state=0
    )
    thresholds = np.vstack([np.full(n_classes, 0.9), np.full(n_classes, -np.inf)])
    model = cascade(thresholds).fit(X, y)
    stage, raw = model.route(X).stage, model.stage_proba(X)
    assert np.bincount(stage).min() > 20

    reaches = eager_stage(model.oof_stage_proba_, thresholds)
    for k in (0, 1):
        rows = reaches >= k
        slope, limit = slope_by_scipy(model.oof_stage_proba_[rows, k], y[rows])
        assert abs(slope - 1) > 0.05
        logs = np.maximum(np.log(np.maximum(raw[:, k], 1e-300)), -limit)
        expected = softmax(slope * logs, axis=1)[stage == k]
        np.testing.assert_allclose(model.predict_proba(X)[stage == k], expected, atol=2e-3)


@pytest.mark.filterwarnings("ignore:.*distinct scores")
def test_a_cascade_of_tempered_stages_says_what_the_raw_scores_say():
    X, y = make_classification(400, 6, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
    raw, got = (cascade(0.8, calibration).fit(X, y) for calibration in (None, "temperature"))
    np.testing.assert_array_equal(got.route(X).stage, raw.route(X).stage)
    np.testing.assert_array_equal(got.predict(X), raw.predict(X))
    assert np.abs(got.predict_proba(X) - raw.predict_proba(X)).max() > 0.05
