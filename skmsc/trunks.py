"""Trunks: what is frozen below the heads, as a function from rows to features."""

import sys
from dataclasses import dataclass

import joblib
import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    check_array,
    check_is_fitted,
    has_fit_parameter,
    validate_data,
)

from skmsc.costs import count_multiply_adds
from skmsc.stages import (
    fit_stage,
    is_skorch_net,
    set_seeds,
    stage_input_tags,
    thawed,
)

__all__ = []  # for the package's own use

_VALID = (
    "a TabularNet, a skorch net, a torch module, a transformer, a pipeline that ends in one of "
    "these, a FrozenEstimator of one, 'passthrough' or None"
)


class RandomReLU(TransformerMixin, BaseEstimator):
    """Random ReLU features ``max(0, r.z + b)`` of the standardised columns z.

    The directions r are normal with variance one over the number of columns, the biases b normal
    with variance 1/4.

    Parameters
    ----------
    n_components : int, default=1000
        Number of features.
    random_state : int, RandomState instance or None, default=None
        Seed of directions and biases.
    """

    def __init__(self, n_components=1000, random_state=None):
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X, y=None, sample_weight=None):
        """Standardise, and draw directions and biases."""
        X = validate_data(self, X, dtype=np.float64)
        scaler = StandardScaler().fit(X, sample_weight=sample_weight)
        rng = check_random_state(self.random_state)
        directions = rng.normal(size=(X.shape[1], self.n_components)) / np.sqrt(X.shape[1])
        self.directions_ = directions / scaler.scale_[:, None]
        biases = rng.normal(scale=0.5, size=self.n_components)
        self.biases_ = biases - scaler.mean_ @ self.directions_
        return self

    def transform(self, X):
        """The features, shape (n_samples, n_components)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        hidden = X @ self.directions_
        hidden += self.biases_
        return np.maximum(hidden, 0.0, out=hidden)


@dataclass(frozen=True)
class Trunk:
    """A fitted trunk.

    Attributes
    ----------
    estimator : object
        A fitted estimator, a torch module, or "passthrough".
    lift : RandomReLU or None
        Random features of the features, which take their place.
    """

    estimator: object
    lift: RandomReLU | None = None

    def __call__(self, X):
        """Features of rows, float64 of shape (n_samples, n_features_out), all of them finite."""
        Z = _features(self.estimator, X)
        if issparse(Z):
            Z = Z.toarray()
        Z = np.asarray(Z, dtype=np.float64)
        if Z.ndim != 2 or not Z.shape[1]:
            got = f"an array of shape {Z.shape}"
        elif not np.isfinite(np.einsum("ij,ij->", Z, Z)):
            got = "values that are nan or infinite, or have no finite square"
        else:
            got = None
        if got is not None:
            raise ValueError(f"The trunk must give a matrix of finite features; it gave {got}.")
        return Z if self.lift is None else self.lift.transform(Z)

    def count_multiply_adds(self):
        """Multiply-adds of one row; None where they cannot be counted."""
        if isinstance(self.estimator, str):
            own = 0
        elif _is_module(self.estimator):
            return None
        else:
            own = count_multiply_adds(self.estimator)
        if own is None or self.lift is None:
            return own
        return own + self.lift.directions_.size


def check_trunk(trunk):
    """Raise unless this can be a trunk."""
    if isinstance(trunk, str):
        if trunk != "passthrough":
            raise ValueError(f"trunk must be {_VALID}; got {trunk!r}.")
        return
    last = _last(trunk)
    valid = trunk is None or (
        not isinstance(trunk, type)
        and (
            _is_module(last)
            or is_skorch_net(last)
            or (hasattr(last, "fit") and (hasattr(last, "features") or hasattr(last, "transform")))
        )
    )
    if not valid:
        raise TypeError(f"trunk must be {_VALID}; got {trunk!r}.")
    if isinstance(trunk, FrozenEstimator) and not _is_module(trunk.estimator):
        inner = trunk.estimator
        try:
            if is_skorch_net(inner):
                if not getattr(inner, "initialized_", False):
                    raise NotFittedError
            else:
                check_is_fitted(inner)
        except NotFittedError:
            raise NotFittedError(
                f"trunk is a FrozenEstimator and must be fitted; got {trunk!r}."
            ) from None


def check_frozen_trunk(trunk, n_features):
    """Raise unless a frozen trunk takes rows of so many features."""
    if not isinstance(trunk, FrozenEstimator):
        return
    expected = getattr(trunk.estimator, "n_features_in_", n_features)
    if expected != n_features:
        raise ValueError(f"trunk is frozen and expects {expected} features; X has {n_features}.")


def fit_trunk(trunk, X, y, sample_weight, seed, params):
    """The estimator of a `Trunk`, fitted on rows where it is not frozen.

    See `skmsc.stages.fit_stage` for the arguments.
    """
    if isinstance(trunk, str):
        return trunk
    if trunk is None:
        trunk = _default_trunk()
    if isinstance(trunk, FrozenEstimator):
        return trunk.estimator
    if _is_module(trunk):
        return clone(trunk, safe=False).eval()
    if _is_learned(trunk):
        return fit_stage(
            trunk,
            X,
            y,
            weight=sample_weight,
            sample_weight=sample_weight,
            seed=seed,
            params=params,
        )
    trunk = clone(trunk)
    set_seeds(trunk, np.random.RandomState(seed))
    if sample_weight is not None and (sample_weight != 1).any():
        params = {**params, **_weight_params(trunk, sample_weight)}
    return trunk.fit(X, y, **params)


def _weight_params(trunk, sample_weight):
    """Fit parameters that hand the weights to those transformers that take them."""
    if isinstance(trunk, Pipeline):
        return {
            f"{name}__{key}": value
            for name, step in trunk.steps
            if not isinstance(step, str) and step is not None
            for key, value in _weight_params(step, sample_weight).items()
        }
    return {"sample_weight": sample_weight} if has_fit_parameter(trunk, "sample_weight") else {}


def below_fixed_rows(trunk, kind, n_rows):
    """A trunk that will be trained below fixed rows, where it is one that can be."""
    trunk = _default_trunk() if trunk is None else trunk
    frozen = isinstance(trunk, (str, FrozenEstimator)) or _is_module(trunk)
    if frozen or not hasattr(_last(trunk), "head_rows"):
        return trunk
    trunk = clone(trunk)
    if _last(trunk).head == "linear":
        _last(trunk).set_params(head=kind, head_rows=n_rows)
    return trunk


def rows_above(trunk):
    """The fixed rows that a fitted trunk was trained below, or None."""
    net = getattr(_last(trunk), "net_", None)
    rows = getattr(getattr(getattr(net, "module_", None), "head", None), "rows", None)
    return None if rows is None else rows.double().cpu().numpy()


def trunk_input_tags(trunk):
    """What a trunk accepts: (sparse, allow_nan)."""
    trunk = _default_trunk() if trunk is None else thawed(trunk)
    if isinstance(trunk, str) or _is_module(trunk):
        return isinstance(trunk, str), False
    sparse, allow_nan = stage_input_tags([trunk])
    return sparse, allow_nan and (_is_learned(trunk) or _fills_gaps(trunk))


def _fills_gaps(trunk):
    """Whether a transformer that accepts nan may give features without."""
    trunk = thawed(trunk)
    if isinstance(trunk, Pipeline):
        return any(_fills_gaps(step) for _, step in trunk.steps)
    return isinstance(trunk, (ColumnTransformer, FeatureUnion)) or "Imputer" in type(trunk).__name__


def same_features(one, other, n_features, names=None):
    """Whether two trunks are the same, or give the same features of rows made up."""
    if one.estimator is other.estimator and one.lift is other.lift:
        return True
    if joblib.hash((one.estimator, one.lift)) == joblib.hash((other.estimator, other.lift)):
        return True
    X = np.random.default_rng(0).normal(size=(16, n_features)).astype(np.float32)
    if names is not None:
        import pandas as pd

        X = pd.DataFrame(X, columns=names)
    try:
        mine, others = one(X), other(X)
    except (ValueError, TypeError):  # not trunks of numbers
        return False
    return mine.shape == others.shape and np.allclose(mine, others, rtol=1e-6, atol=1e-9)


def _default_trunk():
    """The trunk where none is named."""
    from skmsc.neural import TabularNet

    return TabularNet()


def _last(trunk):
    """What the features come from: the last step of pipelines, what is frozen."""
    trunk = thawed(trunk)
    while isinstance(trunk, Pipeline):
        trunk = thawed(trunk.steps[-1][1])
    return trunk


def _is_learned(trunk):
    """Whether a trunk is a classifier below its last layer."""
    last = _last(trunk)
    return is_skorch_net(last) or hasattr(last, "features")


def _is_module(trunk):
    """Whether this is a torch module, told without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(trunk, torch.nn.Module)


def _features(trunk, X):
    """Features of rows, as the fitted estimator gives them."""
    trunk = thawed(trunk)
    if isinstance(trunk, str):
        return check_array(X, accept_sparse="csr", dtype=np.float64)
    if isinstance(trunk, Pipeline) and not hasattr(trunk, "transform"):
        for _, step in trunk.steps[:-1]:
            if step is not None and not isinstance(step, str):
                X = step.transform(X)
        return _features(trunk.steps[-1][1], X)
    if _is_module(trunk):
        from skmsc.neural._net_features import module_features

        return module_features(trunk, X)
    if is_skorch_net(trunk) or is_skorch_net(getattr(trunk, "net", None)):
        from skmsc.neural._net_features import net_features

        return net_features(trunk if is_skorch_net(trunk) else trunk.net_, X)
    if hasattr(trunk, "features"):
        return trunk.features(X)
    return trunk.transform(X)
