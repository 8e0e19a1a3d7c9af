"""Reports: what each stage did."""

from skmsc.reporting._report import StageReport
from skmsc.reporting._unwrap import report, route

__all__ = ["StageReport", "report", "route"]
