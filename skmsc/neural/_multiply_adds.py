"""Counting what a module computes."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _Dispatch:
    """Adds up what torch's own table says of each operation.

    It is a class of its own because torch wraps this method, where a mode defines it, for its
    compiler, which is then imported, for which a first fit would wait.
    """

    n_flops = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        operation = getattr(function, "overloadpacket", function)
        if operation in flop_registry:
            self.n_flops += flop_registry[operation](*args, **kwargs, out_val=out)
        return out


class _Counter(_Dispatch, TorchDispatchMode):
    supports_higher_order_operators = True


def count_multiply_adds(function, *args):
    """What the function gives, and the multiply-adds of its matrix products and convolutions.

    The counts are those of `torch.utils.flop_counter`. Its table knows no kernel that does a whole
    layer in one. Those of transformers are only used where nothing can be differentiated, so here
    all can be; attention itself and recurrent layers of oneDNN still count as nothing.
    """
    with torch.enable_grad(), _Counter() as counter:
        out = function(*args)
    return _detached(out), counter.n_flops // 2


def _detached(out):
    """A tensor, or a tuple of what may be one, without its history."""
    if isinstance(out, tuple):
        return tuple(map(_detached, out))
    return out.detach() if isinstance(out, torch.Tensor) else out
