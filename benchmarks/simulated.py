"""Small simulated files in the place of the public data sets: for quick runs without a download.

Names, columns, types of labels and splits are those of the real files, so that a quick run goes
through all the code of a full one. Nothing about the real data can be learned from them.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from sklearn.datasets import load_digits, make_classification

from benchmarks.datasets import (
    CARD_FEATURES,
    CARD_FILE,
    CARD_WEEKS,
    MNIST_FILE,
    N_DELAY_DAYS,
    N_TEST_DAYS,
    N_TRAIN_DAYS,
    TABLES,
    ULB_FILE,
)

N_ROWS = 2000  # of a table
FIRST_DAY = "2018-04-01"
N_CARD_ROWS_A_DAY, FRAUD_SHARE = 300, 0.05
N_ULB_ROWS = 3000
N_IMAGES = 2000


def write_files(folder):
    """All files that the benchmarks read, into `folder`."""
    card().to_parquet(folder / CARD_FILE)
    ulb().to_parquet(folder / ULB_FILE)
    for name, how in TABLES.items():
        table(name, how).to_parquet(folder / how.file)
    np.savez(folder / MNIST_FILE, **mnist())


def card():
    """Transactions from the first day of the real ones to the end of the last test week."""
    import pandas as pd

    rng = np.random.default_rng(0)
    start = pd.Timestamp(FIRST_DAY)
    end = pd.Timestamp(CARD_WEEKS[-1]) + pd.Timedelta(
        days=N_TRAIN_DAYS + N_DELAY_DAYS + N_TEST_DAYS
    )
    n_rows = N_CARD_ROWS_A_DAY * (end - start).days
    y = rng.random(n_rows) < FRAUD_SHARE
    scenario = np.where(y, rng.integers(1, 4, n_rows), 0)
    X = np.exp(rng.standard_normal((n_rows, len(CARD_FEATURES))))
    for kind in (1, 2, 3):  # each kind of fraud shows in columns of its own
        X[scenario == kind, 2 * kind : 2 * kind + 4] *= 3
    seconds = np.sort(rng.integers(0, (end - start).days * 86_400, n_rows))
    frame = pd.DataFrame(X.astype(np.float32), columns=list(CARD_FEATURES))
    return frame.assign(
        TX_DATETIME=start + pd.to_timedelta(seconds, unit="s"),
        CUSTOMER_ID=rng.integers(0, 2000, n_rows),
        TX_FRAUD=y.astype(np.int8),
        TX_FRAUD_SCENARIO=scenario.astype(np.int8),
    )


def ulb():
    """Card payments of which only a part is drawn uniformly."""
    import pandas as pd

    X, y = make_classification(
        N_ULB_ROWS, 29, n_informative=8, weights=[0.96], flip_y=0.005, random_state=0
    )
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(X, columns=[*(f"V{i}" for i in range(1, 29)), "Amount"])
    return frame.assign(
        Time=rng.permutation(N_ULB_ROWS), Class=y, in_uniform=rng.random(N_ULB_ROWS) < 0.9
    )


LABELS = {
    "adult": ("<=50K", ">50K"),
    "bank": ("no", "yes"),
    "mammography": (-1, 1),
    "letter": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "pendigits": tuple(range(10)),
    "optdigits": tuple(range(10)),
}
N_FEATURES = {"letter": 16, "pendigits": 16, "optdigits": 64, "mammography": 6}
WITH_TEXT = ("adult", "bank", "insurance", "intrusion")


def table(name, how):
    """Rows of one of `TABLES`, with a column of texts where the real one has some."""
    import pandas as pd

    labels = np.array(LABELS.get(name, (0, 1)))
    n_features = N_FEATURES.get(name, 10)
    X, y = make_classification(
        N_ROWS,
        n_features,
        n_informative=min(n_features, 10),
        n_redundant=0,
        n_classes=len(labels),
        n_clusters_per_class=1,
        weights=[0.85] if len(labels) == 2 else None,
        random_state=0,
    )
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(n_features)])
    if name in WITH_TEXT:
        frame["kind"] = np.array(["a", "b", "c", "d"])[(rng.integers(0, 3, N_ROWS) + y) % 4]
    frame[how.target] = labels[y]
    for column in how.drop:
        frame[column] = np.arange(N_ROWS)
    if how.split_column is not None:
        frame[how.split_column] = np.where(rng.random(N_ROWS) < 0.3, "test", "train")
    if how.first_test is not None:
        column, value = how.first_test
        frame[column] = value - 2 + 3 * np.arange(N_ROWS) // N_ROWS
    return frame


def mnist():
    """scikit-learn's digits, three times as large and framed: 28 x 28 pixels."""
    images, y = load_digits(return_X_y=True)
    images = np.kron(images.reshape(-1, 8, 8), np.ones((3, 3)))
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))) / 16 * 255
    rng = np.random.default_rng(0)
    part = partial(rng.integers, 0, len(y))
    train, test = part(2 * N_IMAGES), part(N_IMAGES)
    return {
        "x_train": images[train].astype(np.uint8),
        "y_train": y[train],
        "x_test": images[test].astype(np.uint8),
        "y_test": y[test],
    }
