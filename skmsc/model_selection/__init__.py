"""A search over thresholds that fits nothing twice; splitters for missing or late labels."""

from skmsc._splitters import LabeledTestFolds, TimeDelaySplit
from skmsc.model_selection._final_cut import FinalCutClassifier
from skmsc.model_selection._search import ThresholdSearchCV

__all__ = ["FinalCutClassifier", "LabeledTestFolds", "ThresholdSearchCV", "TimeDelaySplit"]
