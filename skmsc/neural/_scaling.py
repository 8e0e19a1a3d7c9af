"""Centre and scale of every column, from weighted rows, whatever a few of them hold."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

# Bulk of a column: what lies between these quantiles, and up to so many of its widths beyond.
_BULK = (0.05, 0.95)
_BEYOND = 5.0
_QUANTILE_ROWS = (1_000, 10_000)  # looked at for quantiles: the more, the fewer columns there are
_MAX_BLOCK = 4_000_000  # values that are looked at in one piece


@dataclass(frozen=True, repr=False)
class Scaling:
    """What a module needs to standardise its input.

    Attributes
    ----------
    centre, scale : ndarray of shape (n_features,), float64
        Weighted mean and standard deviation of each column, of values that are clipped to the
        column's bulk; the scale of a constant column is 1.
    missing : ndarray of shape (n_features,), bool
        Columns that have missing values, where those are allowed.
    """

    centre: np.ndarray
    scale: np.ndarray
    missing: np.ndarray

    def __repr__(self):
        return f"Scaling({self.centre.size} features)"

    @classmethod
    def of(cls, X, weight=None, idx=None):
        """Scaling of rows of X.

        The mean and the standard deviation of a column with one value of 1e12 say nothing of the
        others. So values are clipped first, at 5 widths beyond the 5 % and 95 % quantiles, which
        only values far out notice. Where nine rows in ten are the same, the quantiles of the others
        count.

        Parameters
        ----------
        X : ndarray or sparse matrix of shape (n_samples, n_features)
            May hold nan.
        weight : ndarray of shape (n_samples,) or None
            Weights > 0 of the rows.
        idx : ndarray of shape (n_rows,) or None
            Rows that count; None: all.
        """
        n_samples, n_features = X.shape
        rows = np.arange(n_samples) if idx is None else np.sort(idx)
        weight = None if weight is None else weight[rows].astype(np.float64)
        n_few = min(len(rows), max(_QUANTILE_ROWS[0], min(_QUANTILE_ROWS[1], 10**7 // n_features)))
        few = np.linspace(0, len(rows) - 1, n_few).astype(np.intp)
        columns = X.tocsc() if sparse.issparse(X) else X
        centre, scale = np.zeros(n_features), np.ones(n_features)
        missing = np.zeros(n_features, dtype=bool)
        width = max(1, _MAX_BLOCK // max(len(rows), 1))
        for start in range(0, n_features, width):
            block = columns[:, start : start + width]
            block = block.toarray(order="F") if sparse.issparse(block) else block
            for j in range(block.shape[1]):
                values = (block[:, j] if idx is None else block[rows, j]).astype(np.float64)
                k = start + j
                centre[k], scale[k], missing[k] = _moments(values, weight, few)
        return cls(centre, scale, missing)


def _moments(values, weight, few):
    """Centre and scale of a column, and whether a value is missing.

    Parameters
    ----------
    values : ndarray of shape (n_rows,), float64
        May be overwritten.
    weight : ndarray of shape (n_rows,) or None
        Weights > 0.
    few : ndarray of int
        Rows whose quantiles count.
    """
    present = ~np.isnan(values)
    missing = not present.all()
    if missing:
        few = few[present[few]]
    low, high = _bulk(values[few], np.ones(len(few)) if weight is None else weight[few])
    if missing:
        values = values[present]
        weight = None if weight is None else weight[present]
    if not values.size:
        return 0.0, 1.0, missing
    if low < high:
        with np.errstate(over="ignore"):
            reach = _BEYOND * (high - low)
            np.clip(values, low - reach, high + reach, out=values)
    # In units of the largest value, whose square does not overflow.
    unit = max(values.max(), -values.min()) or 1.0
    values /= unit
    centre = np.average(values, weights=weight)
    values -= centre
    values *= values
    scale = np.sqrt(np.average(values, weights=weight))
    if scale <= 10 * np.finfo(np.float64).eps or scale * unit < 1e-300:
        return centre * unit, 1.0, missing  # it does not vary
    return centre * unit, scale * unit, missing


def _bulk(values, weight):
    """Quantiles between which a column's bulk lies, as if a row of weight 2 were there twice."""
    if not len(values):
        return 0.0, 0.0  # nothing to go by
    order = np.argsort(values, kind="stable")
    values, weight = values[order], weight[order]
    low, middle, high = _quantiles(values, weight, (_BULK[0], 0.5, _BULK[1]))
    if low == high:
        other = values != middle
        if other.any():
            low, high = _quantiles(values[other], weight[other], _BULK)
            low, high = min(low, middle), max(high, middle)
    return low, high


def _quantiles(values, weight, levels):
    """Smallest of the sorted values whose cumulative weight reaches each level."""
    cumulative = np.cumsum(weight)
    at = np.searchsorted(cumulative, np.array(levels) * cumulative[-1] * (1 - 1e-12))
    return values[np.minimum(at, len(values) - 1)]
