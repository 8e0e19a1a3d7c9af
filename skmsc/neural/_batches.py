"""Whole batches of tensors, sliced from arrays."""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import torch
from scipy import sparse
from skorch.dataset import Dataset
from torch.utils.data import Subset

_VALID = (
    "a skorch Dataset, or a Subset of one, whose X and y are numeric arrays, tensors, sparse "
    "matrices, dataframes or dicts of these"
)


class TensorBatches:
    """Batch iterator for skorch nets on arrays: slices whole batches instead of single rows.

    A `torch.utils.data.DataLoader` asks the dataset for one row after the other and stacks them
    again; on tabular data that takes most of the time of training. This iterator takes its place as
    `iterator_train` and `iterator_valid` of any skorch net whose dataset holds arrays, and gives
    the same batches: what is numeric keeps its dtype, a missing y becomes zeros. X is not copied;
    the indices of a `Subset`, as `train_split` makes them, are followed.

    Parameters
    ----------
    dataset : skorch.dataset.Dataset or torch.utils.data.Subset of one
        X and y, each an array, a tensor, a sparse matrix (made dense batch by batch), a dataframe
        (a dict of columns, as skorch has it) or a dict, list or tuple of arrays; with the rows in
        the first dimension.
    batch_size : int, default=128
        Rows in a batch; the last may have fewer.
    shuffle : bool, default=False
        Draw a new order of the rows for each epoch.
    drop_last : bool, default=False
        Leave out the last batch if it is smaller than the others.
    generator : torch.Generator or None, default=None
        What the orders are drawn from; None: torch's own generator, which `torch.manual_seed`
        seeds.
    device : str, torch.device or None, default=None
        Where the batches lie. Dense data of the subset move there once, at the first batch; None
        leaves them where they are, and the net moves every batch to its own device.

    Raises
    ------
    TypeError
        When the dataset holds something other than numeric arrays.
    ValueError
        When `batch_size` is not a positive integer, or lengths differ.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch.dataset import Dataset
    >>> from skmsc.neural import TensorBatches
    >>> data = Dataset(np.arange(6.0).reshape(3, 2), np.array([0, 1, 0]))
    >>> for Xi, yi in TensorBatches(data, batch_size=2):
    ...     print(Xi.tolist(), yi.tolist())
    [[0.0, 1.0], [2.0, 3.0]] [0, 1]
    [[4.0, 5.0]] [0]

    In a skorch net::

        NeuralNetClassifier(
            module,
            iterator_train=TensorBatches,
            iterator_train__shuffle=True,
            iterator_valid=TensorBatches,
        )
    """

    def __init__(
        self,
        dataset,
        batch_size=128,
        shuffle=False,
        drop_last=False,
        generator=None,
        device=None,
    ):
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
            raise TypeError(f"batch_size must be an integer >= 1; got {batch_size!r}.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be an integer >= 1; got {batch_size!r}.")
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.generator = generator
        self.device = device
        data, idx = _unfold(dataset)
        self._idx = None if idx is None else torch.as_tensor(idx, dtype=torch.int64)
        self._n_samples = len(data) if idx is None else len(idx)
        self._X = _as_sliceable(data.X, "X")
        y = torch.zeros(len(data), 1) if data.y is None else data.y
        self._y = _as_sliceable(y, "y")

    def __len__(self):
        """Number of batches."""
        if self.drop_last:
            return self._n_samples // self.batch_size
        return -(-self._n_samples // self.batch_size)

    def __iter__(self):
        """Yield (Xi, yi), new tensors, or containers of them, with at most `batch_size` rows."""
        if self.device is not None:
            self._move()
        order = self._idx
        if self.shuffle:
            order = torch.randperm(self._n_samples, generator=self.generator)
            order = order if self._idx is None else self._idx[order]
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            rows = slice(start, min(start + self.batch_size, self._n_samples))
            rows = rows if order is None else order[rows]
            yield _take(self._X, rows, self.device), _take(self._y, rows, self.device)

    def _move(self):
        """Move the rows of the subset to the device, where they are dense."""
        rows = slice(None) if self._idx is None else self._idx
        if _is_dense(self._X) and _is_dense(self._y):
            self._X, self._y = (_take(part, rows, self.device) for part in (self._X, self._y))
            self._idx = None


def suits(net):
    """Whether a skorch net's default iterators may be replaced, with the same batches."""
    loader = torch.utils.data.DataLoader
    known = {"batch_size", "shuffle", "drop_last", "generator"}
    return (
        net.dataset is Dataset
        and net.iterator_train is loader
        and net.iterator_valid is loader
        and set(net.get_params_for("iterator_train")) <= known
        and set(net.get_params_for("iterator_valid")) <= known
    )


def _unfold(dataset):
    """The dataset below all subsets, and the rows of it that they leave; None: all."""
    idx = None
    while isinstance(dataset, Subset):
        inner = np.asarray(dataset.indices)
        idx = inner if idx is None else inner[idx]
        dataset = dataset.dataset
    # A dataset with its own transform wants to see single rows.
    if not isinstance(dataset, Dataset) or type(dataset).transform is not Dataset.transform:
        raise TypeError(f"TensorBatches needs {_VALID}; got {type(dataset).__name__}.")
    return dataset, idx


def _as_sliceable(data, name):
    """Data with tensors in place of arrays, which share their memory."""
    if isinstance(data, torch.Tensor):
        return data
    if sparse.issparse(data):
        return data.tocsr()
    if isinstance(data, Mapping):
        return {key: _as_sliceable(part, name) for key, part in data.items()}
    if isinstance(data, (list, tuple)) and data and all(hasattr(part, "shape") for part in data):
        return [_as_sliceable(part, name) for part in data]
    if hasattr(data, "columns"):
        return {key: _as_sliceable(data[key].to_numpy()[:, None], name) for key in data.columns}
    array = data if isinstance(data, np.ndarray) else np.asarray(data)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"TensorBatches needs {_VALID}; {name} has dtype {array.dtype}.")
    if any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = np.array(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else _unlocked(array))


def _unlocked(array):
    """View of a read-only array that torch takes without a warning; batches are copies of it."""
    address, _ = array.__array_interface__["data"]
    interface = array.__array_interface__ | {"data": (address, False)}
    return np.asarray(SimpleNamespace(__array_interface__=interface, owner=array))


def _is_dense(data):
    """Whether no part of the data is a sparse matrix."""
    if isinstance(data, Mapping):
        return all(map(_is_dense, data.values()))
    if isinstance(data, list):
        return all(map(_is_dense, data))
    return isinstance(data, torch.Tensor)


def _take(data, rows, device):
    """Rows (a slice, or an int64 tensor) of the data, as tensors."""
    if isinstance(data, Mapping):
        return {key: _take(part, rows, device) for key, part in data.items()}
    if isinstance(data, list):
        return [_take(part, rows, device) for part in data]
    if sparse.issparse(data):
        rows = rows if isinstance(rows, slice) else rows.numpy()
        batch = torch.from_numpy(data[rows].toarray())
    elif isinstance(rows, slice):
        # A copy, or a module that works in place would write into the caller's X.
        batch = data[rows]
        return batch.clone() if device is None else batch.to(device, copy=True)
    else:
        batch = data.index_select(0, rows.to(data.device))
    return batch if device is None else batch.to(device)
