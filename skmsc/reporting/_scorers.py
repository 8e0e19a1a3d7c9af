"""Scorers for searches: callables ``(estimator, X, y) -> float``, greater is better."""

import numpy as np

from skmsc.reporting._unwrap import unwrap


def neg_pass_rate_scorer(estimator, X, y=None):
    """Score by the share of rows that reach the last stage, negated.

    Parameters
    ----------
    estimator : estimator
        A fitted multi-stage classifier, or a pipeline, search or threshold wrapper around one.
    X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
        Rows.
    y : ignored
        Not used, present for the scorer's signature.

    Returns
    -------
    score : float
        In [-1, 0].

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skmsc import FeedbackCascadeClassifier
    >>> from skmsc.reporting import neg_pass_rate_scorer
    >>> search = GridSearchCV(
    ...     FeedbackCascadeClassifier(),
    ...     {"feedback": ["none", "caught"]},
    ...     scoring={"ap": "average_precision", "pass": neg_pass_rate_scorer},
    ...     refit="ap",
    ... )
    """
    model, X = unwrap(estimator, X)
    return -float(np.mean(model.route(X).stage == len(model.thresholds_) - 1))


def neg_mean_cost_scorer(estimator, X, y=None):
    """Score by the mean cost of a row, negated.

    Parameters
    ----------
    estimator : estimator
        A fitted multi-stage classifier, or a pipeline, search or threshold wrapper around one.
    X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
        Rows.
    y : ignored
        Not used, present for the scorer's signature.

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
    >>> from skmsc.reporting import neg_mean_cost_scorer
    >>> X, y = make_classification(300, weights=[0.8], random_state=0)
    >>> model = FeedbackCascadeClassifier(thresholds=1.0, stage_costs=[1, 10], random_state=0)
    >>> neg_mean_cost_scorer(model.fit(X, y), X)
    -1.0
    """
    model, X = unwrap(estimator, X)
    routing = model.route(X)
    if routing.cost is None:
        raise ValueError("The costs of the stages are not known: set stage_costs.")
    return -float(routing.cost.mean())


def retained_recall_scorer(estimator, X, y):
    """Score by the share of the caught positives that reach the last stage.

    Parameters
    ----------
    estimator : estimator
        A fitted multi-stage classifier with a positive class, or a pipeline, search or threshold
        wrapper around one.
    X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,)
        Labels.

    Returns
    -------
    score : float
        In [0, 1]; nan when the last stage catches no positive of these rows.

    Raises
    ------
    ValueError
        When the classifier has no positive class.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc import FeedbackCascadeClassifier
    >>> from skmsc.reporting import retained_recall_scorer
    >>> X, y = make_classification(300, weights=[0.8], random_state=0)
    >>> model = FeedbackCascadeClassifier(thresholds=0.0, random_state=0)
    >>> retained_recall_scorer(model.fit(X, y), X, y)
    1.0
    """
    model, X = unwrap(estimator, X)
    if getattr(model, "catch_threshold_", None) is None:
        raise ValueError("Retained recall needs a classifier with a positive class.")
    recall = model.report(X, y).columns.get("retained_recall")
    return float("nan") if recall is None else recall[-1]
