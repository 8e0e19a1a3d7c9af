"""Where a stage is cut, among the scores of the classes."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.utils.validation import check_consistent_length

from skmsc._checks import check_column, check_integer, check_weight
from skmsc._sklearn import _num_samples
from skmsc.reporting._drawing import check_labels_given, count, get_axes, style
from skmsc.reporting._unwrap import unwrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from skmsc._typing import Estimator, Rows

_LOGIT_TICKS = [0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999]


class ThresholdDisplay:
    """Scores of a stage, class by class, with its cuts.

    Each class has an area of its own, so that a rare one is seen as well as a common one.

    Parameters
    ----------
    scores : dict of str to array-like of shape (n_rows,)
        Scores by class, or by whatever else tells rows apart.
    weights : dict of str to array-like of shape (n_rows,), default=None
        Weights of these rows.
    cuts : dict of str to float, default=None
        What is written at a cut, and where it is.
    answers : list of (float, float), default=None
        Intervals of scores that the stage answers.
    score_name : str, default="score"
        Label of the axis.
    title : str, default=None
        Title; None: no title.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes that were drawn on.
    figure_ : matplotlib.figure.Figure
        Their figure.
    steps_ : dict of str to matplotlib.patches.StepPatch
        Outline of each class.
    cuts_ : list of matplotlib.lines.Line2D
        Cuts.
    answers_ : list of matplotlib.patches.Rectangle
        What the stage answers.
    texts_ : list of matplotlib.text.Text
        Labels.

    Raises
    ------
    ValueError
        When no class has a row, or a score or cut is not finite.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc import FeedbackCascadeClassifier, PassBudget
    >>> from skmsc.reporting import ThresholdDisplay
    >>> X, y = make_classification(300, weights=[0.9], random_state=0)
    >>> model = FeedbackCascadeClassifier(thresholds=PassBudget(0.25), random_state=0).fit(X, y)
    >>> ThresholdDisplay.from_estimator(model, X, y).ax_.get_title()
    'screen: cut of 300 rows, ... pass'
    """

    def __init__(
        self,
        scores: Mapping[str, ArrayLike],
        *,
        weights: Mapping[str, ArrayLike] | None = None,
        cuts: Mapping[str, float] | None = None,
        answers: Sequence[tuple[float, float]] | None = None,
        score_name: str = "score",
        title: str | None = None,
    ) -> None:
        self.scores = {str(name): np.asarray(score, float) for name, score in scores.items()}
        if not any(score.size for score in self.scores.values()):
            raise ValueError("scores holds no row.")
        for name, score in self.scores.items():
            if not np.isfinite(score).all():
                raise ValueError(f"scores must be finite; those of {name!r} are not.")
        for text, cut in (cuts or {}).items():
            if not np.isfinite(cut):
                raise ValueError(f"cuts must be finite; got {cut} for {text!r}.")
        self.weights = weights
        self.cuts = cuts
        self.answers = answers
        self.score_name = score_name
        self.title = title

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Rows,
        y: ArrayLike,
        *,
        stage: int | str = 0,
        sample_weight: ArrayLike | None = None,
        bins: int = 30,
        ax: Axes | None = None,
    ) -> ThresholdDisplay:
        """Draw the scores of a stage on the rows that reach it.

        Of two classes it is the score of the positive one (of ``classes_[1]``), of more the score
        that thresholds act on, of rows whose likeliest class is theirs and of the others.

        Parameters
        ----------
        estimator : estimator
            A fitted multi-stage classifier, or a pipeline, search or threshold wrapper around one.
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows as the estimator takes them.
        y : array-like of shape (n_samples,)
            Labels.
        stage : int or str, default=0
            Number or name of the stage.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights.
        bins : int, default=30
            Number of bins.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.

        Returns
        -------
        display : ThresholdDisplay

        Raises
        ------
        ValueError
            When there is no such stage, or no row reaches it.
        """
        check_labels_given(y)
        model, X = unwrap(estimator, X)
        X = model._check_rows(X)
        codes, weight = model._check_labels(X, y, None)
        weight = weight * check_weight(sample_weight, _num_samples(X))
        names = list(model._stage_names)
        k = names.index(stage) if stage in names else stage
        if not isinstance(k, Integral) or isinstance(k, bool) or not 0 <= k < len(names):
            raise ValueError(
                f"stage must be one of {names} or a number below {len(names)}; got {stage!r}."
            )
        routing, kept = model._watch(X, keep=np.copy)
        rows = (routing.stage >= k) & (weight > 0)
        if not rows.any():
            raise ValueError(f"No row with a label and a weight reaches stage {names[k]!r}.")
        raw = kept[k][(weight > 0)[routing.stage >= k]]
        codes, weight, cuts = codes[rows], weight[rows], model.thresholds_[k]
        early = k < len(names) - 1
        if len(cuts) == 2 and model._measure == "max_proba":
            c = 1 if model._positive is None else model._positive
            score, low, high = raw[:, c], 1 - cuts[1 - c], cuts[c]
            labels = [str(label) for label in model.classes_.tolist()]
            groups = {f"class {labels[i]}": codes == i for i in range(2)}
            marks = {f"{labels[1 - c]} below": low, f"{labels[c]} from": high}
            answers = [(-np.inf, low), (high, np.inf)]
            what = f"score of class {labels[c]}"
        else:
            acts = model._acting(raw)
            score, own = acts.max(axis=1), acts.argmax(axis=1)
            right = own == codes
            groups = {"likeliest class is right": right, "likeliest class is wrong": ~right}
            low = np.unique(cuts)
            marks = {
                "answered from" if low.size == 1 else f"{model.classes_[i]} from": cuts[i]
                for i in range(len(cuts))
            }
            answers = [(low[0], np.inf)] if low.size == 1 else []
            what = {"max_proba": "probability of the likeliest class"}.get(
                model._measure, f"confidence ({model._measure})"
            )
        finite = {text: cut for text, cut in marks.items() if early and np.isfinite(cut)}
        passed, total = weight[routing.stage[rows] > k].sum(), weight.sum()
        display = cls(
            {name: score[group] for name, group in groups.items()},
            weights={name: weight[group] for name, group in groups.items()},
            cuts=finite,
            answers=[a for a in answers if a[0] < a[1] and early],
            score_name=what,
            title=f"{names[k]}: cut of {total:,.0f} rows, {passed:,.0f} pass"
            if early
            else f"{names[k]}: the last stage answers all of {total:,.0f} rows",
        )
        return display.plot(ax, bins=bins)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_score: ArrayLike,
        *,
        cuts: Mapping[str, float] | None = None,
        sample_weight: ArrayLike | None = None,
        bins: int = 30,
        ax: Axes | None = None,
    ) -> ThresholdDisplay:
        """Draw given scores, class by class.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels.
        y_score : array-like of shape (n_samples,)
            Scores.
        cuts : dict of str to float, default=None
            What is written at a cut, and where it is.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights.
        bins : int, default=30
            Number of bins.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.

        Returns
        -------
        display : ThresholdDisplay
        """
        y_true, y_score = check_column(y_true, "y_true"), check_column(y_score, "y_score")
        check_consistent_length(y_true, y_score)
        weight = check_weight(sample_weight, y_true.size)
        groups = {f"class {label}": y_true == label for label in np.unique(y_true).tolist()}
        display = cls(
            {name: y_score[group] for name, group in groups.items()},
            weights={name: weight[group] for name, group in groups.items()},
            cuts=cuts,
        )
        return display.plot(ax, bins=bins)

    def plot(self, ax: Axes | None = None, *, bins: int = 30) -> Self:
        """Draw scores and cuts.

        Probabilities that are cut below .1 or above .9 are drawn on a logit axis.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None makes new ones.
        bins : int, default=30
            Number of bins.

        Returns
        -------
        self : ThresholdDisplay
        """
        check_integer("bins", bins, 2)
        ax, self.figure_ = get_axes(ax, self, (6.4, 3.8))
        self.ax_, cuts = ax, self.cuts or {}
        edges, logit = self._find_edges(list(cuts.values()), bins)
        if logit:
            ax.set_xscale("logit")
        self.answers_ = [
            ax.axvspan(max(low, edges[0]), min(high, edges[-1]), color="0.92", zorder=0)
            for low, high in self.answers or []
            if low < edges[-1] and high > edges[0]
        ]
        self.steps_ = {}
        for k, (name, score) in enumerate(self.scores.items()):
            weight = None if self.weights is None else np.asarray(self.weights[name], float)
            shares = np.histogram(np.clip(score, edges[0], edges[-1]), edges, weights=weight)[0]
            total = shares.sum()
            color, line, _, hatch = style(k)
            number = f"{count(np.round(total, 1))} {'row' if total == 1 else 'rows'}"
            self.steps_[name] = ax.stairs(
                shares / (total or 1.0), edges, fill=True, facecolor=(color, 0.25),
                edgecolor=color, linestyle=line, linewidth=1.6, hatch=hatch,
                label=f"{name} ({number})",
            )  # fmt: skip
        top = max(ax.get_ylim()[1], 0.01)
        ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.22 * top))
        ax.set(xlabel=self.score_name, ylabel="share of its rows", title=self.title or "")
        if logit:
            shown = [t for t in _LOGIT_TICKS if edges[0] <= t <= edges[-1]]
            ax.set_xticks(shown, [f"{t:g}" for t in shown])
            ax.minorticks_off()
        self.cuts_, self.texts_ = [], []
        for k, (text, cut) in enumerate(sorted(cuts.items(), key=lambda item: item[1])):
            self.cuts_.append(ax.axvline(cut, color="black", linewidth=1.2))
            left = text.endswith("below")
            place = self._place(cut, edges, logit)
            left = place > 0.15 if left else place > 0.85
            self.texts_.append(
                ax.annotate(
                    f"{text}\n{cut:.3g}",
                    (cut, (1.2 - 0.13 * (k % 2)) * top),
                    xytext=(-4 if left else 4, 0),
                    textcoords="offset points",
                    ha="right" if left else "left",
                    va="top",
                    fontsize="small",
                )
            )
        handles, labels = ax.get_legend_handles_labels()
        if self.answers_:
            handles, labels = [*handles, self.answers_[0]], [*labels, "answered here"]
        ax.legend(handles, labels, fontsize="small", frameon=False, loc="upper left",
                  bbox_to_anchor=(1.0, 1.0))  # fmt: skip
        return self

    def _place(self, score, edges, logit):
        """Where a score is between the ends of the axis, a share of its width."""
        low, at, high = (np.log(s / (1 - s)) if logit else s for s in (edges[0], score, edges[-1]))
        return (at - low) / (high - low)

    def _find_edges(self, cuts, bins):
        """Edges of the bins, a cut among them, and whether the axis is a logit one."""
        every = np.concatenate(list(self.scores.values()))
        low, high = min(every.min(), *cuts, np.inf), max(every.max(), *cuts, -np.inf)
        logit = low >= 0 and high <= 1 and any(cut < 0.1 or cut > 0.9 for cut in cuts)
        if not logit:
            pad = 0.02 * (high - low) or 0.5
            return np.linspace(low - pad, high + pad, bins + 1), False
        inside = every[(every > 0) & (every < 1)]
        low, high = (inside.min(), inside.max()) if inside.size else (0.01, 0.99)
        low, high = max(min(low, *cuts, 0.5) / 1.5, 1e-4), max(high, *cuts, 0.5)
        high = min(1 - (1 - high) / 1.5, 1 - 1e-4)
        ends = np.log([low / (1 - low), high / (1 - high)])
        return 1 / (1 + np.exp(-np.linspace(*ends, bins + 1))), True
