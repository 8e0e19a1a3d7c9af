"""ExpectedCost: against brute force over all cuts, by hand, and with costs of each row."""

import itertools

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmsc import EarlyExitClassifier, ExpectedCost, FeedbackCascadeClassifier, PassBudget
from skmsc.neural import MultiExitNet
from skmsc.thresholds import StageScores, check_policy, eager_stage, fit_thresholds
from skmsc.thresholds import _expected_cost as module

coarse_scores = pytest.mark.filterwarnings("ignore:.*distinct scores")


def random_case(seed, n_stages=2, n_samples=14, n_values=6):
    """Scores with ties, uneven weights, costs of each row and of each stage."""
    rng = np.random.default_rng(seed)
    negative = int(rng.integers(2))
    y = rng.permutation(np.arange(n_samples) % 3 == 0).astype(int)
    noise = rng.normal(size=(n_samples, n_stages)) * np.linspace(1.5, 0.4, n_stages)
    positive = np.round(1 / (1 + np.exp(-(y[:, None] - 0.5 + noise))) * n_values) / n_values
    proba = np.stack([1 - positive, positive], axis=2)
    if negative == 1:
        proba, y = proba[:, :, ::-1], 1 - y
    return StageScores(
        stage_proba=proba,
        y=y,
        sample_weight=rng.integers(1, 4, n_samples).astype(float),
        negative=negative,
        caught=None,
        stage_costs=np.r_[1.0, rng.integers(1, 5, n_stages - 1)].cumsum(),
        stage_names=tuple(f"s{k}" for k in range(n_stages)),
        untouched=False,
        row_values={
            "false_negative_cost": rng.integers(0, 30, n_samples).astype(float),
            "false_positive_cost": rng.integers(1, 6, n_samples).astype(float),
        },
    )


def cost_of(scores, thresholds, alert_cut, stage_price):
    """Total cost, row by row, as the docstring has it."""
    total, stage = 0.0, eager_stage(scores.stage_proba, thresholds)
    for i, k in enumerate(stage):
        alert = k == scores.n_stages - 1 and (
            scores.stage_proba[i, -1, 1 - scores.negative] >= alert_cut
        )
        cost = stage_price * scores.stage_costs[: k + 1].sum()
        if scores.y[i] != scores.negative and not alert:
            cost += scores.row_values["false_negative_cost"][i]
        if scores.y[i] == scores.negative and alert:
            cost += scores.row_values["false_positive_cost"][i]
        total += scores.sample_weight[i] * cost
    return total


def all_cuts(scores):
    """Cuts of every early stage: never, or at any of its confidences."""
    return [[np.inf, *np.unique(scores.confidence(k)).tolist()] for k in range(scores.n_stages - 1)]


def least_cost(scores, cuts, stage_price):
    """Least cost over the product of the early stages' cuts and every cut of the last stage."""
    alert_cuts = [np.inf, *np.unique(scores.stage_proba[:, -1, 1 - scores.negative])]
    return min(
        cost_of(scores, scores.matrix(early), alert_cut, stage_price)
        for early in itertools.product(*cuts)
        for alert_cut in alert_cuts
    )


def cost_with_best_alerts(scores, thresholds, stage_price):
    alert_cuts = [np.inf, *np.unique(scores.stage_proba[:, -1, 1 - scores.negative])]
    return min(cost_of(scores, thresholds, cut, stage_price) for cut in alert_cuts)


@coarse_scores
@pytest.mark.parametrize("stage_price", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(25))
def test_two_stages_cost_what_the_best_pair_of_cuts_costs(seed, stage_price):
    scores = random_case(seed)
    thresholds = fit_thresholds(ExpectedCost(stage_price=stage_price), scores)
    least = least_cost(scores, all_cuts(scores), stage_price)
    assert cost_with_best_alerts(scores, thresholds, stage_price) == pytest.approx(least)
