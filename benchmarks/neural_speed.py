"""What does TabularNet cost beside a plain torch loop?

Run alone with ``python -m benchmarks.neural_speed [--quick]``; the rows are simulated.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from skorch import NeuralNetClassifier
from torch import nn

from benchmarks.command import parse_arguments
from benchmarks.datasets import imbalanced
from benchmarks.methods import make_tabular_net
from benchmarks.objective import expect, expectation_table, write
from benchmarks.timing import interleaved, timing_table, torch_threads
from skmsc.neural import TabularNet, TensorBatches
from skmsc.neural._modules import TabularModule
from skmsc.neural._scaling import Scaling
from skmsc.neural._tabular_net import PREDICT_ROWS

N_ROWS, N_FEATURES = 200_000, 30
N_QUICK_ROWS = 8_192
BATCH_SIZE, N_EPOCHS = 512, 1
MOST_TIMES_PLAIN = 1.15
DEFAULTS = TabularNet()
OURS, PLAIN, MODULE = "TabularNet", "plain torch loop", "module alone"
NO_AVERAGE = f"{PLAIN}, no average"
LOADER, BATCHES, MLP = "skorch, DataLoader", "skorch, TensorBatches", "MLPClassifier"


# --- by hand ----------------------------------------------------------------------------------
def module_parameters(X, y):
    """Parameters of the module that TabularNet makes for rows without outliers, by its defaults."""
    no_column = np.zeros(X.shape[1], dtype=bool)
    return {
        "scaling": Scaling(X.mean(axis=0), X.std(axis=0), no_column),
        "trunk": DEFAULTS.trunk,
        "trunk_params": {name: getattr(DEFAULTS, name) for name in ("width", "depth", "dropout")},
        "log_prior": torch.from_numpy(np.log(np.bincount(y) / len(y))),
    }


def plain_loop(X, y, n_epochs, *, average=True):
    """A module trained as TabularNet trains it, by a loop as one writes it."""
    # TabularNet draws its seed so; the same seed must give the same net.
    torch.manual_seed(check_random_state(0).randint(np.iinfo(np.int32).max))
    module = TabularModule(**module_parameters(X, y)).train()
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=DEFAULTS.lr, weight_decay=DEFAULTS.weight_decay, fused=True
    )
    criterion = nn.CrossEntropyLoss()
    weights = [part.detach() for part in module.parameters()]
    means = [part.clone() for part in weights]
    n_batches, step = math.ceil(len(y) / BATCH_SIZE), 0
    window = max(1, round(DEFAULTS.average_epochs * n_batches))
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(n_epochs):
        order = torch.randperm(len(y))
        for i in range(n_batches):  # batches of equal size, up to a row
            rows = order[i * len(y) // n_batches : (i + 1) * len(y) // n_batches]
            optimizer.zero_grad()
            criterion(module(X[rows]), y[rows]).backward()
            optimizer.step()
            step += 1
            for mean, part in zip(means, weights, strict=True) if average else ():
                mean.lerp_(part, 1 / min(step, window))
    for mean, part in zip(means, weights, strict=True) if average else ():
        part.copy_(mean)
    return module.eval()


def plain_proba(module, X):
    """Class probabilities, batch by batch."""
    X = torch.from_numpy(X)
    with torch.inference_mode():
        logits = [module(batch) for batch in X.split(PREDICT_ROWS)]
        return torch.cat([torch.softmax(part.double(), dim=1) for part in logits]).numpy()


def only_logits(module, X):
    """What the module itself takes."""
    with torch.inference_mode():
        return module(X)


# --- the others -------------------------------------------------------------------------------
def make_ours(n_epochs):
    """TabularNet with the batches and epochs of this benchmark."""
    return make_tabular_net(batch_size=BATCH_SIZE, max_epochs=n_epochs, validation=None)


def make_skorch(module, n_epochs, iterator=None, **parameters):
    """A plain skorch net of a module; iterator None: skorch's own, torch's DataLoader."""
    if iterator is not None:
        parameters |= {"iterator_train": iterator, "iterator_valid": iterator}
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=DEFAULTS.weight_decay,
        optimizer__fused=True,
        lr=DEFAULTS.lr,
        max_epochs=n_epochs,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        iterator_valid__batch_size=PREDICT_ROWS,
        train_split=None,
        verbose=0,
        **parameters,
    )


def fit_skorch(X, y, n_epochs, iterator=None):
    """Train a plain skorch net of the same module."""
    parameters = {f"module__{name}": value for name, value in module_parameters(X, y).items()}
    return make_skorch(TabularModule, n_epochs, iterator, **parameters).fit(X, y)


def fit_mlp(X, y, n_epochs):
    """scikit-learn's net with the same layers, batches and epochs; it computes in X's float64."""
    mlp = MLPClassifier(
        (DEFAULTS.width,) * DEFAULTS.depth,
        batch_size=BATCH_SIZE,
        max_iter=n_epochs,
        n_iter_no_change=n_epochs,
        random_state=0,
    )
    with warnings.catch_warnings():
        # It says that it could go on.
        warnings.filterwarnings("ignore", message="Stochastic Optimizer")
        return make_pipeline(StandardScaler(), mlp).fit(X, y)


# --- what is timed ----------------------------------------------------------------------------
def time_fit(X, y, **how):
    """Records of fit, all with the same number of epochs."""
    calls = {
        PLAIN: lambda: plain_loop(X, y, N_EPOCHS),
        OURS: lambda: make_ours(N_EPOCHS).fit(X, y),
        NO_AVERAGE: lambda: plain_loop(X, y, N_EPOCHS, average=False),
        BATCHES: lambda: fit_skorch(X, y, N_EPOCHS, TensorBatches),
        LOADER: lambda: fit_skorch(X, y, N_EPOCHS),
        MLP: lambda: fit_mlp(X, y, N_EPOCHS),
    }
    timings = interleaved(calls, baseline=PLAIN, warm=False, **how)
    return [{"method": name, "epochs": N_EPOCHS, **timing} for name, timing in timings.items()]


def time_predict(fitted, X, **how):
    """Records of predict_proba, and how far ours is from the module by hand."""
    module, rows = fitted[MODULE], torch.from_numpy(X)
    calls = {PLAIN: lambda: plain_proba(module, X)}
    if len(X) == 1:
        calls = {MODULE: lambda: only_logits(module, rows), **calls}
    for name in (OURS, BATCHES, LOADER, MLP):
        calls[name] = lambda model=fitted[name]: model.predict_proba(X)
    timings = interleaved(calls, baseline=MODULE if len(X) == 1 else PLAIN, **how)
    differs = float(np.abs(calls[OURS]() - calls[PLAIN]()).max())
    records = [{"method": name, **timing} for name, timing in timings.items()]
    return records, differs


def fit_once(X, y):
    """Models to predict with, the skorch nets with our weights; how far ours is from the loop's."""
    ours, by_hand = make_ours(1).fit(X, y), plain_loop(X, y, 1)
    module = ours.net_.module_
    fitted = {
        MODULE: module,
        OURS: ours,
        BATCHES: make_skorch(module, 1, TensorBatches).initialize(),
        LOADER: make_skorch(module, 1).initialize(),
        MLP: fit_mlp(X, y, 1),
    }
    return fitted, np.abs(plain_proba(by_hand, X) - plain_proba(module, X)).max()


def main(arguments):
    """Ask the question, write results/neural_speed.md and .json; return the expectations."""
    n_rows, how = N_ROWS, {"seconds": 10, "min_turns": 5}
    if arguments.quick:
        n_rows, how = N_QUICK_ROWS, {"seconds": 0, "min_turns": 2}
    split = imbalanced(n_rows, 1, n_features=N_FEATURES)
    X, y = split.X_train, split.y_train
    # One thread: threads of torch wait for each other, forever if the cores have other work.
    with torch_threads(1):
        fitted, net_differs = fit_once(X, y)
        fits = time_fit(X, y, **how)
        predictions, proba_differs = time_predict(fitted, X, **how)
        rows, row_differs = time_predict(fitted, X[:1], n_calls=50, **how)

    def ratio(records):
        return next(r["ratio"] for r in records if r["method"] == OURS)

    expectations = [
        expect("fit, times the plain loop", ratio(fits), at_most=MOST_TIMES_PLAIN),
        expect("predict_proba, times the plain loop", ratio(predictions), at_most=MOST_TIMES_PLAIN),
        expect("probabilities differ from the plain loop's: training", net_differs, at_most=1e-6),
        expect(
            "probabilities differ from the plain loop's: prediction",
            max(proba_differs, row_differs),
            at_most=1e-9,
        ),
    ]
    text = "\n\n".join(
        [
            "# Neural speed: TabularNet beside a plain torch loop",
            f"X is float64, {n_rows:,} x {N_FEATURES}; batches of {BATCH_SIZE} rows train, batches "
            f"of {PREDICT_ROWS:,} are predicted, except by MLPClassifier, which takes X in one "
            "piece and computes in float64. The plain loop, TabularNet and both skorch nets have "
            "the same module and optimiser; the plain loop and TabularNet also average the weights "
            "of the steps, and get the same ones. Medians of interleaved repeats, ratios within a "
            "turn. One thread of torch and of BLAS; the expectations read CPU time.",
            expectation_table(expectations),
            f"## fit, epochs: {N_EPOCHS}",
            timing_table(["method"], fits, PLAIN),
            f"## predict_proba, {n_rows:,} rows",
            timing_table(["method"], predictions, PLAIN),
            "## predict_proba, one row",
            timing_table(["method"], rows, MODULE),
        ]
    )
    records = {"fit": fits, "predict_proba": predictions, "one_row": rows}
    content = {"records": records, "expectations": expectations}
    write("neural_speed", text, content, quick=arguments.quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=False))
