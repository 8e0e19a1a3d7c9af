"""The answer to one row of two classes in plain numbers, where NumPy's calls would cost the most.

The same arithmetic as in `skmsc._maps` and `skmsc._answers`, which are for arrays; a test holds the
two together.
"""

from bisect import bisect_right
from math import exp, inf, log

from skmsc._maps import Sigmoid, Temperature


def answer_of_one(calibration, cuts, keeps, other_top, other_limit):
    """A function of the two scores of a row: the positive probability that a stage answers.

    Parameters
    ----------
    calibration : Calibration, Temperature or None
        The stage's map.
    cuts : sequence of 2 floats
        Its thresholds.
    keeps : bool
        Whether its calibrated probabilities are its answers as they are.
    other_top, other_limit : sequences of 2 floats
        As `skmsc._answers.Answers` has them for the stage.

    Returns
    -------
    answer : callable
        ``answer(score_0, score_1) -> probability of class 1``.
    """
    calibrated = _map_of_one(calibration)
    if keeps:
        return calibrated

    def answer(p0, p1):
        proba = calibrated(p0, p1)
        reached_0, reached_1 = p0 >= cuts[0], p1 >= cuts[1]
        code = 1 if reached_1 and (not reached_0 or p1 > p0) else 0
        other = 1.0 - proba if code else proba
        other = _below(other, other_top[code], other_limit[code])
        return 1.0 - other if code else other

    return answer


def _below(proba, top, limit):
    """As `skmsc._answers.below`."""
    half = limit / 2
    if top < limit or proba <= half:
        return proba
    return half + (proba - half) * (half - 2e-9 * limit) / max(top - half, half)


def _map_of_one(calibration):
    """A calibration as a function of two scores that gives the probability of class 1."""
    if calibration is None:
        return lambda p0, p1: p1
    if isinstance(calibration, Temperature):
        slope, limit = calibration.slope, calibration.limit

        def temperature(p0, p1):
            odds = slope * (_held_log(p1, limit) - _held_log(p0, limit))
            return _expit(odds)

        return temperature
    (one,) = calibration.maps
    from_decisions, of_score = calibration.from_decisions, _map_of_score(one)

    def calibrated(p0, p1):
        return of_score(p1 if from_decisions else _log_odds(p0, p1))

    return calibrated


def _map_of_score(one):
    """A map as a function of a score."""
    if isinstance(one, Sigmoid):
        slope, intercept, limit = one.slope, one.intercept, one.limit

        def sigmoid(score):
            if not -limit <= score <= limit:
                inner = min(max(score, -limit), limit)
                score = inner + 1e-6 * (min(max(score, -1e3), 1e3) - inner)
            return _expit(slope * score + intercept)

        return sigmoid
    scores, probas = one.score.tolist(), one.proba.tolist()

    def steps(score):
        j = bisect_right(scores, score)
        if j == 0 or j == len(scores):
            return probas[min(j, len(scores) - 1)]
        share = (score - scores[j - 1]) / (scores[j] - scores[j - 1])
        return probas[j - 1] + share * (probas[j] - probas[j - 1])

    return steps


def _log_odds(p0, p1):
    if p0 <= 0.0:
        return inf
    odds = p1 / p0
    return log(odds) if odds > 0.0 else -inf


def _held_log(proba, limit):
    held = max(log(proba), -1e3) if proba > 0.0 else -1e3
    return max(held, 1e-6 * held - limit * (1 - 1e-6))


def _expit(odds):
    return 1.0 / (1.0 + exp(-odds)) if odds > -700.0 else exp(max(odds, -745.0))
