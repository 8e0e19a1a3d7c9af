"""Modules with several exits: what they compute, and which blocks and heads they take."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

from torch import nn  # noqa: E402

from skmsc.neural._exits import Exits, MultiExitModule, ResidualBlock, check_exits  # noqa: E402
from skmsc.neural._modules import MemberHeads  # noqa: E402
from skmsc.neural._scaling import Scaling  # noqa: E402

CENTRE = np.array([0.0, 2.0, -1e6])
SCALE = np.array([1.0, 0.25, 1e4])
SCALING = Scaling(CENTRE, SCALE, np.array([False, True, False]))
SHARES = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
SIZES = {"width": 8, "depth": 3, "dropout": 0.2}
WIDTHS = SIZES | {"width": (8, 5, 6)}


class Own(nn.Module):
    """Blocks that double their width, from 6 on, and a linear head each."""

    def __init__(self, n_inputs, n_classes, depth=3, bias=True):
        super().__init__()
        sizes = [n_inputs, *(6 * 2**k for k in range(depth))]
        self.blocks = nn.ModuleList(nn.Linear(sizes[k], sizes[k + 1]) for k in range(depth))
        self.heads = nn.ModuleList(nn.Linear(size, n_classes, bias=bias) for size in sizes[1:])


def own_function(n_inputs, n_classes):
    """An ensemble of two members with a wide hidden layer in each head."""

    class Stack(nn.Module):
        def forward(self, x):
            return torch.stack([x, 2 * x], dim=1)

    blocks = [nn.Sequential(nn.Linear(n_inputs, 5), Stack()), nn.ReLU()]
    return Exits(blocks, [nn.Sequential(nn.ReLU(), MemberHeads(2, 5, n_classes)) for _ in "ab"])


def rows(n_samples=50):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(CENTRE, 2 * SCALE, (n_samples, 3)))


def make_module(trunk="mlp", trunk_params=SIZES, **params):
    torch.manual_seed(0)
    return MultiExitModule(SCALING, trunk, trunk_params, SHARES.log(), **params)


# Trunk and its parameters; what a hidden feature behind each block, and a row of logits, is.
TRUNKS = {
    "mlp": ("mlp", SIZES, [(8,)] * 3, ()),
    "mlp widths": ("mlp", WIDTHS, [(8,), (5,), (6,)], ()),
    "resnet": ("resnet", SIZES, [(8,)] * 3, ()),
    "resnet widths": ("resnet", WIDTHS, [(8,), (5,), (6,)], ()),
    "resnet of the inputs' width": ("resnet", SIZES | {"width": 3}, [(3,)] * 3, ()),
    "class": (Own, {}, [(6,), (12,), (24,)], ()),
    "function": (own_function, {}, [(2, 5)] * 2, (2,)),
}
TRUNKS = [pytest.param(*case, id=name) for name, case in TRUNKS.items()]


@pytest.mark.parametrize("impute", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_rows", [0, 1, 9])
@pytest.mark.parametrize("trunk, trunk_params, hidden, members", TRUNKS)
def test_shapes_behind_every_block(trunk, trunk_params, hidden, members, n_rows, dtype, impute):
    module = make_module(trunk, trunk_params, dtype=dtype, impute=impute)
    assert module.n_exits == len(hidden)
    logits = module(rows(n_rows))
    assert logits.shape == (n_rows, len(hidden), *members, 4) and logits.dtype == dtype
    x = rows(n_rows)
    for k, shape in enumerate(hidden):
        of_exit, x = module.run(k, x)
        assert of_exit.shape == (n_rows, *members, 4) and of_exit.dtype == dtype
        assert x.shape == (n_rows, *shape) and x.dtype == dtype


@pytest.mark.parametrize("trunk, trunk_params, hidden, members", TRUNKS)
def test_block_by_block_the_logits_are_the_same(trunk, trunk_params, hidden, members):
    module = make_module(trunk, trunk_params).eval()
    together, x = module(rows()), rows()
    for k in range(module.n_exits):
        logits, x = module.run(k, x)
        # The head of an exit by itself is a transposed product, which rounds otherwise.
        torch.testing.assert_close(logits, together[:, k], rtol=1e-5, atol=1e-6)
    assert torch.equal(module.answer(rows()), together[:, -1])
    # Exits differ: none is another's answer.
    assert all((together[:, k] != together[:, -1]).any() for k in range(module.n_exits - 1))


@pytest.mark.parametrize("trunk, trunk_params, hidden, members", TRUNKS)
def test_an_answer_does_not_depend_on_other_rows(trunk, trunk_params, hidden, members):
    module = make_module(trunk, trunk_params, dtype=torch.float64).eval()
    alone = torch.cat([module(row) for row in rows().split(1)])
    torch.testing.assert_close(alone, module(rows()), rtol=1e-10, atol=1e-12)


def relu(x):
    return np.maximum(x, 0)


def linear(layer, x):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def normed(layer, x):
    x = x - x.mean(axis=1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5)
    return x * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def standardised():
    """Rows as blocks get them, none of which is far."""
    return (rows().numpy() - CENTRE) / SCALE


@pytest.mark.parametrize("params", [SIZES, WIDTHS], ids=["width", "widths"])
def test_mlp_by_hand(params):
    module = make_module("mlp", params, dtype=torch.float64).eval()
    hidden, expected = standardised(), []
    for (layer, _, _), head in zip(module.blocks, module.heads, strict=True):
        hidden = relu(linear(layer, hidden))
        expected.append(linear(head, hidden))
    found = module(rows()).detach()
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("params", [SIZES, WIDTHS], ids=["width", "widths"])
def test_resnet_by_hand(params):
    module = make_module("resnet", params, dtype=torch.float64).eval()
    torch.nn.init.normal_(module.blocks[1].inner[0].weight)
    torch.nn.init.normal_(module.heads[1][0].bias)
    hidden, expected = standardised(), []
    for block, (norm, _, head) in zip(module.blocks, module.heads, strict=True):
        if isinstance(block.enter, nn.Linear):
            hidden = linear(block.enter, hidden)
        first_norm, first, _, _, second = block.inner
        hidden = hidden + linear(second, relu(linear(first, normed(first_norm, hidden))))
        expected.append(linear(head, relu(normed(norm, hidden))))
    found = module(rows()).detach()
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "n_inputs, width, first, enter",
    [(3, 8, False, nn.Linear), (8, 8, False, nn.Identity), (8, 8, True, nn.Linear)],
)
def test_residual_blocks_are_widened_where_need_be(n_inputs, width, first, enter):
    block = ResidualBlock(n_inputs, width, 0.0, first=first)
    assert type(block.enter) is enter
    assert block(torch.zeros(2, n_inputs)).shape == (2, width)


def test_only_the_first_block_of_a_resnet_and_those_of_another_width_are_widened():
    module = make_module("resnet", SIZES | {"depth": 4, "width": (3, 3, 6, 6)})
    kinds = [type(block.enter) for block in module.blocks]
    assert kinds == [nn.Linear, nn.Identity, nn.Linear, nn.Identity]


@pytest.mark.parametrize("arch_type", ["tabm", "tabm-mini", "tabm-packed"])
def test_tabm_exits_are_of_all_members(arch_type):
    pytest.importorskip("tabm")
    params = SIZES | {"k": 5, "arch_type": arch_type}
    module = make_module("tabm", params, dtype=torch.float64).eval()
    logits = module(rows())
    assert logits.shape == (50, 3, 5, 4) and logits.dtype == torch.float64
    x = rows()
    for k in range(3):
        of_exit, x = module.run(k, x)
        assert x.shape == (50, 5, 8)
        assert torch.equal(of_exit, logits[:, k])
        # Members differ already before their heads.
        assert (x[:, 0] != x[:, 1]).any()
    assert torch.equal(module.answer(rows()), logits[:, 2])
    alone = torch.cat([module(row) for row in rows().split(1)])
    torch.testing.assert_close(alone, logits, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("arch_type", ["tabm", "tabm-mini", "tabm-packed"])
def test_the_last_hidden_features_are_those_of_the_tabm_package(arch_type):
    tabm = pytest.importorskip("tabm")
    module = make_module("tabm", SIZES | {"k": 5, "arch_type": arch_type}).eval()
    torch.manual_seed(0)
    sizes = {"n_num_features": 3, "n_blocks": 3, "d_block": 8, "dropout": 0.2}
    whole = tabm.TabM.make(**sizes, d_out=None, k=5, arch_type=arch_type).eval()
    x = module.standardise(rows())
    hidden = x
    for block in module.blocks:
        hidden = block(hidden)
    torch.testing.assert_close(hidden, whole(x), rtol=1e-6, atol=1e-6)


# The start, and training


@pytest.mark.parametrize("trunk, trunk_params, hidden, members", TRUNKS)
def test_exits_that_know_nothing_give_the_class_shares(trunk, trunk_params, hidden, members):
    module = make_module(trunk, trunk_params, dtype=torch.float64)
    for head in module.heads:
        *_, last = [part for part in head.modules() if hasattr(part, "weight")]
        nn.init.zeros_(last.weight)
    proba = torch.softmax(module(rows()), dim=-1)
    torch.testing.assert_close(proba, SHARES.expand_as(proba))


def test_tabm_exits_that_know_nothing_give_the_class_shares():
    pytest.importorskip("tabm")
    module = make_module("tabm", SIZES | {"k": 4}, dtype=torch.float64)
    for head in module.heads:
        nn.init.zeros_(head.weight)
    proba = torch.softmax(module(rows()), dim=-1)
    torch.testing.assert_close(proba, SHARES.expand_as(proba))


def test_heads_without_a_bias_and_of_another_kind_are_left_as_they_are():
    module = make_module(Own, {"bias": False})
    assert all(head.bias is None for head in module.heads)

    def normed_heads(n_inputs, n_classes):
        head = nn.Sequential(nn.Linear(n_inputs, n_classes), nn.LayerNorm(n_classes))
        return Exits([nn.Identity()], [head])

    module = make_module(normed_heads, {})
    assert torch.equal(module.heads[0][1].bias, torch.zeros(4))


def test_parameters_of_the_trunk_are_passed_on():
    assert make_module(Own, {"depth": 2}).n_exits == 2
    assert make_module("mlp", SIZES | {"dropout": 0.7}).blocks[0][2].p == 0.7


@pytest.mark.parametrize("trunk, trunk_params, hidden, members", TRUNKS)
def test_every_parameter_learns(trunk, trunk_params, hidden, members):
    module = make_module(trunk, trunk_params)
    module(rows()).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_finding_the_shapes_leaves_no_trace():
    def normed_blocks(n_inputs, n_classes):
        return Exits(
            [nn.BatchNorm1d(n_inputs), nn.Dropout(0.5)],
            [nn.Linear(n_inputs, n_classes) for _ in range(2)],
        )

    module = make_module(normed_blocks, {})
    assert all(part.training for part in module.modules())
    assert module.blocks[0].num_batches_tracked == 0
    assert all(parameter.grad is None for parameter in module.parameters())


def test_only_blocks_and_heads_of_a_users_module_are_kept():
    class More(Own):
        def __init__(self, n_inputs, n_classes):
            super().__init__(n_inputs, n_classes)
            self.unused = nn.Linear(100, 100)

        def forward(self, x):
            raise AssertionError("blocks and heads are run one by one")

    names = {name.split(".")[0] for name, _ in make_module(More, {}).named_parameters()}
    assert names == {"blocks", "heads"}


# What is refused

VALID = "a torch module with blocks and heads, two ModuleLists of one length"


def exits_of(blocks, heads):
    """A function that makes a module of these parts, whatever they are."""

    def made(n_inputs, n_classes):
        module = nn.Module()
        module.blocks, module.heads = blocks, heads
        return module

    return made


def modules(*parts):
    return nn.ModuleList(parts)


BLOCK, HEAD = nn.Linear(3, 5), nn.Linear(5, 4)

NO_EXITS = [
    (exits_of(modules(), modules()), ValueError, "it made 0 blocks and 0 heads."),
    (exits_of(modules(), modules(HEAD)), ValueError, "it made 0 blocks and 1 heads."),
    (exits_of(modules(BLOCK), modules()), ValueError, "it made 1 blocks and 0 heads."),
    (
        exits_of(modules(BLOCK, nn.ReLU()), modules(HEAD)),
        ValueError,
        "it made 2 blocks and 1 heads.",
    ),
    (exits_of(None, modules(HEAD)), TypeError, "its blocks are of type NoneType."),
    (exits_of(modules(BLOCK), None), TypeError, "its heads are of type NoneType."),
    (exits_of([BLOCK], modules(HEAD)), TypeError, "its blocks are of type list."),
    (exits_of(modules(BLOCK), [HEAD]), TypeError, "its heads are of type list."),
    (
        exits_of(nn.Sequential(BLOCK), modules(HEAD)),
        TypeError,
        "its blocks are of type Sequential.",
    ),
]


@pytest.mark.parametrize("trunk, error, message", NO_EXITS)
def test_modules_without_blocks_and_heads_are_refused(trunk, error, message):
    with pytest.raises(error) as caught:
        make_module(trunk, {})
    assert str(caught.value) == f"trunk 'made' must make {VALID}; {message}"
    with pytest.raises(error) as caught:
        check_exits(trunk(3, 4), "made")
    assert str(caught.value) == f"trunk 'made' must make {VALID}; {message}"


def test_a_module_class_without_exits_is_refused():
    with pytest.raises(TypeError) as error:
        make_module(nn.Linear, {})
    expected = f"trunk 'Linear' must make {VALID}; its blocks are of type NoneType."
    assert str(error.value) == expected


@pytest.mark.parametrize(
    "made", [None, 3, Own, ([BLOCK], [HEAD]), {"blocks": [BLOCK], "heads": [HEAD]}], ids=repr
)
def test_what_is_no_module_is_refused(made):
    def trunk(n_inputs, n_classes):
        return made

    with pytest.raises(TypeError) as error:
        make_module(trunk, {})
    assert str(error.value) == f"trunk 'trunk' must make {VALID}; it made {made!r}."


@pytest.mark.parametrize(
    "trunk, name, trunk_params",
    [
        (Own, "Own", {"width": 8}),
        (lambda n_inputs: None, "<lambda>", {}),
        ("mlp", "mlp", SIZES | {"heads": 3}),
    ],
    ids=["parameter", "number of classes", "name"],
)
def test_trunks_that_cannot_be_made_are_named(trunk, name, trunk_params):
    expected = f"trunk {name!r} cannot be made of 3 inputs, 4 classes and {trunk_params}: "
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}.*(argument|parameter)"):
        make_module(trunk, trunk_params)


class Shape(nn.Module):
    """Gives whatever a function gives."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def of_shapes(*shapes):
    """Identical blocks, and heads that give zeros of these shapes behind the rows."""

    def made(n_inputs, n_classes):
        heads = [
            Shape(lambda x, shape=shape: torch.zeros(len(x), *shape)) for shape in shapes
        ]  # fmt: skip
        return Exits([nn.Identity() for _ in shapes], heads)

    return made


HEADS = {
    "too many classes": (of_shapes((5,), (5,)), [(2, 5), (2, 5)]),
    "too few classes": (of_shapes((3,)), [(2, 3)]),
    "heads of unequal width": (of_shapes((4,), (5,)), [(2, 4), (2, 5)]),
    "the first is wrong": (of_shapes((5,), (4,)), [(2, 5), (2, 4)]),
    "one with members": (of_shapes((4,), (3, 4)), [(2, 4), (2, 3, 4)]),
    "other numbers of members": (of_shapes((2, 4), (3, 4)), [(2, 2, 4), (2, 3, 4)]),
    "members last": (of_shapes((4, 3)), [(2, 4, 3)]),
    "no dimension of classes": (of_shapes(()), [(2,)]),
    "four dimensions": (of_shapes((2, 3, 4)), [(2, 2, 3, 4)]),
}
HEADS = [pytest.param(*case, id=name) for name, case in HEADS.items()]


@pytest.mark.parametrize("trunk, shapes", HEADS)
def test_heads_of_another_shape_are_refused(trunk, shapes):
    with pytest.raises(ValueError) as error:
        make_module(trunk, {})
    assert str(error.value) == (
        "Every head of trunk 'made' must map the output of its block to logits of shape (n_rows, "
        "4), or (n_rows, n_members, 4) for an ensemble; for 2 rows the heads give the shapes "
        f"{shapes}."
    )


@pytest.mark.parametrize("shape", [(4,), (3, 4), (1, 4)], ids=str)
def test_heads_of_either_shape_are_taken(shape):
    assert make_module(of_shapes(shape, shape), {})(rows(9)).shape == (9, 2, *shape)


def test_heads_that_lose_rows_are_refused():
    def made(n_inputs, n_classes):
        return Exits([nn.Identity()], [Shape(lambda x: torch.zeros(1, n_classes))])

    with pytest.raises(ValueError, match=r"for 2 rows the heads give the shapes \[\(1, 4\)\]\.$"):
        make_module(made, {})


BROKEN = {
    "block of other inputs": ([nn.Linear(7, 5)], [nn.Linear(5, 4)], 0),
    "head of other inputs": ([nn.Linear(3, 5)], [nn.Linear(7, 4)], 0),
    "later block": ([nn.Linear(3, 5), nn.Linear(3, 5)], [HEAD, HEAD], 1),
    "later head": ([nn.Linear(3, 5), nn.Linear(5, 7)], [HEAD, HEAD], 1),
    "head without a tensor": ([nn.Linear(3, 5)], [Shape(lambda x: (x, x))], 0),
    "block without a tensor": ([Shape(lambda x: (x, x))], [HEAD], 0),
    "block of more arguments": ([nn.Bilinear(3, 3, 5)], [HEAD], 0),
    "no forward": ([nn.Module()], [HEAD], 0),
    "another dimension": ([nn.Linear(3, 5)], [Shape(lambda x: x[:, :, 0, None])], 0),
}
BROKEN = [pytest.param(*case, id=name) for name, case in BROKEN.items()]


@pytest.mark.parametrize("blocks, heads, k", BROKEN)
def test_blocks_and_heads_that_do_not_run_are_named(blocks, heads, k):
    expected = (
        f"Block or head {k} of trunk '<lambda>' does not run on what the blocks before it make of "
        "rows of 3 inputs: "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}.+"):
        make_module(lambda *_: Exits(blocks, heads), {})


def test_logits_that_are_no_floats_are_refused():
    def made(n_inputs, n_classes):
        return Exits([nn.Identity()], [Shape(lambda x: torch.zeros(len(x), 4, dtype=torch.int64))])

    with pytest.raises(ValueError, match="float"):
        make_module(made, {})
