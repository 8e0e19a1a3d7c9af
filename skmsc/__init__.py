"""Multi-stage classifiers for scikit-learn: a cheap stage answers the easy rows.

The file list is the flow::

    stages -> training -> thresholds -> routing -> reporting

``_feedback_cascade.py``, ``_early_exit.py``, ``_composable_head.py``
    FeedbackCascadeClassifier, EarlyExitClassifier, ComposableHeadClassifier.
``_base.py``, ``_reports.py``, ``_rows.py``, ``_answers.py``, ``_changing_classes.py``
    What the estimators share after the fit: predict, route, thresholds; reports; checks of
    rows; scores made answers. Classes added and removed.
``_acting.py``, ``_maps.py``
    What reaches a threshold; maps from scores to probabilities. NumPy only, as ``routing.py`` and
    ``_answers.py`` are: exported classifiers run on these four.
``stages.py``, ``costs.py``, ``costly_features.py``
    What a stage is, and costs; features fetched for the rows that reach one.
``neural/``, ``calibration.py``, ``stacking.py``
    Nets as stages; scores made probabilities; exits that recall the exits before them.
``out_of_fold.py``, ``training_rows.py``, ``splits.py``
    Scores on rows that a fit never saw; which rows train, which are held out.
``trunks.py``, ``screens.py``, ``fixed_rows.py``
    Below and beside the heads of classes: frozen features; a first stage that composes; last
    layers that are never learned.
``training/``
    What each estimator's training adds.
``thresholds/``
    Policies: scores in, a threshold matrix out.
``routing.py``
    Which stage answers which row, computing only what is needed.
``reporting/``
    Stage reports, displays, a monitor.
``metrics.py``
    What stages and errors cost, teams with few reviews; scorers for searches.
``model_selection/``, ``_splitters.py``
    A search over thresholds that fits nothing twice; splitters for late and missing labels.
``serving/``, ``distributed.py``
    Exported classifiers, and what runs them; rows of dask dataframes and arrays, answered by its
    workers.
``datasets.py``
    Simulated card transactions.
``_checks.py``, ``_labels.py``, ``_progress.py``, ``_sklearn.py``, ``_typing.py``
    Checks of arguments, labels that come later, progress, private names of scikit-learn, types.

Importing this package imports nothing but what is asked of it: estimators bring scikit-learn, and
only a neural stage brings torch and skorch, and so do a cascade's default stages and an early-exit
classifier.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skmsc._composable_head import ComposableHeadClassifier
    from skmsc._early_exit import EarlyExitClassifier
    from skmsc._feedback_cascade import FeedbackCascadeClassifier
    from skmsc.costly_features import CostlyFeatures
    from skmsc.reporting import monitor, report, route
    from skmsc.stages import default_stages
    from skmsc.thresholds import (
        Agreement,
        AlertBudget,
        CostBudget,
        ExpectedCost,
        PassBudget,
        RecallFloor,
    )
    from skmsc.training.exits import FocalWeights, LearnedWeights, SurvivorWeights, UniformWeights
    from skmsc.training.feedback import AutoFeedback, CaughtFeedback, GainFeedback
    from skmsc.training.heads import (
        FixedHead,
        ImprintHead,
        LDAHead,
        LogisticHead,
        PairwiseHead,
        RidgeHead,
    )

__version__ = "0.1.0"

__all__ = [
    "Agreement",
    "AlertBudget",
    "AutoFeedback",
    "CaughtFeedback",
    "ComposableHeadClassifier",
    "CostBudget",
    "CostlyFeatures",
    "EarlyExitClassifier",
    "ExpectedCost",
    "FeedbackCascadeClassifier",
    "FixedHead",
    "FocalWeights",
    "GainFeedback",
    "ImprintHead",
    "LDAHead",
    "LearnedWeights",
    "LogisticHead",
    "PairwiseHead",
    "PassBudget",
    "RecallFloor",
    "RidgeHead",
    "SurvivorWeights",
    "UniformWeights",
    "default_stages",
    "monitor",
    "report",
    "route",
]

# Where the public names are; a test compares it with the imports above.
_HOMES = {
    "skmsc._composable_head": ("ComposableHeadClassifier",),
    "skmsc._early_exit": ("EarlyExitClassifier",),
    "skmsc._feedback_cascade": ("FeedbackCascadeClassifier",),
    "skmsc.costly_features": ("CostlyFeatures",),
    "skmsc.reporting": (
        "monitor",
        "report",
        "route",
    ),
    "skmsc.stages": ("default_stages",),
    "skmsc.thresholds": (
        "Agreement",
        "AlertBudget",
        "CostBudget",
        "ExpectedCost",
        "PassBudget",
        "RecallFloor",
    ),
    "skmsc.training.exits": (
        "FocalWeights",
        "LearnedWeights",
        "SurvivorWeights",
        "UniformWeights",
    ),
    "skmsc.training.feedback": (
        "AutoFeedback",
        "CaughtFeedback",
        "GainFeedback",
    ),
    "skmsc.training.heads": (
        "FixedHead",
        "ImprintHead",
        "LDAHead",
        "LogisticHead",
        "PairwiseHead",
        "RidgeHead",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = (
    "calibration",
    "datasets",
    "distributed",
    "metrics",
    "model_selection",
    "neural",
    "reporting",
    "routing",
    "serving",
    "thresholds",
)


def __getattr__(name):
    """Import a public name when it is asked for: PEP 562."""
    if name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    elif name in _MODULES:
        value = import_module(f"skmsc.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_MODULES})
