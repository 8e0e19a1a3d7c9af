"""Cost against score: what a search found, and what single models do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.pipeline import Pipeline

from skmsc.reporting._drawing import COLORS, MARKERS, get_axes, label_ends

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from skmsc._typing import Estimator


class CostScoreDisplay:
    """Cost against score of many settings, with their Pareto front, one chosen, and single models.

    Parameters
    ----------
    cost : array-like of shape (n_settings,)
        Cost of each setting; less is better.
    score : array-like of shape (n_settings,)
        Score of each setting; more is better.
    chosen : int, default=None
        The setting that was chosen; None: none is marked.
    single : dict of str to (float, float), default=None
        Cost and score of models by name, such as each stage alone.
    front : array-like of shape (n_front,), default=None
        Indices of the settings that no other one beats; None: they are found.
    cost_name : str, default="cost of a row"
        Label of the axis.
    score_name : str, default="score"
        Label of the axis.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes that were drawn on.
    figure_ : matplotlib.figure.Figure
        Their figure.
    points_ : matplotlib.lines.Line2D
        All settings.
    front_ : matplotlib.lines.Line2D
        The Pareto front, a step that rises where a better setting becomes affordable.
    chosen_ : matplotlib.lines.Line2D or None
        The chosen setting.
    single_ : list of matplotlib.lines.Line2D
        The single models.
    texts_ : list of matplotlib.text.Text
        Labels.

    Raises
    ------
    ValueError
        When `cost` and `score` are not of one length, or hold no number.

    Examples
    --------
    >>> from skmsc.reporting import CostScoreDisplay
    >>> display = CostScoreDisplay([1, 2, 3], [0.6, 0.8, 0.7], chosen=1, single={"net": (9, 0.8)})
    >>> display.front.tolist()
    [0, 1]
    >>> display.plot().ax_.get_ylabel()
    'score'
    """

    def __init__(
        self,
        cost: ArrayLike,
        score: ArrayLike,
        *,
        chosen: int | None = None,
        single: Mapping[str, tuple[float, float]] | None = None,
        front: ArrayLike | None = None,
        cost_name: str = "cost of a row",
        score_name: str = "score",
    ) -> None:
        self.cost, self.score = np.asarray(cost, float), np.asarray(score, float)
        if self.cost.ndim != 1 or self.cost.shape != self.score.shape:
            raise ValueError(
                "cost and score must be of one shape, (n_settings,); got "
                f"{self.cost.shape} and {self.score.shape}."
            )
        if not (np.isfinite(self.cost) & np.isfinite(self.score)).any():
            raise ValueError("No setting has both a cost and a score.")
        if chosen is not None and not 0 <= chosen < self.cost.size:
            raise ValueError(f"chosen must be an index below {self.cost.size}; got {chosen!r}.")
        self.chosen = chosen
        self.single = single
        self.front = find_front(self.cost, self.score) if front is None else np.asarray(front)
        self.cost_name = cost_name
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        search: Estimator,
        *,
        score: str | None = None,
        cost: str | None = None,
        single: Mapping[str, tuple[float, float]] | None = None,
        ax: Axes | None = None,
    ) -> CostScoreDisplay:
        """Draw what a search has found.

        Parameters
        ----------
        search : estimator
            A fitted search with ``cv_results_``, such as `ThresholdSearchCV`, or `GridSearchCV`
            whose `scoring` names a cost; or a pipeline that ends in one.
        score : str, default=None
            Name of the score, as in ``cv_results_["mean_test_..."]``. None: that of `refit`, or
            "score".
        cost : str, default=None
            Name of the cost there. None: "cost", or "pass_rate" where costs are not known. What is
            negative throughout, as `skmsc.metrics.neg_mean_cost_scorer` is, is turned round.
        single : dict of str to (float, float), default=None
            Cost and score of single models by name.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.

        Returns
        -------
        display : CostScoreDisplay

        Raises
        ------
        TypeError
            When it is no fitted search.
        ValueError
            When the search has no such score or cost.
        """
        if isinstance(search, Pipeline):
            search = search.steps[-1][1]
        if not hasattr(search, "cv_results_"):
            raise TypeError(
                "search must be a fitted search, which has cv_results_; got "
                f"{type(search).__name__}."
            )
        results = search.cv_results_
        names = [
            name.removeprefix("mean_test_") for name in results if name.startswith("mean_test")
        ]
        if score is None:
            refit = getattr(search, "refit", None)
            score = refit if isinstance(refit, str) and refit in names else "score"
        if cost is None:
            cost = next((name for name in ("cost", "pass_rate") if name in names), None)
        if cost is None:
            raise ValueError(
                f"The search has no cost among {names}: name one in its scoring, such as "
                "skmsc.metrics.neg_mean_cost_scorer, and give that name as cost."
            )
        for name, value in (("score", score), ("cost", cost)):
            if value not in names:
                raise ValueError(f"{name} must be one of {names}; got {value!r}.")
        costs = np.asarray(results[f"mean_test_{cost}"], float)
        if np.nanmax(costs) <= 0:
            costs = -costs
        display = cls(
            costs,
            results[f"mean_test_{score}"],
            chosen=getattr(search, "best_index_", None),
            single=single,
            cost_name={"cost": "cost of a row", "pass_rate": "pass rate"}.get(cost, cost),
            score_name=score.replace("_", " "),
        )
        return display.plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw costs against scores.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.

        Returns
        -------
        self : CostScoreDisplay
        """
        ax, self.figure_ = get_axes(ax, self, (6.4, 4.2))
        self.ax_, single = ax, self.single or {}
        (self.points_,) = ax.plot(
            self.cost, self.score, ".", color="0.7", markersize=5, label="settings", zorder=1
        )
        x, y = self.cost[self.front], self.score[self.front]
        (self.front_,) = ax.plot(
            x, y, "o-", drawstyle="steps-post", color=COLORS[0], markersize=4, linewidth=1.5,
            label="Pareto front", zorder=2,
        )  # fmt: skip
        self.chosen_, self.single_, ends, texts = None, [], [], []
        if self.chosen is not None:
            at = self.cost[self.chosen], self.score[self.chosen]
            (self.chosen_,) = ax.plot(
                *at, "*", color=COLORS[1], markersize=15, markeredgecolor="black", zorder=4
            )
            ends, texts = [at], ["chosen"]
        for k, (name, at) in enumerate(single.items()):
            (line,) = ax.plot(
                *at, MARKERS[(k + 1) % len(MARKERS)], color="white", markeredgecolor="black",
                markersize=8, zorder=3,
            )  # fmt: skip
            self.single_.append(line)
            ends, texts = [*ends, at], [*texts, name]
        costs = np.array(
            [*self.cost[np.isfinite(self.cost)], *(cost for cost, _ in single.values())]
        )
        if costs.min() > 0 and costs.max() > 20 * costs.min():
            ax.set_xscale("log")
        ax.margins(x=0.15, y=0.18)
        ax.autoscale_view()
        ax.set(xlabel=f"{self.cost_name} (less is better)", ylabel=self.score_name)
        ax.legend(
            fontsize="small", frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2
        )
        ax.set_xlim(ax.get_xlim())
        ax.set_ylim(ax.get_ylim())
        # Nothing is better than the front, so that there is room above it.
        self.texts_ = label_ends(ax, ends, texts, lift=0.07) if ends else []
        return self


def find_front(cost, score):
    """Indices of the settings that no other one beats, cheapest first; of equal ones the first."""
    known = np.flatnonzero(np.isfinite(cost) & np.isfinite(score))
    order = known[np.lexsort((-score[known], cost[known]))]
    best = np.maximum.accumulate(score[order])
    return order[np.append(True, best[1:] > best[:-1])]
