"""Splitters for labels that are missing, or that come late; for any scikit-learn search."""

from skmsc._splitters import LabeledTestFolds, TimeDelaySplit

__all__ = ["LabeledTestFolds", "TimeDelaySplit"]
