"""Classifiers at work elsewhere: exported to ONNX, or in files whose loading runs no code.

``_inputs.py``
    What a graph takes of each row.
``_scorer_graphs.py``, ``_net_graphs.py``
    A fitted stage, an exit, a trunk with heads as an ONNX graph.
``_files.py``, ``_trusted.py``, ``_trees.py``
    Files on skops; the types that they may hold; trees from files, checked.

What is needed for a name is imported when it is asked for.
"""

from importlib import import_module

_HOMES = {"dump": "_files", "load_estimator": "_files"}

__all__ = ["dump", "load_estimator"]


def __getattr__(name):
    """Import a public name when it is asked for: PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
