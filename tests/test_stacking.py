"""Stages that recall what the stages before them said."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.metrics import log_loss

from skmsc.stacking import as_stack_logs, fit_stack, stack_logs, stacked


def stages(seed, n_classes=3, n_samples=300, n_stages=3):
    """Probabilities of stages that each know something of their own, labels and weights."""
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(n_classes), rng.integers(n_classes, size=n_samples - n_classes)]
    logits = rng.normal(size=(n_samples, n_stages, n_classes))
    logits[np.arange(n_samples), :, y] += np.linspace(0.6, 1.2, n_stages)
    return softmax(logits, axis=2), y, rng.random(n_samples) + 0.5


def geometric(proba, weights):
    """Weighted geometric mean of probabilities (n, k, C), normalised."""
    mean = np.prod(proba ** np.reshape(weights, (1, -1, 1)), axis=1)
    return mean / mean.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_the_combination_is_a_geometric_mean(n_classes):
    proba, *_ = stages(0, n_classes)
    weights = np.array([-0.2, 0.5, 0.9])
    got = stacked(weights, list(np.moveaxis(stack_logs(proba), 1, 0)))
    np.testing.assert_allclose(got, geometric(proba, weights), rtol=1e-6)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_weights_are_the_most_likely_under_the_prior(seed, n_classes):
    proba, y, weight = stages(seed, n_classes)

    def penalised(weights):
        loss = log_loss(y, geometric(proba, weights), sample_weight=weight)
        return weight.sum() * loss + 10 * ((weights - [0, 0, 1]) ** 2).sum()

    best = minimize(penalised, [0.0, 0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-7})
    got = fit_stack(proba, y, weight)
    np.testing.assert_allclose(got[2], best.x, atol=2e-4)
    np.testing.assert_array_equal(got[0], [1, 0, 0])
    assert got[1, 2] == 0


def test_recalling_helps_where_stages_know_different_things():
    proba, y, weight = stages(0, n_samples=2000)
    new, y_new, _ = stages(1, n_samples=2000)
    weights = fit_stack(proba, y, weight)
    got = stacked(weights[2], list(np.moveaxis(stack_logs(new), 1, 0)))
    assert log_loss(y_new, got) < log_loss(y_new, new[:, 2]) - 0.05


def test_few_rows_change_little():
    proba, y, weight = stages(0, n_samples=3)
    assert np.abs(fit_stack(proba, y, weight) - np.eye(3)).max() < 0.2


def test_a_weight_of_two_is_the_row_twice():
    proba, y, _ = stages(0, n_samples=80)
    times = np.random.default_rng(0).integers(1, 4, 80)
    weighted = fit_stack(proba, y, times.astype(float))
    repeated = fit_stack(proba.repeat(times, axis=0), y.repeat(times), np.ones(times.sum()))
    np.testing.assert_allclose(weighted, repeated, atol=1e-5)
    assert np.abs(weighted - fit_stack(proba, y, np.ones(80))).max() > 1e-3


def test_scores_of_0_do_not_drown_the_others():
    logs = stack_logs(np.array([[1.0, 0.0], [0.7, 0.3]]))
    assert np.isfinite(logs).all() and logs.min() > -15
    got = stacked(np.array([0.1, 1.0]), [logs[:1], logs[1:]])
    assert 0.7 < got[0, 0] < 0.95


def test_what_is_held_back_keeps_its_order():
    proba = 10.0 ** -np.arange(1, 40.0)
    logs = stack_logs(np.stack([1 - proba, proba], axis=1))[:, 1]
    assert (np.diff(logs) < 0).all()
    np.testing.assert_allclose(logs[:6], np.log(proba[:6] / (1 - proba[:6])))


def test_logs_give_what_probabilities_give():
    proba, *_ = stages(0)
    shift = np.random.default_rng(0).normal(size=(*proba.shape[:2], 1))
    np.testing.assert_allclose(as_stack_logs(np.log(proba) + shift), stack_logs(proba), atol=1e-12)


def test_extreme_weights_do_not_overflow():
    logs = stack_logs(np.array([[1 - 1e-9, 1e-9], [1e-9, 1 - 1e-9]]))
    got = stacked(np.array([-300.0, 300.0]), [logs, logs[::-1].copy()])
    np.testing.assert_allclose(got, [[0, 1], [1, 0]], atol=1e-12)
