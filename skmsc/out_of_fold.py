"""Cross-fitting: a stage fitted on all rows, and its scores on rows that its folds never saw."""

from dataclasses import dataclass, replace
from functools import cached_property
from zlib import crc32

import joblib
import numpy as np
import sklearn
from sklearn import get_config
from sklearn.frozen import FrozenEstimator
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_memory

from skmsc._sklearn import _check_method_params, take_rows
from skmsc.calibration import fit_calibration
from skmsc.splits import restrict
from skmsc.stages import StageScorer, fit_stage

__all__ = []  # for the package's own use

# Part of the memory's key: to be raised when a fit with the same arguments has another result.
_FIT_VERSION = 2


@dataclass(frozen=True)
class CrossFit:
    """A stage fitted on all rows, with scores of rows that the fit behind each never saw.

    Attributes
    ----------
    scorer : StageScorer
        The stage fitted on all rows.
    proba : ndarray of shape (n_samples, n_classes)
        Out-of-fold scores; nan for rows that no fold scores.
    unlabeled_proba : ndarray of shape (n_splits + 1, n_unlabeled, n_classes) or None
        Scores of the unlabelled rows by the fit on all rows, then by the fit of each fold; nan for
        rows that are not in its training part.
    held_out_proba : ndarray of shape (n_held_out, n_classes) or None
        Scores of the held-out rows by the fit on all rows.
    """

    scorer: StageScorer
    proba: np.ndarray
    unlabeled_proba: np.ndarray | None = None
    held_out_proba: np.ndarray | None = None

    def filled_by(self, other):
        """The same with another fit's scores of the rows that this one's folds do not score."""
        return replace(self, proba=np.where(np.isnan(self.proba), other.proba, self.proba))

    @classmethod
    def unknown(cls, fitter):
        """What stands for a stage that a `CrossFitter` has not fitted: all scores nan."""
        return cls(None, np.full((fitter.codes.size, len(fitter.classes)), np.nan))


@dataclass(frozen=True)
class Lesson:
    """What one fit of a stage learns.

    Attributes
    ----------
    rows : ndarray of shape (n_lesson_rows,) or None
        Indices of the rows, some of them perhaps twice; None: all rows as they are.
    target : ndarray of shape (n_lesson_rows,)
        Labels.
    weight : ndarray of shape (n_lesson_rows,) or None
        Weights.
    sample_weight : ndarray of shape (n_lesson_rows,) or None
        The caller's weights.
    """

    rows: np.ndarray | None
    target: np.ndarray
    weight: np.ndarray | None
    sample_weight: np.ndarray | None


@dataclass(frozen=True)
class CrossFitter:
    """Fits stages on one set of rows with one set of splits.

    Attributes
    ----------
    X : array, sparse matrix or dataframe of n_samples rows
        Training rows.
    codes : ndarray of shape (n_samples,)
        Class codes, for the maps of stages without `predict_proba`; -1 for unlabelled rows.
    classes : ndarray of shape (n_classes,)
        Labels, sorted.
    sample_weight : ndarray of shape (n_samples,) or None
        The caller's weights.
    splits : list of (ndarray, ndarray)
        Training and test rows of each fold, integer indices.
    seed : int
        Base of the seeds: each fit has its own, drawn from it, the stage's name and the fold, so
        that another stage's change changes nothing here.
    X_held_out : array, sparse matrix or dataframe of n_held_out rows, or None
        Rows that nothing is fitted on; each stage scores them.
    n_jobs : int or None
        Number of jobs for the fits of a stage.
    memory : None, str or joblib.Memory
        Cache of the fits.
    progress : Progress or None
        What is told of each fit.
    """

    X: object
    codes: np.ndarray
    classes: np.ndarray
    sample_weight: np.ndarray | None
    splits: list
    seed: int
    X_held_out: object = None
    n_jobs: int | None = None
    memory: object = None
    progress: object = None

    @cached_property
    def tested(self):
        """Rows that some fold scores, a mask of shape (n_samples,)."""
        tested = np.zeros(self.codes.size, dtype=bool)
        for _, test in self.splits:
            tested[test] = True
        return tested

    @cached_property
    def scored(self):
        """Rows with a label that some fold scores, a mask of shape (n_samples,)."""
        return self.tested & self.labeled

    @cached_property
    def labeled(self):
        """Rows with a label, a mask of shape (n_samples,)."""
        return self.codes >= 0

    @cached_property
    def unlabeled(self):
        """Indices of the rows without a label, in ascending order."""
        return np.flatnonzero(~self.labeled)

    def can_train(self, codes, rows):
        """For each training part, whether it holds two classes among the given rows, a mask."""
        parts = (codes[train[rows[train]]] for train, _ in self.splits)
        return [np.unique(part).size > 1 for part in parts]

    def with_splits_for(self, rows):
        """The same with the splits whose training part holds two classes of the rows, a mask."""
        trains = self.can_train(self.codes, rows)
        if all(trains):
            return self
        return replace(
            self, splits=[split for split, t in zip(self.splits, trains, strict=True) if t]
        )

    def only(self, rows):
        """The same on some of the rows, a mask; folds that score none of them fall away."""
        idx = np.flatnonzero(rows)
        return replace(
            self,
            X=take_rows(self.X, idx),
            codes=self.codes[idx],
            sample_weight=take_rows(self.sample_weight, idx),
            splits=restrict(self.splits, rows),
        )

    def fit(
        self,
        name,
        stage,
        *,
        target,
        weight=None,
        rows=None,
        params=None,
        guesses=None,
        score_unlabeled=False,
    ):
        """Fit a stage on all rows and score each row out-of-fold.

        Parameters
        ----------
        name : str
            Name of the stage.
        stage : estimator
            Not changed. A frozen stage is not fitted: it is taken to have seen none of the rows.
        target : ndarray of shape (n_samples,)
            Labels that the stage learns; those of unlabelled rows do not matter.
        weight : ndarray of shape (n_samples,), default=None
            Weights of the stage's rows.
        rows : mask of shape (n_samples,), default=None
            Labelled rows that the stage is trained on; None: all of them. All are scored.
        params : dict, default=None
            Further parameters of the stage's fit, rows aligned with X.
        guesses : ndarray of shape (n_splits + 1, n_unlabeled, 2), default=None
            Weights with which each unlabelled row is learned as a row of the first class and as
            one of the second, by the fit on all rows and by that of each fold; None: not at all.
        score_unlabeled : bool, default=False
            Whether to score the unlabelled rows.

        Returns
        -------
        fit : CrossFit
        """
        # The first fit is the one on all rows, which scores no labelled row.
        parts = [np.arange(self.codes.size), *(train for train, _ in self.splits)]
        tests = [self.unlabeled[:0], *(test for _, test in self.splits)]
        pools = [part[~self.labeled[part]] if score_unlabeled else tests[0] for part in parts]
        asked = [np.append(test, pool) for test, pool in zip(tests, pools, strict=True)]
        if isinstance(stage, FrozenEstimator):
            scorer = StageScorer.of(name, stage, self.classes)
            every = scorer.raw(self.X)
            scores = [every[rows] for rows in asked]
        else:
            rows = self.labeled if rows is None else rows
            guesses = [None] * len(parts) if guesses is None else guesses
            lessons = [
                self._lesson(part, rows, target, weight, guess)
                for part, guess in zip([None, *parts[1:]], guesses, strict=True)
            ]
            scorer, scores = self._run(name, stage, lessons, params or {}, asked)

        total, count = np.zeros((self.codes.size, len(self.classes))), np.zeros(self.codes.size)
        of_unlabeled = np.full((len(parts), self.unlabeled.size, len(self.classes)), np.nan)
        for j, (test, pool) in enumerate(zip(tests, pools, strict=True)):
            total[test] += scores[j][: test.size]
            count[test] += 1
            of_unlabeled[j, np.searchsorted(self.unlabeled, pool)] = scores[j][test.size :]
        with np.errstate(invalid="ignore"):  # 0 / 0 where no fold scores a row
            proba = total / count[:, None]
        if not scorer.has_proba:
            scorer = self._with_decision_map(scorer, proba, target, weight)
            proba, of_unlabeled = (
                _mapped(scorer.decision_map, raw) for raw in (proba, of_unlabeled)
            )
        held_out = None if self.X_held_out is None else scorer(self.X_held_out)
        return CrossFit(scorer, proba, of_unlabeled if score_unlabeled else None, held_out)

    def _lesson(self, part, rows, target, weight, guess):
        """The given rows, a mask, of a training part (None: all), and its unlabelled ones twice."""
        if part is None:
            if guess is None and rows.all():
                return Lesson(None, target, weight, self.sample_weight)
            part = np.arange(self.codes.size)
        own, pool = part[rows[part]], part[~self.labeled[part]]
        if guess is None:
            weight, sample_weight = take_rows(weight, own), take_rows(self.sample_weight, own)
            return Lesson(own, target[own], weight, sample_weight)
        guess = guess[np.searchsorted(self.unlabeled, pool)]
        ones = np.ones(self.codes.size)
        weight, given = (ones if w is None else w for w in (weight, self.sample_weight))
        return Lesson(
            rows=np.concatenate([own, pool, pool]),
            target=np.append(target[own], np.repeat(self.classes, pool.size)),
            weight=np.append(weight[own], guess.T),
            # The two copies of a row are one row to a transformer.
            sample_weight=np.concatenate([given[own], given[pool] / 2, given[pool] / 2]),
        )

    def _run(self, name, stage, lessons, params, asked):
        """Fit a stage on each lesson: the scorer of the first, and every one's scores as asked."""
        seeds = seeds_for(self.seed, name, len(lessons))
        fit_one, score_one, key = self._cached
        jobs = [delayed(fit_one)(stage, self.X, lessons[0], params, seeds[0], **key)]
        for lesson, seed, rows in zip(lessons[1:], seeds[1:], asked[1:], strict=True):
            job = delayed(score_one)
            jobs.append(job(stage, self.X, lesson, params, seed, rows, name, self.classes, **key))
        parts = ["all rows", *(f"fold {j} of {len(jobs) - 1}" for j in range(1, len(jobs)))]
        try:
            fitted, *scores = run_jobs(jobs, f"stage {name!r}", parts, self.n_jobs, self.progress)
        except Exception as error:
            error.add_note(f"This happened in the fit of stage {name!r}.")
            raise
        scorer = StageScorer.of(name, fitted, self.classes)
        first = np.empty((0, len(self.classes)))
        if asked[0].size:
            first = scorer.raw(take_rows(self.X, asked[0]))
        return scorer, [first, *scores]

    @cached_property
    def _cached(self):
        """The two jobs behind the memory, and what else their results depend on.

        X is hashed once, not at every call.
        """
        if self.memory is None:
            return _fit, _fit_and_score, {}
        memory = check_memory(self.memory)
        config = {k: get_config()[k] for k in ("enable_metadata_routing", "transform_output")}
        key = {
            "X_hash": joblib.hash(self.X),
            "context": (config, _FIT_VERSION, sklearn.__version__),
        }
        return memory.cache(_fit, ignore=["X"]), memory.cache(_fit_and_score, ignore=["X"]), key

    def _with_decision_map(self, scorer, raw, target, weight):
        """The scorer with a map of decision values to probabilities, fitted out-of-fold."""
        codes = np.searchsorted(self.classes, target[self.scored])
        weight = np.ones(codes.size) if weight is None else weight[self.scored]
        decision_map = fit_calibration(
            "sigmoid", raw[self.scored], codes, weight, from_decisions=True
        )
        return replace(scorer, decision_map=decision_map)


def run_jobs(jobs, name, parts, n_jobs, progress):
    """Results of joblib's jobs, in order; `progress`, if any, is told of each part of a task."""
    if progress is None:
        return Parallel(n_jobs=n_jobs)(jobs)
    results = []
    with progress.task(name, len(jobs)) as done:
        parallel = Parallel(
            n_jobs=n_jobs, verbose=max(progress.verbose - 1, 0), return_as="generator"
        )
        for part, result in zip(parts, parallel(jobs), strict=True):
            results.append(result)
            done(part)
    return results


def _mapped(decision_map, raw):
    """Probabilities from decision values of shape (..., n_classes), nan where these are."""
    proba, given = np.full_like(raw, np.nan), ~np.isnan(raw[..., 0])
    proba[given] = decision_map(raw[given])
    return proba


def seeds_for(seed, name, n_seeds):
    """Integer seeds from the base seed and the stage's name: for the whole fit, then each fold."""
    return np.random.SeedSequence([seed, crc32(name.encode())]).generate_state(n_seeds).tolist()


def _fit(stage, X, lesson, params, seed, X_hash=None, context=None):
    """Fit a stage on a lesson. The last two arguments are for the memory's key only."""
    if lesson.rows is not None:
        params = _check_method_params(X, params, indices=lesson.rows)
        X = take_rows(X, lesson.rows)
    return fit_stage(
        stage,
        X,
        lesson.target,
        weight=lesson.weight,
        sample_weight=lesson.sample_weight,
        seed=seed,
        params=params,
    )


def _fit_and_score(stage, X, lesson, params, seed, rows, name, classes, X_hash=None, context=None):
    """Fit a stage on a fold's lesson and give its raw scores of other rows."""
    fitted = _fit(stage, X, lesson, params, seed)
    return StageScorer.of(name, fitted, classes).raw(take_rows(X, rows))
