"""Features that cost something to get, fetched only for the rows that reach a stage.

Input: X of shape (n_rows, n_features). Output: the columns of X that remain, then those fetched.
"""

from __future__ import annotations

import copy
import sys
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skmsc._checks import is_number, no_half_fit
from skmsc._sklearn import _num_samples, take_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from skmsc._typing import Rows

__all__ = ["CostlyFeatures"]


def _library(X):
    """The module pandas or polars when X is a dataframe of theirs, else None."""
    for name in ("pandas", "polars"):
        module = sys.modules.get(name)  # whoever has no such module imported has no such dataframe
        if module is not None and isinstance(X, module.DataFrame):
            return module
    return None


def _columns(X, idx):
    """Columns of an array or dataframe by position: 1-D for an integer, 2-D for a list."""
    return X.iloc[:, idx] if hasattr(X, "iloc") else X[:, idx]


def _names(n_fetched):
    """Names of fetched columns that have none of their own."""
    return [f"fetched{j}" for j in range(n_fetched)]


def _schema(table):
    """Names and dtypes of a table's columns; a string's length is no part of its dtype."""
    if _library(table) is not None:
        return list(table.columns), list(table.dtypes)
    dtype = np.dtype(table.dtype.kind) if table.dtype.kind in "US" else table.dtype
    return _names(table.shape[1]), [dtype] * table.shape[1]


class CostlyFeatures(TransformerMixin, BaseEstimator):
    """Fetch features for the rows at hand, at the head of a later stage's pipeline.

    A cascade by the cost of features: the first stage decides most rows by the features that come
    for free, and only for those that pass is a bureau asked, a table joined or a text embedded.

    Parameters
    ----------
    fetch : callable
        ``fetch(keys)`` returns the features of exactly the rows given, in their order: array-like
        of shape (n_rows,) or (n_rows, n_fetched), or a dataframe (of the kind of X, when X is
        one). Rows count by position: a fetch by a join must keep the order. (An index is ignored,
        but one that holds the keys of a single column in another order is refused.)
        What a row gets must not depend on the other rows, and `keys` must not be changed. Clones
        share this object, so it may be the client of a service. A classifier that routes many
        rows some at a time calls it once each time.
    on : str, int or list of them, default=None
        Names or positions of the columns that `fetch` is given: one name or position as a 1-D
        array or Series, a list as two-dimensional. None: X as it is, of which all columns remain.
    cost : float, default=None
        Cost of fetching one row, finite and >= 0, in the units of the cascade's `stage_costs`.
        None: not known. It changes nothing in what is fetched.
    remainder : {"passthrough", "drop"}, default="passthrough"
        Whether the columns of X other than `on` stay in the output.

    Attributes
    ----------
    schema_ : ndarray of shape (0, n_fetched) or dataframe without rows
        The fetched columns of `fit`. What is fetched later must have their number, names and
        dtypes, or ValueError is raised.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X, when these are all strings.

    Notes
    -----
    The output is a dataframe when X is one of pandas or polars. Else it is an array, with dtype
    object where strings stand beside numbers, or the fetched table itself when no column of X
    remains. Fetched columns without names of their own (strings) are called ``fetched0``,
    ``fetched1``, ...; a name that a remaining column has raises ValueError.

    Each `fit`, `fit_transform` and `transform` calls `fetch` once, and not at all for zero rows.
    What it raises comes back as RuntimeError. A fetch that returns the dtype of its keys is refused
    when that changes between `fit` and `transform`.

    In a cascade, `fit` calls `fetch` once for the training rows, each of them at most once, and
    once for held-out rows. Each `predict`, `predict_proba`, `route` and `report(X)` fetches the
    rows that reach the stage; ``report(X, y)`` also the positives that do not (with survivors all
    positives); `stage_proba`, `staged_predict_proba`, and `tune_thresholds` by a policy that looks
    at the last stage, all rows; `measure_costs` all rows at every run. Two stages with one `fetch`
    ask for a row once each. A cascade's `memory` keeps fits, not fetches.

    References
    ----------
    Cascades by the cost of features are from P. Kraft, D. Kang, D. Narayanan, S. Palkar, P. Bailis
    and M. Zaharia, "Willump: A statistically-aware end-to-end optimizer for machine learning
    inference", MLSys 2020, arXiv:1906.01974. There the cheap features are selected automatically;
    here the user says which features are fetched late.

    Examples
    --------
    >>> import numpy as np
    >>> from skmsc.costly_features import CostlyFeatures
    >>> balances = {17: 120.5, 23: -5.0}
    >>> def fetch(customers):
    ...     return np.array([balances[customer] for customer in customers])
    >>> X = np.array([[17, 3.0], [23, 8.0], [17, 1.0]])
    >>> CostlyFeatures(fetch, on=0, cost=5.0).fit_transform(X)
    array([[  3. , 120.5],
           [  8. ,  -5. ],
           [  1. , 120.5]])
    """

    _stage = None  # name of the cascade's stage, for errors

    def __init__(
        self,
        fetch: Callable[..., Any],
        *,
        on: str | int | list[str] | list[int] | None = None,
        cost: float | None = None,
        remainder: Literal["passthrough", "drop"] = "passthrough",
    ) -> None:
        self.fetch = fetch
        self.on = on
        self.cost = cost
        self.remainder = remainder

    def fit(self, X: Rows, y: ArrayLike | None = None) -> Self:
        """Fetch the rows of X once, and keep what columns they get; y is ignored."""
        self._fit(X)
        return self

    def fit_transform(self, X: Rows, y: ArrayLike | None = None) -> Any:
        """Same as ``fit(X).transform(X)``, but each row is fetched once."""
        return self._join(*self._fit(X))

    def transform(self, X: Rows) -> Any:
        """Fetch exactly these rows.

        Parameters
        ----------
        X : array-like or dataframe of shape (n_rows, n_features)
            Rows; nan, strings and categories are welcome.

        Returns
        -------
        joined : ndarray or dataframe of shape (n_rows, n_remaining + n_fetched)
            The columns of X that remain, then the fetched ones.
        """
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        if _num_samples(X) == 0:
            return self._join(X, self.schema_)
        table = self._fetched(X)
        (names, dtypes), (fit_names, fit_dtypes) = _schema(table), _schema(self.schema_)
        if names != fit_names:
            raise self._error(
                f"fetch returned {len(names)} columns, in fit {len(fit_names)}: {names}, in fit "
                f"{fit_names}."
            )
        for name, dtype, expected in zip(names, dtypes, fit_dtypes, strict=True):
            if dtype != expected:
                raise self._error(
                    f"fetch returned column {name!r} with dtype {dtype}, in fit {expected}; let it "
                    "return fixed dtypes, whatever the rows."
                )
        return self._join(X, table)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Names of the output's columns; `input_features` names those of an X without names."""
        check_is_fitted(self)
        # Only scikit-learn's check of input_features is borrowed: as many names come out.
        names = OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        return np.array([*names[self._rest_idx], *_schema(self.schema_)[0]], dtype=object)

    def check(self, X: Rows = None) -> None:
        """Validate the parameters, `on` against the rows X if given; raises as `fit` does."""
        if not callable(self.fetch):
            raise self._error(f"fetch must be callable; got {self.fetch!r}.", TypeError)
        if self.cost is not None and not (is_number(self.cost) and 0 <= self.cost < np.inf):
            raise self._error(
                "cost must be a finite number >= 0, in the units of stage_costs, or None when it "
                f"is not known; got {self.cost!r}."
            )
        if self.remainder not in ("passthrough", "drop"):
            raise self._error(f"remainder must be 'passthrough' or 'drop'; got {self.remainder!r}.")
        if X is not None:
            unfitted = self._for_stage(self._stage)
            unfitted._validated(X, reset=True)
            unfitted._positions()

    def _fit(self, X):
        """Validate, fetch and learn; the validated X and the fetched table."""
        self.check()
        with no_half_fit(self, private=("_on_idx", "_rest_idx")):
            X = self._validated(X, reset=True)
            self._on_idx = self._positions()
            taken = [] if self._on_idx is None else self._on_idx
            n_kept = self.n_features_in_ if self.remainder == "passthrough" else 0
            self._rest_idx = np.setdiff1d(np.arange(n_kept), taken)
            table = self._fetched(X)
            self.schema_ = take_rows(table, np.arange(0))
            names = self.get_feature_names_out().tolist()
            clash = {name for name in _schema(table)[0] if names.count(name) > 1}
            if clash:
                raise self._error(
                    "names of fetched columns must be unique, and none that a remaining column of "
                    f"X has; got {sorted(clash)}."
                )
            return X, table

    def _validated(self, X, *, reset):
        """X as an array or dataframe, its columns learned or held against those learned."""
        if _library(X) is None:
            least = {"ensure_min_samples": int(reset), "ensure_all_finite": False}
            return validate_data(self, X, reset=reset, dtype=None, **least)
        validate_data(self, X, reset=reset, skip_check_array=True)
        if reset and 0 in X.shape:
            raise self._error(f"X must have a row and a column; got shape {X.shape}.")
        return X

    def _positions(self):
        """Positions of `on`: an integer for a scalar, a list for a list, None for None."""
        if self.on is None:
            return None
        n_features, names = self.n_features_in_, list(getattr(self, "feature_names_in_", []))
        items = self.on if isinstance(self.on, list) else [self.on]
        idx = [names.index(i) if isinstance(i, str) and names.count(i) == 1 else i for i in items]
        if not idx or not all(
            isinstance(j, Integral) and not isinstance(j, bool) and -n_features <= j < n_features
            for j in idx
        ):
            raise self._error(
                "on must be the name or position of one column of X, a list of them that is not "
                f"empty, or None; got {self.on!r}, and X has {n_features} columns, "
                f"{f'named {names}' if names else 'without names'}."
            )
        idx = [int(j) % n_features for j in idx]
        return idx if isinstance(self.on, list) else idx[0]

    def _fetched(self, X):
        """The fetched table of the rows of X, by one call of `fetch`."""
        n_rows = _num_samples(X)
        keys = X if self._on_idx is None else _columns(X, self._on_idx)
        try:
            fetched = self.fetch(keys)
        except Exception as error:
            text = f"fetch, asked for {n_rows} rows, raised {type(error).__name__}: {error}"
            raise self._error(text, RuntimeError) from error
        self._check_order(keys, fetched)
        table = self._as_table(fetched)
        if len(table) != n_rows:
            raise self._error(f"fetch returned {len(table)} rows, asked for {n_rows}.")
        return table

    def _check_order(self, keys, fetched):
        """Raise when the index of a pandas dataframe holds the keys, but in another order."""
        pandas = _library(fetched)
        if pandas is None or pandas.__name__ != "pandas" or not isinstance(self._on_idx, int):
            return
        index, wanted = fetched.index, pandas.Index(keys)
        if isinstance(index, pandas.RangeIndex) or index.equals(getattr(keys, "index", wanted)):
            return
        if index.equals(wanted) or index.nlevels > 1:
            return
        if index.sort_values().equals(wanted.sort_values()):
            raise self._error(
                "fetch returned the rows in another order than the keys: its index holds these, "
                "but rows count by position."
            )

    def _as_table(self, fetched):
        """What a fetch gave, as an array of shape (n_rows, n_fetched) or a dataframe with names."""
        if _library(fetched) is None and hasattr(fetched, "to_frame"):  # a Series keeps its dtype
            fetched = fetched.to_frame(name="fetched0")
        if _library(fetched) is not None:
            if all(isinstance(name, str) for name in fetched.columns):
                return fetched
            return fetched.set_axis(_names(fetched.shape[1]), axis=1)
        valid = "an array of shape (n_rows,) or (n_rows, n_fetched) or a dataframe"
        try:
            table = np.asarray(fetched)
        except ValueError:
            text = f"fetch must return {valid}; got rows of different lengths."
            raise self._error(text) from None
        if table.ndim not in (1, 2):
            text = f"fetch must return {valid}; got {type(fetched).__name__}, shape {table.shape}."
            raise self._error(text, TypeError)
        if table.dtype.kind in "US" and not hasattr(fetched, "dtype"):
            table = np.asarray(fetched, dtype=object)  # a list: numbers beside strings stay numbers
        return table[:, None] if table.ndim == 1 else table

    def _join(self, X, table):
        """The remaining columns of X beside a fetched table."""
        library, rest = _library(X), _columns(X, self._rest_idx)
        if library is None:
            if not self._rest_idx.size:
                return table
            parts = [rest, np.asarray(table)]
            kinds = {part.dtype.kind for part in parts}
            # NumPy would turn numbers beside strings into strings.
            dtype = None if len(kinds) == 1 or kinds <= set("biuf") else object
            return np.concatenate(parts, axis=1, dtype=dtype)
        if _library(table) not in (None, library):
            kinds = [module.__name__ for module in (_library(table), library)]
            raise self._error("fetch returned a {} dataframe for rows in one of {}.".format(*kinds))
        if library.__name__ == "pandas":
            # Objects stay objects: pandas would take them for strings in one batch, not in another.
            kept = object if isinstance(table, np.ndarray) and table.dtype == object else None
            table = library.DataFrame(table, dtype=kept).set_axis(X.index, axis=0)
            joined = library.concat([rest, table], axis=1) if self._rest_idx.size else table
        else:
            table = library.DataFrame(table, schema=_schema(table)[0], orient="row")
            joined = rest.hstack(table) if self._rest_idx.size else table
        joined.columns = self.get_feature_names_out().tolist()
        return joined

    def _error(self, text, kind=ValueError):
        """An error whose message names the stage that raises it."""
        who = "CostlyFeatures" if self._stage is None else f"Stage {self._stage!r}"
        return kind(f"{who}: {text}")

    def _for_stage(self, name):
        """A clone whose errors name the stage."""
        named = self.__sklearn_clone__()
        named._stage = name
        return named

    def __sklearn_clone__(self):
        # A service client holds sockets and locks: it is shared rather than copied.
        bare = copy.copy(self)
        bare.fetch = None
        cloned = super(CostlyFeatures, bare).__sklearn_clone__()
        cloned.fetch, cloned._stage = self.fetch, self._stage
        return cloned

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = []  # the dtype is the fetch's affair
        return tags
