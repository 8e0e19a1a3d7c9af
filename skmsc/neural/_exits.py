"""Modules with several exits: blocks in a row, a head behind each.

Shapes: b rows in a batch, n inputs, d outputs of a block, m members of an ensemble, K exits, C
classes.
"""

import torch
from torch import nn

from skmsc.neural._modules import (
    MemberHeads,
    MLPTrunk,
    Standardise,
    residual,
    tabm_trunk,
    widths_of,
)


class Exits(nn.Module):
    """Blocks in a row and a head for each; only a pair of lists, which runs nothing itself."""

    def __init__(self, blocks, heads):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.heads = nn.ModuleList(heads)


def mlp_exits(n_inputs, n_classes, width, depth, dropout):
    """An exit behind every layer of linear map, ReLU and dropout; `width` one or one per layer."""
    widths = widths_of(width, depth)
    blocks = MLPTrunk(n_inputs, widths, depth, dropout).blocks
    return Exits(blocks, [nn.Linear(size, n_classes) for size in widths])


class ResidualBlock(nn.Module):
    """Residual block of a `ResNetTrunk`, widened first where need be. Shape: (b, n) -> (b, width).

    Parameters
    ----------
    first : bool
        Whether a linear map comes first, whatever the widths are.
    """

    def __init__(self, n_inputs, width, dropout, first=False):
        super().__init__()
        same = n_inputs == width and not first
        self.enter = nn.Identity() if same else nn.Linear(n_inputs, width)
        self.inner = residual(width, dropout)

    def forward(self, x):
        """Run the block."""
        x = self.enter(x)
        return x + self.inner(x)


def resnet_exits(n_inputs, n_classes, width, depth, dropout):
    """An exit behind every residual block; `width` is one number, or one for each block."""
    widths = widths_of(width, depth)
    sizes = [n_inputs, *widths]
    blocks = [ResidualBlock(sizes[k], sizes[k + 1], dropout, first=k == 0) for k in range(depth)]
    heads = [
        nn.Sequential(nn.LayerNorm(size), nn.ReLU(), nn.Linear(size, n_classes)) for size in widths
    ]
    return Exits(blocks, heads)


def tabm_exits(n_inputs, n_classes, width, depth, dropout, **params):
    """An exit of all members behind every layer of a TabM (arXiv 2410.24210)."""
    model = tabm_trunk(n_inputs, width, depth, dropout, **params)
    first, *others = model.backbone.blocks
    affine = getattr(model.backbone, "affine", nn.Identity())  # what tells the members of a mini
    heads = [MemberHeads(model.backbone.k, width, n_classes) for _ in range(depth)]
    return Exits([nn.Sequential(model.ensemble_view, affine, first), *others], heads)


EXITS = {"mlp": mlp_exits, "resnet": resnet_exits, "tabm": tabm_exits}


class MultiExitModule(nn.Module):
    """Standardised input, blocks in a row, a head behind each.

    Parameters
    ----------
    scaling : Scaling
        Of the input.
    trunk : str or callable
        Name in `EXITS`, or a class or function that is called with the numbers of inputs and of
        classes, and makes a module with `blocks` and `heads`.
    trunk_params : dict
        Passed to the trunk.
    log_prior : torch.Tensor of shape (C,)
        Where the biases of linear heads start: the logarithms of the class shares.
    dtype : torch.dtype
        Of blocks and heads.
    impute : bool
        Whether nan is a missing value.

    Shape: (b, n) -> logits (b, K, C), or (b, K, m, C) of an ensemble.
    """

    def __init__(self, scaling, trunk, trunk_params, log_prior, dtype=torch.float32, impute=False):
        super().__init__()
        self.standardise = Standardise(scaling, dtype, impute)
        n_inputs, n_classes = self.standardise.n_outputs, len(log_prior)
        name = trunk if isinstance(trunk, str) else getattr(trunk, "__name__", repr(trunk))
        make = EXITS[trunk] if isinstance(trunk, str) else trunk
        try:
            made = make(n_inputs, n_classes, **trunk_params)
        except TypeError as error:
            raise TypeError(
                f"trunk {name!r} cannot be made of {n_inputs} inputs, {n_classes} classes and "
                f"{trunk_params}: {error}"
            ) from error
        check_exits(made, name)
        self.blocks, self.heads = made.blocks.to(dtype), made.heads.to(dtype)
        self.is_ensemble = len(self._check_shapes(name, n_inputs, n_classes, dtype)) == 3
        for head in self.heads:
            last = head[-1] if isinstance(head, nn.Sequential) else head
            if isinstance(last, (nn.Linear, MemberHeads)) and last.bias is not None:
                with torch.no_grad():
                    last.bias.copy_(log_prior.expand_as(last.bias))

    @property
    def n_exits(self):
        """Number of exits."""
        return len(self.blocks)

    def forward(self, x):
        """Logits of all exits."""
        logits, x = [], self.standardise(x)
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = block(x)
            logits.append(head(x))
        return torch.stack(logits, dim=1)

    def answer(self, x):
        """Logits of the last exit, without those before it."""
        return self.heads[-1](self._hidden(x))

    def features(self, x):
        """What the last block gives, (b, d); the mean of an ensemble's members, in float64."""
        x = self._hidden(x).double()
        if self.is_ensemble and x.ndim > 2:
            x = x.mean(dim=1)
        return x.flatten(1)

    def run(self, k, x):
        """Logits of exit k and the hidden features behind block k, from those before it."""
        x = self.blocks[k](self.standardise(x) if k == 0 else x)
        head = self.heads[k]
        plain = type(head) is nn.Linear and head.bias is not None and x.ndim == 2
        if plain and not torch.compiler.is_compiling():
            # With few classes the transposed product is nearly twice as fast; in a graph it is not.
            return torch.addmm(head.bias[:, None], head.weight, x.t()).t(), x
        return head(x), x

    def _hidden(self, x):
        """What the last block gives."""
        x = self.standardise(x)
        for block in self.blocks:
            x = block(x)
        return x

    def _check_shapes(self, name, n_inputs, n_classes, dtype):
        """Shape of each head's logits for two rows; raises unless it is one for each class."""
        self.blocks.eval(), self.heads.eval()
        x, shapes = torch.zeros(2, n_inputs, dtype=dtype), []
        for k, (block, head) in enumerate(zip(self.blocks, self.heads, strict=True)):
            try:
                with torch.no_grad():
                    x = block(x)
                    logits = head(x)
                    shapes.append(tuple(logits.shape))
            except (RuntimeError, TypeError, IndexError, AttributeError) as error:
                raise ValueError(
                    f"Block or head {k} of trunk {name!r} does not run on what the blocks before "
                    f"it make of rows of {n_inputs} inputs: {error}"
                ) from error
            if not logits.is_floating_point():
                raise ValueError(
                    f"Heads must give floats; head {k} of trunk {name!r} gives {logits.dtype}."
                )
        self.blocks.train(), self.heads.train()
        valid = len(shapes[0]) in (2, 3) and shapes[0][0] == 2 and shapes[0][-1] == n_classes
        if not valid or len(set(shapes)) > 1:
            raise ValueError(
                f"Every head of trunk {name!r} must map the output of its block to logits of shape "
                f"(n_rows, {n_classes}), or (n_rows, n_members, {n_classes}) for an ensemble; for "
                f"2 rows the heads give the shapes {shapes}."
            )
        return shapes[0]


def check_exits(module, name):
    """Raise unless a module has as many `blocks` as `heads`, at least one."""
    valid = "a torch module with blocks and heads, two ModuleLists of one length"
    if not isinstance(module, nn.Module):
        raise TypeError(f"trunk {name!r} must make {valid}; it made {module!r}.")
    lists = [getattr(module, part, None) for part in ("blocks", "heads")]
    for part, found in zip(("blocks", "heads"), lists, strict=True):
        if not isinstance(found, nn.ModuleList):
            raise TypeError(
                f"trunk {name!r} must make {valid}; its {part} are of type {type(found).__name__}."
            )
    if len(lists[0]) != len(lists[1]) or not len(lists[0]):
        raise ValueError(
            f"trunk {name!r} must make {valid}; it made {len(lists[0])} blocks and "
            f"{len(lists[1])} heads."
        )
