"""Modules of tabular nets: standardised input, a trunk, a head.

Shapes: b rows in a batch, n features, d outputs of the trunk, k members of an ensemble trunk, C
classes.
"""

from itertools import pairwise
from numbers import Integral

import torch
from torch import nn

from skmsc.fixed_rows import fixed_rows

# Up to so many standard deviations values stay as they are; what is farther grows like its
# logarithm, up to a distance beyond which all is the same.
_LINEAR_RANGE = 10.0
_FARTHEST = 200.0


class Standardise(nn.Module):
    """Columns with mean 0 and variance 1; optionally missing values become 0 and are indicated.

    Computed in float64, so that a timestamp keeps its seconds. Values beyond 10 standard deviations
    are drawn in to their logarithm, and those beyond 200 to one value, 40: a 1e12 is a large value
    among others.

    Parameters
    ----------
    scaling : Scaling
        What the training rows are like.
    dtype : torch.dtype
        Of the output.
    impute : bool
        Whether nan is a missing value: it becomes the mean, and each column that had missing
        values in training gets an indicator column.

    Shape: (b, n) of any dtype -> (b, n + number of indicators).
    """

    def __init__(self, scaling, dtype=torch.float32, impute=False):
        super().__init__()
        self.dtype, self.impute = dtype, impute
        self.register_buffer("centre", torch.tensor(scaling.centre))
        self.register_buffer("rate", torch.from_numpy(1.0 / scaling.scale))
        self.register_buffer("indicated", torch.from_numpy(scaling.missing.nonzero()[0]))
        self.n_outputs = scaling.centre.size + (self.indicated.numel() if impute else 0)

    def forward(self, x):
        """Standardise a batch."""
        z = (x.to(torch.float64) - self.centre).mul_(self.rate)
        if self.impute:
            missing = torch.isnan(z)
            z = z.masked_fill(missing, 0.0)
        if not _is_near(z):
            far = z.abs().clamp(_LINEAR_RANGE, _FARTHEST).div(_LINEAR_RANGE).log()
            z = z.clamp(-_LINEAR_RANGE, _LINEAR_RANGE) + _LINEAR_RANGE * far * z.sign()
        z = z.to(self.dtype)
        if self.impute and self.indicated.numel():
            indicators = missing.index_select(1, self.indicated).to(self.dtype)
            z = torch.cat([z, indicators], dim=1)
        return z


def _is_near(z):
    """Whether no value need be drawn in; not looked for where the answer would be waited for."""
    if z.device.type != "cpu" or not z.numel() or torch.compiler.is_compiling():
        return False
    low, high = torch.aminmax(z)
    return bool(low >= -_LINEAR_RANGE and high <= _LINEAR_RANGE)


class Dropout(nn.Module):
    """Dropout whose masks cost less on a CPU than torch's.

    One random number of 64 bits decides of four units; the share that is dropped is exact to 1 in
    65,536.

    Parameters
    ----------
    p : float
        Share of the units that are dropped in training, in [0, 1).
    """

    def __init__(self, p):
        super().__init__()
        self.p = p
        self.n_dropped = min(round(p * 2**16), 2**16 - 1)

    def forward(self, x):
        """Drop units, and scale the others so that the mean stays."""
        if not self.training or not self.n_dropped:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p)
        random = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        random = random.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)
        return x * (random >= self.n_dropped - 2**15) * (2**16 / (2**16 - self.n_dropped))

    def extra_repr(self):
        """Show the share."""
        return f"p={self.p}"


class MLPTrunk(nn.Module):
    """Layers of linear map, ReLU and dropout. Shape: (b, n) -> (b, width).

    `width` is one number, or one for each layer.
    """

    def __init__(self, n_inputs, width, depth, dropout):
        super().__init__()
        sizes = [n_inputs, *widths_of(width, depth)]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.ReLU(inplace=True), Dropout(dropout))
            for before, after in pairwise(sizes)
        )

    def forward(self, x):
        """Run the layers."""
        for block in self.blocks:
            x = block(x)
        return x


def widths_of(width, depth):
    """A list with one width for each of `depth` layers, which may be given as one number."""
    return [width] * depth if isinstance(width, Integral) else list(width)


def residual(width, dropout):
    """What a residual block adds to its input. Shape: (b, width) -> (b, width)."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 2 * width),
        nn.ReLU(inplace=True),
        Dropout(dropout),
        nn.Linear(2 * width, width),
    )


class ResNetTrunk(nn.Module):
    """Residual blocks for tabular data (arXiv 2106.11959). Shape: (b, n) -> (b, width).

    Layer instead of batch normalisation: an answer does not depend on the other rows.
    """

    def __init__(self, n_inputs, width, depth, dropout):
        super().__init__()
        self.first = nn.Linear(n_inputs, width)
        self.blocks = nn.ModuleList(residual(width, dropout) for _ in range(depth))
        self.last = nn.Sequential(nn.LayerNorm(width), nn.ReLU())

    def forward(self, x):
        """Run the blocks."""
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


def tabm_trunk(n_inputs, width, depth, dropout, **params):
    """Backbone of TabM (arXiv 2410.24210) from its authors' package. Shape: (b, n) -> (b, k, d)."""
    try:
        from tabm import TabM
    except ImportError:
        raise ImportError(
            "trunk='tabm' needs the package tabm: install skmsc with its extra, skmsc[tabm]."
        ) from None
    sizes = {"n_blocks": depth, "d_block": width, "dropout": dropout}
    return TabM.make(n_num_features=n_inputs, d_out=None, **(sizes | params))


TRUNKS = {"mlp": MLPTrunk, "resnet": ResNetTrunk, "tabm": tabm_trunk}


class MemberHeads(nn.Module):
    """A linear head for each member of an ensemble. Shape: (b, k, d) -> (b, k, C)."""

    def __init__(self, n_members, n_inputs, n_classes):
        super().__init__()
        bound = n_inputs**-0.5
        self.weight = nn.Parameter(torch.empty(n_members, n_inputs, n_classes))
        self.bias = nn.Parameter(torch.zeros(n_members, n_classes))
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x):
        """Logits of every member."""
        return torch.einsum("bkd,kdc->bkc", x, self.weight) + self.bias


class FixedHead(nn.Module):
    """Logits ``scale * (x / |x|) Q' + bias`` of fixed rows Q (arXiv 1801.04540).

    Only one scale and the biases learn. The scale starts at 10: with a hundred orthogonal rows,
    features in the direction of one then have a probability of .995.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, d)
        Rows of length 1. Class k has row k; further rows are kept for classes to come.
    n_classes : int
        C, at most `n_rows`.

    Shape: (b, d) -> (b, C), or (b, k, d) -> (b, k, C) for an ensemble.
    """

    def __init__(self, rows, n_classes):
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(rows))
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, x):
        """Logits; features that are all 0 have no direction, and get the biases."""
        length = x.norm(dim=-1, keepdim=True)
        direction = x / length.masked_fill(length == 0, 1.0)
        cosines = nn.functional.linear(direction, self.rows[: self.bias.numel()])
        return self.scale * cosines + self.bias


class TabularModule(nn.Module):
    """Standardised input, trunk and head.

    Parameters
    ----------
    scaling : Scaling
        Of the input.
    trunk : str or callable
        Name in `TRUNKS`, or a class or function that is called with the number of its inputs.
    trunk_params : dict
        Passed to the trunk.
    log_prior : torch.Tensor of shape (C,)
        Where the head's bias starts: the logarithms of the class shares.
    dtype : torch.dtype
        Of the trunk and the head.
    impute : bool
        Whether nan is a missing value.
    head : str
        "linear", or one of the kinds of `fixed_rows`: a `FixedHead`.
    head_rows : int or None
        Number of fixed rows; None: as many as classes.
    head_seed : int
        Of the fixed rows.

    Shape: (b, n) -> logits (b, C), or (b, k, C) of an ensemble.
    """

    def __init__(
        self,
        scaling,
        trunk,
        trunk_params,
        log_prior,
        dtype=torch.float32,
        impute=False,
        head="linear",
        head_rows=None,
        head_seed=0,
    ):
        super().__init__()
        self.standardise = Standardise(scaling, dtype, impute)
        n_inputs = self.standardise.n_outputs
        self.trunk = _make_trunk(trunk, n_inputs, trunk_params).to(dtype)
        shape = _output_shape(self.trunk, n_inputs, dtype)
        n_classes = len(log_prior)
        if head != "linear":
            rows = _rows_for(head, head_rows or n_classes, shape[-1], head_seed)
            self.head = FixedHead(rows, n_classes)
        elif len(shape) == 1:
            self.head = nn.Linear(shape[0], n_classes)
        else:
            self.head = MemberHeads(*shape, n_classes)
        self.head.to(dtype)
        with torch.no_grad():
            self.head.bias.copy_(log_prior.expand_as(self.head.bias))

    def forward(self, x):
        """Logits of a batch."""
        return self.head(self.trunk(self.standardise(x)))

    answer = forward

    def features(self, x):
        """What the head gets, (b, d); the mean of an ensemble's members, in float64."""
        x = self.trunk(self.standardise(x)).double()
        return x if x.ndim == 2 else x.mean(dim=1)


def to_proba(logits):
    """Probabilities in float64 of logits (b, C); those of an ensemble (b, k, C) are averaged."""
    proba = torch.softmax(logits.double(), dim=-1)
    return proba if proba.ndim == 2 else proba.mean(dim=1)


def last_exit_proba(logits):
    """Probabilities of the last exit, of logits (b, K, C) or (b, K, m, C)."""
    return to_proba(logits[:, -1])


def to_log_proba(logits):
    """Logarithms of what `to_proba` gives, up to a number for each row."""
    logits = logits.double()
    return logits if logits.ndim == 2 else torch.log_softmax(logits, dim=-1).logsumexp(dim=1)


def _make_trunk(trunk, n_inputs, params):
    """Module of a trunk that is given by its name or as a callable."""
    make = TRUNKS[trunk] if isinstance(trunk, str) else trunk
    name = trunk if isinstance(trunk, str) else getattr(trunk, "__name__", repr(trunk))
    try:
        module = make(n_inputs, **params)
    except TypeError as error:
        raise TypeError(
            f"trunk {name!r} cannot be made of {n_inputs} inputs and {params}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise TypeError(f"trunk {name!r} must make a torch module; it made {module!r}.")
    return module


def _rows_for(head, n_rows, n_features, seed):
    """Rows of a fixed head; raises ValueError where the trunk has too few outputs for them."""
    try:
        return fixed_rows(head, n_rows, n_features, seed)
    except ValueError as error:
        raise ValueError(
            f"head={head!r} does not suit a trunk of {n_features} outputs: {error}"
        ) from error


def _output_shape(trunk, n_inputs, dtype):
    """(d,) or (k, d), found with two rows; raises ValueError for any other."""
    name = type(trunk).__name__
    trunk.eval()
    try:
        with torch.no_grad():
            output = trunk(torch.zeros(2, n_inputs, dtype=dtype))
    except (RuntimeError, TypeError, IndexError) as error:
        raise ValueError(
            f"trunk {name} does not take rows of {n_inputs} inputs: {error}"
        ) from error
    trunk.train()
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if not isinstance(shape, tuple) or len(shape) not in (2, 3) or shape[0] != 2 or 0 in shape:
        raise ValueError(
            "A trunk must map (n_rows, n_inputs) to (n_rows, n_outputs), or to (n_rows, n_members, "
            f"n_outputs) for an ensemble; trunk {name} maps {(2, n_inputs)} to {shape}."
        )
    if not output.is_floating_point():
        raise ValueError(f"A trunk must give floats; trunk {name} gives {output.dtype}.")
    return shape[1:]
