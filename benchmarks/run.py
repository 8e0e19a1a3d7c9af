"""Ask all questions: ``python -m benchmarks.run --data DIR [--quick]``."""

from __future__ import annotations

import importlib
import time

from benchmarks.command import parse_arguments

# Timing last, so that nothing of this run is still cooling the caches it measures.
QUESTIONS = ("quality", "feedback", "few_shot", "neural_quality", "early_exit")
QUESTIONS += (
    "peers",
    "composable",
    "search",
    "speed",
    "neural_speed",
    "early_exit_speed",
    "composable_speed",
    "serving",
    "scale",
)


def main(arguments):
    """Run every question and list the expectations of all."""
    expectations = []
    for question in QUESTIONS:
        start = time.perf_counter()
        module = importlib.import_module(f"benchmarks.{question}")
        expectations += [(question, expectation) for expectation in module.main(arguments)]
        print(f"{question}: {time.perf_counter() - start:.0f} s\n", flush=True)
    for question, expectation in expectations:
        verdict = "holds        " if expectation["holds"] else "DOES NOT HOLD"
        print(
            f"{verdict}  {question}: {expectation['what']} "
            f"{expectation['value']:.4g} ({expectation['expected']})"
        )


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=True))
