"""Reports: what each stage did, and whether new rows are like those before."""

from skmsc.reporting._monitor import MonitorReport
from skmsc.reporting._report import StageReport
from skmsc.reporting._unwrap import monitor, report, route

__all__ = ["MonitorReport", "StageReport", "monitor", "report", "route"]
