"""Datasets of the benchmarks: each function returns one train/test split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder

CARD_FILE = "fraud_handbook_simulated.parquet"
ULB_FILE = "creditcard_ulb_subset.parquet"
MNIST_FILE = "mnist.npz"

CARD_WEEKS = ("2018-05-15", "2018-06-10", "2018-07-05", "2018-07-25")
CARD_FEATURES = (
    "TX_AMOUNT",
    "TX_DURING_WEEKEND",
    "TX_DURING_NIGHT",
    *(f"CUSTOMER_ID_{what}_{n}DAY_WINDOW" for n in (1, 7, 30) for what in ("NB_TX", "AVG_AMOUNT")),
    *(f"TERMINAL_ID_{what}_{n}DAY_WINDOW" for n in (1, 7, 30) for what in ("NB_TX", "RISK")),
)
N_TRAIN_DAYS = N_DELAY_DAYS = N_TEST_DAYS = 7

# The file holds all frauds of the full set, but only 25,800 uniformly drawn normals of its
# 284,315: each of those stands for this many rows, in fit and in every metric.
ULB_NORMAL_WEIGHT = 284315 / 25800


@dataclass(frozen=True)
class Split:
    """Training and test rows of one repeat.

    Attributes
    ----------
    name : str
        What distinguishes this repeat from the others of its dataset.
    X_train, X_test : ndarray or dataframe of shape (n_samples, n_features)
    y_train, y_test : ndarray of shape (n_samples,), values 0 and 1, or 0 to n_classes - 1
    w_train, w_test : ndarray of shape (n_samples,) or None
        Sample weights.
    customer_test, day_test : ndarray of shape (n_test_samples,) or None
        Card and day of each test row, where precision is counted per card and day.
    """

    name: str
    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    w_train: np.ndarray | None = None
    w_test: np.ndarray | None = None
    customer_test: np.ndarray | None = None
    day_test: np.ndarray | None = None


def check_files(data_dir, *names):
    """Stop with one clear line when a file of ``--data DIR`` is missing."""
    missing = [name for name in names if not (Path(data_dir) / name).is_file()]
    if missing:
        raise SystemExit(f"--data {data_dir}: missing {', '.join(missing)}")


@lru_cache(maxsize=2)
def _read(path):
    import pandas as pd

    return pd.read_parquet(path)


def card_week(data_dir, start):
    """Card transactions by the fraud-detection handbook's protocol.

    Train on the 7 days from `start`, skip 7 days (the delay until labels are known), test on the
    next 7. A test day leaves out the customers whose fraud was known by then: frauds from the
    first training day to the day before that test day minus the delay.
    """
    import pandas as pd

    check_files(data_dir, CARD_FILE)
    frame = _read(Path(data_dir) / CARD_FILE)
    day = (frame["TX_DATETIME"].dt.normalize() - pd.Timestamp(start)).dt.days.to_numpy()
    fraud = frame["TX_FRAUD"].to_numpy() == 1
    customer = frame["CUSTOMER_ID"].to_numpy()

    train = (day >= 0) & (day < N_TRAIN_DAYS)
    test = np.zeros(len(frame), dtype=bool)
    first_test_day = N_TRAIN_DAYS + N_DELAY_DAYS
    for test_day in range(first_test_day, first_test_day + N_TEST_DAYS):
        known = np.unique(customer[fraud & (day >= 0) & (day < test_day - N_DELAY_DAYS)])
        test |= (day == test_day) & ~np.isin(customer, known)
    if not fraud[train].any() or not fraud[test].any():
        raise ValueError(f"start={start!r}: no fraud in its training or test days.")

    X = frame[list(CARD_FEATURES)]
    return Split(
        name=start,
        X_train=X[train].to_numpy(dtype=np.float64),
        y_train=fraud[train].astype(int),
        X_test=X[test].to_numpy(dtype=np.float64),
        y_test=fraud[test].astype(int),
        customer_test=customer[test],
        day_test=day[test],
    )


def ulb(data_dir, seed):
    """ULB credit cards: all frauds and the uniformly drawn normals, which carry weights.

    Parameters
    ----------
    seed : int or "time"
        Seed of a stratified split that tests on a third of the rows, or "time": the first two
        thirds by time train.
    """
    check_files(data_dir, ULB_FILE)
    frame = _read(Path(data_dir) / ULB_FILE)
    frame = frame[(frame["Class"] == 1) | frame["in_uniform"]]
    y = frame["Class"].to_numpy().astype(int)
    X = frame[[*(f"V{i}" for i in range(1, 29)), "Amount"]].to_numpy(dtype=np.float64)
    weight = np.where(y == 1, 1.0, ULB_NORMAL_WEIGHT)
    if seed == "time":
        order = np.argsort(frame["Time"].to_numpy(), kind="stable")
        train, test = np.split(order, [2 * len(order) // 3])
    else:
        train, test = train_test_split(
            np.arange(len(y)), test_size=1 / 3, stratify=y, random_state=seed
        )
    return Split(str(seed), X[train], y[train], X[test], y[test], weight[train], weight[test])


@dataclass(frozen=True)
class Table:
    """How a file of mixed columns is read and split; by default stratified, a third tests.

    Attributes
    ----------
    file, target : str
    drop : tuple of str
        Columns that are no features.
    split_column : str or None
        Column that says "test", or something else for rows that train.
    train_share : float or None
        Share of the rows, the first of the file, that train.
    first_test : tuple of (str, value) or None
        Column, and its value from which on rows test.
    """

    file: str
    target: str
    drop: tuple = ()
    split_column: str | None = None
    train_share: float | None = None
    first_test: tuple | None = None

    @property
    def is_fixed(self):
        """Whether there is one split only."""
        return (self.split_column, self.train_share, self.first_test) != (None, None, None)


TABLES = {
    "adult": Table("adult_census.parquet", "income", split_column="split"),
    # Rows in the order of time; how long a call lasted is known only after it.
    "bank": Table("bank_marketing_additional.parquet", "y", ("duration",), train_share=2 / 3),
    "taiwan": Table("default_credit_taiwan.parquet", "class", ("ID",)),
    "mammography": Table("mammography.parquet", "y"),
    "letter": Table("letter.parquet", "lettr", train_share=0.8),
    "pendigits": Table("pendigits.parquet", "digit", split_column="split"),
    "optdigits": Table("optdigits.parquet", "digit", split_column="split"),
    "insurance": Table(
        "vehicle_insurance_fraud.parquet",
        "FraudFound_P",
        ("PolicyNumber",),
        first_test=("Year", 1996),
    ),
    "intrusion": Table(
        "nsl_kdd_20pct.parquet", "attack", ("label", "difficulty"), split_column="split"
    ),
}


def table(data_dir, name, seed=0):
    """One of `TABLES` as dataframes; the labels are 0, 1, ... in the order of the originals.

    `seed` is that of a stratified split; a table with a split of its own has only this one.
    """
    how = TABLES[name]
    check_files(data_dir, how.file)
    frame = _read(Path(data_dir) / how.file)
    y = np.unique(frame[how.target], return_inverse=True)[1]
    rows, repeat = np.arange(len(y)), "fixed"
    if how.split_column is not None:
        tests = frame[how.split_column] == "test"
        train, test = rows[~tests], rows[tests]
    elif how.train_share is not None:
        train, test = np.split(rows, [round(how.train_share * len(y))])
    elif how.first_test is not None:
        column, value = how.first_test
        train, test = rows[frame[column] < value], rows[frame[column] >= value]
    else:
        train, test = train_test_split(rows, test_size=1 / 3, stratify=y, random_state=seed)
        repeat = str(seed)
    no_features = [how.target, *how.drop, *filter(None, [how.split_column])]
    X = frame.drop(columns=no_features)
    return Split(repeat, X.iloc[train], y[train], X.iloc[test], y[test])


def mnist(data_dir, n_train):
    """The first training images and all test images, pixels from 0 to 1 in a row."""
    check_files(data_dir, MNIST_FILE)
    with np.load(Path(data_dir) / MNIST_FILE) as parts:
        X_train, y_train, X_test, y_test = (
            parts[part] for part in ("x_train", "y_train", "x_test", "y_test")
        )
    X_train, X_test = (
        X.reshape(len(X), -1).astype(np.float32) / 255 for X in (X_train[:n_train], X_test)
    )
    return Split("fixed", X_train, y_train[:n_train].astype(int), X_test, y_test.astype(int))


def few_rows(split, n_train, seed):
    """The same split with a stratified draw of its training rows."""
    y = split.y_train
    rows, _ = train_test_split(np.arange(len(y)), train_size=n_train, stratify=y, random_state=seed)
    X = split.X_train.iloc[rows] if hasattr(split.X_train, "iloc") else split.X_train[rows]
    return replace(split, X_train=X, y_train=y[rows])


@dataclass(frozen=True)
class SpecialistTrial:
    """Rows of one specialist trial; each part is ``(X, y)`` with the columns named below.

    `later_train` fits stage 2, `later_tune` sets its cut, `train` trains stage 1, `test` judges.
    """

    later_train: tuple
    later_tune: tuple
    train: tuple
    test: tuple


SPECIALIST_CHEAP = tuple(range(8))
SPECIALIST_COSTLY = tuple(range(8, 14))


def specialist(seed, *, n_train=300, n_later=4000, n_test=20000):
    """Stage 2 is a specialist: it cannot see 40 % of the positives.

    All 14 features are standard normal; 10 % of the rows are positive. Kind A, 60 % of the
    positives, is visible to both stages; kind B, the rest, in no costly feature; 5 % of the
    negatives look like kind A in the costly features and are found in cheap feature 3.
    """
    rng = np.random.default_rng(seed)

    def draw(n_rows):
        X = rng.standard_normal((n_rows, len(SPECIALIST_CHEAP) + len(SPECIALIST_COSTLY)))
        y = (rng.random(n_rows) < 0.1).astype(int)
        kind = rng.random(n_rows)
        kind_a = (y == 1) & (kind < 0.6)
        kind_b = (y == 1) & (kind >= 0.6)
        decoy = (y == 0) & (kind < 0.05)
        costly_shifted = list(SPECIALIST_COSTLY[:3])
        for rows, shifts in (
            (kind_a, {0: 1.2, 1: 0.8, **dict.fromkeys(costly_shifted, 1.6)}),
            (kind_b, {2: 1.6, 0: -0.6}),
            (decoy, {3: 1.5, **dict.fromkeys(costly_shifted, 1.6)}),
        ):
            for column, shift in shifts.items():
                X[rows, column] += shift
        return X, y

    return SpecialistTrial(draw(n_later), draw(n_later), draw(n_train), draw(n_test))


@dataclass(frozen=True)
class FewLabels:
    """Few labelled rows for a screen, many rows without a label, and others for the last stage.

    Attributes
    ----------
    later, labeled, pool, test : tuple of (X, y)
        `later` fits the last stage, `labeled` and `pool` train the screen, `test` judges. The
        labels of the pool are for a screen that is given all of them.
    screen_columns, later_columns : tuple of int
        What each stage sees.
    """

    later: tuple
    labeled: tuple
    pool: tuple
    test: tuple
    screen_columns: tuple
    later_columns: tuple


def few_labels(later, split, seed, *, n_positive=20, n_negative=180):
    """So many labelled rows of each class, drawn from the training rows; the others are a pool.

    `later` is the ``(X, y)`` that fits the last stage; both stages see all columns.
    """
    rng, X, y = np.random.default_rng(seed), split.X_train, split.y_train
    rows = np.concatenate(
        [
            rng.choice(np.flatnonzero(y == label), n, replace=False)
            for label, n in ((1, n_positive), (0, n_negative))
        ]
    )
    rest = np.setdiff1d(np.arange(len(y)), rows)
    columns = tuple(range(X.shape[1]))
    labeled, pool, test = (X[rows], y[rows]), (X[rest], y[rest]), (split.X_test, split.y_test)
    return FewLabels(later, labeled, pool, test, columns, columns)


def few_labels_card(data_dir, start, seeds):
    """A card week, its last stage's rows from the week before; one draw of labels for each seed."""
    import pandas as pd

    split = card_week(data_dir, start)
    before = card_week(data_dir, str(pd.Timestamp(start) - pd.Timedelta(days=N_TRAIN_DAYS)))
    later = before.X_train, before.y_train
    return [few_labels(later, split, seed) for seed in seeds]


def few_labels_table(data_dir, name, seed):
    """One of `TABLES`, half of its training rows for the last stage; texts one-hot encoded."""
    split = one_hot(table(data_dir, name, seed))
    X, y = split.X_train, split.y_train
    own, later = train_test_split(np.arange(len(y)), test_size=0.5, stratify=y, random_state=seed)
    return few_labels((X[later], y[later]), replace(split, X_train=X[own], y_train=y[own]), seed)


def one_hot(split):
    """The same split as arrays, with a column for each text that its training rows hold."""
    texts = split.X_train.select_dtypes(exclude="number").columns.tolist()
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
        remainder="passthrough",
    )
    X_train = encode.fit_transform(split.X_train)
    return replace(split, X_train=X_train, X_test=encode.transform(split.X_test))


def few_shot(seed, *, n_later=5000, n_labeled=200, n_pool=5000, n_test=10000):
    """A strong last stage, and a screen that sees ten random columns of thirty."""
    sizes = n_later, n_labeled, n_pool, n_test
    X, y = make_classification(
        n_samples=sum(sizes),
        n_features=30,
        n_informative=14,
        n_redundant=4,
        n_clusters_per_class=5,
        weights=[0.9],
        class_sep=1.3,
        flip_y=0.02,
        random_state=seed,
    )
    cuts = np.cumsum(sizes)[:-1]
    parts = zip(np.split(X, cuts), np.split(y, cuts), strict=True)
    cheap = np.random.default_rng(seed).choice(30, 10, replace=False)
    return FewLabels(*parts, screen_columns=tuple(cheap), later_columns=tuple(range(30)))


def few_labels_specialist(seed, *, n_labeled=300, n_pool=5000):
    """`specialist` with a pool of more rows of the same kind."""
    trial = specialist(seed, n_train=n_labeled + n_pool)
    X, y = trial.train
    return FewLabels(
        trial.later_train,
        (X[:n_labeled], y[:n_labeled]),
        (X[n_labeled:], y[n_labeled:]),
        trial.test,
        SPECIALIST_CHEAP,
        SPECIALIST_COSTLY,
    )


def imbalanced(n_train, n_test, seed=0, *, n_features=15):
    """1 % positives: rows for timing, where only the sizes matter."""
    X, y = make_classification(
        n_samples=n_train + n_test,
        n_features=n_features,
        n_informative=8,
        weights=[0.99],
        flip_y=0.002,
        class_sep=1.0,
        random_state=seed,
    )
    return Split(str(seed), X[:n_train], y[:n_train], X[n_train:], y[n_train:])


def card_scenarios(data_dir, start):
    """`card_week` with the kind of fraud as label: 0 is genuine, 1 to 3 are the scenarios.

    The handbook's simulator says by which of three means a card was misused. The scenario is known
    with the fraud itself, so that it may be a label and never a feature.
    """
    import pandas as pd

    split = card_week(data_dir, start)
    frame = _read(Path(data_dir) / CARD_FILE)
    day = (frame["TX_DATETIME"].dt.normalize() - pd.Timestamp(start)).dt.days.to_numpy()
    scenario = frame["TX_FRAUD_SCENARIO"].to_numpy().astype(int)
    # A test day leaves out customers as a whole: day and customer tell whether a row is in it.
    n_customers = int(frame["CUSTOMER_ID"].max()) + 1
    own = day * n_customers + frame["CUSTOMER_ID"].to_numpy()
    test = np.isin(own, split.day_test * n_customers + split.customer_test.astype(int))
    y_train, y_test = scenario[(day >= 0) & (day < N_TRAIN_DAYS)], scenario[test]
    if not (
        np.array_equal(y_train > 0, split.y_train) and np.array_equal(y_test > 0, split.y_test)
    ):
        raise ValueError(f"start={start!r}: scenarios and frauds differ.")
    return replace(split, y_train=y_train, y_test=y_test)


def draw_mnist(data_dir, n_train, seed):
    """`mnist` with training images drawn from all of them."""
    split = mnist(data_dir, None)
    rows = np.random.default_rng(seed).choice(len(split.y_train), n_train, replace=False)
    return replace(split, X_train=split.X_train[rows], y_train=split.y_train[rows])


def long_tail_mnist(data_dir, n_most, ratio, seed):
    """`mnist` with `n_most` training images of one digit, and ever fewer of the others.

    The numbers fall by one factor from digit to digit, down to ``n_most / ratio``; the seed draws
    the order of the digits and the images. The test images stay as they are.
    """
    split = mnist(data_dir, None)
    rng = np.random.default_rng(seed)
    sizes = np.round(n_most * ratio ** (-np.arange(10) / 9)).astype(int)
    rows = np.concatenate(
        [
            rng.choice(np.flatnonzero(split.y_train == digit), size, replace=False)
            for digit, size in zip(rng.permutation(10), sizes, strict=True)
        ]
    )
    return replace(split, X_train=split.X_train[rows], y_train=split.y_train[rows])
