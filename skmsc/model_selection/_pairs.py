"""Every pair of a screen's cut and a final cut at once, from cumulative counts.

Input: for each row the confidence of stage 0, its answer, the last stage's score and the label.
Output: true positives, false positives and passed rows for all pairs of cuts, and the metrics that
are functions of these.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    fbeta_score,
    jaccard_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
)
from sklearn.utils import column_or_1d

from skmsc._sklearn import _PassthroughScorer, _Scorer
from skmsc.metrics import neg_mean_cost_scorer, neg_pass_rate_scorer, retained_recall_scorer
from skmsc.model_selection._final_cut import check_two_classes
from skmsc.thresholds import fit_thresholds

__all__ = []  # for the package's own use


@dataclass(frozen=True)
class PairCounts:
    """(Weighted) numbers of rows for every pair of cuts.

    Attributes
    ----------
    tp, fp : ndarray of shape (n_cuts, n_final_cuts)
        Positives and negatives that are predicted positive.
    passed : ndarray of shape (n_cuts, 1)
        Rows that reach the last stage.
    n_positive, n_negative : float
        Numbers of positives and negatives.
    """

    tp: np.ndarray
    fp: np.ndarray
    passed: np.ndarray
    n_positive: float
    n_negative: float

    @property
    def fn(self):
        """Positives that are predicted negative."""
        return self.n_positive - self.tp

    @property
    def tn(self):
        """Negatives that are predicted negative."""
        return self.n_negative - self.fp


def count_pairs(confidence, last_score, positive, weight, cuts, final_cuts, *, flagged=None):
    """Count for every pair of cuts.

    Stage 0 answers the rows whose confidence reaches a cut; of the others those whose last score
    reaches a final cut are predicted positive.

    Parameters
    ----------
    confidence : ndarray of shape (n_samples,)
        What stage 0 is cut at.
    last_score : ndarray of shape (n_samples,)
        Score of the positive class by the last stage.
    positive : mask of shape (n_samples,)
        Labels.
    weight : ndarray of shape (n_samples,) or None
        Weights; None counts rows.
    cuts : ndarray of shape (n_cuts,)
        Of stage 0, ascending.
    final_cuts : ndarray of shape (n_final_cuts,)
        Of the last stage, ascending.
    flagged : mask of shape (n_samples,), default=None
        Rows that stage 0 answers as positive if it answers them; None: none.

    Returns
    -------
    counts : PairCounts
    """
    n_rows, n_columns = cuts.size + 1, final_cuts.size + 1
    # A row is answered at the first u cuts and, if it passes, positive at the first v final cuts.
    u = np.searchsorted(cuts, confidence, side="right")
    v = np.searchsorted(final_cuts, last_score, side="right")
    cell = (positive * n_rows + u) * n_columns + v
    cells = np.bincount(cell, weight, 2 * n_rows * n_columns).reshape(2, n_rows, n_columns)
    totals = cells.sum(axis=(1, 2))
    reach = cells.cumsum(axis=1)[:, :-1]  # (class, cut, v): rows that pass
    above = reach[..., ::-1].cumsum(axis=2)[..., ::-1]  # and whose v is at least so much
    passed, predicted = above[..., 0].sum(axis=0), above[..., 1:]
    if flagged is not None:
        early = np.bincount(
            (positive * n_rows + u)[flagged],
            None if weight is None else weight[flagged],
            2 * n_rows,
        ).reshape(2, n_rows)
        answered = early[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]  # whose u is more than the cut's
        predicted = predicted + answered[..., None]
    return PairCounts(
        tp=predicted[1],
        fp=predicted[0],
        passed=passed[:, None],
        n_positive=float(totals[1]),
        n_negative=float(totals[0]),
    )


def spread_cuts(wanted, others_lowest, n_cuts):
    """At most `n_cuts` ascending cuts between the quantiles of the scores to be told apart.

    Each lies midway between two neighbours of them; the first below all of `wanted`, half way to
    `others_lowest` where that is lower.
    """
    values = np.unique(np.quantile(wanted, np.linspace(0, 1, n_cuts), method="lower"))
    below = min(others_lowest, values[0])
    if below == values[0]:
        below = np.nextafter(below, -np.inf)
    cuts = (np.concatenate([[below], values[:-1]]) + values) / 2
    return np.unique(cuts)


# --- metrics of counts ------------------------------------------------------------------------
def _ratio(numerator, denominator, otherwise=0.0):
    """Their ratio, both arrays of one shape; where nothing is divided by, `otherwise`."""
    out = np.full(np.shape(denominator), float(otherwise))
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def _accuracy(c):
    return (c.tp + c.tn) / (c.n_positive + c.n_negative)


def _balanced_accuracy(c):
    if not c.n_positive or not c.n_negative:  # the mean over the classes that there are
        return _ratio(c.tp, np.full(c.tp.shape, c.n_positive)) + _ratio(
            c.tn, np.full(c.tp.shape, c.n_negative)
        )
    return (c.tp / c.n_positive + c.tn / c.n_negative) / 2


def _precision(c, zero_division=0.0):
    return _ratio(c.tp, c.tp + c.fp, zero_division)


def _recall(c, zero_division=0.0):
    return _ratio(c.tp, np.full(c.tp.shape, c.n_positive), zero_division)


def _fbeta(c, beta=1.0, zero_division=0.0):
    of_recall = beta**2
    bottom = (1 + of_recall) * c.tp + of_recall * c.fn + c.fp
    return _ratio((1 + of_recall) * c.tp, bottom, zero_division)


def _jaccard(c, zero_division=0.0):
    return _ratio(c.tp, c.tp + c.fn + c.fp, zero_division)


def _matthews(c):
    told = (c.tp + c.fp) * (c.tn + c.fn) * (c.n_positive * c.n_negative)
    return _ratio(c.tp * c.tn - c.fp * c.fn, np.sqrt(np.maximum(told, 0.0)))


_OF_COUNTS = {
    accuracy_score: _accuracy,
    balanced_accuracy_score: _balanced_accuracy,
    f1_score: _fbeta,
    fbeta_score: _fbeta,
    jaccard_score: _jaccard,
    matthews_corrcoef: _matthews,
    precision_score: _precision,
    recall_score: _recall,
}
_SYMMETRIC = (accuracy_score, balanced_accuracy_score, matthews_corrcoef)
_CUT_BLIND = (neg_mean_cost_scorer, neg_pass_rate_scorer, retained_recall_scorer)


def metric_of_counts(name, scorer, positive=None):
    """A function of `PairCounts` that equals the scorer; None when no final cut changes it.

    `positive` is the label of the positive class; None: not known yet.

    Raises ValueError for a scorer of predicted labels that is no known function of counts.
    """
    if isinstance(scorer, _PassthroughScorer):
        return _accuracy
    if scorer in _CUT_BLIND:
        return None
    if not isinstance(scorer, _Scorer):
        raise ValueError(_cannot(name, scorer))
    if "predict" not in np.atleast_1d(scorer._response_method):
        return None
    metric, kwargs = scorer._score_func, dict(scorer._kwargs)
    counted = _OF_COUNTS.get(metric)
    if counted is None:
        raise ValueError(_cannot(name, scorer))
    if metric not in _SYMMETRIC:
        if kwargs.pop("average", "binary") != "binary":
            raise ValueError(_cannot(name, scorer))
        told = kwargs.pop("pos_label", 1)
        if positive is not None and told != positive:
            raise ValueError(
                f"The scorer {name!r} counts pos_label={told!r}, and the positive class of the "
                f"classifier is {positive!r}: give make_scorer(..., pos_label={positive!r})."
            )
        if kwargs.get("zero_division") == "warn":
            kwargs.pop("zero_division")
    known = {"beta"} if metric is fbeta_score else set()
    known |= set() if metric in _SYMMETRIC else {"zero_division"}
    if set(kwargs) - known:
        raise ValueError(_cannot(name, scorer))
    sign = scorer._sign
    return lambda counts: sign * counted(counts, **kwargs)


def _cannot(name, scorer):
    known = ", ".join(metric.__name__ for metric in _OF_COUNTS)
    return (
        f"thresholds='pairs' cannot count the scorer {name!r}, {scorer!r}: valid are scorers of "
        f"two classes made of {known}, and scorers of predict_proba. Other scorers work with a "
        "list of thresholds."
    )


# --- rows of a fold ---------------------------------------------------------------------------
@dataclass(frozen=True)
class PairRows:
    """What pairs are counted on: a fold's test rows.

    Attributes
    ----------
    scores : StageScores
        Of all stages.
    positive : mask of shape (n_samples,)
    weight : ndarray of shape (n_samples,) or None
    code : int
        Of the positive class.
    label : label
        Of the positive class.
    """

    scores: object
    positive: np.ndarray
    weight: np.ndarray | None
    code: int
    label: object

    @classmethod
    def of(cls, model, rows, y, weight):
        """The rows of a fitted classifier of two classes and two stages."""
        check_two_classes(model)
        y = column_or_1d(y)
        unknown = ~np.isin(y, model.classes_)
        if unknown.any():
            raise ValueError(
                f"A test part of cv holds labels that were not in its training part: "
                f"{np.unique(y[unknown])}. For rows without a label there is LabeledTestFolds."
            )
        codes = np.searchsorted(model.classes_, y)
        ones = np.broadcast_to(1.0, codes.size)
        scores = model._make_scores(rows.stage_proba, codes, ones, None, untouched=True)
        code = model._positive
        label = model.classes_.tolist()[code]
        return cls(scores, codes == code, weight, code, label)

    @property
    def last_score(self):
        """Score of the positive class by the last stage."""
        return self.scores.stage_proba[:, -1, self.code]

    def first_score(self):
        """What numbers given as `thresholds` are compared with, in the user's terms."""
        if self.scores.negative is None:
            return self.scores.confidence(0)
        return self.scores.stage_proba[:, 0, self.code]

    def to_keep(self):
        """Mask of the rows that stage 0 would answer wrongly: these tell where to cut."""
        return self.scores.answers[:, 0] != self.scores.y

    def count(self, thresholds, final_cuts):
        """Counts for all pairs of thresholds, ascending numbers, and final cuts, ascending."""
        column = 0 if self.scores.negative is None else self.scores.negative
        cuts = np.array([fit_thresholds(t, self.scores)[0, column] for t in thresholds])
        order = np.argsort(cuts, kind="stable")
        counts = count_pairs(
            self.scores.confidence(0),
            self.last_score,
            self.positive,
            self.weight,
            cuts[order],
            final_cuts,
            flagged=None if self.scores.negative is not None else self._flagged(),
        )
        back = np.argsort(order, kind="stable")
        return PairCounts(
            counts.tp[back],
            counts.fp[back],
            counts.passed[back],
            counts.n_positive,
            counts.n_negative,
        )

    def _flagged(self):
        """Rows that stage 0 answers as positive if it answers them."""
        return self.scores.answers[:, 0] == self.code


def choose_cuts(folds, n_cuts, n_final_cuts):
    """Thresholds (n_cuts,) and final cuts (n_final_cuts,) from the test rows of all folds.

    Both lie between quantiles of the rows that they are about: for stage 0 those that it would
    answer wrongly, for the last stage the positives.
    """
    first = np.concatenate([rows.first_score() for rows in folds])
    keep = np.concatenate([rows.to_keep() for rows in folds])
    last = np.concatenate([rows.last_score for rows in folds])
    positive = np.concatenate([rows.positive for rows in folds])
    if not positive.any() or not keep.any():
        what = "positive" if not positive.any() else "row that stage 0 would answer wrongly"
        raise ValueError(f"thresholds='pairs' finds no {what} in the test parts of cv.")
    if folds[0].scores.negative is None:  # a row passes whose confidence is below
        thresholds = -spread_cuts(-first[keep], (-first).min(), n_cuts)[::-1]
    else:
        thresholds = spread_cuts(first[keep], first.min(), n_cuts)
    return thresholds, spread_cuts(last[positive], last.min(), n_final_cuts)
