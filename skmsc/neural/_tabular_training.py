"""How a TabularNet trains: a skorch net with weighted rows, its schedule, random numbers."""

import math
from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, EpochTimer, PassthroughScoring, PrintLog
from skorch.dataset import Dataset
from torch.utils.data import Subset

from skmsc.neural._batches import TensorBatches


def make_dataset(X, codes, weight=None, **of_rows):
    """Dataset of a `WeightedNet`; without weights every row counts 1."""
    if weight is not None:
        of_rows["sample_weight"] = weight
    return Dataset({"X": X, **of_rows} if of_rows else X, codes)


class _Interrupted(Exception):
    """Ctrl-C in the middle of an epoch, which skorch would take for the end of training."""


class _PrintLog(PrintLog):
    """skorch's, which makes the table of each epoch also where nobody wants to see it."""

    def on_epoch_end(self, net, **kwargs):
        """Print the last epoch."""
        if net.verbose or self.sink is not print:
            super().on_epoch_end(net, **kwargs)


class WeightedNet(NeuralNetClassifier):
    """A skorch net of a `TabularModule`; its classes are the codes 0, 1, ...

    X is an array, or a dict of "X" and "sample_weight", weights with mean 1. The history keeps
    the figures of each epoch, those of batches only while the epoch lasts.

    Parameters
    ----------
    logit_offset : torch.Tensor of shape (C,) or None
        Added to the logits in training and validation losses, not in predictions.
    """

    def __init__(self, *args, logit_offset=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.logit_offset = logit_offset

    @property
    def _default_callbacks(self):
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring(name="valid_loss")),
            ("print_log", _PrintLog()),
        ]

    def _set_training(self, training=True):
        """As skorch's, which walks through all modules before every step."""
        if self.module_.training != training:
            super()._set_training(training)

    def infer(self, x, **fit_params):
        """Logits of a batch; its weights are the loss's business."""
        return super().infer(x["X"] if isinstance(x, Mapping) else x, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Weighted mean of the cross-entropies, of all members in an ensemble."""
        y_true = y_true.to(y_pred.device)
        if self.logit_offset is not None:
            y_pred = y_pred + self.logit_offset.to(y_pred)
        if y_pred.ndim == 3:
            n_rows, n_members, _ = y_pred.shape
            repeated = y_true.repeat_interleave(n_members)
            loss = self.criterion_(y_pred.flatten(0, 1), repeated).view(n_rows, n_members).mean(1)
        else:
            loss = self.criterion_(y_pred, y_true)
        if isinstance(X, Mapping) and "sample_weight" in X:
            loss = loss * X["sample_weight"].to(loss)
        return loss.mean()

    def on_epoch_begin(self, net, **kwargs):
        """Drop the records of the last epoch's batches."""
        self._in_epoch = True
        if self.history:
            self.history[-1]["batches"] = []
        super().on_epoch_begin(net, **kwargs)

    def on_epoch_end(self, net, **kwargs):
        """Note that what interrupts from here on is a callback."""
        self._in_epoch = False
        super().on_epoch_end(net, **kwargs)

    def on_batch_end(self, net, training=False, **kwargs):
        """Stop when the loss is no number."""
        name = "train_loss" if training else "valid_loss"
        loss = self.history[-1]["batches"][-1][name]
        if not math.isfinite(loss):
            self._raise_diverged(f"The {name} became {loss}")

    def check_outputs(self, dataset):
        """Raise when outputs are no numbers, as after a last step that went wrong."""
        batch, _ = next(iter(TensorBatches(dataset, self.batch_size)))
        logits = self.evaluation_step((batch, None))
        if not logits.isfinite().all():
            self._raise_diverged("The net's outputs became nan or infinite")

    def _raise_diverged(self, what):
        lr = self.optimizer_.param_groups[0]["lr"]
        raise ValueError(
            f"{what} in epoch {len(self.history)} at a learning rate of {lr:.3g}: choose a smaller "
            f"lr than {self.lr:.3g}."
        )

    def fit_loop(self, *args, **kwargs):
        """As skorch's; an interruption in the middle of an epoch is no end of training."""
        self._in_epoch = True
        try:
            return super().fit_loop(*args, **kwargs)
        except KeyboardInterrupt:
            if self._in_epoch:
                raise _Interrupted from None
            raise


class Cosine(Callback):
    """Learning rate that rises for a few steps and then falls along a cosine, to 0 at the end.

    Parameters
    ----------
    n_steps : int
        Batches in the whole training.
    warmup : float
        Share of the steps in which the rate rises.
    """

    def __init__(self, n_steps, warmup=0.05):
        self.n_steps = n_steps
        self.warmup = warmup

    def on_train_begin(self, net, **kwargs):
        """Start."""
        self.step_ = 0

    def on_batch_begin(self, net, training=False, **kwargs):
        """Set the rate of the next step."""
        if not training:
            return
        done = (self.step_ + 0.5) / self.n_steps
        if done < self.warmup:
            factor = done / self.warmup
        else:
            factor = 0.5 + 0.5 * math.cos(math.pi * (done - self.warmup) / (1 - self.warmup))
        set_rate(net, factor)
        self.step_ += 1


class Averaging(Callback):
    """Validate, and predict in the end, with a running average of the weights.

    An exponential moving average does to the noise of single steps what a falling learning rate
    does, at any time: the validation loss is that of weights which are worth keeping. Training goes
    on from the weights themselves. Until `window` steps are done it is the mean of all.

    Parameters
    ----------
    window : int
        Steps that the average reaches back.
    """

    def __init__(self, window):
        self.window = window

    def on_train_begin(self, net, **kwargs):
        """Start from the weights as they are."""
        self.n_steps_ = 0
        self.shown_ = False
        self._current = [
            part
            for name, part in net.module_.state_dict().items()
            if part.is_floating_point() and not name.startswith("standardise.")
        ]
        self._other = [part.clone() for part in self._current]

    def on_batch_begin(self, net, training=False, **kwargs):
        """Show the average to the first batch of validation."""
        if not training and not self.shown_:
            self._swap()

    def on_batch_end(self, net, training=False, **kwargs):
        """Follow a step."""
        if training:
            self.n_steps_ += 1
            share = 1 / min(self.n_steps_, self.window)
            torch._foreach_lerp_(self._other, self._current, share)

    def on_epoch_end(self, net, **kwargs):
        """Show the average to the callbacks that come after."""
        if not self.shown_:
            self._swap()

    def on_epoch_begin(self, net, **kwargs):
        """Train on from the weights themselves."""
        if self.shown_:
            self._swap()

    def on_train_end(self, net, **kwargs):
        """Leave the average in place."""
        self._current = self._other = None

    def _swap(self):
        self.shown_ = not self.shown_
        for here, there in zip(self._current, self._other, strict=True):
            kept = here.clone()
            here.copy_(there)
            there.copy_(kept)


def set_rate(net, factor=1.0):
    """Set the learning rates of a net's optimiser to a factor of what its constructor got."""
    for group in net.optimizer_.param_groups:
        group["lr"] = factor * group.setdefault("initial_lr", group["lr"])


class Parts:
    """Train split of skorch that is known beforehand.

    Parameters
    ----------
    train : ndarray of int
        Rows that train.
    valid : ndarray of int, Dataset or None
        Rows that validate, or a dataset of others.
    """

    def __init__(self, train, valid):
        self.train, self.valid = train, valid

    def __call__(self, dataset, y=None):
        """Training and validation part of a dataset."""
        valid = Subset(dataset, self.valid) if isinstance(self.valid, np.ndarray) else self.valid
        return Subset(dataset, self.train), valid


# What `train` sets of a net.
_SETTINGS = ("lr", "max_epochs", "batch_size", "train_split", "callbacks", "iterator_train__device")


def train(net, dataset, *, lr, epochs, batch_size, parts=None, callbacks=()):
    """Train an initialised net for some epochs more; the net keeps no row.

    When training fails the net is as it was, history included.
    """
    kept = {name: getattr(net, name) for name in (*_SETTINGS, "callbacks_")}
    before = deepcopy((net.module_.state_dict(), net.optimizer_.state_dict()))
    n_epochs = len(net.history)
    try:
        for group in net.optimizer_.param_groups:
            group["initial_lr"] = group.get("initial_lr", group["lr"]) * lr / net.lr
        settings = (lr, epochs, batch_size, parts, list(callbacks), _place_for(net, dataset))
        vars(net).update(zip(_SETTINGS, settings, strict=True))
        set_rate(net)
        net.initialize_callbacks()
        net.partial_fit(dataset.X, dataset.y)
        net.check_outputs(dataset)
    except BaseException as error:
        net.module_.load_state_dict(before[0])
        net.optimizer_.load_state_dict(before[1])
        del net.history[n_epochs:]
        vars(net).update(kept)
        if isinstance(error, _Interrupted):
            raise KeyboardInterrupt from None
        raise
    finally:
        net.train_split = net.iterator_train__device = None
        if net.history:
            net.history[-1]["batches"] = []
        for _, callback in net.callbacks_:
            if isinstance(callback, EarlyStopping):
                callback.best_model_weights_ = None
        net.module_.eval()


def _place_for(net, dataset):
    """The net's device where it has room for the rows, which then go there once; else None."""
    device = torch.device(net.device)
    X = dataset.X["X"] if isinstance(dataset.X, dict) else dataset.X
    if device.type != "cuda" or not hasattr(X, "nbytes"):
        return None
    return device if X.nbytes < torch.cuda.mem_get_info(device)[0] / 2 else None


def auto_batch_size(n_rows):
    """A power of 2 from 32 to 1024, near a hundredth of the rows."""
    return 2 ** round(min(max(math.log2(n_rows / 100), 5), 10))


def log_shares(codes, weight, n_classes):
    """Logarithms of weighted class shares, shape (n_classes,); a class without rows counts half."""
    total = np.bincount(codes, weight, minlength=n_classes).astype(np.float64)
    total[total == 0] = 0.5 * total.sum() / codes.size
    return np.log(total / total.sum())
