"""Whole batches of tensors, sliced from arrays."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from skorch import NeuralNet
from skorch.dataset import Dataset, ValidSplit
from torch.utils.data import Subset

_PLACED_AT_ONCE = 65_536  # rows

_VALID = (
    "a skorch Dataset, or a Subset of one, whose X and y are numeric arrays, tensors, sparse "
    "matrices, dataframes or dicts of these"
)


class TensorBatches:
    """Batch iterator for skorch nets on arrays: slices whole batches instead of single rows.

    A `torch.utils.data.DataLoader` asks the dataset for one row after the other and stacks them
    again; on tabular data that is a large part of the time of training. This iterator takes its
    place as `iterator_train` and `iterator_valid` of any skorch net whose dataset holds arrays, and
    gives the same batches: what is numeric keeps its dtype, a missing y becomes zeros. X is not
    copied; the indices of a `Subset`, as `train_split` makes them, are followed.

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
    even : bool, default=False
        Make all batches equally large, up to a row, rather than the last one smaller. There are as
        many.
    generator : torch.Generator or None, default=None
        What the orders are drawn from; None: torch's own generator, which `torch.manual_seed`
        seeds.
    device : str, torch.device or None, default=None
        Where the batches lie. Dense rows of the subset move there once, at the first batch; None
        leaves them where they are, and the net moves every batch to its own device.

    Raises
    ------
    TypeError
        When the dataset holds something other than numeric arrays, makes its rows itself, or
        `batch_size` is no integer.
    ValueError
        When `batch_size` is below 1, both `even` and `drop_last` are set, or lengths differ.
    IndexError
        When the indices of a subset are no integers, or lie outside the dataset.

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
        dataset: Any,
        batch_size: int = 128,
        shuffle: bool = False,
        drop_last: bool = False,
        even: bool = False,
        generator: torch.Generator | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
            raise TypeError(f"batch_size must be an integer >= 1; got {batch_size!r}.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be an integer >= 1; got {batch_size!r}.")
        if even and drop_last:
            raise ValueError("even=True leaves no smaller batch that drop_last=True could drop.")
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.even = even
        self.generator = generator
        self.device = device
        data, idx = _unfold(dataset)
        self._idx = None if idx is None else torch.from_numpy(idx)
        self._n_samples = len(data) if idx is None else len(idx)
        self._X = _as_sliceable(data.X, "X", len(data))
        y = torch.zeros(len(data), 1) if data.y is None else data.y
        self._y = _as_sliceable(y, "y", len(data))
        self._moved = device is None or not (_is_dense(self._X) and _is_dense(self._y))

    def __len__(self):
        """Number of batches."""
        if self.drop_last:
            return self._n_samples // self.batch_size
        return -(-self._n_samples // self.batch_size)

    def __iter__(self):
        """Yield (Xi, yi), new tensors, or containers of them, with at most `batch_size` rows."""
        if not self._moved:
            idx = torch.arange(self._n_samples) if self._idx is None else self._idx
            self._X, self._y = (_place(part, idx, self.device) for part in (self._X, self._y))
            self._idx, self._moved = None, True
        order = self._idx
        if self.shuffle:
            order = torch.randperm(self._n_samples, generator=self.generator, device="cpu")
            order = order if self._idx is None else self._idx[order]
        n_batches = len(self)
        for i in range(n_batches):
            if self.even:
                start, stop = (k * self._n_samples // n_batches for k in (i, i + 1))
            else:
                start = i * self.batch_size
                stop = min(start + self.batch_size, self._n_samples)
            rows = slice(start, stop) if order is None else order[start:stop]
            yield _take(self._X, rows, self.device), _take(self._y, rows, self.device)


def read_batches(X, batch_size):
    """Yield the rows of an array or a sparse matrix, at most so many at once, as tensors.

    They are contiguous, and for reading only: those of an array may share its memory.
    """
    X = _as_sliceable(X, "X", X.shape[0])
    for start in range(0, X.shape[0], batch_size):
        batch = X[start : start + batch_size]
        yield torch.from_numpy(batch.toarray()) if sparse.issparse(batch) else batch.contiguous()


def suits(net):
    """Whether a skorch net's default iterators may be replaced, with the same batches."""
    loader = torch.utils.data.DataLoader
    known = {"batch_size", "shuffle", "drop_last", "generator"}
    ways = ("get_dataset", "get_split_datasets", "get_iterator")
    return (
        net.dataset is Dataset
        and net.iterator_train is loader
        and net.iterator_valid is loader
        and set(net.get_params_for("iterator_train")) <= known
        and set(net.get_params_for("iterator_valid")) <= known
        and (net.train_split is None or isinstance(net.train_split, ValidSplit))
        and all(getattr(type(net), way) is getattr(NeuralNet, way) for way in ways)
    )


def _unfold(dataset):
    """The dataset below all subsets, and the rows of it that they leave; None: all."""
    if type(dataset) is Subset:
        data, outer = _unfold(dataset.dataset)
        idx = _as_idx(dataset.indices, len(data) if outer is None else len(outer))
        return data, idx if outer is None else outer[idx]
    # A dataset that makes its rows itself wants to be asked for single ones.
    makes_rows = "transform" in getattr(dataset, "__dict__", ()) or any(
        getattr(type(dataset), method, None) is not getattr(Dataset, method)
        for method in ("transform", "__getitem__")
    )
    if makes_rows:
        raise TypeError(f"TensorBatches needs {_VALID}; got {type(dataset).__name__}.")
    return dataset, None


def _as_idx(indices, n_samples):
    """Indices of a subset as a new int64 array, counted from the start."""
    idx = np.asarray(indices)
    if idx.size == 0:
        return np.empty(0, dtype=np.int64)
    if idx.dtype.kind not in "iu" or idx.min() < -n_samples or idx.max() >= n_samples:
        raise IndexError(
            f"Indices of a subset must be integers from {-n_samples} to {n_samples - 1}; got "
            f"{idx.dtype} from {idx.min()} to {idx.max()}."
        )
    return np.where(idx < 0, idx + n_samples, idx).astype(np.int64)


def _as_sliceable(data, name, n_samples):
    """Data with tensors in place of arrays, which share their memory."""
    if isinstance(data, Mapping):
        return {key: _as_sliceable(part, name, n_samples) for key, part in data.items()}
    # As skorch has it, a list of sequences holds the columns.
    if isinstance(data, (list, tuple)) and data and np.ndim(data[0]):
        return [_as_sliceable(part, name, n_samples) for part in data]
    if hasattr(data, "columns") and not sparse.issparse(data):
        columns = {key: data[key].to_numpy()[:, None] for key in data.columns}
        return _as_sliceable(columns, name, n_samples)
    if not isinstance(data, torch.Tensor) and not sparse.issparse(data):
        data = np.asarray(data)
    if not data.shape or data.shape[0] != n_samples:
        raise ValueError(f"{name} must have {n_samples} rows; got shape {tuple(data.shape)}.")
    if isinstance(data, torch.Tensor):
        return data
    if data.dtype.kind not in "fiub":
        raise TypeError(f"TensorBatches needs {_VALID}; {name} has dtype {data.dtype}.")
    if sparse.issparse(data):
        return data.tocsr()
    if any(stride < 0 or stride % data.itemsize for stride in data.strides):
        data = data.copy(order="C")
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(data if data.flags.writeable else _unlocked(data))


def _unlocked(array):
    """View of a read-only array that torch takes without a warning; nothing writes to it."""
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


def _each(function, data):
    """The function of an array, or of each array in a container, which keeps its kind."""
    if isinstance(data, Mapping):
        return {key: _each(function, part) for key, part in data.items()}
    if isinstance(data, list):
        return [_each(function, part) for part in data]
    return function(data)


def _take(data, rows, device):
    """Rows (a slice, or an int64 tensor) of the data, as new tensors."""

    def take(part):
        if sparse.issparse(part):
            batch = torch.from_numpy(
                part[rows if isinstance(rows, slice) else rows.numpy()].toarray()
            )
        elif isinstance(rows, slice):
            # A copy, or a module that works in place would write into the caller's X.
            batch = part[rows].clone(memory_format=torch.contiguous_format)
        else:
            batch = part.index_select(0, rows.to(part.device))
        return batch if device is None else batch.to(device)

    return _each(take, data)


def _place(data, idx, device):
    """Rows of dense data on a device, which take no second copy on the way there."""

    def place(part):
        placed = torch.empty((len(idx), *part.shape[1:]), dtype=part.dtype, device=device)
        for start in range(0, len(idx), _PLACED_AT_ONCE):
            rows = idx[start : start + _PLACED_AT_ONCE]
            placed[start : start + len(rows)] = _take(part, rows, device)
        return placed

    return _each(place, data)
