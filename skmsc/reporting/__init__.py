"""Reports: what each stage did, as tables and as scores for searches."""

from skmsc.reporting._report import StageReport
from skmsc.reporting._scorers import (
    neg_mean_cost_scorer,
    neg_pass_rate_scorer,
    retained_recall_scorer,
)
from skmsc.reporting._unwrap import report, route

__all__ = [
    "StageReport",
    "neg_mean_cost_scorer",
    "neg_pass_rate_scorer",
    "report",
    "retained_recall_scorer",
    "route",
]
