"""Benchmarks of skmsc: objective, datasets and methods apart, one module per question.

- ``datasets``: what the methods are given; ``simulated`` stands in for it in a quick run.
- ``methods``: what is compared, every method with the same answer type.
- ``reference``: the same computations by hand, which ours must equal.
- ``objective``: what is measured, its intervals, the tables and the JSON.
- ``timing``, ``jobs``, ``command``: calls timed in turn, repeats side by side, the command line.
- ``run`` asks all questions; each of the other modules is one.
"""
