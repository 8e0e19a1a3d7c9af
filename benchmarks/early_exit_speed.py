"""Is the time saved that multiply-adds promise, and what do learned weights cost in training?

Run alone with ``python -m benchmarks.early_exit_speed [--quick]``; the rows are simulated.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.command import parse_arguments
from benchmarks.objective import expect, expectation_table, markdown_table, write
from benchmarks.timing import interleaved, timing_table, torch_threads

N_TRAIN, N_ROWS, N_FEATURES = 12_000, 10_000, 40
DEPTH, CLASSES = 4, (2, 10)
NETS = (("mlp", 256), ("mlp", 512), ("resnet", 256))  # blocks of 1, 4 and 4 parts of work
BUDGETS = (0.3, 0.5, 0.7)
ALL, NET = "all stages", "net alone"
LEAST_OF_SAVED = 0.8
MOST_TIMES_UNIFORM = 1.5
WEIGHTINGS = ("uniform", "survivors", "focal", "learned")


def rows(n_train, n_rows, n_classes):
    """Training rows, and rows to set thresholds on and to predict."""
    X, y = make_classification(
        n_train + n_rows,
        n_features=N_FEATURES,
        n_informative=20,
        n_classes=n_classes,
        class_sep=1.2 if n_classes > 2 else 0.8,
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


def time_budgets(model, X_tune, y_tune, X, **how):
    """Records of predict_proba at each budget, beside all stages and the net alone on every row."""
    from skmsc import CostBudget

    tuned = {
        budget: model.tune_thresholds(X_tune, y_tune, thresholds=CostBudget(budget), copy=True)
        for budget in BUDGETS
    }
    never = model.tune_thresholds(X_tune, y_tune, thresholds=2.0, copy=True)
    calls = {ALL: lambda: never.predict_proba(X), NET: lambda: model.net_.predict_proba(X)}
    calls |= {f"budget {b}": lambda m=m: m.predict_proba(X) for b, m in tuned.items()}
    timings = interleaved(calls, baseline=ALL, **how)
    multiply_adds = np.cumsum(model.multiply_adds_)
    records = []
    for budget, tuned_model in tuned.items():
        timing = timings[f"budget {budget}"]
        computed = multiply_adds[tuned_model.route(X).stage].mean()
        against_all = 1 - computed / multiply_adds[-1], 1 - timing["ratio"]
        against_net = (
            1 - computed / model.net_.count_multiply_adds(),
            1 - timing["ratio"] / timings[NET]["ratio"],
        )
        records.append(
            {
                "budget": budget,
                ALL: {"multiply_adds": against_all[0], "time": against_all[1]},
                NET: {"multiply_adds": against_net[0], "time": against_net[1]},
                "all_s": timings[ALL]["wall_s"],
                **timing,
            }
        )
    return records


def share(record, against):
    """Time saved in units of the multiply-adds saved."""
    return record[against]["time"] / record[against]["multiply_adds"]


def saved_table(records):
    """Shares of multiply-adds and of time saved."""
    header = ["classes", "trunk", "width", "first stage", "budget"]
    header += ["multiply-adds saved", "time saved"]
    return markdown_table(
        [*header, "of it", "time saved against the net alone", "of it"],
        [
            [
                *(r[key] for key in ("n_classes", "trunk", "width", "first_stage", "budget")),
                f"{r[ALL]['multiply_adds']:.3f}",
                f"{r[ALL]['time']:.3f}",
                f"{share(r, ALL):.2f}",
                f"{r[NET]['time']:.3f}",
                f"{share(r, NET):.2f}",
            ]
            for r in records
        ],
    )


def main(arguments):
    """Ask the question, write results/early_exit_speed.md and .json; return the expectations."""
    n_train, how, nets, n_rows = N_TRAIN, {"seconds": 12, "min_turns": 7}, NETS, N_ROWS
    if arguments.quick:
        n_train, how, nets, n_rows = 1000, {"seconds": 0, "min_turns": 2}, NETS[:1], 2000
    saved = []
    with torch_threads(1):
        for n_classes, (trunk, width), first in product(CLASSES, nets, ("none", "logistic")):
            X, y, X_new, y_new = rows(n_train, n_rows, n_classes)
            n_epochs = 5 if trunk == "mlp" else 3
            model = fit(X, y, width, n_epochs=n_epochs, first=first != "none", trunk=trunk)
            setting = {"n_classes": n_classes, "trunk": trunk, "width": width, "first_stage": first}
            found = time_budgets(model, X_new, y_new, X_new, **how)
            saved += [setting | record for record in found]
        # Epochs alone: no first stage, no validation.
        epochs = {"validation": None, "n_epochs": 2, "first": False, "batch_size": 128}
        calls = {
            name: lambda name=name: fit(X, y, NETS[0][1], weighting=name, **epochs)
            for name in WEIGHTINGS
        }
        longer = {"seconds": 2 * how["seconds"], "min_turns": min(5, how["min_turns"])}
        training = interleaved(calls, baseline="uniform", warm=False, **longer)
    training = [{"exit_weighting": name, **timing} for name, timing in training.items()]
    learned = next(r["ratio"] for r in training if r["exit_weighting"] == "learned")
    expectations = [
        *(
            expect(
                f"time saved, in units of the multiply-adds saved, {trunk} {width}: the least",
                min(share(r, ALL) for r in saved if (r["trunk"], r["width"]) == (trunk, width)),
                at_least=LEAST_OF_SAVED,
            )
            for trunk, width in nets
        ),
        expect("training with learned weights, times uniform", learned, at_most=MOST_TIMES_UNIFORM),
    ]
    text = "\n\n".join(
        [
            "# Early exit: time",
            f"{n_rows:,} rows of {N_FEATURES} features, {DEPTH} exits; one thread of torch and of "
            "BLAS, CPU time. Saved is saved against the same classifier that runs all stages on "
            "every row, and in the last two columns against the net alone, which runs to its last "
            "exit without the heads before it and without a first stage.",
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
