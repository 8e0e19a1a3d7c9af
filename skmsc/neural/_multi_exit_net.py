"""A network for tables with several exits, as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skmsc._checks import no_half_fit
from skmsc._sklearn import Interval, StrOptions, is_dataframe
from skmsc.neural._batches import read_batches
from skmsc.neural._exit_training import FIRST, ExitNet
from skmsc.neural._exits import EXITS, MultiExitModule
from skmsc.neural._modules import last_exit_proba, to_log_proba, to_proba
from skmsc.neural._multiply_adds import count_multiply_adds
from skmsc.neural._random import own_random_numbers
from skmsc.neural._scaling import Scaling
from skmsc.neural._tabular_input import find_device, split_rows, validation_share
from skmsc.neural._tabular_net import TabularNet, predict_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from skmsc._typing import Floats, Ints, RandomState, Rows


# Rows that go through the exits together on a CPU: more would not stay in the cache from one block
# to the next, fewer would pay too often for what every exit costs beside its block.
_ROWS_AT_ONCE = 5120


@dataclass(frozen=True)
class Hidden:
    """Hidden features of the rows that wait between two blocks, a tensor of shape (n, ...)."""

    features: torch.Tensor

    def take_rows(self, idx):
        """The same of some of the rows, integers or a slice."""
        if isinstance(idx, slice):
            return Hidden(self.features[idx])
        idx = torch.from_numpy(idx).to(self.features.device)
        return Hidden(self.features.index_select(0, idx))

    def close_ranks(self, holes, movers, n_rows):
        """The first `n_rows`, in the same memory, once the rows `movers` are in the `holes`."""
        if self.features.device.type == "cpu":  # where NumPy is faster
            rows = self.features.numpy()
            rows[holes] = rows[movers]
        else:
            holes, movers = (torch.from_numpy(i).to(self.features.device) for i in (holes, movers))
            with torch.inference_mode():
                self.features.index_copy_(0, holes, self.features.index_select(0, movers))
        return Hidden(self.features[:n_rows])


class MultiExitNet(TabularNet):
    """A neural network for tables with an exit behind every block.

    `EarlyExitClassifier` runs it block by block, each on the rows that no exit has answered. By
    itself it is a `TabularNet` that predicts with its last exit, trained with the mean of all
    exits' losses.

    Parameters
    ----------
    trunk : {"mlp", "resnet", "tabm"} or callable, default="mlp"
        The blocks. "mlp": a linear map with ReLU and dropout each, and a linear head. "resnet":
        a residual block each. "tabm": a layer of the parameter-sharing ensemble of the tabm
        package, with a head for each member. A callable, such as a module class, is called with
        the number of inputs and the number of classes, with those of `width`, `depth` and
        `dropout` that it names, and with `trunk_params`; the module that it makes has `blocks`
        and `heads`, two ``torch.nn.ModuleList`` of one length. Block 0 gets (n_rows, n_inputs),
        every other what the block before it made, and head k maps what block k made to logits
        of shape (n_rows, n_classes), or (n_rows, n_members, n_classes) for an ensemble.
    width : int or sequence of int, default=256
        Units in a block; a sequence has one number for each block ("mlp" and "resnet" only).
    depth : int, default=3
        Number of blocks, and so of exits.
    dropout : float, default=0.2
        As in `TabularNet`.
    trunk_params : dict, default=None
        Further parameters of the trunk.
    lr : float, default=0.002
        As in `TabularNet`.
    lr_schedule : {"constant", "cosine"}, default="constant"
        As in `TabularNet`.
    average_epochs : float, default=1.0
        As in `TabularNet`.
    weight_decay : float, default=0.01
        As in `TabularNet`.
    max_epochs : int, default=100
        As in `TabularNet`.
    batch_size : int or "auto", default="auto"
        As in `TabularNet`.
    validation : float, splitter, iterable, tuple of arrays, "auto" or None, default="auto"
        As in `TabularNet`; what decides is the mean of the exits' losses.
    patience : int, default=5
        As in `TabularNet`.
    class_weight : dict, "balanced" or None, default=None
        As in `TabularNet`.
    logit_adjustment : float, default=0.0
        As in `TabularNet`, at every exit.
    missing : {"error", "mean"}, default="error"
        As in `TabularNet`.
    dtype : {"float32", "float64"}, default="float32"
        As in `TabularNet`.
    net_params : dict, default=None
        As in `TabularNet`.
    warm_start : bool, default=False
        As in `TabularNet`.
    device : str or torch.device, default="auto"
        As in `TabularNet`.
    random_state : int, RandomState instance or None, default=None
        As in `TabularNet`.
    verbose : int, default=0
        As in `TabularNet`.

    Attributes
    ----------
    net_ : skorch.NeuralNetClassifier
        The fitted net; its module has `blocks` and `heads`.
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    n_exits_ : int
        Number of exits.
    n_features_in_, feature_names_in_, n_iter_, best_epoch_, termination_condition_
        As in `TabularNet`.

    See Also
    --------
    skmsc.EarlyExitClassifier : Answers rows at the earliest exit that is sure enough.
    TabularNet : The same with one exit.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc.neural import MultiExitNet
    >>> X, y = make_classification(500, n_informative=8, random_state=0)
    >>> net = MultiExitNet(width=32, random_state=0).fit(X[:400], y[:400])
    >>> net.exit_proba(X[400:]).shape
    (100, 3, 2)
    >>> net.score(X[400:], y[400:]) > 0.8
    True
    """

    _parameter_constraints: dict = {
        **TabularNet._parameter_constraints,
        "trunk": [StrOptions(set(EXITS)), callable],
        "width": [Interval(Integral, 1, None, closed="left"), "array-like"],
    }
    _net_class = ExitNet
    _module_class = MultiExitModule
    _nonlinearity = staticmethod(last_exit_proba)

    def __init__(
        self,
        trunk: Literal["mlp", "resnet", "tabm"] | Callable[..., Any] = "mlp",
        *,
        width: int | Sequence[int] = 256,
        depth: int = 3,
        dropout: float = 0.2,
        trunk_params: dict[str, Any] | None = None,
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
        super().__init__(
            trunk,
            width=width,  # type: ignore[arg-type]
            depth=depth,
            dropout=dropout,
            trunk_params=trunk_params,
            lr=lr,
            lr_schedule=lr_schedule,
            average_epochs=average_epochs,
            weight_decay=weight_decay,
            max_epochs=max_epochs,
            batch_size=batch_size,
            validation=validation,
            patience=patience,
            class_weight=class_weight,
            logit_adjustment=logit_adjustment,
            missing=missing,
            dtype=dtype,
            net_params=net_params,
            warm_start=warm_start,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )

    @property
    def n_exits_(self) -> int:
        """Number of exits."""
        return self.net_.module_.n_exits

    def exit_proba(self, X: Rows) -> Floats:
        """Class probabilities of every exit.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_exits, n_classes), float64
        """
        check_is_fitted(self)
        X = self._check_X(X)
        proba = np.empty((X.shape[0], self.n_exits_, self.classes_.size))
        n_rows = self._rows_at_once()
        for start in range(0, X.shape[0], n_rows):
            rows = slice(start, start + n_rows)
            carry = X[rows]
            for k in range(self.n_exits_):
                proba[rows, k], carry = self.run_exit(k, carry)
        return proba

    def count_exit_multiply_adds(self) -> Ints:
        """Multiply-adds that each exit adds for one row: those of its block and its head.

        Returns
        -------
        n_multiply_adds : ndarray of shape (n_exits,), int
        """
        check_is_fitted(self)
        row = torch.zeros(1, self.n_features_in_, device=self.net_.device)
        return _count(self.net_.module_, row)

    def preview_multiply_adds(self, n_features: int, n_classes: int) -> Ints:
        """Multiply-adds of each exit in a net for such rows, which is built and thrown away.

        Indicators of missing values are not counted.

        Parameters
        ----------
        n_features, n_classes : int
            What the rows are like.

        Returns
        -------
        n_multiply_adds : ndarray of shape (n_exits,), int

        Raises
        ------
        ValueError, TypeError
            When a parameter is not valid, or the trunk does not make blocks and heads.
        """
        self._check_parameters()
        device = find_device(self.device)
        scaling = Scaling(np.zeros(n_features), np.ones(n_features), np.zeros(n_features, bool))
        with own_random_numbers(0, device):
            module = MultiExitModule(
                scaling, self.trunk, self._trunk_params(), torch.zeros(n_classes)
            )
        return _count(module, torch.zeros(1, n_features))

    def validation_share(self, n_rows: int) -> float | None:
        """Share of so many rows that `validation` would draw by chance; None: it would not."""
        return validation_share(self.validation, n_rows)

    def check_rows(self, X: Rows) -> None:
        """Raise for rows that the net would not take.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Raises
        ------
        ValueError
            When they are not numeric, hold nan or infinity that the net does not accept, or have
            another number of features than in fit.
        """
        fitted = self.__sklearn_is_fitted__()
        (self if fitted else clone(self))._check_X(X, reset=not fitted)

    def split_for_validation(
        self,
        X: Rows,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        split_params: dict[str, Any] | None = None,
    ) -> tuple[Ints, Ints] | None:
        """Rows that a fit on the same rows would train on, and rows that it would validate with.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0 of the rows.
        split_params : dict, default=None
            What the splitter of `validation` takes.

        Returns
        -------
        split : tuple of two ndarrays of int, or None
            None where no row of these validates.
        """
        if self.validation is None or isinstance(self.validation, tuple):
            return None
        self._check_parameters()
        classes, codes = np.unique(y, return_inverse=True)
        parts = split_rows(
            self.validation,
            X,
            np.asarray(y),
            codes,
            np.ones(len(codes), dtype=bool)
            if sample_weight is None
            else np.asarray(sample_weight) > 0,
            classes=classes,
            split_params=self._check_split_params(split_params or {}),
            seed=self._draw_seed(),
        )
        return None if parts is None or parts.valid is None else (parts.train, parts.valid)

    def run_exit(self, k: int, carry: Any, *, log: bool = False) -> tuple[Floats, Any]:
        """Run a block and its exit.

        Parameters
        ----------
        k : int
            Number of the exit.
        carry : {ndarray, sparse matrix, dataframe} of shape (n_samples, n_features), or Hidden
            For exit 0 rows, numeric and without what the net does not accept; for another what the
            exit before it gave, or some of its rows (its `take_rows`).
        log : bool, default=False
            Whether to give the logarithms of the probabilities, up to a number for each row.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes), float64
            Or their logarithms.
        carry : Hidden or None
            What the next exit needs; None after the last.
        """
        if is_dataframe(carry):
            carry = self._check_X(carry)
        module, device = self._ready_module()
        if isinstance(carry, Hidden):
            pieces = carry.features.split(self._rows_at_once())
        elif not carry.shape[0]:
            pieces = [torch.zeros(carry.shape)]
        else:
            pieces = read_batches(carry, self._rows_at_once())
        is_last, proba, hidden = k == self.n_exits_ - 1, [], []
        answer = to_log_proba if log else to_proba
        with torch.inference_mode():
            for piece in pieces:
                logits, features = module.run(k, piece.to(device))
                proba.append(answer(logits).cpu())
                if not is_last:
                    hidden.append(features)
        proba = _joined(proba).numpy()
        return proba, None if is_last else Hidden(_joined(hidden))

    def fit_exits(
        self,
        X: Rows,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        split_params: dict[str, Any] | None = None,
        *,
        split: tuple[Ints, Ints] | None = None,
        weigher: Any = None,
        first_confidence: Floats | None = None,
    ) -> Self:
        """Train the net with weights of rows at exits.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Training rows, numeric.
        y : array-like of shape (n_samples,)
            Labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0 of the rows.
        split_params : dict, default=None
            What the splitter of `validation` takes.
        split : tuple of two ndarrays of int, default=None
            Rows that train and rows that validate; None: those that `validation` chooses.
        weigher : object, default=None
            Its ``weigh(loss, confidence)`` gives weights of shape (n_rows, n_exits) of a batch from
            torch tensors of shape (n_rows, n_exits) and (n_rows, n_stages); a
            ``before_step(net, Xi, yi)`` is called before each batch. None: all rows count the same.
        first_confidence : ndarray of shape (n_samples,), default=None
            Confidence of each row at a first stage outside the net, the first column of
            `confidence`.

        Returns
        -------
        self : MultiExitNet
        """
        with no_half_fit(self):
            self._fit(
                X,
                y,
                sample_weight,
                split_params or {},
                going_on=False,
                split=split,
                of_rows={} if first_confidence is None else {FIRST: first_confidence},
                settings={"weigher": weigher},
            )
        self.net_.weigher = None  # the net keeps no function of the caller's
        return self

    def _rows_at_once(self):
        """How many rows go through the exits together."""
        device = torch.device(self.net_.device)
        return _ROWS_AT_ONCE if device.type == "cpu" else predict_rows(device)

    def _check_parameters(self):
        super()._check_parameters()
        if isinstance(self.width, Integral):
            return
        width = list(self.width)
        of_trunk = self.trunk in ("mlp", "resnet") if isinstance(self.trunk, str) else True
        whole = all(isinstance(size, Integral) and size >= 1 for size in width)
        if not (of_trunk and whole and len(width) == self.depth):
            raise ValueError(
                f"width must be an integer >= 1, or one such integer (not with 'tabm') for "
                f"each of the depth={self.depth} blocks; got {self.width!r}."
            )


def _count(module, x):
    """Multiply-adds of each exit for one row x."""
    module.eval()
    counts = []
    for k in range(module.n_exits):
        (_, x), count = count_multiply_adds(module.run, k, x)
        counts.append(count)
    return np.array(counts)


def _joined(parts):
    """Tensors one below the other; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
