"""How much memory, and time, do ten million memory-mapped rows take?

Run alone with ``python -m benchmarks.scale [--quick]``; the rows are simulated. Linux only: the
memory of a process is read from ``/proc``. 800 MB are written to the temporary folder.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from dataclasses import fields, is_dataclass
from pathlib import Path

import joblib
import numpy as np

from benchmarks.command import parse_arguments
from benchmarks.objective import expect, expectation_table, markdown_table, write
from benchmarks.timing import torch_threads

N_ROWS, N_TRAIN, N_FEATURES = 10_000_000, 20_000, 20
N_QUICK, N_QUICK_TRAIN = 300_000, 2_000
METHODS = ("predict", "predict_proba", "route")
MOST_MB = 500.0
MB = 1e6


def draw_rows(n_rows, seed):
    """Rows of two classes, one of them rare."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rows, N_FEATURES), dtype=np.float32)
    odds = 2 * X[:, 0] * X[:, 1] + X[:, 2] - 3
    return X, (rng.random(n_rows) < 1 / (1 + np.exp(-odds))).astype(int)


def write_rows(path, n_rows):
    """A file of so many rows in float32, written some at a time."""
    with path.open("wb") as file:
        for seed, start in enumerate(range(0, n_rows, 500_000)):
            draw_rows(min(500_000, n_rows - start), seed + 1)[0].tofile(file)


def make_models(n_train):
    """The three estimators, fitted."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from skmsc import (
        ComposableHeadClassifier,
        EarlyExitClassifier,
        FeedbackCascadeClassifier,
        PassBudget,
    )
    from skmsc.neural import MultiExitNet, TabularNet

    X, y = draw_rows(n_train, 0)
    first, budget = make_pipeline(StandardScaler(), LogisticRegression()), PassBudget(0.1)
    models = {
        "FeedbackCascadeClassifier": FeedbackCascadeClassifier(
            [("screen", first), ("final", TabularNet(max_epochs=5))],
            thresholds=budget,
            random_state=0,
        ),
        "EarlyExitClassifier": EarlyExitClassifier(
            first, MultiExitNet(max_epochs=5), thresholds=budget, random_state=0
        ),
        "ComposableHeadClassifier": ComposableHeadClassifier(
            first, TabularNet(max_epochs=5), thresholds=budget, random_state=0
        ),
    }
    return {name: model.fit(X, y) for name, model in models.items()}


def n_bytes(answer):
    """Bytes of what a call gave: an array, or a dataclass of arrays."""
    if is_dataclass(answer):
        parts = (getattr(answer, field.name) for field in fields(answer))
        return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
    return answer.nbytes


def answer_all(pipe, model_path, rows_path, method):
    """Answer all rows in a process of its own, which is told when, and tell CPU time and bytes."""
    with torch_threads(1):
        call = getattr(joblib.load(model_path), method)
        X = np.memmap(rows_path, dtype=np.float32, mode="r").reshape(-1, N_FEATURES)
        call(X[:5000])  # what is imported and allocated once is no matter of the rows
        pipe.send(None)
        pipe.recv()
        start = time.process_time()
        answer = call(X)
        pipe.send((time.process_time() - start, n_bytes(answer)))


def anonymous_bytes(pid):
    """Resident bytes of a process that are of no file, so that they cannot be given up."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc does not tell RssAnon here: this needs Linux 4.5 or later.")


def measure(model_path, rows_path, method):
    """CPU seconds, MB of the answer, and MB that the process grew by at its peak."""
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=answer_all, args=(other, model_path, rows_path, method))
    process.start()
    try:
        mine.recv()
        before = peak = anonymous_bytes(process.pid)
        mine.send(None)
        while not mine.poll(0.005):
            peak = max(peak, anonymous_bytes(process.pid))
        seconds, n_answer = mine.recv()
    finally:
        process.join(60)
    return {"seconds": seconds, "answer_mb": n_answer / MB, "peak_mb": (peak - before) / MB}


def main(arguments):
    """Ask the question, write results/scale.md and .json; return the expectations."""
    n_rows, n_train, methods, records = N_ROWS, N_TRAIN, METHODS, []
    if arguments.quick:
        n_rows, n_train, methods = N_QUICK, N_QUICK_TRAIN, METHODS[-1:]
    with tempfile.TemporaryDirectory() as folder:
        rows_path, model_path = Path(folder) / "rows", Path(folder) / "model"
        write_rows(rows_path, n_rows)
        with torch_threads(1):
            models = make_models(n_train)
        for name, model in models.items():
            joblib.dump(model, model_path)
            for method in methods:
                found = measure(model_path, rows_path, method)
                print(f"{name}.{method}: {found}", flush=True)
                records.append({"estimator": name, "method": method, "n_rows": n_rows, **found})
    beyond = {(r["estimator"], r["method"]): r["peak_mb"] - r["answer_mb"] for r in records}
    expectations = [
        expect(f"{name}.{method}: peak beyond mapping and answer, MB", value, at_most=MOST_MB)
        for (name, method), value in beyond.items()
    ]
    table = markdown_table(
        ["estimator", "method", "answer, MB", "peak beyond, MB", "CPU seconds", "rows a second"],
        [
            [
                r["estimator"],
                r["method"],
                f"{r['answer_mb']:.0f}",
                f"{beyond[r['estimator'], r['method']]:.0f}",
                f"{r['seconds']:.1f}",
                f"{r['n_rows'] / r['seconds']:,.0f}",
            ]
            for r in records
        ],
    )
    text = "\n\n".join(
        [
            "# Many rows: memory and time",
            f"{n_rows:,} rows of two classes and {N_FEATURES} float32 columns in a memory-mapped "
            f"file of {4 * N_FEATURES * n_rows / MB:.0f} MB. Each call has a process of its own. "
            "Another process reads its anonymous resident memory every 5 ms: that of NumPy, torch "
            "and all others, but not the pages of the file, which the system takes back when it "
            "needs them. *Peak beyond* is the highest reading, less that before the call and less "
            "the bytes of the answer itself. First stage: scaler and logistic regression, which "
            "passes a tenth of the training rows on (early exit: a tenth reach the last exit); "
            "then a net at its defaults. One thread; times are its CPU time.",
            expectation_table(expectations),
            table,
        ]
    )
    content = {"records": records, "expectations": expectations}
    write("scale", text, content, quick=arguments.quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=False))
