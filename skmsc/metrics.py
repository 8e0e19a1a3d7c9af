"""Metrics of multi-stage classifiers and of teams with few reviews; scorers for searches.

What scikit-learn has (`average_precision_score`, `recall_score`, ...) is used from there. A metric
becomes a scorer by `sklearn.metrics.make_scorer`; the scorers here ask the estimator itself, for
what its predictions do not tell: which stage answered, and at what cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import roc_curve
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d

from skmsc._checks import (
    MOST_COST,
    as_numbers,
    check_column,
    check_integer,
    check_number,
    check_stage,
    check_weight,
    find_pos_label,
    warn,
)
from skmsc.reporting._unwrap import unwrap

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skmsc._typing import Estimator, Floats, Label, Rows

__all__ = [
    "card_precision_at_k",
    "expected_cost",
    "mean_cost",
    "neg_mean_cost_scorer",
    "neg_pass_rate_scorer",
    "pass_rate",
    "recall_at_fpr",
    "retained_recall",
    "retained_recall_scorer",
]


def expected_cost(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    false_negative_cost: ArrayLike = 1.0,
    false_positive_cost: ArrayLike = 1.0,
    pos_label: Label = None,
    sample_weight: ArrayLike | None = None,
    normalize: bool = True,
) -> float:
    """Give the cost of the errors, a row's own or the same for all.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels of two classes.
    y_pred : array-like of shape (n_samples,)
        Predicted labels.
    false_negative_cost : float or array-like of shape (n_samples,), default=1.0
        Cost >= 0 of a positive that is not found, such as the amount of the transaction.
    false_positive_cost : float or array-like of shape (n_samples,), default=1.0
        Cost >= 0 of a false alarm, such as the price of a review, in the same unit.
    pos_label : label, default=None
        Positive class; None: 1, where the labels are 0 and 1 or -1 and 1.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights >= 0.
    normalize : bool, default=True
        Whether to give the mean over rows rather than the sum.

    Returns
    -------
    cost : float
        In the unit of the costs; less is better.

    Raises
    ------
    ValueError
        When y_true has more than two classes, or a cost is negative, nan or of another length.

    Notes
    -----
    It is what errors cost; what running the stages costs is `mean_cost`. In a search a cost per row
    is metadata: with ``enable_metadata_routing``, ``make_scorer(expected_cost,
    greater_is_better=False).set_score_request(false_negative_cost=True)``. The classifiers of this
    package take the same in `fit`: where their policy does not read it, say
    ``set_fit_request(false_negative_cost=False)``.

    References
    ----------
    C. Elkan, "The foundations of cost-sensitive learning", IJCAI 2001: costs that differ from row
    to row.

    Examples
    --------
    >>> from skmsc.metrics import expected_cost
    >>> y_true, y_pred = [0, 1, 1, 0], [0, 0, 1, 1]
    >>> expected_cost(y_true, y_pred, false_negative_cost=[9, 50, 20, 7], false_positive_cost=2)
    13.0
    """
    y_true, y_pred = check_column(y_true, "y_true"), check_column(y_pred, "y_pred")
    check_consistent_length(y_true, y_pred)
    label = find_pos_label(np.union1d(y_true, y_pred), pos_label)
    positive, flagged = y_true == label, y_pred == label
    weight = check_weight(sample_weight, y_true.size)
    missed = _costs("false_negative_cost", false_negative_cost, y_true.size)
    alarm = _costs("false_positive_cost", false_positive_cost, y_true.size)
    cost = np.where(positive, missed, alarm)
    total = weight @ np.where(positive != flagged, cost, 0.0)
    return float(total / weight.sum() if normalize else total)


def mean_cost(
    stage: ArrayLike, stage_costs: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Give the mean cost of running the stages on a row.

    Parameters
    ----------
    stage : array-like of shape (n_samples,)
        Index of the stage that answered each row, as ``route(X).stage``; all stages up to it ran.
    stage_costs : array-like of shape (n_stages,)
        Cost >= 0 of running each stage on one row.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights >= 0.

    Returns
    -------
    cost : float
        In the unit of `stage_costs`.

    Raises
    ------
    ValueError
        When a stage has no cost, or a cost is negative or nan.

    Examples
    --------
    >>> from skmsc.metrics import mean_cost
    >>> mean_cost([0, 0, 0, 1], [1.0, 10.0])
    3.5
    """
    stage = check_stage(stage)
    costs = _costs("stage_costs", stage_costs, np.size(stage_costs))
    if stage.max() >= costs.size:
        raise ValueError(
            f"stage_costs must have a cost for each stage up to {stage.max()}; got {costs.size}."
        )
    weight = check_weight(sample_weight, stage.size)
    return float(np.average(np.cumsum(costs)[stage], weights=weight))


def pass_rate(
    stage: ArrayLike, *, to_stage: int = 1, sample_weight: ArrayLike | None = None
) -> float:
    """Give the share of rows that reach a stage.

    Parameters
    ----------
    stage : array-like of shape (n_samples,)
        Index of the stage that answered each row, as ``route(X).stage``.
    to_stage : int, default=1
        The stage; of two stages 1 is the last.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights >= 0.

    Returns
    -------
    rate : float
        In [0, 1].

    Raises
    ------
    ValueError
        When `to_stage` is not an integer >= 0.

    Examples
    --------
    >>> from skmsc.metrics import pass_rate
    >>> pass_rate([0, 0, 0, 1])
    0.25
    """
    stage = check_stage(stage)
    check_integer("to_stage", to_stage, 0)
    return float(np.average(stage >= to_stage, weights=check_weight(sample_weight, stage.size)))


def retained_recall(
    caught: ArrayLike, kept: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Give the share of the positives that the last stage would catch and that are kept for it.

    Parameters
    ----------
    caught : array-like of shape (n_samples,)
        Mask of the positives that the last stage, run on all rows, would catch.
    kept : array-like of shape (n_samples,)
        Mask of the rows that no early stage answers as negative.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights >= 0.

    Returns
    -------
    recall : float
        In [0, 1]; nan, with a warning, when no positive is caught.

    Raises
    ------
    TypeError
        When an argument is not a mask.

    Examples
    --------
    >>> from skmsc.metrics import retained_recall
    >>> retained_recall([True, True, False, True], [True, False, True, True])
    0.6666666666666666
    """
    caught, kept = _mask("caught", caught), _mask("kept", kept)
    check_consistent_length(caught, kept)
    weight = check_weight(sample_weight, caught.size)
    total = weight @ caught
    if not total:
        warn("Retained recall is not defined where the last stage catches no positive: nan.")
        return float("nan")
    return float(weight @ (caught & kept) / total)


def recall_at_fpr(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    max_fpr: float = 0.01,
    pos_label: Label = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Give the highest recall of a cut whose false-positive rate is within a limit.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels of two classes.
    y_score : array-like of shape (n_samples,)
        Scores of the positive class, greater is more positive.
    max_fpr : float, default=0.01
        Highest share of the negatives in [0, 1] that may score at or above the cut.
    pos_label : label, default=None
        Positive class; None: 1, where the labels are 0 and 1 or -1 and 1.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights >= 0.

    Returns
    -------
    recall : float
        In [0, 1]. Rows that tie are above the cut together or not at all.

    Raises
    ------
    ValueError
        When `max_fpr` is not in [0, 1], or y_true has not exactly two classes.

    Examples
    --------
    >>> from skmsc.metrics import recall_at_fpr
    >>> recall_at_fpr([0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], max_fpr=0.2)
    0.6666666666666666
    """
    check_number("max_fpr", max_fpr, "[0, 1]")
    y_true = check_column(y_true, "y_true")
    positive = y_true == find_pos_label(np.unique(y_true), pos_label)
    weight = check_weight(sample_weight, y_true.size)
    for name, rows in (("positive", positive), ("negative", ~positive)):
        if not weight[rows].any():
            raise ValueError(f"y_true must hold a {name} row with a weight; it holds none.")
    fpr, tpr, _ = roc_curve(positive, y_score, sample_weight=weight, drop_intermediate=False)
    return float(tpr[fpr <= max_fpr * (1 + 1e-12)].max())  # rates of weights are rounded


def card_precision_at_k(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    card: ArrayLike,
    period: ArrayLike,
    k: int = 100,
    drop_found: bool = True,
    pos_label: Label = None,
    average: bool = True,
) -> float | Floats:
    """Give the share of compromised cards among the k of highest score, period by period.

    A team that can look at k cards a day looks at those of the highest scores. A card scores as its
    highest row of the period, and is compromised there when one of its rows is positive.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels of two classes.
    y_score : array-like of shape (n_samples,)
        Scores of the positive class, greater is more suspicious.
    card : array-like of shape (n_samples,)
        Whose row it is: card, customer, account.
    period : array-like of shape (n_samples,)
        Period of the row, such as its day, of a sortable type.
    k : int, default=100
        Cards that can be looked at in a period. Where there are fewer, places stay empty and count
        as not compromised.
    drop_found : bool, default=True
        Whether a compromised card that was found leaves the periods after, as a blocked card does.
    pos_label : label, default=None
        Positive class; None: 1, where the labels are 0 and 1 or -1 and 1.
    average : bool, default=True
        Whether to give the mean over periods, or all of them.

    Returns
    -------
    precision : float or ndarray of shape (n_periods,)
        In [0, 1], periods in sorted order.

    Raises
    ------
    ValueError
        When `k` is not a positive integer, or arrays differ in length.

    Notes
    -----
    Cards that tie at the k-th place share the places that are left: the result is the expectation
    over their order, and never depends on the order of rows. With `drop_found` a card that was
    found in part stays for the rest; this is the expectation as long as ties do not touch each
    other over periods. There is no `sample_weight`, because places are for whole cards.

    References
    ----------
    A. Dal Pozzolo et al., "Credit card fraud detection: a realistic modeling and a novel learning
    strategy", IEEE TNNLS 2018, DOI 10.1109/TNNLS.2017.2736643. Y.-A. Le Borgne et al.,
    "Reproducible Machine Learning for Credit Card Fraud Detection - Practical Handbook", 2022,
    chapter 4. There ties fall as the rows are ordered.

    Examples
    --------
    >>> from skmsc.metrics import card_precision_at_k
    >>> card_precision_at_k(
    ...     [1, 0, 0, 1, 0, 1],
    ...     [0.9, 0.2, 0.1, 0.8, 0.7, 0.6],
    ...     card=["a", "b", "b", "a", "b", "c"],
    ...     period=[1, 1, 1, 2, 2, 2],
    ...     k=1,
    ...     average=False,
    ... )
    array([1., 0.])
    """
    check_integer("k", k, 1)
    y_true, card, period = (
        check_column(part, name)
        for part, name in ((y_true, "y_true"), (card, "card"), (period, "period"))
    )
    y_score = column_or_1d(check_array(y_score, ensure_2d=False, input_name="y_score"))
    check_consistent_length(y_true, y_score, card, period)
    positive = y_true == find_pos_label(np.unique(y_true), pos_label)
    cards, card = np.unique(card, return_inverse=True)
    periods, period = np.unique(period, return_inverse=True)

    # One entry for each card in each period.
    pair, of_row = np.unique(period * cards.size + card, return_inverse=True)
    score = np.full(pair.size, -np.inf)
    np.maximum.at(score, of_row, y_score)
    compromised = np.bincount(of_row, positive) > 0
    period, card = np.divmod(pair, cards.size)

    in_play, precision = np.ones(cards.size), np.empty(periods.size)
    starts = np.searchsorted(period, np.arange(periods.size + 1))
    for j, rows in enumerate(map(slice, starts[:-1], starts[1:])):
        mine, mass = card[rows], in_play[card[rows]]
        looked_at = mass * _share_of_places(score[rows], mass, k)
        found = looked_at * compromised[rows]
        precision[j] = found.sum() / k
        if drop_found:
            in_play[mine] -= found
    return float(precision.mean()) if average else precision


def neg_pass_rate_scorer(
    estimator: Estimator,
    X: Rows,
    y: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Score by the share of rows that reach the last stage, negated.

    Parameters
    ----------
    estimator : estimator
        A fitted multi-stage classifier, or a pipeline, search or threshold wrapper around one.
    X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
        Rows.
    y : ignored
        Not used, present for the scorer's signature.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights >= 0.

    Returns
    -------
    score : float
        In [-1, 0].

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skmsc import FeedbackCascadeClassifier
    >>> from skmsc.metrics import neg_pass_rate_scorer
    >>> search = GridSearchCV(
    ...     FeedbackCascadeClassifier(),
    ...     {"feedback": ["none", "caught"]},
    ...     scoring={"ap": "average_precision", "pass": neg_pass_rate_scorer},
    ...     refit="ap",
    ... )
    """
    model, X = unwrap(estimator, X)
    stage = model.route(X).stage
    return -pass_rate(stage, to_stage=len(model.thresholds_) - 1, sample_weight=sample_weight)


def neg_mean_cost_scorer(
    estimator: Estimator,
    X: Rows,
    y: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Score by the mean cost of running the stages on a row, negated.

    Parameters
    ----------
    estimator : estimator
        A fitted multi-stage classifier, or a pipeline, search or threshold wrapper around one.
    X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
        Rows.
    y : ignored
        Not used, present for the scorer's signature.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights >= 0.

    Returns
    -------
    score : float
        In the negative units of ``stage_costs``.

    Raises
    ------
    ValueError
        When the costs of the stages are not known.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc import FeedbackCascadeClassifier
    >>> from skmsc.metrics import neg_mean_cost_scorer
    >>> X, y = make_classification(300, weights=[0.8], random_state=0)
    >>> model = FeedbackCascadeClassifier(thresholds=1.0, stage_costs=[1, 10], random_state=0)
    >>> neg_mean_cost_scorer(model.fit(X, y), X)
    -1.0
    """
    model, X = unwrap(estimator, X)
    routing = model.route(X)
    if routing.cost is None:
        raise ValueError("The costs of the stages are not known: set stage_costs.")
    ran = routing.stage + routing.failed  # the last stage that ran on each row
    return -mean_cost(ran, model.stage_costs_, sample_weight=sample_weight)


def retained_recall_scorer(
    estimator: Estimator, X: Rows, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> float:
    """Score by the share of the caught positives that reach the last stage.

    Parameters
    ----------
    estimator : estimator
        A fitted `FeedbackCascadeClassifier` of two classes, or a pipeline, search or threshold
        wrapper around one.
    X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,)
        Labels.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights >= 0.

    Returns
    -------
    score : float
        In [0, 1]; nan when the last stage catches no positive of these rows.

    Raises
    ------
    ValueError
        When there are no labels, or the classifier has no ``catch_threshold_``: only that of a
        `FeedbackCascadeClassifier` of two classes tells what is caught.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc import FeedbackCascadeClassifier
    >>> from skmsc.metrics import retained_recall_scorer
    >>> X, y = make_classification(300, weights=[0.8], random_state=0)
    >>> model = FeedbackCascadeClassifier(thresholds=0.0, random_state=0)
    >>> retained_recall_scorer(model.fit(X, y), X, y)
    1.0
    """
    model, X = unwrap(estimator, X)
    if y is None:
        raise ValueError("y must hold the labels of the rows; got None.")
    if getattr(model, "catch_threshold_", None) is None:
        raise ValueError(
            "Retained recall needs a catch_threshold_, which a FeedbackCascadeClassifier of two "
            f"classes has; this {type(model).__name__} has none."
        )
    recall = model.report(X, y, sample_weight=sample_weight).columns.get("retained_recall")
    return float("nan") if recall is None else recall[-1]


def _share_of_places(score, mass, k):
    """Share of each entry that is among the first k units of mass, the highest scores first.

    Entries that tie share what is left.
    """
    _, level = np.unique(-score, return_inverse=True)
    of_level = np.bincount(level, mass)
    before = np.cumsum(of_level) - of_level
    room = np.clip(k - before, 0.0, of_level)
    return np.divide(room, of_level, out=np.zeros_like(room), where=of_level > 0)[level]


def _costs(name, values, n):
    """Costs as an array of shape (n,); raises when one is not valid, or the shape is wrong."""
    valid = f"{name} must be a number from 0 to {MOST_COST:g} or an array of shape ({n},) of them"
    costs = as_numbers(values, f"{valid}; got {values!r}.")
    if costs.shape not in ((), (n,)):
        raise ValueError(f"{valid}; got an array of shape {costs.shape}.")
    wrong = ~((costs >= 0) & (costs <= MOST_COST))
    if wrong.any():
        raise ValueError(f"{valid}; got {costs[wrong][0]} among them.")
    return np.broadcast_to(costs, n)


def _mask(name, values):
    """A mask of shape (n_samples,)."""
    mask = check_column(values, name)
    if mask.dtype != bool:
        raise TypeError(f"{name} must be a mask, an array of bool; got {mask.dtype}.")
    return mask
