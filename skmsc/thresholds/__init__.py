"""Threshold policies: the scores of all stages in, a matrix of thresholds out.

``thresholds[k, c]`` is the score of class c at which stage k answers a row; `inf` means never, and
the last row is `-inf`, since the last stage always answers. A policy decides how confident an early
stage must be. For two classes an early stage may answer the negative class only and its confidence
is that class's score; for more it may answer any class and its confidence is its largest score.

Cuts lie midway between neighbouring distinct confidences; one that answers all rows that it is
about lies at the lowest of them. Rows that tie at a cut stay on the cheap side, so that a budget is
never exceeded on the rows that it was set on.
"""

from skmsc._acting import (
    CONFIDENCES,
    acting_scores,
    answered_class,
    eager_stage,
    reaches,
)
from skmsc.thresholds._alert_budget import AlertBudget
from skmsc.thresholds._expected_cost import ExpectedCost
from skmsc.thresholds._fit import (
    check_independent,
    check_policy,
    find_row_values,
    fit_thresholds,
    needs_costs,
    needs_labels,
    needs_last_stage,
    needs_rows,
    refuse_blind_raise,
    row_metadata,
)
from skmsc.thresholds._policies import (
    Agreement,
    CostBudget,
    PassBudget,
    RecallFloor,
    caught_positives_needed,
    rows_needed,
)
from skmsc.thresholds._scores import StageScores

# Public; the functions are for the package's own use.
__all__ = [
    "Agreement",
    "AlertBudget",
    "CostBudget",
    "ExpectedCost",
    "PassBudget",
    "RecallFloor",
    "StageScores",
]
