"""Splits of the rows in use, whatever a splitter is given as."""

from collections.abc import Iterable
from inspect import signature
from numbers import Integral

import numpy as np
from sklearn.model_selection import PredefinedSplit, check_cv

from skmsc._sklearn import _check_method_params, take_rows

__all__ = []  # for the package's own use


def make_splits(cv, X, y, *, used=None, params=None, name="cv"):
    """Splits of the rows in use, as a list of (train, test) indices into these rows.

    Parameters
    ----------
    cv : int, splitter or iterable
        As in scikit-learn. Splits that are given as indices, and `PredefinedSplit`, speak of the
        rows of X as they are; any other splitter sees only the rows in use.
    X : array, sparse matrix or dataframe of n_samples rows
        All rows.
    y : ndarray of shape (n_samples,)
        Labels.
    used : mask of shape (n_samples,), default=None
        Rows in use; None: all.
    params : dict, default=None
        Parameters of the splitter's `split`, such as ``{"groups": groups}``.
    name : str, default="cv"
        The caller's parameter, for errors.
    """
    params = params or {}
    check_splitter(cv, params, name)
    by_position = isinstance(cv, PredefinedSplit) or not (
        cv is None or isinstance(cv, Integral) or hasattr(cv, "split")
    )
    if used is None or used.all():
        used, idx = np.ones(len(y), dtype=bool), None
    else:
        idx = np.flatnonzero(used)
    if by_position or idx is None:
        if hasattr(cv, "split") or not isinstance(cv, Iterable):
            cv = check_cv(cv, y, classifier=True).split(X, y, **params)
        splits = list(cv)
        return restrict(_checked_indices(splits, len(y), name), used)
    params = _check_method_params(X, params, indices=idx)
    X, y = take_rows(X, idx), y[idx]
    return list(check_cv(cv, y, classifier=True).split(X, y, **params))


def check_splitter(cv, params, name="cv"):
    """Raise for what splits nothing, and for a time that it does not take."""
    if "time" in params and not takes_time(cv):
        raise TypeError(f"{name}={cv!r} takes no time; a TimeDelaySplit does.")
    if isinstance(cv, type):
        raise TypeError(f"{name} must be an integer, a splitter object or an iterable; got {cv!r}.")


def takes_time(cv):
    """Whether the split of a splitter takes the time of each row."""
    takes = signature(cv.split).parameters.values() if hasattr(cv, "split") else ()
    return any(p.name == "time" or p.kind == p.VAR_KEYWORD for p in takes)


def restrict(splits, used):
    """The same splits as indices into the rows in use only; folds without test rows fall away."""
    place = np.cumsum(used) - 1
    restricted = [(place[train[used[train]]], place[test[used[test]]]) for train, test in splits]
    return [(train, test) for train, test in restricted if test.size]


def check_all_train(what, classes, codes, trained):
    """Raise where what is held out leaves no training row of some class.

    `codes` are those of the classes that there must be, `trained` those of the rows that train.
    """
    absent = np.setdiff1d(codes, trained)
    if absent.size:
        raise ValueError(
            f"{what} leaves no training row of the classes {classes[absent].tolist()}."
        )


def _checked_indices(splits, n_samples, name):
    """Splits as integer indices; masks are converted, anything else raises."""
    return [
        tuple(
            _checked_part(part, n_samples, f"The {side} part of split {i} of {name}")
            for side, part in zip(("training", "test"), _pair(split, i, name), strict=True)
        )
        for i, split in enumerate(splits)
    ]


def _pair(split, i, name):
    """The training and the test part of a split."""
    if not isinstance(split, (tuple, list)) or len(split) != 2:
        raise ValueError(
            f"Split {i} of {name} must be a pair (train, test) of indices; got {split!r}."
        )
    return split


def _checked_part(part, n_samples, where):
    """One part of a split as integer indices."""
    idx = np.asarray(part)
    if idx.dtype == bool and idx.shape == (n_samples,):
        return np.flatnonzero(idx)
    if idx.size == 0:
        return np.empty(0, dtype=np.intp)
    if idx.ndim != 1 or idx.dtype.kind not in "iu" or idx.min() < 0 or idx.max() >= n_samples:
        shown = f"{idx.min()} to {idx.max()}" if idx.dtype.kind in "iu" else f"{idx.dtype} {part!r}"
        raise ValueError(
            f"{where} must hold indices from 0 to {n_samples - 1}, or a mask of {n_samples} rows; "
            f"got {shown}."
        )
    return idx
