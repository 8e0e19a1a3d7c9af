"""Feedback against the table of the derivation, and against brute force."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import f1_score

from skmsc import CaughtFeedback, GainFeedback
from skmsc.training.feedback import LaterStages, best_f1_cut, check_feedback, feedback_for


def signal_of(positive, *later_proba, catch_threshold=0.5, weight=None, costs=None):
    positive = np.asarray(positive, dtype=bool)
    return LaterStages(
        positive=positive,
        later_proba=np.column_stack([np.asarray(p, dtype=float) for p in later_proba]),
        catch_threshold=catch_threshold,
        sample_weight=np.ones(positive.size) if weight is None else np.asarray(weight, float),
        later_costs=None if costs is None else np.asarray(costs, dtype=float),
    )


def test_gain_of_hard_decisions_is_the_table():
    # Rows: caught positive, missed positive, false alarm, true negative.
    signal = signal_of([1, 1, 0, 0], [0.9, 0.1, 0.9, 0.1], costs=[0.2])
    gain = GainFeedback(temperature=1e-3, error_costs=(10, 1)).gain(signal)
    np.testing.assert_allclose(gain, [10 - 0.2, -0.2, -(1 + 0.2), -0.2], atol=1e-9)


@pytest.mark.parametrize("n_later", [1, 2, 3])
def test_gain_is_the_expected_cost_saved(n_later):
    rng = np.random.default_rng(n_later)
    y, proba = rng.integers(0, 2, 30), rng.uniform(0.02, 0.98, (30, n_later))
    costs, (cost_fn, cost_fp), temperature, catch = (
        rng.uniform(0.1, 1, n_later),
        (7.0, 2.0),
        0.7,
        0.3,
    )
    signal = signal_of(y, *proba.T, catch_threshold=catch, costs=costs)
    strategy = GainFeedback(temperature=temperature, error_costs=(cost_fn, cost_fp))

    # Every way the later stages can decide, with its chance and its cost.
    expected = np.zeros(30)
    cuts = np.array([0.5] * (n_later - 1) + [catch])
    odds = (proba / (1 - proba)) / (cuts / (1 - cuts))
    pass_chance = odds ** (1 / temperature) / (1 + odds ** (1 / temperature))
    for i, decisions in itertools.product(range(30), itertools.product([0, 1], repeat=n_later)):
        n_run = decisions.index(0) + 1 if 0 in decisions else n_later
        chance = np.prod(np.where(decisions, pass_chance[i], 1 - pass_chance[i]))
        called_positive = all(decisions)
        error = cost_fp * (1 - y[i]) if called_positive else cost_fn * y[i]
        expected[i] += chance * (costs[:n_run].sum() + error)
    np.testing.assert_allclose(strategy.gain(signal), cost_fn * y - expected, atol=1e-12)


def test_default_error_costs_are_the_weighted_class_ratio():
    signal = signal_of([1, 0, 0], [0.9, 0.1, 0.1], weight=[1, 3, 5], costs=[50.0])
    given = signal_of([1, 0, 0], [0.9, 0.1, 0.1], weight=[1, 3, 5], costs=[0.2])
    np.testing.assert_allclose(
        GainFeedback().gain(signal), GainFeedback(error_costs=(8.0, 1.0)).gain(given)
    )


def test_caught_positives_weigh_by_the_chance_that_they_are_caught():
    signal = signal_of([1, 1, 0, 0], [0.8, 0.2, 0.9, 0.1])
    target, weight = feedback_for("caught", signal)
    np.testing.assert_array_equal(target, [True, True, False, False])
    # sigma(logit .8) = .8 and sigma(logit .2) = .2, scaled to mean 1 over the positives.
    np.testing.assert_allclose(weight, [1.6, 0.4, 1.0, 1.0])


@pytest.mark.parametrize("strategy", [CaughtFeedback, GainFeedback])
def test_strength_mixes_with_uniform_weights(strategy):
    rng = np.random.default_rng(0)
    signal = signal_of(rng.integers(0, 2, 50), rng.uniform(size=50))
    _, full = strategy().weigh(signal)
    _, part = strategy(strength=0.25).weigh(signal)
    np.testing.assert_allclose(part, 0.75 + 0.25 * full)
    _, none = strategy(strength=0.0).weigh(signal)
    np.testing.assert_allclose(none, 1.0)


def test_weights_have_mean_one_by_the_callers_weights():
    rng = np.random.default_rng(0)
    sample_weight = rng.uniform(0.5, 2, 80)
    signal = signal_of(np.arange(80) % 4 == 0, rng.uniform(size=80), weight=sample_weight)
    _, weight = CaughtFeedback().weigh(signal)
    for mask in (signal.positive, ~signal.positive):
        assert np.average(weight[mask], weights=sample_weight[mask]) == pytest.approx(1)
    _, weight = GainFeedback().weigh(signal)
    assert np.average(weight, weights=sample_weight) == pytest.approx(1)


def test_a_perfect_last_stage_gives_class_weights():
    y = np.arange(20) % 5 == 0
    target, weight = CaughtFeedback().weigh(signal_of(y, np.where(y, 1.0, 0.0)))
    np.testing.assert_allclose(weight, 1.0)
    target, weight = GainFeedback().weigh(signal_of(y, np.where(y, 1.0, 0.0)))
    np.testing.assert_array_equal(target, y)
    assert np.ptp(weight[y]) < 1e-9 and np.ptp(weight[~y]) < 1e-9


def test_extreme_scores_and_thresholds_give_finite_weights():
    y = np.array([1, 1, 0, 0])
    for catch_threshold in (0.0, 0.5, 1.0):
        for strategy in (CaughtFeedback(), GainFeedback()):
            signal = signal_of(y, [0.0, 1.0, 1.0, 0.0], catch_threshold=catch_threshold)
            assert np.isfinite(strategy.gain(signal) if hasattr(strategy, "gain") else 0).all()


def test_a_callable_is_a_strategy():
    signal = signal_of([1, 0], [0.9, 0.2], catch_threshold=0.4)
    seen = {}

    def weigh(positive, later_proba, catch_threshold):
        seen.update(positive=positive, later=later_proba, cut=catch_threshold)
        return [2, 1]

    target, weight = feedback_for(weigh, signal)
    np.testing.assert_array_equal(weight, [2.0, 1.0])
    np.testing.assert_array_equal(target, [True, False])
    np.testing.assert_array_equal(seen["later"], [[0.9], [0.2]])
    assert seen["cut"] == 0.4


@pytest.mark.parametrize(
    "weights, match",
    [
        ([1.0], r"shape \(2,\); got shape \(1,\)"),
        ([1.0, -1.0], "finite weights >= 0"),
        ([1.0, np.nan], "finite weights >= 0"),
        ([0.0, 0.0], "not all of them 0"),
    ],
)
def test_a_callables_weights_are_checked(weights, match):
    with pytest.raises(ValueError, match=match):
        feedback_for(lambda *_: weights, signal_of([1, 0], [0.9, 0.2]))


@pytest.mark.parametrize(
    "feedback, match",
    [
        ("cought", "feedback must be 'caught', 'gain', 'none'"),
        (CaughtFeedback, "feedback must be"),
        (3, "feedback must be"),
        (CaughtFeedback(strength=2), r"strength must be a number in \[0, 1\]; got 2"),
        (GainFeedback(temperature=0), "temperature must be a finite number > 0; got 0"),
        (GainFeedback(error_costs=(1,)), "error_costs must be None or two finite numbers"),
        (GainFeedback(error_costs=(1, -1)), "error_costs"),
    ],
)
def test_bad_feedback_is_refused(feedback, match):
    with pytest.raises(ValueError, match=match):
        check_feedback(feedback)


@pytest.mark.parametrize("seed", range(10))
def test_best_f1_cut_beats_every_other_cut(seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 8, 40) / 8
    positive, weight = rng.uniform(size=40) < score, rng.integers(1, 4, 40)
    cut = best_f1_cut(positive, score, weight)

    def f1(threshold):
        return f1_score(positive, score >= threshold, sample_weight=weight, zero_division=0)

    assert f1(cut) == pytest.approx(max(f1(value) for value in np.unique(score)))


def test_best_f1_cut_lies_midway_or_at_the_lowest_score():
    assert best_f1_cut(np.array([0, 1]), np.array([0.2, 0.6]), np.ones(2)) == pytest.approx(0.4)
    assert best_f1_cut(np.array([0, 1]), np.array([0.3, 0.3]), np.ones(2)) == 0.3
