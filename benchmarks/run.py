"""Ask all questions: ``python -m benchmarks.run --data DIR``, or ``--quick`` on simulated rows."""

from __future__ import annotations

import importlib
import time

from joblib import Parallel, cpu_count, delayed

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
    "serving",
    "scale",
)


def ask(question, arguments):
    """The expectations of one question, and how many seconds it took."""
    start = time.perf_counter()
    expectations = importlib.import_module(f"benchmarks.{question}").main(arguments)
    seconds = time.perf_counter() - start
    print(f"{question}: {seconds:.0f} s\n", flush=True)
    return expectations, seconds


def main(arguments):
    """Run every question; list the expectations of all, and how long each took."""
    start = time.perf_counter()
    # A quick run measures nothing, so that its questions may disturb each other.
    side_by_side = Parallel(cpu_count() if arguments.quick else 1)
    answers = side_by_side(delayed(ask)(question, arguments) for question in QUESTIONS)
    for question, (expectations, _) in zip(QUESTIONS, answers, strict=True):
        for expectation in expectations:
            verdict = "holds        " if expectation["holds"] else "DOES NOT HOLD"
            print(
                f"{verdict}  {question}: {expectation['what']} "
                f"{expectation['value']:.4g} ({expectation['expected']})"
            )
    taken = zip(QUESTIONS, (seconds for _, seconds in answers), strict=True)
    each = ", ".join(f"{question} {seconds:.0f}" for question, seconds in taken)
    print(f"\n{time.perf_counter() - start:.0f} s in all: {each}")


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=True))
