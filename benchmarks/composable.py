"""Do classes that come, go and are composed on a frozen trunk keep what a full training gives?

Run alone with ``python -m benchmarks.composable --data DIR [--quick]``.
"""

from __future__ import annotations

import time
from copy import copy
from functools import partial

import numpy as np
import torch
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
from benchmarks.jobs import run_jobs
from benchmarks.objective import (
    expect,
    expectation_table,
    interval,
    markdown_table,
    plus_minus,
    write,
)

N_SEEDS, N_QUICK_SEEDS = 3, 1

# 1. Composing, and 2. digits that come.
N_MNIST, N_QUICK_MNIST = 20_000, 1_000  # training images, drawn anew for each seed
N_CHANNELS, N_HIDDEN = 5, 50  # of the LeNet
BASE = {"lr": 1e-3, "n_epochs": 5, "batch_size": 32}
SIZES, N_ORDERS = range(2, 11), 5
N_RANDOM = 1000
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
# Lee's losses by our names: his, accuracy of his base, and of his ten classes composed.
PUBLISHED = {
    "softmax": ("CE of a softmax", 95.82, 85.86),
    "softmax_bce": ("BCE of a softmax", 94.86, 78.50),
    "sigmoid": ("BCE of sigmoids", 95.48, 95.29),
}
# Batches of 4: as many steps, about, as he takes in 5 epochs of 60,000 images in batches of 64.
LEE = {"epochs": 5, "lr": 1e-4, "batch_size": 4, "correct_prior": False}
LONGER = {"correct_prior": False}  # 20 epochs at .01, in batches of 64
LEE_RULES = {loss: f"positive row, {title}" for loss, (title, *_) in PUBLISHED.items()}
DIFFERENCE = "difference, CE of a softmax"
PAIRWISE = {
    **{
        rule: ("PairwiseHead", {"keep": "positive", "loss": loss} | LEE)
        for loss, rule in LEE_RULES.items()
    },
    DIFFERENCE: ("PairwiseHead", LEE),
    f"{LEE_RULES['softmax']}, longer": ("PairwiseHead", {"keep": "positive"} | LONGER),
    f"{DIFFERENCE}, longer": ("PairwiseHead", LONGER),
}
OWN_LAYER = "the net's own last layer"
KNOWN_DIGITS, EACH = 8, (5, 20, 100, "all")
REPLAY = 100  # rows of each class that are kept to train heads with
BALANCED = ", balanced"
REFITTED = f"{LOGISTIC}, refitted on all rows{BALANCED}"
ADDED_HEADS = (*HEADS, *(name + BALANCED for name in (RIDGE, RANDOM, LDA, LOGISTIC)))

# 3. One class after the other.
STREAMS = {"letter": 20, "pendigits": 7}  # classes known at the start
N_STREAM_ROWS, N_QUICK_STREAM_ROWS = 8_000, 1_000
NET = {"batch_size": 128, "max_epochs": 20, "device": "cpu"}
NET_OF = {"letter": {"dropout": 0.1}, "card": {"batch_size": 512}}
ANEW, NET_ANEW = "trunk and ridge heads anew", "the net anew, its own last layer"
SGD, SGD_FEATURES = "SGDClassifier.partial_fit", "the same on the trunk's features"
RIVER = "river, one against the rest"
N_PASSES = 5  # of SGD over the first rows

# 4. Card fraud by scenario.
LATE = 3  # the scenario that comes last
CARD_REPLAY, SMALL_REPLAY = 4_000, 1_000
FEW_KEPT = f"{LOGISTIC}, {SMALL_REPLAY:,} kept"
CARD_HEADS = (RIDGE, RIDGE + BALANCED, RANDOM, LDA, LOGISTIC, FEW_KEPT)
CARD_REFITTED = f"{LOGISTIC}, refitted on all rows"
CARD_TRUNKS = {"net": "below a TabularNet", "rows": "on the rows themselves"}
N_QUICK_CARD = 2_000

# 5. Fixed heads.
KINDS = ("linear", "orthogonal", "hadamard", "simplex")
N_FIXED, N_MOST, RATIO = 10_000, 2_000, 100
TRAININGS = ("balanced", "long tail", "long tail, adjusted")


# --- nets and heads ---------------------------------------------------------------------------
class LeNet(nn.Module):
    """Two convolutions with max-pooling, a hidden layer, dropout, a last layer.

    Shape: (b, 784) -> (b, n_classes); `body`, all below the dropout, gives (b, 50).
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
    net = LeNet(n_classes)
    optimizer = torch.optim.Adam(net.parameters(), lr=BASE["lr"])
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(1 if quick else BASE["n_epochs"]):
        for rows in torch.randperm(len(X)).split(BASE["batch_size"]):
            loss = nn.functional.cross_entropy(net(X[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


@torch.inference_mode()
def outputs_of(module, X):
    """What a module makes of images, float64."""
    return torch.cat([module(part) for part in torch.from_numpy(X).split(2048)]).double().numpy()


def make_net(data, seed, quick):
    """The TabularNet of a data set."""
    from skmsc.neural import TabularNet

    quick_ones = {"max_epochs": 3} if quick else {}
    return TabularNet(**NET | NET_OF.get(data, {}) | quick_ones | {"random_state": seed})


def make_model(name, trunk, seed, *, replay_size=REPLAY, **params):
    """ComposableHeadClassifier with the head of that name; with balanced classes if it says so."""
    import skmsc

    kind, head_params = (HEADS | PAIRWISE)[name.removesuffix(BALANCED)]
    return skmsc.ComposableHeadClassifier(
        trunk=trunk,
        head=getattr(skmsc, kind)(**head_params),
        class_prior="balanced" if name.endswith(BALANCED) else "train",
        replay_size=replay_size if name.startswith(LOGISTIC) else 0,
        random_state=seed,
        **params,
    )


def percent(right):
    """Share of the answers that are right."""
    return 100 * float(np.mean(right))


# --- 1. composing -----------------------------------------------------------------------------
def run_compose(data_dir, seed, quick):
    """Subsets of ten digits, composed in random orders, above a frozen LeNet."""
    split = draw_mnist(data_dir, N_QUICK_MNIST if quick else N_MNIST, seed)
    y, y_test = split.y_train, split.y_test
    net = train_lenet(split.X_train, y, 10, seed, quick)
    logits = outputs_of(net, split.X_test)
    # The features are the rows of all models, so that they are computed once.
    Z, Z_test = (outputs_of(net.body, X) for X in (split.X_train, split.X_test))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(10) for _ in range(2 if quick else N_ORDERS)]

    def records_of(method, answer, **more):
        record = {"question": "compose", "repeat": seed, "method": method, **more}
        accuracy = over_orders(answer, y_test, orders)
        return [{**record, "n": n, "accuracy": value} for n, value in accuracy.items()]

    records = records_of(OWN_LAYER, lambda some, rows: some[logits[np.ix_(rows, some)].argmax(1)])
    for method in (*PAIRWISE, *HEADS):
        start = time.process_time()
        model = make_model(method, "passthrough", seed).fit(Z, y)
        seconds = time.process_time() - start
        more = {"seconds": seconds}
        if method == RIDGE:
            frozen = make_model(method, net.body, seed).fit(split.X_train, y)
            differ = frozen.predict(split.X_test) != model.predict(Z_test)
            more["differ_from_module"] = int(differ.sum())
        records += records_of(
            method, lambda some, rows, m=model: m.compose(some).predict(Z_test[rows]), **more
        )
    return records


def over_orders(answer, y, orders):
    """Accuracy on the rows of an order's first 2, 3, ... classes, in percent, mean over orders.

    ``answer(classes, rows)`` are labels for test rows.
    """
    known, found = {}, {}
    for size in SIZES:
        values = []
        for order in orders:
            classes = np.sort(order[:size])
            key = tuple(classes.tolist())
            if key not in known:
                rows = np.flatnonzero(np.isin(y, classes))
                known[key] = percent(answer(classes, rows) == y[rows])
            values.append(known[key])
        found[size] = float(np.mean(values))
    return found


# --- 2. digits that come, and those that never did --------------------------------------------
def run_add(data_dir, seed, quick):
    """Digits 8 and 9 come to a LeNet of the others."""
    split = draw_mnist(data_dir, N_QUICK_MNIST if quick else N_MNIST, seed)
    X, y, n_test = split.X_train, split.y_train, N_QUICK_MNIST if quick else None
    X_test, y_test = split.X_test[:n_test], split.y_test[:n_test]
    old = np.flatnonzero(y < KNOWN_DIGITS)
    net = train_lenet(X[old], y[old], KNOWN_DIGITS, seed, quick)
    trunk, is_old = net.body, y_test < KNOWN_DIGITS
    new = {n: new_rows(y, n, seed) for n in EACH}

    def record(method, n, model, seconds, n_old):
        right = model.predict(X_test) == y_test
        accuracy, on_old, on_new = map(percent, (right, right[is_old], right[~is_old]))
        return {
            **{"question": "add", "repeat": seed, "method": method, "n": n, "accuracy": accuracy},
            **{"on_old": on_old, "on_new": on_new, "seconds": seconds, "old_rows": n_old},
        }

    records = []
    for method in ADDED_HEADS:
        model = make_model(method, trunk, seed).fit(X[old], y[old])
        n_old = REPLAY * KNOWN_DIGITS if method.startswith(LOGISTIC) else 0
        for n, digits in new.items():
            grown, start = copy(model), time.process_time()
            for digit, rows in digits.items():
                grown.add_class(X[rows], digit)
            seconds = (time.process_time() - start) / len(digits)
            records.append(record(method, n, grown, seconds, n_old))
        if method in HEADS:
            sigmoid = make_model(method, trunk, seed, proba="sigmoid").fit(X[old], y[old])
            scores = {"conditional": model, "sigmoid": sigmoid}
            scores = {what: m.predict_proba(X_test).max(axis=1) for what, m in scores.items()}
            records.append(rejection(seed, method, is_old, scores))
    for n, digits in new.items():
        rows, start = np.concatenate([old, *digits.values()]), time.process_time()
        model = make_model(LOGISTIC + BALANCED, trunk, seed).fit(X[rows], y[rows])
        seconds = (time.process_time() - start) / len(digits)
        records.append(record(REFITTED, n, model, seconds, len(old)))
    logits = outputs_of(net, X_test)
    scores = {"conditional": logits.max(axis=1) - np.logaddexp.reduce(logits, axis=1)}
    return [*records, rejection(seed, OWN_LAYER, is_old, scores)]


def new_rows(y, n, seed):
    """Rows of each digit that comes: n of them, or all."""
    found = {}
    for digit in range(KNOWN_DIGITS, 10):
        rows = np.random.default_rng((seed, digit)).permutation(np.flatnonzero(y == digit))
        found[digit] = rows if n == "all" else rows[:n]
    return found


def rejection(seed, method, is_known, scores):
    """How well scores tell digits that the trunk and the heads know from those that they do not."""
    auroc = {what: float(roc_auc_score(is_known, score)) for what, score in scores.items()}
    return {"question": "reject", "repeat": seed, "method": method, **auroc}


# --- 3. one class after the other -------------------------------------------------------------
# A learner has `start(X, y)` with rows of the first classes, `add(X, y)` with those of a class that
# comes, and `answers(X)`, labels by the name of the method.
class Grown:
    """Our classifier with a head, on a frozen trunk."""

    def __init__(self, method, trunk, seed):
        self.method, self.model = method, make_model(method, trunk, seed)

    def start(self, X, y):
        self.model.fit(X, y)

    def add(self, X, y):
        self.model.add_classes(X, y)

    def answers(self, X):
        return {self.method: self.model.predict(X)}


class Anew:
    """Trunk and heads that are fitted anew on all rows; the net by itself, too."""

    def __init__(self, make):
        self.make, self.models = make, []

    def start(self, X, y):
        self.X, self.y = X, y
        self.models.append(self.make().fit(X, y))

    def add(self, X, y):
        self.start(np.concatenate([self.X, X]), np.concatenate([self.y, y]))

    def answers(self, X):
        model = self.models[-1]
        return {ANEW: model.predict(X), NET_ANEW: model.trunk_.predict(X)}


class Streamed:
    """SGDClassifier, which is told of all classes and sees scaled rows as they come."""

    def __init__(self, method, features, n_classes, seed):
        self.method, self.features, self.classes = method, features, np.arange(n_classes)
        self.model = SGDClassifier(loss="log_loss", random_state=seed)
        self.rng = np.random.default_rng(seed)

    def start(self, X, y):
        self.scaler = StandardScaler().fit(self.features(X))
        for _ in range(N_PASSES):
            rows = self.rng.permutation(len(y))
            self.add(X[rows], y[rows])

    def add(self, X, y):
        self.model.partial_fit(self.scaler.transform(self.features(X)), y, classes=self.classes)

    def answers(self, X):
        return {self.method: self.model.predict(self.scaler.transform(self.features(X)))}


class River:
    """One logistic regression against the rest for each class, by river, one row at a time."""

    def __init__(self, seed):
        from river import linear_model, multiclass, preprocessing

        self.model = preprocessing.StandardScaler() | multiclass.OneVsRestClassifier(
            linear_model.LogisticRegression()
        )
        self.rng = np.random.default_rng(seed)

    def start(self, X, y):
        rows = self.rng.permutation(len(y))
        self.add(X[rows], y[rows])

    def add(self, X, y):
        for row, label in zip(X.tolist(), y.tolist(), strict=True):
            self.model.learn_one(dict(enumerate(row)), label)

    def answers(self, X):
        rows = (dict(enumerate(row)) for row in X.tolist())
        return {RIVER: np.array([self.model.predict_one(row) for row in rows])}


def run_stream(data_dir, data, seed, quick):
    """Classes of a table that come one at a time, in an order of the seed's own."""
    split = table(data_dir, data)
    X, X_test = (np.asarray(part, dtype=np.float64) for part in (split.X_train, split.X_test))
    y, y_test = split.y_train, split.y_test
    n_rows = N_QUICK_STREAM_ROWS if quick else N_STREAM_ROWS
    if n_rows < len(y):
        rows = train_test_split(np.arange(len(y)), train_size=n_rows, stratify=y, random_state=seed)
        X, y = X[rows[0]], y[rows[0]]
    order, n_known = np.random.default_rng(seed).permutation(y.max() + 1), STREAMS[data]

    def follow(learner):
        known = np.isin(y, order[:n_known])
        learner.start(X[known], y[known])
        records, seconds = [], None
        for n in range(n_known, len(order) + 1):
            if n > n_known:
                mine, start = y == order[n - 1], time.process_time()
                learner.add(X[mine], y[mine])
                seconds = time.process_time() - start
            rows = np.isin(y_test, order[:n])
            for method, answer in learner.answers(X_test[rows]).items():
                record = {"question": data, "repeat": seed, "method": method, "n": n}
                accuracy = percent(answer == y_test[rows])
                records.append({**record, "accuracy": accuracy, "seconds": seconds})
        return records

    anew = Anew(lambda: make_model(RIDGE, make_net(data, seed, quick), seed))
    records, trunk = follow(anew), anew.models[0].trunk_  # of the first classes alone
    # The same seed holds the same rows out, which the trunk has not seen either.
    learners = [Grown(method, FrozenEstimator(trunk), seed) for method in HEADS]
    for method, features in ((SGD, np.asarray), (SGD_FEATURES, trunk.features)):
        learners.append(Streamed(method, features, len(order), seed))
    try:
        learners.append(River(seed))
    except ImportError:  # it is in the extra "bench"
        print("river is not installed: its rows are left out", flush=True)
    return records + [record for learner in learners for record in follow(learner)]


# --- 4. card fraud by scenario ----------------------------------------------------------------
def run_card(data_dir, week, quick):
    """Card fraud of three scenarios, one of which comes late."""
    split = card_scenarios(data_dir, week)
    X, y, seed = split.X_train, split.y_train, CARD_WEEKS.index(week)
    if quick:
        genuine = np.flatnonzero(y == 0)
        some = np.append(genuine[:N_QUICK_CARD], np.flatnonzero(y))
        X, y = X[some], y[some]
    known, fraud = y != LATE, split.y_test > 0
    first = make_model(RIDGE, make_net("card", seed, quick), seed).fit(X[known], y[known])
    records = []
    for below, trunk in (("net", FrozenEstimator(first.trunk_)), ("rows", "passthrough")):
        for method in (*CARD_HEADS, CARD_REFITTED):
            start = time.process_time()
            if method == CARD_REFITTED:
                model = make_model(LOGISTIC, trunk, seed).fit(X, y)
            else:
                replay_size = SMALL_REPLAY if method == FEW_KEPT else CARD_REPLAY
                kind = LOGISTIC if method == FEW_KEPT else method
                model = make_model(kind, trunk, seed, replay_size=replay_size)
                model.fit(X[known], y[known]).add_class(X[~known], LATE)
            seconds = time.process_time() - start
            proba = model.predict_proba(split.X_test)
            answer, score = model.classes_[proba.argmax(axis=1)], proba[:, 1:].sum(axis=1)
            alert = answer > 0
            records.append(
                {
                    **{"question": "card", "repeat": week, "below": below, "method": method},
                    "ap": float(average_precision_score(fraud, score)),
                    "alerts": float(alert.sum() / N_TEST_DAYS),
                    "caught": float((alert & fraud).sum() / N_TEST_DAYS),
                    "frauds": float(fraud.sum() / N_TEST_DAYS),
                    "late": percent(alert[split.y_test == LATE]),
                    "log_loss": float(log_loss(fraud, np.clip(score, 0, 1))),
                    "brier": float(brier_score_loss(fraud, np.clip(score, 0, 1))),
                    "seconds": seconds,
                }
            )
    return records


# --- 5. fixed heads ---------------------------------------------------------------------------
def run_fixed(data_dir, kind, seed, quick):
    """A TabularNet on images with a last layer that learns, or with fixed rows."""
    n_rows, n_most = (N_QUICK_MNIST, N_QUICK_MNIST // 5) if quick else (N_FIXED, N_MOST)
    records = []
    for training in TRAININGS:
        if training == "balanced":
            split = draw_mnist(data_dir, n_rows, seed)
        else:
            split = long_tail_mnist(data_dir, n_most, RATIO, seed)
        net = make_net("mnist", seed, quick)
        net.set_params(head=kind, logit_adjustment=float(training.endswith("adjusted")))
        net.fit(split.X_train, split.y_train)
        n_parameters = sum(p.numel() for p in net.net_.module_.head.parameters())
        records.append(
            {
                **{"question": "fixed", "repeat": seed, "method": kind, "n": training},
                "accuracy": percent(net.predict(split.X_test) == split.y_test),
                "parameters": n_parameters,
            }
        )
    return records


RUNS = {
    "compose": run_compose,
    "add": run_add,
    "stream": run_stream,
    "card": run_card,
    "fixed": run_fixed,
}


def run(data_dir, quick, job):
    """Records of one job."""
    question, *which = job
    return RUNS[question](data_dir, *which, quick)


# --- summary ----------------------------------------------------------------------------------
def values(records, key, **fields):
    """Values by repeat of the records with such fields."""
    return {
        r["repeat"]: r[key]
        for r in records
        if r.get(key) is not None and all(r.get(field) == value for field, value in fields.items())
    }


def gains(records, key, of, against):
    """Interval of the difference between two methods, paired by repeat; None if not run."""
    left, right = values(records, key, **of), values(records, key, **against)
    both = sorted(left.keys() & right.keys())
    return interval([left[repeat] - right[repeat] for repeat in both]) if both else None


def cell(found, digits=2):
    """Mean ± half width of the interval over repeats; - if there are none."""
    return plus_minus(interval(list(found.values())), digits) if found else "-"


def signed(summary, digits=2):
    """A difference; bold where its interval lies above 0, in italics where below; - if not run."""
    if summary is None:
        return "-"
    text, margin = plus_minus(summary, digits), summary["half_width"] or 0.0
    text = text if text.startswith("-") else f"+{text}"
    if summary["mean"] - margin > 0:
        return f"**{text}**"
    return f"*{text}*" if summary["mean"] + margin < 0 else text


def is_below(summary):
    """Whether a difference was run and its interval lies below 0."""
    return summary is not None and summary["mean"] + (summary["half_width"] or 0.0) < 0


def table_by_n(records, question, methods, ns, key="accuracy"):
    """Rows: methods; columns: what was counted."""
    rows = []
    for method in methods:
        of = {"question": question, "method": method}
        rows.append([method, *(cell(values(records, key, n=n, **of)) for n in ns)])
    return markdown_table(["", *map(str, ns)], rows)


def published_table(records):
    """Lee's base and ten classes composed by his rule, and ours."""
    rows = []
    for loss, (title, *his) in PUBLISHED.items():
        ours = [
            cell(values(records, "accuracy", question="compose", n=10, method=method))
            for method in (OWN_LAYER, LEE_RULES[loss])
        ]
        rows.append([title, *his, *ours])
    header = ["loss", "his base", "his ten composed", "our base", "our ten composed by his rule"]
    return markdown_table(header, rows)


def cost_table(records):
    """What it costs to add a digit, with 100 images."""
    rows = []
    for method in (*ADDED_HEADS, REFITTED):
        of = {"question": "add", "method": method, "n": 100}
        found = [values(records, key, **of) for key in ("on_old", "on_new", "old_rows")]
        seconds = values(records, "seconds", **of)
        rows.append(
            [
                method,
                *map(cell, found[:2]),
                cell(seconds, 3),
                f"{max(found[2].values(), default=0):,}",
            ]
        )
    header = ["100 images of each", "on the old digits", "on the new", "CPU seconds a class"]
    return markdown_table([*header, "old rows read"], rows)


def stream_table(records, data):
    """Accuracy after each class that comes, and what the last one cost."""
    ns = sorted({r["n"] for r in records if r["question"] == data})
    rows = []
    for method in (*HEADS, ANEW, NET_ANEW, SGD, SGD_FEATURES, RIVER):
        of = {"question": data, "method": method}
        accuracy = [cell(values(records, "accuracy", n=n, **of)) for n in ns]
        last = of | {"n": ns[-1]}
        against = [
            ""
            if method == other
            else signed(gains(records, "accuracy", last, last | {"method": other}))
            for other in (ANEW, NET_ANEW)
        ]
        seconds = cell(values(records, "seconds", **last), 3)
        rows.append([method, *accuracy, *against, seconds])
    header = [f"{data}: classes known", *map(str, ns), "last, minus heads anew"]
    header += ["minus the net anew", "CPU seconds of the last"]
    return markdown_table(header, rows)


def card_table(records, below):
    """Measures of any fraud."""
    rows = []
    for method in (*CARD_HEADS, CARD_REFITTED):
        of = {"question": "card", "below": below, "method": method}
        against = gains(records, "ap", of, of | {"method": RIDGE})
        shown = [cell(values(records, "ap", **of), 3)]
        shown.append("" if method == RIDGE else signed(against, 3))
        shown += [cell(values(records, key, **of), 0) for key in ("alerts", "caught")]
        shown.append(cell(values(records, "late", **of), 0))
        shown += [cell(values(records, key, **of), 4) for key in ("log_loss", "brier")]
        rows.append([method, *shown])
    header = [CARD_TRUNKS[below], "AP", "minus ridge's", "alerts a day", "of them frauds"]
    header += [f"% of scenario {LATE}", "log-loss", "Brier score"]
    return markdown_table(header, rows)


def fixed_table(records):
    """Accuracy of learned and fixed last layers."""
    rows = []
    for kind in KINDS:
        shown = []
        for training in TRAININGS:
            of = {"question": "fixed", "method": kind, "n": training}
            shown.append(cell(values(records, "accuracy", **of)))
            against = gains(records, "accuracy", of, of | {"method": "linear"})
            shown.append("" if kind == "linear" else signed(against))
        n_parameters = values(records, "parameters", question="fixed", method=kind)
        rows.append([kind, *shown, max(n_parameters.values(), default="-")])
    header = [part for training in TRAININGS for part in (training, "minus linear")]
    return markdown_table(["last layer", *header, "parameters"], rows)


def reject_table(records):
    """AUROC of the largest answer."""
    rows = [
        [
            method,
            *(
                cell(values(records, what, question="reject", method=method), 3)
                for what in ("sigmoid", "conditional")
            ),
        ]
        for method in (*HEADS, OWN_LAYER)
    ]
    return markdown_table(["AUROC", "largest sigmoid", "largest conditional probability"], rows)


def seeds_table(records):
    """How many repeats were run of what: an interrupted run is summed up, too."""
    questions = ("compose", "add", "reject", *STREAMS, "card", "fixed")
    rows = [
        [question, len({r["repeat"] for r in records if r["question"] == question})]
        for question in questions
    ]
    return markdown_table(["question", "repeats run"], rows)


def expectations_of(records):
    """What was expected, of what was run."""

    def mean(key, **fields):
        found = values(records, key, **fields)
        return np.mean(list(found.values())) if found else None

    def worst(choose, key, against, methods, **fields):
        found = [
            gains(records, key, fields | {"method": against}, fields | {"method": method})
            for method in methods
        ]
        return choose(part["mean"] for part in found) if all(found) else None

    def n_below(below):
        of = {"question": "card", "below": below}
        found = [
            gains(records, "ap", of | {"method": method}, of | {"method": RIDGE})
            for method in (RANDOM, LDA, LOGISTIC, CARD_REFITTED)
        ]
        return sum(map(is_below, found)) if all(found) else None

    ten = {"question": "compose", "n": 10}
    hundred = {"question": "add", "n": 100}
    balanced = {"question": "fixed", "n": "balanced"}
    differ = values(records, "differ_from_module", **ten)
    expected = [
        (
            "ten digits composed: points below the base, the better of two heads",
            worst(min, "accuracy", OWN_LAYER, (RANDOM, LOGISTIC), **ten),
            {"at_most": 0.2},
        ),
        (
            "ten digits composed by Lee's rule, CE of a softmax: accuracy",
            mean("accuracy", method=LEE_RULES["softmax"], **ten),
            {"at_most": 90.0},
        ),
        (
            "answers in which the module as trunk and its features as rows differ",
            max(differ.values()) if differ else None,
            {"at_most": 0},
        ),
        *(
            (
                f"two digits added, 100 images each, {method}: accuracy",
                mean("accuracy", method=method, **hundred),
                {"at_least": 93.0},
            )
            for method in (RANDOM, RANDOM + BALANCED)
        ),
        *(
            (f"card, {title}: heads whose AP is below ridge's", n_below(below), {"at_most": 0})
            for below, title in CARD_TRUNKS.items()
        ),
        (
            "balanced MNIST: points below the last layer that learns, the worst fixed one",
            worst(max, "accuracy", KINDS[0], KINDS[1:], **balanced),
            {"at_most": 0.5},
        ),
    ]
    return [expect(what, value, **bound) for what, value, bound in expected if value is not None]


def summarise(records, *, quick):
    """Write the tables of all records; return the expectations."""
    expectations = expectations_of(records)
    frauds = values(records, "frauds", question="card", below="net", method=RIDGE)
    parts = [
        "# Composable heads",
        "Means ± half width of the 95 % interval over repeats (seeds; weeks for card fraud), whose "
        "number is in the last table; differences are paired by repeat, bold where the interval "
        "lies above 0, in italics where it lies below. Accuracies in percent. A seed draws "
        "training rows, initial weights and the order of classes; the test rows are the same. "
        "Heads hold out a tenth of their rows, as they do by default.",
        expectation_table(expectations),
        "## Digits composed",
        f"A LeNet of {N_CHANNELS} and {N_CHANNELS} channels, trained on ten classes of "
        f"{N_MNIST:,} images ({BASE['n_epochs']} epochs of Adam at {BASE['lr']}, batches of "
        f"{BASE['batch_size']}; Lee has 60,000 images, a rate of 1e-4, 5 epochs, and a base for "
        f"each loss, where here all heads share one), then frozen; heads see its {N_HIDDEN} "
        "features. Two-way layers start at random and are trained as his, by Adam at 1e-4 for 5 "
        f"epochs, in batches of {LEE['batch_size']}, so that they take about as many steps; each "
        "class against as many rows of the others. Ten classes composed by his rule, which keeps "
        "the positive row:",
        published_table(records),
        "The positive row under a two-way softmax is half of the log-odds plus half of the noise "
        "of its random start: the log-odds is the difference of the two rows. The BCE of a softmax "
        "is its cross-entropy, and here gives the same heads. Accuracy on the classes composed, 2 "
        f"to 10, mean over {N_ORDERS} random orders (*longer*: 20 epochs at .01 in batches of 64):",
        table_by_n(records, "compose", [OWN_LAYER, *HEADS, *PAIRWISE], SIZES),
        "## Digits 8 and 9 added to a trunk of 0 to 7",
        "The same LeNet, trained on images of 0 to 7. Accuracy over all ten, with so many training "
        f"images of each new digit. *logistic* keeps {REPLAY} rows of each class. *balanced*: all "
        "classes count the same, as they do among the test images and not among the training ones.",
        table_by_n(records, "add", [*ADDED_HEADS, REFITTED], EACH),
        cost_table(records),
        "## One class after the other",
        "Accuracy over the classes known so far. A TabularNet as trunk, trained on the first "
        f"classes. letter: {N_STREAM_ROWS:,} of 16,000 training rows. *Anew*: trunk and heads "
        "fitted on all rows so far, whenever a class comes. SGDClassifier is told of all classes "
        f"and sees the first ones in {N_PASSES} passes, those that come once, in scaled columns.",
        *(stream_table(records, d) for d in STREAMS if any(r["question"] == d for r in records)),
        "## Card fraud by scenario",
        f"Genuine and three scenarios, of which {LATE} comes by add_class after a fit on the "
        "others; four weeks. AP, log-loss and Brier score of any fraud, whose probability is that "
        f"of the scenarios together. There are {cell(frauds, 0)} frauds a day. *logistic* keeps "
        f"{CARD_REPLAY:,} rows of each class.",
        *(card_table(records, below) for below in CARD_TRUNKS),
        "## Fixed last layers",
        f"A TabularNet on MNIST: {N_FIXED:,} images; or a long tail, {N_MOST:,} of one digit "
        f"and {N_MOST // RATIO} of the last, trained as it is or, *adjusted*, with "
        "logit_adjustment=1. Accuracy on the test images; parameters that the last layer learns.",
        fixed_table(records),
        "## Telling digits never seen from known ones",
        "The LeNet of digits 0 to 7, and heads on it; the test images of 8 and 9 are of no class.",
        reject_table(records),
        seeds_table(records),
    ]
    content = {"records": records, "expectations": expectations}
    write("composable", "\n\n".join(parts), content, quick=quick)
    return expectations


def main(arguments):
    """Ask the question, write results/composable.md and .json; return the expectations."""
    check_files(arguments.data, CARD_FILE, MNIST_FILE, *(TABLES[name].file for name in STREAMS))
    seeds = range(N_QUICK_SEEDS if arguments.quick else N_SEEDS)
    weeks = CARD_WEEKS[: len(seeds)] if arguments.quick else CARD_WEEKS
    # The longest first.
    todo = [
        *(("compose", seed) for seed in seeds),
        *(("add", seed) for seed in seeds),
        *(("card", week) for week in weeks),
        *(("stream", name, seed) for name in STREAMS for seed in seeds),
        *(("fixed", kind, seed) for kind in KINDS for seed in seeds),
    ]
    job = partial(run, arguments.data, arguments.quick)
    records = run_jobs(job, todo, "composable", quick=arguments.quick)
    return summarise(records, quick=arguments.quick)


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=True))
