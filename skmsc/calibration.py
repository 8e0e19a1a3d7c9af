"""Monotone maps from scores to probabilities, fitted on scores of rows that the scorer never saw.

Two uses: a classifier without `predict_proba` gets probabilities from its decision values, and the
answers of different stages are made comparable before they are mixed in one `predict_proba`.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, logsumexp

from skmsc._acting import eager_stage
from skmsc._checks import check_choice
from skmsc._maps import Calibration, Sigmoid, Steps, Temperature, class_score, held_back, log_proba

__all__ = []  # for the package's own use

METHODS = ("sigmoid", "isotonic", "temperature", None)


def check_calibration(method):
    """Raise unless this is one of `METHODS`."""
    check_choice("calibration", method, METHODS)


def _fit_temperature(scores, y, weight):
    """Slope by weighted maximum likelihood, with a prior that holds it near 1."""
    limit = np.log(2.0 * weight.sum())  # as in `_fit_sigmoid`
    logs = log_proba(scores, limit)
    own = logs[np.arange(y.size), y]

    def loss(log_slope):
        slope = np.exp(log_slope)
        likelihood = weight @ (logsumexp(slope * logs, axis=1) - slope * own)
        # A prior with sd 1/2: else rows that are all right would make all answers certain.
        return likelihood + 2.0 * log_slope**2

    best = minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded", options={"xatol": 1e-8})
    return Temperature(float(np.exp(best.x)), float(limit))


def fit_calibration(method, scores, y, sample_weight, *, from_decisions=False):
    """Fit a map from scores to probabilities.

    Parameters
    ----------
    method : {"sigmoid", "isotonic", "temperature", None}
        "sigmoid" fits slope and intercept on the log-odds of a probability (or on the decision
        value itself) by maximum likelihood with Platt's smoothed targets; a slope that comes out
        negative, which happens when scores carry no signal, is replaced by a trace, so that the
        order of the scores is never reversed. "isotonic" fits steps and interpolates between
        their centres, so that rows of one step keep their order. "temperature", for probabilities
        only, fits one factor of their logarithms, near 1 where rows are few, which keeps the
        likeliest class. None changes nothing.
    scores : ndarray of shape (n_samples, n_classes)
        Probabilities, or decision values, of rows that the scorer was not fitted on.
    y : ndarray of shape (n_samples,)
        Class codes, 0 to n_classes - 1.
    sample_weight : ndarray of shape (n_samples,)
        Weights; a weight of 2 counts as two rows. Weights with a mean below 1 are taken as
        relative ones and scaled to a mean of 1.
    from_decisions : bool, default=False
        Whether `scores` are decision values (any real number) rather than probabilities.

    Returns
    -------
    calibration : Calibration, Temperature or None
        None for `method` None.

    References
    ----------
    J. Platt. Probabilistic outputs for support vector machines. Advances in Large Margin
    Classifiers, 1999. There the sigmoid acts on decision values; for probabilities ours acts on
    log-odds, so that a calibrated score stays as it is (slope 1, intercept 0).
    A. P. Oron, N. Flournoy. Centered isotonic regression. Statistics in Biopharmaceutical Research
    9, 2017, DOI 10.1080/19466315.2017.1286256.
    C. Guo et al. On calibration of modern neural networks. ICML 2017, arXiv 1706.04599: the
    temperature.
    """
    if method is None:
        return None
    sample_weight = sample_weight * max(1.0, len(sample_weight) / sample_weight.sum())
    if method == "temperature":
        return _fit_temperature(scores, y, sample_weight)
    fit_one = _fit_sigmoid if method == "sigmoid" else _fit_steps
    codes = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    maps = tuple(
        fit_one(class_score(scores, c, from_decisions), y == c, sample_weight, not from_decisions)
        for c in codes
    )
    return Calibration(maps, from_decisions)


def fit_calibrations(method, seen, thresholds, of_all=None):
    """One map for each stage, fitted on the scores of the rows that reach it.

    `seen` are `StageScores` of rows that the stages were not fitted on. Among those that reach a
    stage its score means more than among all rows: a forest's 0 is less certain for a row that the
    screen found suspicious. `of_all`, a dict by stage, keeps the maps fitted on all rows, as that
    of stage 0 always is, for other thresholds.
    """
    of_all = {} if of_all is None else of_all
    stage, calibrations = eager_stage(seen.acting, thresholds), []
    for k in range(seen.n_stages):
        known = ~np.isnan(seen.stage_proba[:, k, 0])
        rows = known & (stage >= k)
        if np.unique(seen.y[rows]).size < np.unique(seen.y).size:
            rows = known
        takes_all = np.array_equal(rows, known)
        if not (takes_all and k in of_all):
            calibration = fit_calibration(
                method, seen.stage_proba[rows, k], seen.y[rows], seen.sample_weight[rows]
            )
            if takes_all:
                of_all[k] = calibration
        calibrations.append(of_all[k] if takes_all else calibration)
    return calibrations


def _fit_sigmoid(score, target, weight, bounded):
    """Slope and intercept by weighted maximum likelihood on Platt's smoothed targets."""
    n_pos, n_neg = weight[target].sum(), weight[~target].sum()
    limit = np.inf
    if bounded:
        # Log-odds count as no more extreme than what this many rows could tell: else a few rows
        # that a booster is sure of and wrong about, or a forest's 0, would flatten the slope.
        limit = np.log(2.0 * (n_pos + n_neg))
    score = held_back(score, limit)
    smooth = np.where(target, (n_pos + 1.0) / (n_pos + 2.0), 1.0 / (n_neg + 2.0))
    mean, spread = np.average(score, weights=weight), np.ptp(score)
    share = logit(np.average(smooth, weights=weight))
    if spread > 1e-12 * np.abs(score).max():
        slope, intercept = _most_likely((score - mean) / spread, smooth, weight, share)
        if slope > 0:
            slope /= spread
            return Sigmoid(float(slope), float(intercept - slope * mean), float(limit))
    # No usable slope: under slope >= 0 the likelihood is highest at 0. A trace of slope keeps the
    # order of the scores.
    slope = 1e-6 / max(spread, 1.0)
    return Sigmoid(float(slope), float(share - slope * mean), float(limit))


def _most_likely(score, target, weight, intercept):
    """Slope and intercept of the logistic model of targets in (0, 1), starting from slope 0.

    Newton's method with steps halved until they help; it does not mind how the score is scaled.
    """
    weight, theta = weight / weight.sum(), np.array([0.0, intercept])

    def loss(theta):
        z = theta[0] * score + theta[1]
        return weight @ (np.logaddexp(0, z) - target * z)

    for _ in range(100):
        p = expit(theta[0] * score + theta[1])
        off = weight * (p - target)
        curve = weight * p * (1.0 - p)
        bent = curve * score
        gradient = np.array([off @ score, off.sum()])
        hessian = np.array([[bent @ score, bent.sum()], [bent.sum(), curve.sum()]])
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:  # scores that differ by rows of next to no weight
            break
        gain = gradient @ step  # twice what the step should win; below 1e-8 it is sure to
        if gain > 1e-8:
            before = loss(theta)
            while loss(theta - step) > before - 0.25 * gain and gain > 1e-12:
                step, gain = step / 2, gain / 2
        theta = theta - step
        if gain < 1e-24:
            break
    return theta


def _fit_steps(score, target, weight, bounded):
    """Isotonic regression of the target on the score, each step a knot at its mean score."""
    from sklearn.isotonic import IsotonicRegression

    limit = 1 + 2 * np.abs(score[np.isfinite(score)]).max(initial=1.0)
    score = np.clip(score, -limit, limit)  # interpolation needs finite knots
    # "clip": scores that differ in the last bit only are merged, and the highest may fall out.
    regression = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    proba, step = np.unique(
        regression.fit_transform(score, target.astype(np.float64), sample_weight=weight),
        return_inverse=True,
    )
    centre = np.bincount(step, weight * score) / np.bincount(step, weight)
    return Steps(centre, proba)
