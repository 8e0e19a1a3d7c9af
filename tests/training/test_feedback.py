"""Feedback against the table of the derivation, and against brute force."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import f1_score

from skmsc import AutoFeedback, CaughtFeedback, GainFeedback
from skmsc.training.feedback import (
    LaterStages,
    best_f1_cut,
    check_feedback,
    feedback_for,
    guesses_for,
)


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


def cost_of_passing(y, proba, cuts, temperature, later_costs, error_costs):
    """Expected cost of each row, by every way in which the later stages can decide.

    `y` holds labels or chances to be positive, which are one more thing to expect over.
    """
    cost_fn, cost_fp = error_costs
    odds = ((proba / (1 - proba)) / (cuts / (1 - cuts))) ** (1 / temperature)
    pass_chance, expected = odds / (1 + odds), np.zeros(len(y))
    for decisions in itertools.product([0, 1], repeat=proba.shape[1]):
        n_run = decisions.index(0) + 1 if 0 in decisions else proba.shape[1]
        chance = np.where(decisions, pass_chance, 1 - pass_chance).prod(axis=1)
        error = cost_fp * (1 - y) if all(decisions) else cost_fn * y
        expected += chance * (later_costs[:n_run].sum() + error)
    return expected


@pytest.mark.parametrize("n_later", [1, 2, 3, 4])
@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_gain_is_the_expected_cost_saved(n_later, temperature):
    rng = np.random.default_rng(n_later)
    y, proba = rng.integers(0, 2, 30), rng.uniform(0.02, 0.98, (30, n_later))
    costs, error_costs, catch = rng.uniform(0.1, 1, n_later), (7.0, 2.0), 0.3
    signal = signal_of(y, *proba.T, catch_threshold=catch, costs=costs)
    strategy = GainFeedback(temperature=temperature, error_costs=error_costs)
    cuts = np.array([0.5] * (n_later - 1) + [catch])
    expected = cost_of_passing(y, proba, cuts, temperature, costs, error_costs)
    gain = strategy.gain(signal)
    np.testing.assert_allclose(gain, 7.0 * y - expected, atol=1e-12)
    target, weight = strategy.weigh(signal)
    np.testing.assert_array_equal(target, gain > 0)
    np.testing.assert_allclose(weight, np.abs(gain) / np.abs(gain).mean())


@pytest.mark.parametrize("n_later", [1, 2, 3, 4])
@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_gain_of_an_unlabelled_row_is_expected_over_its_label_too(n_later, temperature):
    rng = np.random.default_rng(n_later)
    y, known = rng.integers(0, 2, 20), rng.uniform(0.02, 0.98, (20, n_later))
    proba, chance = rng.uniform(0.02, 0.98, (50, n_later)), rng.uniform(size=50)
    costs, error_costs, catch = rng.uniform(0.1, 1, n_later), (7.0, 2.0), 0.3
    weight = rng.uniform(0.5, 2, 20)
    signal = signal_of(y, *known.T, catch_threshold=catch, costs=costs, weight=weight)
    strategy = GainFeedback(temperature=temperature, error_costs=error_costs)
    negative, positive = strategy.weigh_unlabeled(signal, proba, chance).T

    cuts = np.array([0.5] * (n_later - 1) + [catch])
    expected = cost_of_passing(chance, proba, cuts, temperature, costs, error_costs)
    scale = np.average(np.abs(strategy.gain(signal)), weights=weight)
    np.testing.assert_allclose((positive - negative) * scale, 7.0 * chance - expected, atol=1e-12)
    # The positive's part is all that passing can save, the rest is what it costs.
    saved = cost_of_passing(chance, proba, cuts, temperature, 0 * costs, (7.0, 0.0))
    np.testing.assert_allclose(positive * scale, 7.0 * chance - saved, atol=1e-12)
    spent = cost_of_passing(chance, proba, cuts, temperature, costs, (0.0, 2.0))
    np.testing.assert_allclose(negative * scale, spent, atol=1e-12)


def test_gain_of_unlabelled_rows_by_hand():
    # One labelled row of each kind; the last stage calls the first two unlabelled rows positive.
    signal = signal_of([1, 0], [0.999999, 0.000001], costs=[0.5])
    strategy = GainFeedback(temperature=1e-2, error_costs=(10, 1))
    scale = (9.5 + 0.5) / 2
    weight = strategy.weigh_unlabeled(
        signal, np.array([[0.9], [0.9], [0.1]]), np.array([1, 0, 0.3])
    )
    expected = np.array([[0.5, 10.0], [1.5, 0.0], [0.5, 0.0]]) / scale
    np.testing.assert_allclose(weight, expected, atol=1e-9)


def random_signal(rng, n_later=1, **params):
    positive = np.arange(40) % 3 == 0
    return signal_of(positive, *rng.uniform(0.02, 0.98, (n_later, 40)), **params)


def test_caught_unlabelled_rows_weigh_what_labelled_ones_of_their_score_would():
    rng = np.random.default_rng(0)
    signal = random_signal(rng, weight=rng.uniform(0.5, 2, 40), catch_threshold=0.3)
    for strategy in (CaughtFeedback(), CaughtFeedback(0.3, 2.0)):
        _, known = strategy.weigh(signal)
        for p in (0.0, 0.2, 1.0):
            guess = strategy.weigh_unlabeled(signal, signal.later_proba, np.full(40, p))
            np.testing.assert_allclose(guess[:, 0], 1 - p)
            np.testing.assert_allclose(
                guess[signal.positive, 1], p * known[signal.positive], atol=1e-15
            )
    # Worked by hand: labelled positives are caught with .8 and .2, so by 1/2 on the mean.
    signal = signal_of([1, 1, 0], [0.8, 0.2, 0.1])
    guess = CaughtFeedback().weigh_unlabeled(signal, np.array([[0.6]]), np.array([0.25]))
    np.testing.assert_allclose(guess, [[0.75, 0.25 * 0.6 / 0.5]])


@pytest.mark.parametrize("strategy", [CaughtFeedback, GainFeedback])
def test_strength_mixes_the_chances_with_feedback(strategy):
    rng = np.random.default_rng(0)
    signal, proba, chance = random_signal(rng), rng.uniform(size=(30, 1)), rng.uniform(size=30)
    full, part, none = (
        strategy(strength=s).weigh_unlabeled(signal, proba, chance) for s in (1.0, 0.25, 0.0)
    )
    np.testing.assert_allclose(none, np.column_stack([1 - chance, chance]))
    np.testing.assert_allclose(part, 0.75 * none + 0.25 * full)


@pytest.mark.parametrize("strategy", ["caught", "gain", CaughtFeedback(0.5), GainFeedback(0.5)])
@pytest.mark.parametrize("n_later", [1, 3])
def test_no_unlabelled_row_changes_what_another_weighs(strategy, n_later):
    rng = np.random.default_rng(0)
    signal = random_signal(rng, n_later)
    proba, chance = rng.uniform(size=(20, n_later)), rng.uniform(size=20)
    together = guesses_for(strategy, signal, proba, chance)
    assert together.shape == (20, 2) and (together >= 0).all()
    alone = [guesses_for(strategy, signal, proba[[i]], chance[[i]])[0] for i in range(20)]
    np.testing.assert_allclose(together, alone)
    assert guesses_for(strategy, signal, proba[:0], chance[:0]).shape == (0, 2)


@pytest.mark.parametrize("strategy", [CaughtFeedback(), GainFeedback()])
@pytest.mark.parametrize("catch_threshold", [0.0, 0.5, 1.0])
def test_extreme_scores_of_unlabelled_rows_give_finite_weights(strategy, catch_threshold):
    signal = signal_of([1, 1, 0, 0], [0.0, 1.0, 1.0, 0.0], catch_threshold=catch_threshold)
    proba = np.array([[0.0], [1.0], [0.0], [1.0]])
    guess = strategy.weigh_unlabeled(signal, proba, np.array([0.0, 0.0, 1.0, 1.0]))
    assert np.isfinite(guess).all() and (guess >= 0).all()


def test_a_callable_sees_labelled_rows_then_unlabelled_ones_as_either_class():
    signal = signal_of([1, 0], [0.9, 0.2], [0.7, 0.1], catch_threshold=0.4)
    proba, chance = np.array([[0.3, 0.6], [0.5, 0.8], [0.1, 0.0]]), np.array([0.0, 0.25, 1.0])
    seen = {}

    def weigh(positive, later_proba, catch_threshold):
        seen.update(positive=positive, later=later_proba, cut=catch_threshold)
        return np.arange(8.0)

    guess = guesses_for(weigh, signal, proba, chance)
    np.testing.assert_array_equal(seen["positive"], [1, 0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(seen["later"], np.vstack([signal.later_proba, proba, proba]))
    assert seen["cut"] == 0.4
    np.testing.assert_array_equal(guess, [[2.0, 0.0], [3 * 0.75, 6 * 0.25], [0.0, 7.0]])


@pytest.mark.parametrize(
    "weights, match",
    [
        (np.ones(2), r"shape \(6,\); got shape \(2,\)"),
        (np.array([1, 1, 1, 1, 1, -1.0]), "finite weights >= 0"),
        (np.array([1, 1, 1, 1, 1, np.nan]), "finite weights >= 0"),
    ],
)
def test_a_callables_weights_of_unlabelled_rows_are_checked(weights, match):
    signal = signal_of([1, 0], [0.9, 0.2])
    with pytest.raises(ValueError, match=match):
        guesses_for(lambda *_: weights, signal, np.array([[0.5], [0.6]]), np.array([0.1, 0.2]))


def test_a_strategy_must_say_how_unlabelled_rows_count():
    class OnlyWeighs:
        def weigh(self, signal):
            return signal.positive, np.ones(signal.positive.size)

    check_feedback(OnlyWeighs())
    check_feedback(AutoFeedback(candidates=[OnlyWeighs()]))
    for feedback in (OnlyWeighs(), AutoFeedback(candidates=["caught", OnlyWeighs()])):
        with pytest.raises(ValueError, match="it needs a method weigh_unlabeled"):
            check_feedback(feedback, unlabeled=True)
    for feedback in ("none", "auto", "caught", CaughtFeedback(), AutoFeedback(), lambda *_: 1):
        check_feedback(feedback, unlabeled=True)


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
        (GainFeedback(temperature=0), r"temperature must be a number in \(0, inf\); got 0"),
        (
            CaughtFeedback(unlabeled_weight=-1),
            r"unlabeled_weight must be a number in \[0, inf\); got -1",
        ),
        (GainFeedback(unlabeled_weight=np.inf), r"unlabeled_weight must be a number in \[0, inf\)"),
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
