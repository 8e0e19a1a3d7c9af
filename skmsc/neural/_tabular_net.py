"""A neural network for tables that is a scikit-learn classifier."""

from __future__ import annotations

import inspect
import math
import warnings
from copy import deepcopy
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from skorch.callbacks import EarlyStopping
from skorch.dataset import Dataset

from skmsc._checks import check_two_classes, check_weight, no_half_fit
from skmsc._sklearn import (
    Interval,
    StrOptions,
    _check_partial_fit_first_call,
    _routing_enabled,
)
from skmsc.fixed_rows import KINDS
from skmsc.neural._batches import TensorBatches, read_batches
from skmsc.neural._modules import TRUNKS, TabularModule, to_proba
from skmsc.neural._multiply_adds import count_multiply_adds
from skmsc.neural._optimizer import AdamW
from skmsc.neural._random import own_random_numbers
from skmsc.neural._scaling import Scaling
from skmsc.neural._tabular_input import (
    check_class_weight,
    check_net_params,
    check_trunk,
    check_validation,
    encode_labels,
    find_device,
    is_splitter,
    shown,
    split_rows,
    weigh_rows,
)
from skmsc.neural._tabular_training import (
    Averaging,
    Cosine,
    Parts,
    WeightedNet,
    auto_batch_size,
    log_shares,
    make_dataset,
    train,
)
from skmsc.neural._threads import limit_openmp

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from skmsc._typing import Floats, RandomState, Rows

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
PREDICT_ROWS = 2048  # of a batch in predict on a CPU: its activations stay in the cache
_GPU_PREDICT_ROWS = 16_384  # elsewhere, where every call has its price


def predict_rows(device):
    """How many rows a batch of predict holds on a device."""
    return PREDICT_ROWS if torch.device(device).type == "cpu" else _GPU_PREDICT_ROWS


def _class_weights_are_known(net):
    """Whether rows can be weighed without the others; raises AttributeError if not."""
    if net.class_weight == "balanced":
        raise AttributeError(
            "partial_fit does not know all rows, as class_weight='balanced' needs: give a dict of "
            "class weights."
        )
    return True


class TabularNet(ClassifierMixin, BaseEstimator):
    """A neural network for tables, as a scikit-learn classifier.

    Takes what a scikit-learn classifier takes: floats or integers, dataframes, sparse matrices,
    labels of any type, weights. It standardises its input itself, stops when the loss on held-out
    rows no longer falls, and trains an ordinary skorch net, `net_`, at the speed of a plain torch
    loop.

    Parameters
    ----------
    trunk : {"mlp", "resnet", "tabm"} or callable, default="mlp"
        The layers below the head. "mlp": linear maps with ReLU and dropout. "resnet": residual
        blocks. "tabm": the parameter-sharing ensemble of the tabm package, which the extra
        ``skmsc[tabm]`` installs. A callable, such as a module class, is called with the number of
        inputs, with those of `width`, `depth` and `dropout` that it names, and with
        `trunk_params`; the module maps (n_rows, n_inputs) to (n_rows, n_outputs), or to (n_rows,
        n_members, n_outputs) for an ensemble, whose members' probabilities are averaged.
    width : int, default=256
        Units in a layer.
    depth : int, default=2
        Layers, or residual blocks.
    dropout : float, default=0.2
        Share of the units that are dropped in training, in [0, 1).
    trunk_params : dict, default=None
        Further parameters of the trunk, such as ``{"k": 16}`` for the members of "tabm".
    head : {"linear", "orthogonal", "hadamard", "simplex"}, default="linear"
        The last layer. "linear": all its weights learn, each member of an ensemble has its own. The
        others hold a row for each class that `random_state` draws and that never changes, and only
        learn the biases and one scale: a class's logit is the scale times the cosine between its
        row and the hidden features, plus the bias. "orthogonal": orthonormal rows, at most as many
        as hidden features. "hadamard": rows of values 1 and -1, up to a factor; there may be more
        of them than hidden features. "simplex": rows at equal angles, the largest that there are,
        at most one more than hidden features.
    head_rows : int, default=None
        Number of rows that a fixed head is made with, of which class k of `classes_` has row k and
        those that are left wait for classes to come. None: as many as classes.
    lr : float, default=0.002
        Learning rate, at its highest.
    lr_schedule : {"constant", "cosine"}, default="constant"
        "cosine": the rate rises for the first twentieth of the steps, then falls to 0 by the last
        of `max_epochs`.
    average_epochs : float, default=1.0
        How far the running average of the weights reaches back, in epochs. Validation and
        predictions use the average, which is steadier than the weights of a single step. 0: no
        average.
    weight_decay : float, default=0.01
        Decoupled weight decay of AdamW.
    max_epochs : int, default=100
        Times that the rows are seen, unless `validation` ends training sooner.
    batch_size : int or "auto", default="auto"
        Rows in a batch. "auto": about a hundredth of the rows, a power of 2 from 32 to 1024.
        The batches of an epoch are equally large, up to a row; with as many rows as there are, or
        more, all rows are one batch.
    validation : float, splitter, iterable, tuple of arrays, "auto" or None, default="auto"
        Rows whose loss decides when training stops and which epoch's weights are kept. A float: a
        stratified share of the rows. A splitter (`TimeSeriesSplit`, `GroupShuffleSplit`, ...) or
        an iterable of (train, test) indices: its last split; rows in neither part are not used. In
        a cascade or a search give a splitter: indices speak of the rows of each fit.
        A tuple ``(X, y)`` or ``(X, y, sample_weight)``: other rows. None: no validation, all
        epochs. "auto": a tenth of 100 rows and more, none of fewer.
    patience : int, default=5
        Epochs without a smaller validation loss after which training stops.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied with `sample_weight`.
    logit_adjustment : float, default=0.0
        How many times the logarithms of the class shares are added to the logits in training. With
        1, predictions are those of classes that are all equally frequent.
    missing : {"error", "mean"}, default="error"
        What nan means: an error, or a value to be replaced by the column's mean. Columns with
        missing values in training get an indicator each. Infinity is always an error.
    dtype : {"float32", "float64"}, default="float32"
        Of the weights. Input is standardised, and probabilities are taken, in float64 either way.
    net_params : dict, default=None
        Passed on to the skorch net: ``callbacks``, ``optimizer``, ``optimizer__betas``,
        ``criterion__label_smoothing``, ``compile``, ... Callbacks are copied; at the end of an
        epoch they see the running average of the weights.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights of the last `fit`. The net stays as it was made, with
        its standardisation; learning rate, epochs, batches, validation and callbacks are as set.
    device : str or torch.device, default="auto"
        Where the net is trained and run. "auto": a CUDA device if there is one, else the CPU. On a
        CUDA device whose free memory is twice the training rows these lie there while they train.
    random_state : int, RandomState instance or None, default=None
        Seed of the validation rows, the initial weights, dropout and the order of batches. The same
        seed gives the same bits on the same machine with the same number of threads.
    verbose : int, default=0
        Whether to print a line for each epoch.

    Attributes
    ----------
    net_ : skorch.NeuralNetClassifier
        The fitted net: its `history`, callbacks, `save_params` and `module_`. Its classes are the
        positions in `classes_`.
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X had names.
    n_iter_ : int
        Epochs that the net has been trained for, in all fits since the first.
    best_epoch_ : int
        Epoch, from 1, of the last fit whose weights were kept.
    termination_condition_ : {"max_epochs", "no_improvement", "callback"}
        Why the last fit ended: all epochs were done; the validation loss stopped falling; a
        callback stopped it.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        When the net learned nothing: its loss is not below that of always predicting the class
        shares.

    See Also
    --------
    NetStage : A skorch net of one's own as a stage.

    Notes
    -----
    The mean and the standard deviation by which columns are standardised are those of their bulk,
    weighted; a value of 1e12 does not flatten the others. In the net, values beyond 10 standard
    deviations are drawn in to their logarithm, and those beyond 200 to one value.

    The loss is the weighted mean of the cross-entropies. With batches, a weight of 2 is not exactly
    the same as the row twice, which may fall into two batches; with all rows in one batch,
    ``dropout=0`` and no validation it is, up to rounding.

    Nets of one process are trained one after the other. Train several at once in processes
    (joblib's default), each of which gets its share of the cores.

    Fixed heads are those of Hoffer, Hubara and Soudry (arXiv 1801.04540), and the simplex of
    Pernici et al. (arXiv 1902.10441). `weight_decay` leaves their scale alone.

    Logit adjustment is that of Menon et al. (arXiv 2007.07314); "resnet" is after Gorishniy et al.
    (arXiv 2106.11959), with layer normalisation so that no answer depends on other rows; "tabm" is
    of Gorishniy, Kotelnikov and Babenko (arXiv 2410.24210).

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc.neural import TabularNet
    >>> X, y = make_classification(500, n_informative=8, random_state=0)
    >>> net = TabularNet(width=32, random_state=0).fit(X[:400], y[:400])
    >>> net.predict_proba(X[400:]).shape
    (100, 2)
    >>> net.score(X[400:], y[400:]) > 0.8
    True
    """

    _parameter_constraints: dict = {
        "trunk": [StrOptions(set(TRUNKS)), callable],
        "width": [Interval(Integral, 1, None, closed="left")],
        "depth": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "trunk_params": [dict, None],
        "head": [StrOptions({"linear", *KINDS})],
        "head_rows": [Interval(Integral, 1, None, closed="left"), None],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"cosine", "constant"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "average_epochs": [Interval(Real, 0, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "validation": "no_validation",  # see _check_validation
        "patience": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "logit_adjustment": [Interval(Real, 0, None, closed="left")],
        "missing": [StrOptions({"error", "mean"})],
        "dtype": [StrOptions(set(_DTYPES))],
        "net_params": [dict, None],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # What `net_` is made of; its module has a method `answer`, the logits that predictions are of.
    _net_class = WeightedNet
    _module_class: type[Any] = TabularModule
    _nonlinearity = staticmethod(to_proba)  # of what the module's forward gives
    _n_multiply_adds: int | None = None  # of an answer to a row, where they are sure to be known

    def __init__(
        self,
        trunk: Literal["mlp", "resnet", "tabm"] | Callable[..., Any] = "mlp",
        *,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.2,
        trunk_params: dict[str, Any] | None = None,
        head: Literal["linear", "orthogonal", "hadamard", "simplex"] = "linear",
        head_rows: int | None = None,
        lr: float = 0.002,
        lr_schedule: Literal["constant", "cosine"] = "constant",
        average_epochs: float = 1.0,
        weight_decay: float = 0.01,
        max_epochs: int = 100,
        batch_size: int | Literal["auto"] = "auto",
        validation: Any = "auto",
        patience: int = 5,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        logit_adjustment: float = 0.0,
        missing: Literal["error", "mean"] = "error",
        dtype: Literal["float32", "float64"] = "float32",
        net_params: dict[str, Any] | None = None,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.trunk = trunk
        self.width = width
        self.depth = depth
        self.dropout = dropout
        self.trunk_params = trunk_params
        self.head = head
        self.head_rows = head_rows
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.average_epochs = average_epochs
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.validation = validation
        self.patience = patience
        self.class_weight = class_weight
        self.logit_adjustment = logit_adjustment
        self.missing = missing
        self.dtype = dtype
        self.net_params = net_params
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: Rows, y: ArrayLike, sample_weight: ArrayLike | None = None, **split_params: Any
    ) -> Self:
        """Train the net.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Training rows, numeric.
        y : array-like of shape (n_samples,)
            Labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0 of the rows, in training and validation; a row of weight 0 is left out.
        **split_params : dict
            What the splitter of `validation` takes, such as ``groups``.

        Returns
        -------
        self : TabularNet

        Raises
        ------
        ValueError
            When an argument is not valid, fewer than two classes are left, or the loss becomes
            nan or infinite.
        TypeError
            When a callback or the trunk is not of the right kind, or nobody takes a further
            parameter.
        ImportError
            When `trunk="tabm"` and the package is not there.

        Whatever is raised, with `warm_start` the estimator is then as it was, else not fitted.
        """
        if self.warm_start and self.__sklearn_is_fitted__():
            return self._fit(X, y, sample_weight, split_params, going_on=True)
        with no_half_fit(self):
            return self._fit(X, y, sample_weight, split_params, going_on=False)

    @available_if(_class_weights_are_known)
    def partial_fit(
        self,
        X: Rows,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train on some more rows: once, at the constant rate `lr`, without validation.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows. Those of the first call also say how the input is standardised.
        y : array-like of shape (n_samples,)
            Labels, each of them in `classes`.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever occur; needed in the first call, and the same in others. They
            stay in `classes_` whether or not the rows at hand have them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0; a weight of 1 is that of a row in a call without weights.

        Returns
        -------
        self : TabularNet

        Raises
        ------
        ValueError
            When an argument is not valid, y has a label that `classes_` lacks, or the loss becomes
            nan or infinite. The estimator is then as it was.
        TypeError, ImportError
            As in `fit`.
        """
        if self.__sklearn_is_fitted__():
            return self._partial_fit(X, y, classes, sample_weight, going_on=True)
        with no_half_fit(self):
            return self._partial_fit(X, y, classes, sample_weight, going_on=False)

    def predict_proba(self, X: Rows) -> Floats:
        """Class probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes), float64
            Columns in the order of `classes_`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            When X has another number of features than in fit, or values that are not finite.
        """
        check_is_fitted(self)
        return self._run(X, lambda module, batch: to_proba(module.answer(batch)))

    def predict(self, X: Rows) -> NDArray[Any]:
        """Most likely class of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    def features(self, X: Rows) -> Floats:
        """Hidden features below the head, such as another classifier may be trained on.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        features : ndarray of shape (n_samples, n_outputs), float64
            What the trunk gives; of an ensemble the mean of its members, of a net with several
            exits what its last block gives.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            When X has another number of features than in fit, or values that are not finite.

        Examples
        --------
        >>> from sklearn.datasets import make_classification
        >>> from sklearn.linear_model import LogisticRegression
        >>> from skmsc.neural import TabularNet
        >>> X, y = make_classification(500, n_informative=8, random_state=0)
        >>> net = TabularNet(width=32, random_state=0).fit(X[:400], y[:400])
        >>> net.features(X).shape
        (500, 32)
        >>> head = LogisticRegression().fit(net.features(X[:400]), y[:400])
        >>> head.score(net.features(X[400:]), y[400:]) > 0.8
        True
        """
        check_is_fitted(self)
        return self._run(X, lambda module, batch: module.features(batch))

    def count_multiply_adds(self) -> int:
        """Multiply-adds of one row in the net's matrix products and convolutions.

        In a trunk of your own, layers for which torch has one kernel that its flop counter does not
        know, attention and LSTM on a CPU, count as nothing.

        Returns
        -------
        n_multiply_adds : int
        """
        check_is_fitted(self)
        self.net_.module_.eval()
        row = torch.zeros(1, self.n_features_in_, device=self.net_.device)
        _, n_multiply_adds = count_multiply_adds(self.net_.module_.answer, row)
        return n_multiply_adds

    def get_metadata_routing(self) -> Any:
        """Get the metadata routing: `sample_weight` here, the rest to the splitter.

        Returns
        -------
        routing : MetadataRouter or MetadataRequest
        """
        if not is_splitter(self.validation):
            return super().get_metadata_routing()
        return (
            MetadataRouter(owner=type(self).__name__)
            .add_self_request(self)
            .add(
                splitter=self.validation,
                method_mapping=MethodMapping().add(caller="fit", callee="split"),
            )
        )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing == "mean"
        return tags

    def _run(self, X, function):
        """What a function of the module and a batch gives for rows, one float64 row for each."""
        X = self._check_X(X, reset=False)
        module, device = self._ready_module()
        output, start = None, 0
        with torch.inference_mode(), self._limit_threads(X.shape[0]):
            # For reading only: `Standardise` makes new tensors, which a trunk may write to.
            for batch in read_batches(X, predict_rows(device)):
                part = function(module, batch.to(device)).cpu().numpy()
                if output is None:
                    output = np.empty((X.shape[0], part.shape[1]))
                output[start : start + len(part)] = part
                start += len(part)
        return output

    def _count_work(self):
        """Note what an answer to a row costs, of trunks that are known not to mind being asked."""
        own = isinstance(self.trunk, str)
        self._n_multiply_adds = self.count_multiply_adds() if own else None

    def _limit_threads(self, n_rows):
        """Context for answers to so many rows; the work of a caller's own trunk is not known."""
        return limit_openmp(n_rows * (self._n_multiply_adds or np.inf))

    def _ready_module(self):
        """The module, ready to predict, and the device where it is."""
        module = self.net_.module_
        if module.training:  # somebody trained `net_` by itself
            module.eval()
        return module, torch.device(self.net_.device)

    def _fit(
        self,
        X,
        y,
        sample_weight,
        split_params,
        going_on,
        *,
        split=None,
        of_rows=None,
        settings=None,
    ):
        """Choose the rows that train and validate, make the net or go on with it, train it.

        `split` is the choice of the rows, (train, validate) indices, where it was made already;
        `of_rows` are further arrays of shape (n_samples, ...) by name, and `settings` further
        parameters of the net, that its loss asks for.
        """
        self._check_parameters()
        split_params = self._check_split_params(split_params)
        device = find_device(self.net_.device if going_on else self.device)
        X, y, weight = self._check_rows(X, y, sample_weight, reset=not going_on)
        if not going_on:
            present = y if weight is None else y[weight > 0]
            self.classes_ = np.unique(present)
            check_two_classes(self, self.classes_)
        codes, weight, used = self._weigh(y, weight)
        if weight is not None:
            weight = None if np.ptp(weight[used]) == 0 else weight / weight[used].mean()
        seed = self._draw_seed()
        if split is not None:
            parts = Parts(*split)
        elif isinstance(self.validation, tuple):
            parts = Parts(np.flatnonzero(used), self._check_validation_rows())
        else:
            parts = split_rows(
                self.validation,
                X,
                y,
                codes,
                used,
                classes=self.classes_,
                split_params=split_params,
                seed=seed,
            )
        n_rows = len(codes) if parts is None else len(parts.train)
        batch_size = self._batch_size(n_rows)
        n_batches = math.ceil(n_rows / batch_size)
        callbacks, stopping = [], None
        if self.lr_schedule == "cosine":
            callbacks.append(("lr_schedule", Cosine(self.max_epochs * n_batches)))
        if self.average_epochs:
            window = max(1, round(self.average_epochs * n_batches))
            callbacks.append(("averaging", Averaging(window)))
        callbacks += self._callbacks()
        if parts is not None and parts.valid is not None:
            stopping = EarlyStopping(patience=self.patience, threshold=0, load_best=True)
            callbacks.append(("early_stopping", stopping))  # last, so that all see its epoch

        done = self.n_iter_ if going_on else 0
        shares = self._log_shares(codes, weight, parts)
        with own_random_numbers(seed + done, device):
            if going_on:
                net = self.net_
            else:
                net = self._make_net(X, weight, parts, shares, device, seed, settings)
            train(
                net,
                make_dataset(X, codes, weight, **(of_rows or {})),
                lr=self.lr,
                epochs=self.max_epochs,
                batch_size=batch_size,
                parts=parts,
                callbacks=callbacks,
            )
        self.net_ = net
        if not going_on:
            self._count_work()
        self.n_iter_ = len(net.history)
        # A callback may have ended the first epoch before its loss was compared.
        self.best_epoch_ = (stopping.best_epoch_ if stopping else 0) or self.n_iter_
        if self.n_iter_ - done == self.max_epochs:
            self.termination_condition_ = "max_epochs"
        else:
            stopped = stopping is not None and stopping.misses_ == self.patience
            self.termination_condition_ = "no_improvement" if stopped else "callback"
        self._warn_if_nothing_learned(codes, weight, parts, shares)
        return self

    def _partial_fit(self, X, y, classes, sample_weight, going_on):
        """One epoch on some rows, with a net made for them or the last one."""
        self._check_parameters()
        if _check_partial_fit_first_call(self, classes):
            check_two_classes(self, self.classes_)
        device = find_device(self.net_.device if going_on else self.device)
        X, y, weight = self._check_rows(X, y, sample_weight, reset=not going_on)
        codes, weight, used = self._weigh(y, weight)
        parts = None if used.all() else Parts(np.flatnonzero(used), None)
        shares = self._log_shares(codes, weight, parts)
        done, seed = self.n_iter_ if going_on else 0, self._draw_seed()
        with own_random_numbers(seed + done, device):
            net = self.net_ if going_on else self._make_net(X, weight, parts, shares, device, seed)
            train(
                net,
                make_dataset(X, codes, weight),
                lr=self.lr,
                epochs=1,
                batch_size=self._batch_size(int(used.sum())),
                parts=parts,
                callbacks=self._callbacks(),
            )
        self.net_ = net
        if not going_on:
            self._count_work()
        self.n_iter_ = self.best_epoch_ = len(net.history)
        self.termination_condition_ = "max_epochs"
        return self

    def _make_net(self, X, weight, parts, shares, device, seed, settings=None):
        """The skorch net, initialised for the training rows and their log class shares."""
        params = dict(self.net_params or {})
        params.pop("callbacks", None)
        if "optimizer" not in params:
            params = {"optimizer": AdamW, "optimizer__fused": True} | params
        if "weight_decay" in _parameter_names(params["optimizer"]):
            params = {"optimizer__weight_decay": self.weight_decay} | params
            if self.head != "linear":  # without its scale a fixed head does not see the features
                spared = [("*head.scale", {"weight_decay": 0.0})]
                params = {"optimizer__param_groups": spared} | params
        shares, adjustment = torch.from_numpy(shares), self.logit_adjustment
        net = self._net_class(
            self._module_class,
            module__scaling=Scaling.of(X, weight, parts and parts.train),
            module__trunk=self.trunk,
            module__trunk_params=self._trunk_params(),
            module__log_prior=(1 - adjustment) * shares,
            module__dtype=_DTYPES[self.dtype],
            module__impute=self.missing == "mean",
            classes=list(range(self.classes_.size)),
            criterion=torch.nn.CrossEntropyLoss,
            criterion__reduction="none",
            lr=self.lr,
            iterator_train=TensorBatches,
            iterator_train__shuffle=True,
            iterator_train__even=True,
            iterator_train__device=None,
            iterator_valid=TensorBatches,
            iterator_valid__batch_size=predict_rows(device),
            predict_nonlinearity=self._nonlinearity,
            logit_offset=adjustment * shares if adjustment else None,
            device=device,
            verbose=self.verbose,
            **self._head_params(seed),
            **(settings or {}),
            **params,
        )
        return net.initialize()

    def _head_params(self, seed):
        """What the module is told of a fixed head; raises for too few rows."""
        if self.head == "linear":
            return {}
        if self.head_rows is not None and self.head_rows < self.classes_.size:
            raise ValueError(
                f"head_rows must be at least the number of classes, {self.classes_.size}, or None; "
                f"got {self.head_rows}."
            )
        return {
            "module__head": self.head,
            "module__head_rows": self.head_rows,
            "module__head_seed": seed,
        }

    def _trunk_params(self):
        """What the trunk is made with: `trunk_params` and those of our sizes that it names."""
        params = dict(self.trunk_params or {})
        for name in ("width", "depth", "dropout"):
            if isinstance(self.trunk, str) or name in _parameter_names(self.trunk):
                params.setdefault(name, getattr(self, name))
        return params

    def _callbacks(self):
        """Copies of the caller's callbacks, which training changes."""
        return deepcopy(list((self.net_params or {}).get("callbacks") or []))

    def _batch_size(self, n_rows):
        return auto_batch_size(n_rows) if self.batch_size == "auto" else self.batch_size

    def _weigh(self, y, weight):
        """Codes of labels, weights times class weights or None, and the mask of rows in use."""
        used = np.ones(len(y), dtype=bool) if weight is None else weight > 0
        codes = encode_labels(y, self.classes_, used)
        weight = weigh_rows(codes, weight, used, self.classes_, self.class_weight)
        return codes, weight, used if weight is None else used & (weight > 0)

    def _log_shares(self, codes, weight, parts):
        """Logarithms of the class shares of the rows that train."""
        return log_shares(*_of_rows(codes, weight, parts and parts.train), len(self.classes_))

    def _check_validation_rows(self):
        """Dataset of the rows that are given for validation."""
        X, y, *weight = self.validation
        try:
            X = self._check_X(X)
            y = check_array(y, ensure_2d=False, dtype=None)
            if y.ndim != 1 or len(y) != X.shape[0]:
                raise ValueError(f"y must have shape ({X.shape[0]},), like its X; got {y.shape}.")
            weight = check_weight(weight[0], len(y)) if weight and weight[0] is not None else None
            codes, weight, _ = self._weigh(y, weight)
        except ValueError as error:
            raise ValueError(f"The rows given as validation: {error}") from error
        return make_dataset(X, codes, None if weight is None else weight / weight.mean())

    def _check_parameters(self):
        """Raise for a parameter that is not valid."""
        self._validate_params()
        check_validation(self.validation)
        check_trunk(self.trunk)
        check_class_weight(self.class_weight)
        if self.head == "linear" and self.head_rows is not None:
            raise ValueError(
                f"head_rows must be None with head='linear', which has no fixed rows; got "
                f"{self.head_rows}."
            )
        check_net_params(self.net_params, self.get_params(deep=False))

    def _check_split_params(self, params):
        """Parameters of the splitter of `validation`; raises where nobody takes them."""
        if not is_splitter(self.validation):
            if params:
                raise TypeError(
                    f"fit got the parameters {sorted(params)}, which only a splitter given as "
                    f"validation takes; got validation={shown(self.validation)}."
                )
            return {}
        if _routing_enabled():
            return process_routing(self, "fit", **params).splitter.split
        return params

    def _check_X(self, X, y="no_validation", reset=False):
        """X as numeric rows, dense or CSR, in its own floating type; with y where it is given."""
        fitted = self.__sklearn_is_fitted__()
        impute = self.net_.module_.standardise.impute if fitted else self.missing == "mean"
        return validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=(np.float64, np.float32),
            ensure_all_finite="allow-nan" if impute else True,
            reset=reset,
        )

    def _check_rows(self, X, y, sample_weight, reset):
        """X, y and weights (None: no weights) of rows to train on."""
        X, y = self._check_X(X, y, reset=reset)
        check_classification_targets(y)
        return X, y, None if sample_weight is None else check_weight(sample_weight, len(y))

    def _draw_seed(self):
        """Integer that all random numbers of a fit come from."""
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _warn_if_nothing_learned(self, codes, weight, parts, shares):
        """Warn when the loss is not below that of the class shares alone."""
        valid = parts and parts.valid
        if any(name.startswith("criterion") for name in self.net_params or {}):
            return  # another loss, of unknown floor
        if valid is None and getattr(self.net_, "weigher", None) is not None:
            return  # a loss with other weights
        name, epoch = "valid_loss", self.best_epoch_ - 1
        if valid is None:
            name, epoch = "train_loss", len(self.net_.history) - 1
            codes, weight = _of_rows(codes, weight, parts and parts.train)
        elif isinstance(valid, Dataset):
            codes = valid.y
            weight = valid.X["sample_weight"] if isinstance(valid.X, dict) else None
        else:
            codes, weight = _of_rows(codes, weight, valid)
        floor = -(shares[codes] if weight is None else shares[codes] * weight).mean()
        reached = self.net_.history[epoch][name]
        if reached >= max(floor, 1e-3):  # with extreme class weights both are near 0
            warnings.warn(
                f"{type(self).__name__} learned nothing: after {self.n_iter_} epochs its "
                f"{'validation' if name == 'valid_loss' else 'training'} loss is {reached:.4g}, "
                f"and {floor:.4g} for always predicting the class shares. Try another lr than "
                f"{self.lr:.3g}, or more epochs.",
                ConvergenceWarning,
                stacklevel=4,
            )


def _of_rows(codes, weight, idx):
    """Codes and weights (None: none) of some rows; `idx` None: of all."""
    if idx is None:
        return codes, weight
    return codes[idx], None if weight is None else weight[idx]


def _parameter_names(function):
    """Names of the parameters that a class or function takes."""
    return inspect.signature(function).parameters
