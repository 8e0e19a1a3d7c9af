"""A raw skorch net under scikit-learn's conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_array, check_is_fitted, check_random_state
from skorch import NeuralNet, NeuralNetBinaryClassifier
from skorch.dataset import Dataset

from skmsc._checks import no_half_fit
from skmsc.neural._batches import TensorBatches, suits
from skmsc.neural._random import own_random_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from skmsc._typing import Floats, RandomState, Rows


class NetStage(ClassifierMixin, BaseEstimator):
    """Make a skorch net accept what a scikit-learn classifier accepts.

    X of any numeric dtype, dataframe or sparse matrix becomes float32, dense at the latest batch by
    batch; labels of any type become the codes that the criterion wants, and probabilities are taken
    in float64, so that extreme rows keep distinct scores. Where the net has skorch's default
    iterators they are replaced by `TensorBatches`, which give the same batches sooner. A cascade
    wraps the nets it is given by itself; what a net does in training (callbacks, validation split,
    device) remains skorch's.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier or skorch.NeuralNetBinaryClassifier
        The net; it is cloned, never fitted itself.
    random_state : int, RandomState instance or None, default=None
        Seed of torch's generator during fit: initial weights, dropout and the order of batches.

    Attributes
    ----------
    net_ : skorch net
        The fitted net, with its history and callbacks.
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import make_classification
    >>> from skmsc.neural import NetStage
    >>> X, y = make_classification(200, random_state=0)
    >>> module = torch.nn.Linear(20, 2)
    >>> net = NeuralNetClassifier(module, criterion=torch.nn.CrossEntropyLoss, verbose=0)
    >>> NetStage(net, random_state=0).fit(X, y).predict_proba(X[:3]).shape
    (3, 2)
    """

    def __init__(self, net: NeuralNet, random_state: RandomState = None) -> None:
        self.net = net
        self.random_state = random_state

    def fit(self, X: Rows, y: ArrayLike) -> Self:
        """Fit a clone of the net.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,)
            Labels.

        Returns
        -------
        self : NetStage
        """
        X = _check_X(X, self.net)
        classes, codes = np.unique(y, return_inverse=True)
        one_output = isinstance(self.net, NeuralNetBinaryClassifier)
        net = clone(self.net)
        if suits(net):
            net.set_params(iterator_train=TensorBatches, iterator_valid=TensorBatches)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        with no_half_fit(self), own_random_numbers(seed, torch.device(net.device)):
            net.fit(X, codes.astype(np.float32 if one_output else np.int64))
        net._set_training(False)  # now, so that predicting changes nothing
        self.net_, self.classes_ = net, classes
        self.n_features_in_ = X.shape[1]
        return self

    @classmethod
    def of_fitted(cls, net: NeuralNet) -> NetStage:
        """Wrap a net that is fitted already; its labels are the codes that it was fitted on.

        Parameters
        ----------
        net : skorch.NeuralNetClassifier or skorch.NeuralNetBinaryClassifier
            The net.

        Returns
        -------
        stage : NetStage
        """
        stage = cls(net)
        net._set_training(False)  # as any prediction does
        stage.net_, stage.classes_ = net, np.asarray(net.classes_)
        return stage

    def predict_proba(self, X: Rows) -> Floats:
        """Class probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes), float64
        """
        check_is_fitted(self)
        to_proba = self.net_._get_predict_nonlinearity()
        dataset = self.net_.get_dataset(_check_X(X, self.net_))
        proba = []
        for batch in _batches(self.net_, dataset):
            output = self.net_.evaluation_step(batch)
            output = output[0] if isinstance(output, tuple) else output
            proba.append(to_proba(output.double()).cpu().numpy())
        return np.concatenate(proba)

    def predict(self, X: Rows) -> NDArray[Any]:
        """Most likely class of each row, ndarray of shape (n_samples,)."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def count_multiply_adds(self) -> int | None:
        """Multiply-adds of one row through the net's linear layers; None if it has other layers."""
        total = 0
        for module in self.net_.module_.modules():
            own = sum(p.numel() for p in module.parameters(recurse=False))
            if isinstance(module, torch.nn.Linear):
                total += module.weight.numel()
            elif own:
                return None
        return total

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def runs_plainly(net):
    """Whether what a skorch net predicts is its `infer` of rows as they are."""
    ways = ("get_dataset", "get_iterator", "evaluation_step")
    return (
        net.dataset is Dataset
        and not net.get_params_for("dataset")
        and net.iterator_valid in (torch.utils.data.DataLoader, TensorBatches)
        and "collate_fn" not in net.get_params_for("iterator_valid")
        and all(getattr(type(net), way) is getattr(NeuralNet, way) for way in ways)
    )


def with_module(net, module):
    """A net on the CPU that infers with another module; all else is shared."""
    other = object.__new__(type(net))
    other.__dict__.update(net.__dict__, module_=module, device="cpu")
    return other


def _check_X(X, net):
    """X as a finite float32 array, or as a sparse matrix that is made dense batch by batch."""
    X = check_array(X, accept_sparse="csr", dtype=np.float32)
    made_dense = suits(net) or net.iterator_valid is TensorBatches
    return X if made_dense or not issparse(X) else X.toarray()


def _batches(net, dataset):
    """Batches of a dataset to predict on."""
    if not suits(net):
        return net.get_iterator(dataset)
    size = net.get_params_for("iterator_valid").get("batch_size", net.batch_size)
    return TensorBatches(dataset, len(dataset) if size == -1 else size)
