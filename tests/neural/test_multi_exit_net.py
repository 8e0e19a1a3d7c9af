"""MultiExitNet trains as a loop of plain torch does, and runs block by block."""

import copy
import inspect
import pickle
import re
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupShuffleSplit
from sklearn.utils import check_random_state

torch = pytest.importorskip("torch")
skorch = pytest.importorskip("skorch")

from skmsc import FocalWeights, LearnedWeights, SurvivorWeights  # noqa: E402
from skmsc.neural import MultiExitNet, TabularNet  # noqa: E402
from skmsc.training.exits import start_weigher  # noqa: E402

needs_tabm = pytest.mark.skipif(find_spec("tabm") is None, reason="tabm is not installed")

X, Y = make_classification(
    200,
    n_features=6,
    n_informative=4,
    n_classes=3,
    n_clusters_per_class=1,
    weights=[0.5, 0.3],
    random_state=0,
)
W = np.random.RandomState(0).uniform(0.2, 2, 200)
FIRST = np.random.RandomState(1).uniform(0.4, 1, 200)
GROUPS = np.arange(200) % 8

# All rows are one batch and nothing is drawn but the initial weights.
EXACT = {"batch_size": 10**6, "dropout": 0.0, "average_epochs": 0.0, "dtype": "float64"}


def small(trunk="mlp", **params):
    """A net with three exits that trains in no time."""
    defaults = {"width": 16, "lr": 0.01, "max_epochs": 5, "validation": None, "device": "cpu"}
    return MultiExitNet(trunk, **({"random_state": 0} | defaults | params))


class Members(torch.nn.Module):
    """Two exits of ensembles of three members."""

    def __init__(self, n_inputs, n_classes, width):
        super().__init__()

        class Stack(torch.nn.Module):
            def forward(self, x):
                return torch.stack([x, x.sin(), x.relu()], dim=1)

        first = torch.nn.Sequential(torch.nn.Linear(n_inputs, width), Stack())
        self.blocks = torch.nn.ModuleList([first, torch.nn.Tanh()])
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, n_classes) for _ in range(2))


class Witness(skorch.callbacks.Callback):
    """Keeps a copy of the module as training begins, and the batches; copies write here too."""

    def __init__(self):
        self.modules, self.batches = [], []

    def __deepcopy__(self, memo):
        return self

    def on_train_begin(self, net, **kwargs):
        self.modules.append(copy.deepcopy(net.module_))

    def on_batch_begin(self, net, batch, training, **kwargs):
        self.batches.append(batch)


class Spy:
    """A weigher of ones that keeps what it sees."""

    def __init__(self):
        self.seen, self.steps = [], []

    def before_step(self, net, Xi, yi):
        self.steps.append((net, Xi, yi))

    def weigh(self, loss, confidence):
        self.seen.append((loss, confidence))
        return torch.ones_like(loss)


def fitted_attributes(net):
    return [name for name in vars(net) if name.endswith("_")]


def rows_of(batch):
    """Rows of `X` that a batch holds, in their order."""
    values = batch["X"] if isinstance(batch, dict) else batch
    order = X[:, 0].argsort()
    return order[np.searchsorted(X[order, 0], values[:, 0].numpy())]


def weights_of(module):
    return np.concatenate([part.detach().numpy().ravel() for part in module.parameters()])


def losses_of(module, rows, labels, offset=0.0):
    """Cross-entropy of each row at each exit, averaged over the members of an ensemble."""
    logits = module(torch.as_tensor(rows)) + torch.as_tensor(offset)
    log_proba = logits - logits.logsumexp(dim=-1, keepdim=True)
    loss = -log_proba[torch.arange(len(labels)), ..., torch.as_tensor(labels)]
    return loss if loss.ndim == 2 else loss.mean(dim=2)


def confidences_of(module, rows):
    proba = torch.softmax(module(torch.as_tensor(rows)), dim=-1)
    proba = proba if proba.ndim == 3 else proba.mean(dim=2)
    return proba.max(dim=-1).values.detach().numpy()


# One exit

ONE_EXIT = [
    pytest.param({}, None, id="plain"),
    pytest.param({"dtype": "float64", "lr_schedule": "cosine"}, W, id="weights"),
    pytest.param({"class_weight": "balanced", "logit_adjustment": 0.5}, W, id="imbalance"),
    pytest.param({"net_params": {"optimizer": torch.optim.SGD}, "lr": 0.1}, None, id="sgd"),
]


@pytest.mark.parametrize("params, sample_weight", ONE_EXIT)
@pytest.mark.parametrize(
    "trunk, trunk_params",
    [
        ("mlp", None),
        ("resnet", None),
        pytest.param("tabm", {"k": 4}, marks=needs_tabm),
        pytest.param("tabm", {"k": 4, "arch_type": "tabm-mini"}, marks=needs_tabm),
    ],
    ids=["mlp", "resnet", "tabm", "tabm-mini"],
)
def test_one_exit_is_a_tabular_net(trunk, trunk_params, params, sample_weight):
    common = {"width": 16, "depth": 1, "lr": 0.02, "max_epochs": 6, "batch_size": 40}
    common |= {"validation": 0.2, "device": "cpu", "random_state": 0, "trunk_params": trunk_params}
    common |= params
    plain = TabularNet(trunk, **common).fit(X, Y, sample_weight)
    net = MultiExitNet(trunk, **common).fit(X, Y, sample_weight)
    assert net.n_exits_ == 1
    np.testing.assert_array_equal(net.predict_proba(X), plain.predict_proba(X))
    # Exit by exit the head is a transposed product, which rounds otherwise.
    np.testing.assert_allclose(net.exit_proba(X)[:, 0], plain.predict_proba(X), atol=1e-6)
    for name in ("train_loss", "valid_loss"):
        assert net.net_.history[:, name] == plain.net_.history[:, name]
    assert net.count_multiply_adds() == plain.count_multiply_adds()


def test_parameters_are_those_of_tabular_net():
    ours, theirs = (inspect.signature(c).parameters for c in (MultiExitNet, TabularNet))
    assert list(ours) == [name for name in theirs if name not in ("head", "head_rows")]
    changed = {name: p.default for name, p in ours.items() if p.default != theirs[name].default}
    assert changed == {"depth": 3}


# The loss


def uniform(loss, confidence):
    return np.ones_like(loss)


def focal(loss, confidence):
    hard = (1 - np.exp(-loss)) ** 2
    return 0.3 + 0.7 * hard / hard.mean(axis=0)


def survivors(loss, confidence):
    rank = (confidence[:, None] > confidence[None]).sum(axis=1) / (len(loss) - 1)
    passes = 1 / (1 + np.exp((rank - 0.6) / 0.1))
    chance = np.cumprod(np.insert(passes[:, :-1], 0, 1.0, axis=1), axis=1)
    chance = chance[:, confidence.shape[1] - loss.shape[1] :]
    return 0.3 + 0.7 * chance / chance.mean(axis=0)


def of_confidence(loss, confidence):
    return 0.5 + loss * confidence[:, -loss.shape[1] :]


SHARES = np.bincount(Y) / 200

# What the net gets; how it weighs rows and rows at exits, and what is added to logits, by hand.
LOSSES = {
    "plain": ({}, None, None, None, uniform, 0.0),
    "weighted": ({}, W, None, None, uniform, 0.0),
    "adjusted": ({"logit_adjustment": 1.0}, None, None, None, uniform, np.log(SHARES)),
    "focal": ({}, None, FocalWeights(), None, focal, 0.0),
    "focal, weighted": ({}, W, FocalWeights(), None, focal, 0.0),
    "survivors": ({}, W, SurvivorWeights(), None, survivors, 0.0),
    "survivors behind a first stage": ({}, W, SurvivorWeights(), FIRST, survivors, 0.0),
    "a function": ({}, W, of_confidence, None, of_confidence, 0.0),
}
LOSSES = [pytest.param(*case, id=name) for name, case in LOSSES.items()]

TRUNKS = [
    pytest.param("mlp", {}, id="mlp"),
    pytest.param("mlp", {"width": (16, 20, 12)}, id="mlp widths"),
    pytest.param("resnet", {"width": (6, 8, 8)}, id="resnet widths"),
    pytest.param(Members, {}, id="callable ensemble"),
    pytest.param("tabm", {"trunk_params": {"k": 4}}, id="tabm", marks=needs_tabm),
]


@pytest.mark.filterwarnings("ignore:MultiExitNet learned nothing")
@pytest.mark.parametrize("params, sample_weight, weighting, first, by_hand, offset", LOSSES)
@pytest.mark.parametrize("trunk, trunk_params", TRUNKS)
def test_weights_are_those_of_a_loop_by_hand(
    trunk, trunk_params, params, sample_weight, weighting, first, by_hand, offset
):
    witness = Witness()
    net = small(
        trunk,
        **EXACT,
        **trunk_params,
        **params,
        weight_decay=0.1,
        net_params={"callbacks": [witness]},
    )
    weigher = start_weigher(weighting or "uniform", 0)
    net.fit_exits(X, Y, sample_weight, weigher=weigher, first_confidence=first)

    (module,) = witness.modules
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1)
    of_rows = torch.as_tensor(np.ones(200) if sample_weight is None else W / W.mean())
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = losses_of(module, X, Y, offset)
        before = np.empty((200, 0)) if first is None else first[:, None]
        confidence = np.hstack([before, confidences_of(module, X)])
        of_exits = torch.as_tensor(by_hand(loss.detach().numpy(), confidence))
        loss = (of_rows[:, None] * of_exits * loss).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    np.testing.assert_allclose(weights_of(net.net_.module_), weights_of(module), rtol=1e-6)
    np.testing.assert_allclose(net.net_.history[:, "train_loss"], losses)


def test_fit_is_fit_exits_without_a_weigher():
    params = {"dropout": 0.3, "batch_size": 50, "validation": 0.2}
    net, same = small(**params).fit(X, Y, W), small(**params).fit_exits(X, Y, W)
    np.testing.assert_array_equal(net.exit_proba(X), same.exit_proba(X))
    # A first stage's confidence does nothing by itself, nor do weights of 1.
    for weigher in (None, Spy()):
        same = small(**params).fit_exits(X, Y, W, weigher=weigher, first_confidence=FIRST)
        np.testing.assert_array_equal(net.exit_proba(X), same.exit_proba(X))


@pytest.mark.filterwarnings("ignore:MultiExitNet learned nothing")
@pytest.mark.parametrize("sample_weight", [None, W], ids=["plain", "weighted"])
@pytest.mark.parametrize("first", [None, FIRST], ids=["net", "first stage"])
@pytest.mark.parametrize("trunk, trunk_params", TRUNKS)
def test_a_weigher_sees_losses_and_confidences(trunk, trunk_params, first, sample_weight):
    spy, witness = Spy(), Witness()
    params = EXACT | {"max_epochs": 1, "batch_size": 50, "lr": 1e-9}
    net = small(trunk, **params, **trunk_params, net_params={"callbacks": [witness]})
    net.fit_exits(X, Y, sample_weight, weigher=spy, first_confidence=first)
    (module,) = witness.modules
    assert len(spy.seen) == len(witness.batches) == len(spy.steps) == 4
    assert all(step[0] is net.net_ for step in spy.steps)
    for (loss, confidence), step, batch in zip(spy.seen, spy.steps, witness.batches, strict=True):
        assert step[1] is batch[0] and step[2] is batch[1]
        assert not loss.requires_grad and not confidence.requires_grad
        rows = rows_of(batch[0])
        expected = losses_of(module, X[rows], Y[rows]).detach()
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        before = np.empty((50, 0)) if first is None else first[rows, None]
        expected = np.hstack([before, confidences_of(module, X[rows])])
        np.testing.assert_allclose(confidence, expected, rtol=1e-6)


def test_validation_counts_all_exits_the_same_whatever_weighs():
    rows = (X[:60], Y[:60])
    net = small(validation=rows, dtype="float64", max_epochs=12)
    net.fit_exits(
        X[60:], Y[60:], weigher=FocalWeights(1.0, 5.0), first_confidence=FIRST[60:]
    )  # fmt: skip
    losses = [log_loss(Y[:60], net.exit_proba(X[:60])[:, k]) for k in range(3)]
    assert np.ptp(losses) > 1e-3
    assert min(net.net_.history[:, "valid_loss"]) == pytest.approx(np.mean(losses))


def test_what_was_learned_does_not_depend_on_how_rows_weigh():
    # Rows of the rare class weigh most: their loss is far above that of the class shares.
    rows, labels = make_classification(
        90, n_features=6, n_informative=4, weights=[0.9], class_sep=1.5, random_state=0
    )
    net = small(width=32, max_epochs=40, lr=0.002, dtype="float64")
    net.fit_exits(rows, labels, weigher=FocalWeights(1.0))
    share = labels.mean()
    floor = -share * np.log(share) - (1 - share) * np.log(1 - share)
    losses = [log_loss(labels, net.exit_proba(rows)[:, k]) for k in range(3)]
    assert max(losses) < floor
    assert net.net_.history[-1, "train_loss"] > floor


def test_a_weight_of_zero_is_absence_with_a_weigher_too():
    absent = np.arange(200) % 3 == 0
    rows, labels = np.where(absent[:, None], 1e30, X), np.where(absent, 7, Y)
    first = np.where(absent, 0.0, FIRST)
    params = {"weigher": SurvivorWeights(1.0)}
    net = small(batch_size=40)
    net.fit_exits(rows, labels, np.where(absent, 0.0, W), first_confidence=first, **params)
    own = ~absent
    present = small(batch_size=40)
    present.fit_exits(X[own], Y[own], W[own], first_confidence=FIRST[own], **params)
    np.testing.assert_array_equal(net.exit_proba(X), present.exit_proba(X))


def test_groups_reach_the_splitter():
    by_group = GroupShuffleSplit(2, test_size=0.25, random_state=0)
    net = small(validation=by_group).fit(X, Y, groups=GROUPS)
    same = small(validation=by_group).fit_exits(X, Y, split_params={"groups": GROUPS})
    np.testing.assert_array_equal(same.exit_proba(X), net.exit_proba(X))
    with pytest.raises(TypeError, match=r"^fit got the parameters \['groups'\], which only a"):
        small().fit_exits(X, Y, split_params={"groups": GROUPS})


# Answers


@pytest.mark.parametrize("trunk, trunk_params", TRUNKS)
def test_probabilities_of_every_exit_are_those_of_the_module(trunk, trunk_params):
    net = small(trunk, **trunk_params, dtype="float64").fit(X, Y)
    proba = net.exit_proba(X)
    assert proba.shape == (200, net.n_exits_, 3) and proba.dtype == np.float64
    with torch.no_grad():
        logits = net.net_.module_(torch.as_tensor(X)).numpy()
    members = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = members.reshape(200, net.n_exits_, -1, 3).mean(axis=2)
    np.testing.assert_allclose(proba, expected, rtol=1e-10)
    np.testing.assert_allclose(net.predict_proba(X), proba[:, -1], atol=1e-12)
    np.testing.assert_array_equal(net.predict(X), proba[:, -1].argmax(axis=1))


@pytest.mark.parametrize("trunk, trunk_params", TRUNKS)
def test_blocks_run_on_the_rows_that_wait_give_the_same(trunk, trunk_params):
    net = small(trunk, **trunk_params).fit(X, Y)
    together, rng = net.exit_proba(X), np.random.RandomState(0)
    waiting, carry = np.arange(200), X
    for k in range(net.n_exits_ - 1):
        proba, carry = net.run_exit(k, carry)
        assert proba.dtype == np.float64
        np.testing.assert_allclose(proba, together[waiting, k], atol=1e-6)
        idx = rng.permutation(len(waiting))[: len(waiting) // 2]
        waiting, carry = waiting[idx], carry.take_rows(idx)
        assert len(carry.features) == len(waiting)
    proba, carry = net.run_exit(net.n_exits_ - 1, carry)
    np.testing.assert_allclose(proba, together[waiting, -1], atol=1e-6)
    assert carry is None


def test_many_rows_are_run_in_pieces():
    net = small(dtype="float64").fit(X, Y)
    many = np.tile(X, (45, 1))  # 9000 rows, more than two pieces of 2048
    proba = net.exit_proba(many)
    np.testing.assert_allclose(proba, np.tile(net.exit_proba(X), (45, 1, 1)), rtol=1e-10)
    np.testing.assert_allclose(net.predict_proba(many), proba[:, -1], rtol=1e-10)


def test_no_row_may_wait():
    net = small().fit(X, Y)
    _, carry = net.run_exit(0, X)
    proba, carry = net.run_exit(1, carry.take_rows(np.empty(0, dtype=np.int64)))
    assert proba.shape == (0, 3) and carry.features.shape == (0, 16)
    assert net.run_exit(2, carry)[0].shape == (0, 3)


def test_no_row_may_come():
    proba, carry = small().fit(X, Y).run_exit(0, X[:0])
    assert proba.shape == (0, 3) and carry.features.shape == (0, 16)


CONTAINERS = {
    "csr": sparse.csr_array,
    "csr matrix": sparse.csr_matrix,
    "pandas": lambda rows: pd.DataFrame(rows, columns=list("abcdef")),
    "pandas nullable": lambda rows: pd.DataFrame(rows, columns=list("abcdef"), dtype="Float64"),
    "float32": lambda rows: rows.astype(np.float32),
}
CONTAINERS = [pytest.param(convert, id=name) for name, convert in CONTAINERS.items()]


@pytest.mark.parametrize("convert", CONTAINERS)
def test_rows_of_any_kind_are_the_same_rows(convert):
    reference = small().fit(X, Y).exit_proba(X)
    net = small().fit(convert(X), Y)
    np.testing.assert_allclose(net.exit_proba(convert(X)), reference, rtol=1e-4)
    proba, _ = net.run_exit(0, convert(X))
    np.testing.assert_allclose(proba, reference[:, 0], rtol=1e-4)
    weighed = small().fit_exits(convert(X), Y, W, weigher=Spy(), first_confidence=FIRST)
    np.testing.assert_allclose(
        weighed.exit_proba(convert(X)), small().fit(X, Y, W).exit_proba(X), rtol=1e-4
    )


def test_missing_values_are_the_mean():
    rows = np.where(np.random.RandomState(0).uniform(size=X.shape) < 0.1, np.nan, X)
    net = small(missing="mean", lr=0.02).fit(rows, Y)
    proba = net.exit_proba(rows)
    np.testing.assert_allclose(net.run_exit(0, rows)[0], proba[:, 0])
    np.testing.assert_allclose(net.predict_proba(rows), proba[:, -1], atol=1e-6)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        small().fit(X, Y).exit_proba(rows)


def test_modules_that_others_set_to_training_still_answer_without_dropout():
    net = small(dropout=0.5, lr=0.02).fit(X, Y)
    proba = net.exit_proba(X)
    net.net_.module_.train()
    np.testing.assert_array_equal(net.run_exit(0, X)[0], proba[:, 0])
    net.net_.module_.train()
    np.testing.assert_array_equal(net.exit_proba(X), proba)


# Multiply-adds


COUNTS = {
    "mlp": ("mlp", {}, [6 * 16 + 16 * 3, 16 * 16 + 16 * 3, 16 * 16 + 16 * 3]),
    "mlp widths": (
        "mlp",
        {"width": (16, 8, 12)},
        [6 * 16 + 16 * 3, 16 * 8 + 8 * 3, 8 * 12 + 12 * 3],
    ),
    "resnet": ("resnet", {}, [6 * 16 + 4 * 16 * 16 + 16 * 3] + 2 * [4 * 16 * 16 + 16 * 3]),
    "resnet widths": (
        "resnet",
        {"width": (6, 8, 8)},
        [
            6 * 6 + 4 * 6 * 6 + 6 * 3,
            6 * 8 + 4 * 8 * 8 + 8 * 3,
            4 * 8 * 8 + 8 * 3,
        ],
    ),
    "ensemble": (Members, {}, [6 * 16 + 3 * 16 * 3, 3 * 16 * 3]),
    "float64": ("mlp", {"dtype": "float64", "depth": 1}, [6 * 16 + 16 * 3]),
}
COUNTS = [pytest.param(*case, id=name) for name, case in COUNTS.items()]
TABM = pytest.param(
    "tabm",
    {"trunk_params": {"k": 4}},
    [4 * (6 * 16 + 16 * 3), 4 * (16 * 16 + 16 * 3), 4 * (16 * 16 + 16 * 3)],
    id="tabm",
    marks=needs_tabm,
)


@pytest.mark.parametrize("trunk, params, expected", [*COUNTS, TABM])
def test_multiply_adds_are_the_sizes_of_the_linear_layers(trunk, params, expected):
    net = small(trunk, **params, lr=0.02)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(net.preview_multiply_adds(6, 3), expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert fitted_attributes(net) == []
    net.fit(X, Y)
    counts = net.count_exit_multiply_adds()
    assert counts.shape == (net.n_exits_,) and counts.dtype.kind == "i"
    np.testing.assert_array_equal(counts, expected)
    net.net_.module_.train()
    np.testing.assert_array_equal(net.count_exit_multiply_adds(), expected)


def test_the_answer_costs_all_blocks_and_the_last_head():
    net = small().fit(X, Y)
    heads = [16 * 3] * 2
    assert net.count_multiply_adds() == net.count_exit_multiply_adds().sum() - sum(heads)


def test_indicators_of_missing_values_are_counted_after_fit_alone():
    rows = np.where(np.arange(1200).reshape(200, 6) == 4, np.nan, X)
    net = small(missing="mean", lr=0.02)
    before = net.preview_multiply_adds(6, 3)
    after = net.fit(rows, Y).count_exit_multiply_adds()
    np.testing.assert_array_equal(after - before, [16, 0, 0])


def test_a_preview_checks_the_parameters():
    with pytest.raises(ValueError, match="The 'depth' parameter of MultiExitNet must be"):
        small(depth=0).preview_multiply_adds(6, 3)
    with pytest.raises(TypeError, match="trunk 'Linear' must make a torch module with blocks"):
        small(torch.nn.Linear).preview_multiply_adds(6, 3)


# The weigher is the caller's


def test_the_net_keeps_no_weigher():
    spy = Spy()
    net = small().fit_exits(X, Y, weigher=spy)
    assert net.net_.weigher is None
    assert "_weigher" not in vars(net)
    assert net.get_params() == small().get_params()
    n_seen = len(spy.seen)
    net.exit_proba(X), net.partial_fit(X, Y), net.set_params(warm_start=True).fit(X, Y)
    assert len(spy.seen) == len(spy.steps) == n_seen > 0


def test_a_fit_after_fit_exits_is_the_first():
    net = small().fit_exits(X, Y, weigher=FocalWeights(), first_confidence=FIRST)
    weighed = net.exit_proba(X)
    net.fit(X, Y)
    np.testing.assert_array_equal(net.exit_proba(X), small().fit(X, Y).exit_proba(X))
    assert (net.exit_proba(X) != weighed).any()


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("trunk", ["mlp", "resnet", pytest.param("tabm", marks=needs_tabm)])
def test_copies_answer_and_train_on_alike(trunk, duplicate):
    weigher = start_weigher(lambda loss, confidence: 1 + loss, 0)  # cannot be pickled
    net = small(trunk, validation=0.2, warm_start=True, lr=0.02)
    net.fit_exits(X, Y, W, weigher=weigher)
    other, before = duplicate(net), net.exit_proba(X)
    np.testing.assert_array_equal(other.exit_proba(X), before)
    other.fit(X, Y)
    np.testing.assert_array_equal(net.exit_proba(X), before)
    np.testing.assert_array_equal(other.exit_proba(X), net.fit(X, Y).exit_proba(X))


def test_a_clone_is_not_fitted_and_fits_the_same():
    net = small(width=(16, 8, 4)).fit_exits(X, Y, weigher=FocalWeights())
    other = clone(net)
    assert fitted_attributes(other) == [] and other.width == (16, 8, 4)
    other.fit_exits(X, Y, weigher=FocalWeights())
    np.testing.assert_array_equal(other.exit_proba(X), net.exit_proba(X))


# What goes wrong


def no_step(net, Xi, yi):
    raise RuntimeError("no step")


class Failing(Spy):
    """Fails at its third batch."""

    def weigh(self, loss, confidence):
        if len(self.seen) == 2:
            raise RuntimeError("no weights")
        return super().weigh(loss, confidence)


def failing_before_a_step():
    spy = Spy()
    spy.before_step = no_step
    return spy


FAILURES = [
    pytest.param({}, Failing(), RuntimeError, "no weights", id="weigher"),
    pytest.param({}, failing_before_a_step(), RuntimeError, "no step", id="before a step"),
    pytest.param({"lr": 1e30}, None, ValueError, "loss became nan", id="rate"),
    pytest.param({"trunk": torch.nn.Linear}, None, TypeError, "must make a torch", id="trunk"),
    pytest.param({"width": (8, 8)}, None, ValueError, "width must be", id="width"),
]


@pytest.mark.parametrize("params, weigher, error, message", FAILURES)
def test_a_fit_that_fails_leaves_nothing_fitted(params, weigher, error, message):
    net = small().fit(X, Y)
    net.set_params(**params)
    with pytest.raises(error, match=message):
        net.fit_exits(X, Y, weigher=weigher)
    assert fitted_attributes(net) == [] and "_weigher" not in vars(net)
    assert not hasattr(net, "n_exits_")
    with pytest.raises(NotFittedError):
        net.exit_proba(X)
    # Nor is anything of the weigher left in the next fit.
    net.set_params(**small().get_params()).fit(X, Y)
    np.testing.assert_array_equal(net.exit_proba(X), small().fit(X, Y).exit_proba(X))


def test_weights_that_are_no_weights_end_training():
    def own(loss, confidence):
        return loss - 100

    net = small()
    with pytest.raises(ValueError) as error:
        net.fit_exits(X, Y, weigher=start_weigher(own, 0))
    assert str(error.value) == f"exit_weighting={own!r} must return finite weights >= 0."
    assert fitted_attributes(net) == []


@pytest.mark.parametrize(
    "trunk, width",
    [
        ("mlp", (16, 8)),
        ("mlp", [16, 8, 4, 2]),
        ("resnet", []),
        ("mlp", (16, 0, 8)),
        ("mlp", (16, -1, 8)),
        ("resnet", (16, 8.0, 8)),
        ("resnet", ["16", "8", "8"]),
        ("mlp", np.array([16.0, 8.0, 8.0])),
        ("tabm", (16, 8, 8)),
        (Members, (16, 8)),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["fit", "fit_exits"])
def test_widths_that_are_not_one_for_each_block_are_refused(trunk, width, method):
    net = small(trunk, width=width)
    with pytest.raises(ValueError) as error:
        getattr(net, method)(X, Y)
    assert str(error.value) == (
        "width must be an integer >= 1, or one such integer (not with 'tabm') for each of the "
        f"depth=3 blocks; got {width!r}."
    )


@pytest.mark.parametrize("width", [0, -3, 2.5, None, "16"], ids=repr)
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match="The 'width' parameter of MultiExitNet must be an int"):
        small(width=width).fit(X, Y)


@pytest.mark.parametrize("width", [np.int64(16), [16, 16, 16], np.array([16, 16, 16])], ids=repr)
def test_widths_in_any_container(width):
    np.testing.assert_array_equal(
        small(width=width).fit(X, Y).exit_proba(X), small().fit(X, Y).exit_proba(X)
    )


def test_a_module_in_place_of_what_makes_one_is_refused():
    with pytest.raises(TypeError) as error:
        small(Members(6, 3, 4)).fit(X, Y)
    assert str(error.value) == (
        "trunk must be a class or a function that makes a module from the number of inputs; got "
        "the module Members."
    )


@pytest.mark.parametrize("name", ["weigher", "module__trunk", "lr"])
def test_net_params_do_not_hold_what_is_the_nets_own(name):
    expected = f"net_params must not hold {name!r}, which "
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        small(net_params={name: None}).fit(X, Y)


@pytest.mark.parametrize(
    "ask",
    [
        lambda net: net.exit_proba(X),
        lambda net: net.predict_proba(X),
        lambda net: net.count_exit_multiply_adds(),
    ],
    ids=["exit_proba", "predict_proba", "count_exit_multiply_adds"],
)
def test_a_net_that_is_not_fitted_answers_nothing(ask):
    with pytest.raises(NotFittedError, match="This MultiExitNet instance is not fitted yet"):
        ask(small())


def test_rows_of_another_width_are_refused():
    net = small().fit(X, Y)
    with pytest.raises(ValueError, match="X has 5 features, but MultiExitNet is expecting 6"):
        net.exit_proba(X[:, :5])


def test_a_callable_gets_the_parameters_that_it_names():
    got = []

    def trunk(n_inputs, n_classes, depth, scale, width=3):
        got.append((n_inputs, n_classes, depth, scale, width))
        return Members(n_inputs, n_classes, width)

    net = small(trunk, width=5, trunk_params={"scale": 2.0}).fit(X, Y)
    assert got == [(6, 3, 3, 2.0, 5)] and net.n_exits_ == 2
    assert net.net_.module_.blocks[0][0].out_features == 5


# Random numbers, and going on


@pytest.mark.parametrize("weigher", [None, FocalWeights()], ids=["uniform", "focal"])
def test_same_seed_same_bits_and_the_global_generators_are_left_alone(weigher):
    params = {"dropout": 0.3, "validation": 0.2, "batch_size": 50}
    numpys = check_random_state(None)
    states = torch.get_rng_state(), numpys.get_state()[1]
    first = small(**params).fit_exits(X, Y, weigher=weigher).exit_proba(X)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(numpys.get_state()[1], states[1])
    torch.manual_seed(4)
    second = small(**params).fit_exits(X, Y, weigher=weigher).exit_proba(X)
    np.testing.assert_array_equal(second, first)
    other = small(**params, random_state=1).fit_exits(X, Y, weigher=weigher).exit_proba(X)
    assert (other != first).any()


def test_a_warm_start_goes_on():
    warm = small(**EXACT, warm_start=True).fit(X, Y).fit(X, Y)
    at_once = small(**EXACT, max_epochs=10).fit(X, Y)
    np.testing.assert_allclose(warm.exit_proba(X), at_once.exit_proba(X), rtol=1e-9)
    assert warm.n_iter_ == 10


def test_fit_exits_starts_anew_with_warm_start_too():
    net = small(warm_start=True).fit(X[:, :3], Y)
    net.fit_exits(X, Y, weigher=FocalWeights())
    expected = small().fit_exits(X, Y, weigher=FocalWeights()).exit_proba(X)
    np.testing.assert_array_equal(net.exit_proba(X), expected)
    assert net.n_features_in_ == 6 and net.n_iter_ == 5


def test_partial_fits_are_the_epochs_of_a_fit():
    fitted, partly = small(**EXACT).fit(X, Y), small(**EXACT)
    for _ in range(5):
        partly.partial_fit(X, Y, classes=[0, 1, 2])
    np.testing.assert_allclose(partly.exit_proba(X), fitted.exit_proba(X), rtol=1e-9)
    assert partly.n_exits_ == 3 and partly.n_iter_ == 5


def test_partial_fit_goes_on_from_fit_exits_without_its_weights():
    net = small(**EXACT, lr=0.05)
    net.fit_exits(X, Y, weigher=FocalWeights(), first_confidence=FIRST)
    module = copy.deepcopy(net.net_.module_)
    losses = losses_of(module, X, Y).mean().item()
    net.partial_fit(X, Y)
    assert net.net_.history[-1, "train_loss"] == pytest.approx(losses)


def test_what_skorch_calls_the_nets_answer_is_that_of_the_last_exit():
    net = small().fit(X, Y)
    got = net.net_.predict_proba(X.astype(np.float32))
    np.testing.assert_allclose(got, net.predict_proba(X), atol=1e-6)


class Attention(torch.nn.Module):
    """Attention among the inputs of a row, an operation without a forward-mode formula."""

    def __init__(self, n_inputs):
        super().__init__()
        self.inner = torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.enter = torch.nn.Linear(1, 4)

    def forward(self, x):
        """Features (n, n_inputs) to features (n, 4)."""
        return self.inner(self.enter(x[..., None])).mean(dim=1)


class Attentive(torch.nn.Module):
    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Attention(n_inputs), torch.nn.Linear(4, 4)])
        self.heads = torch.nn.ModuleList(torch.nn.Linear(4, n_classes) for _ in range(2))


@pytest.mark.filterwarnings("ignore:MultiExitNet learned nothing")
def test_learned_weights_do_with_operations_that_have_no_forward_mode():
    weigher = start_weigher(LearnedWeights(every=1), 0)
    MultiExitNet(Attentive, max_epochs=1, device="cpu", random_state=0).fit_exits(
        X[:100], Y[:100], weigher=weigher
    )
    assert weigher.n_batches > 0


def test_stages_of_tiny_shares_leave_a_row_to_the_last_exit():
    weigher = start_weigher(LearnedWeights(exit_share=1e-13, every=1), 0)
    small(max_epochs=1).fit_exits(X, Y, weigher=weigher, first_confidence=np.ones(len(Y)))
    assert weigher.n_batches > 0
