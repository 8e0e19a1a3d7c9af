"""Ask all questions: ``python -m benchmarks.run --data DIR``, or ``--quick`` on simulated rows."""

from __future__ import annotations

import importlib
import time

from benchmarks.command import parse_arguments

# Timing last, so that nothing of this run is still cooling the caches it measures.
QUESTIONS = (
    "quality",
    "peers",
    "guarantees",
    "feedback",
    "few_shot",
    "neural_quality",
    "early_exit",
    "composable",
    "search",
    "speed",
    "neural_speed",
    "early_exit_speed",
    "composable_speed",
    "threads",
    "serving",
    "scale",
)


def main(arguments):
    """Run every question; list the expectations of all, and how long each took."""
    expectations, seconds = [], {}
    for question in QUESTIONS:
        start = time.perf_counter()
        module = importlib.import_module(f"benchmarks.{question}")
        expectations += [(question, expectation) for expectation in module.main(arguments)]
        seconds[question] = time.perf_counter() - start
        print(f"{question}: {seconds[question]:.0f} s\n", flush=True)
    for question, expectation in expectations:
        verdict = "holds        " if expectation["holds"] else "DOES NOT HOLD"
        print(
            f"{verdict}  {question}: {expectation['what']} "
            f"{expectation['value']:.4g} ({expectation['expected']})"
        )
    each = ", ".join(f"{question} {taken:.0f}" for question, taken in seconds.items())
    print(f"\n{sum(seconds.values()):.0f} s in all: {each}")


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=True))
