"""Benchmarks of skmsc: objective, datasets and methods apart, one module per question.

- ``datasets``: what the methods are given.
- ``methods``: what is compared, every method with the same answer type.
- ``reference``: the same computations by hand, which ours must equal.
- ``objective``: what is measured, its intervals, the tables and the JSON.
- ``quality``, ``feedback``, ``search``, ``speed``, ``neural_quality``, ``neural_speed``: one
  question each; ``run`` asks all of them.
"""
