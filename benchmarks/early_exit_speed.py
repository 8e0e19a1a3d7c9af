"""Is the time saved that multiply-adds promise, and what do learned weights cost in training?

Run alone with ``python -m benchmarks.early_exit_speed [--quick]``; the rows are simulated.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.command import parse_arguments
from benchmarks.objective import expect, expectation_table, markdown_table, write
from benchmarks.timing import interleaved, timing_table, torch_threads

N_TRAIN, N_ROWS, N_FEATURES, N_CLASSES = 12_000, 10_000, 40, 10
DEPTH, WIDTHS = 4, (256, 512)
BUDGETS = (0.3, 0.5, 0.7)
LEAST_OF_SAVED = 0.8
MOST_TIMES_UNIFORM = 1.5
WEIGHTINGS = ("uniform", "survivors", "focal", "learned")


def rows(n_train):
    """Training rows, rows for thresholds and rows to predict."""
    X, y = make_classification(
        n_train + N_ROWS,
        n_features=N_FEATURES,
        n_informative=20,
        n_classes=N_CLASSES,
        class_sep=1.2,
        random_state=0,
    )
    return X[:n_train], y[:n_train], X[n_train:], y[n_train:]


def fit(X, y, width, *, n_epochs, weighting="uniform", first=True, **settings):
    """EarlyExitClassifier, behind a logistic regression or without a first stage."""
    from skmsc import EarlyExitClassifier
    from skmsc.neural import MultiExitNet

    first_stage = make_pipeline(StandardScaler(), LogisticRegression()) if first else None
    net = MultiExitNet(
        width=width, depth=DEPTH, max_epochs=n_epochs, device="cpu", random_state=0, **settings
    )
    return EarlyExitClassifier(first_stage, net, exit_weighting=weighting, random_state=0).fit(X, y)


def time_budgets(model, width, X_tune, y_tune, X, **how):
    """Records of predict_proba at each budget, beside the net run to its end on every row."""
    from skmsc import CostBudget

    full = "net to its end"
    of_net = model.net_.count_multiply_adds()
    tuned = {
        budget: model.tune_thresholds(X_tune, y_tune, thresholds=CostBudget(budget), copy=True)
        for budget in BUDGETS
    }
    calls = {full: lambda: model.net_.predict_proba(X)}
    calls |= {f"budget {b}": lambda m=m: m.predict_proba(X) for b, m in tuned.items()}
    timings = interleaved(calls, baseline=full, **how)
    first = "none" if model.first_stage is None else "logistic"
    records = []
    for budget, tuned_model in tuned.items():
        stage = tuned_model.route(X).stage
        computed = np.cumsum(model.multiply_adds_)[stage].mean() / of_net
        timing = timings[f"budget {budget}"]
        records.append(
            {
                "width": width,
                "first_stage": first,
                "budget": budget,
                "multiply_adds_saved": float(1 - computed),
                "time_saved": 1 - timing["ratio"],
                "share": (1 - timing["ratio"]) / float(1 - computed),
                **timing,
            }
        )
    return records


def saved_table(records):
    """Shares of multiply-adds and of time saved."""
    header = ["width", "first stage", "budget", "multiply-adds saved", "time saved", "of it"]
    return markdown_table(
        header,
        [
            [
                r["width"],
                r["first_stage"],
                r["budget"],
                f"{r['multiply_adds_saved']:.3f}",
                f"{r['time_saved']:.3f}",
                f"{r['share']:.2f}",
            ]
            for r in records
        ],
    )


def main(arguments):
    """Ask the question, write results/early_exit_speed.md and .json; return the expectations."""
    n_train, how = N_TRAIN, {"seconds": 12, "min_turns": 7}
    if arguments.quick:
        n_train, how = 3000, {"seconds": 1, "min_turns": 2}
    X, y, X_new, y_new = rows(n_train)
    saved = []
    with torch_threads(1):
        for width in WIDTHS:
            for first in (False, True):
                model = fit(X, y, width, n_epochs=10, first=first)
                saved += time_budgets(model, width, X_new, y_new, X_new, **how)
        # Epochs alone: no first stage, no validation.
        epochs = {"validation": None, "n_epochs": 2, "first": False, "batch_size": 128}
        calls = {
            name: lambda name=name: fit(X, y, WIDTHS[0], weighting=name, **epochs)
            for name in WEIGHTINGS
        }
        training = interleaved(
            calls, baseline="uniform", warm=False, seconds=2 * how["seconds"], min_turns=5
        )
    training = [{"exit_weighting": name, **timing} for name, timing in training.items()]
    learned = next(r["ratio"] for r in training if r["exit_weighting"] == "learned")
    expectations = [
        expect(
            "time saved, in units of the multiply-adds saved: the least of all",
            min(r["share"] for r in saved),
            at_least=LEAST_OF_SAVED,
        ),
        expect("training with learned weights, times uniform", learned, at_most=MOST_TIMES_UNIFORM),
    ]
    text = "\n\n".join(
        [
            "# Early exit: time",
            f"{N_ROWS:,} rows of {N_FEATURES} features and {N_CLASSES} classes, {DEPTH} exits; one "
            "thread of torch and of BLAS, CPU time. Saved is saved against the net that runs to "
            "its last exit on every row, without the heads before it.",
            expectation_table(expectations),
            "## predict_proba at budgets of the cost of all stages",
            saved_table(saved),
            f"## fit: two epochs on {n_train:,} rows, no first stage, no validation",
            timing_table(["exit_weighting"], training, "uniform"),
        ]
    )
    content = {"records": {"predict": saved, "fit": training}, "expectations": expectations}
    write("early_exit_speed", text, content, quick=arguments.quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=False))
