"""Learned weights of rows at exits (L2W-DEN): a weight network and its meta-gradient.

Shapes: b rows in a half of a batch, K exits of the net, S stages, which are the exits and perhaps
a first stage that is not part of the net.
"""

import math
import warnings
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from skmsc.neural._exit_training import confidences
from skmsc.neural._optimizer import Adam

# Torch compiles its forward-mode formulas at their first use, by a function that warns that it is
# deprecated: that is torch's business, and over with here.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


class WeightNetwork(nn.Module):
    """Weights of rows at exits from their losses. Shape: (b, K) -> (b, K).

    ``1 + eps * centred(tanh(linear(relu(linear(losses)))))``, not below 0.

    Parameters
    ----------
    n_exits, n_hidden : int
        Sizes of the layers.
    eps : float
        How far weights may be from 1.
    centre : {"col", "row", "mat"}
        What the outputs have mean 0 over: the exits of each row, the rows at each exit, or all.
    seed : int
        Of the initial weights, which are torch's default ones.
    """

    def __init__(self, n_exits, n_hidden, eps, centre, seed):
        super().__init__()
        self.eps, self.centre = eps, centre
        self.enter = nn.utils.skip_init(nn.Linear, n_exits, n_hidden)
        self.leave = nn.utils.skip_init(nn.Linear, n_hidden, n_exits)
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.enter, self.leave):
            bound = layer.in_features**-0.5
            for part in layer.parameters():
                nn.init.uniform_(part, -bound, bound, generator=generator)

    def forward(self, loss):
        """Weights of a batch."""
        out = torch.tanh(self.leave(torch.relu(self.enter(loss))))
        if self.centre == "mat":
            out = out - out.mean()
        else:
            out = out - out.mean(dim=1 if self.centre == "col" else 0, keepdim=True)
        return (1 + self.eps * out).clamp(min=0)


class LearnedWeigher:
    """Weighs rows at exits by a network that is trained beside the net.

    Parameters
    ----------
    eps, centre, n_hidden
        Of the `WeightNetwork`, which is made when the number of exits is seen.
    exit_share : float
        Stage j should answer a share of the rows that is in proportion to ``exit_share ** j``.
    lr : float
        Learning rate of the weight network's Adam.
    every : int
        Batches from one meta step to the next.
    seed : int
        Of the weight network.
    """

    def __init__(self, *, eps, centre, n_hidden, exit_share, lr, every, seed):
        self.eps, self.centre, self.n_hidden = eps, centre, n_hidden
        self.exit_share, self.lr, self.every, self.seed = exit_share, lr, every, seed
        self.network = self.optimizer = None
        self.n_batches = 0

    def weigh(self, loss, confidence):
        """Weights of shape (b, K) of the rows of a batch; one exit has nothing to weigh."""
        if loss.shape[1] == 1:
            return torch.ones_like(loss)
        self._make_network(loss)
        with torch.no_grad():
            return self.network(loss)

    def _make_network(self, loss):
        """Make the network and its optimizer for losses of this shape, once."""
        if self.network is None:
            sizes = (loss.shape[1], self.n_hidden)
            self.network = WeightNetwork(*sizes, self.eps, self.centre, self.seed).to(loss)
            self.optimizer = Adam(self.network.parameters(), lr=self.lr)

    def before_step(self, net, Xi, yi):
        """A meta step on every so manieth batch: each half of it teaches what the other tests."""
        self.n_batches += 1
        if (self.n_batches - 1) % self.every or len(yi) < 4 or net.module_.n_exits == 1:
            return
        Xi = Xi if isinstance(Xi, Mapping) else {"X": Xi}
        device = next(net.module_.parameters()).device
        order = torch.argsort(yi, stable=True)  # both halves have the same share of each class
        halves = []
        for idx in (order[::2], order[1::2]):
            rows = {name: part[idx.to(part.device)].to(device) for name, part in Xi.items()}
            halves.append((rows, yi[idx.to(yi.device)].to(device)))
        was_training = net.module_.training
        net.module_.eval()  # without dropout, so that both passes are of one function
        try:
            with sdpa_kernel(SDPBackend.MATH):  # the fast attentions have one derivative only
                for half, other in (halves, halves[::-1]):
                    self._meta_step(net, half, other)
        finally:
            net.module_.train(was_training)

    def _meta_step(self, net, half, other):
        losses, theta = _losses_of(net, *half), _trained(net.module_)
        loss = losses(theta)
        self._make_network(loss)
        weights = self.network(loss.detach())
        gradient = meta_gradient(
            losses,
            lambda params: self._meta_loss(net, params, *other),
            theta,
            scaled(weights.detach(), half[0]),
            loss,
            pseudo_step_of(net.optimizer_),
        )
        self.optimizer.zero_grad(set_to_none=True)
        weights.backward(scaled(gradient, half[0]))
        self.optimizer.step()

    def _meta_loss(self, net, params, X, y):
        """Loss of rows where they would leave: each stage has the rows that it is surest of."""
        logits = functional_call(net.module_, params, (X["X"],))
        loss = net.exit_losses(logits, y)
        confidence = confidences(logits.detach(), X)
        weight = X.get("sample_weight")
        stage = leaving_stage(confidence, self.exit_share)
        return mean_loss_at(loss, stage - (confidence.shape[1] - loss.shape[1]), weight)


def scaled(weights, X):
    """Weights of shape (b, K) times what a row and an exit count in the mean."""
    scale = 1 / weights.numel()
    if "sample_weight" in X:
        scale = scale * X["sample_weight"].to(weights)[:, None]
    return weights * scale


def meta_gradient(losses, meta_loss, theta, weights, loss, pseudo_step):
    """Gradient of the meta loss after a pseudo step with respect to the weights of that step.

    The weights enter the pseudo step's loss ``sum(weights * losses(theta))`` linearly, and the step
    is linear in its gradient: ``theta' = constant - rate * gradient``. So the derivative by the
    weight of row i at exit j is ``-<rate * grad meta_loss(theta'), grad losses(theta)_ij>``, for
    all i and j at once one forward-mode derivative of the losses, in the direction of the first
    factor. No graph of second order is built.

    Parameters
    ----------
    losses : callable
        ``losses(theta)`` of shape (b, K), a differentiable function.
    meta_loss : callable
        ``meta_loss(theta)``, a scalar.
    theta : dict of str to Tensor
        Parameters.
    weights : Tensor of shape (b, K)
        Weights of the losses.
    loss : Tensor of shape (b, K)
        ``losses(theta)``, with its graph.
    pseudo_step : callable
        ``pseudo_step(parameters, gradients)`` gives lists of the parameters after the step, and of
        the rates at which these fall with the gradient.

    Returns
    -------
    gradient : Tensor of shape (b, K)
    """
    names, parts = list(theta), list(theta.values())
    gradients = torch.autograd.grad((weights * loss).sum(), parts, allow_unused=True)
    gradients = [
        torch.zeros_like(part) if g is None else g for part, g in zip(parts, gradients, strict=True)
    ]
    stepped, rates = pseudo_step(parts, gradients)
    stepped = [part.detach().requires_grad_() for part in stepped]
    of_meta = torch.autograd.grad(
        meta_loss(dict(zip(names, stepped, strict=True))), stepped, allow_unused=True
    )
    direction = {
        name: torch.zeros_like(part) if g is None else -rate * g
        for name, part, g, rate in zip(names, parts, of_meta, rates, strict=True)
    }
    constant = {name: part.detach() for name, part in theta.items()}
    try:
        return jvp(losses, (constant,), (direction,))[1]
    except NotImplementedError:  # an operation without a forward-mode formula
        return _by_two_reverse_passes(losses, theta, direction)


def _by_two_reverse_passes(losses, theta, direction):
    """The same derivative by way of the reverse-mode one, which is linear in its weights v."""
    loss, parts = losses(theta), list(theta.values())
    v = torch.zeros_like(loss, requires_grad=True)
    gradients = torch.autograd.grad(loss, parts, v, create_graph=True, allow_unused=True)
    used = [
        (gradient, direction[name])
        for gradient, name in zip(gradients, theta, strict=True)
        if gradient is not None
    ]
    outputs, along = map(list, zip(*used, strict=True))
    return torch.autograd.grad(outputs, v, along)[0]


def pseudo_step_of(optimizer):
    """The step that an optimizer would take, as `meta_gradient` wants it.

    For SGD with any momentum it is the step itself. For Adam and AdamW the mean of squares is that
    after the step, and held fixed in the rates. Of another optimizer, or with amsgrad or maximize,
    it is a plain step of the same learning rate. The parameters are those of the optimizer, in its
    order.
    """

    def pseudo_step(parts, gradients):
        known = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        stepped, rates = [], []
        for part, gradient in zip(parts, gradients, strict=True):
            state, group = optimizer.state.get(part, {}), known[id(part)]
            after, rate = step_one(part.detach(), gradient, state, group)
            stepped.append(after)
            rates.append(rate)
        return stepped, rates

    known = not any(g.get("maximize") or g.get("amsgrad") for g in optimizer.param_groups)
    if known and isinstance(optimizer, torch.optim.SGD):
        step_one = _sgd
    elif known and isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        decoupled = isinstance(optimizer, torch.optim.AdamW)
        step_one = partial(_adam, decoupled=decoupled)
    else:
        step_one = _plain
    return pseudo_step


def _plain(part, gradient, state, group):
    return part - group["lr"] * gradient, group["lr"]


def _sgd(part, gradient, state, group):
    momentum, rate = group["momentum"], group["lr"]
    gradient = gradient + group["weight_decay"] * part
    if not momentum:
        return part - rate * gradient, rate
    buffer, share = state.get("momentum_buffer"), 1 - group["dampening"]
    if buffer is None:  # the first step
        buffer, share = gradient, 1.0
    else:
        buffer = momentum * buffer + share * gradient
    if group["nesterov"]:
        return part - rate * (gradient + momentum * buffer), rate * (1 + momentum * share)
    return part - rate * buffer, rate * share


def _adam(part, gradient, state, group, decoupled):
    first, second = group["betas"]
    n_steps = float(state.get("step", 0)) + 1
    decay = group["lr"] * group["weight_decay"]
    if decoupled or group.get("decoupled_weight_decay", False):
        part = part * (1 - decay)
    else:
        gradient = gradient + group["weight_decay"] * part
    mean = first * state.get("exp_avg", 0.0) + (1 - first) * gradient
    square = second * state.get("exp_avg_sq", 0.0) + (1 - second) * gradient**2
    rate = group["lr"] / (1 - first**n_steps)
    rate = rate / ((square / (1 - second**n_steps)).sqrt() + group["eps"])
    return part - rate * mean, rate * (1 - first)


def leaving_stage(confidence, exit_share):
    """Stage at which each row of a batch leaves when stages answer fixed shares of it.

    Stage j takes the ``floor(b * p_j)`` rows not yet taken that it is surest of, with p_j in
    proportion to ``exit_share ** j``; the last takes the rest, one row at least. `confidence` has
    shape (b, S), the result (b,).
    """
    n_rows, n_stages = confidence.shape
    shares = [exit_share**j for j in range(n_stages)]
    stage = torch.full((n_rows,), n_stages - 1, device=confidence.device)
    waiting = torch.ones(n_rows, dtype=torch.bool, device=confidence.device)
    for j in range(n_stages - 1):
        n_taken = math.floor(n_rows * shares[j] / sum(shares) + 1e-9)
        n_taken = min(n_taken, int(waiting.sum()) - 1)
        surest = confidence[:, j].masked_fill(~waiting, -1.0).topk(n_taken).indices
        stage[surest] = j
        waiting[surest] = False
    return stage


def mean_loss_at(loss, exit_, weight=None):
    """Sum over exits of the mean loss there of the rows that leave there.

    `loss` has shape (b, K), `exit_` (b,); rows that leave at -1, before the net, do not count.
    """
    total = 0.0
    for k in range(loss.shape[1]):
        here = exit_ == k
        if here.any():
            mine = loss[here, k]
            total = total + (mine.mean() if weight is None else _average(mine, weight[here]))
    return total


def _average(values, weight):
    weight = weight.to(values)
    return (values * weight).sum() / weight.sum()


def _trained(module):
    """Parameters of a module that are trained, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _losses_of(net, X, y):
    """The rows' losses (b, K) as a function of the module's parameters."""

    def losses(theta):
        return net.exit_losses(functional_call(net.module_, theta, (X["X"],)), y)

    return losses
