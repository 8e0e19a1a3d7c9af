"""Features of rows from the inside of a net: what its last linear layer gets."""

from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils.validation import check_array
from skorch.dataset import Dataset

from skmsc.neural._batches import TensorBatches
from skmsc.neural._net_stage import _batches, _check_X

_ROWS_AT_ONCE = 2048


def net_features(net, X):
    """What the last linear layer of a fitted skorch net gets, (n_samples, n_features_out).

    Raises
    ------
    TypeError
        When the net's module has no linear layer.
    """
    with _taken_by_last_layer(net.module_) as taken:
        for batch in _batches(net, net.get_dataset(_check_X(X, net))):
            net.evaluation_step(batch)
    return _joined(taken)


def batch_features(net, x):
    """The same of a batch, by a net in eval mode."""
    with _taken_by_last_layer(net.module_) as taken:
        net.infer(x)
    return taken[0].flatten(1).double()


@contextmanager
def _taken_by_last_layer(module):
    """List that what a module's last linear layer gets is appended to."""
    layers = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    if not layers:
        raise TypeError(
            "A skorch net is a trunk below its last torch.nn.Linear, and this one has none: give "
            f"a torch module that makes the features; got {module!r}."
        )
    taken = []
    hook = layers[-1].register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    try:
        yield taken
    finally:
        hook.remove()


def module_features(module, X):
    """What a torch module makes of rows in float32, in eval mode, (n_samples, n_features_out)."""
    X = check_array(X, accept_sparse="csr", dtype=np.float32)
    parameter = next(module.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    module.eval()
    with torch.inference_mode():
        batches = TensorBatches(Dataset(X), _ROWS_AT_ONCE)
        return _joined([module(batch.to(device)) for batch, _ in batches])


def _joined(parts):
    """Batches below each other as a float64 matrix."""
    return torch.cat([part.detach().flatten(1).double().cpu() for part in parts]).numpy()
