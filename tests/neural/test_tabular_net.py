"""TabularNet trains as a loop of plain torch does, and stays a scikit-learn classifier."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from os import cpu_count

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from packaging.version import Version
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    GroupShuffleSplit,
    TimeSeriesSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

torch = pytest.importorskip("torch")
skorch = pytest.importorskip("skorch")

from skmsc.neural import TabularNet  # noqa: E402

since_1_8 = pytest.mark.skipif(
    Version(sklearn.__version__) < Version("1.8"), reason="needs scikit-learn 1.8"
)
needs_tabm = pytest.mark.skipif(find_spec("tabm") is None, reason="tabm is not installed")

# Two classes, and three that are rare and frequent.
X, Y = make_classification(240, n_features=6, n_informative=4, random_state=0)
X3, Y3 = make_classification(
    240,
    n_features=6,
    n_informative=4,
    n_classes=3,
    n_clusters_per_class=1,
    weights=[0.6, 0.3],
    random_state=0,
)
W = np.random.RandomState(0).uniform(0.2, 2, 240)
GROUPS = np.arange(240) % 8

# All rows are one batch and nothing is drawn but the initial weights.
EXACT = {
    "batch_size": 10**6,
    "dropout": 0.0,
    "lr_schedule": "constant",
    "average_epochs": 0.0,
    "dtype": "float64",
}


def small(trunk="mlp", **params):
    """A net that trains in no time."""
    defaults = {"width": 16, "lr": 0.01, "max_epochs": 5, "validation": None, "device": "cpu"}
    return TabularNet(trunk, **({"random_state": 0} | defaults | params))


class Members(torch.nn.Module):
    """An ensemble of three layers. Shape: (b, n) -> (b, 3, width)."""

    def __init__(self, n_inputs, width):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(n_inputs, width) for _ in range(3))

    def forward(self, x):
        return torch.stack([layer(x).relu() for layer in self.layers], dim=1)


class Witness(skorch.callbacks.Callback):
    """Writes down what training starts from and goes through; its copies write to the same lists.

    `modules` gets a copy of the module as training begins, `batches` and `validated` the batches,
    `rates` the learning rate of each step.
    """

    def __init__(self):
        self.modules, self.batches, self.validated, self.rates = [], [], [], []

    def __deepcopy__(self, memo):
        return self

    def on_train_begin(self, net, **kwargs):
        self.modules.append(copy.deepcopy(net.module_))

    def on_batch_begin(self, net, batch, training, **kwargs):
        (self.batches if training else self.validated).append(batch)

    def on_grad_computed(self, net, **kwargs):
        self.rates.append(net.optimizer_.param_groups[0]["lr"])


class Raise(skorch.callbacks.Callback):
    """Raises an error in an epoch of the net, from the hook that is named."""

    def __init__(self, error, epoch, hook):
        self.error, self.epoch = error, epoch
        setattr(self, hook, self.strike)

    def strike(self, net, *args, **kwargs):
        if len(net.history) == self.epoch:
            raise self.error


class Poison(skorch.callbacks.Callback):
    """Makes a weight nan at the end of an epoch of the net."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            with torch.no_grad():
                net.module_.head.bias[0] = torch.nan


def rows_of(batches):
    """Rows of `X` that batches hold, in their order."""
    parts = [batch["X"] if isinstance(batch, dict) else batch for batch, _ in batches]
    order = X[:, 0].argsort()
    return order[np.searchsorted(X[order, 0], torch.cat(parts)[:, 0].numpy())]


def fitted_attributes(net):
    return [name for name in vars(net) if name.endswith("_")]


def figures(net):
    """The history, without what it keeps of single batches."""
    return [{k: v for k, v in row.items() if k != "batches"} for row in net.net_.history]


def weights_of(module):
    return np.concatenate([part.detach().numpy().ravel() for part in module.parameters()])


def cross_entropies(module, X, y, offset=0.0):
    """Cross-entropy of each row, averaged over the members of an ensemble; by hand."""
    logits = module(torch.as_tensor(X)) + torch.as_tensor(offset)
    log_proba = logits - logits.logsumexp(dim=-1, keepdim=True)
    loss = -log_proba[torch.arange(len(y)), ..., torch.as_tensor(y)]
    return loss if loss.ndim == 1 else loss.mean(dim=1)


# The loss

SHARES = np.bincount(Y3) / 240
WEIGHTED_SHARES = np.bincount(Y3, W) / W.sum()

# What fit gets; the weight of each row and what is added to the logits, by hand.
LOSSES = {
    "plain": ({}, None, np.ones(240), 0.0),
    "weighted": ({}, W, W, 0.0),
    "class weights": (
        {"class_weight": {0: 1.0, 1: 2.0, 2: 5.0}},
        None,
        np.array([1.0, 2.0, 5.0])[Y3],
        0.0,
    ),
    "balanced": ({"class_weight": "balanced"}, None, 1 / SHARES[Y3], 0.0),
    "balanced, weighted": ({"class_weight": "balanced"}, W, W / WEIGHTED_SHARES[Y3], 0.0),
    "adjusted": ({"logit_adjustment": 1.0}, None, np.ones(240), np.log(SHARES)),
    "half adjusted, weighted": ({"logit_adjustment": 0.5}, W, W, 0.5 * np.log(WEIGHTED_SHARES)),
}
LOSSES = [pytest.param(*case, id=name) for name, case in LOSSES.items()]

TRUNKS = [
    pytest.param("mlp", {}, id="mlp"),
    pytest.param("resnet", {"depth": 1}, id="resnet"),
    pytest.param(Members, {}, id="callable ensemble"),
    pytest.param("tabm", {"trunk_params": {"k": 4}}, id="tabm", marks=needs_tabm),
]


@pytest.mark.parametrize("trunk, trunk_params", TRUNKS)
@pytest.mark.parametrize("params, sample_weight, weight, offset", LOSSES)
def test_weights_are_those_of_a_loop_by_hand(
    trunk, trunk_params, params, sample_weight, weight, offset
):
    witness = Witness()
    net = small(
        trunk,
        **EXACT,
        **trunk_params,
        **params,
        weight_decay=0.1,
        net_params={"callbacks": [witness]},
    ).fit(X3, Y3, sample_weight)

    (module,) = witness.modules
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = cross_entropies(module, X3, Y3, offset) @ torch.as_tensor(weight) / weight.sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    np.testing.assert_allclose(weights_of(net.net_.module_), weights_of(module), rtol=1e-6)
    np.testing.assert_allclose(net.net_.history[:, "train_loss"], losses)


def test_batches_rates_and_the_average_make_the_same_weights_by_hand():
    witness = Witness()
    net = small(
        batch_size=100,
        dropout=0.0,
        dtype="float64",
        lr_schedule="cosine",
        average_epochs=2.0,
        net_params={"callbacks": [witness]},
    ).fit(X, Y, W)

    (module,) = witness.modules
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.01)
    steps = []
    for batch, lr in zip(witness.batches, witness.rates, strict=True):
        rows = rows_of([batch])
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        loss = cross_entropies(module, X[rows], Y[rows]) * torch.as_tensor(W[rows] / W.mean())
        loss.mean().backward()
        optimizer.step()
        steps.append(weights_of(module))
    # The mean of all steps until two epochs, of 3 batches each, are done.
    average = np.mean(steps[:6], axis=0)
    for step in steps[6:]:
        average += (step - average) / 6
    np.testing.assert_allclose(weights_of(net.net_.module_), average, rtol=1e-6)


@pytest.mark.parametrize("batch_size, sizes", [(100, [80] * 3), (47, [40] * 6), (239, [120] * 2)])
def test_an_epoch_is_all_rows_in_even_batches_and_a_new_order(batch_size, sizes):
    witness = Witness()
    small(batch_size=batch_size, net_params={"callbacks": [witness]}).fit(X, Y)
    assert [len(batch) for batch, _ in witness.batches] == 5 * sizes
    orders = rows_of(witness.batches).reshape(5, 240)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(240), (5, 1)))
    assert len({tuple(order) for order in orders}) == 5


def test_the_cosine_rises_for_a_twentieth_of_the_steps_and_falls_to_zero():
    witness = Witness()
    params = {"lr": 0.5, "max_epochs": 20, "lr_schedule": "cosine", "batch_size": 60}
    small(**params, net_params={"callbacks": [witness]}).fit(X, Y)
    rates = np.array(witness.rates)
    assert rates.shape == (80,)
    assert (np.diff(rates[:4]) > 0).all() and (np.diff(rates[4:]) < 0).all()
    assert rates.max() == pytest.approx(0.5, rel=0.01)
    assert rates[-1] == pytest.approx(0, abs=1e-3)
    # Halfway down the fall, half the rate.
    assert rates[41:43].mean() == pytest.approx(0.25, rel=0.02)


def test_predictions_are_those_of_layers_on_standardised_columns():
    net = small(**EXACT).fit(X, Y)
    layers = [part for part in net.net_.module_.modules() if isinstance(part, torch.nn.Linear)]
    Z = StandardScaler().fit(X).transform(X)
    for layer in layers:
        hidden = Z @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        Z = hidden.clip(0)
    expected = np.exp(hidden) / np.exp(hidden).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.predict_proba(X), expected)
    np.testing.assert_array_equal(net.predict(X), expected.argmax(axis=1))


@pytest.mark.parametrize("trunk, trunk_params", TRUNKS)
def test_probabilities_are_the_mean_of_the_members(trunk, trunk_params):
    net = small(trunk, **trunk_params, dtype="float64").fit(X3, Y3)
    with torch.no_grad():
        logits = net.net_.module_(torch.as_tensor(X3)).numpy().reshape(240, -1, 3)
    members = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(net.predict_proba(X3), members.mean(axis=1))


@pytest.mark.parametrize("trunk, trunk_params", TRUNKS)
@pytest.mark.parametrize(
    "weight, shares", [(None, SHARES), (W, WEIGHTED_SHARES)], ids=["plain", "weighted"]
)
def test_untrained_nets_predict_the_class_shares(trunk, trunk_params, weight, shares):
    # Columns that say nothing and a rate of nothing.
    net = small(trunk, **trunk_params, dropout=0.0, lr=1e-30, logit_adjustment=0.25)
    with pytest.warns(ConvergenceWarning, match="TabularNet learned nothing: after 5 epochs"):
        net.fit(np.zeros((240, 2)), Y3, weight)
    net.net_.module_.head.weight.data.zero_()
    adjusted = shares**0.75
    expected = np.tile(adjusted / adjusted.sum(), (3, 1))
    np.testing.assert_allclose(net.predict_proba(np.zeros((3, 2))), expected, rtol=1e-6)


def test_adjusted_predictions_are_those_of_equally_frequent_classes():
    labels = np.repeat([0, 1, 2], [1800, 900, 300])
    centres = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    rows = centres[labels] + np.random.RandomState(0).normal(size=(3000, 2))
    net = small(logit_adjustment=1.0, max_epochs=10).fit(rows, labels)
    # Bayes' rule with equal shares: halfway between two centres, one is as likely as the other.
    proba = net.predict_proba([[1.0, 0.0], [0.0, 1.0]])
    assert abs(np.log(proba[0, 0] / proba[0, 1])) < 0.5 < np.log(1800 / 900)
    assert abs(np.log(proba[1, 0] / proba[1, 2])) < 0.5 < np.log(1800 / 300)


# Weights

ABSENT = np.arange(240) % 3 == 0

ABSENCES = [
    pytest.param({}, id="batches"),
    pytest.param(EXACT, id="one batch"),
    pytest.param({"validation": 0.2}, id="validation"),
    pytest.param({"validation": TimeSeriesSplit(3)}, id="splitter"),
    pytest.param({"class_weight": "balanced", "logit_adjustment": 1.0}, id="imbalance"),
]


def nonsense(rows):
    """Rows that would change everything, with a label of their own."""
    return np.where(rows[:, None], 1e30, X), np.where(rows, 7, Y)


@pytest.mark.parametrize("params", ABSENCES)
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_a_weight_of_zero_is_absence(params, convert):
    rows, labels = nonsense(ABSENT)
    net = small(**params).fit(convert(rows), labels, np.where(ABSENT, 0.0, W))
    present = small(**params).fit(convert(X[~ABSENT]), Y[~ABSENT], W[~ABSENT])
    np.testing.assert_array_equal(net.classes_, [0, 1])
    np.testing.assert_array_equal(net.predict_proba(X), present.predict_proba(X))
    assert net.net_.history[:, "train_loss"] == present.net_.history[:, "train_loss"]


def test_a_weight_of_zero_is_absence_in_partial_fit():
    rows, labels = nonsense(ABSENT)
    net = small().partial_fit(rows, labels, [0, 1], np.where(ABSENT, 0.0, W))
    present = small().partial_fit(X[~ABSENT], Y[~ABSENT], [0, 1], W[~ABSENT])
    np.testing.assert_array_equal(net.predict_proba(X), present.predict_proba(X))


@pytest.mark.parametrize("trunk, trunk_params", TRUNKS)
def test_weights_are_repeated_rows(trunk, trunk_params):
    times = 1 + np.arange(240) % 3
    weighted = small(trunk, **EXACT, **trunk_params).fit(X, Y, times)
    repeated = small(trunk, **EXACT, **trunk_params)
    repeated.fit(X.repeat(times, axis=0), Y.repeat(times))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-6)


@pytest.mark.parametrize("factor", [2.0, 1e200, 1e-200])
def test_only_the_proportions_of_weights_count(factor):
    net = small().fit(X, Y, W)
    scaled = small().fit(X, Y, factor * W)
    np.testing.assert_allclose(scaled.predict_proba(X), net.predict_proba(X), rtol=1e-5)


def test_equal_weights_are_no_weights():
    net = small().fit(X, Y)
    weighted = small().fit(X, Y, np.full(240, 3.0))
    np.testing.assert_array_equal(weighted.predict_proba(X), net.predict_proba(X))


def partly_fitted(rows, **params):
    """Weights of a net after partial fits on some rows each, with weights of their own."""
    net = small(**EXACT, **params)
    for own_rows, weight in rows:
        net.partial_fit(X[own_rows], Y[own_rows], [0, 1], weight)
    return weights_of(net.net_.module_)


def test_equal_weights_count_in_partial_fit():
    # What makes them hardly unequal makes them hardly another net.
    nearly = np.where(np.arange(240) == 0, 2 + 1e-9, 2.0)
    twice, hardly, plain = (
        partly_fitted([(slice(None), None), (slice(None), weight), (slice(None), None)])
        for weight in (np.full(240, 2.0), nearly, None)
    )
    np.testing.assert_allclose(twice, hardly, rtol=1e-6)
    assert np.abs(twice - plain).max() > 1e-4


def test_class_weights_count_in_batches_of_one_class():
    parts = [slice(None), Y == 0, Y == 1, Y == 0]
    weight = np.where(Y == 1, 20.0, 1.0) * (1 + 1e-12 * np.arange(240))  # no two are equal
    by_class = partly_fitted([(rows, None) for rows in parts], class_weight={0: 1.0, 1: 20.0})
    by_row = partly_fitted([(rows, weight[rows]) for rows in parts])
    np.testing.assert_allclose(by_class, by_row, rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_partial_fit_starts_from_weighted_shares_and_half_a_row_of_absent_classes(factor):
    net = small(**EXACT | {"lr": 1e-30}).partial_fit(X3, Y3, [0, 1, 2, 9], factor * W)
    totals = np.append(np.bincount(Y3, W), 0.5 * W.mean())
    shares = torch.softmax(net.net_.module_.head.bias, dim=0).detach().numpy()
    np.testing.assert_allclose(shares, totals / totals.sum())


def test_rows_given_twice_in_a_split_train_twice():
    train, test = np.arange(160), np.arange(160, 240)
    times = 1 + np.arange(160) % 2
    twice = small(**EXACT | {"validation": [(train.repeat(times), test)]}).fit(X, Y)
    once = small(**EXACT | {"validation": (X[test], Y[test])})
    once.fit(X[train], Y[train], times)
    np.testing.assert_allclose(twice.predict_proba(X), once.predict_proba(X), rtol=1e-6)


# Validation and the end of training

LAST_OF = TimeSeriesSplit(3)
BY_GROUP = GroupShuffleSplit(2, test_size=0.25, random_state=0)
HALVES = [(np.arange(120, 240), np.arange(120)), (np.arange(120), np.arange(150, 240))]
LAST_GROUPS = list(BY_GROUP.split(X, Y, GROUPS))[-1][1]

VALIDATIONS = [
    pytest.param(LAST_OF, {}, np.arange(180, 240), id="TimeSeriesSplit"),
    pytest.param(BY_GROUP, {"groups": GROUPS}, LAST_GROUPS, id="GroupShuffleSplit"),
    pytest.param(HALVES, {}, np.arange(150, 240), id="indices"),
    pytest.param(
        [(np.arange(240) < 200, np.arange(240) >= 200)], {}, np.arange(200, 240), id="masks"
    ),
    pytest.param((X[:50], Y[:50]), {}, np.arange(50), id="other rows"),
    pytest.param((X[:50].tolist(), Y[:50].tolist(), None), {}, np.arange(50), id="lists"),
    pytest.param(
        (pd.DataFrame(X[:50]), pd.Series(Y[:50])), {}, np.arange(50), id="other dataframe"
    ),
    pytest.param((sparse.csr_array(X[:50]), Y[:50]), {}, np.arange(50), id="other sparse"),
]


def overfitting(**params):
    """A net whose validation loss soon rises."""
    return small(**({"width": 64, "lr": 0.05, "max_epochs": 40, "patience": 3} | params))


@pytest.mark.parametrize("validation, fit_params, rows", VALIDATIONS)
def test_the_weights_of_the_smallest_validation_loss_are_kept(validation, fit_params, rows):
    witness = Witness()
    net = overfitting(validation=validation, net_params={"callbacks": [witness]})
    net.fit(X, Y, **fit_params)
    np.testing.assert_array_equal(rows_of(witness.validated[:1]), rows)
    losses = net.net_.history[:, "valid_loss"]
    assert log_loss(Y[rows], net.predict_proba(X[rows])) == pytest.approx(min(losses), rel=1e-5)
    assert net.best_epoch_ == np.argmin(losses) + 1
    assert net.n_iter_ == len(losses) == net.best_epoch_ + 3
    assert net.termination_condition_ == "no_improvement"


@pytest.mark.parametrize("validation", list(LAST_OF.split(X)), ids=["first", "second", "last"])
def test_rows_in_neither_part_are_not_used(validation):
    train, test = validation
    used = np.concatenate([train, test])
    rows, labels = nonsense(~np.isin(np.arange(240), used))
    net = small(validation=[(train, test)]).fit(rows, np.where(labels == 7, 0, labels))
    only = small(validation=[(np.arange(len(train)), np.arange(len(train), len(used)))])
    only.fit(X[used], Y[used])
    np.testing.assert_array_equal(net.predict_proba(X), only.predict_proba(X))


@pytest.mark.filterwarnings("ignore:TabularNet learned nothing")
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_fraction_is_stratified_and_leaves_a_row_of_each_class(fraction, seed):
    labels = np.repeat([0, 1, 2, 3], [150, 80, 9, 1])
    witness = Witness()
    net = small(validation=fraction, random_state=seed, net_params={"callbacks": [witness]})
    net.set_params(max_epochs=1).fit(X, labels)
    valid = np.bincount(labels[rows_of(witness.validated)], minlength=4)
    sizes = np.bincount(labels)
    assert (valid < sizes).all()
    assert (np.abs(valid - np.minimum(fraction * sizes, sizes - 1)) <= 2).all()
    trained = rows_of(witness.batches)
    assert len(trained) + valid.sum() == 240
    assert not np.isin(trained, rows_of(witness.validated)).any()


@pytest.mark.filterwarnings("ignore:TabularNet learned nothing")
@pytest.mark.parametrize(
    "validation, n_rows, n_classes, n_valid", [("auto", 100, 10, 10), (0.2, 10, 2, 2)]
)
@pytest.mark.parametrize("seed", range(20))
def test_few_rows_of_a_class_validate_whatever_the_seed(
    validation, n_rows, n_classes, n_valid, seed
):
    witness = Witness()
    net = small(validation=validation, random_state=seed, net_params={"callbacks": [witness]})
    net.set_params(max_epochs=1).fit(X[:n_rows], np.arange(n_rows) % n_classes)
    assert len(rows_of(witness.validated)) == n_valid


def test_splits_may_be_an_iterator():
    net = small(validation=HALVES).fit(X, Y)
    once = small(validation=iter(HALVES)).fit(X, Y)
    np.testing.assert_array_equal(once.predict_proba(X), net.predict_proba(X))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_draws_the_validation_rows(seed):
    witnesses = Witness(), Witness(), Witness()
    for witness, own_seed in zip(witnesses, (seed, seed, seed + 2), strict=True):
        params = {"validation": 0.2, "random_state": own_seed, "max_epochs": 1}
        small(**params, net_params={"callbacks": [witness]}).fit(X, Y)
    first, again, other = (set(rows_of(witness.validated)) for witness in witnesses)
    assert first == again != other


@pytest.mark.filterwarnings("ignore:TabularNet learned nothing")
def test_validation_is_none_by_default_of_few_rows_and_a_part_of_many():
    few = TabularNet(width=4, max_epochs=2, lr=0.01, random_state=0).fit(X[:50], Y[:50])
    many = TabularNet(width=4, max_epochs=2, lr=0.01, batch_size=1000, random_state=0)
    many.fit(np.tile(X, (50, 1)), np.tile(Y, 50))
    assert "valid_loss" not in few.net_.history[-1]
    assert "valid_loss" in many.net_.history[-1]


def test_without_validation_all_epochs_are_done():
    net = small().fit(X, Y)
    assert net.n_iter_ == net.best_epoch_ == len(net.net_.history) == 5
    assert net.termination_condition_ == "max_epochs"


def log_proba_with(offset, proba):
    logits = np.log(proba) + offset
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


HELD_OUT = slice(0, 80)

WEIGHTED_VALIDATIONS = [
    pytest.param({}, W[HELD_OUT], W[HELD_OUT], 0.0, id="weighted"),
    pytest.param(
        {"class_weight": {0: 1.0, 1: 2.0, 2: 5.0}},
        None,
        np.array([1.0, 2.0, 5.0])[Y3[HELD_OUT]],
        0.0,
        id="class weights",
    ),
    pytest.param(
        {"logit_adjustment": 1.0},
        W[HELD_OUT],
        W[HELD_OUT],
        np.log(np.bincount(Y3[80:]) / 160),
        id="adjusted",
    ),
]


@pytest.mark.parametrize("params, sample_weight, weight, offset", WEIGHTED_VALIDATIONS)
def test_validation_losses_are_weighted_like_the_training_loss(
    params, sample_weight, weight, offset
):
    validation = (X3[HELD_OUT], Y3[HELD_OUT], sample_weight)
    net = small(**params, validation=validation, dtype="float64").fit(X3[80:], Y3[80:])
    log_proba = log_proba_with(offset, net.predict_proba(X3[HELD_OUT]))
    losses = -log_proba[np.arange(80), Y3[HELD_OUT]]
    expected = np.average(losses, weights=weight)
    assert min(net.net_.history[:, "valid_loss"]) == pytest.approx(expected)


def test_balanced_weights_of_validation_are_those_of_its_classes():
    # Of the classes that it lacks there is nothing to weigh.
    two = Y3 < 2
    validation = (X3[two], Y3[two], 1e8 * W[two])
    net = small(class_weight="balanced", validation=validation, dtype="float64").fit(X3, Y3)
    losses = -np.log(net.predict_proba(X3[two])[np.arange(two.sum()), Y3[two]])
    weight = W[two] / np.bincount(Y3[two], W[two])[Y3[two]]
    expected = np.average(losses, weights=weight)
    assert min(net.net_.history[:, "valid_loss"]) == pytest.approx(expected)


def test_weights_of_rows_held_out_keep_their_proportion_to_the_others():
    rows = np.arange(180, 240)
    net = small(validation=LAST_OF, dtype="float64").fit(X, Y, W)
    losses = -np.log(net.predict_proba(X[rows])[np.arange(60), Y[rows]])
    expected = (W[rows] * losses).mean() / W.mean()
    assert min(net.net_.history[:, "valid_loss"]) == pytest.approx(expected)


def test_modules_train_in_training_and_not_in_validation():
    modes = []

    class Spy(skorch.callbacks.Callback):
        def on_batch_end(self, net, training, **kwargs):
            modes.append((training, *(part.training for part in net.module_.modules())))

    small(max_epochs=3, validation=LAST_OF, net_params={"callbacks": [Spy()]}).fit(X, Y)
    assert {training for training, *_ in modes} == {True, False}
    assert all(len(set(mode)) == 1 for mode in modes)


def test_a_net_that_learns_nothing_says_so():
    net = small(max_epochs=2, dropout=0.0)
    message = (
        r"TabularNet learned nothing: after 2 epochs its training loss is 0\.\d+, and 0\.693\d? "
        r"for always predicting the class shares\. Try another lr than 0\.01, or more epochs\."
    )
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        net.fit(np.ones((240, 2)), Y)
    assert caught[0].filename == __file__
    assert net.n_iter_ == 2


def test_losses_that_are_all_but_0_are_something_learned():
    # Rows of one class weigh next to nothing: always predicting the other is all but right, and
    # no warning is due where the loss is a little above that of the shares.
    net = small(class_weight={0: 1000.0, 1: 1e-4}, lr=0.3).fit(X, Y)
    share = 1e-4 * Y.sum() / (1e-4 * Y.sum() + 1000 * (1 - Y).sum())
    of_shares = -share * np.log(share) - (1 - share) * np.log1p(-share)
    assert of_shares < net.net_.history[-1, "train_loss"] < 1e-3
    np.testing.assert_array_equal(net.predict(X), 0)


# What goes wrong


def test_a_loss_that_is_no_number_is_an_error():
    net = small(**EXACT, net_params={"callbacks": [Poison(1)]})
    message = (
        r"^The train_loss became nan in epoch 2 at a learning rate of 0\.01: choose a smaller "
        r"lr than 0\.01\.$"
    )
    with pytest.raises(ValueError, match=message):
        net.fit(X, Y)
    assert fitted_attributes(net) == []
    with pytest.raises(NotFittedError):
        check_is_fitted(net)


@pytest.mark.parametrize("dtype, lr", [("float32", 1e6), ("float32", 1e38), ("float64", 1e200)])
def test_too_large_a_rate_is_an_error(dtype, lr):
    net = small(lr=lr, dtype=dtype, lr_schedule="constant")
    with pytest.raises(
        ValueError, match=r"loss became (nan|inf) in epoch \d at a learning rate of"
    ):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


def test_a_validation_loss_that_is_no_number_is_an_error():
    net = small(**EXACT | {"lr": 1e200, "max_epochs": 1, "validation": LAST_OF})
    with pytest.raises(ValueError, match="The valid_loss became nan in epoch 1"):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


LAST_STEP = r"^The net's outputs became nan or infinite in epoch {} at a learning rate of {}: "


def test_a_last_step_that_goes_wrong_is_an_error():
    net = small(**EXACT | {"lr": 1e20, "max_epochs": 1, "dtype": "float32"})
    with pytest.raises(ValueError, match=LAST_STEP.format(1, r"1e\+20")):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


@pytest.mark.parametrize("validation", [None, 0.2])
def test_weights_that_are_no_numbers_in_the_end_are_an_error(validation):
    net = small(validation=validation, net_params={"callbacks": [Poison(5)]})
    with pytest.raises(ValueError, match=LAST_STEP.format(5, r"0\.01")):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


FAILURES = [
    pytest.param(Raise(KeyboardInterrupt, 7, "on_grad_computed"), KeyboardInterrupt, id="Ctrl-C"),
    pytest.param(Raise(KeyboardInterrupt, 7, "on_batch_begin"), KeyboardInterrupt, id="Ctrl-C 2"),
    pytest.param(Raise(RuntimeError, 7, "on_epoch_end"), RuntimeError, id="callback"),
    pytest.param(Raise(RuntimeError, 5, "on_train_begin"), RuntimeError, id="begin"),
    pytest.param(Raise(RuntimeError, 10, "on_train_end"), RuntimeError, id="end"),
    pytest.param(Poison(6), ValueError, id="nan"),
    pytest.param(Poison(10), ValueError, id="nan in the end"),
]

# What a net trains with, beside its rows.
WAYS = [
    pytest.param(EXACT, id="one batch"),
    pytest.param({"lr_schedule": "cosine", "dropout": 0.3}, id="batches, average, cosine"),
]


@pytest.mark.parametrize("callback, error", FAILURES)
@pytest.mark.parametrize("way", WAYS)
def test_a_warm_start_that_fails_leaves_the_net_as_it_was(way, callback, error):
    net = small(**way, warm_start=True).fit(X, Y)
    untouched, same = copy.deepcopy(net), net.net_
    net.set_params(net_params={"callbacks": [callback]}, lr=0.02)
    with pytest.raises(error):
        net.fit(X[:200], Y[:200])
    np.testing.assert_array_equal(net.predict_proba(X), untouched.predict_proba(X))
    assert figures(net) == figures(untouched)
    assert net.net_ is same and net.n_iter_ == net.best_epoch_ == 5
    # The optimiser has forgotten it too.
    net.set_params(net_params=None, lr=0.01).fit(X, Y)
    np.testing.assert_array_equal(net.predict_proba(X), untouched.fit(X, Y).predict_proba(X))


@pytest.mark.parametrize(
    "params, lr, message",
    [
        ({}, 1e30, "The train_loss became nan in epoch 2"),
        (EXACT | {"dtype": "float32"}, 1e20, LAST_STEP.format(2, r"1e\+20")),
    ],
    ids=["batches", "last step"],
)
def test_a_partial_fit_that_fails_leaves_the_net_as_it_was(params, lr, message):
    net = small(**params).partial_fit(X, Y, classes=[0, 1])
    untouched = copy.deepcopy(net)
    net.set_params(lr=lr)
    with pytest.raises(ValueError, match=message):
        net.partial_fit(X, Y)
    np.testing.assert_array_equal(net.predict_proba(X), untouched.predict_proba(X))
    assert figures(net) == figures(untouched)
    net.set_params(lr=0.01).partial_fit(X, Y)
    assert net.n_iter_ == 2
    proba = untouched.partial_fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(net.predict_proba(X), proba, rtol=1e-6)


@pytest.mark.parametrize("hook", ["on_batch_begin", "on_grad_computed", "on_batch_end"])
def test_ctrl_c_in_the_middle_of_an_epoch_leaves_the_net_unfitted(hook):
    net = small(net_params={"callbacks": [Raise(KeyboardInterrupt, 2, hook)]})
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


def test_a_callback_may_end_training():
    params = {"lr_schedule": "constant"}
    net = small(**params, net_params={"callbacks": [Raise(KeyboardInterrupt, 2, "on_epoch_end")]})
    net.fit(X, Y)
    assert net.termination_condition_ == "callback"
    assert net.n_iter_ == net.best_epoch_ == 2
    two = small(**params, max_epochs=2).fit(X, Y)
    np.testing.assert_array_equal(net.predict_proba(X), two.predict_proba(X))


def test_a_failed_fit_forgets_the_one_before():
    net = small().fit(X, Y)
    net.set_params(lr=1e30)
    with pytest.raises(ValueError, match="loss became nan"):
        net.fit(X, Y)
    assert fitted_attributes(net) == []


# Random numbers


TRAINERS = [
    pytest.param(lambda net: net.fit(X, Y), id="fit"),
    pytest.param(lambda net: net.partial_fit(X, Y, classes=[0, 1]), id="partial_fit"),
]


@pytest.mark.parametrize("train", TRAINERS)
def test_same_seed_same_bits_and_the_global_generators_are_left_alone(train):
    torch.manual_seed(3)
    numpys = check_random_state(None)
    torch_state, numpy_state = torch.get_rng_state(), numpys.get_state()[1]
    first = train(small(dropout=0.3, validation=0.2))
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(numpys.get_state()[1], numpy_state)
    torch.manual_seed(4)
    numpys.uniform()
    second = train(small(dropout=0.3, validation=0.2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


def test_random_state_may_be_a_generator():
    rng = np.random.RandomState(0)
    net = small(random_state=rng).fit(X, Y)
    first = net.predict_proba(X)
    again = small(random_state=np.random.RandomState(0)).fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), first)
    assert (net.fit(X, Y).predict_proba(X) != first).any()


def test_nets_differ_by_seed_and_without_one():
    probas = [small(random_state=seed).fit(X, Y).predict_proba(X) for seed in (1, 2, None, None)]
    assert len({proba.tobytes() for proba in probas}) == 4


# Going on


def test_a_warm_start_goes_on():
    warm = small(**EXACT, warm_start=True).fit(X, Y).fit(X, Y)
    at_once = small(**EXACT, max_epochs=10).fit(X, Y)
    np.testing.assert_allclose(warm.predict_proba(X), at_once.predict_proba(X), rtol=1e-9)
    np.testing.assert_allclose(
        warm.net_.history[:, "train_loss"], at_once.net_.history[:, "train_loss"], rtol=1e-9
    )
    assert warm.n_iter_ == warm.best_epoch_ == 10
    assert warm.net_.history[:, "epoch"] == list(range(1, 11))


def test_a_warm_start_keeps_classes_and_standardisation():
    net = small(**EXACT, warm_start=True).fit(X3, Y3)
    before = net.net_.module_.state_dict()
    two = Y3 < 2
    with pytest.warns(ConvergenceWarning):
        net.set_params(lr=1e-200).fit(1000 * X3[two], Y3[two])
    np.testing.assert_array_equal(net.classes_, [0, 1, 2])
    after = net.net_.module_.state_dict()
    for name, part in before.items():
        assert torch.equal(part, after[name]), name


@pytest.mark.filterwarnings("ignore:TabularNet learned nothing")
@pytest.mark.parametrize("validation", ["auto", 0.2])
def test_a_warm_start_on_rows_of_one_class(validation):
    net = small(warm_start=True, validation=validation).fit(X, Y)
    net.fit(X[Y == 0], Y[Y == 0])
    np.testing.assert_array_equal(net.classes_, [0, 1])
    assert net.n_iter_ > 5


def local_class():
    class Local(torch.nn.Linear):
        def __init__(self, n_inputs):
            super().__init__(n_inputs, 4)

    return Local


@pytest.mark.parametrize(
    "trunk",
    [local_class(), lambda n_inputs: torch.nn.Linear(n_inputs, 4)],
    ids=["class", "function"],
)
def test_trunks_that_cannot_be_pickled_train_on(trunk):
    net = small(trunk, warm_start=True).partial_fit(X, Y, classes=[0, 1])
    assert net.partial_fit(X, Y).fit(X, Y).n_iter_ == 7


def test_a_warm_start_stops_by_its_own_validation_losses():
    net = overfitting(validation=LAST_OF, warm_start=True).fit(X, Y)
    first = net.n_iter_
    net.fit(X, Y)
    losses = net.net_.history[:, "valid_loss"]
    assert net.n_iter_ == len(losses) > first
    assert net.best_epoch_ == first + np.argmin(losses[first:]) + 1
    rows = np.arange(180, 240)
    assert log_loss(Y[rows], net.predict_proba(X[rows])) == pytest.approx(
        losses[net.best_epoch_ - 1], rel=1e-5
    )


def test_without_warm_start_every_fit_is_the_first():
    net = small().fit(X3[:100, :3], Y3[:100]).fit(X, Y)
    np.testing.assert_array_equal(net.predict_proba(X), small().fit(X, Y).predict_proba(X))
    assert net.n_features_in_ == 6 and net.n_iter_ == 5


def test_partial_fits_are_the_epochs_of_a_fit():
    fitted = small(**EXACT).fit(X, Y)
    partly = small(**EXACT)
    for epoch in range(5):
        partly.partial_fit(X, Y, classes=[0, 1])
        assert partly.n_iter_ == epoch + 1
    np.testing.assert_allclose(partly.predict_proba(X), fitted.predict_proba(X), rtol=1e-9)
    np.testing.assert_allclose(
        partly.net_.history[:, "train_loss"], fitted.net_.history[:, "train_loss"], rtol=1e-9
    )


def test_partial_fit_takes_the_rate_as_it_is():
    witness = Witness()
    net = small(lr_schedule="cosine", batch_size=60, net_params={"callbacks": [witness]})
    net.partial_fit(X, Y, classes=[0, 1]).set_params(lr=0.5).partial_fit(X, Y)
    assert witness.rates == [0.01] * 4 + [0.5] * 4


def test_every_partial_fit_draws_its_own_batches():
    witness = Witness()
    net = small(batch_size=60, net_params={"callbacks": [witness]})
    for _ in range(3):
        net.partial_fit(X, Y, classes=[0, 1])
    orders = rows_of(witness.batches).reshape(3, 240)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(240), (3, 1)))
    assert len({tuple(order) for order in orders}) == 3


def test_partial_fit_never_loses_a_class():
    net = small(**EXACT).partial_fit(X3, Y3, classes=[0, 1, 2, 9])
    frequent = Y3 == 0
    net.partial_fit(X3[frequent], Y3[frequent])
    np.testing.assert_array_equal(net.classes_, [0, 1, 2, 9])
    proba = net.predict_proba(X3)
    assert proba.shape == (240, 4)
    assert (proba > 0).all()
    assert set(net.predict(X3)) <= {0, 1, 2}


def test_partial_fit_goes_on_from_a_fit():
    net = small(**EXACT).fit(X, Y).partial_fit(X, Y)
    six = small(**EXACT, max_epochs=6).fit(X, Y)
    np.testing.assert_allclose(net.predict_proba(X), six.predict_proba(X), rtol=1e-9)


# Copies

COPIES = [
    pytest.param(copy.deepcopy, id="deepcopy"),
    pytest.param(lambda net: pickle.loads(pickle.dumps(net)), id="pickle"),
]


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("trunk, trunk_params", TRUNKS)
def test_copies_predict_and_train_on_alike(duplicate, trunk, trunk_params):
    net = small(trunk, **trunk_params, validation=0.2, warm_start=True).fit(X, Y)
    other = duplicate(net)
    np.testing.assert_array_equal(other.predict_proba(X), net.predict_proba(X))
    before = net.predict_proba(X)
    other.fit(X, Y)
    np.testing.assert_array_equal(net.predict_proba(X), before)
    np.testing.assert_array_equal(other.predict_proba(X), net.fit(X, Y).predict_proba(X))


def test_a_joblib_file_holds_the_net_and_no_rows(tmp_path):
    many = np.tile(X, (100, 1))
    net = small(validation=0.2, max_epochs=1, batch_size=10_000).fit(many, np.tile(Y, 100))
    joblib.dump(net, tmp_path / "net")
    loaded = joblib.load(tmp_path / "net")
    np.testing.assert_array_equal(loaded.predict_proba(X), net.predict_proba(X))
    assert (tmp_path / "net").stat().st_size < 100_000 < many.nbytes


def test_a_clone_is_not_fitted_and_fits_the_same():
    net = small(
        validation=(X[:50], Y[:50]), net_params={"optimizer__betas": (0.8, 0.9)}, max_epochs=3
    ).fit(X, Y)
    other = clone(net)
    assert fitted_attributes(other) == []
    np.testing.assert_array_equal(other.fit(X, Y).predict_proba(X), net.predict_proba(X))


def test_the_callers_callbacks_are_not_changed():
    own = skorch.callbacks.EarlyStopping("train_loss", patience=1, load_best=True)
    named = skorch.callbacks.EpochScoring("accuracy", name="accuracy", on_train=True)
    before = pickle.dumps((own, named))
    net = small(validation=0.2, net_params={"callbacks": [own, ("accuracy", named)]})
    for estimator in (net, clone(net)):
        estimator.fit(X, Y)
        assert "accuracy" in estimator.net_.history[-1]
    GridSearchCV(net, {"lr": [0.01, 0.02]}, cv=2, error_score="raise").fit(X, Y)
    net.set_params(warm_start=True).fit(X, Y).partial_fit(X, Y)
    assert net.get_params()["net_params"]["callbacks"][0] is own
    assert pickle.dumps((own, named)) == before


# A skorch net inside


def test_net_is_a_skorch_net(tmp_path):
    net = small(validation=0.2).fit(X, Y)
    assert isinstance(net.net_, skorch.NeuralNetClassifier)
    assert set(net.net_.history[-1]) >= {"epoch", "train_loss", "valid_loss", "dur"}
    np.testing.assert_allclose(net.net_.predict_proba(X), net.predict_proba(X), rtol=1e-12)
    other = small(random_state=1).fit(X, Y)
    net.net_.save_params(
        f_params=tmp_path / "params.pt",
        f_optimizer=tmp_path / "optimizer.pt",
        f_history=tmp_path / "history.json",
    )
    other.net_.load_params(
        f_params=tmp_path / "params.pt",
        f_optimizer=tmp_path / "optimizer.pt",
        f_history=tmp_path / "history.json",
    )
    np.testing.assert_array_equal(other.predict_proba(X), net.predict_proba(X))
    assert other.net_.history[:, "valid_loss"] == net.net_.history[:, "valid_loss"]


def test_net_params_reach_the_skorch_net():
    net = small(
        **EXACT,
        net_params={"optimizer": torch.optim.SGD, "optimizer__momentum": 0.5},
        weight_decay=0.25,
    ).fit(X, Y)
    (group,) = net.net_.optimizer_.param_groups
    assert isinstance(net.net_.optimizer_, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.5, 0.25)


def test_params_of_the_default_optimizer_are_kept():
    net = small(net_params={"optimizer__fused": False, "optimizer__weight_decay": 0.5}).fit(X, Y)
    (group,) = net.net_.optimizer_.param_groups
    assert isinstance(net.net_.optimizer_, torch.optim.AdamW)
    assert (group["fused"], group["weight_decay"]) == (False, 0.5)


@pytest.mark.parametrize("lr_schedule", ["constant", "cosine"])
def test_learning_rates_of_parameter_groups_keep_their_proportion(lr_schedule):
    witness = Witness()
    net = small(
        net_params={
            "optimizer__param_groups": [("head*", {"lr": 1e-4})],
            "callbacks": [witness],
        },
        warm_start=True,
        lr_schedule=lr_schedule,
    ).fit(X, Y)

    def rates():
        return [group["lr"] for group in net.net_.optimizer_.param_groups]

    first, (head, rest) = witness.rates[:], rates()
    assert max(first) == pytest.approx(1e-4, rel=0.05)
    assert head / rest == pytest.approx(1e-4 / 0.01)
    net.set_params(lr=0.03).fit(X, Y)
    np.testing.assert_allclose(witness.rates[len(first) :], 3 * np.array(first))
    np.testing.assert_allclose(rates(), [3 * head, 3 * rest])


@pytest.mark.filterwarnings("ignore:TabularNet learned nothing")
@pytest.mark.parametrize("optimizer", [torch.optim.LBFGS, torch.optim.Rprop])
def test_optimizers_without_weight_decay(optimizer):
    net = small(**EXACT, net_params={"optimizer": optimizer}).fit(X, Y)
    assert type(net.net_.optimizer_) is optimizer
    losses = net.net_.history[:, "train_loss"]
    assert losses[-1] < losses[0]


def test_label_smoothing_is_that_of_torch():
    witness = Witness()
    net_params = {"criterion__label_smoothing": 0.1, "callbacks": [witness]}
    net = small(**EXACT, max_epochs=1, net_params=net_params).fit(X, Y, W)
    logits = witness.modules[0](torch.as_tensor(X))
    smoothed = torch.full((240, 2), 0.05, dtype=torch.float64)
    smoothed[torch.arange(240), torch.as_tensor(Y)] += 0.9
    losses = -(smoothed * logits.log_softmax(dim=1)).sum(dim=1).detach().numpy()
    assert net.net_.history[0, "train_loss"] == pytest.approx(np.average(losses, weights=W))


def test_verbose_prints_a_line_for_each_epoch(capsys):
    small().fit(X, Y)
    assert capsys.readouterr().out == ""
    small(verbose=1).fit(X, Y)
    out = capsys.readouterr().out
    assert "train_loss" in out and len(out.splitlines()) == 2 + 5


ONE_MISSING = np.where(np.arange(240 * 6).reshape(240, 6) == 4, np.nan, X3)


@pytest.mark.parametrize(
    "params, rows, expected",
    [
        ({"depth": 1}, X3, 6 * 16 + 16 * 3),
        ({"depth": 3, "width": 10}, X3, 6 * 10 + 2 * 10 * 10 + 10 * 3),
        ({"dtype": "float64"}, X3, 6 * 16 + 16 * 16 + 16 * 3),
        ({"missing": "mean"}, ONE_MISSING, (6 + 1) * 16 + 16 * 16 + 16 * 3),
    ],
    ids=["one layer", "three layers", "float64", "an indicator"],
)
def test_multiply_adds_are_the_sizes_of_the_linear_layers(params, rows, expected):
    net = small(**params, max_epochs=1, lr=0.05).fit(rows, Y3)
    assert net.count_multiply_adds() == expected


def test_modules_that_others_set_to_training_still_predict_without_dropout():
    net = small(dropout=0.5).fit(X, Y)
    proba = net.predict_proba(X)
    net.net_.module_.train()
    np.testing.assert_array_equal(net.predict_proba(X), proba)


# At once


def count_threads(net, X, y):
    return torch.get_num_threads()


def test_processes_share_the_cores_and_fit_the_same_nets(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    scoring = {"threads": count_threads, "loss": "neg_log_loss"}
    results = cross_validate(small(), X, Y, cv=2, n_jobs=2, scoring=scoring)
    assert results["test_threads"].sum() <= max(2, cpu_count())
    alone = cross_val_score(small(), X, Y, cv=2, scoring="neg_log_loss")
    np.testing.assert_allclose(results["test_loss"], alone, rtol=1e-4)


def test_joblibs_threads_fit_the_same_bits():
    alone = cross_val_score(small(dropout=0.3), X, Y, cv=4, scoring="neg_log_loss")
    with joblib.parallel_config(backend="threading"):
        threads = cross_val_score(small(dropout=0.3), X, Y, cv=4, n_jobs=4, scoring="neg_log_loss")
    np.testing.assert_array_equal(threads, alone)


def test_threads_fit_the_same_bits():
    def fit(seed):
        return small(dropout=0.3, validation=0.2, random_state=seed).fit(X, Y).predict_proba(X)

    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(fit, [0, 1, 2, 3] * 2))
    np.testing.assert_array_equal(at_once, [fit(seed) for seed in [0, 1, 2, 3] * 2])


def test_threads_predict_alike_and_write_nothing():
    net = small().fit(X, Y)
    expected, before = net.predict_proba(X), pickle.dumps(net)
    with ThreadPoolExecutor(8) as pool:
        probas = list(pool.map(net.predict_proba, [X] * 64))
        counts = list(pool.map(lambda _: net.count_multiply_adds(), range(64)))
    np.testing.assert_array_equal(probas, [expected] * 64)
    assert len(set(counts)) == 1
    assert pickle.dumps(net) == before


# In company


def test_grid_search_over_parameters_of_every_kind():
    validations = [None, 0.2, LAST_OF, HALVES, (X[:50], Y[:50])]
    grid = {"lr": [0.03, 0.05], "width": [8, 16], "validation": validations}
    search = GridSearchCV(small(), grid, cv=[(np.arange(240), np.arange(240))])
    search.set_params(error_score="raise").fit(X, Y)
    assert len(search.cv_results_["params"]) == 20
    best = clone(search.best_estimator_).fit(X, Y)
    np.testing.assert_array_equal(search.predict_proba(X), best.predict_proba(X))


def test_pipelines_of_columns():
    frame = pd.DataFrame(X[:, :2], columns=["a", "b"]).assign(c=np.where(Y == 1, "yes", "no"))
    columns = [(StandardScaler(), ["a", "b"]), (OneHotEncoder(), ["c"])]
    model = make_pipeline(make_column_transformer(*columns), small(lr=0.05)).fit(frame, Y)
    assert model.score(frame, Y) == 1
    sparse_model = make_pipeline(
        make_column_transformer(*columns, sparse_threshold=1.0), small(lr=0.05)
    )
    sparse_model.fit(frame, Y)
    np.testing.assert_array_equal(sparse_model.predict_proba(frame), model.predict_proba(frame))


def test_groups_reach_the_splitter_through_a_pipeline():
    direct = small(validation=BY_GROUP).fit(StandardScaler().fit_transform(X), Y, groups=GROUPS)
    model = make_pipeline(StandardScaler(), small(validation=BY_GROUP))
    model.fit(X, Y, tabularnet__groups=GROUPS)
    np.testing.assert_array_equal(
        model[-1].net_.history[:, "valid_loss"], direct.net_.history[:, "valid_loss"]
    )


def test_metadata_is_routed_to_the_net_and_its_splitter():
    direct = small(validation=BY_GROUP).fit(X, Y, W, groups=GROUPS)
    with config_context(enable_metadata_routing=True):
        net = small(validation=BY_GROUP).set_fit_request(sample_weight=True)
        net.set_score_request(sample_weight=False)
        model = make_pipeline(net).fit(X, Y, sample_weight=W, groups=GROUPS)
        search = GridSearchCV(net, {"width": [16]}, cv=2, error_score="raise")
        search.fit(X, Y, sample_weight=W, groups=GROUPS)
    for fitted in (model[-1], search.best_estimator_):
        np.testing.assert_array_equal(fitted.predict_proba(X), direct.predict_proba(X))


@pytest.mark.parametrize(
    "validation", ["auto", None, 0.2, HALVES], ids=["auto", "none", "part", "indices"]
)
def test_without_a_splitter_there_is_none_to_route_to(validation):
    assert "splitter" not in str(small(validation=validation).get_metadata_routing())
    assert "splitter" in str(small(validation=BY_GROUP).get_metadata_routing())


def test_weights_are_routed_without_a_splitter():
    direct = small().fit(X, Y, W)
    with config_context(enable_metadata_routing=True):
        net = small().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(net, {"width": [16]}, cv=2, error_score="raise")
        search.fit(X, Y, sample_weight=W)
    np.testing.assert_array_equal(search.predict_proba(X), direct.predict_proba(X))


@pytest.mark.parametrize(
    "method", ["sigmoid", "isotonic", pytest.param("temperature", marks=since_1_8)]
)
def test_calibration(method):
    model = CalibratedClassifierCV(small(), method=method, cv=3).fit(X3, Y3, W)
    proba = model.predict_proba(X3)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert model.score(X3, Y3) > 0.7


def test_callbacks_of_the_callers_see_every_epoch_and_all_rows():
    cached = skorch.callbacks.EpochScoring("accuracy", name="cached", lower_is_better=False)
    again = skorch.callbacks.EpochScoring(
        "accuracy", name="again", lower_is_better=False, use_caching=False
    )
    net = small(
        validation=0.2, patience=1, max_epochs=50, net_params={"callbacks": [cached, again]}
    )
    net.fit(X, Y, sample_weight=W)
    assert net.termination_condition_ == "no_improvement"
    history = net.net_.history
    assert len(history[:, "cached"]) == len(history[:, "valid_loss"]) == net.n_iter_
    assert history[:, "cached"] == history[:, "again"]


def test_a_callback_that_ends_the_first_epoch_leaves_its_weights():
    class Stop(skorch.callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    net = small(validation=0.2, net_params={"callbacks": [Stop()]}).fit(X, Y)
    assert (net.n_iter_, net.best_epoch_, net.termination_condition_) == (1, 1, "callback")


def test_the_skorch_nets_classes_are_positions_in_classes():
    net = small().partial_fit(X[Y == 1], Y[Y == 1], classes=[0, 1, 2])
    np.testing.assert_array_equal(net.net_.classes_, [0, 1, 2])


def test_a_class_of_weight_0_is_left_out_of_training_and_scaling():
    rows = X.copy()
    rows[Y == 0, 0] = np.nan
    params = {"class_weight": {0: 0.0, 1: 1.0}, "missing": "mean"} | EXACT
    net = small(**params).fit(rows, Y)
    scaling = net.net_.module_.standardise
    np.testing.assert_allclose(scaling.centre, rows[Y == 1].mean(axis=0))
    assert scaling.indicated.numel() == 0
    np.testing.assert_array_equal(net.classes_, [0, 1])


def test_nothing_of_the_rows_stays_in_the_net():
    params = {"batch_size": 8, "validation": 0.2}
    few, many = small(**params).fit(X, Y), small(**params).fit(np.tile(X, (9, 1)), np.tile(Y, 9))
    sizes = [len(pickle.dumps(net.net_)) for net in (few, many)]
    assert abs(sizes[1] - sizes[0]) < 200
    for callback in dict(many.net_.callbacks_).values():
        assert getattr(callback, "best_model_weights_", None) is None
        assert getattr(callback, "_other", None) is None


def test_a_failed_warm_start_restores_rates_and_settings():
    net = small(warm_start=True, batch_size=32).fit(X, Y)
    names = ("lr", "max_epochs", "batch_size", "callbacks", "callbacks_", "train_split")
    before = copy.deepcopy(net.net_.optimizer_.param_groups), [getattr(net.net_, n) for n in names]
    net.set_params(lr=1e30, batch_size=240, max_epochs=7, validation=0.2)
    with pytest.raises(ValueError, match="choose a smaller lr"):
        net.fit(X, Y)
    assert [getattr(net.net_, n) for n in names] == before[1]
    for now, then in zip(net.net_.optimizer_.param_groups, before[0], strict=True):
        assert (now["lr"], now["initial_lr"]) == (then["lr"], then["initial_lr"])


def test_warm_starts_draw_other_batches():
    orders = []

    class Spy(skorch.callbacks.Callback):
        def on_batch_begin(self, net, batch=None, **kwargs):
            orders[-1].append(batch[0][0, 0].item())

        def __deepcopy__(self, memo):
            return self

    net = small(warm_start=True, batch_size=8, max_epochs=1, net_params={"callbacks": [Spy()]})
    for _ in range(3):
        orders.append([])
        net.fit(X, Y)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_batches_of_an_epoch_are_equally_large():
    sizes = []

    class Spy(skorch.callbacks.Callback):
        def on_batch_begin(self, net, batch=None, **kwargs):
            sizes.append(len(batch[0]))

        def __deepcopy__(self, memo):
            return self

    small(batch_size=10, max_epochs=1, net_params={"callbacks": [Spy()]}).fit(X[:101], Y[:101])
    assert len(sizes) == 11 and set(sizes) == {9, 10}


def test_generators_of_devices_that_are_not_used_are_left_alone(monkeypatch):
    def refuse(seed):
        raise AssertionError("torch.manual_seed seeds every device")

    monkeypatch.setattr(torch, "manual_seed", refuse)
    small(max_epochs=1).fit(X, Y)


def test_counting_does_not_depend_on_the_mode_of_the_module():
    class Normed(torch.nn.Module):
        def __init__(self, n_inputs):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(n_inputs, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU()
            )

        def forward(self, x):
            return self.layers(x)

    net = small(Normed).fit(X, Y)
    net.net_.module_.train()
    assert net.count_multiply_adds() == 6 * 4 + 4 * 2
