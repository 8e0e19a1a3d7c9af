"""How much each row counts at each exit of a net while it is trained.

At work a row leaves at the first exit that is sure of it, so the later exits meet the hard rows
only, and training that counts all rows alike at all exits does not know. A strategy gives weights
of shape (n_rows, n_exits) to the cross-entropies of a batch, with mean 1 at each exit unless it
says otherwise. Two things are known of the rows of a batch, both torch tensors: their `loss` at
each exit, of shape (n_rows, n_exits), and the `confidence` of each stage, its highest class
probability, of shape (n_rows, n_stages), where a first stage that is not part of the net comes
first. Nothing here imports torch: the formulas are methods of the tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sklearn.base import BaseEstimator

from skmsc._checks import check_choice, check_integer, check_number

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FocalWeights", "LearnedWeights", "SurvivorWeights", "UniformWeights"]


class UniformWeights(BaseEstimator):
    """Every row counts the same at every exit.

    Examples
    --------
    >>> from skmsc import UniformWeights
    >>> UniformWeights()
    UniformWeights()
    """

    def start(self, seed: int) -> None:
        """What weighs the rows in one training: nothing."""
        return None

    def check(self) -> None:
        """Validate the parameters: there are none."""


class FocalWeights(BaseEstimator):
    """Rows count the more at an exit the less sure it is of their class.

    The weight of a row at an exit is ``1 - strength + strength * h / mean(h)`` with
    ``h = (1 - p) ** gamma``, ``p = exp(-loss)`` the exit's probability of the row's class, and the
    mean over the batch. There is no routing in it: it is the control that tells whether weights by
    exits are worth more than an emphasis on hard rows.

    Parameters
    ----------
    strength : float, default=0.7
        In [0, 1]; 0 is uniform.
    gamma : float, default=2.0
        Exponent > 0.

    References
    ----------
    T.-Y. Lin et al. Focal loss for dense object detection, arXiv 1708.02002. There the factor is
    part of the loss that is differentiated; here it is a weight, with mean 1 at each exit.

    Examples
    --------
    >>> from skmsc import FocalWeights
    >>> FocalWeights(gamma=1.0)
    FocalWeights(gamma=1.0)
    """

    def __init__(self, strength: float = 0.7, gamma: float = 2.0) -> None:
        self.strength = strength
        self.gamma = gamma

    def check(self) -> None:
        """Validate the parameters."""
        _check_number(self, "strength", "[0, 1]")
        _check_number(self, "gamma", "(0, inf)")

    def start(self, seed: int) -> FocalWeights:
        """What weighs the rows in one training: this."""
        return self

    def weigh(self, loss: Tensor, confidence: Tensor) -> Tensor:
        """Weights of shape (n_rows, n_exits) of the rows of a batch."""
        hard = (-(-loss).expm1()).clamp(min=0) ** self.gamma
        return _mixed(hard, self.strength)


class SurvivorWeights(BaseEstimator):
    """Rows count at an exit by the chance that they reach it.

    That chance is the product over the earlier stages of ``sigma((pass_rate - r) / temperature)``,
    r in [0, 1] the rank of the row's confidence there among the rows of the batch; the weight is
    ``1 - strength + strength * chance / mean(chance)``. A rival of the learned weights that needs
    no network.

    Parameters
    ----------
    strength : float, default=0.7
        In [0, 1]; 0 is uniform.
    pass_rate : float, default=0.6
        Share of the rows, in (0, 1), that a stage passes on.
    temperature : float, default=0.1
        How gradually the chance falls with the rank, > 0.

    Examples
    --------
    >>> from skmsc import SurvivorWeights
    >>> SurvivorWeights(pass_rate=0.5)
    SurvivorWeights(pass_rate=0.5)
    """

    def __init__(
        self, strength: float = 0.7, pass_rate: float = 0.6, temperature: float = 0.1
    ) -> None:
        self.strength = strength
        self.pass_rate = pass_rate
        self.temperature = temperature

    def check(self) -> None:
        """Validate the parameters."""
        _check_number(self, "strength", "[0, 1]")
        _check_number(self, "pass_rate", "(0, 1)")
        _check_number(self, "temperature", "(0, inf)")

    def start(self, seed: int) -> SurvivorWeights:
        """What weighs the rows in one training: this."""
        return self

    def weigh(self, loss: Tensor, confidence: Tensor) -> Tensor:
        """Weights of shape (n_rows, n_exits) of the rows of a batch."""
        n_rows, n_stages = confidence.shape
        rank = loss.new_empty(confidence.shape)
        for j in range(n_stages):  # equally sure rows share the mean of their ranks
            _, own, count = confidence[:, j].unique(return_inverse=True, return_counts=True)
            count = count.to(loss)
            rank[:, j] = (count.cumsum(0) - (count + 1) / 2)[own] / max(n_rows - 1, 1)
        passes = ((self.pass_rate - rank) / self.temperature).sigmoid()
        n_before = n_stages - loss.shape[1]  # stages that are not part of the net
        reach = passes.cumprod(dim=1).roll(1, dims=1)
        reach[:, 0] = 1.0
        return _mixed(reach[:, n_before:], self.strength)


class LearnedWeights(BaseEstimator):
    """A network learns how much each row counts at each exit (L2W-DEN).

    A small network maps the losses of a row at the exits to its weights there,
    ``1 + eps * centred(tanh(...))``. It is trained beside the net: on one half of a batch a
    pseudo step of the net is taken with these weights; on the other half, every row is given to
    the exit at which it would leave, and the loss there after the pseudo step is the weight
    network's. Its gradient is exact and takes one forward-mode derivative, see Notes.

    Parameters
    ----------
    eps : float, default=0.4
        How far weights may be from 1, in (0, 1]; above .5 weights are clipped at 0.
    centre : {"col", "row", "mat"}, default="col"
        What the weight network's outputs have mean 0 over: the exits of each row, so that a row
        counts the same in total; the rows of a batch at each exit; or both together.
    exit_share : float, default=0.75
        Stage j answers, in the weight network's loss, a share of the rows that is in proportion to
        ``exit_share ** j``; > 0.
    every : int, default=16
        Batches from one step of the weight network to the next. Each costs about as much as four
        or five batches.
    n_hidden : int, default=100
        Hidden units of the weight network.
    lr : float, default=0.001
        Learning rate of the weight network (Adam).

    Notes
    -----
    With the losses l_ij of row i at exit j on one half, their weights W_ij, and the meta loss L on
    the other half after the pseudo step to theta', the derivative of L by W_ij is
    ``-<rate * grad L(theta'), grad l_ij(theta)>`` up to the constant in front of the mean: one
    Jacobian-vector product of the loss matrix. The rate is that at which the step follows its
    gradient: the learning rate, times 1 + momentum for Nesterov's; for Adam the learning rate over
    the root of the running mean of squares, held fixed, times 1 - beta_1.

    Not the paper's: the first stage, which takes its share of the rows by out-of-fold confidence
    and has no gradient; halves that have the same share of each class; the pseudo step of Adam; a
    meta step without dropout; and the real step on the whole batch rather than on its halves.

    References
    ----------
    Y. Han et al. Learning to weight samples for dynamic early-exiting networks. ECCV 2022, arXiv
    2209.08310.

    Examples
    --------
    >>> from skmsc import LearnedWeights
    >>> LearnedWeights(eps=0.3, centre="mat")
    LearnedWeights(centre='mat', eps=0.3)
    """

    def __init__(
        self,
        eps: float = 0.4,
        centre: Literal["col", "row", "mat"] = "col",
        exit_share: float = 0.75,
        every: int = 16,
        n_hidden: int = 100,
        lr: float = 0.001,
    ) -> None:
        self.eps = eps
        self.centre = centre
        self.exit_share = exit_share
        self.every = every
        self.n_hidden = n_hidden
        self.lr = lr

    def check(self) -> None:
        """Validate the parameters."""
        _check_number(self, "eps", "(0, 1]")
        check_choice("centre", self.centre, ("col", "row", "mat"))
        _check_number(self, "exit_share", "(0, inf)")
        for name in ("every", "n_hidden"):
            check_integer(f"{name} of {self!r}", getattr(self, name), 1)
        _check_number(self, "lr", "(0, inf)")

    def start(self, seed: int) -> Any:
        """What weighs the rows in one training: a new weight network."""
        from skmsc.neural._weight_network import LearnedWeigher

        return LearnedWeigher(seed=seed, **self.get_params())


STRATEGIES = {
    "learned": LearnedWeights,
    "survivors": SurvivorWeights,
    "focal": FocalWeights,
    "uniform": UniformWeights,
}


class _Function:
    """A user's function as a weigher; its weights are checked."""

    def __init__(self, function):
        self.function = function

    def weigh(self, loss, confidence):
        """Weights of shape (n_rows, n_exits) of the rows of a batch."""
        weights = self.function(loss, confidence)
        if type(weights) is not type(loss) or weights.shape != loss.shape:
            got = weights.shape if type(weights) is type(loss) else type(weights).__name__
            raise ValueError(
                f"exit_weighting={self.function!r} must return a tensor of shape "
                f"{tuple(loss.shape)}; got {got}."
            )
        if not bool(((weights >= 0) & (weights < float("inf"))).all()):
            raise ValueError(f"exit_weighting={self.function!r} must return finite weights >= 0.")
        return weights


def check_exit_weighting(exit_weighting):
    """Raise unless `exit_weighting` is a name, a strategy with valid parameters or a function."""
    if isinstance(exit_weighting, str):
        if exit_weighting in STRATEGIES:
            return
    elif hasattr(exit_weighting, "start") and not isinstance(exit_weighting, type):
        if hasattr(exit_weighting, "check"):
            exit_weighting.check()
        return
    elif callable(exit_weighting) and not isinstance(exit_weighting, type):
        return
    raise ValueError(
        f"exit_weighting must be one of {sorted(STRATEGIES)}, a strategy such as LearnedWeights(), "
        f"or a function of (loss, confidence); got {exit_weighting!r}."
    )


def start_weigher(exit_weighting, seed):
    """What weighs rows at exits in one training, of a checked `exit_weighting`; None: nothing."""
    if isinstance(exit_weighting, str):
        exit_weighting = STRATEGIES[exit_weighting]()
    if hasattr(exit_weighting, "start"):
        return exit_weighting.start(seed)
    return _Function(exit_weighting)


def _mixed(emphasis, strength):
    """Weights with mean 1 in each column: uniform ones and an emphasis >= 0, mixed."""
    mean = emphasis.mean(dim=0, keepdim=True)
    return 1 - strength + strength * emphasis / mean.clamp(min=1e-12)


def _check_number(strategy, name, interval):
    """Raise unless a parameter is a number in an interval."""
    check_number(f"{name} of {strategy!r}", getattr(strategy, name), interval)
