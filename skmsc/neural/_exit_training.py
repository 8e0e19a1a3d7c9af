"""How a net with several exits is trained: how much each row counts at each exit."""

from collections.abc import Mapping

import torch

from skmsc.neural._tabular_training import WeightedNet

# Array in a dataset: each row's confidence at a first stage that is not part of the net.
FIRST = "first_confidence"


class ExitNet(WeightedNet):
    """A skorch net of a `MultiExitModule`; its loss is the mean over the exits.

    Parameters
    ----------
    weigher : object or None
        How much each row counts at each exit in training. ``weigh(loss, confidence)`` gives
        weights of shape (b, K) from the rows' losses, of that shape, and their confidences, a
        column for each stage, so that a first stage that is not part of the net comes first. A
        ``before_step(net, Xi, yi)``, if there is one, is called with every batch before it is
        learned. None: all rows count the same.
    """

    def __init__(self, *args, weigher=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.weigher = weigher

    def train_step_single(self, batch, **fit_params):
        """As skorch's, after the weigher has seen the batch."""
        if hasattr(self.weigher, "before_step"):
            self.weigher.before_step(self, *batch)
        return super().train_step_single(batch, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Weighted mean of the exits' cross-entropies; validation counts all exits the same."""
        loss = self.exit_losses(y_pred, y_true)
        if training and self.weigher is not None:
            confidence = confidences(y_pred.detach(), X)
            loss = loss * self.weigher.weigh(loss.detach(), confidence).to(loss)
        loss = loss.mean(1)
        if isinstance(X, Mapping) and "sample_weight" in X:
            loss = loss * X["sample_weight"].to(loss)
        return loss.mean()

    def exit_losses(self, y_pred, y_true):
        """Losses of shape (b, K), those of an ensemble's members averaged."""
        y_true = y_true.to(y_pred.device)
        if self.logit_offset is not None:
            y_pred = y_pred + self.logit_offset.to(y_pred)
        n_rows, n_each = len(y_pred), y_pred[0, ..., 0].numel()
        repeated = y_true.repeat_interleave(n_each)
        loss = self.criterion_(y_pred.reshape(-1, y_pred.shape[-1]), repeated)
        loss = loss.view(n_rows, y_pred.shape[1], -1)
        return loss.mean(2)


def confidences(logits, X=None):
    """Highest class probability at each stage, shape (b, K), or (b, K + 1) with a first stage."""
    proba = torch.softmax(logits, dim=-1)
    if proba.ndim == 4:
        proba = proba.mean(dim=2)
    confidence = proba.amax(dim=-1)
    if isinstance(X, Mapping) and FIRST in X:
        first = X[FIRST].to(confidence)
        confidence = torch.cat([first[:, None], confidence], dim=1)
    return confidence
