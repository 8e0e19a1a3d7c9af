"""EarlyExitClassifier: an sklearn model, then a network with exits; easy rows leave early."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import TimeSeriesSplit
from sklearn.utils import check_random_state

from skmsc._base import Evidence, MultiStageClassifier
from skmsc._checks import check_bool, check_choice, check_number, check_two_classes, check_weight
from skmsc._progress import Progress
from skmsc._sklearn import (
    _num_samples,
    _routing_enabled,
    _VisualBlock,
    is_dataframe,
    take_rows,
    with_callbacks,
)
from skmsc._splitters import TimeDelaySplit
from skmsc.calibration import check_calibration
from skmsc.costs import add_fetch_costs, check_countable, check_stage_costs, count_multiply_adds
from skmsc.out_of_fold import seeds_for
from skmsc.splits import check_all_train
from skmsc.stacking import as_stack_logs, fit_stack, stack_all, stack_logs, stacked
from skmsc.stages import (
    check_costly,
    check_frozen,
    check_net,
    check_stage,
    checks_all_columns,
    default_net,
    gives_own_arrays,
    set_seeds,
)
from skmsc.thresholds import (
    CONFIDENCES,
    check_independent,
    find_row_values,
    needs_costs,
    needs_last_stage,
    needs_rows,
)
from skmsc.training.exits import check_exit_weighting, start_weigher
from skmsc.training_rows import choose_held_out, choose_training_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skmsc._typing import (
        Estimator,
        Floats,
        OnStageError,
        RandomState,
        Rows,
        Splitter,
        StageCosts,
        Strategy,
        Thresholds,
    )


class EarlyExitClassifier(MultiStageClassifier):
    """A scikit-learn classifier, then a network with several exits; easy rows leave early.

    At work stage 0 is the first stage, any scikit-learn classifier, and every later stage one more
    block of the network with an exit behind it. A row is answered by the first stage that is sure
    enough of it, and no later block runs on it. For two classes and more.

    Parameters
    ----------
    first_stage : classifier, default=None
        Stage 0: any scikit-learn classifier, pipeline or `FrozenEstimator` (used as it is, taken
        to have seen none of the training rows). It is fitted first; what the network learns of it
        are its out-of-fold scores. None: there is none, and stage 0 is the network's first exit.
    net : MultiExitNet, default=None
        The network; None stands for `skmsc.neural.MultiExitNet()`. Its `trunk` may be any module
        with `blocks` and `heads`. Indices given as its `validation` speak of the rows that are
        left once `validation_fraction` is held out.
    exit_weighting : {"uniform", "learned", "survivors", "focal"}, strategy or callable, \
default="uniform"
        How much each row counts at each exit while the network is trained: `UniformWeights`,
        `LearnedWeights`, `SurvivorWeights`, `FocalWeights`. In our benchmark learned weights do
        not reliably beat uniform ones once learning rate and length of training are tuned. A
        callable gets ``(loss, confidence)``, torch tensors of shape (n_rows, n_exits) and (n_rows,
        n_stages) of a batch, and returns weights of shape (n_rows, n_exits).
    ensemble : bool, default=True
        Whether a stage answers with a weighted geometric mean of its own probabilities and those
        of the stages before it, whose weights are fitted on the rows that the net's `validation`
        chooses, which it is not trained on. Where it chooses none of the rows given to `fit`, since
        they are few, or `validation` is None or a tuple, every stage answers by itself.
    confidence : {"max_proba", "margin", "entropy"}, default="max_proba"
        What thresholds act on: the probability of a stage's likeliest class, its lead over the
        second, or one minus the entropy of all in units of the largest possible. For two classes
        the three sort the rows alike.
    thresholds : float, array-like or policy, default=None
        When a stage answers a row. A number t answers a row whose confidence reaches t; one number
        for each stage but the last, or a matrix as ``thresholds_``. A policy finds them on the
        rows of `validation_fraction`: `Agreement`, `PassBudget`, `CostBudget`, or for two classes
        `RecallFloor`, `AlertBudget`, `ExpectedCost`. None keeps quality: ``Agreement(0.01)``, for
        two classes in each of them.
    validation_fraction : float, default=0.15
        Share of the rows in (0, 1) held out of all training, for thresholds and calibration: the
        last ones when `cv` is a `TimeSeriesSplit`, the latest by ``time`` when it is a
        `TimeDelaySplit`, whole groups when `groups` are given, else stratified at random. None
        holds out nothing, for thresholds that are numbers and ``calibration=None``.
    stage_costs : array-like of shape (n_stages,) or dict of str to float, default=None
        Cost >= 0 of running each stage on one row once those before it have run, in any unit; by
        name: "first_stage", "exit_1", "exit_2", ..., without a first stage "exit_0", "exit_1", ...
        The `cost` of a first stage's `CostlyFeatures` comes on top. None: its share of the
        multiply-adds of all stages, so that a row that goes all the way costs 1; costs are unknown
        where those of some stage cannot be counted.
    calibration : {"temperature", "sigmoid", "isotonic", None}, default="temperature"
        How each stage's scores become the probabilities of `predict_proba`, so that rows answered
        by different stages are comparable; fitted on the rows of `validation_fraction` that reach
        the stage. A temperature keeps the likeliest class. Thresholds act on raw scores.
    cv : int, splitter or iterable, default=5
        Splits for the first stage's out-of-fold scores; it is fitted once for every split and once
        on all rows.
    on_stage_error : {"raise", "answer_earlier", "alert"}, default="raise"
        What happens when a stage after the first raises an error at predict time. "raise": it goes
        on. Else a warning tells the stage, how many rows and the error, `route` and `report` mark
        the rows, and all rows of that run of the stage have, with "answer_earlier", the calibrated
        probabilities of the stage before: this **fails open**, a row that should have been looked
        at is answered by a cheaper stage; with "alert", for two classes, the positive class at
        probability 1, and they are alerts. `fit`, `tune_thresholds`, `stage_proba` and
        `staged_predict_proba` always raise, and so does an error of the first stage.
    n_jobs : int, default=None
        Jobs for the fits of the first stage.
    random_state : int, RandomState instance or None, default=None
        Every part whose own `random_state` is None gets a seed from it.
    verbose : int, default=0
        Whether to print a line for each fit; above 1 the jobs print theirs, too. The network prints
        its epochs by its own `verbose`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    first_stage_ : estimator or None
        The fitted first stage.
    net_ : MultiExitNet
        The fitted network.
    thresholds_ : ndarray of shape (n_stages, n_classes)
        Stage k answers a row as soon as, for some class c, its score reaches ``thresholds_[k, c]``:
        `inf` is never, and the last row is `-inf`.
    alert_threshold_ : float or None
        Probability of ``classes_[1]`` from which a row is an alert, where `thresholds` is an
        `AlertBudget` or `ExpectedCost`: see `alerts`. `predict` does not look at it.
    stage_costs_ : ndarray of shape (n_stages,) or None
        Cost of running each stage on one row, in the units of `stage_costs`; without these, as its
        share of the multiply-adds of all stages. None where they are unknown.
    ensemble_weights_ : ndarray of shape (n_stages, n_stages) or None
        Row k has the weights of the log-probabilities in stage k's answer, its own and those of
        the stages before it; None where every stage answers by itself.
    multiply_adds_ : ndarray of shape (n_stages,) or None
        Multiply-adds of each stage for one row; None where those of some stage cannot be counted.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, when X was a dataframe with string column names.

    Raises
    ------
    ValueError, TypeError
        From `fit`, before anything is fitted, when an argument is not valid.

    See Also
    --------
    FeedbackCascadeClassifier : Stages that share nothing, one rare class, costly features.
    skmsc.neural.MultiExitNet : The network by itself.

    Notes
    -----
    The first stage's multiply-adds are those of its products, and for trees and neighbours the
    comparisons and distances. They tell what is computed, not how fast; `measure_costs` tells
    seconds. They cannot be counted for `HistGradientBoostingClassifier`, column transformers and
    most classifiers of other packages.

    References
    ----------
    Y. Han et al. Learning to weight samples for dynamic early-exiting networks. ECCV 2022, arXiv
    2209.08310: the learned weights.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmsc import CostBudget, EarlyExitClassifier
    >>> from skmsc.neural import MultiExitNet
    >>> X, y = load_digits(return_X_y=True)
    >>> model = EarlyExitClassifier(
    ...     LogisticRegression(max_iter=5000), MultiExitNet(width=64), random_state=0
    ... ).fit(X[:1200], y[:1200])
    >>> model.exit_distribution(X[1200:]).shape
    (4,)
    >>> cheaper = model.tune_thresholds(
    ...     X[1200:1500], y[1200:1500], thresholds=CostBudget(0.3), copy=True
    ... )
    >>> float(cheaper.route(X[1200:1500]).cost.mean()) <= 0.3
    True
    """

    __metadata_request__fit = {"time": False}  # requested by the policies that read it

    _spread = "agreement"

    def __init__(
        self,
        first_stage: Estimator = None,
        net: Estimator = None,
        *,
        exit_weighting: Literal["uniform", "learned", "survivors", "focal"] | Strategy = "uniform",
        ensemble: bool = True,
        confidence: Literal["max_proba", "margin", "entropy"] = "max_proba",
        thresholds: Thresholds = None,
        validation_fraction: float = 0.15,
        stage_costs: StageCosts = None,
        calibration: Literal["temperature", "sigmoid", "isotonic"] | None = "temperature",
        cv: Splitter = 5,
        on_stage_error: OnStageError = "raise",
        n_jobs: int | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.first_stage = first_stage
        self.net = net
        self.exit_weighting = exit_weighting
        self.ensemble = ensemble
        self.confidence = confidence
        self.thresholds = thresholds
        self.validation_fraction = validation_fraction
        self.stage_costs = stage_costs
        self.calibration = calibration
        self.cv = cv
        self.on_stage_error = on_stage_error
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(
        self,
        X: Rows,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        false_negative_cost: ArrayLike | None = None,
        false_positive_cost: ArrayLike | None = None,
        **fit_params: Any,
    ) -> Self:
        """Fit the first stage, then the network, and set the thresholds.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Training rows, numeric. Sparse matrices and nan are accepted where both the first stage
            and the network accept them.
        y : array-like of shape (n_samples,)
            Labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0 of the rows; one of weight 0 is left out.
        false_negative_cost, false_positive_cost : array-like of shape (n_samples,), default=None
            Costs >= 0 of each row, for an `ExpectedCost` that has none.
        **fit_params : dict
            ``groups`` and ``time`` for `cv` and for what is held out, ``time`` also for
            `AlertBudget`; with metadata routing enabled, what `cv`, the first stage and the network
            ask for.

        Returns
        -------
        self : EarlyExitClassifier

        Raises
        ------
        ValueError
            When an argument is not valid, or the policy of `thresholds` cannot be met.
        """
        return self._fit(
            X,
            y,
            sample_weight,
            fit_params,
            false_negative_cost=false_negative_cost,
            false_positive_cost=false_positive_cost,
        )

    def _learn(self, X, y, sample_weight=None, **fit_params):
        """Fit first stage and network; give what thresholds and calibrations are found on."""
        grouped = fit_params.get("groups") is not None
        self._check_parameters()
        metadata = self._take_row_metadata(fit_params)
        rows, split_params = self._check_training_rows(X, y, sample_weight, fit_params)
        net = self._make_net(rows)
        # Built once beforehand: what is wrong with it shows before anything is fitted.
        exit_multiply_adds = net.preview_multiply_adds(self.n_features_in_, len(self.classes_))
        costs = self._check_stages(len(exit_multiply_adds), rows, metadata)
        row_values = find_row_values(
            self.thresholds, metadata, check_weight(sample_weight, rows.n_given)
        )
        rows = replace(rows, row_values=row_values)
        split = self._split_for_net(net, rows, split_params)

        first = None
        if self.first_stage is not None:
            first = rows.fit_on_labels("first_stage", self.first_stage, None)
        self._count_costs(first, exit_multiply_adds, costs)
        self._fit_net(net, rows, first, split)
        self._count_costs(first, self.net_.count_exit_multiply_adds(), costs)
        self._keep_stages(first)
        self._fit_ensemble(rows, first, split)

        # The rows held out have been seen by nothing so far.
        scores = self._held_out_scores(rows, first)
        return Evidence(scores, scores, grouped)

    def exit_distribution(self, X: Rows) -> Floats:
        """Share of the rows that each stage answers.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        shares : ndarray of shape (n_stages,)
            They sum to 1.
        """
        stage = self.route(X).stage
        return np.bincount(stage, minlength=len(self._stage_names)) / stage.size

    def _check_parameters(self):
        """Validate what needs no data."""
        if self.first_stage is not None:
            check_stage("first_stage", self.first_stage, otherwise="None")
        if self.net is not None:
            check_net(self.net)
        check_exit_weighting(self.exit_weighting)
        check_choice("confidence", self.confidence, CONFIDENCES)
        check_bool("ensemble", self.ensemble)
        check_calibration(self.calibration)
        check_number("validation_fraction", self.validation_fraction, "(0, 1)", optional=True)
        needs_held_out = needs_rows(self.thresholds) or self.calibration is not None
        if self.validation_fraction is None and needs_held_out:
            raise ValueError(
                "validation_fraction=None leaves no rows for thresholds and calibration: set "
                "thresholds to numbers and calibration to None, or give a number in (0, 1)."
            )

    def _check_training_rows(self, X, y, sample_weight, fit_params):
        """Validate the rows; return a `TrainingRows` and the parameters of splits, row by row."""
        parts = self._stage_parts()
        self._accepts = self._input_tags()
        X, y, sample_weight = self._check_X_y(X, y, sample_weight)
        if is_dataframe(X):
            parts[-1][1].check_rows(X)  # the net's; of arrays all is checked
        self.classes_ = np.unique(y if sample_weight is None else y[sample_weight > 0])
        check_two_classes(self, self.classes_)
        # Early stages may answer any class; of two the second is the one that reports count.
        self._negative, self._positive = None, 1 if len(self.classes_) == 2 else None
        self._check_on_stage_error(self._positive is not None)
        self._measure = self.confidence
        if self.first_stage is not None:
            check_frozen("first_stage", self.first_stage, self.classes_, self.n_features_in_)
            check_costly("first_stage", self.first_stage, X)
        split_params, stage_params = self._route_metadata(fit_params, parts)
        check_independent(self.thresholds, sample_weight, split_params.get("groups"))
        rows = choose_training_rows(
            X,
            y,
            sample_weight,
            classes=self.classes_,
            cv=self.cv,
            split_params=split_params,
            stage_params=stage_params,
            validation_fraction=self.validation_fraction,
            rng=check_random_state(self.random_state),
            cross_fit=self.first_stage is not None,
            n_jobs=self.n_jobs,
            progress=Progress(self),
        )
        what = f"validation_fraction={self.validation_fraction}"
        check_all_train(what, self.classes_, np.arange(len(self.classes_)), rows.fitter.codes)
        return rows, split_params

    def _array_checks(self):
        """What scikit-learn's check of an array must let through: the net takes floats."""
        return super()._array_checks() | {"dtype": (np.float64, np.float32)}

    def _make_net(self, rows):
        """The unfitted net, with its seed."""
        net = default_net() if self.net is None else clone(self.net)
        set_seeds(net, np.random.RandomState(seeds_for(rows.fitter.seed, "net", 1)[0]))
        return net

    def _split_for_net(self, net, rows, split_params):
        """Rows that train the net and rows that validate it, (train, test) indices, or None.

        Where the net would draw them by chance, groups and time are respected all the same.
        """
        fitter, net_params = rows.fitter, rows.stage_params.get("net", {})
        labels = fitter.classes[fitter.codes]
        of_rows = {
            name: take_rows(split_params[name], rows.idx)
            for name in ("groups", "time")
            if name in split_params
        }
        by_time = isinstance(self.cv, (TimeSeriesSplit, TimeDelaySplit))
        fraction = net.validation_share(len(labels))
        if fraction is None or not (by_time or of_rows):
            if not _routing_enabled() and hasattr(net.validation, "split") and of_rows:
                takes = signature(net.validation.split).parameters
                net_params = {name: part for name, part in of_rows.items() if name in takes}
            return net.split_for_validation(fitter.X, labels, fitter.sample_weight, net_params)
        seed = seeds_for(fitter.seed, "validation", 1)[0] % 2**31
        train, held = choose_held_out(
            self.cv, labels, fraction, seed=seed, name="validation of the net", **of_rows
        )
        what = f"validation={net.validation!r} of the net"
        check_all_train(what, self.classes_, fitter.codes, fitter.codes[train])
        return np.flatnonzero(train), np.flatnonzero(held)

    def _check_stages(self, n_exits, rows, metadata):
        """Name the stages, validate what depends on their number; return the costs given, or None.

        `rows` are the `TrainingRows`, of which enough must be held out, `metadata` what they come
        with.
        """
        n_before = int(self.first_stage is not None)
        self._stage_names = ["first_stage"] * n_before
        self._stage_names += [f"exit_{k}" for k in range(n_before, n_before + n_exits)]
        costs = check_stage_costs(self.stage_costs, self._stage_names)
        costs = add_fetch_costs(costs, [self.first_stage])
        self._check_policy(len(self.classes_), costs, metadata)
        if rows.held_out is not None:
            self._check_held_out(rows.held_out[0])
        if costs is None and n_before and needs_costs(self.thresholds):
            check_countable([("first_stage", self.first_stage)], self.thresholds)
        return costs

    def _count_costs(self, first, exit_multiply_adds, costs):
        """Set multiply-adds and costs; raise when a budget is below the cheapest exit's."""
        counts = list(exit_multiply_adds)
        if first is not None:
            counts.insert(0, count_multiply_adds(first.scorer.estimator))
        self.multiply_adds_ = None
        if all(counts):  # a stage that seems to compute nothing was not understood
            self.multiply_adds_ = np.array(counts, dtype=np.float64)
        self.stage_costs_ = costs
        if costs is None and self.multiply_adds_ is not None:
            self.stage_costs_ = self.multiply_adds_ / self.multiply_adds_.sum()
        if needs_costs(self.thresholds):
            self.thresholds.check_known(len(self._stage_names), self.stage_costs_)

    def _fit_net(self, net, rows, first, split):
        """Train the net on the rows, with the first stage's confidences of them."""
        fitter, confidence = rows.fitter, None
        if first is not None:
            # A row that no fold scores counts as one of which nothing is known.
            confidence = np.nan_to_num(first.proba.max(axis=1), nan=0.0)
        seed = seeds_for(fitter.seed, "exit_weighting", 1)[0]
        try:
            with fitter.progress.task("net"):
                self.net_ = net.fit_exits(
                    fitter.X,
                    fitter.classes[fitter.codes],
                    fitter.sample_weight,
                    rows.stage_params.get("net"),
                    split=split,
                    weigher=start_weigher(self.exit_weighting, seed),
                    first_confidence=confidence,
                )
        except Exception as error:
            error.add_note("This happened in the fit of the net.")
            raise

    def _fit_ensemble(self, rows, first, split):
        """Set the weights with which stages answer, fitted on rows that validate the net."""
        self.ensemble_weights_ = None
        if not self.ensemble or split is None:
            return
        fitter, idx = rows.fitter, split[1]
        if first is not None:
            idx = idx[fitter.scored[idx]]  # out-of-fold scores are for those only
        if not idx.size:
            return
        stage_proba = self._own_scores(
            take_rows(fitter.X, idx), None if first is None else first.proba[idx]
        )
        weight = rows.weight[idx]
        self.ensemble_weights_ = fit_stack(
            stage_proba, fitter.codes[idx], weight * (idx.size / weight.sum())
        )

    def _own_scores(self, X, first_proba):
        """Scores of all stages by themselves, those of the first one given."""
        of_net = self.net_.exit_proba(X)
        if first_proba is None:
            return of_net
        return np.concatenate([first_proba[:, None], of_net], axis=1)

    def _keep_stages(self, first):
        """Set what is known of the fitted stages."""
        self._scorer = self.first_stage_ = None
        self._first_checks_all, self._gives_own_arrays = False, [True] * self.net_.n_exits_
        if first is not None:
            self._scorer, self.first_stage_ = first.scorer, first.scorer.estimator
            self._first_checks_all = checks_all_columns(self.first_stage_)
            self._gives_own_arrays.insert(0, gives_own_arrays(self.first_stage_))

    def _held_out_scores(self, rows, first):
        """What policies see: the rows held out, or none."""
        if rows.held_out is None:
            return self._scores_held_out(rows, None)
        stage_proba = self._own_scores(
            rows.fitter.X_held_out, None if first is None else first.held_out_proba
        )
        if self.ensemble_weights_ is not None:
            stage_proba = stack_all(self.ensemble_weights_, stage_proba)
        return self._scores_held_out(rows, stage_proba)

    def _steps(self):
        """Steps for `skmsc.routing.route`; the exits run on hidden features."""
        n_before = len(self._stage_names) - self.net_.n_exits_
        recalls = self.ensemble_weights_ is not None
        steps = [partial(self.net_.run_exit, k, log=recalls) for k in range(self.net_.n_exits_)]
        if not recalls:
            return ([self._scorer.step] if n_before else []) + steps
        steps = [partial(self._recalling_step, k + n_before, s) for k, s in enumerate(steps)]
        return [self._first_recalled_step] * n_before + steps

    def _routed(self, X, errors, steps=None, **how):
        """As in the base; for few rows no exit wakes threads."""
        steps, n_before = steps or self._steps(), self._pieces[0]
        exits = [partial(self._run_limited, _num_samples(X), step) for step in steps[n_before:]]
        return super()._routed(X, errors, steps[:n_before] + exits, **how)

    def _run_limited(self, n_rows, step, carry):
        """An exit's step, of so many rows in all, on as many threads as these are worth."""
        with self.net_._limit_threads(n_rows):
            return step(carry)

    def _first_recalled_step(self, X):
        """The first stage, whose log-probabilities the exits will recall."""
        proba = self._scorer(X)
        return proba, _Waiting(X, (stack_logs(proba),))

    def _recalling_step(self, k, run_exit, carry):
        """An exit whose answer combines its own scores with those of the stages before it."""
        carry, logs = (carry.carry, carry.logs) if k else (carry, ())
        log_proba, carry = run_exit(carry)
        logs = (*logs, as_stack_logs(log_proba))
        proba = stacked(self.ensemble_weights_[k, : k + 1], logs)
        return proba, None if carry is None else _WaitingInside(carry, logs)

    def _asks_last(self, thresholds):
        """Whether a `thresholds` argument looks at the last stage's scores: budgets may here."""
        return needs_last_stage(thresholds) or getattr(thresholds, "spread", "") is None

    @property
    def _pieces(self):
        """From which step on rows are routed so many at once."""
        return len(self._stage_names) - self.net_.n_exits_, self.net_._rows_at_once()

    def _stage_parts(self):
        """The (name, part) pairs that are fitted."""
        net = default_net() if self.net is None else self.net
        first = [] if self.first_stage is None else [("first_stage", self.first_stage)]
        return [*first, ("net", net)]

    def _sk_visual_block_(self):
        names = ["first_stage", "net"][self.first_stage is None :]
        parts = [self.first_stage, self.net if self.net is not None else "MultiExitNet()"]
        return _VisualBlock(
            "serial", parts[self.first_stage is None :], names=names, dash_wrapped=True
        )


@dataclass(frozen=True)
class _Waiting:
    """What the next step needs of the rows that wait, and the log-probabilities they have had."""

    carry: object
    logs: tuple

    def take_rows(self, idx):
        """The same of some of the rows, integers or a slice."""
        return type(self)(take_rows(self.carry, idx), tuple(log[idx] for log in self.logs))


class _WaitingInside(_Waiting):
    """Rows that wait between two exits, whose features are the net's own."""

    def close_ranks(self, holes, movers, n_rows):
        """See `Hidden.close_ranks`."""
        for log in self.logs:
            log[holes] = log[movers]
        carry = self.carry.close_ranks(holes, movers, n_rows)
        return _WaitingInside(carry, tuple(log[:n_rows] for log in self.logs))
