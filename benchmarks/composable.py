"""Do classes that come, go and are composed on a frozen trunk keep the accuracy of a full training?

Run alone with ``python -m benchmarks.composable --data DIR [--quick]``.
"""

from __future__ import annotations

import json
import time
import warnings
from copy import copy
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

from benchmarks.command import parse_arguments
from benchmarks.datasets import (
    CARD_FILE,
    CARD_WEEKS,
    MNIST_FILE,
    N_TEST_DAYS,
    TABLES,
    card_scenarios,
    check_files,
    draw_mnist,
    long_tail_mnist,
    table,
)
from benchmarks.objective import (
    expect,
    expectation_table,
    interval,
    markdown_table,
    plus_minus,
    write,
)

N_SEEDS, N_QUICK_SEEDS = 5, 2
N_MNIST, N_QUICK_MNIST = 20_000, 2_000  # training images, drawn anew for each seed
N_CHANNELS, N_HIDDEN = 5, 50  # of Lee's LeNet
BASE = {"lr": 1e-3, "epochs": 5, "batch_size": 32}
SIZES = range(2, 11)  # numbers of classes composed
N_ORDERS = 10  # in which classes are composed, as Lee's
N_RANDOM = 1000  # random features
REPLAY, CARD_REPLAY = 100, 1000  # rows kept of a class to train heads with

LEE = {"epochs": 5, "lr": 1e-4, "batch_size": 16, "correct_prior": False}
LOSSES = {"softmax": "softmax, CE", "softmax_bce": "softmax, BCE", "sigmoid": "sigmoid, BCE"}
# Accuracy of his base and of its ten classes composed.
PUBLISHED = {"softmax": (95.82, 85.86), "softmax_bce": (94.86, 78.50), "sigmoid": (95.48, 95.29)}
RIDGE, RANDOM, LDA, LOGISTIC, IMPRINT = (
    "ridge",
    "ridge, random features",
    "LDA",
    "logistic",
    "imprint",
)
HEADS = {
    RIDGE: ("RidgeHead", {}),
    RANDOM: ("RidgeHead", {"n_random_features": N_RANDOM}),
    LDA: ("LDAHead", {}),
    LOGISTIC: ("LogisticHead", {}),
    IMPRINT: ("ImprintHead", {}),
}
POSITIVE, DIFFERENCE, LONGER = "positive row", "difference", "softmax, CE: positive row, longer"
LEE_HEADS = {
    f"{title}: {rule}": ("PairwiseHead", {"keep": keep, "loss": loss, **LEE})
    for rule, keep in ((POSITIVE, "positive"), (DIFFERENCE, "difference"))
    for loss, title in LOSSES.items()
}
LEE_HEADS[LONGER] = ("PairwiseHead", {"keep": "positive", "correct_prior": False})
LEE_HEADS["softmax, CE: difference, longer"] = ("PairwiseHead", {"correct_prior": False})
OWN_LAYER = "the base's own last layer"
BALANCED = f"{RIDGE}, balanced"

KNOWN_DIGITS, ALL = 8, "all"
ADDED = (5, 20, 100, ALL)  # images of each digit that comes
REFITTED = "logistic, refitted on all rows"
FULL = "trunk and heads fitted anew"
FULL_NET = "the net fitted anew, by itself"

STREAMS = {"letter": 20, "pendigits": 7}  # classes known at the start
N_STREAM_ROWS, N_QUICK_STREAM_ROWS = 8_000, 3_000
NET = {"batch_size": 128, "max_epochs": 20, "device": "cpu"}
NET_OF = {"letter": {"dropout": 0.1}, "card": {"batch_size": 512}}
SGD, SGD_FEATURES = "SGDClassifier.partial_fit", "the same on the trunk's features"
RIVER = "river, one against the rest"
N_PASSES = 5  # of SGD over the first rows; those that come are seen once

LATE = 3  # the scenario of card fraud that comes by add_class
CARD_HEADS = (RIDGE, BALANCED, RANDOM, LDA, LOGISTIC)
CARD_TRUNKS = ("net", "passthrough")

FIXED = ("linear", "orthogonal", "hadamard", "simplex")
N_FIXED, N_MOST, RATIO = 10_000, 2_000, 100
TRAININGS = ("balanced", "long tail", "long tail, adjusted")


# --- the nets ---------------------------------------------------------------------------------
class LeNet(nn.Module):
    """Two convolutions with max-pooling, `body`'s hidden layer, dropout, a last layer.

    Shape: (b, 784) -> (b, n_classes); `body` gives (b, 50).
    """

    def __init__(self, n_classes):
        super().__init__()
        self.body = nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)),
            nn.Conv2d(1, N_CHANNELS, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(N_CHANNELS, N_CHANNELS, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * N_CHANNELS, N_HIDDEN),
            nn.ReLU(),
        )
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(N_HIDDEN, n_classes)

    def forward(self, x):
        """Logits of images."""
        return self.last(self.drop(self.body(x)))


def train_lenet(X, y, n_classes, seed, quick):
    """A LeNet trained by Adam on the cross-entropy, in eval mode."""
    torch.manual_seed(seed)
    net, n_epochs = LeNet(n_classes), 1 if quick else BASE["epochs"]
    optimizer = torch.optim.Adam(net.parameters(), lr=BASE["lr"])
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(X)).split(BASE["batch_size"]):
            loss = nn.functional.cross_entropy(net(X[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


@torch.inference_mode()
def features_of(net, X):
    """What the body makes of images, float64."""
    return torch.cat([net.body(part) for part in torch.from_numpy(X).split(2048)]).double().numpy()


def make_net(name, seed, quick):
    """The TabularNet below the heads of a data set."""
    from skmsc.neural import TabularNet

    quick_ones = {"max_epochs": 3} if quick else {}
    return TabularNet(**NET | NET_OF.get(name, {}) | quick_ones | {"random_state": seed})


def make_head(name):
    """A strategy by its name here."""
    import skmsc

    kind, params = (HEADS | LEE_HEADS)[name]
    return getattr(skmsc, kind)(**params)


def make_model(name, trunk, seed, **params):
    """ComposableHeadClassifier with a head by its name; "balanced" in it is the prior."""
    from skmsc import ComposableHeadClassifier

    head, _, prior = name.removesuffix(", balanced"), None, name.endswith(", balanced")
    if head == LOGISTIC:
        params = {"replay_size": REPLAY} | params
    return ComposableHeadClassifier(
        trunk=trunk,
        head=make_head(head),
        class_prior="balanced" if prior else "train",
        random_state=seed,
        **params,
    )


def percent(right):
    """Share of answers that are right, in percent."""
    return 100 * float(np.mean(right))


# --- 1. composing -----------------------------------------------------------------------------
def run_compose(data_dir, seed, quick):
    """Subsets of ten digits, composed in random orders, on the features of a frozen LeNet."""
    split = draw_mnist(data_dir, N_QUICK_MNIST if quick else N_MNIST, seed)
    net = train_lenet(split.X_train, split.y_train, 10, seed, quick)
    Z, Z_test = features_of(net, split.X_train), features_of(net, split.X_test)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(10) for _ in range(2 if quick else N_ORDERS)]
    with torch.inference_mode():
        logits = net.last(torch.from_numpy(Z_test).float()).numpy()
    record = {"question": "compose", "repeat": seed}
    sliced = over_orders(
        lambda classes, rows: classes[logits[np.ix_(rows, classes)].argmax(axis=1)],
        split.y_test,
        orders,
    )
    records = [{**record, "method": OWN_LAYER, "accuracy": sliced}]
    for name in (*LEE_HEADS, *HEADS):
        start = time.process_time()
        model = make_model(name, "passthrough", seed).fit(Z, split.y_train)
        seconds = time.process_time() - start
        accuracy = over_orders(
            lambda classes, rows, model=model: model.compose(classes).predict(Z_test[rows]),
            split.y_test,
            orders,
        )
        records.append({**record, "method": name, "accuracy": accuracy, "seconds": seconds})
        if name == RIDGE:  # the features are rows here, to compute them once: nothing else changes
            frozen = make_model(name, FrozenEstimator(net.body), seed)
            frozen.fit(split.X_train, split.y_train)
            differ = frozen.predict(split.X_test) != model.predict(Z_test)
            records[-1]["differ"] = int(differ.sum())
    return records


def over_orders(answer, y, orders):
    """Accuracy on the rows of the first 2, 3, ... classes of an order, mean over orders, percent.

    ``answer(classes, rows)`` are labels for rows.
    """
    known, found = {}, {size: [] for size in SIZES}
    for order in orders:
        for size in SIZES:
            classes = np.sort(order[:size])
            key = tuple(classes)
            if key not in known:
                rows = np.flatnonzero(np.isin(y, classes))
                known[key] = percent(answer(classes, rows) == y[rows])
            found[size].append(known[key])
    return {str(size): float(np.mean(values)) for size, values in found.items()}


# --- 2. digits that come, and rejection -------------------------------------------------------
def run_add(data_dir, seed, quick):
    """Digits 8 and 9 come to a LeNet of the others."""
    split = draw_mnist(data_dir, N_QUICK_MNIST if quick else N_MNIST, seed)
    X, y, is_old = split.X_train, split.y_train, split.y_train < KNOWN_DIGITS
    X_old, y_old = X[is_old], y[is_old]
    net = train_lenet(X_old, y_old, KNOWN_DIGITS, seed, quick)
    trunk = FrozenEstimator(net.body)
    records = []
    for name in (*HEADS, *(f"{h}, balanced" for h in (RIDGE, RANDOM, LDA, LOGISTIC))):
        model = make_model(name, trunk, seed).fit(X_old, y_old)
        for n in ADDED:
            grown, start = copy(model), time.process_time()
            for digit in range(KNOWN_DIGITS, 10):
                grown.add_class(X[rows_of(y, digit, n, seed)], digit)
            seconds = (time.process_time() - start) / (10 - KNOWN_DIGITS)
            n_old = REPLAY * KNOWN_DIGITS if name.startswith(LOGISTIC) else 0
            answer = grown.predict(split.X_test)
            records.append(added_record(seed, name, n, answer, split.y_test, seconds, n_old))
        if not name.endswith("balanced") and name != IMPRINT:
            records.append(run_reject(name, trunk, seed, (X_old, y_old), model, split))
    for n in ADDED:
        rows = [np.flatnonzero(is_old)]
        rows += [rows_of(y, digit, n, seed) for digit in range(KNOWN_DIGITS, 10)]
        rows = np.concatenate(rows)
        model, start = make_model(f"{LOGISTIC}, balanced", trunk, seed), time.process_time()
        model.fit(X[rows], y[rows])
        seconds = time.process_time() - start
        answer, n_old = model.predict(split.X_test), len(y_old)
        records.append(added_record(seed, REFITTED, n, answer, split.y_test, seconds, n_old))
    with torch.inference_mode():
        logits = net(torch.from_numpy(split.X_test)).numpy()
    known = split.y_test < KNOWN_DIGITS
    auroc = float(roc_auc_score(known, logits.max(axis=1) - np.logaddexp.reduce(logits, axis=1)))
    records.append(
        {"question": "reject", "repeat": seed, "method": OWN_LAYER, "conditional": auroc}
    )
    return records


def rows_of(y, digit, n, seed):
    """Rows of a digit, n of them or all."""
    rows = np.flatnonzero(y == digit)
    return rows if n == ALL else np.random.default_rng((seed, digit)).permutation(rows)[:n]


def added_record(seed, name, n, answer, y, seconds, n_old):
    """What comes of n images of each new digit."""
    right, is_old = answer == y, y < KNOWN_DIGITS
    return {
        "question": "add",
        "repeat": seed,
        "method": name,
        "n": str(n),
        "accuracy": percent(right),
        "old": percent(right[is_old]),
        "new": percent(right[~is_old]),
        "seconds": seconds,
        "old_rows": n_old,
    }


def run_reject(name, trunk, seed, rows, model, split):
    """How well the largest answer tells known digits from those never seen."""
    known = split.y_test < KNOWN_DIGITS
    sigmoid = make_model(name, trunk, seed, proba="sigmoid").fit(*rows)
    auroc = {
        what: float(roc_auc_score(known, one.predict_proba(split.X_test).max(axis=1)))
        for what, one in (("sigmoid", sigmoid), ("conditional", model))
    }
    return {"question": "reject", "repeat": seed, "method": name, **auroc}


# --- 3. one class after the other -------------------------------------------------------------
def run_stream(data_dir, data, seed, quick):
    """Classes of a table that come one at a time, in an order of the seed's own."""
    split = table(data_dir, data)
    X, X_test = (np.asarray(part, dtype=np.float64) for part in (split.X_train, split.X_test))
    y, y_test = split.y_train, split.y_test
    n_rows = min(N_QUICK_STREAM_ROWS if quick else N_STREAM_ROWS, len(y) - 1)
    rows, _ = train_test_split(np.arange(len(y)), train_size=n_rows, stratify=y, random_state=seed)
    X, y = X[rows], y[rows]
    order = np.random.default_rng(seed).permutation(int(y.max()) + 1)
    steps = range(STREAMS[data], len(order) + 1)
    first = fit_anew(data, X, y, order[: steps[0]], seed, quick)
    trunk = FrozenEstimator(first.trunk_)

    def record(method, learners):
        start, accuracy = time.process_time(), []
        for n, learn in zip(steps, learners, strict=True):
            predict = learn()
            rows = np.isin(y_test, order[:n])
            accuracy.append(percent(predict(X_test[rows]) == y_test[rows]))
        return {
            "question": data,
            "repeat": seed,
            "method": method,
            "accuracy": {str(n): value for n, value in zip(steps, accuracy, strict=True)},
            "seconds": time.process_time() - start,
        }

    def grown(name):
        known = np.isin(y, order[: steps[0]])
        model = make_model(name, trunk, seed).fit(X[known], y[known])
        yield lambda: model.predict
        for label in order[steps[0] :]:
            yield lambda label=label: model.add_class(X[y == label], label).predict

    records = [record(name, grown(name)) for name in HEADS]
    fits = [lambda: first] + [
        lambda n=n: fit_anew(data, X, y, order[:n], seed, quick) for n in steps[1:]
    ]
    models = []
    records.append(record(FULL, [lambda fit=fit: kept(models, fit()).predict for fit in fits]))
    records.append(record(FULL_NET, [lambda m=m: m.trunk_.predict for m in models]))
    for name, make in (
        (SGD, lambda: Streamed(StandardScaler(), SGDClassifier(loss="log_loss", random_state=seed))),
        (SGD_FEATURES, lambda: Streamed(Below(first.trunk_), SGDClassifier("log_loss"))),
    ):
        records.append(record(name, streamed(make(), X, y, order, steps, seed)))
    return records + run_river(record, X, y, order, steps, seed)


def fit_anew(data, X, y, labels, seed, quick):
    """Trunk and ridge heads on all rows of some classes."""
    rows = np.isin(y, labels)
    return make_model(RIDGE, make_net(data, seed, quick), seed).fit(X[rows], y[rows])
