"""Classifiers at work elsewhere: exported to ONNX, or in files whose loading runs no code.

``_export.py``
    A fitted classifier as a file.
``_scorer_graphs.py``, ``_transformer_graphs.py``, ``_tree_graphs.py``, ``_net_graphs.py``
    A stage, a transformer, trees, a net with its exits or heads as nodes of ONNX graphs.
``_graph.py``, ``_inputs.py``
    A graph in the making; what a graph takes of each row.
``_runtime.py``, ``_rows.py``, ``_one_row.py``
    The file at work, by NumPy and onnxruntime only.
``_manifest.py``, ``_archive.py``
    What the file holds.
``_files.py``, ``_trusted.py``, ``_trees.py``
    Estimators in files whose loading runs no code; the types that they may hold; trees, checked.

What is needed for a name is imported when it is asked for: `load` works without scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skmsc.serving._export import export as export
    from skmsc.serving._files import dump as dump
    from skmsc.serving._files import load_estimator as load_estimator
    from skmsc.serving._inputs import NotExportable as NotExportable
    from skmsc.serving._runtime import ExportedClassifier as ExportedClassifier
    from skmsc.serving._runtime import Step as Step
    from skmsc.serving._runtime import load as load

_HOMES = {
    "ExportedClassifier": "_runtime",
    "NotExportable": "_inputs",
    "Step": "_runtime",
    "dump": "_files",
    "export": "_export",
    "load": "_runtime",
    "load_estimator": "_files",
}
__all__ = [*_HOMES]


def __getattr__(name):
    """Import a public name when it is asked for: PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
