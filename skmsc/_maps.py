"""Fitted maps from scores to probabilities; `skmsc.calibration` fits them. NumPy only."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sigmoid:
    """``expit(slope * score + intercept)``, the score held back beyond `limit`."""

    slope: float
    intercept: float
    limit: float

    def __call__(self, score):
        """Overwrites the score, since new memory costs large arrays more than the arithmetic."""
        odds = held_back(score, self.limit)
        odds *= -self.slope
        odds -= self.intercept
        with np.errstate(over="ignore"):  # a probability below 1e-308 is 0
            np.exp(odds, out=odds)
        odds += 1.0
        return np.reciprocal(odds, out=odds)


@dataclass(frozen=True)
class Steps:
    """Linear interpolation between the knots of a centred isotonic regression."""

    score: np.ndarray
    proba: np.ndarray

    def __call__(self, score):
        return np.interp(score, self.score, self.proba)


@dataclass(frozen=True)
class Calibration:
    """A fitted map of scores of shape (n_samples, n_classes) to probabilities of that shape.

    Built by `fit_calibration`. For two classes one map acts on the second column; for more, each
    class has a map of its own against the rest and the rows are normalised to sum to 1.
    """

    maps: tuple
    from_decisions: bool

    def __call__(self, scores, overwrite=False):
        """Probabilities, written over the scores of two classes if that is allowed."""
        if len(self.maps) == 1:
            proba = scores if overwrite else np.empty((len(scores), 2))
            proba[:, 1] = self.maps[0](class_score(scores, 1, self.from_decisions))
            np.subtract(1.0, proba[:, 1], out=proba[:, 0])
            return proba
        proba = np.column_stack(
            [f(class_score(scores, c, self.from_decisions)) for c, f in enumerate(self.maps)]
        )
        total = proba.sum(axis=1, keepdims=True)
        proba[total[:, 0] == 0] = 1.0
        return proba / np.where(total == 0, len(self.maps), total)


@dataclass(frozen=True)
class Temperature:
    """``softmax(slope * log(proba))``: a map that keeps the order of the classes of a row.

    Log-probabilities are held back below `-limit`.
    """

    slope: float
    limit: float

    def __call__(self, scores, overwrite=False):
        """Probabilities of shape (n_samples, n_classes)."""
        logs = log_proba(scores, self.limit)
        logs *= self.slope
        if self.slope * self.limit > 500.0:  # else no exp vanishes
            logs -= logs.max(axis=1, keepdims=True)
        return normalised_exp(logs)


def log_proba(proba, limit):
    """Logarithms of probabilities, held back, a new array of the same shape."""
    with np.errstate(divide="ignore"):
        logs = np.log(proba)
    return hold_back(np.maximum(logs, -1e3, out=logs), limit)  # -inf has no order


def hold_back(logs, limit):
    """Log-probabilities that hardly fall below `-limit`, in their order; overwrites them."""
    floor = 1e-6 * logs
    floor -= limit * (1 - 1e-6)
    return np.maximum(logs, floor, out=logs)


def normalised_exp(logs):
    """Probabilities (n_samples, n_classes) in proportion to exp(logs), written over the logs.

    The logs must be small enough for exp; sums over few columns are quickest as a product.
    """
    np.exp(logs, out=logs)
    logs /= (logs @ np.ones(logs.shape[1]))[:, None]
    return logs


def class_score(scores, c, from_decisions):
    """New array with the real-valued score of class c: its log-odds, or its decision value."""
    if from_decisions:
        return scores[:, c].copy()
    rest = scores[:, 1 - c] if scores.shape[1] == 2 else 1.0 - scores[:, c]
    with np.errstate(divide="ignore"):  # log-odds of 0 and 1 are infinite, as wanted
        odds = scores[:, c] / rest
        return np.log(odds, out=odds)


def held_back(score, limit):
    """Scores that hardly grow beyond the limit, finite and in their order."""
    if limit == np.inf or (score.size and -limit <= score.min() and score.max() <= limit):
        return score
    inner = np.clip(score, -limit, limit)
    return inner + 1e-6 * (np.clip(score, -1e3, 1e3) - inner)


def sigmoids(odds):
    """Sigmoids of log-odds; of several in a row that round to 1 the largest odds stay the largest.

    A new array of the same shape, (n_samples, n_classes).
    """
    with np.errstate(over="ignore"):  # a probability below 1e-308 is 0
        proba = 1.0 / (1.0 + np.exp(-odds))
    many = np.flatnonzero((proba > 1 - 1e-12).sum(axis=1) > 1)
    if many.size:
        rank = np.argsort(np.argsort(-odds[many], axis=1, kind="stable"), axis=1)
        proba[many] = np.minimum(proba[many], 1.0 - np.finfo(np.float64).eps * rank)
    return proba
