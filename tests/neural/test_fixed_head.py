"""Heads whose rows are fixed: what they compute, and nets that are trained with them."""

import pickle
from functools import partial
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import train_test_split

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

from skmsc.fixed_rows import KINDS, fixed_rows  # noqa: E402
from skmsc.neural import MultiExitNet, TabularNet  # noqa: E402
from skmsc.neural._modules import FixedHead, MemberHeads, MLPTrunk  # noqa: E402
from skmsc.neural._random import own_random_numbers  # noqa: E402

needs_tabm = pytest.mark.skipif(find_spec("tabm") is None, reason="tabm is not installed")

X, Y = make_classification(
    240, n_features=6, n_informative=4, n_classes=3, n_clusters_per_class=1, random_state=0
)
ROWS = fixed_rows("orthogonal", 7, 16, seed=0)


def small(head="linear", **params):
    """A net that trains in no time."""
    defaults = {"width": 16, "lr": 0.01, "max_epochs": 5, "validation": None, "device": "cpu"}
    return TabularNet(head=head, **({"random_state": 0} | defaults | params))


def parameters(module):
    """Parameters by name, as arrays."""
    return {name: part.detach().numpy().copy() for name, part in module.named_parameters()}


class Members(torch.nn.Module):
    """An ensemble of three layers. Shape: (b, n) -> (b, 3, width)."""

    def __init__(self, n_inputs, width):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(n_inputs, width) for _ in range(3))

    def forward(self, x):
        return torch.stack([layer(x).relu() for layer in self.layers], dim=1)


# The head by itself


@pytest.mark.parametrize("shape", [(9, 16), (9, 3, 16), (0, 16)])
def test_logits_are_scaled_cosines_and_biases(shape):
    rng = np.random.default_rng(0)
    x, bias = rng.normal(size=shape), rng.normal(size=5)
    head = FixedHead(ROWS, 5).double()
    with torch.no_grad():
        head.scale.fill_(3.5)
        head.bias.copy_(torch.from_numpy(bias))
        logits = head(torch.from_numpy(x)).numpy()
    expected = 3.5 * x @ ROWS[:5].T / np.linalg.norm(x, axis=-1, keepdims=True) + bias
    np.testing.assert_allclose(logits, expected, rtol=1e-12, atol=1e-12)


def test_the_length_of_features_does_not_count():
    x = torch.randn(9, 16)
    head = FixedHead(ROWS, 7).float()
    for factor in (1e-12, 1e-3, 1e12):
        torch.testing.assert_close(head(factor * x), head(x))


def test_features_that_are_all_zero_get_the_biases():
    head = FixedHead(ROWS, 7).double()
    x = torch.randn(4, 16, dtype=torch.float64)
    x[1] = 0
    x.requires_grad_()
    torch.nn.init.normal_(head.bias)
    logits = head(x)
    assert torch.equal(logits[1], head.bias)
    logits.square().sum().backward()
    assert all(torch.isfinite(part.grad).all() for part in (x, head.scale, head.bias))


def test_a_scale_and_the_biases_are_all_that_learns():
    head = FixedHead(ROWS, 5)
    assert sum(part.numel() for part in head.parameters()) == 5 + 1
    head(torch.randn(9, 16).double()).square().sum().backward()
    assert head.scale.grad != 0 and (head.bias.grad != 0).all()
    assert not head.rows.requires_grad


def test_rows_are_in_the_state():
    other = FixedHead(fixed_rows("orthogonal", 7, 16, seed=1), 5)
    ours = FixedHead(ROWS, 5)
    other.load_state_dict(ours.state_dict())
    x = torch.randn(9, 16).double()
    assert torch.equal(other(x), ours(x))


# Nets with such a head


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "trunk, trunk_params",
    [
        pytest.param("mlp", None, id="mlp"),
        pytest.param("resnet", None, id="resnet"),
        pytest.param(Members, None, id="callable ensemble"),
        pytest.param("tabm", {"k": 4}, id="tabm", marks=needs_tabm),
    ],
)
@pytest.mark.parametrize("head", KINDS)
def test_predictions_are_those_of_cosines_with_the_rows(head, trunk, trunk_params, dtype):
    net = small(head, trunk=trunk, trunk_params=trunk_params, dtype=dtype, head_rows=5)
    net.fit(X, Y)
    module = net.net_.module_
    assert sum(part.numel() for part in module.head.parameters()) == 3 + 1
    assert (module.head.rows.dtype, module.head.rows.shape) == (getattr(torch, dtype), (5, 16))
    rows = module.head.rows.cpu().numpy()[:3]
    with torch.no_grad():
        inputs = module.standardise(torch.from_numpy(X).to(net.net_.device))
        hidden = module.trunk(inputs).double().cpu().numpy()
    hidden = hidden.reshape(240, -1, 16)  # one member, or several
    length = np.linalg.norm(hidden, axis=2, keepdims=True)
    logits = module.head.scale.item() * hidden @ rows.T / np.where(length == 0, 1, length)
    proba = np.exp(logits + module.head.bias.detach().numpy())
    expected = (proba / proba.sum(axis=2, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(net.predict_proba(X), expected, rtol=1e-4)


@pytest.mark.parametrize("head", KINDS)
def test_training_leaves_the_rows_and_moves_the_rest(head):
    net = small(head, average_epochs=3.0, dtype="float64", warm_start=True)
    net.fit(X, Y)
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    rows = fixed_rows(head, 3, 16, seed)
    np.testing.assert_array_equal(net.net_.module_.head.rows.numpy(), rows)
    before = parameters(net.net_.module_)
    net.fit(X, Y).partial_fit(X, Y, [0, 1, 2])
    np.testing.assert_array_equal(net.net_.module_.head.rows.numpy(), rows)
    after = parameters(net.net_.module_)
    assert all((before[name] != after[name]).any() for name in before)


@pytest.mark.parametrize("head", KINDS)
def test_biases_start_at_the_log_shares(head):
    y = np.repeat([0, 1, 2], [120, 90, 30])
    net = small(head, lr=1e-30, trunk=lambda n_inputs: torch.nn.Identity(), dtype="float64")
    with pytest.warns(UserWarning, match="TabularNet learned nothing"):
        net.fit(X, y)
    bias = net.net_.module_.head.bias.detach().numpy()
    np.testing.assert_allclose(np.exp(bias), [1 / 2, 3 / 8, 1 / 8])
    np.testing.assert_allclose(net.net_.module_.head.scale.item(), 10)


@pytest.mark.parametrize("head", KINDS)
def test_the_same_seed_gives_the_same_bits(head):
    first, again, other = (small(head, random_state=seed).fit(X, Y) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert (first.predict_proba(X) != other.predict_proba(X)).any()


@pytest.mark.parametrize("head", KINDS)
def test_partial_fit_draws_the_rows_of_fit(head):
    fitted = small(head).fit(X, Y)
    partly = small(head).partial_fit(X, Y, [0, 1, 2])
    assert torch.equal(fitted.net_.module_.head.rows, partly.net_.module_.head.rows)


@pytest.mark.parametrize("head", KINDS)
def test_nets_are_pickled_and_cloned(head):
    net = small(head, head_rows=4).fit(X, Y)
    thawed = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(thawed.predict_proba(X), net.predict_proba(X))
    np.testing.assert_array_equal(clone(net).fit(X, Y).predict_proba(X), net.predict_proba(X))


@pytest.mark.filterwarnings("ignore:TabularNet learned nothing")
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_weight_decay_leaves_the_scale_alone(weight_decay):
    params = {"batch_size": 240, "max_epochs": 1, "average_epochs": 0.0, "dtype": "float64"}
    net = small("orthogonal", weight_decay=weight_decay, **params).fit(X, Y)
    # The first step of AdamW is the learning rate in all that is not decayed.
    np.testing.assert_allclose(abs(net.net_.module_.head.scale.item() - 10), 0.01, rtol=1e-3)


def test_param_groups_of_ones_own():
    groups = [("head.*", {"lr": 0.0})]
    net = small("orthogonal", net_params={"optimizer__param_groups": groups}, weight_decay=0.0)
    assert net.fit(X, Y).net_.module_.head.scale.item() == 10


def test_multiply_adds_are_those_of_a_linear_head():
    linear, fixed = (small(head).fit(X, Y) for head in ("linear", "orthogonal"))
    assert fixed.count_multiply_adds() == linear.count_multiply_adds()


@pytest.mark.parametrize("head", KINDS)
def test_digits_are_told_apart_as_with_a_linear_head(head):
    digits = train_test_split(*load_digits(return_X_y=True), random_state=0)
    scores = {}
    for name in ("linear", head):
        net = TabularNet(head=name, width=64, max_epochs=20, lr=0.005, random_state=0)
        scores[name] = net.fit(digits[0], digits[2]).score(digits[1], digits[3])
    assert scores["linear"] > 0.96
    assert scores[head] > scores["linear"] - 0.02


@pytest.mark.parametrize("head", KINDS)
def test_adjusted_predictions_are_those_of_equally_frequent_classes(head):
    labels = np.repeat([0, 1, 2], [1800, 900, 300])
    centres = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    rows = centres[labels] + np.random.RandomState(0).normal(size=(3000, 2))
    net = small(head, logit_adjustment=1.0, max_epochs=10).fit(rows, labels)
    # Bayes' rule with equal shares: halfway between two centres, one is as likely as the other.
    proba = net.predict_proba([[1.0, 0.0], [0.0, 1.0]])
    assert abs(np.log(proba[0, 0] / proba[0, 1])) < 0.5 < np.log(1800 / 900)
    assert abs(np.log(proba[1, 0] / proba[1, 2])) < 0.5 < np.log(1800 / 300)


@pytest.mark.parametrize(
    "params, message",
    [
        (
            {"head_rows": 5},
            "head_rows must be None with head='linear', which has no fixed rows; got 5.",
        ),
        (
            {"head": "simplex", "head_rows": 2},
            "head_rows must be at least the number of classes, 3, or None; got 2.",
        ),
        (
            {"head": "orthogonal", "width": 2},
            "head='orthogonal' does not suit a trunk of 2 outputs: n_features=2 has room for 1 to "
            "2 distinct orthogonal rows; got n_rows=3.",
        ),
        (
            {"head": "hadamard", "width": 2, "head_rows": 5},
            "head='hadamard' does not suit a trunk of 2 outputs: n_features=2 has room for 1 to 4 "
            "distinct hadamard rows; got n_rows=5.",
        ),
    ],
)
def test_heads_that_cannot_be(params, message):
    net = small(**params)
    for fit in (net.fit, partial(net.partial_fit, classes=[0, 1, 2])):
        with pytest.raises(ValueError) as error:
            fit(X, Y)
        assert str(error.value) == message
        assert not hasattr(net, "net_") and not hasattr(net, "classes_")


@pytest.mark.parametrize("params", [{"head": "cosine"}, {"head": "simplex", "head_rows": 2.5}])
def test_parameters_of_another_kind(params):
    name = list(params)[-1]
    with pytest.raises(ValueError, match=f"'{name}' parameter of TabularNet must be"):
        small(**params).fit(X, Y)


def test_nets_with_several_exits_have_no_such_parameter():
    assert not {"head", "head_rows"} & set(MultiExitNet().get_params())
    with pytest.raises(TypeError):
        MultiExitNet(head="simplex")


# A linear head is what it was


@pytest.mark.parametrize(
    "trunk, make_trunk, make_head",
    [
        ("mlp", lambda: MLPTrunk(6, 16, 2, 0.0), lambda: torch.nn.Linear(16, 3)),
        (Members, lambda: Members(6, 16), lambda: MemberHeads(3, 16, 3)),
    ],
    ids=["single", "ensemble"],
)
def test_a_linear_head_is_drawn_after_the_trunk_and_nothing_else_is(trunk, make_trunk, make_head):
    net = small(trunk=trunk, dropout=0.0, lr=1e-30, average_epochs=0.0, weight_decay=0.0)
    with pytest.warns(UserWarning, match="TabularNet learned nothing"):
        net.fit(np.zeros((240, 6)), Y)
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    with own_random_numbers(seed, torch.device("cpu")):
        parts = torch.nn.ModuleDict({"trunk": make_trunk(), "head": make_head()})
    shares = torch.from_numpy(np.log(np.bincount(Y) / 240))
    with torch.no_grad():
        parts.head.bias.copy_(shares.expand_as(parts.head.bias))
    fitted, expected = parameters(net.net_.module_), parameters(parts)
    assert fitted.keys() == expected.keys()
    for name in fitted:
        np.testing.assert_array_equal(fitted[name], expected[name])


# Hidden features


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array, pd.DataFrame])
def test_features_are_what_a_linear_head_gets(convert):
    net = small(dtype="float64", dropout=0.5, max_epochs=1)
    rows = np.tile(X, (20, 1))  # several batches
    net.fit(convert(rows), np.tile(Y, 20))
    net.net_.module_.train()
    features = net.features(convert(rows))
    assert (features.shape, features.dtype) == ((4800, 16), np.float64)
    head = net.net_.module_.head
    logits = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.predict_proba(convert(rows)), expected, rtol=1e-10)


@pytest.mark.parametrize("net", [TabularNet(Members, width=5), TabularNet("resnet", width=5)])
def test_features_are_the_mean_of_the_members(net):
    net.set_params(max_epochs=2, random_state=0).fit(X, Y)
    module = net.net_.module_
    with torch.no_grad():
        inputs = module.standardise(torch.from_numpy(X).to(net.net_.device))
        hidden = module.trunk(inputs).double().cpu().numpy()
    features = net.features(X)
    assert (features.shape, features.dtype) == ((240, 5), np.float64)
    np.testing.assert_allclose(features, hidden.reshape(240, -1, 5).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    "trunk, trunk_params",
    [("mlp", None), ("resnet", None), pytest.param("tabm", {"k": 4}, marks=needs_tabm)],
)
def test_features_of_several_exits_are_those_behind_the_last_block(trunk, trunk_params):
    params = {"width": 8, "depth": 3, "lr": 0.02, "random_state": 0, "dtype": "float64"}
    net = MultiExitNet(trunk, trunk_params=trunk_params, **params).fit(X, Y)
    carry = torch.from_numpy(X).to(net.net_.device)
    with torch.no_grad():
        for k in range(3):
            _, carry = net.net_.module_.run(k, carry)
    hidden = carry.cpu().numpy().reshape(240, -1, 8).mean(axis=1)
    np.testing.assert_allclose(net.features(X), hidden, rtol=1e-10)


class Maps(torch.nn.Module):
    """Two blocks whose hidden features are 2 x 3 maps, of one net and no ensemble."""

    def __init__(self, n_inputs, n_classes):
        super().__init__()
        unfold = torch.nn.Sequential(torch.nn.Linear(n_inputs, 6), torch.nn.Unflatten(1, (2, 3)))
        self.blocks = torch.nn.ModuleList([unfold, torch.nn.Identity()])
        self.heads = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, n_classes)) for _ in "ab"
        )


def test_maps_become_features_one_by_one():
    net = MultiExitNet(Maps, lr=0.02, random_state=0, dtype="float64").fit(X, Y)
    last = net.net_.module_.heads[-1][1]
    weight, bias = (t.detach().cpu().numpy() for t in (last.weight, last.bias))
    logits = net.features(X) @ weight.T + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.predict_proba(X), expected, rtol=1e-10)


def test_features_of_bad_rows():
    with pytest.raises(NotFittedError):
        small().features(X)
    net = small().fit(X, Y)
    with pytest.raises(ValueError, match="X has 5 features, but TabularNet is expecting 6"):
        net.features(X[:, :5])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        net.features(np.full((2, 6), np.nan))
