"""Learned weights of rows at exits: the gradient is that of full differentiation."""

import copy
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from sklearn.datasets import make_classification

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

from skmsc import LearnedWeights  # noqa: E402
from skmsc.neural import MultiExitNet, TabularNet  # noqa: E402
from skmsc.neural._weight_network import (  # noqa: E402
    LearnedWeigher,
    WeightNetwork,
    _by_two_reverse_passes,
    leaving_stage,
    mean_loss_at,
    meta_gradient,
    pseudo_step_of,
)

X, Y = make_classification(
    60, n_features=5, n_informative=4, n_redundant=0, n_classes=3, n_clusters_per_class=1,
    random_state=0,
)  # fmt: skip
XT, YT = torch.as_tensor(X), torch.as_tensor(Y)
W = torch.as_tensor(np.random.RandomState(0).uniform(0.2, 2, 60))
FIRST = torch.as_tensor(np.random.RandomState(1).uniform(0.4, 1, 60))
CENTRES = ["col", "row", "mat"]


def small(**params):
    """A net with three exits that trains in no time."""
    defaults = {"width": (7, 6, 5), "lr": 0.02, "max_epochs": 3, "dropout": 0.0}
    defaults |= {"dtype": "float64", "validation": None, "device": "cpu", "random_state": 0}
    return MultiExitNet(**(defaults | params))


FITTED = small().fit(X, Y).net_


def weigher_of(**params):
    defaults = {"eps": 0.4, "centre": "col", "n_hidden": 8, "exit_share": 0.75}
    return LearnedWeigher(**(defaults | {"lr": 0.01, "every": 1, "seed": 0} | params))


def started(optimizer=torch.optim.SGD, n_steps=0, **params):
    """The skorch net after some steps of an optimizer."""
    net = copy.deepcopy(FITTED)
    net.optimizer_ = optimizer(net.module_.parameters(), **({"lr": 0.1} | params))
    for k in range(n_steps):
        net.train_step((XT[k::2], YT[k::2]))
    net.module_.eval()
    return net


def part_of(idx, *names):
    """Rows as the net's loss gets them, with those of their further arrays that are named."""
    arrays = {"X": XT, "sample_weight": W, "first_confidence": FIRST}
    return {name: arrays[name][idx] for name in ("X", *names)}, YT[idx]


# By hand: plain formulas on dicts of parameters, and loops over rows.


def logits_of(module, theta, x):
    """Logits (b, K, C) of an MLP with three exits; no value is far from the centre."""
    hidden, logits = (x - module.standardise.centre) * module.standardise.rate, []
    for k in range(3):
        linear = hidden @ theta[f"blocks.{k}.0.weight"].T + theta[f"blocks.{k}.0.bias"]
        hidden = linear * (linear > 0)
        logits.append(hidden @ theta[f"heads.{k}.weight"].T + theta[f"heads.{k}.bias"])
    return torch.stack(logits, dim=1)


def losses_of(logits, y):
    log_proba = logits - logits.logsumexp(dim=2, keepdim=True)
    return -log_proba[torch.arange(len(y)), :, y]


def weights_of(parameters, loss, eps, centre):
    first, first_bias, second, second_bias = parameters
    hidden = loss @ first.T + first_bias
    out = torch.tanh((hidden * (hidden > 0)) @ second.T + second_bias)
    means = {"col": out.mean(1, keepdim=True), "row": out.mean(0, keepdim=True), "mat": out.mean()}
    weights = 1 + eps * (out - means[centre])
    return weights * (weights > 0)


def stages_by_loop(confidence, exit_share):
    """Stage at which each row leaves, with exact shares."""
    n_rows, n_stages = len(confidence), len(confidence[0])
    powers = [Fraction(exit_share) ** j for j in range(n_stages)]
    stages = [n_stages - 1] * n_rows
    waiting = set(range(n_rows))
    for j in range(n_stages - 1):
        surest = sorted(waiting, key=lambda i: -confidence[i][j])
        for i in surest[: floor(n_rows * powers[j] / sum(powers))]:
            stages[i] = j
            waiting.remove(i)
    return stages


def loss_by_loop(loss, exits, weight):
    total = 0.0
    for k in range(loss.shape[1]):
        rows = [i for i, exit_ in enumerate(exits) if exit_ == k]
        if rows:
            mine = sum(weight[i] * loss[i, k] for i in rows)
            total = total + mine / sum(weight[i] for i in rows)
    return total


def step_by_sgd(part, gradient, state, group):
    gradient = gradient + group["weight_decay"] * part
    follow, buffer = gradient, state.get("momentum_buffer")
    if group["momentum"]:
        follow = gradient
        if buffer is not None:
            follow = group["momentum"] * buffer + (1 - group["dampening"]) * gradient
        if group["nesterov"]:
            follow = gradient + group["momentum"] * follow
    return part - group["lr"] * follow


def step_by_adam(part, gradient, state, group, decay, shrink):
    """Adam with the mean of squares of the step, held fixed."""
    (beta, beta_square), lr = group["betas"], group["lr"]
    n_done = int(state["step"]) if state else 0
    mean, square = (state[name] if state else 0.0 * part for name in ("exp_avg", "exp_avg_sq"))
    gradient = gradient + decay * part
    mean = beta * mean + (1 - beta) * gradient
    square = beta_square * square + (1 - beta_square) * gradient.detach() ** 2
    root = (square / (1 - beta_square ** (n_done + 1))).sqrt() + group["eps"]
    return part * (1 - lr * shrink) - lr * mean / (1 - beta ** (n_done + 1)) / root


BY_HAND = {
    torch.optim.SGD: step_by_sgd,
    torch.optim.Adam: lambda *step: step_by_adam(*step, decay=step[3]["weight_decay"], shrink=0),
    torch.optim.AdamW: lambda *step: step_by_adam(*step, decay=0, shrink=step[3]["weight_decay"]),
    torch.optim.RMSprop: lambda part, gradient, _, group: part - group["lr"] * gradient,
}


def full_gradient(net, network, half, other, *, eps=0.4, centre="col", exit_share=0.75):
    """Gradient of the meta loss by the weight network's parameters, through all of the step."""
    (rows, y), (other_rows, other_y) = half, other
    theta = dict(net.module_.named_parameters())
    loss = losses_of(logits_of(net.module_, theta, rows["X"]), y)
    weights = weights_of(list(network.parameters()), loss.detach(), eps, centre)
    of_rows = (weights * loss).sum(1) * rows.get("sample_weight", torch.ones(len(y)))
    mean = of_rows.sum() / (len(y) * 3)
    trained = {name: part for name, part in theta.items() if part.requires_grad}
    gradients = torch.autograd.grad(mean, list(trained.values()), create_graph=True)
    step, (group,) = BY_HAND[type(net.optimizer_)], net.optimizer_.param_groups
    stepped = {
        name: step(part, gradient, net.optimizer_.state.get(part, {}), group)
        for (name, part), gradient in zip(trained.items(), gradients, strict=True)
    }

    logits = logits_of(net.module_, theta | stepped, other_rows["X"])
    confidence = torch.softmax(logits, dim=2).amax(2).tolist()
    if "first_confidence" in other_rows:
        first = other_rows["first_confidence"].tolist()
        confidence = [[own, *exits] for own, exits in zip(first, confidence, strict=True)]
    n_before = len(confidence[0]) - 3
    exits = [stage - n_before for stage in stages_by_loop(confidence, exit_share)]
    weight = other_rows.get("sample_weight", torch.ones(len(other_y)))
    meta_loss = loss_by_loop(losses_of(logits, other_y), exits, weight)
    return torch.autograd.grad(meta_loss, list(network.parameters()))


def relative_error(found, expected):
    found, expected = (torch.cat([part.ravel() for part in parts]) for parts in (found, expected))
    assert expected.norm() > 0
    return ((found - expected).norm() / expected.norm()).item()


def gradient_error(net, *names, **params):
    """How far the gradient of a meta step is from that of full differentiation."""
    weigher = weigher_of(**params)
    weigher.weigh(torch.zeros(2, 3, dtype=torch.float64), None)  # makes the network
    before = copy.deepcopy(weigher.network)
    half, other = part_of(slice(0, 30), *names), part_of(slice(30, 60), *names)
    weigher._meta_step(net, half, other)
    assert not torch.equal(before.leave.weight, weigher.network.leave.weight)
    found = [part.grad for part in weigher.network.parameters()]
    return relative_error(found, full_gradient(net, before, half, other, **params))


# The gradient

SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
MOMENTUM = {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}
NESTEROV = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05}

OPTIMIZERS = {
    "sgd": (SGD, {}),
    "sgd with decay": (SGD, {"weight_decay": 0.05}),
    "momentum": (SGD, MOMENTUM),
    "nesterov": (SGD, NESTEROV),
    "adam": (ADAM, {"weight_decay": 0.05, "betas": (0.8, 0.95)}),
    "adamw": (ADAMW, {"weight_decay": 0.05, "eps": 1e-3}),
    "fused adamw": (ADAMW, {"fused": True}),
}
OPTIMIZERS = [pytest.param(*case, id=name) for name, case in OPTIMIZERS.items()]
RMSPROP = pytest.param(torch.optim.RMSprop, {"lr": 0.01}, id="another")


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("n_steps", [0, 3], ids=["first step", "later step"])
@pytest.mark.parametrize("optimizer, params", [*OPTIMIZERS, RMSPROP])
def test_the_gradient_is_that_of_full_differentiation(optimizer, params, n_steps, centre):
    net = started(optimizer, n_steps, **params)
    assert gradient_error(net, centre=centre) < 1e-10


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize(
    "names",
    [("sample_weight",), ("first_confidence",), ("sample_weight", "first_confidence")],
    ids=["weights", "a first stage", "both"],
)
def test_the_gradient_of_weighted_rows_behind_a_first_stage(names, centre):
    net = started(SGD, 2, **NESTEROV)
    assert gradient_error(net, *names, centre=centre) < 1e-10


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("exit_share", [0.25, 1.0, 3.0])
def test_the_gradient_with_weights_that_are_clipped(exit_share, centre):
    net, params = started(), {"eps": 0.95, "exit_share": exit_share}
    assert gradient_error(net, centre=centre, **params) < 1e-10


def test_the_gradient_with_parameters_that_are_not_trained():
    net = started(SGD, 2, **MOMENTUM)
    net.module_.blocks[1][0].weight.requires_grad_(False)
    net.module_.heads[0].bias.requires_grad_(False)
    assert gradient_error(net, centre="row") < 1e-10


def test_the_gradient_by_hand_with_a_parameter_that_does_not_matter():
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (3.0, 5.0))
    x = torch.tensor([[1.0, 2.0], [4.0, 8.0]], dtype=torch.float64)

    def losses(theta):
        return theta["a"] * x

    def meta_loss(theta):
        return theta["a"] ** 2

    def pseudo_step(parts, gradients):
        rate = 0.125
        stepped = [part - rate * g for part, g in zip(parts, gradients, strict=True)]
        return stepped, [rate] * len(parts)

    theta = {"b": b, "a": a}
    weights = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    gradient = meta_gradient(losses, meta_loss, theta, weights, losses(theta), pseudo_step)
    # a' = 3 - (1 + 1 + 8) / 8 = 1.75; the derivative by a weight is 2 a' times -x / 8.
    torch.testing.assert_close(gradient, -3.5 * x / 8)


# The pseudo step


def random_parts(generator):
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(3, 4), (4,), ()]
    ]


def optimizer_in_motion(optimizer, params, n_steps):
    """An optimizer of two groups after some steps, its parameters and a further gradient."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.nn.Parameter(part) for part in random_parts(generator)]
    groups = [{"params": parts[:2], "lr": 0.1}, {"params": parts[2:], "lr": 0.3}]
    optimizer = optimizer(groups, **params)
    for _ in range(n_steps):
        take_step(optimizer, parts, random_parts(generator))
    return optimizer, parts, random_parts(generator)


def take_step(optimizer, parts, gradients):
    for part, gradient in zip(parts, gradients, strict=True):
        part.grad = gradient.clone()
    optimizer.step()


@pytest.mark.parametrize("n_steps", [0, 1, 4])
@pytest.mark.parametrize("optimizer, params", OPTIMIZERS)
def test_the_pseudo_step_is_the_one_that_torch_takes(optimizer, params, n_steps):
    optimizer, parts, gradients = optimizer_in_motion(optimizer, params, n_steps)
    before = copy.deepcopy([part.detach() for part in parts])
    state = copy.deepcopy(optimizer.state_dict())
    stepped, _ = pseudo_step_of(optimizer)(parts, gradients)
    for part, untouched in zip(parts, before, strict=True):
        assert torch.equal(part, untouched)
    assert str(optimizer.state_dict()) == str(state)
    take_step(optimizer, parts, gradients)
    for part, found in zip(parts, stepped, strict=True):
        torch.testing.assert_close(found, part.detach(), rtol=1e-12, atol=1e-14)


def test_decoupled_decay_of_adam_is_that_of_adamw():
    params = {"weight_decay": 0.2, "decoupled_weight_decay": True}
    optimizer, parts, gradients = optimizer_in_motion(ADAM, params, 2)
    stepped, _ = pseudo_step_of(optimizer)(parts, gradients)
    take_step(optimizer, parts, gradients)
    torch.testing.assert_close(stepped, [part.detach() for part in parts], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n_steps", [0, 3])
@pytest.mark.parametrize("params", [{}, MOMENTUM, NESTEROV], ids=["sgd", "momentum", "nesterov"])
def test_rates_are_what_a_real_step_falls_by_for_each_unit_of_gradient(params, n_steps):
    optimizer, parts, gradients = optimizer_in_motion(SGD, params, n_steps)
    twin, twins = copy.deepcopy((optimizer, parts))
    _, rates = pseudo_step_of(optimizer)(parts, gradients)
    take_step(optimizer, parts, gradients)
    take_step(twin, twins, [gradient + 1 for gradient in gradients])
    for part, further, rate in zip(parts, twins, rates, strict=True):
        fall = (part - further).detach()
        torch.testing.assert_close(fall, torch.full_like(fall, rate), rtol=1e-10, atol=0)


def test_another_optimizer_takes_a_plain_step():
    optimizer, parts, gradients = optimizer_in_motion(torch.optim.Adagrad, {}, 2)
    stepped, rates = pseudo_step_of(optimizer)(parts, gradients)
    assert rates == [0.1, 0.1, 0.3]
    for found, part, gradient, rate in zip(stepped, parts, gradients, rates, strict=True):
        torch.testing.assert_close(found, part.detach() - rate * gradient)


# Where rows leave


def test_where_rows_leave_by_hand():
    confidence = torch.tensor(
        [[0.9, 0.6, 0.5], [0.5, 0.9, 0.5], [0.8, 0.5, 0.9], [0.6, 0.8, 0.5], [0.7, 0.7, 0.5],
         [0.4, 0.5, 0.5], [0.3, 0.4, 0.9]],
    )  # fmt: skip
    # Shares 4/7, 2/7, 1/7: rows 0, 2, 4, 3 by the first column, then 1 and 5 by the second.
    assert leaving_stage(confidence, 0.5).tolist() == [0, 1, 0, 0, 0, 1, 2]
    # Shares of a third: two rows, the two surest of the others, the rest.
    assert leaving_stage(confidence, 1.0).tolist() == [0, 1, 0, 1, 2, 2, 2]
    assert leaving_stage(confidence[:, :1], 0.5).tolist() == [0] * 7


@pytest.mark.parametrize("exit_share", [0.125, 0.75, 1.0, 2.0])
@pytest.mark.parametrize("n_stages", [1, 2, 3, 5])
@pytest.mark.parametrize("n_rows", [1, 2, 7, 50])
def test_where_rows_leave_is_that_of_a_loop(n_rows, n_stages, exit_share):
    generator = torch.Generator().manual_seed(n_rows + n_stages)
    confidence = torch.rand(n_rows, n_stages, generator=generator, dtype=torch.float64)
    expected = stages_by_loop(confidence.tolist(), exit_share)
    assert leaving_stage(confidence, exit_share).tolist() == expected


@pytest.mark.parametrize("exit_share", [0.3, 0.7, 0.9])
def test_shares_that_floats_round_down_are_whole_numbers_all_the_same(exit_share):
    share = Fraction(str(exit_share))
    total = 1 + share + share**2
    n_rows = 3 * total.numerator  # shares of whole rows
    confidence = torch.rand(n_rows, 3, generator=torch.Generator().manual_seed(0))
    found = torch.bincount(leaving_stage(confidence, exit_share)).tolist()
    assert found == [n_rows / total, n_rows * share / total, n_rows * share**2 / total]


LOSS = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]])
WEIGHT = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "exits, weight, expected",
    [
        ([0, 0, 1, 1], None, 1.5 + 60),
        ([0, 0, 1, 1], WEIGHT, (1 + 6) / 4 + (200 + 560) / 12),
        ([-1, 0, -1, 1], None, 2 + 80),
        ([-1, -1, -1, 1], None, 80),
        ([0, 0, 0, 0], WEIGHT, (1 + 6 + 20 + 56) / 16),
        ([-1, -1, -1, -1], None, 0),
    ],
)
def test_the_loss_where_rows_leave_by_hand(exits, weight, expected):
    assert float(mean_loss_at(LOSS, torch.tensor(exits), weight)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_where_rows_leave_is_that_of_a_loop(seed):
    rng = np.random.RandomState(seed)
    loss, weight = (torch.as_tensor(rng.uniform(0.1, 2, size)) for size in ((40, 3), 40))
    exits = torch.as_tensor(rng.randint(-1, 3, 40))
    expected = loss_by_loop(loss, exits.tolist(), weight.tolist())
    torch.testing.assert_close(mean_loss_at(loss, exits, weight), expected)
    expected = loss_by_loop(loss, exits.tolist(), [1.0] * 40)
    torch.testing.assert_close(mean_loss_at(loss, exits), expected)


# The weight network

OVER = {"col": 1, "row": 0, "mat": (0, 1)}


def some_losses(n_rows=50, n_exits=4):
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.rand(n_rows, n_exits, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("centre", CENTRES)
def test_weights_by_hand(centre):
    network, loss = WeightNetwork(4, 10, 0.4, centre, seed=0).double(), some_losses()
    expected = weights_of(list(network.parameters()), loss, 0.4, centre)
    torch.testing.assert_close(network(loss), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("eps", [0.1, 0.5])
@pytest.mark.parametrize("centre", CENTRES)
def test_weights_have_mean_1_over_what_they_are_centred_on(centre, eps, seed):
    network = WeightNetwork(4, 10, eps, centre, seed).double()
    generator = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(network.leave.weight, std=30.0, generator=generator)  # near -1 and 1
    weights = network(some_losses()).detach()
    mean = weights.mean(dim=OVER[centre])
    torch.testing.assert_close(mean, torch.ones_like(mean), rtol=1e-12, atol=0)
    assert weights.min() >= 0 and weights.max() <= 1 + 2 * eps
    assert weights.std() > 0.1 * eps


@pytest.mark.parametrize("centre", CENTRES)
def test_weights_that_would_be_negative_are_clipped(centre):
    network = WeightNetwork(4, 10, 1.0, centre, seed=0).double()
    with torch.no_grad():
        network.enter.bias.zero_(), network.leave.weight.mul_(100), network.leave.bias.zero_()
        # One large loss among small ones, whose outputs are near 0.
        loss = torch.diag(torch.full((4,), 100.0, dtype=torch.float64))
    weights = network(loss)
    assert weights.min() == 0 and (weights == 0).double().mean() < 0.7
    torch.testing.assert_close(
        weights, weights_of(list(network.parameters()), loss, 1.0, centre), rtol=1e-12, atol=0
    )


def test_initial_weights_are_as_torchs_and_of_the_seed_alone():
    state = torch.get_rng_state()
    networks = [WeightNetwork(4, 400, 0.4, "col", seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    first, same, other = (torch.cat([p.ravel() for p in n.parameters()]) for n in networks)
    assert torch.equal(first, same) and (first != other).all()
    for layer, bound in ((networks[0].enter, 0.5), (networks[0].leave, 0.05)):
        assert layer.weight.abs().max() <= bound and layer.bias.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_weigher_weighs_without_a_graph_in_the_dtype_of_the_losses(dtype):
    loss = some_losses().to(dtype).requires_grad_()
    state = torch.get_rng_state()
    weights = weigher_of().weigh(loss, None)
    assert torch.equal(torch.get_rng_state(), state)
    assert weights.dtype == dtype and weights.shape == (50, 4) and not weights.requires_grad


# Meta steps


class Recorder:
    """Takes the place of a weigher's meta step and keeps the halves that it gets."""

    def __init__(self, weigher):
        self.weigher, self.halves = weigher, []
        weigher._meta_step = self

    def __call__(self, net, half, other):
        self.halves.append((self.weigher.n_batches, half, other))


@pytest.mark.parametrize("every, batches", [(1, range(1, 11)), (3, [1, 4, 7, 10]), (20, [1])])
def test_meta_steps_come_every_so_many_batches_in_pairs(every, batches):
    weigher, net = weigher_of(every=every), started()
    recorder = Recorder(weigher)
    for _ in range(10):
        weigher.before_step(net, XT, YT)
    assert [number for number, _, _ in recorder.halves] == list(np.repeat(batches, 2))


def test_the_halves_are_all_rows_share_the_classes_and_swap_roles():
    labels = torch.as_tensor(
        np.random.RandomState(0).permutation(np.repeat([0, 1, 2], [40, 13, 7]))
    )
    weigher, net = weigher_of(), started()
    recorder = Recorder(weigher)
    rows = {"X": XT, "sample_weight": W, "first_confidence": FIRST}
    weigher.before_step(net, rows, labels)
    (_, half, other), (_, half_2, other_2) = recorder.halves
    assert half_2 is other and other_2 is half
    counts = [torch.bincount(y, minlength=3) for _, y in (half, other)]
    assert counts[0].sum() == counts[1].sum() == 30
    assert (counts[0] - counts[1]).abs().max() <= 1
    # Every row comes once, with its own weight, confidence and label.
    for name in rows:
        together = torch.cat([half[0][name], other[0][name]])
        order = torch.cat([half[0]["X"], other[0]["X"]])[:, 0].argsort()
        assert torch.equal(together[order], rows[name][XT[:, 0].argsort()])
    assert torch.equal(torch.cat([half[1], other[1]])[order], labels[XT[:, 0].argsort()])


def test_two_rare_rows_are_one_in_each_half():
    labels = torch.zeros(60, dtype=torch.int64)
    labels[[10, 12]] = 1  # every other row would put both in one half
    weigher, net = weigher_of(), started()
    recorder = Recorder(weigher)
    weigher.before_step(net, XT, labels)
    (_, half, other), _ = recorder.halves
    assert half[1].sum() == other[1].sum() == 1


def test_batches_of_three_rows_teach_nothing():
    weigher, net = weigher_of(), started()
    recorder = Recorder(weigher)
    weigher.before_step(net, XT[:3], YT[:3])
    assert recorder.halves == []
    weigher.before_step(net, XT[:4], YT[:4])
    assert len(recorder.halves) == 2


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trunk", ["mlp", "resnet"])
def test_a_meta_step_leaves_all_as_it_was_but_the_weight_network(trunk, training):
    net = small(trunk=trunk, dropout=0.5).fit(X, Y).net_
    net.train_step((XT, YT))
    net.module_.train(training)
    before = copy.deepcopy(net.module_.state_dict())
    gradients = [part.grad.clone() for part in net.module_.parameters()]
    state, random = str(net.optimizer_.state_dict()), torch.get_rng_state()
    weigher = weigher_of()
    weigher.weigh(torch.zeros(2, 3, dtype=torch.float64), None)
    untaught = copy.deepcopy(weigher.network)
    weigher.before_step(net, XT, YT)

    assert torch.equal(torch.get_rng_state(), random)
    assert {part.training for part in net.module_.modules()} == {training}
    for name, part in net.module_.state_dict().items():
        assert torch.equal(part, before[name]), name
    for part, gradient in zip(net.module_.parameters(), gradients, strict=True):
        assert part.requires_grad and torch.equal(part.grad, gradient)
    assert str(net.optimizer_.state_dict()) == state
    for part, other in zip(weigher.network.parameters(), untaught.parameters(), strict=True):
        assert not torch.equal(part, other)


def test_the_mode_of_the_net_comes_back_when_a_meta_step_fails():
    net, weigher = started(), weigher_of()
    net.module_.train()

    def fail(*_):
        raise RuntimeError

    weigher._meta_step = fail
    with pytest.raises(RuntimeError):
        weigher.before_step(net, XT, YT)
    assert net.module_.training


def test_a_meta_step_knows_no_dropout():
    plain, dropping = started(), small(dropout=0.4, max_epochs=5).fit(X, Y).net_
    dropping.module_.load_state_dict(plain.module_.state_dict())
    taught = []
    for net in (plain, dropping):
        net.optimizer_ = SGD(net.module_.parameters(), lr=0.1)
        net.module_.train()
        weigher = weigher_of()
        weigher.before_step(net, XT, YT)
        taught.append(torch.cat([part.ravel() for part in weigher.network.parameters()]))
    assert torch.equal(*taught)


# Training


def learned(seed=0, **params):
    return LearnedWeights(**({"every": 2, "n_hidden": 8} | params)).start(seed)


@pytest.mark.parametrize("first_confidence", [None, FIRST.numpy()], ids=["net", "first stage"])
@pytest.mark.parametrize("centre", CENTRES)
def test_same_seed_same_bits(centre, first_confidence):
    def fit(seed):
        net = small(batch_size=20, dropout=0.3)
        net.fit_exits(
            X, Y, W.numpy(), weigher=learned(seed, centre=centre), first_confidence=first_confidence
        )
        return net.exit_proba(X)

    random = torch.get_rng_state()
    first = fit(0)
    assert torch.equal(torch.get_rng_state(), random)
    torch.manual_seed(1)
    np.testing.assert_array_equal(fit(0), first)
    assert (fit(1) != first).any()


@pytest.mark.parametrize("centre", CENTRES)
def test_weights_that_are_all_but_1_train_the_net_as_no_weights(centre):
    # Batches and dropout are drawn alike: meta steps draw nothing.
    net = small(batch_size=20, dropout=0.3)
    uniform = net.fit_exits(X, Y).exit_proba(X)
    hardly = net.fit_exits(X, Y, weigher=learned(eps=1e-12, centre=centre)).exit_proba(X)
    np.testing.assert_allclose(hardly, uniform, rtol=1e-9)
    much = net.fit_exits(X, Y, weigher=learned(eps=0.5, centre=centre)).exit_proba(X)
    assert np.abs(much - uniform).max() > 1e-4


@pytest.mark.parametrize("seed", [0, 1])
def test_wrong_labels_come_to_count_less_where_the_sure_rows_leave(seed):
    rng = np.random.RandomState(seed)
    true = rng.permutation(np.arange(200) % 2)
    rows = rng.normal(size=(200, 4)) + np.outer(2 * true - 1, [2, 0, 0, 0])
    wrong = rng.uniform(size=200) < 0.2
    labels = np.where(wrong, 1 - true, true)
    net = small(width=16, depth=2, lr=0.01, batch_size=40).fit(rows, labels).net_
    net.optimizer_ = SGD(net.module_.parameters(), lr=0.1)
    weigher = learned(every=1, n_hidden=16, lr=0.03, centre="row", exit_share=1.0)
    x, y = torch.as_tensor(rows), torch.as_tensor(labels)
    loss = net.exit_losses(net.module_(x), y).detach()

    def gap():
        weights = weigher.weigh(loss, None)[:, 0].numpy()
        return weights[~wrong].mean() - weights[wrong].mean()

    assert abs(gap()) < 0.05
    for _ in range(30):
        weigher.before_step(net, x, y)
    assert gap() > 0.2


def loss_after_a_step(net, weigher, half, other, lr):
    """Meta loss on one half after a plain step on the other, with the weigher's weights."""
    (rows, y), (other_rows, other_y) = half, other
    theta = dict(net.module_.named_parameters())
    loss = losses_of(logits_of(net.module_, theta, rows["X"]), y)
    mean = (weigher.weigh(loss.detach(), None) * loss).mean()
    gradients = torch.autograd.grad(mean, list(theta.values()))
    stepped = {
        name: (part - lr * gradient).detach()
        for (name, part), gradient in zip(theta.items(), gradients, strict=True)
    }
    logits = logits_of(net.module_, stepped, other_rows["X"])
    stages = stages_by_loop(torch.softmax(logits, dim=2).amax(2).tolist(), weigher.exit_share)
    return loss_by_loop(losses_of(logits, other_y), stages, [1.0] * len(other_y)).item()


@pytest.mark.parametrize("centre", CENTRES)
def test_learning_makes_the_loss_after_a_step_smaller(centre):
    net, weigher = started(), weigher_of(centre=centre)
    half, other = part_of(slice(0, 30)), part_of(slice(30, 60))
    weigher._meta_step(net, half, other)
    losses = [loss_after_a_step(net, weigher, half, other, lr=0.1)]
    for _ in range(5):
        for _ in range(6):
            weigher._meta_step(net, half, other)
        losses.append(loss_after_a_step(net, weigher, half, other, lr=0.1))
    assert (np.diff(losses) < 0).all()


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("trunk", ["mlp", "resnet"])
def test_with_one_exit_there_is_nothing_to_learn(trunk, centre):
    params = {"trunk": trunk, "width": 8, "depth": 1, "lr": 0.02, "max_epochs": 4}
    params |= {"validation": 0.2, "batch_size": 20, "device": "cpu", "random_state": 0}
    plain = TabularNet(**params).fit(X, Y, W.numpy()).predict_proba(X)
    net = MultiExitNet(**params).fit_exits(X, Y, W.numpy(), weigher=learned(centre=centre))
    np.testing.assert_array_equal(net.predict_proba(X), plain)


def test_two_reverse_passes_give_what_forward_mode_gives():
    torch.manual_seed(0)
    X = torch.randn(7, 3, dtype=torch.float64)
    theta = {"a": torch.randn(3, 4, dtype=torch.float64, requires_grad=True)}
    theta["unused"] = torch.randn(2, dtype=torch.float64, requires_grad=True)
    direction = {name: torch.randn_like(part) for name, part in theta.items()}

    def losses(parts):
        return torch.tanh(X @ parts["a"]) ** 2

    constant = {name: part.detach() for name, part in theta.items()}
    _, expected = torch.func.jvp(losses, (constant,), (direction,))
    got = _by_two_reverse_passes(losses, theta, direction)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
