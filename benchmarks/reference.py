"""A cascade by hand, in NumPy and scikit-learn only: the independent check of ours.

Nothing here imports skmsc. Scores are positive-class probabilities of shape (n_samples,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binom
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

N_FOLDS = 5


def fit(model, X, y, weight=None):
    """Fit a clone; in a pipeline every step that takes weights gets them."""
    model = clone(model)
    if weight is None:
        return model.fit(X, y)
    if not isinstance(model, Pipeline):
        return model.fit(X, y, sample_weight=weight)
    names = [name for name, step in model.steps if has_fit_parameter(step, "sample_weight")]
    return model.fit(X, y, **{f"{name}__sample_weight": weight for name in names})


def out_of_fold(model, X, y, weight=None, *, cv=N_FOLDS):
    """Positive-class score of each row by a model that did not see it."""
    score = np.empty(len(y))
    for train, test in check_cv(cv, y, classifier=True).split(X, y):
        fitted = fit(model, X[train], y[train], None if weight is None else weight[train])
        score[test] = fitted.predict_proba(X[test])[:, 1]
    return score


def pass_cut(score, max_pass_rate, weight=None):
    """The lowest cut with ``score > cut`` for at most `max_pass_rate` of the (weighted) rows.

    Midway between neighbouring distinct scores; rows that tie at the cut do not pass, so that
    the budget is kept.
    """
    weight = np.ones(len(score)) if weight is None else weight
    order = np.argsort(-score, kind="stable")
    score, share = score[order], np.cumsum(weight[order]) / weight.sum()
    last_of_ties = np.flatnonzero(score[1:] != score[:-1])
    affordable = last_of_ties[share[last_of_ties] <= max_pass_rate * (1 + 1e-12)]
    if len(affordable) == 0:
        return float(score[0])
    last = affordable[-1]
    return float((score[last] + score[last + 1]) / 2)


@dataclass
class HandCascade:
    """Two fitted stages and a cut on the first one's score."""

    screen: Any
    last: Any
    cut: float

    def predict_proba(self, X):
        """Screen all rows, then overwrite those that pass."""
        proba = self.screen.predict_proba(X)
        passed = proba[:, 1] > self.cut
        if passed.any():
            proba[passed] = self.last.predict_proba(X[passed])
        return proba


def fit_hand_cascade(screen, last, X, y, *, max_pass_rate, cv=N_FOLDS):
    """What a user would write: both stages scored out-of-fold, then fitted on all rows.

    The last stage's out-of-fold scores are what feedback, catch threshold and calibration need.
    """
    screen_score = out_of_fold(screen, X, y, cv=cv)
    last_score = out_of_fold(last, X, y, cv=cv)
    return HandCascade(
        fit(screen, X, y), fit(last, X, y), pass_cut(screen_score, max_pass_rate)
    ), last_score


# --- feedback: the weights of stage 1, from the later stage's scores on its training rows ------
def soft_flags(later_score, cut, temperature):
    """q: how nearly the later stage flags a row; a step at `cut` as the temperature falls to 0."""
    clipped = np.clip(later_score, 1e-15, 1 - 1e-15)
    margin = np.log(clipped / (1 - clipped)) - np.log(cut / (1 - cut))
    return 1 / (1 + np.exp(-margin / temperature))


def caught_feedback(y, later_score, cut, *, temperature):
    """True labels; a positive counts as much as the later stage flags it, negatives alike.

    Returns the target and the weight of each row; weights have mean 1 in each class.
    """
    weight = np.ones(len(y))
    positive = y == 1
    q = soft_flags(later_score[positive], cut, temperature)
    weight[positive] = q / q.mean()
    return y, weight


def gain_feedback(y, later_score, cut, *, temperature, error_costs, later_cost):
    """Target: passing the row pays; weight: what it pays or costs, with mean 1.

    With q for the flag of the later stage, passing a row gains
    ``D = C_FN y q - C_FP (1 - y) q - later_cost`` over rejecting it. A mean of 1 keeps the sum of
    the weights, and so what the penalty of a regularised stage means.
    """
    false_negative_cost, false_positive_cost = error_costs
    q = soft_flags(later_score, cut, temperature)
    gain = q * np.where(y == 1, false_negative_cost, -false_positive_cost) - later_cost
    weight = np.abs(gain)
    return (gain > 0).astype(int), weight / weight.mean()


# --- feedback: rows without a label, each learned as a positive and as a negative --------------
def chance_of_positive(later_score, y, pool_later_score):
    """Chance that each unlabelled row is positive: Platt's sigmoid on the log-odds of its score.

    Fitted on the labelled rows, which the later stage has not seen, with his smoothed targets: a
    row counts as a positive with its target as the weight, and as a negative with the rest.
    Log-odds beyond what so many rows could tell are clipped. Where the labelled positives have the
    lower scores, all rows get the same chance: the order of the scores is never reversed.
    """
    limit = np.log(2 * len(y))

    def log_odds(score):
        with np.errstate(divide="ignore"):
            return np.clip(np.log(score / (1 - score)), -limit, limit)[:, None]

    n_positive, n_negative = (y == 1).sum(), (y == 0).sum()
    target = np.where(y == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    platt = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.concatenate([log_odds(later_score)] * 2),
        np.repeat([1, 0], len(y)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    if platt.coef_[0, 0] <= 0:
        return np.full(len(pool_later_score), target.mean())
    return platt.predict_proba(log_odds(pool_later_score))[:, 1]


def corrected_for_prior(chance, prior, n_rounds=200):
    """Chances that fit their own prior, by the EM of Saerens, Latinne and Decaestecker (2002).

    `prior` is the share of positives where the chances were learned; that of the pool is found by
    turns with the chances corrected for it.
    """
    own, corrected = prior, chance
    for _ in range(n_rounds):
        own = corrected.mean()
        as_positive = chance * own / prior
        as_negative = (1 - chance) * (1 - own) / (1 - prior)
        corrected = as_positive / (as_positive + as_negative)
    return corrected


def caught_pool(y, later_score, cut, pool_later_score, chance, *, temperature):
    """Weights of the pool's rows as negatives and as positives: expectations of `caught_feedback`.

    A row that would be a positive weighs as a labelled positive of its flag does.
    """
    scale = soft_flags(later_score[y == 1], cut, temperature).mean()
    return 1 - chance, chance * soft_flags(pool_later_score, cut, temperature) / scale


def gain_pool(
    y, later_score, cut, pool_later_score, chance, *, temperature, error_costs, later_cost
):
    """Weights of the pool's rows as negatives and as positives, in the unit of `gain_feedback`.

    With p for the chance, passing a row gains ``C_FN p q`` and loses ``C_FP (1 - p) q +
    later_cost`` on the mean; the first is its weight as a positive, the second as a negative.
    """
    false_negative_cost, false_positive_cost = error_costs
    known = soft_flags(later_score, cut, temperature)
    gain = known * np.where(y == 1, false_negative_cost, -false_positive_cost) - later_cost
    scale = np.abs(gain).mean()
    q = soft_flags(pool_later_score, cut, temperature)
    as_negative = false_positive_cost * (1 - chance) * q + later_cost
    return as_negative / scale, false_negative_cost * chance * q / scale


def most_lost(n, share, error):
    """Losses of n rows that prove a chance of loss of at most `share`; -1 where not even none does.

    They prove it when so few had a chance of at most `error` if more were lost: the exact binomial
    test.
    """
    return int((binom.cdf(np.arange(n), n, share) <= error).sum()) - 1


def fixed_sequence(n_lost, n, share, error):
    """Learn then Test: the last of settings, from safe to fast, that passed; -1 where none did.

    `n_lost` has the losses of n rows at each. The walk ends at the first setting that fails its
    test, so that the chance that any passes wrongly is that of the first bad one.
    """
    failed = np.flatnonzero(binom.cdf(n_lost, n, share) > error)
    return (failed[0] if failed.size else len(n_lost)) - 1
