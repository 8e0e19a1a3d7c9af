"""Neural stages. Importing this package imports torch and skorch."""

from skmsc.neural._net_stage import NetStage

__all__ = ["NetStage"]
