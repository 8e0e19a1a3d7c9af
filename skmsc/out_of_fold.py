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
from skmsc.stages import StageScorer, fit_stage

__all__ = []  # for the package's own use

# Part of the memory's key: to be raised when a fit with the same arguments has another result.
_FIT_VERSION = 1


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

    @cached_property
    def scored(self):
        """Rows that some fold scores, a mask of shape (n_samples,)."""
        scored = np.zeros(self.codes.size, dtype=bool)
        for _, test in self.splits:
            scored[test] = True
        return scored

    def can_train(self, codes, rows):
        """Whether every training part holds two classes among the given rows, a mask."""
        parts = (codes[train[rows[train]]] for train, _ in self.splits)
        return all(np.unique(part).size > 1 for part in parts)

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
        keep = np.arange(self.codes.size) if rows is None else np.flatnonzero(rows)
        data = (stage, self.X, target, weight, self.sample_weight, params or {})
        fit_one, score_one, key = self._cached
        try:
            fitted, *folds = Parallel(n_jobs=self.n_jobs, verbose=self.verbose)(
                [delayed(fit_one)(*data, None if rows is None else keep, seeds[0], **key)]
                + [
                    delayed(score_one)(
                        *data,
                        train if rows is None else train[rows[train]],
                        test,
                        seed,
                        name,
                        self.classes,
                        **key,
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


def _seeds(seed, name, n_seeds):
    """Integer seeds from the base seed and the stage's name: for the whole fit, then each fold."""
    return np.random.SeedSequence([seed, crc32(name.encode())]).generate_state(n_seeds).tolist()


def _fit(stage, X, target, weight, sample_weight, params, rows, seed, X_hash=None, context=None):
    """Fit a stage on the given rows (None: all). The last two are for the memory's key only."""
    if rows is not None:
        params = _check_method_params(X, params, indices=rows)
        X, target = take_rows(X, rows), target[rows]
        weight, sample_weight = take_rows(weight, rows), take_rows(sample_weight, rows)
    return fit_stage(
        stage, X, target, weight=weight, sample_weight=sample_weight, seed=seed, params=params
    )


def _fit_and_score(
    stage,
    X,
    target,
    weight,
    sample_weight,
    params,
    train,
    test,
    seed,
    name,
    classes,
    X_hash=None,
    context=None,
):
    """Fit a stage on a fold's training rows and give its raw scores on the test rows."""
    fitted = _fit(stage, X, target, weight, sample_weight, params, train, seed)
    return StageScorer.of(name, fitted, classes).raw(take_rows(X, test))
