"""Cross-fitting: a stage fitted on all rows, and its scores on rows that its folds never saw."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Integral
from zlib import crc32

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    GroupShuffleSplit,
    PredefinedSplit,
    StratifiedShuffleSplit,
    TimeSeriesSplit,
    check_cv,
)
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_memory

from skmsc._sklearn import _check_method_params, take_rows
from skmsc.calibration import fit_calibration
from skmsc.stages import StageScorer, fit_stage

__all__ = []  # for the package's own use


@dataclass(frozen=True)
class CrossFit:
    """A stage fitted on all rows, with out-of-fold scores.

    Attributes
    ----------
    scorer : StageScorer
        The stage fitted on all rows.
    proba : ndarray of shape (n_samples, n_classes)
        Out-of-fold scores; nan for rows that no fold scores.
    """

    scorer: StageScorer
    proba: np.ndarray


@dataclass(frozen=True)
class CrossFitter:
    """Fits stages on one set of rows with one set of splits.

    Attributes
    ----------
    X : array, sparse matrix or dataframe of n_samples rows
        Training rows.
    codes : ndarray of shape (n_samples,)
        Class codes, for the maps of stages without `predict_proba`.
    classes : ndarray of shape (n_classes,)
        Labels, sorted.
    sample_weight : ndarray of shape (n_samples,) or None
        The caller's weights.
    splits : list of (ndarray, ndarray)
        Training and test rows of each fold, integer indices.
    seed : int
        Base of the seeds: each fit has its own, drawn from it, the stage's name and the fold, so
        that another stage's change changes nothing here.
    n_jobs : int or None
        Number of jobs for the fits of a stage.
    memory : None, str or joblib.Memory
        Cache of the fits.
    verbose : int
        Verbosity of the jobs.
    """

    X: object
    codes: np.ndarray
    classes: np.ndarray
    sample_weight: np.ndarray | None
    splits: list
    seed: int
    n_jobs: int | None = None
    memory: object = None
    verbose: int = 0

    @property
    def scored(self):
        """Rows that some fold scores, a mask of shape (n_samples,)."""
        scored = np.zeros(self.codes.size, dtype=bool)
        for _, test in self.splits:
            scored[test] = True
        return scored

    def fit(self, name, stage, *, target, weight=None, rows=None, params=None):
        """Fit a stage on all rows and score each row out-of-fold.

        Parameters
        ----------
        name : str
            Name of the stage.
        stage : estimator
            Not changed. A frozen stage is not fitted: it is taken to have seen none of the rows.
        target : ndarray of shape (n_samples,)
            Labels that the stage learns.
        weight : ndarray of shape (n_samples,), default=None
            Weights of the stage's rows.
        rows : mask of shape (n_samples,), default=None
            Rows that the stage is trained on; None: all. All rows are scored.
        params : dict, default=None
            Further parameters of the stage's fit, rows aligned with X.

        Returns
        -------
        fit : CrossFit
        """
        seeds = _seeds(self.seed, name, len(self.splits) + 1)
        if isinstance(stage, FrozenEstimator):
            scorer = StageScorer.of(name, stage, self.classes)
            raw = np.where(self.scored[:, None], scorer.raw(self.X), np.nan)
            return self._with_proba(scorer, raw, target, weight)
        memory = check_memory(self.memory)
        fit_one, score_one = memory.cache(_fit), memory.cache(_fit_and_score)
        data = (stage, self.X, target, weight, self.sample_weight, params or {})
        keep = np.arange(self.codes.size) if rows is None else np.flatnonzero(rows)
        try:
            fitted, *folds = Parallel(n_jobs=self.n_jobs, verbose=self.verbose)(
                [delayed(fit_one)(*data, None if rows is None else keep, seeds[0])]
                + [
                    delayed(score_one)(
                        *data,
                        train if rows is None else np.intersect1d(train, keep),
                        test,
                        seed,
                        name,
                        self.classes,
                    )
                    for (train, test), seed in zip(self.splits, seeds[1:], strict=True)
                ]
            )
        except Exception as error:
            error.add_note(f"This happened in the fit of stage {name!r}.")
            raise
        total, count = np.zeros((self.codes.size, len(self.classes))), np.zeros(self.codes.size)
        for (_, test), scores in zip(self.splits, folds, strict=True):
            total[test] += scores
            count[test] += 1
        with np.errstate(invalid="ignore"):  # 0 / 0 where no fold scores a row
            raw = total / count[:, None]
        return self._with_proba(StageScorer.of(name, fitted, self.classes), raw, target, weight)

    def _with_proba(self, scorer, raw, target, weight):
        """Turn decision values into probabilities of the target, by a map fitted out-of-fold."""
        if scorer.has_proba:
            return CrossFit(scorer, raw)
        scored = self.scored
        codes = np.searchsorted(self.classes, target[scored])
        weight = np.ones(codes.size) if weight is None else weight[scored]
        decision_map = fit_calibration("sigmoid", raw[scored], codes, weight, from_decisions=True)
        proba = np.full_like(raw, np.nan)
        proba[scored] = decision_map(raw[scored])
        return CrossFit(replace(scorer, decision_map=decision_map), proba)


def make_splits(cv, X, y, *, used=None, params=None):
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
    """
    params = params or {}
    if isinstance(cv, type):
        raise TypeError(f"cv must be an integer, a splitter object or an iterable; got {cv!r}.")
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
        return restrict_splits(_checked_indices(splits, len(y)), used)
    X, y = take_rows(X, idx), y[idx]
    params = _check_method_params(X, params, indices=idx)
    return list(check_cv(cv, y, classifier=True).split(X, y, **params))


def restrict_splits(splits, used):
    """The same splits as indices into the rows in use only; folds without test rows fall away."""
    place = np.cumsum(used) - 1
    restricted = [(place[train[used[train]]], place[test[used[test]]]) for train, test in splits]
    return [(train, test) for train, test in restricted if test.size]


def check_splits(splits, codes, classes, positive):
    """Raise unless every training part can train a classifier and some positive is scored.

    `positive` is the code of the positive class, None for more than two classes.
    """
    if not splits:
        raise ValueError("cv gives no split with rows to score.")
    for i, (train, _) in enumerate(splits):
        present = np.unique(codes[train])
        if present.size < 2:
            absent = [str(label) for label in np.delete(classes, present)]
            raise ValueError(
                f"The training part of split {i} of cv holds no row of class "
                f"{' or '.join(absent)}: every stage must see two classes in every split. Use "
                "fewer or stratified splits, or give more rows of that class."
            )
    if positive is not None:
        scored = np.concatenate([test for _, test in splits])
        if not (codes[scored] == positive).any():
            raise ValueError(
                f"cv scores no row of the positive class {classes[positive]}, so that neither "
                "feedback nor thresholds can be learned."
            )


def choose_held_out(cv, y, fraction, *, groups=None, seed=0):
    """Choose rows to hold out of everything but the thresholds.

    Parameters
    ----------
    cv : int, splitter or iterable
        A `TimeSeriesSplit` says that rows are in time order: the last ones are held out.
    y : ndarray of shape (n_samples,)
        Labels, by which the choice is stratified unless time or groups forbid it.
    fraction : float
        Share of rows, or of groups, in (0, 1).
    groups : array-like of shape (n_samples,), default=None
        Groups, held out as a whole.
    seed : int, default=0
        Seed of the choice.

    Returns
    -------
    held : mask of shape (n_samples,)
    """
    idx = np.arange(y.size)
    if isinstance(cv, TimeSeriesSplit):
        return idx >= y.size - max(round(fraction * y.size), 1)
    splitter = StratifiedShuffleSplit if groups is None else GroupShuffleSplit
    try:
        splits = splitter(1, test_size=fraction, random_state=seed).split(idx, y, groups)
        return np.isin(idx, next(splits)[1])
    except ValueError as error:
        raise ValueError(
            f"validation_fraction={fraction} cannot be held out of {y.size} rows: {error}"
        ) from error


def _checked_indices(splits, n_samples):
    """Splits as integer indices; masks are converted, anything else raises."""
    return [
        tuple(
            _checked_part(part, n_samples, f"The {name} part of split {i} of cv")
            for name, part in zip(("training", "test"), _pair(split, i), strict=True)
        )
        for i, split in enumerate(splits)
    ]


def _pair(split, i):
    """The training and the test part of a split."""
    if not isinstance(split, (tuple, list)) or len(split) != 2:
        raise ValueError(f"Split {i} of cv must be a pair (train, test) of indices; got {split!r}.")
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


def _seeds(seed, name, n_seeds):
    """Integer seeds from the base seed and the stage's name: for the whole fit, then each fold."""
    return np.random.SeedSequence([seed, crc32(name.encode())]).generate_state(n_seeds).tolist()


def _fit(stage, X, target, weight, sample_weight, params, rows, seed):
    """Fit a stage on the given rows (None: all)."""
    if rows is not None:
        params = _check_method_params(X, params, indices=rows)
        X, target = take_rows(X, rows), target[rows]
        weight, sample_weight = take_rows(weight, rows), take_rows(sample_weight, rows)
    return fit_stage(
        stage, X, target, weight=weight, sample_weight=sample_weight, seed=seed, params=params
    )


def _fit_and_score(
    stage, X, target, weight, sample_weight, params, train, test, seed, name, classes
):
    """Fit a stage on a fold's training rows and give its raw scores on the test rows."""
    fitted = _fit(stage, X, target, weight, sample_weight, params, train, seed)
    return StageScorer.of(name, fitted, classes).raw(take_rows(X, test))
