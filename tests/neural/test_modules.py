"""Modules of tabular nets: what they compute, and which trunks they take."""

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

from skmsc.neural._modules import (  # noqa: E402
    Dropout,
    MemberHeads,
    MLPTrunk,
    Standardise,
    TabularModule,
)
from skmsc.neural._scaling import Scaling  # noqa: E402

CENTRE = np.array([0.0, 2.0, -1e6])
SCALE = np.array([1.0, 0.25, 1e4])
SCALING = Scaling(CENTRE, SCALE, np.array([False, True, False]))
UNIT = Scaling(np.zeros(1), np.ones(1), np.zeros(1, dtype=bool))
SHARES = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
SIZES = {"width": 8, "depth": 2, "dropout": 0.2}


class Members(torch.nn.Module):
    """A trunk of two members, one a multiple of the other."""

    def __init__(self, n_inputs, width=3):
        super().__init__()
        self.linear = torch.nn.Linear(n_inputs, width)

    def forward(self, x):
        x = self.linear(x)
        return torch.stack([x, 2 * x], dim=1)


class Trunk(torch.nn.Module):
    """A trunk that gives whatever a function gives."""

    def __init__(self, n_inputs, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def linear(n_inputs):
    return torch.nn.Linear(n_inputs, 5)


def rows_near(scaling, n_samples=50):
    rng = np.random.default_rng(0)
    return torch.from_numpy(
        rng.normal(scaling.centre, 2 * scaling.scale, (n_samples, len(scaling.centre)))
    )


def standardised(values, dtype=torch.float64):
    """Values of one column with mean 0 and variance 1."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return Standardise(UNIT, dtype)(values[:, None])[:, 0]


def make_module(trunk="mlp", trunk_params=SIZES, **params):
    torch.manual_seed(0)
    return TabularModule(SCALING, trunk, trunk_params, SHARES.log(), **params)


TRUNKS = [("mlp", SIZES), ("resnet", SIZES), (linear, {}), (Members, {})]
TRUNK_IDS = ["mlp", "resnet", "linear", "members"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_the_centre_columns_are_standardised(dtype):
    x = rows_near(SCALING)
    z = Standardise(SCALING, dtype)(x)
    assert z.dtype == dtype
    expected = (x.numpy() - CENTRE) / SCALE
    assert np.abs(expected).max() < 10
    np.testing.assert_allclose(z, expected, rtol=1e-6, atol=1e-9)


def test_scaling_of_training_rows_gives_mean_0_and_variance_1():
    x = rows_near(SCALING)
    z = Standardise(Scaling.of(x.numpy()), torch.float64)(x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(0, correction=0), 1, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int32, torch.int64])
def test_rows_of_any_dtype(dtype):
    x = torch.tensor([[1, 0, -1], [3, 2, 7]]).to(dtype)
    expected = Standardise(SCALING)(x.double())
    assert torch.equal(Standardise(SCALING)(x), expected)


def test_far_values_grow_like_their_logarithm():
    z = standardised([10.0, 10 * np.e, -10 * np.e**2, 100.0, -200.0])
    np.testing.assert_allclose(
        z, [10, 20, -30, 10 + 10 * np.log(10), -10 - 10 * np.log(20)], rtol=1e-12
    )


@pytest.mark.parametrize("value", [200.0, 201.0, 1e6, 1e101, 1e301, np.finfo(np.float64).max])
@pytest.mark.parametrize("sign", [1, -1])
def test_farthest_values_are_one(value, sign):
    z = standardised([sign * value])
    np.testing.assert_allclose(z, sign * (10 + 10 * np.log(20)), rtol=1e-12)


def test_value_and_slope_have_no_jump_where_far_begins():
    step = 1e-4
    for_sides = standardised([10 - step, 10.0, 10 + step, -10 - step, -10.0, -10 + step])
    np.testing.assert_allclose(for_sides[[1, 4]], [10, -10], rtol=1e-12)
    slopes = for_sides[[1, 2, 4, 5]] - for_sides[[0, 1, 3, 4]]
    np.testing.assert_allclose(slopes / step, 1, rtol=1e-4)


def test_order_is_kept_up_to_200():
    far = np.geomspace(1e-5, 200, 2000)
    assert (standardised(np.r_[-far[::-1], 0, far]).diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_largest_floats_are_finite_and_in_order(dtype):
    z = standardised([-1.7e308, -1e300, -1e30, 0.0, 1e30, 1e300, 1.7e308], dtype)
    assert torch.isfinite(z).all() and (z.diff() >= 0).all()
    np.testing.assert_allclose(z, -z.flip(0))


def test_differences_that_overflow_are_finite():
    scaling = Scaling(np.array([1.7e308]), np.array([1e-5]), np.zeros(1, dtype=bool))
    assert torch.isfinite(Standardise(scaling)(torch.tensor([[-1.7e308]]).double())).all()


def test_gradients_are_finite():
    x = torch.tensor([[0.0], [10.0], [-10.0], [1e5], [1e308]], dtype=torch.float64)
    x.requires_grad_()
    Standardise(UNIT)(x).sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad >= 0).all()


def test_timestamps_keep_their_seconds():
    seconds = 1.7e9 + np.arange(86400.0)[:, None]
    z = Standardise(Scaling.of(seconds))(torch.from_numpy(seconds))[:, 0]
    assert (z.diff() > 0).all()
    expected = (np.arange(86400) - 43199.5) / np.arange(86400).std()
    np.testing.assert_allclose(z, expected, atol=2e-6)


def test_missing_values_are_the_mean_and_indicated_where_training_had_some():
    x = torch.tensor([[torch.nan] * 3, [1.0, 2.0, -1e6], [1.0, torch.nan, -1e6]])
    module = Standardise(SCALING, impute=True)
    expected = [[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]]
    assert module(x).tolist() == expected
    assert module.n_outputs == 4


def test_without_missing_values_in_training_there_is_no_indicator():
    module = Standardise(UNIT, impute=True)
    assert module(torch.tensor([[torch.nan], [3.0]])).tolist() == [[0.0], [3.0]]
    assert module.n_outputs == 1


def test_missing_values_that_are_an_error_are_not_hidden():
    z = Standardise(SCALING)(torch.tensor([[torch.nan, 2.0, -1e6]]))
    assert z.shape == (1, 3)
    assert torch.isnan(z).tolist() == [[True, False, False]]


def test_imputed_rows_are_else_the_same():
    x = rows_near(SCALING)
    assert torch.equal(Standardise(SCALING, impute=True)(x)[:, :3], Standardise(SCALING)(x))


def test_mlp_by_hand():
    torch.manual_seed(0)
    trunk = MLPTrunk(3, width=4, depth=2, dropout=0.5).double().eval()
    x = rows_near(Scaling(np.zeros(3), np.ones(3), np.zeros(3, dtype=bool)))
    h = x.numpy()
    for layer, _, _ in trunk.blocks:
        h = np.maximum(h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), 0)
    with torch.no_grad():
        np.testing.assert_allclose(trunk(x), h, rtol=1e-10, atol=1e-12)


def test_member_heads_are_a_head_for_each_member():
    torch.manual_seed(0)
    heads = MemberHeads(3, 5, 4).double()
    torch.nn.init.normal_(heads.bias)
    x = torch.randn(7, 3, 5, dtype=torch.float64)
    expected = [x[:, k] @ heads.weight[k] + heads.bias[k] for k in range(3)]
    torch.testing.assert_close(heads(x), torch.stack(expected, dim=1))


@pytest.mark.parametrize("n_rows", [0, 1, 9])
@pytest.mark.parametrize("impute", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("trunk", "trunk_params", "members"),
    [(*trunk, members) for trunk, members in zip(TRUNKS, [(), (), (), (2,)], strict=True)],
    ids=TRUNK_IDS,
)
def test_logits_of_each_class_and_member(trunk, trunk_params, members, dtype, impute, n_rows):
    module = make_module(trunk, trunk_params, dtype=dtype, impute=impute)
    logits = module(rows_near(SCALING, n_rows))
    assert logits.shape == (n_rows, *members, 4)
    assert logits.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tabm_is_an_ensemble(dtype):
    pytest.importorskip("tabm")
    module = make_module("tabm", {**SIZES, "k": 5}, dtype=dtype).eval()
    x = rows_near(SCALING)
    logits = module(x)
    assert logits.shape == (50, 5, 4)
    assert logits.dtype == dtype
    assert (logits[:, 0] != logits[:, 1]).any()
    torch.testing.assert_close(torch.cat([module(row) for row in x.split(1)]), logits)


def test_tabm_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tabm", None)
    with pytest.raises(ImportError) as error:
        make_module("tabm")
    assert str(error.value) == (
        "trunk='tabm' needs the package tabm: install skmsc with its extra, skmsc[tabm]."
    )


@pytest.mark.parametrize(("trunk", "trunk_params"), TRUNKS, ids=TRUNK_IDS)
def test_an_answer_does_not_depend_on_other_rows(trunk, trunk_params):
    module = make_module(trunk, trunk_params).eval()
    x = rows_near(SCALING)
    alone = torch.cat([module(row) for row in x.split(1)])
    torch.testing.assert_close(alone, module(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("trunk", [linear, Members])
def test_a_module_that_knows_nothing_gives_the_class_shares(trunk):
    module = make_module(trunk, {}, dtype=torch.float64)
    torch.nn.init.zeros_(module.head.weight)
    proba = torch.softmax(module(rows_near(SCALING)), dim=-1)
    torch.testing.assert_close(proba, SHARES.expand_as(proba))


def test_parameters_of_the_trunk_are_passed_on():
    assert make_module(Members, {"width": 7}).head.weight.shape == (2, 7, 4)


def test_finding_the_shape_leaves_no_trace():
    module = make_module(lambda n: torch.nn.BatchNorm1d(n), {})
    assert module.training and module.trunk.training
    assert module.trunk.num_batches_tracked == 0
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize(("trunk", "trunk_params"), TRUNKS, ids=TRUNK_IDS)
def test_every_parameter_learns(trunk, trunk_params):
    module = make_module(trunk, trunk_params)
    module(rows_near(SCALING)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_weights_and_scaling_are_in_the_state():
    other = Scaling(CENTRE + 1, SCALE * 3, SCALING.missing.copy())
    ours = make_module().eval()
    theirs = TabularModule(other, "mlp", SIZES, SHARES.log()).eval()
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(theirs(rows_near(SCALING)), ours(rows_near(SCALING)))


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: x.sum(), "()"),
        (lambda x: x[:, 0], "(2,)"),
        (lambda x: x[:, :, None, None], "(2, 3, 1, 1)"),
        (lambda x: x[:1], "(1, 3)"),
        (lambda x: x.T, "(3, 2)"),
        (lambda x: torch.stack([x] * 5), "(5, 2, 3)"),
        (lambda x: (x, x), "tuple"),
        (lambda x: {"output": x}, "dict"),
        (lambda x: x.numpy(), "ndarray"),
        (lambda x: None, "NoneType"),
    ],
    ids=[
        "no_dimension",
        "one_dimension",
        "four_dimensions",
        "one_row",
        "transposed",
        "members_first",
        "tuple",
        "dict",
        "array",
        "none",
    ],
)
def test_trunks_of_another_output_shape(function, found):
    with pytest.raises(ValueError) as error:
        make_module(Trunk, {"function": function})
    assert str(error.value) == (
        "A trunk must map (n_rows, n_inputs) to (n_rows, n_outputs), or to (n_rows, n_members, "
        f"n_outputs) for an ensemble; trunk Trunk maps (2, 3) to {found}."
    )


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.ones(500, 401, requires_grad=True)
    layer = Dropout(p)
    output = layer(x)
    dropped = (output == 0).double().mean().item()
    assert abs(dropped - p) < 4 * (p * (1 - p) / x.numel()) ** 0.5 + 1e-12
    kept = output[output != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-4, atol=0)
    output.sum().backward()
    assert torch.equal(x.grad, output)
    assert layer.eval()(x) is x


def test_dropout_decides_of_each_unit_by_itself():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(4000, 64)) != 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(64)
    assert correlation.abs().max() < 5 / 4000**0.5
    torch.manual_seed(0)
    assert torch.equal(kept, (Dropout(0.5)(torch.ones(4000, 64)) != 0).double())
