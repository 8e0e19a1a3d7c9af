"""Monotone maps from scores to probabilities, fitted on scores of rows that the scorer never saw.

Two uses: a classifier without `predict_proba` gets probabilities from its decision values, and the
answers of different stages are made comparable before they are mixed in one `predict_proba`.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

__all__ = []  # for the package's own use

METHODS = ("sigmoid", "isotonic", None)


@dataclass(frozen=True)
class _Sigmoid:
    """``expit(slope * score + intercept)`` with a positive slope."""

    slope: float
    intercept: float

    def __call__(self, score):
        return expit(self.slope * score + self.intercept)


@dataclass(frozen=True)
class _Steps:
    """Linear interpolation between the knots of an isotonic regression."""

    score: np.ndarray
    proba: np.ndarray

    def __call__(self, score):
        return np.interp(score, self.score, self.proba)


@dataclass(frozen=True)
class Calibration:
    """A fitted map of scores of shape (n_samples, n_classes) to probabilities of the same shape.

    Built by `fit_calibration`. For two classes one map acts on the second column; for more, each
    class has a map of its own against the rest and the rows are normalised to sum to 1.
    """

    maps: tuple
    from_decisions: bool

    def __call__(self, scores):
        score = _per_class_score(scores, self.from_decisions)
        if len(self.maps) == 1:
            positive = self.maps[0](score[:, 0])
            return np.column_stack([1.0 - positive, positive])
        proba = np.column_stack([f(score[:, c]) for c, f in enumerate(self.maps)])
        total = proba.sum(axis=1, keepdims=True)
        proba[total[:, 0] == 0] = 1.0
        return proba / np.where(total == 0, len(self.maps), total)


def fit_calibration(method, scores, y, sample_weight, *, from_decisions=False):
    """Fit a map from scores to probabilities.

    Parameters
    ----------
    method : {"sigmoid", "isotonic", None}
        "sigmoid" fits slope and intercept on the log-odds of a probability (or on the decision
        value itself) by maximum likelihood with Platt's smoothed targets; a slope that comes out
        negative, which happens when scores carry no signal, is replaced by 1, so that the order
        of the scores is never reversed. "isotonic" fits a step function. None changes nothing.
    scores : ndarray of shape (n_samples, n_classes)
        Probabilities, or decision values, of rows that the scorer was not fitted on.
    y : ndarray of shape (n_samples,)
        Class codes, 0 to n_classes - 1.
    sample_weight : ndarray of shape (n_samples,)
        Weights; a weight of 2 counts as two rows.
    from_decisions : bool, default=False
        Whether `scores` are decision values (any real number) rather than probabilities.

    Returns
    -------
    calibration : Calibration or None
        None for `method` None.

    References
    ----------
    J. Platt. Probabilistic outputs for support vector machines. Advances in Large Margin
    Classifiers, 1999. There the sigmoid acts on decision values; for probabilities ours acts on
    log-odds, so that a calibrated score stays as it is (slope 1, intercept 0).
    """
    if method is None:
        return None
    fit_one = _fit_sigmoid if method == "sigmoid" else _fit_steps
    score = _per_class_score(scores, from_decisions)
    labels = [1] if score.shape[1] == 1 else range(score.shape[1])
    maps = tuple(fit_one(score[:, c], y == label, sample_weight) for c, label in enumerate(labels))
    return Calibration(maps, from_decisions)


def _per_class_score(scores, from_decisions):
    """Real-valued scores, one column per map: one for two classes, else n_classes."""
    if scores.shape[1] == 2:
        if from_decisions:
            return scores[:, 1:]
        with np.errstate(divide="ignore"):  # log(0) is -inf, and expit(-inf) is 0, as wanted
            return (np.log(scores[:, 1]) - np.log(scores[:, 0]))[:, None]
    return scores if from_decisions else logit(scores)


def _fit_sigmoid(score, target, weight):
    """Slope and intercept by weighted maximum likelihood on Platt's smoothed targets."""
    from sklearn.linear_model import LogisticRegression

    n_pos, n_neg = weight[target].sum(), weight[~target].sum()
    # Infinite log-odds (a forest's 0) would pull the slope to 0: in the fit, and only there, a
    # score counts as no more extreme than what this many rows could tell.
    finite = score[np.isfinite(score)]
    limit = max(np.log(2.0 * (n_pos + n_neg)), np.abs(finite).max(initial=1.0))
    score = np.clip(score, -limit, limit)
    smooth = np.where(target, (n_pos + 1.0) / (n_pos + 2.0), 1.0 / (n_neg + 2.0))
    if np.ptp(score) > 1e-12 * limit:
        # A row with target t is a positive of weight t and a negative of weight 1 - t.
        regression = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
        regression.fit(
            np.tile(score, 2)[:, None],
            np.repeat([1, 0], score.size),
            sample_weight=np.concatenate([weight * smooth, weight * (1.0 - smooth)]),
        )
        slope, intercept = regression.coef_[0, 0], regression.intercept_[0]
        if slope > 0:
            return _Sigmoid(float(slope), float(intercept))
    # No usable slope: shift the log-odds so that their mean is that of the smoothed targets.
    mean = np.average(smooth, weights=weight)
    return _Sigmoid(1.0, float(logit(mean) - np.average(score, weights=weight)))


def _fit_steps(score, target, weight):
    """Isotonic regression of the target on the score."""
    from sklearn.isotonic import IsotonicRegression

    limit = 1 + 2 * np.abs(score[np.isfinite(score)]).max(initial=1.0)
    score = np.clip(score, -limit, limit)  # interpolation needs finite knots
    regression = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    regression.fit(score, target.astype(np.float64), sample_weight=weight)
    return _Steps(regression.X_thresholds_, regression.y_thresholds_)
