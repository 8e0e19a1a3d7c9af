"""Whether the probabilities that each stage answers with are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skmsc._checks import check_column, check_integer, check_stage, check_weight, find_pos_label
from skmsc._sklearn import _num_samples
from skmsc.reporting._drawing import check_labels_given, count, get_axes, label_ends, style
from skmsc.reporting._table import binomial_interval, effective_size
from skmsc.reporting._unwrap import unwrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from skmsc._typing import Estimator, Label, Rows

_TICKS = [0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0]


class StageCalibrationDisplay:
    """Reliability of the answers, stage by stage.

    Each point is a bin of rows that one stage answered: their mean predicted probability against
    the share of them that are positive, with its 95 % Clopper-Pearson interval. Bins hold the same
    number of rows. For more than two classes, it is the probability of the predicted class against
    the share of right answers.

    Parameters
    ----------
    stage : array-like of shape (n_samples,)
        Index of the stage that answered each row.
    predicted : array-like of shape (n_samples,)
        Predicted probability of what `happened` tells.
    happened : array-like of shape (n_samples,)
        Mask: whether the row is positive, or was answered rightly.
    stage_names : sequence of str, default=None
        Names of all stages; None: their numbers.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights.
    n_bins : int, default=8
        Bins of each stage, if it has ten rows for each.
    names : tuple of (str, str), default=("predicted probability", "share of positives")
        Labels of the axes.

    Attributes
    ----------
    curves : dict of str to dict of str to ndarray of shape (n_bins,)
        For each stage that answered rows: ``predicted``, ``share``, ``low``, ``high`` and
        ``weight`` of its bins.
    ax_ : matplotlib.axes.Axes
        Axes that were drawn on.
    figure_ : matplotlib.figure.Figure
        Their figure.
    lines_ : dict of str to matplotlib.container.ErrorbarContainer
        Points and intervals of each stage.
    texts_ : list of matplotlib.text.Text
        Labels.

    Raises
    ------
    ValueError
        When arrays differ in length, no row has a weight, `predicted` is not in [0, 1], `stage`
        holds no indices or one without a name, or `n_bins` is not an integer >= 1.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc import FeedbackCascadeClassifier, PassBudget
    >>> from skmsc.reporting import StageCalibrationDisplay
    >>> X, y = make_classification(300, weights=[0.9], random_state=0)
    >>> model = FeedbackCascadeClassifier(thresholds=PassBudget(0.25), random_state=0).fit(X, y)
    >>> list(StageCalibrationDisplay.from_estimator(model, X, y).curves)
    ['screen', 'final']
    """

    def __init__(
        self,
        stage: ArrayLike,
        predicted: ArrayLike,
        happened: ArrayLike,
        *,
        stage_names: Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 8,
        names: tuple[str, str] = ("predicted probability", "share of positives"),
    ) -> None:
        stage, predicted, happened = check_stage(stage), *map(np.asarray, (predicted, happened))
        if not stage.shape == predicted.shape == happened.shape or stage.ndim != 1:
            raise ValueError(
                "stage, predicted and happened must be of one shape, (n_samples,); got "
                f"{stage.shape}, {predicted.shape} and {happened.shape}."
            )
        if not ((predicted >= 0) & (predicted <= 1 + 1e-9)).all():
            raise ValueError("predicted must hold probabilities, numbers in [0, 1].")
        check_integer("n_bins", n_bins, 1)
        if stage_names is not None and len(stage_names) <= stage.max():
            raise ValueError(
                f"stage_names must name all stages, {stage.max() + 1} at least; got "
                f"{stage_names!r}."
            )
        weight = check_weight(sample_weight, stage.size)
        self.names: tuple[str, str] = names
        self.curves: dict[str, Any] = {}
        for k in np.unique(stage[weight > 0]).tolist():
            rows = (stage == k) & (weight > 0)
            name = f"stage {k}" if stage_names is None else stage_names[k]
            self.curves[name] = _curve(predicted[rows], happened[rows], weight[rows], n_bins)

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Rows,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 8,
        ax: Axes | None = None,
    ) -> StageCalibrationDisplay:
        """Draw the reliability of the answers of the classifier inside an estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted multi-stage classifier, or a pipeline, search or threshold wrapper around one.
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows as the estimator takes them, best ones that nothing was fitted on.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights.
        n_bins : int, default=8
            Bins of each stage.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.

        Returns
        -------
        display : StageCalibrationDisplay
        """
        check_labels_given(y)
        model, X = unwrap(estimator, X)
        X = model._check_rows(X)
        codes, weight = model._check_labels(X, y, None)
        weight = weight * check_weight(sample_weight, _num_samples(X))
        routing, names = model._route(X), {}
        positive = model._is_positive(codes)
        if positive is None:
            predicted, happened = routing.proba.max(axis=1), routing.proba.argmax(axis=1) == codes
            names["names"] = ("probability of the predicted class", "share of right answers")
        else:
            predicted, happened = routing.proba[:, model._positive], positive
        display = cls(
            routing.stage,
            predicted,
            happened,
            stage_names=model._stage_names,
            sample_weight=weight,
            n_bins=n_bins,
            **names,
        )
        return display.plot(ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_prob: ArrayLike,
        stage: ArrayLike,
        *,
        pos_label: Label = None,
        stage_names: Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 8,
        ax: Axes | None = None,
    ) -> StageCalibrationDisplay:
        """Draw the reliability of given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels.
        y_prob : array-like of shape (n_samples,)
            Probabilities of the positive class.
        stage : array-like of shape (n_samples,)
            Index of the stage that answered each row, as ``route(X).stage``.
        pos_label : label, default=None
            Positive class; None: 1, where the labels are 0 and 1 or -1 and 1.
        stage_names : sequence of str, default=None
            Names of all stages; None: their numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights.
        n_bins : int, default=8
            Bins of each stage.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.

        Returns
        -------
        display : StageCalibrationDisplay
        """
        y_true = check_column(y_true, "y_true")
        display = cls(
            stage,
            y_prob,
            y_true == find_pos_label(np.unique(y_true), pos_label),
            stage_names=stage_names,
            sample_weight=sample_weight,
            n_bins=n_bins,
        )
        return display.plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw a curve for each stage.

        Where less than a twentieth of the rows are positive, both axes show fourth roots, which
        give small probabilities room.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.

        Returns
        -------
        self : StageCalibrationDisplay
        """
        ax, self.figure_ = get_axes(ax, self, (6.4, 4.4))
        self.ax_, self.lines_ = ax, {}
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":", label="perfect")
        ends, texts = [], []
        for k, (name, curve) in enumerate(self.curves.items()):
            color, line, marker, _ = style(k)
            share = curve["share"]
            spread = np.maximum([share - curve["low"], curve["high"] - share], 0)
            self.lines_[name] = ax.errorbar(
                curve["predicted"], share, spread, color=color, linestyle=line, marker=marker,
                markersize=5, linewidth=1.3, elinewidth=0.8, capsize=2,
                label=f"{name} ({count(np.round(curve['weight'].sum(), 1))} rows)",
            )  # fmt: skip
            ends.append((curve["predicted"][-1], share[-1]))
            texts.append(name)
        happened = sum(curve["share"] @ curve["weight"] for curve in self.curves.values())
        if happened < 0.05 * sum(curve["weight"].sum() for curve in self.curves.values()):
            for axis in ("x", "y"):
                getattr(ax, f"set_{axis}scale")("function", functions=(_root, _fourth_power))
                getattr(ax, f"set_{axis}ticks")(_TICKS, [f"{tick:g}" for tick in _TICKS])
        ax.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel=self.names[0], ylabel=self.names[1])
        self.texts_ = label_ends(ax, ends, texts)
        ax.legend(fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return self


def _root(values):
    """Fourth roots, with its sign of what is below 0: an axis reaches a little beyond its ends."""
    return np.sign(values) * np.abs(values) ** 0.25


def _fourth_power(values):
    """The inverse of `_root`."""
    return np.sign(values) * np.abs(values) ** 4


def _curve(predicted, happened, weight, n_bins):
    """Bins of the same weight, of rows with different probabilities, and of ten rows at least."""
    n_bins = int(np.clip(effective_size(weight) // 10, 1, n_bins))
    _, level = np.unique(predicted, return_inverse=True)
    mass = np.bincount(level, weight)
    # Rows of one probability stay together: they go to the bin that holds their middle.
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    bin_of_row = np.minimum((middle * n_bins).astype(np.intp), n_bins - 1)[level]
    _, bin_of_row = np.unique(bin_of_row, return_inverse=True)
    total = np.bincount(bin_of_row, weight)
    share = np.bincount(bin_of_row, weight * happened) / total
    sizes = [effective_size(weight[bin_of_row == b]) for b in range(total.size)]
    low, high = binomial_interval(share, sizes)
    return {
        "predicted": np.bincount(bin_of_row, weight * predicted) / total,
        "share": share,
        "low": low,
        "high": high,
        "weight": total,
    }
