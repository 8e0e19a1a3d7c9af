"""How rows flow through the stages and where they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.utils.validation import check_consistent_length

from skmsc._checks import check_column, check_stage, check_weight
from skmsc.reporting._drawing import COLORS, count, get_axes
from skmsc.reporting._report import stage_report
from skmsc.reporting._unwrap import report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from skmsc._typing import Estimator, Label, Rows
    from skmsc.reporting import StageReport

_NODE, _EXIT = 0.08, 0.3  # widths, in units of a stage
_LANE, _GAP = 1.0, 0.62  # heights of a lane and of what is between two


class StageFlowDisplay:
    """Bands of rows that pass from stage to stage, each as high as its share, and leave.

    Below the flow of all rows is that of the positives (of the rows answered wrongly, where there
    is no positive class), in shares of their own number, so that a rare class is seen: those that a
    stage answered as negative are hatched.

    Parameters
    ----------
    report : StageReport
        What each stage did; with labels it also tells the second flow.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes that were drawn on.
    figure_ : matplotlib.figure.Figure
        Their figure.
    nodes_, passes_, exits_, losses_ : list of list of matplotlib.patches.Patch or None
        For each flow and stage: the rows that reach it, those that it passes, answers and loses;
        None where there are none.
    texts_ : list of matplotlib.text.Text
        Labels.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc import FeedbackCascadeClassifier, PassBudget
    >>> from skmsc.reporting import StageFlowDisplay
    >>> X, y = make_classification(300, weights=[0.9], random_state=0)
    >>> model = FeedbackCascadeClassifier(thresholds=PassBudget(0.25), random_state=0).fit(X, y)
    >>> display = StageFlowDisplay.from_estimator(model, X, y)
    >>> display.figure_.savefig("flow.png")  # doctest: +SKIP
    """

    def __init__(self, report: StageReport) -> None:
        self.report = report

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Rows,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        ax: Axes | None = None,
    ) -> StageFlowDisplay:
        """Draw the flow of rows through the classifier inside an estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted multi-stage classifier, or a pipeline, search or threshold wrapper around one.
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows as the estimator takes them.
        y : array-like of shape (n_samples,), default=None
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.

        Returns
        -------
        display : StageFlowDisplay
        """
        return cls(report(estimator, X, y, sample_weight=sample_weight)).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        stage: ArrayLike,
        y_true: ArrayLike | None = None,
        y_pred: ArrayLike | None = None,
        *,
        pos_label: Label = None,
        stage_names: Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
        ax: Axes | None = None,
    ) -> StageFlowDisplay:
        """Draw the flow of rows of which it is known where they were answered.

        Parameters
        ----------
        stage : array-like of shape (n_samples,)
            Index of the stage that answered each row, as ``route(X).stage``.
        y_true : array-like of shape (n_samples,), default=None
            Labels.
        y_pred : array-like of shape (n_samples,), default=None
            Labels that the rows were answered with; needed with `y_true`.
        pos_label : label, default=None
            Positive class; None: there is none, and wrong answers are drawn.
        stage_names : sequence of str, default=None
            Names of all stages. None: their numbers, up to the last one that answered a row.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.

        Returns
        -------
        display : StageFlowDisplay

        Raises
        ------
        ValueError
            When one of `y_true` and `y_pred` is missing, arrays differ in length, `stage` holds
            no indices, or `pos_label` is none of the labels.
        """
        stage = check_stage(stage)
        if (y_true is None) != (y_pred is None):
            raise ValueError("y_true and y_pred go together: give both or none.")
        names = stage_names or [f"stage {k}" for k in range(stage.max() + 1)]
        if len(names) <= stage.max():
            raise ValueError(
                f"stage_names must name all stages, {stage.max() + 1} at least; got {names!r}."
            )
        known = {}
        if y_true is not None:
            y_true, y_pred = check_column(y_true, "y_true"), check_column(y_pred, "y_pred")
            check_consistent_length(stage, y_true, y_pred)
            labels = np.union1d(y_true, y_pred).tolist()
            if pos_label is not None and len(labels) > 1 and pos_label not in labels:
                raise ValueError(f"pos_label must be one of {labels}; got {pos_label!r}.")
            known["correct"] = y_true == y_pred
            known["positive"] = None if pos_label is None else y_true == pos_label
            known["pos_label"] = pos_label
        weight = check_weight(sample_weight, stage.size)
        return cls(stage_report(names, stage, weight, **known)).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the flow.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.

        Returns
        -------
        self : StageFlowDisplay
        """
        flows = self._flows()
        n_stages = len(self.report.columns["stage"])
        ax, figure = get_axes(ax, self, (1 + 2.6 * n_stages, 0.6 + 2.4 * len(flows)))
        self.ax_, self.figure_, self.texts_ = ax, figure, []
        self.nodes_, self.passes_, self.exits_, self.losses_ = [], [], [], []
        for lane, flow in enumerate(flows):
            self._draw(lane, *flow)
        ax.set_xlim(-0.02, n_stages)
        ax.set_ylim(-len(flows) * (_LANE + _GAP) + _GAP - 0.25, 0.42)
        ax.axis("off")
        return self

    def _flows(self):
        """For each flow: what flows, how many reach and leave each stage, how many are lost."""
        columns = self.report.columns
        flows = [("rows", np.array(columns["rows_in"]), np.array(columns["answered"]), None)]
        if "positives_in" in columns:
            reach = np.array(columns["positives_in"])
            flows.append(
                ("positives", reach, reach - np.append(reach[1:], 0), columns["positives_lost"])
            )
        elif "accuracy" in columns:
            wrong = flows[0][2] * (1 - np.nan_to_num(columns["accuracy"], nan=1.0))
            wrong = np.round(wrong, 9)
            reach = np.cumsum(wrong[::-1])[::-1]
            flows.append(("answered wrongly", reach, wrong, wrong))
        return [flow for flow in flows if flow[1][0]]

    def _draw(self, lane, what, reach, leave, lost):
        """Draw one flow below the others."""
        top, total = -lane * (_LANE + _GAP), reach[0]
        drawn = {"nodes": [], "passes": [], "exits": [], "losses": []}
        for k, name in enumerate(self.report.columns["stage"]):
            height, out = reach[k] / total * _LANE, leave[k] / total * _LANE
            low, cut = top - height, top - height + out  # what leaves is at the bottom
            drawn["nodes"].append(self._box(k, _NODE, low, top, facecolor=COLORS[0]))
            passes = self._box(k + _NODE, 1 - _NODE, cut, top, facecolor="0.85")
            drawn["passes"].append(passes if k + 1 < len(reach) else None)
            missed = 0.0 if lost is None else lost[k] / total * _LANE
            color = COLORS[5] if lost is None else COLORS[2]
            drawn["exits"].append(self._arrow(k, low + missed, cut, facecolor=color))
            drawn["losses"].append(
                self._arrow(k, low, low + missed, facecolor="white", hatch="//////")
            )
            self._write(lane, k, name, what, (reach, leave, lost), (low, cut, top))
        for kind, patches in drawn.items():
            getattr(self, f"{kind}_").append(patches)

    def _write(self, lane, k, name, what, counts, heights):
        """Label a stage of one flow: what reaches it above, what leaves it beside or below."""
        (reach, leave, lost), (low, cut, top) = counts, heights
        head = (
            f"{count(reach[k])} {what}"
            if k == 0
            else f"{count(reach[k])} ({reach[k] / reach[0]:.1%})"
        )
        self.texts_.append(self.ax_.text(k, top + 0.04, head, va="bottom", fontsize="small"))
        if lane == 0:
            self.texts_.append(self.ax_.text(k, top + 0.2, name, va="bottom", fontweight="bold"))

        def share(n):
            return f"{count(n)} ({n / reach[0]:.1%})"

        columns = self.report.columns
        classes = [name for name in columns if name.startswith("answered_as_")]
        lines = ["answered", share(leave[k])]
        if 0 < len(classes) <= 3:
            lines = [
                f"as {name.removeprefix('answered_as_')}: {share(columns[name][k])}"
                for name in classes
                if columns[name][k]
            ] or lines
        if what == "positives":
            found = leave[k] - lost[k]
            lines = [f"found {share(found)}"] * bool(found) + [f"lost {share(lost[k])}"]
        elif lost is not None:
            lines = [f"wrong {share(lost[k])}"]
        if cut - low > 0.09 * (1 + len(lines)):
            x, y, va = k + _NODE + _EXIT + 0.03, (low + cut) / 2, "center"
        else:
            x, y, va = k, low - 0.04, "top"
        self.texts_.append(self.ax_.text(x, y, "\n".join(lines), va=va, fontsize="small"))

    def _box(self, x, width, low, high, **style):
        """A box; None without height."""
        from matplotlib.patches import Rectangle

        if high - low < 1e-12:
            return None
        return self.ax_.add_patch(Rectangle((x, low), width, high - low, **style))

    def _arrow(self, k, low, high, **style):
        """What leaves a stage, with a tip; None without height."""
        from matplotlib.patches import Polygon

        if high - low < 1e-12:
            return None
        left, right = k + _NODE, k + _NODE + _EXIT
        tip = min(0.1, high - low)
        corners = [
            (left, low), (right - tip, low), (right, (low + high) / 2), (right - tip, high),
            (left, high),
        ]  # fmt: skip
        return self.ax_.add_patch(Polygon(corners, edgecolor="0.25", linewidth=0.8, **style))
