"""Classifiers at work elsewhere: exported to ONNX, or in files whose loading runs no code.

``_inputs.py``
    What a graph takes of each row.
``_graph.py``
    An ONNX graph under construction: nodes, tables of typed columns, chains of graphs.
``_tree_graphs.py``, ``_transformer_graphs.py``
    Trees and fitted transformers as nodes of a graph.
``_scorer_graphs.py``, ``_net_graphs.py``
    A fitted stage, an exit, a trunk with heads as an ONNX graph.
"""
