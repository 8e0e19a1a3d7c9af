"""Classifiers at work elsewhere: exported to ONNX, or in files whose loading runs no code.

``_inputs.py``
    What a graph takes of each row.
``_scorer_graphs.py``, ``_net_graphs.py``
    A fitted stage, an exit, a trunk with heads as an ONNX graph.
"""
