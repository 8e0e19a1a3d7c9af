"""FinalCutClassifier: another cut than 1/2 for the rows that the last stage decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted

from skmsc._base import MultiStageClassifier
from skmsc._checks import is_number
from skmsc._sklearn import _routing_enabled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from skmsc._typing import Estimator, Floats, Rows


class FinalCutClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Cut the last stage's score of a two-class multi-stage classifier where you like.

    `predict` says positive where the last stage decides and its score reaches `final_cut`; where an
    early stage answers, its answer stands. Nothing else changes.

    Parameters
    ----------
    estimator : FeedbackCascadeClassifier, EarlyExitClassifier or ComposableHeadClassifier
        The classifier, of two classes.
    final_cut : float, default=None
        Raw score of the positive class by the last stage from which a row is positive, on the
        scale of ``catch_threshold_``. Raw, since calibrations depend on the thresholds. None: the
        classifier's own `predict`.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier.
    classes_ : ndarray of shape (2,)
        Labels, sorted.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, when X was a dataframe with string column names.

    Raises
    ------
    ValueError, TypeError
        From `fit`, when an argument is not valid or there are more than two classes.

    See Also
    --------
    ThresholdSearchCV : Finds thresholds and final cut together.
    sklearn.model_selection.FixedThresholdClassifier : Cuts `predict_proba` of all rows alike. With
        a cut below 1/2 it may call rows positive that an early stage has dismissed.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmsc import FeedbackCascadeClassifier, PassBudget
    >>> from skmsc.model_selection import FinalCutClassifier
    >>> X, y = make_classification(500, weights=[0.9], random_state=0)
    >>> cascade = FeedbackCascadeClassifier(
    ...     [("screen", GaussianNB()), ("final", LogisticRegression())],
    ...     thresholds=PassBudget(0.3),
    ... )
    >>> eager = FinalCutClassifier(cascade, final_cut=0.1).fit(X, y)
    >>> bool(eager.predict(X).sum() > eager.estimator_.predict(X).sum())
    True
    """

    def __init__(self, estimator: Estimator, final_cut: float | None = None) -> None:
        self.estimator = estimator
        self.final_cut = final_cut

    def fit(self, X: Rows, y: ArrayLike, **fit_params: Any) -> Self:
        """Fit the classifier.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,)
            Labels.
        **fit_params : dict
            What the classifier's `fit` takes, such as `sample_weight`.

        Returns
        -------
        self : FinalCutClassifier
        """
        if not isinstance(self.estimator, MultiStageClassifier):
            raise TypeError(
                f"estimator must be a multi-stage classifier of skmsc; got {self.estimator!r}."
            )
        cut = self.final_cut
        if cut is not None and (not is_number(cut) or np.isnan(cut)):
            raise ValueError(f"final_cut must be a number or None; got {cut!r}.")
        if _routing_enabled():
            fit_params = process_routing(self, "fit", **fit_params).estimator.fit
        estimator = clone(self.estimator).fit(X, y, **fit_params)
        check_two_classes(estimator)
        self.estimator_ = estimator
        if hasattr(estimator, "feature_names_in_"):
            self.feature_names_in_ = estimator.feature_names_in_
        return self

    @property
    def classes_(self) -> NDArray[Any]:
        """Labels, sorted."""
        return self.estimator_.classes_

    @property
    def n_features_in_(self) -> int:
        """Number of features seen in fit."""
        return self.estimator_.n_features_in_

    def predict(self, X: Rows) -> NDArray[Any]:
        """Predict the class of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Class of the stage that answers the row; of the last stage by `final_cut`.
        """
        check_is_fitted(self)
        model = self.estimator_
        if self.final_cut is None:
            return model.predict(X)
        last, positive = len(model.thresholds_) - 1, model._positive

        def answer(k, scores):
            return model._answer(k, scores) if k < last else scores

        def decide(routing):
            codes = routing.proba.argmax(axis=1)
            decided = routing.stage == last
            is_positive = routing.proba[decided, positive] >= self.final_cut
            codes[decided] = np.where(is_positive, positive, 1 - positive)
            return self.classes_[codes]

        return model._told(model._check_rows(X), decide, answer=answer)

    def predict_proba(self, X: Rows) -> Floats:
        """Give the classifier's probabilities, which know of no cut.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, 2)
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def get_metadata_routing(self) -> MetadataRouter:
        """Get the metadata routing: all goes to the classifier.

        Returns
        -------
        routing : sklearn.utils.metadata_routing.MetadataRouter
        """
        return MetadataRouter(owner=type(self).__name__).add(
            estimator=self.estimator,
            method_mapping=MethodMapping().add(caller="fit", callee="fit"),
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        tags.classifier_tags.multi_class = False
        return tags


def check_two_classes(model):
    """Raise unless a fitted classifier has two classes, of which one is positive."""
    if len(model.classes_) != 2 or model._positive is None:
        raise ValueError(
            "Only binary classification is supported. A final cut needs two classes; y has "
            f"{len(model.classes_)}."
        )
