"""Which rows train the stages, in which splits, and which are kept for the thresholds alone."""

import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit, TimeSeriesSplit
from sklearn.utils.validation import check_consistent_length

from skmsc._sklearn import _check_method_params, take_rows
from skmsc._splitters import LabeledTestFolds, TimeDelaySplit, labels_to_split
from skmsc.out_of_fold import CrossFitter
from skmsc.splits import check_splitter, make_splits, restrict
from skmsc.stages import join_costly, split_costly, takes_weight, warn_of_resampling

__all__ = []  # for the package's own use


@dataclass(frozen=True)
class TrainingRows:
    """The rows that stages are trained on, and those that only the thresholds will see.

    Attributes
    ----------
    fitter : CrossFitter
        The training rows, their class codes and splits; the held-out rows.
    stage_params : dict of str to dict
        Further parameters of each stage's fit, rows aligned with the training rows.
    held_out : tuple of (y, sample_weight) or None
        Labels and weights (ones where none were given) of the held-out rows.
    idx : ndarray of shape (n_training_rows,)
        Indices of the training rows among the rows given.
    n_given : int
        Number of rows given.
    held_idx : ndarray of shape (n_held_out,)
        Indices of the held-out rows among the rows given.
    row_values : dict of str to ndarray of shape (n_given,), default={}
        What else is known of each row given, for the thresholds.
    """

    fitter: CrossFitter
    stage_params: dict
    held_out: tuple | None
    idx: np.ndarray
    n_given: int
    held_idx: np.ndarray
    row_values: dict = field(default_factory=dict)
    _fetched: dict = field(default_factory=dict)  # by stage; filled as costly stages are fitted

    @cached_property
    def weight(self):
        """The caller's weights, ones where none were given."""
        weight = self.fitter.sample_weight
        return np.ones(self.fitter.codes.size) if weight is None else weight

    def fit_on_labels(self, name, stage, rows, *, fetch_others=True):
        """Cross-fit a stage on some of the rows, a mask, without feedback; see `fit_stage`.

        Splits whose training part holds one class of them are left out. With ``fetch_others=False``
        costly features of the other rows, and held-out ones, are not fetched, and score nan.
        """
        labels = self.fitter.classes[self.fitter.codes]
        used = None if fetch_others else rows
        return self.fit_stage(name, stage, labels, self.fitter.sample_weight, rows=rows, used=used)

    def fit_stage(self, name, stage, target, weight, *, rows=None, used=None, **how):
        """Cross-fit one stage; see `CrossFitter.fit`.

        A stage that begins with costly features has them fetched here, once for each row, or for
        each of the rows `used`, a mask: the others score nan.
        """
        learned = slice(None) if how.get("guesses") is not None else self.fitter.labeled
        if weight is not None and np.ptp(weight[learned]) > 0 and not takes_weight(stage):
            warn_of_resampling(name, stage)
        fitter, params = self.fitter, self.stage_params.get(name, {})
        head, stage = split_costly(name, stage)
        if head is not None:
            used, fitter, head = self._fetch(name, head, used)
            params = _check_method_params(self.fitter.X, params, indices=np.flatnonzero(used))
            target, weight, rows = (
                None if part is None else part[used] for part in (target, weight, rows)
            )
        if rows is not None:
            fitter = fitter.with_splits_for(rows)
        fit = fitter.fit(name, stage, target=target, weight=weight, rows=rows, params=params, **how)
        if head is None:
            return fit
        proba = np.full((used.size, fit.proba.shape[1]), np.nan)
        proba[used] = fit.proba
        held_out = fit.held_out_proba
        if held_out is None and self.held_out is not None:
            held_out = np.full((len(self.held_out[0]), proba.shape[1]), np.nan)
        scorer = replace(fit.scorer, estimator=join_costly(head, fit.scorer.estimator))
        return replace(fit, scorer=scorer, proba=proba, held_out_proba=held_out)

    def _fetch(self, name, head, used):
        """The rows as a stage needs them, costly features among them, fetched at the first call.

        Returns a mask of the rows, a `CrossFitter` of them and the fitted head.
        """
        if name not in self._fetched:
            step, costly = head
            if used is None:
                used, fitter = np.ones(self.fitter.codes.size, dtype=bool), self.fitter
            else:  # whoever needs no scores of some training rows needs none of held-out ones
                fitter = replace(self.fitter.only(used), X_held_out=None)
            X, held_out = costly.fit_transform(fitter.X), fitter.X_held_out
            held_out = None if held_out is None else costly.transform(held_out)
            fitter = replace(fitter, X=X, X_held_out=held_out)
            self._fetched[name] = used, fitter, (step, costly)
        return self._fetched[name]

    def row_values_of(self, idx):
        """What else is known of some of the rows given, by their indices among these."""
        return {name: values[idx] for name, values in self.row_values.items()}

    def halve_held_out(self, seed):
        """The same training rows twice, each time with half of every class of the held-out ones."""
        y, weight = self.held_out
        shuffled = np.random.RandomState(seed).permutation(len(y))
        by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
        X = self.fitter.X_held_out
        return tuple(
            replace(
                self,
                fitter=replace(self.fitter, X_held_out=take_rows(X, half)),
                held_out=(y[half], weight[half]),
                held_idx=self.held_idx[half],
            )
            for half in (np.sort(by_class[::2]), np.sort(by_class[1::2]))
        )

    def spread(self, values):
        """Values of the training rows at the places of the rows given; nan elsewhere."""
        if self.idx.size == self.n_given:
            return values
        full = np.full((self.n_given, *values.shape[1:]), np.nan)
        full[self.idx] = values
        return full


def choose_training_rows(
    X,
    y,
    sample_weight,
    *,
    labeled=None,
    learn_unlabeled=False,
    classes,
    positive=None,
    cv,
    split_params,
    stage_params,
    validation_fraction,
    rng,
    cross_fit=True,
    **fitter_params,
):
    """Drop rows of weight 0, hold rows out, split the rest.

    Parameters
    ----------
    X : array, sparse matrix or dataframe of n_samples rows
        All rows.
    y : ndarray of shape (n_samples,)
        Labels.
    sample_weight : ndarray of shape (n_samples,) or None
        Weights.
    labeled : mask of shape (n_samples,), default=None
        Rows with a label; None: all. The others are split like these, but are never held out, nor
        trained on when they are of a group that is held out, or behind held-out rows of a
        `TimeSeriesSplit`.
    learn_unlabeled : bool, default=False
        Whether they stay.
    classes : ndarray of shape (n_classes,)
        Labels of the rows with a weight, sorted.
    positive : int, default=None
        Code of the positive class, of which some split must score a row; None: there is none.
    cv : int, splitter or iterable
        As in `make_splits`.
    split_params : dict
        Parameters of the splitter; ``groups`` among them are held out as a whole.
    stage_params : dict of str to dict
        Further parameters of each stage's fit.
    validation_fraction : float or None
        Share of the labelled rows to hold out.
    rng : numpy.random.RandomState
        Source of the seeds of the choice and of the fits.
    cross_fit : bool, default=True
        Whether anything will be fitted out-of-fold; else there are no splits.
    **fitter_params : dict
        n_jobs, memory and progress of the `CrossFitter`.

    Returns
    -------
    rows : TrainingRows

    Raises
    ------
    ValueError
        When a training part holds one class only, or nothing can be held out.
    """
    if isinstance(cv, LabeledTestFolds):
        cv = cv.cv  # what it does is done here
    check_consistent_length(y, *split_params.values())
    check_splitter(cv, split_params)
    seed, split_seed = rng.randint(np.iinfo(np.int32).max, size=2).tolist()
    used = np.ones(len(y), dtype=bool) if sample_weight is None else sample_weight > 0
    labeled = np.ones(len(y), dtype=bool) if labeled is None else labeled
    held = np.empty(0, dtype=np.intp)
    if validation_fraction is not None:
        idx = np.flatnonzero(used & labeled)
        params = {name: take_rows(split_params.get(name), idx) for name in ("groups", "time")}
        train, held = choose_held_out(cv, y[idx], validation_fraction, seed=split_seed, **params)
        used[idx], held = train, idx[held]
        used &= labeled | _may_train(cv, len(y), held, **split_params)
    if isinstance(cv, TimeDelaySplit):
        cv = cv._ending_at_a_label(split_params.get("time"), used & labeled)
    splits = []
    if cross_fit:
        cv = _fitting(cv, y[used & labeled]) if held.size else cv
        given = labels_to_split(cv, y, labeled)
        splits = make_splits(cv, X, given, used=used, params=split_params)
    train, n_given = np.flatnonzero(used), len(y)
    splits = [(fit, test) for fit, test in splits if labeled[train[test]].any()]
    if not learn_unlabeled:
        splits, train = restrict(splits, labeled[train]), train[labeled[train]]
    X_held_out, y_held_out, weight = (take_rows(part, held) for part in (X, y, sample_weight))
    held_out = (y_held_out, np.ones(held.size) if weight is None else weight)
    if train.size < n_given:
        stage_params = {
            name: _check_method_params(X, params, indices=train)
            for name, params in stage_params.items()
        }
        X, y, sample_weight, labeled = (
            take_rows(part, train) for part in (X, y, sample_weight, labeled)
        )
    codes = np.full(len(y), -1)
    codes[labeled] = np.searchsorted(classes, y[labeled])
    if cross_fit:
        check_splits(splits, codes, classes, positive)
    fitter = CrossFitter(
        X=X,
        codes=codes,
        classes=classes,
        sample_weight=sample_weight,
        splits=splits,
        seed=seed,
        X_held_out=X_held_out if held.size else None,
        **fitter_params,
    )
    return TrainingRows(fitter, stage_params, held_out if held.size else None, train, n_given, held)


def _fitting(cv, y):
    """A number of folds that the largest class can fill; a hold-out may leave it fewer rows."""
    n_folds = 5 if cv is None else cv
    most = np.unique(y, return_counts=True)[1].max()
    if not isinstance(n_folds, Integral) or n_folds <= most or most < 2:
        return cv
    warnings.warn(
        f"cv={cv} is lowered to {most}: once validation_fraction is held out no class has more "
        "rows than that.",
        UserWarning,
        stacklevel=4,
    )
    return int(most)


def _may_train(cv, n_samples, held, groups=None, **_):
    """Rows that may train without a label, a mask: of no group, and no place, that is held out."""
    if isinstance(cv, TimeSeriesSplit):
        return np.arange(n_samples) < held.min()
    if groups is None or getattr(cv, "purge", "train") != "train":
        return np.ones(n_samples, dtype=bool)
    groups = np.asarray(groups)
    return ~np.isin(groups, groups[held])


def check_splits(splits, codes, classes, positive):
    """Raise unless every training part can train a classifier and some positive is scored.

    `positive` is the code of the positive class, None for more than two classes.
    """
    if not splits:
        raise ValueError("cv gives no split whose test part holds a labelled row.")
    for i, (train, _) in enumerate(splits):
        present = np.unique(codes[train[codes[train] >= 0]])
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


def choose_held_out(cv, y, fraction, *, seed=0, groups=None, time=None, name="validation_fraction"):
    """Choose rows to hold out of everything but the thresholds.

    Parameters
    ----------
    cv : int, splitter or iterable
        A `TimeSeriesSplit` says that rows are in time order, a `TimeDelaySplit` that `time` tells
        it: the last ones are held out, after the latter's gap.
    y : ndarray of shape (n_samples,)
        Labels, by which the choice is stratified unless time or groups forbid it.
    fraction : float
        Share of rows, or of groups, in (0, 1).
    seed : int, default=0
        Seed of the choice.
    groups : array-like of shape (n_samples,), default=None
        Groups, held out as a whole.
    time : array-like of shape (n_samples,), default=None
        Times.
    name : str, default="validation_fraction"
        What the fraction is called, for errors.

    Returns
    -------
    train, held : masks of shape (n_samples,)
        Rows in neither are in the gap, or of a group that is held out.
    """
    idx = np.arange(y.size)
    if isinstance(cv, TimeDelaySplit):
        return cv.hold_out(fraction, time, groups=groups, y=y)
    if isinstance(cv, TimeSeriesSplit):
        held = idx >= y.size - max(round(fraction * y.size), 1)
        return ~held, held
    splitter = StratifiedShuffleSplit if groups is None else GroupShuffleSplit
    try:
        splits = splitter(1, test_size=fraction, random_state=seed).split(idx, y, groups)
        held = np.isin(idx, next(splits)[1])
    except ValueError as error:
        raise ValueError(
            f"{name}={fraction} cannot be held out of {y.size} rows: {error}"
        ) from error
    return ~held, held
