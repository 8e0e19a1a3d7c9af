"""Stages that answer with what the stages before them said, too.

A stage's own probabilities p_k and those of the stages before it are combined in a weighted
geometric mean, ``softmax(sum_j w_kj log p_j)`` over j <= k: every stage that ran on a row has
told something about it, and none of it costs another pass.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from skmsc._maps import hold_back

__all__ = []  # for the package's own use

# No class falls much farther behind the likeliest: else a kNN's 0 would drown all others.
_LIMIT = 14.0
# Precision of the normal prior on weights around those of a stage by itself.
_PRIOR = 20.0


def fit_stack(stage_proba, y, sample_weight):
    """Weights of the stages' log-probabilities, on rows that no stage was fitted on.

    By maximum likelihood, with a prior that holds each stage near its own answer: sd .22 around
    weight 1 for its own and 0 for the others. Stage 0 has nothing to combine and stays as it is.

    Parameters
    ----------
    stage_proba : ndarray of shape (n_samples, n_stages, n_classes)
        Probabilities of every stage.
    y : ndarray of shape (n_samples,)
        Class codes.
    sample_weight : ndarray of shape (n_samples,)
        Weights; their sum counts as the number of rows.

    Returns
    -------
    weights : ndarray of shape (n_stages, n_stages)
        Row k has the weights of stage k's answer; 0 above the diagonal.

    References
    ----------
    M. Wolczyk et al. Zero time waste: recycling predictions in early exit neural networks. NeurIPS
    2021, arXiv 2106.05409. There weights differ by class and are found by gradient descent on the
    training rows.
    """
    n_stages, logs = stage_proba.shape[1], stack_logs(stage_proba)
    weights = np.eye(n_stages)
    for k in range(1, n_stages):
        weights[k, : k + 1] = _most_likely(logs[:, : k + 1], y, sample_weight)
    return weights


def stack_logs(proba):
    """Log-probabilities as they are combined, a new array of the shape of the probabilities.

    They are those of the likeliest class behind, as the others' answers do not depend on a factor.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(proba, order="F" if proba.ndim == 2 else "K")  # works class by class
    return as_stack_logs(np.maximum(logs, -1e3, out=logs))  # -inf has no order


def as_stack_logs(logs):
    """The same from log-probabilities up to a number for each row, which are overwritten."""
    logs -= logs.max(axis=-1, keepdims=True)
    return hold_back(logs, _LIMIT)


def stacked(weights, logs):
    """Probabilities (n, n_classes) of stage k from the log-probabilities of stages 0 to k.

    Parameters
    ----------
    weights : ndarray of shape (k + 1,)
        Their weights.
    logs : sequence of k + 1 ndarrays of shape (n, n_classes)
        What `stack_logs` makes of their probabilities.
    """
    import torch  # whose exp is fast without AVX-512, too, and which adds multiples in one pass

    total = torch.from_numpy(weights[0] * logs[0].T)
    for weight, log in zip(weights[1:].tolist(), logs[1:], strict=True):
        total.add_(torch.from_numpy(log.T), alpha=weight)
    return torch.softmax(total, dim=0).numpy().T


def stack_all(weights, stage_proba):
    """What all stages answer, of the shape of their own probabilities.

    Both are as in `fit_stack`.
    """
    logs = list(np.moveaxis(stack_logs(stage_proba), 1, 0))
    answers = [stacked(weights[k, : k + 1], logs[: k + 1]) for k in range(1, len(logs))]
    return np.stack([stage_proba[:, 0], *answers], axis=1)


def _most_likely(logs, y, sample_weight):
    """Weights of shape (k + 1,) from log-probabilities of shape (n_samples, k + 1, n_classes)."""
    n_parts = logs.shape[1]
    alone = np.eye(n_parts)[-1]
    own = logs[np.arange(y.size), :, y]

    def loss(weights):
        total = np.einsum("njc,j->nc", logs, weights)
        norm = logsumexp(total, axis=1)
        expected = np.einsum("njc,nc->nj", logs, np.exp(total - norm[:, None]))
        away = weights - alone
        value = sample_weight @ (norm - own @ weights) + _PRIOR / 2 * away @ away
        return value, sample_weight @ (expected - own) + _PRIOR * away

    return minimize(loss, alone, jac=True, method="L-BFGS-B").x
