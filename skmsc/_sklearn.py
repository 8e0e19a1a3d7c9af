"""The private names of scikit-learn that skmsc uses, and nothing else.

Everything that may move between scikit-learn releases is imported here, so that supporting a new
release means reading one file.
"""

from typing import TypeVar

import numpy as np
from scipy.sparse import issparse
from sklearn.metrics._scorer import _MultimetricScorer, _PassthroughScorer, _Scorer
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._validation import _score, _warn_or_raise_about_fit_failures
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import _raise_for_params, _routing_enabled
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import (
    _check_feature_names,
    _check_method_params,
    _check_n_features,
    _check_sample_weight,
    _num_samples,
)

try:  # scikit-learn >= 1.7
    from sklearn.utils._repr_html.estimator import _VisualBlock
except ImportError:
    from sklearn.utils._estimator_html_repr import _VisualBlock

try:  # scikit-learn >= 1.9
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """No callbacks before scikit-learn 1.9."""

    def _with_callbacks(method):
        return method


_Method = TypeVar("_Method")


def with_callbacks(method: _Method) -> _Method:
    """The `fit` of an estimator that supports callbacks; before scikit-learn 1.9 as it is."""
    return _with_callbacks(method)


__all__ = [
    "BaseSearchCV",
    "CallbackSupportMixin",
    "Interval",
    "StrOptions",
    "_BaseComposition",
    "_MultimetricScorer",
    "_PassthroughScorer",
    "_Scorer",
    "_VisualBlock",
    "_check_feature_names",
    "_check_method_params",
    "_check_n_features",
    "_check_partial_fit_first_call",
    "_check_sample_weight",
    "_num_samples",
    "_raise_for_params",
    "_routing_enabled",
    "_score",
    "_warn_or_raise_about_fit_failures",
    "is_dataframe",
    "own_request",
    "take_rows",
    "with_callbacks",
]


def is_dataframe(X):
    """Whether X is a dataframe (pandas, polars, ...) rather than an array or a sparse matrix."""
    # Its type tells: a record array may have such a field, and a LazyFrame warns when it is asked.
    return hasattr(type(X), "columns") and not issparse(X)


def take_rows(X, idx):
    """Rows `idx`, integers or a slice, of an array, sparse matrix, dataframe or list.

    None stays None; an object with a method `take_rows` knows itself how.
    """
    if isinstance(X, np.ndarray):
        return X[idx]
    if X is None:
        return None
    if hasattr(type(X), "take_rows"):
        return X.take_rows(idx)
    return _safe_indexing(X, idx)


def own_request(routing):
    """What an estimator asks for itself, of its metadata request or router."""
    return getattr(routing, "_self_request", routing)
