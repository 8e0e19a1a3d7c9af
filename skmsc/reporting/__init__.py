"""Reports: what each stage did, whether new rows are like those before, and pictures of both."""

from skmsc.reporting._calibration_display import StageCalibrationDisplay
from skmsc.reporting._cost_display import CostScoreDisplay
from skmsc.reporting._flow_display import StageFlowDisplay
from skmsc.reporting._monitor import MonitorReport
from skmsc.reporting._report import StageReport
from skmsc.reporting._threshold_display import ThresholdDisplay
from skmsc.reporting._unwrap import monitor, report, route

__all__ = [
    "CostScoreDisplay",
    "MonitorReport",
    "StageCalibrationDisplay",
    "StageFlowDisplay",
    "StageReport",
    "ThresholdDisplay",
    "monitor",
    "report",
    "route",
]
