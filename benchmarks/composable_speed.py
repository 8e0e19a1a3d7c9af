"""What does it cost to add a class, against finding all heads anew?

Run alone with ``python -m benchmarks.composable_speed [--quick]``; the rows are simulated.
"""

from __future__ import annotations

from copy import copy

import numpy as np

from benchmarks.command import parse_arguments
from benchmarks.objective import expect, expectation_table, write
from benchmarks.timing import interleaved, timing_table, torch_threads

N_CLASSES, N_FEATURES = 26, 128
N_ROWS = {"1,000 in all": 1000, "1,000 a class": 1000 * N_CLASSES}
ADD, ANEW, DEFAULTS = "add_class", "all heads anew", "all heads anew, by default settings"
# What a fit would choose on rows held out is given, so that both do the same work.
HEADS = {
    "ridge": ("RidgeHead", {"alpha": 0.1}),
    "LDA": ("LDAHead", {"shrinkage": 0.01}),
    "imprint": ("ImprintHead", {"scale": 10.0}),
    "logistic": ("LogisticHead", {}),
}
REPLAY = 100
MOST_TIMES_ANEW = {"1,000 in all": 1.0, "1,000 a class": 0.25}


def rows(n_rows):
    """Rows of all classes, as many of each, in random order."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n_rows) % N_CLASSES)
    centres = rng.normal(size=(N_CLASSES, N_FEATURES)) / 4
    return centres[y] + rng.normal(size=(n_rows, N_FEATURES)), y


def calls_of(head, X, y):
    """Adding the last class, and finding the heads of all classes anew, as functions."""
    import skmsc

    kind, params = HEADS[head]
    strategy = getattr(skmsc, kind)
    how = {"trunk": "passthrough", "replay_size": REPLAY if head == "logistic" else 0}
    given = {"head": strategy(**params), "validation_fraction": None, "calibration": None}
    model = skmsc.ComposableHeadClassifier(**how, **given, random_state=0)
    default = skmsc.ComposableHeadClassifier(**how, head=strategy(), random_state=0)
    new = y == N_CLASSES - 1
    known = skmsc.ComposableHeadClassifier(**how, **given, random_state=0).fit(X[~new], y[~new])
    X_new = X[new]
    return {
        ADD: lambda: copy(known).add_class(X_new, N_CLASSES - 1),
        ANEW: lambda: model.fit(X, y),
        DEFAULTS: lambda: default.fit(X, y),
    }


def main(arguments):
    """Ask the question, write results/composable_speed.md and .json; return the expectations."""
    how = {"seconds": 0, "min_turns": 2} if arguments.quick else {"seconds": 5, "min_turns": 5}
    sizes = dict(list(N_ROWS.items())[:1]) if arguments.quick else N_ROWS
    records = []
    with torch_threads(1):
        for size, n_rows in sizes.items():
            X, y = rows(n_rows)
            for head in HEADS:
                timings = interleaved(calls_of(head, X, y), baseline=ANEW, **how)
                records += [
                    {"rows": size, "head": head, "call": call, **timing}
                    for call, timing in timings.items()
                ]
    ratios = {
        size: max(
            r["ratio"]
            for r in records
            if r["rows"] == size and r["call"] == ADD and r["head"] != "logistic"
        )
        for size in sizes
    }
    expectations = [
        expect(
            f"{size}: add_class, times all heads anew, the dearest head from statistics",
            ratio,
            at_most=MOST_TIMES_ANEW[size],
        )
        for size, ratio in ratios.items()
    ]
    text = "\n\n".join(
        [
            "# Composable heads: time",
            f"{N_CLASSES} classes, {N_FEATURES} features, trunk='passthrough', so that features "
            "cost next to nothing; rows evenly spread over the classes. *add_class* brings the "
            "last class to a classifier of the others, with the features of its rows. *Anew* fits "
            "the heads of all classes on all rows, with what a fit chooses on held-out rows given; "
            "*by default settings* it is chosen, as in a user's refit. *logistic* trains all its "
            f"heads again when a class comes, on {REPLAY} rows of each old one. One thread.",
            expectation_table(expectations),
            timing_table(["rows", "head", "call"], records, ANEW),
        ]
    )
    content = {"records": records, "expectations": expectations}
    write("composable_speed", text, content, quick=arguments.quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=False))
