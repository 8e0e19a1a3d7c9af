"""When does a GPU pay?

Run alone, where there is a CUDA device, with ``python -m benchmarks.gpu [--quick]``; the rows are
simulated.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import torch

from benchmarks.command import parse_arguments
from benchmarks.datasets import imbalanced
from benchmarks.early_exit_speed import ALL, DEPTH, rows, time_budgets
from benchmarks.objective import markdown_table, write
from benchmarks.timing import interleaved, torch_threads
from skmsc import EarlyExitClassifier
from skmsc.neural import MultiExitNet, TabularNet

N_ROWS, N_FEATURES = 200_000, 30
N_QUICK_ROWS = 8_192
WIDTHS, BATCH_SIZES, N_EPOCHS = (64, 256, 1024), (512, 4096), 2
N_NEW = (1, 1000, 1_000_000)
EXITS_WIDTHS, N_EXIT_TRAIN, N_EXIT_ROWS = (256, 2048), 12_000, 500_000
CPU, GPU = "cpu", "cuda"


def fit_both(X, y, width, batch_size, **how):
    """Times of ``fit`` on either device."""

    def fit(device):
        epochs = {"max_epochs": N_EPOCHS, "batch_size": batch_size, "validation": None}
        return TabularNet(width=width, device=device, random_state=0, **epochs).fit(X, y)

    return interleaved(
        {device: lambda device=device: fit(device) for device in (CPU, GPU)},
        baseline=CPU,
        warm=False,
        **how,
    )


def predict_both(X, y, width, n_new, **how):
    """Times of ``predict_proba`` on either device, by a net of one epoch."""
    rows_new = np.resize(X, (n_new, X.shape[1]))
    epoch = {"max_epochs": 1, "validation": None, "random_state": 0}
    nets = {
        device: TabularNet(width=width, device=device, **epoch).fit(X[:5000], y[:5000])
        for device in (CPU, GPU)
    }
    return interleaved(
        {device: lambda net=net: net.predict_proba(rows_new) for device, net in nets.items()},
        baseline=CPU,
        **how,
    )


def exits_on_gpu(width, n_train, n_rows, **how):
    """Records of early exit on the GPU at each budget, beside all stages on every row."""
    X, y, X_tune, y_tune = rows(n_train, n_train, 10)
    net = MultiExitNet(width=width, depth=DEPTH, max_epochs=5, device=GPU, random_state=0)
    model = EarlyExitClassifier(None, net, random_state=0).fit(X, y)
    X_new = np.resize(X_tune, (n_rows, X.shape[1]))
    return [
        {"width": width, **record} for record in time_budgets(model, X_tune, y_tune, X_new, **how)
    ]


def both_table(header, records):
    """Milliseconds on either device."""
    return markdown_table(
        [*header, "CPU, ms", "GPU, ms", "CPU over GPU"],
        [
            [
                *(f"{r[key]:,}" for key in header),
                *(f"{1000 * r[device]['wall_s']:.2f}" for device in (CPU, GPU)),
                f"{1 / r[GPU]['wall_ratio']:.2f}",
            ]
            for r in records
        ],
    )


def main(arguments):
    """Ask the question and write results/gpu.md and .json."""
    if not torch.cuda.is_available():
        sys.exit("This question needs a CUDA device; torch sees none.")
    how, n_rows, widths, n_new = {"seconds": 4, "min_turns": 3}, N_ROWS, WIDTHS, N_NEW
    exits = [(width, N_EXIT_TRAIN, N_EXIT_ROWS) for width in EXITS_WIDTHS]
    if arguments.quick:
        how, n_rows, widths, n_new = {"seconds": 0, "min_turns": 1}, N_QUICK_ROWS, (64,), (1, 1000)
        exits = [(64, 1000, 5000)]
    n_threads = len(os.sched_getaffinity(0))
    split = imbalanced(n_rows, 10, n_features=N_FEATURES)
    X, y = split.X_train.astype(np.float32), split.y_train
    with torch_threads(n_threads):
        fits = [
            {"width": width, "batch_size": size, **fit_both(X, y, width, size, **how)}
            for width in widths
            for size in BATCH_SIZES
        ]
        predictions = [
            {"width": width, "rows": n, **predict_both(X, y, width, n, **how)}
            for width in widths
            for n in n_new
        ]
        saved = [record for setting in exits for record in exits_on_gpu(*setting, **how)]
    name = torch.cuda.get_device_name()
    text = "\n\n".join(
        [
            "# When a GPU pays",
            f"GPU: {name}. The CPU works with {n_threads} threads. Wall time, medians; rows "
            "come from the CPU's memory, and scores go back there.",
            f"## fit: TabularNet, {n_rows:,} x {N_FEATURES} rows, {N_EPOCHS} epochs, no validation",
            both_table(["width", "batch_size"], fits),
            "## predict_proba: TabularNet",
            both_table(["width", "rows"], predictions),
            f"## Early exit on the GPU: {exits[0][2]:,} rows, {DEPTH} exits, ten classes",
            markdown_table(
                ["width", "budget", "all stages, ms", "multiply-adds saved", "time saved"],
                [
                    [
                        *(f"{r['width']:,}", r["budget"], f"{1000 * r['all_s']:.1f}"),
                        *(f"{r[ALL]['multiply_adds']:.3f}", f"{1 - r['wall_ratio']:.3f}"),
                    ]
                    for r in saved
                ],
            ),
        ]
    )
    records = {"fit": fits, "predict": predictions, "exits": saved}
    write("gpu", text, {"gpu": name, "records": records}, quick=arguments.quick)
    return []


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=False))
