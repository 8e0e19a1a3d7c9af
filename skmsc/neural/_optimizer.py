"""Optimizers that leave torch's compiler alone."""

import inspect

import torch


class _Uncompiled:
    """An optimizer of torch, to the last bit, that does not import `torch._dynamo`.

    torch wraps these methods for `torch.compile`, and the first call of a wrapped one imports the
    compiler, for which a first fit would wait. Here no optimizer is compiled.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)

    def step(self, closure=None):
        """Update the parameters once; gives the loss that the closure computes, if there is one."""
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return inspect.unwrap(super().step)(self, closure)


class Adam(_Uncompiled, torch.optim.Adam):
    """Adam of the weight network."""


class AdamW(_Uncompiled, torch.optim.AdamW):
    """AdamW of the nets."""
