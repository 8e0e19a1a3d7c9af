"""Rows as a service has them, checked and made the arrays that graphs take. NumPy only."""

from collections.abc import Mapping

import numpy as np

from skmsc.serving._inputs import MATRIX, MISSING, is_missing


class Waiting:
    """Arrays by name, each with one row for every row that waits for an answer.

    Attributes
    ----------
    arrays : dict of str to ndarray
    """

    __slots__ = ("arrays",)

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return len(next(iter(self.arrays.values()), ()))

    def take_rows(self, rows):
        """Some of the rows, a slice or indices."""
        return Waiting({name: array[rows] for name, array in self.arrays.items()})


def column(name):
    """What a column that is an input of its own is called among the arrays that wait."""
    return f"column {name}"


class RowChecker:
    """Checks rows and makes them arrays.

    Parameters
    ----------
    n_features : int
        Number of columns.
    names : tuple of str, or None
        Names of the columns.
    columns : tuple of (str, str), or None
        Names and types, where each column is an input of its own; None: a matrix.
    allow_nan : bool
        Whether nan is a value like others.
    """

    def __init__(self, n_features, names, columns, allow_nan):
        self.n_features, self.names, self.columns = n_features, names, columns
        self.allow_nan = allow_nan

    def __call__(self, X):
        """`Waiting` rows of an array, a dataframe or a mapping of columns.

        Raises
        ------
        TypeError, ValueError
            When these are no rows of the classifier.
        """
        if type(X) is np.ndarray and self.columns is None:
            return Waiting({MATRIX: self._matrix(X)})
        if hasattr(X, "columns") or isinstance(X, Mapping):
            return self._of_columns(X)
        if hasattr(X, "tocsr"):
            raise TypeError("Exported classifiers take no sparse matrix: use X.toarray().")
        if self.columns is not None:
            raise TypeError(
                "X must be a dataframe or a mapping of columns, since the classifier was fitted on "
                f"columns of several types; got {type(X).__name__}."
            )
        try:
            X = np.asarray(X)
        except ValueError as error:  # ragged
            raise ValueError(f"X must be a table of numbers: {error}") from error
        return Waiting({MATRIX: self._matrix(X)})

    def _matrix(self, X):
        """A finite array of numbers, of shape (n_samples, n_features)."""
        if X.ndim != 2:
            raise ValueError(
                f"Expected 2D array of shape (n_samples, {self.n_features}), got {X.ndim}D array "
                "instead: reshape(1, -1) makes one row of a 1D array."
            )
        if len(X) == 0:
            raise ValueError(
                f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required."
            )
        if X.shape[1] != self.n_features:
            raise ValueError(
                f"X has {X.shape[1]} features, but the exported classifier is expecting "
                f"{self.n_features} features as input."
            )
        if X.dtype.kind not in "fiub":
            X = as_floats(X, "X")
        self._check_finite(X, "X")
        return X

    def _check_finite(self, values, name):
        """Raise for nan and infinity, or infinity only where nan is a value like others."""
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(values.sum()):
                return
        wrong = np.isinf(values) if self.allow_nan else ~np.isfinite(values)
        if wrong.any():
            kinds = "infinity" if self.allow_nan else "NaN or infinity"
            raise ValueError(f"Input {name} contains {kinds}.")

    def _of_columns(self, X):
        """Rows by columns: a dataframe, or a mapping of names to values or sequences."""
        found = list(X.columns) if hasattr(X, "columns") else list(X)
        if self.names is None:
            if hasattr(X, "columns"):
                return Waiting({MATRIX: self._matrix(as_floats(np.asarray(X), "X"))})
            raise TypeError(
                "X must be an array or a dataframe: the classifier knows no names of columns."
            )
        if hasattr(X, "columns") and found != list(self.names):
            raise ValueError(
                "The feature names should match those that were passed during fit, in their order: "
                f"expected {list(self.names)}, got {found}."
            )
        if set(found) != set(self.names):
            raise ValueError(f"X must have the columns {list(self.names)}; got {found}.")
        values = {name: np.atleast_1d(np.asarray(X[name])) for name in self.names}
        lengths = {len(one) for one in values.values()}
        if len(lengths) != 1 or any(one.ndim != 1 for one in values.values()):
            raise ValueError("Columns of X must be of one length, one value for each row.")
        if self.columns is None:
            floats = [as_floats(one, f"column {name!r}") for name, one in values.items()]
            return Waiting({MATRIX: self._matrix(np.column_stack(floats))})
        if lengths == {0}:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        return Waiting(self.of_types(values, self.columns))

    def of_types(self, values, columns):
        """Columns by name as inputs of graphs, each of shape (n_samples, 1) and its type."""
        arrays = {}
        for name, kind in columns:
            one = values[name]
            if kind == "float64":
                one = as_floats(one, f"column {name!r}")
                self._check_finite(one, f"column {name!r}")
            else:
                one = _as_kind(one, kind, name)
            arrays[column(name)] = one.reshape(-1, 1)
        return arrays


def as_floats(values, what):
    """Numbers as float64; strings, complex numbers and what else is no number is refused."""
    kind = values.dtype.kind
    if kind == "O" and not any(isinstance(value, (str, bytes)) for value in values.flat):
        try:
            return np.where(_is_na(values), np.nan, values).astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{what} must hold numbers: {error}") from error
    if kind not in "fiub":
        raise ValueError(f"{what} must hold numbers; got dtype {values.dtype}.")
    return np.ascontiguousarray(values, dtype=np.float64)


def _is_na(values):
    """Mask of pandas' NA among objects."""
    return np.frompyfunc(lambda value: type(value).__name__ == "NAType", 1, 1)(values).astype(bool)


def _as_kind(values, kind, name):
    """Values of a column as int64, bool or strings; raises where they would change."""
    if kind == "str":
        values = [MISSING if is_missing(value) else value for value in values.tolist()]
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"Column {name!r} must hold strings.")
        return np.array(values, dtype=object)
    floats = as_floats(values, f"Column {name!r}")
    valid, dtype = ("True or False", np.bool_) if kind == "bool" else ("integers", np.int64)
    try:
        with np.errstate(invalid="ignore"):
            made = values.astype(dtype)  # not of the floats, which large integers are not among
    except (OverflowError, TypeError, ValueError):  # of objects
        made = None
    if made is None or not np.array_equal(made, floats):
        raise ValueError(f"Column {name!r} must hold {valid}.")
    return made
