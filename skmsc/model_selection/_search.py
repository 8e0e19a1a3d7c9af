"""ThresholdSearchCV: each fold is fitted once, every setting of thresholds is scored on it."""

from __future__ import annotations

import time
from copy import copy as shallow_copy
from dataclasses import dataclass
from numbers import Integral
from traceback import format_exc
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import indexable
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.parallel import Parallel, delayed

from skmsc._checks import as_numbers, is_number, no_half_fit, warn
from skmsc._sklearn import (
    BaseSearchCV,
    _check_method_params,
    _MultimetricScorer,
    _routing_enabled,
    _score,
    _warn_or_raise_about_fit_failures,
    take_rows,
)
from skmsc.metrics import neg_mean_cost_scorer, neg_pass_rate_scorer
from skmsc.model_selection._final_cut import FinalCutClassifier
from skmsc.model_selection._pairs import PairRows, choose_cuts, metric_of_counts
from skmsc.model_selection._replay import (
    Fold,
    KeptRows,
    TwoStages,
    asking,
    at_path,
    find_path,
    fit_read,
    kinds_of,
    pass_rate_and_cost,
    replaced,
)
from skmsc.model_selection._results import BILL, ResultTable, pareto_front
from skmsc.splits import takes_time
from skmsc.thresholds import row_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike
    from sklearn.utils.metadata_routing import MetadataRouter

    from skmsc._typing import Estimator, Rows, Splitter, Thresholds

_SIGNS = {"<=": -1.0, ">=": 1.0}
# Screen cuts that are tried where a scorer must see probabilities, each of which takes a while.
_N_RANKED_CUTS = 50


class ThresholdSearchCV(BaseSearchCV):
    """Search over thresholds with cross-validation in which nothing is fitted twice.

    As `GridSearchCV` over the parameter `thresholds`, with the same results, but each fold is
    fitted once: training does not depend on thresholds, so that every setting is scored on the
    scores that the fitted stages give to the fold's test rows. What depends on thresholds beside
    them, the calibrations, is found anew for every setting, as a fit would.

    Parameters
    ----------
    estimator : estimator
        A `FeedbackCascadeClassifier`, an `EarlyExitClassifier`, a `ComposableHeadClassifier`, or a
        `Pipeline` that ends in one of them. With an integer `random_state` the results are those
        of `GridSearchCV`.
    thresholds : list or "pairs"
        Settings to try, each as in the estimator: policies, numbers, matrices, None. "pairs", for
        two stages and two classes: every pair of a number for the first stage and a cut of the last
        stage's score, see Notes.
    scoring : str, callable, list, tuple or dict, default=None
        As in `GridSearchCV`. Beside these scores the ``cost`` of a row and the ``pass_rate``, the
        share of rows that reach the last stage, are always told.
    constraints : dict of str to (str, float), default=None
        What the best setting must meet on average over the folds: a name of `scoring` ("score"
        where it has no names), "cost" or "pass_rate", and a bound such as ``("<=", 0.1)`` or
        ``(">=", 0.95)``.
    n_cuts : int or (int, int), default=500
        With "pairs": number of cuts of the first stage and of the last, at most. Where a scorer
        needs probabilities, such as the average precision, at most 50 of the first stage are tried.
    refit : bool, str or callable, default=True
        As in `GridSearchCV`: which score is best, and whether a fit on all rows follows. "cost" and
        "pass_rate" take the lowest. Of settings that tie the cheapest is taken, then the first.
    cv : int, splitter or iterable, default=None
        As in `GridSearchCV`. The stages' own out-of-fold scores come from the estimator's `cv`.
    n_jobs : int, default=None
        Jobs for the folds.
    verbose : int, default=0
        1 tells the number of fits, more the time of each.
    error_score : "raise" or float, default=nan
        Score of a setting that cannot be met on the training rows of a fold, and of all where the
        fit fails; all settings failing raises in any case, and so does a fit that fails for
        "pairs".

    Attributes
    ----------
    cv_results_ : dict of str to ndarray
        As in `GridSearchCV`, a row for each setting, with ``mean_test_cost`` and
        ``mean_test_pass_rate``, ``std_test_cost`` and so on, rank 1 the lowest. Costs are left out
        where the estimator does not know them. ``mean_fit_time`` is the time of the fold's one fit,
        the same in all rows; ``mean_score_time`` what the setting took beyond.
    best_index_ : int
        Row of the best setting.
    best_params_ : dict
        Parameters of ``best_estimator_`` there.
    best_score_ : float
        Its mean score, by `refit`.
    best_estimator_ : estimator
        Fitted on all rows with the best thresholds; with "pairs" its classifier is wrapped in a
        `FinalCutClassifier`.
    pareto_front_ : ndarray of int
        Rows of ``cv_results_`` that no other row beats, cheapest first: none is as good in both
        cost (pass rate where costs are not known) and the score of `refit`, and better in one. The
        first of `scoring` counts where `refit` names none.
    scorer_ : callable or dict
        As in `GridSearchCV`.
    n_splits_ : int
        Number of folds.
    refit_time_ : float
        Seconds of the last fit.
    search_time_ : float
        Seconds beyond the fits, summed over the folds.
    multimetric_ : bool
        Whether there are several scores.
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, when X was a dataframe with string column names.

    Raises
    ------
    ValueError, TypeError
        From `fit`, before any fold is fitted, when an argument is not valid; afterwards when no
        setting meets the constraints: the message tells the nearest.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : Searches over everything else.
    FeedbackCascadeClassifier.tune_thresholds : Sets thresholds on given rows, without a search.

    Notes
    -----
    Every stage scores each test row once, also rows that some settings would not let reach it:
    `CostlyFeatures` are fetched for all of them.

    It calls no callbacks of scikit-learn's, and warns where some are set on it.

    With `survivor_rate` and `CostlyFeatures` in the last stage the training of a cascade depends on
    whether thresholds look at the last stage's scores. Settings of both kinds take two fits a fold.

    "pairs": a row that passes the first stage is predicted positive if its raw score by the last
    stage reaches the final cut. For a million rows and 250,000 pairs all counts together are two
    binary searches a row, a histogram of the pairs of bins and its cumulative sums. Cuts lie
    between quantiles of the scores of the rows that they are about: of the first stage, the rows
    that it would answer wrongly; of the last, the positives; taken from all test parts, so that
    the folds share them. The final cut is a parameter of `FinalCutClassifier` since `predict` of a
    multi-stage classifier is the argmax of its `predict_proba`; metrics of predictions that are
    counted are accuracy, balanced accuracy, F1 and F-beta, Jaccard, Matthews' correlation,
    precision and recall. Scores of probabilities do not depend on the final cut.

    Weights given to `fit` as `sample_weight` weigh cost and pass rate, too, and with "pairs" every
    counted metric.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skmsc import FeedbackCascadeClassifier, PassBudget
    >>> from skmsc.model_selection import ThresholdSearchCV
    >>> X, y = make_classification(600, weights=[0.9], random_state=0)
    >>> cascade = FeedbackCascadeClassifier(
    ...     [("screen", GaussianNB()), ("final", RandomForestClassifier(10, random_state=0))],
    ...     stage_costs=[0.01, 1],
    ...     random_state=0,
    ... )
    >>> search = ThresholdSearchCV(
    ...     cascade,
    ...     [PassBudget(0.05), PassBudget(0.1), PassBudget(0.2), PassBudget(0.4)],
    ...     scoring="average_precision",
    ...     constraints={"cost": ("<=", 0.25)},
    ...     cv=3,
    ... ).fit(X, y)
    >>> search.best_params_
    {'thresholds': PassBudget(max_pass_rate=0.2)}
    >>> bool(search.cv_results_["mean_test_cost"][search.best_index_] <= 0.25)
    True
    """

    def __init__(
        self,
        estimator: Estimator,
        thresholds: Sequence[Thresholds] | Literal["pairs"],
        *,
        scoring: Any = None,
        constraints: Mapping[str, tuple[str, float]] | None = None,
        n_cuts: int | tuple[int, int] = 500,
        refit: bool | str | Callable[..., int] = True,
        cv: Splitter = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        error_score: float | Literal["raise"] = np.nan,
    ) -> None:
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            error_score=error_score,
            return_train_score=False,
        )
        self.thresholds = thresholds
        self.constraints = constraints
        self.n_cuts = n_cuts

    def fit(self, X: Rows, y: ArrayLike | None = None, **params: Any) -> Self:
        """Fit each fold once, score all settings, fit the best on all rows.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Labels.
        **params : dict
            Parameters of the estimator's `fit`, such as `sample_weight`, which are split with the
            rows, and `groups` for `cv`; with metadata routing enabled, what estimator, scorers and
            `cv` ask for. Of what policies read of each row, a fit gets what its settings read.

        Returns
        -------
        self : ThresholdSearchCV
        """
        self._validate_params()
        with no_half_fit(self):
            path = find_path(self.estimator)
            settings = None if self._seeks_pairs() else _check_settings(self.thresholds)
            scorers, _ = self._get_scorers()
            names = list(scorers._scorers) if isinstance(scorers, _MultimetricScorer) else ["score"]
            named = not callable(self.scoring)  # else only the scores tell the names
            self._check_names(names if named else None)
            if y is None:
                raise ValueError(
                    f"{type(self).__name__} requires y to be passed, but the target y is None."
                )
            if getattr(self, "_skl_callbacks", None):
                warn(f"{type(self).__name__} calls no callbacks.")

            X, y = indexable(X, y)
            params = _check_method_params(X, params=params)
            metadata = self._find_metadata(path)
            self._warn_of_unread(path, metadata, params)
            routed = self._get_routed_params_for_fit(params)
            cv = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
            splits = list(cv.split(X, y, **routed.splitter.split))
            self.n_splits_ = len(splits)
            if not splits:
                raise ValueError("cv gives no split.")
            fit_fold = _FitFold(
                self.estimator, path, X, y, routed.estimator.fit, metadata, self.verbose
            )
            scoring = _Scoring(
                scorers, X, routed.scorer.score, params.get("sample_weight"), self.error_score
            )
            if settings is None:
                candidates, table = self._try_pairs(fit_fold, scoring, splits)
            else:
                candidates, table = self._try_settings(fit_fold, scoring, splits, settings)

            self.multimetric_ = table.names != ["score"]
            if not named:
                self._check_names(table.names)
                if self.multimetric_:
                    self._check_refit_for_multimetric(dict.fromkeys(table.names))
            self.search_time_ = float(table.times["score_time"].sum())
            results = table.format(candidates)
            self._choose(results, table.names)
            if self.refit:
                self._refit(X, y, path, routed.estimator.fit, metadata)
            self.scorer_ = self._scorers_to_keep(scorers)
            self.cv_results_ = results
        return self

    def get_metadata_routing(self) -> MetadataRouter:
        """Get the metadata routing, as in `GridSearchCV`.

        What any of the settings reads of each row is asked for.

        Returns
        -------
        routing : sklearn.utils.metadata_routing.MetadataRouter
        """
        path, other = find_path(self.estimator), shallow_copy(self)
        other.estimator = asking(self.estimator, path, self._find_metadata(path))
        return super(ThresholdSearchCV, other).get_metadata_routing()

    # --- arguments ----------------------------------------------------------------------------
    def _find_metadata(self, path):
        """Names of what the settings, and the estimator's own thresholds, read of each row."""
        own = set(row_metadata(at_path(self.estimator, path).thresholds))
        return tuple(sorted(own | self._find_read()))

    def _find_read(self):
        """Names of what the settings read of each row."""
        if not isinstance(self.thresholds, (list, tuple)):  # "pairs", numbers or none at all
            return set()
        return {name for one in self.thresholds for name in row_metadata(one)}

    def _warn_of_unread(self, path, metadata, params):
        """Warn of what was given of each row and no setting reads."""
        read = self._find_read()
        cv = getattr(at_path(self.estimator, path), "cv", None)
        for name in metadata:
            is_given = name in params or "__".join([*path, name]) in params
            if is_given and name not in read and not (name == "time" and takes_time(cv)):
                warn(f"{name} was given for each row, but none of the thresholds tried reads it.")

    def _seeks_pairs(self):
        """Whether pairs are searched; raises for another text, and for invalid numbers of cuts."""
        if not isinstance(self.thresholds, str):
            return False
        if self.thresholds != "pairs":
            raise ValueError(_not_settings(self.thresholds))
        n_cuts = self.n_cuts
        pair = (n_cuts, n_cuts) if isinstance(n_cuts, Integral) else n_cuts
        if (
            not isinstance(pair, (tuple, list))
            or len(pair) != 2
            or not all(isinstance(n, Integral) and is_number(n) and n >= 1 for n in pair)
        ):
            raise ValueError(f"n_cuts must be an integer >= 1 or two of them; got {n_cuts!r}.")
        return True

    def _check_names(self, names):
        """Raise unless `refit` and `constraints` name scores; names None: not known yet."""
        if names is not None:
            reserved = sorted(set(names) & set(BILL))
            if reserved:
                raise ValueError(
                    f"scoring must not use the names {reserved}, which are told anyway."
                )
            valid = [*names, *BILL]
            if isinstance(self.refit, str) and self.refit not in valid:
                raise ValueError(
                    f"refit must be a bool, a callable or of {valid}; got {self.refit!r}."
                )
        if self.constraints is None:
            return
        if callable(self.refit):
            raise ValueError("constraints must be None where refit is a callable, which decides.")
        if not isinstance(self.constraints, dict):
            raise TypeError(
                "constraints must be a dict such as {'cost': ('<=', 0.1)}; got "
                f"{self.constraints!r}."
            )
        for name, bound in self.constraints.items():
            if names is not None and name not in valid:
                raise ValueError(f"constraints must be on names of {valid}; got {name!r}.")
            is_pair = isinstance(bound, (tuple, list)) and len(bound) == 2
            if not (is_pair and bound[0] in _SIGNS and is_number(bound[1])) or np.isnan(bound[1]):
                raise ValueError(
                    f"The constraint on {name!r} must be ('<=', number) or ('>=', number); got "
                    f"{bound!r}."
                )
        if self.refit is False and names is not None and len(names) > 1:
            raise ValueError("constraints need refit to name the score that is best.")

    def _check_refit_for_multimetric(self, scores):
        """Let `refit` name cost and pass rate, too; called when scorers are set up."""
        super()._check_refit_for_multimetric({**scores, **dict.fromkeys(BILL)})

    # --- the search ---------------------------------------------------------------------------
    def _try_settings(self, fit_fold, scoring, splits, settings):
        """Candidates and their `ResultTable` for a list of settings."""
        n_splits = len(splits)
        if self.verbose > 0:
            print(f"Fitting each of {n_splits} folds once, for {len(settings)} settings")
        by_fold = Parallel(n_jobs=self.n_jobs)(
            delayed(_search_fold)(fit_fold, scoring, settings, split, f"{i + 1}/{n_splits}")
            for i, split in enumerate(splits)
        )
        outcomes = list(zip(*by_fold, strict=True))  # (n_settings, n_splits)
        _warn_or_raise_about_fit_failures(
            [{"fit_error": one["fit_error"]} for row in outcomes for one in row], self.error_score
        )
        candidates = {"__".join([*fit_fold.path, "thresholds"]): settings}
        return candidates, ResultTable.of_outcomes(outcomes, self.error_score)

    def _try_pairs(self, fit_fold, scoring, splits):
        """Candidates and their `ResultTable` for all pairs of cuts."""
        n_splits, scorers = len(splits), scoring.by_name()
        n_cuts, n_final_cuts = np.broadcast_to(self.n_cuts, 2).tolist()
        # Some scorers cannot be counted, which need not wait for the fits.
        counted = {name: metric_of_counts(name, one) for name, one in scorers.items()}
        ranked = [name for name, metric in counted.items() if metric is None]
        if ranked:
            n_cuts = min(n_cuts, _N_RANKED_CUTS)
        if self.verbose > 0:
            print(f"Fitting each of {n_splits} folds once, for {n_cuts * n_final_cuts} pairs")
        folds = Parallel(n_jobs=self.n_jobs)(
            delayed(fit_fold)([TwoStages()], split, f"{i + 1}/{n_splits}")
            for i, split in enumerate(splits)
        )

        start = time.perf_counter()
        pair_rows = [PairRows.of(f.model, f.rows, f.y, scoring.weight_of(f)) for f in folds]
        counted = {n: metric_of_counts(n, one, pair_rows[0].label) for n, one in scorers.items()}
        thresholds, final_cuts = choose_cuts(pair_rows, n_cuts, n_final_cuts)
        shape = thresholds.size, final_cuts.size
        shared = (time.perf_counter() - start) / n_splits
        scores = {name: np.empty((*shape, n_splits)) for name in [*scorers, *BILL]}
        fit_time, score_time = np.empty((2, *shape, n_splits))
        for i, (fold, rows) in enumerate(zip(folds, pair_rows, strict=True)):
            start = time.perf_counter()
            counts = rows.count(thresholds, final_cuts)
            pass_rate = counts.passed / (counts.n_positive + counts.n_negative)
            costs = fold.model.stage_costs_
            scores["pass_rate"][..., i] = pass_rate
            scores["cost"][..., i] = np.nan if costs is None else costs[0] + costs[1] * pass_rate
            for name, metric in counted.items():
                if metric is not None:
                    scores[name][..., i] = metric(counts)
            for j, setting in enumerate(thresholds.tolist() if ranked else []):
                seen = scoring(fold, fold.fold.replay(setting, fold.rows), ranked)
                for name in ranked:
                    scores[name][j, :, i] = seen[name]
            fit_time[..., i] = fold.fit_time
            spent = time.perf_counter() - start + shared + fold.rows_time
            score_time[..., i] = spent / (shape[0] * shape[1])
        path = fit_fold.path
        candidates = {
            "__".join([*path, "estimator", "thresholds"]): thresholds.repeat(shape[1]).tolist(),
            "__".join([*path, "final_cut"]): np.tile(final_cuts, shape[0]).tolist(),
        }
        table = ResultTable(list(scorers), scores, {"fit_time": fit_time, "score_time": score_time})
        return candidates, table.flat()

    def _choose(self, results, names):
        """Set the best row and the Pareto front."""
        price = results.get("mean_test_cost", results["mean_test_pass_rate"])
        main = self.refit if isinstance(self.refit, str) else names[0]
        for_front = main if main in names else names[0]
        self.pareto_front_ = pareto_front(price, results[f"mean_test_{for_front}"])
        if callable(self.refit):
            index = self._select_best_index(self.refit, None, results)
        elif self.refit is False and self.multimetric_:
            return
        else:
            index = self._best_row(results, main, price)
        self.best_index_ = int(index)
        if not callable(self.refit):
            self.best_score_ = float(results[f"mean_test_{main}"][index])
        self.best_params_ = results["params"][index]

    def _best_row(self, results, main, price):
        """Row of the best setting that meets the constraints."""
        for name in [main, *(self.constraints or {})]:
            if f"mean_test_{name}" not in results:
                raise ValueError(
                    f"The costs of the stages are not known, and refit or constraints ask for "
                    f"{name!r}: set stage_costs."
                )
        rows = np.arange(price.size)
        if self.constraints:
            missed = np.zeros(price.size)
            for name, (sense, bound) in self.constraints.items():
                mean = results[f"mean_test_{name}"]
                excess = _SIGNS[sense] * (bound - mean)
                excess = np.where(np.isnan(excess), np.inf, np.maximum(excess, 0.0))
                excess[excess <= 1e-12 * abs(bound)] = 0.0  # means of folds are rounded
                missed = np.maximum(missed, excess / (abs(bound) or 1.0))
            rows = np.flatnonzero(missed == 0)
            if not rows.size:
                raise ValueError(self._tell_nearest(results, int(missed.argmin())))
        rank = results[f"rank_test_{main}"][rows]
        tied = rows[rank == rank.min()]
        return tied[np.nan_to_num(price[tied], nan=np.inf).argmin()]

    def _tell_nearest(self, results, row):
        """Message that no setting meets the constraints, with the one that misses them least."""
        wanted = " and ".join(f"{n} {s} {bound}" for n, (s, bound) in self.constraints.items())
        has = ", ".join(f"{n}={results[f'mean_test_{n}'][row]:.6g}" for n in self.constraints)
        return (
            f"None of the {len(results['params'])} settings meets {wanted}: the nearest is "
            f"{results['params'][row]} with {has}."
        )

    def _refit(self, X, y, path, fit_params, metadata):
        """Fit the best setting on all rows."""
        estimator = clone(self.estimator)
        if self._seeks_pairs():
            estimator = replaced(estimator, path, FinalCutClassifier(at_path(estimator, path)))
        estimator.set_params(**clone(self.best_params_, safe=False))
        start = time.perf_counter()
        self.best_estimator_ = fit_read(estimator, path, metadata, X, y, fit_params)
        self.refit_time_ = time.perf_counter() - start
        if hasattr(estimator, "feature_names_in_"):
            self.feature_names_in_ = estimator.feature_names_in_

    def _scorers_to_keep(self, scorers):
        """What `score` uses."""
        if not isinstance(scorers, _MultimetricScorer):
            return scorers
        bill = {"cost": neg_mean_cost_scorer, "pass_rate": neg_pass_rate_scorer}
        return scorers._scorers | {n: one for n, one in bill.items() if n == self.refit}


def _check_settings(thresholds):
    """The settings as a list; raises when one is none."""
    if not isinstance(thresholds, (list, tuple)) and np.ndim(thresholds) != 1:
        raise TypeError(_not_settings(thresholds))
    settings = thresholds.tolist() if isinstance(thresholds, np.ndarray) else list(thresholds)
    if not settings:
        raise ValueError(_not_settings(thresholds))
    for setting in settings:
        if setting is None or (
            hasattr(setting, "find_thresholds") and not isinstance(setting, type)
        ):
            continue
        message = (
            "Each of thresholds must be a policy such as PassBudget(0.1), a number, numbers or "
            f"None; got {setting!r}."
        )
        if np.isnan(as_numbers(setting, message)).any():
            raise ValueError(message)
    return settings


def _not_settings(thresholds):
    return (
        "thresholds must be a list of settings such as [PassBudget(0.1), PassBudget(0.2)], or "
        f"'pairs'; got {thresholds!r}."
    )


# --- one fold ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class _FittedFold:
    """A fold whose stages are fitted and have scored its test rows."""

    fold: Fold
    rows: KeptRows
    X: object
    y: object
    test: np.ndarray
    fit_time: float
    rows_time: float

    @property
    def model(self):
        """The multi-stage classifier."""
        return at_path(self.fold.estimator, self.fold.path)


@dataclass(frozen=True)
class _FitFold:
    """Fits a fold for settings that share one fit."""

    estimator: object
    path: list
    X: object
    y: object
    params: dict
    metadata: tuple
    verbose: int

    def __call__(self, settings, split, told):
        train, test = split
        X_train, y_train = take_rows(self.X, train), take_rows(self.y, train)
        params = _check_method_params(self.X, self.params, indices=train)
        start = time.perf_counter()
        fold = Fold.fit(
            self.estimator, self.path, settings, X_train, y_train, params, self.metadata
        )
        fit_time = time.perf_counter() - start
        X_test, y_test = take_rows(self.X, test), take_rows(self.y, test)
        rows = fold.rows(X_test)
        rows_time = time.perf_counter() - start - fit_time
        if self.verbose > 1:
            print(f"[CV {told}] fitted in {fit_time:.1f} s, test rows scored in {rows_time:.1f} s")
        return _FittedFold(fold, rows, X_test, y_test, test, fit_time, rows_time)


@dataclass(frozen=True)
class _Scoring:
    """The scorers of a search, and what they are given beside the rows, for all rows X."""

    scorers: object
    X: object
    params: dict
    weight: object
    error_score: object

    def __call__(self, fold, estimator, only=None):
        """Scores of an estimator on the fold's test rows, a dict; with `only` of some scorers."""
        scorers, params = self.scorers, self.params
        if only is not None:
            chosen = {name: one for name, one in self.by_name().items() if name in only}
            scorers = _MultimetricScorer(scorers=chosen, raise_exc=self.error_score == "raise")
            if _routing_enabled():
                wanted = get_routing_for_object(scorers).consumes("score", params.keys())
                params = {name: params[name] for name in wanted}
        params = _check_method_params(self.X, params, indices=fold.test)
        scores = _score(estimator, fold.X, fold.y, scorers, params, self.error_score)
        return scores if isinstance(scores, dict) else {"score": scores}

    def by_name(self):
        """The scorers by name."""
        if isinstance(self.scorers, _MultimetricScorer):
            return self.scorers._scorers
        return {"score": self.scorers}

    def weight_of(self, fold):
        """Weights of a fold's test rows, or None."""
        return None if self.weight is None else np.asarray(self.weight, dtype=float)[fold.test]


def _search_fold(fit_fold, scoring, settings, split, told):
    """Outcomes of all settings on one fold: a list of dicts."""
    outcomes = [None] * len(settings)
    try:
        kinds = kinds_of(fit_fold.estimator, fit_fold.path, settings)
    except Exception:  # the fit tells what is wrong
        kinds = [range(len(settings))]
    for kind in kinds:
        start = time.perf_counter()
        try:
            fold = fit_fold([settings[i] for i in kind], split, told)
        except Exception:
            if scoring.error_score == "raise":
                raise
            spent, error = time.perf_counter() - start, format_exc()
            for i in kind:
                outcomes[i] = {"fit_error": error, "fit_time": spent, "score_time": 0.0}
            continue
        for i in kind:
            outcomes[i] = _try_setting(fold, scoring, settings[i])
            outcomes[i]["score_time"] += fold.rows_time / len(kind)
    return outcomes


def _try_setting(fold, scoring, setting):
    """Outcome of one setting on a fitted fold."""
    start = time.perf_counter()
    outcome = {"fit_error": None, "fit_time": fold.fit_time}
    try:
        replay = fold.fold.replay(setting, fold.rows)
    except Exception:
        if scoring.error_score == "raise":
            raise
        outcome["fit_error"] = format_exc()
    else:
        outcome["scores"] = scoring(fold, replay)
        model = at_path(replay, fold.fold.path)
        bill = pass_rate_and_cost(model, fold.rows, scoring.weight_of(fold))
        outcome["pass_rate"], outcome["cost"] = bill
    outcome["score_time"] = time.perf_counter() - start
    return outcome
