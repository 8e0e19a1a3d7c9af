"""Reach a multi-stage classifier through pipelines, searches and threshold wrappers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skmsc._typing import Estimator, Rows
    from skmsc.reporting import MonitorReport, StageReport
    from skmsc.routing import Routing


def unwrap(estimator, X):
    """Give the multi-stage classifier inside an estimator, and X as it arrives there.

    Earlier steps of a pipeline are applied once. Understood are pipelines, fitted searches
    (``best_estimator_``) and wrappers of one fitted estimator (``estimator_``), such as
    `FixedThresholdClassifier`.

    Raises
    ------
    TypeError
        When there is no multi-stage classifier inside.
    """
    model, before = find_inside(estimator)
    for steps in before:
        X = steps.transform(X)
    return model, X


def find_inside(estimator):
    """Give the multi-stage classifier inside an estimator, and the pipelines that rows pass first.

    Raises
    ------
    TypeError
        When there is no multi-stage classifier inside.
    """
    given, before = estimator, []
    while not hasattr(estimator, "stage_proba"):
        if isinstance(estimator, Pipeline):
            if len(estimator.steps) > 1:
                before.append(estimator[:-1])
            estimator = estimator.steps[-1][1]
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "estimator_"):
            estimator = estimator.estimator_
        else:
            raise TypeError(
                f"There is no fitted multi-stage classifier in the {type(given).__name__} given."
            )
    return estimator, before


def route(estimator: Estimator, X: Rows) -> Routing:
    """Tell which stage of the classifier inside an estimator answers each row.

    Parameters
    ----------
    estimator : estimator
        A fitted multi-stage classifier, or a pipeline, search or threshold wrapper around one.
    X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
        Rows as the estimator takes them.

    Returns
    -------
    routing : skmsc.routing.Routing

    Raises
    ------
    TypeError
        When there is no multi-stage classifier inside.

    Examples
    --------
    >>> import skmsc
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = make_classification(300, weights=[0.8], random_state=0)
    >>> model = make_pipeline(
    ...     StandardScaler(),
    ...     skmsc.FeedbackCascadeClassifier(thresholds=skmsc.PassBudget(0.3), random_state=0),
    ... ).fit(X, y)
    >>> skmsc.route(model, X[:5]).stage.shape
    (5,)
    """
    model, X = unwrap(estimator, X)
    return model.route(X)


def report(
    estimator: Estimator,
    X: Rows,
    y: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    measure_time: bool = False,
) -> StageReport:
    """Report what each stage of the classifier inside an estimator does.

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
    measure_time : bool, default=False
        Whether to tell how long each stage took for the rows that reached it.

    Returns
    -------
    report : skmsc.reporting.StageReport

    Raises
    ------
    TypeError
        When there is no multi-stage classifier inside.

    Examples
    --------
    >>> import skmsc
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(300, weights=[0.8], random_state=0)
    >>> model = skmsc.FeedbackCascadeClassifier(thresholds=skmsc.PassBudget(0.3), random_state=0)
    >>> skmsc.report(model.fit(X, y), X).columns["stage"]
    ('screen', 'final')
    """
    model, X = unwrap(estimator, X)
    return model.report(X, y, sample_weight=sample_weight, measure_time=measure_time)


def monitor(
    estimator: Estimator,
    X: Rows,
    y: ArrayLike | None = None,
    *,
    reference: Rows = None,
    label_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> MonitorReport:
    """Compare new rows with earlier ones, such as those that the thresholds were set on.

    Parameters
    ----------
    estimator : estimator
        A fitted multi-stage classifier, or a pipeline, search or threshold wrapper around one.
    X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
        New rows as the estimator takes them.
    y : array-like of shape (n_samples,), default=None
        Labels, of any value where they are not known.
    reference : {array-like, sparse matrix, dataframe} of shape (n_reference, n_features), \
default=None
        Rows to compare with, as the estimator takes them. None: those that the thresholds were set
        on.
    label_weight : array-like of shape (n_samples,), default=None
        How many rows each label stands for: 0 where it is not known, 1 where it surely is, one over
        the chance for rows that were drawn to be labelled. None: every row has a label.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights.

    Returns
    -------
    report : skmsc.reporting.MonitorReport

    Raises
    ------
    TypeError
        When there is no multi-stage classifier inside.
    ValueError
        When there is nothing to compare with.

    Examples
    --------
    >>> import skmsc
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(900, weights=[0.8], random_state=0)
    >>> model = skmsc.FeedbackCascadeClassifier(thresholds=skmsc.PassBudget(0.3), random_state=0)
    >>> skmsc.monitor(model.fit(X[:600], y[:600]), X[600:]).columns["verdict"][0]
    'steady'
    """
    model, X = unwrap(estimator, X)
    if reference is not None:
        reference = unwrap(estimator, reference)[1]
    return model.monitor(
        X, y, reference=reference, label_weight=label_weight, sample_weight=sample_weight
    )
