"""What do a cascade's stages cost each other when each uses all cores?

Run alone with ``python -m benchmarks.threads [--quick]``, with OMP_NUM_THREADS and
OPENBLAS_NUM_THREADS not set; the rows are simulated.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from lightgbm import LGBMClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from benchmarks.command import parse_arguments
from benchmarks.datasets import imbalanced
from benchmarks.methods import make_screen, make_tabular_net
from benchmarks.neural_speed import plain_proba
from benchmarks.objective import expect, expectation_table, markdown_table, write
from benchmarks.speed import fit_ours, same_by_hand

FEW_ROWS = 100
BATCHES = (FEW_ROWS, 1_000, 10_000, 50_000, 200_000)
N_TRAIN = 10_000
PAUSE = 0.15  # seconds, in which threads fall asleep
N_TURNS, N_CALLS = 10, 4
LEAST_ROWS = 50_000  # from which on a BLAS starts threads for the screen's 20 columns
BY_HAND, OURS = "by hand", "skmsc"
NET, ALONE = "TabularNet", "TabularNet alone"


def last_stages():
    """The stages behind a logistic screen, each with a thread for each core."""
    return {
        NET: make_tabular_net(max_epochs=3),
        "HistGradientBoosting": HistGradientBoostingClassifier(random_state=0),
        "LightGBM": LGBMClassifier(random_state=0, verbose=-1),
        "forest": RandomForestClassifier(50, max_depth=10, n_jobs=-1, random_state=0),
    }


class PlainNet:
    """A fitted TabularNet's module, called as one writes it."""

    def __init__(self, net):
        self.module = net.net_.module_

    def predict_proba(self, X):
        """Class probabilities, batch by batch."""
        return plain_proba(self.module, X)


def turns(calls, n_turns):
    """Seconds of wall time of each call (name -> function), shape (n_turns, N_CALLS) by name.

    Before each turn of a call comes a pause, as a service has them; the calls that follow the
    first one find threads awake.
    """
    seconds = {name: np.empty((n_turns, N_CALLS)) for name in calls}
    order = np.random.default_rng(0)
    for i in range(n_turns):
        for name in order.permutation(list(calls)):
            time.sleep(PAUSE)
            for j in range(N_CALLS):
                start = time.perf_counter()
                calls[name]()
                seconds[name][i, j] = time.perf_counter() - start
    return seconds


def time_cascades(split, batches, n_turns):
    """Records of predict_proba of cascades, ours and by hand, of the same fitted stages."""
    for last_name, last in last_stages().items():
        cascade = fit_ours(make_screen(), last, split, calibration=None, feedback="none")
        by_hand = same_by_hand(cascade)
        if last_name == NET:
            by_hand.last = PlainNet(by_hand.last)
        for n_rows in batches:
            X = split.X_test[:n_rows]
            calls = {
                BY_HAND: lambda X=X, model=by_hand: model.predict_proba(X),
                OURS: lambda X=X, model=cascade: model.predict_proba(X),
            }
            np.testing.assert_allclose(calls[OURS](), calls[BY_HAND](), atol=1e-5)
            yield from records({"last": last_name, "n_rows": n_rows}, turns(calls, n_turns))


def time_net(split, batches, n_turns):
    """Records of predict_proba of a TabularNet by itself, and of its module by hand."""
    net = make_tabular_net(max_epochs=3).fit(split.X_train, split.y_train)
    plain = PlainNet(net)
    for n_rows in batches:
        X = split.X_test[:n_rows]
        calls = {
            BY_HAND: lambda X=X: plain.predict_proba(X),
            OURS: lambda X=X: net.predict_proba(X),
        }
        yield from records({"last": ALONE, "n_rows": n_rows}, turns(calls, n_turns))


def records(what, seconds):
    """Records of one case, and how many times by hand ours takes in the mean of all calls."""
    ratio = seconds[OURS].mean() / seconds[BY_HAND].mean()
    for name, taken in seconds.items():
        yield {
            **what,
            "method": name,
            "first_s": float(np.mean(taken[:, 0])),
            "mean_s": float(taken.mean()),
            "median_s": float(np.median(taken)),
            "p95_s": float(np.quantile(taken, 0.95)),
            "ratio": float(ratio) if name == OURS else 1.0,
        }


def table(cases):
    """The records as Markdown."""
    header = ["last stage", "rows", "method", "mean ms", "first ms", "median ms", "95 % ms"]
    rows = [
        [
            r["last"],
            f"{r['n_rows']:,}",
            r["method"],
            *(f"{1000 * r[key]:.2f}" for key in ("mean_s", "first_s", "median_s", "p95_s")),
            f"{r['ratio']:.2f}",
        ]
        for r in cases
    ]
    return markdown_table([*header, "times by hand, mean"], rows)


def main(arguments):
    """Ask the question, write results/threads.md and .json; return the expectations."""
    batches, n_train, n_turns = BATCHES, N_TRAIN, N_TURNS
    if arguments.quick:
        batches, n_train, n_turns = (FEW_ROWS, LEAST_ROWS), 2_000, 1
    split = imbalanced(n_train, max(batches))
    cases = [
        *time_cascades(split, batches, n_turns),
        *time_net(split, [n for n in batches if n < LEAST_ROWS], n_turns),
    ]

    ours = [r for r in cases if r["method"] == OURS]
    expectations = [
        expect(
            f"{LEAST_ROWS:,} rows and more, mean time in units of that by hand: the most",
            max(r["ratio"] for r in ours if r["n_rows"] >= LEAST_ROWS and r["last"] != ALONE),
            at_most=1.0,
        ),
        expect(
            f"a net on {FEW_ROWS} rows, mean time in units of that by hand: the most",
            max(r["ratio"] for r in ours if r["n_rows"] == FEW_ROWS and r["last"] in (NET, ALONE)),
            at_most=1.0,
        ),
    ]
    text = "\n\n".join(
        [
            "# Threads: stages that follow each other on the same cores",
            f"predict_proba with {torch.get_num_threads()} threads of BLAS, OpenMP and joblib, "
            f"wall time of {N_CALLS} calls after a pause of {PAUSE} s, {n_turns} times. By hand: "
            "the same fitted stages, routed by five lines of NumPy; a net's module in batches.",
            expectation_table(expectations),
            table(cases),
        ]
    )
    write("threads", text, {"records": cases, "expectations": expectations}, quick=arguments.quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=False))
