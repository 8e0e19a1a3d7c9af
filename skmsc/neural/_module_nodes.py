"""Our own modules as ONNX nodes, in eval mode, for rows in float64.

`nodes` is a graph under construction, with ``add(op, *inputs, **attributes)``, whose inputs are
names of tensors or arrays, and ``cast(x, dtype)``; both give the name of their output.
"""

import numpy as np
from torch import nn

from skmsc.neural._exits import MultiExitModule, ResidualBlock
from skmsc.neural._modules import (
    _FARTHEST,
    _LINEAR_RANGE,
    Dropout,
    FixedHead,
    MLPTrunk,
    ResNetTrunk,
    Standardise,
    TabularModule,
)


class NotWrittenError(Exception):
    """A module is none of those that are written here."""


def write_answer(nodes, module, x):
    """Add what `answer` of a `TabularModule` or a `MultiExitModule` gives for rows x."""
    x = _hidden(nodes, module, x)
    return _write(nodes, module.head if type(module) is TabularModule else module.heads[-1], x)


def write_features(nodes, module, x):
    """Add what `features` of such a module gives."""
    return nodes.cast(_hidden(nodes, module, x), "float64")


def write_exit(nodes, module, k, x):
    """Add logits and hidden features of exit k, as `MultiExitModule.run` gives them."""
    if type(module) is not MultiExitModule:
        raise NotWrittenError(type(module).__name__)
    x = _write(nodes, module.standardise, x) if k == 0 else x
    hidden = _write(nodes, module.blocks[k], x)
    if hidden == x:
        raise NotWrittenError("a block that computes nothing")
    return _write(nodes, module.heads[k], hidden), hidden


def _hidden(nodes, module, x):
    if type(module) not in (TabularModule, MultiExitModule):
        raise NotWrittenError(type(module).__name__)
    x = _write(nodes, module.standardise, x)
    for part in [module.trunk] if type(module) is TabularModule else module.blocks:
        x = _write(nodes, part, x)
    return x


def _write(nodes, module, x):
    """Add a module that is applied to x; raises NotWrittenError."""
    write = _WRITERS.get(type(module))
    if write is None or module._forward_hooks or module._forward_pre_hooks:
        raise NotWrittenError(type(module).__name__)
    return write(nodes, module, x)


def _sequence(nodes, module, x):
    for part in module:
        x = _write(nodes, part, x)
    return x


def _as_it_is(nodes, module, x):
    return x


def _relu(nodes, module, x):
    return nodes.add("Relu", x)


def _linear(nodes, module, x):
    bias = [] if module.bias is None else [_array(module.bias)]
    return nodes.add("Gemm", x, _array(module.weight), *bias, transB=1)


def _layer_norm(nodes, module, x):
    if module.weight is None or len(module.normalized_shape) > 1:
        raise NotWrittenError(repr(module))
    parts = [_array(part) for part in (module.weight, module.bias) if part is not None]
    return nodes.add("LayerNormalization", x, *parts, axis=-1, epsilon=module.eps)


def _mlp(nodes, module, x):
    return _sequence(nodes, module.blocks, x)


def _resnet(nodes, module, x):
    x = _write(nodes, module.first, x)
    for block in module.blocks:
        x = nodes.add("Add", x, _write(nodes, block, x))
    return _write(nodes, module.last, x)


def _residual_block(nodes, module, x):
    x = _write(nodes, module.enter, x)
    return nodes.add("Add", x, _write(nodes, module.inner, x))


def _fixed_head(nodes, module, x):
    rows = _array(module.rows[: module.bias.numel()])
    zero, one = rows.dtype.type(0), rows.dtype.type(1)
    length = nodes.add("ReduceL2", x, np.array([-1]), keepdims=1)
    length = nodes.add("Where", nodes.add("Equal", length, zero), one, length)
    cosines = nodes.add("Gemm", nodes.add("Div", x, length), rows, transB=1)
    scaled = nodes.add("Mul", _array(module.scale), cosines)
    return nodes.add("Add", scaled, _array(module.bias))


def _standardise(nodes, module, x):
    z = nodes.add("Sub", x, _array(module.centre))
    z = nodes.add("Mul", z, _array(module.rate))
    if module.impute:
        missing = nodes.add("IsNaN", z)
        z = nodes.add("Where", missing, np.array(0.0), z)
    near, far = np.array(_LINEAR_RANGE), np.array(_FARTHEST)
    ratio = nodes.add("Div", nodes.add("Clip", nodes.add("Abs", z), near, far), near)
    beyond = nodes.add("Mul", nodes.add("Mul", near, nodes.add("Log", ratio)), nodes.add("Sign", z))
    z = nodes.add("Add", nodes.add("Clip", z, -near, near), beyond)
    dtype = str(module.dtype).removeprefix("torch.")
    z = nodes.cast(z, dtype)
    if module.impute and module.indicated.numel():
        indicators = nodes.add("Gather", missing, _array(module.indicated), axis=1)
        z = nodes.add("Concat", z, nodes.cast(indicators, dtype), axis=1)
    return z


_WRITERS = {
    nn.Sequential: _sequence,
    nn.Identity: _as_it_is,
    nn.Dropout: _as_it_is,
    Dropout: _as_it_is,
    nn.ReLU: _relu,
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    MLPTrunk: _mlp,
    ResNetTrunk: _resnet,
    ResidualBlock: _residual_block,
    FixedHead: _fixed_head,
    Standardise: _standardise,
}


def _array(tensor):
    return tensor.detach().numpy()
