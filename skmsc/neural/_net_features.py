"""Features of rows from the inside of a net: what its last linear layer gets."""

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
    layers = [part for part in net.module_.modules() if isinstance(part, torch.nn.Linear)]
    if not layers:
        raise TypeError(
            "A skorch net is a trunk below its last torch.nn.Linear, and this one has none: give "
            f"a torch module that makes the features; got {net!r}."
        )
    taken = []
    hook = layers[-1].register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    try:
        for batch in _batches(net, net.get_dataset(_check_X(X, net))):
            net.evaluation_step(batch)
    finally:
        hook.remove()
    return _joined(taken)


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
