"""FeedbackCascadeClassifier: stages trained in the reverse of their working order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_memory

from skmsc._base import Evidence, MultiStageClassifier
from skmsc._checks import (
    check_number,
    check_two_classes,
    check_unlabeled_label,
    check_weight,
    find_labeled,
    is_number,
    warn,
)
from skmsc._progress import Progress
from skmsc._sklearn import (
    _BaseComposition,
    _VisualBlock,
    take_rows,
    with_callbacks,
)
from skmsc.calibration import check_calibration
from skmsc.costs import add_fetch_costs, check_countable, check_stage_costs, count_costs
from skmsc.out_of_fold import CrossFit
from skmsc.stages import (
    check_costly,
    check_frozen,
    check_stages,
    checks_all_columns,
    costly_head,
    gives_own_arrays,
)
from skmsc.thresholds import (
    PassBudget,
    check_independent,
    eager_stage,
    find_row_values,
    needs_costs,
    needs_last_stage,
)
from skmsc.training.feedback import check_feedback
from skmsc.training.reverse import Guide, find_catch_threshold, train_stage
from skmsc.training_rows import choose_training_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from joblib import Memory
    from numpy.typing import ArrayLike

    from skmsc._typing import (
        Estimator,
        Label,
        OnStageError,
        RandomState,
        Rows,
        Splitter,
        StageCosts,
        Strategy,
        Thresholds,
    )


class FeedbackCascadeClassifier(MultiStageClassifier, _BaseComposition):
    """Cascade whose later stages tell the earlier ones, in training, which rows matter.

    At work the stages run in the order given: an early stage answers the rows that it can dismiss
    as negative and passes the rest on; the last stage decides these. They are trained in the
    reverse order: the out-of-fold scores of the later stages weigh the training rows of an earlier
    one. Two classes, one of them rare, are the main use; more than two work with
    ``feedback="none"``.

    Parameters
    ----------
    stages : list of (str, classifier), default=None
        Stages in working order, cheapest first, as in `VotingClassifier`: any scikit-learn
        classifier, pipeline or `FrozenEstimator` (used as it is, taken to have seen none of the
        training rows), or skorch net; "drop" leaves a stage out. None stands for
        `skmsc.default_stages()`.
    feedback : {"caught", "gain", "none", "auto"}, strategy or callable, default="caught"
        What later stages tell earlier ones: `CaughtFeedback`, `GainFeedback`, nothing, or what
        `AutoFeedback` finds best. A callable gets ``(positive, later_proba, catch_threshold)``,
        arrays of shape (n_samples,) and (n_samples, n_later_stages) and a number, and returns
        weights of shape (n_samples,), each by its own row; rows without a label come twice, as
        negatives and as positives.
    catch_threshold : float or {"best_f1", "argmax"}, default="best_f1"
        Score of the last stage from which a positive counts as caught, in feedback, recall floors
        and reports alike: the cut of best F1 on out-of-fold scores, 1/2 for "argmax", or a number
        in [0, 1]. How many rows must pass to keep the caught positives depends on it strongly.
    survivor_rate : float, default=None
        Share of rows in (0, 1], the ones that the earlier stages score highest, on which the last
        stage is fitted again, since it will meet no others at work. In our benchmark it helped
        LightGBM and not a forest; measure it. None: the last stage is fitted on all rows. With
        ``feedback="none"`` and thresholds that are numbers or a budget of passes or costs, a last
        stage that begins with `CostlyFeatures` is fitted on these rows only, and its features of
        the others are not fetched; what counts as caught is then told by this fit. Splits whose
        training part holds one class of survivors, as the first of a `TimeSeriesSplit`, are left
        out; their rows keep the scores of the fit on all rows, if there is one.
    thresholds : float, array-like or policy, default=None
        When a row is passed on. A number t passes a row whose positive score is above t (for more
        than two classes: answers a row whose largest score reaches t); one number for each early
        stage, or a matrix as ``thresholds_``. A policy finds them on out-of-fold scores, or on the
        rows of `validation_fraction`: `PassBudget`, `CostBudget`, `AlertBudget`, `RecallFloor`,
        `Agreement`, `ExpectedCost`. None keeps quality: ``RecallFloor(0.99, max_pass_rate=0.2)``,
        the cap raised to twice the share of caught positives where these are common; for more than
        two classes ``Agreement(0.01)``.
    stage_costs : array-like of shape (n_stages,) or dict of str to float, default=None
        Cost >= 0 of running each stage on one row, in any unit; the `cost` of a stage's
        `CostlyFeatures` comes on top. None: multiply-adds, where they can be counted for every
        stage; otherwise costs are unknown.
    calibration : {"sigmoid", "isotonic", "temperature", None}, default="sigmoid"
        How each stage's scores become the probabilities of `predict_proba`, so that rows answered
        by different stages are comparable. Fitted out-of-fold, on the rows that reach the stage.
        Thresholds act on raw scores.
    cv : int, splitter or iterable, default=5
        Splits for the out-of-fold scores. Each stage is fitted once for every split and once on
        all rows. Rows that are scored twice are averaged; rows that are never scored train every
        stage with neutral feedback, the mean weight of their class, and enter no threshold and no
        calibration. A split that tests no labelled row is left out.
    validation_fraction : float, default=None
        Share of the labelled rows in (0, 1) held out of everything but the thresholds, as a policy
        with `confidence` needs it: the last ones when `cv` is a `TimeSeriesSplit`, the latest by
        ``time`` when it is a `TimeDelaySplit`, whole groups when `groups` are given, else
        stratified at random.
    pos_label : label, default=None
        Positive class, the one that an early stage may not answer; None: ``classes_[1]``.
    memory : None, str or joblib.Memory, default=None
        Cache of the stages' fits. Fits never depend on `thresholds` (but see `survivor_rate`), so
        with an integer `random_state` a search over thresholds fits nothing twice. Stages must be
        picklable then.
    store_oof : bool, default=False
        Whether to keep ``oof_stage_proba_`` and ``feedback_weights_``.
    unlabeled_label : float or str, default=None
        Value of y in rows without a label; None: every row has one. With feedback an earlier stage
        learns each such row twice, as a positive and as a negative, by the chance that the last
        stage gives it; nothing else is learned from it, and it is in no score and no report. `cv`
        splits all rows, and unlabelled ones leave its test parts; for a search around the cascade
        `skmsc.model_selection.LabeledTestFolds` does that.
    on_stage_error : {"raise", "answer_earlier", "alert"}, default="raise"
        What happens when a stage after the first raises an error at predict time. "raise": it goes
        on. Else a warning tells the stage, how many rows and the error, `route` and `report` mark
        the rows, and all rows of that run of the stage have, with "answer_earlier", the calibrated
        probabilities of the stage before: this **fails open**, a row that should have been looked
        at is answered by a cheaper stage; with "alert", for two classes, the positive class at
        probability 1, and they are alerts. `fit`, `tune_thresholds`, `stage_proba` and
        `staged_predict_proba` always raise, and so does an error of the first stage.
    n_jobs : int, default=None
        Jobs for the fits of a stage.
    random_state : int, RandomState instance or None, default=None
        Every part of a stage whose own `random_state` is None gets a seed from it, the stage's
        name and the fold.
    verbose : int, default=0
        Whether to print a line for each fit of a stage; above 1 the jobs print theirs, too. A net
        prints its epochs by its own `verbose`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    stages_ : list of estimators
        Fitted stages.
    named_stages_ : dict of str to estimator
        The same by name.
    thresholds_ : ndarray of shape (n_stages, n_classes)
        Stage k answers a row as soon as, for some class c, its score reaches ``thresholds_[k, c]``:
        `inf` is never, and the last row is `-inf`.
    alert_threshold_ : float or None
        Positive probability from which a row is an alert, where `thresholds` is an `AlertBudget` or
        `ExpectedCost`: see `alerts`. `predict` does not look at it.
    catch_threshold_ : float or None
        Score from which a positive counts as caught; None for more than two classes.
    stage_costs_ : ndarray of shape (n_stages,) or None
        Cost of running each stage on one row, in the units of `stage_costs`; without these, in
        multiply-adds. None where they are unknown.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, when X was a dataframe with string column names.
    oof_stage_proba_ : ndarray of shape (n_samples, n_stages, n_classes)
        Out-of-fold scores, nan for rows that none gives; with ``store_oof=True``.
    feedback_weights_ : ndarray of shape (n_samples, n_stages)
        Weights that feedback gave the rows of each stage, before the caller's weights are
        multiplied in, both together for a row without a label; nan for rows that were not trained
        on; with ``store_oof=True``.
    feedback_comparison_ : dict of str to ndarray
        What `AutoFeedback` compared, one entry for each stage and candidate, as columns of a table
        (``pandas.DataFrame(feedback_comparison_)``): `stage`, `feedback`, `retained_recall`, its
        paired `difference` from "none", the `standard_error` of that, and `chosen`; with
        ``feedback="auto"`` or `AutoFeedback`, where there is an early stage.

    Raises
    ------
    ValueError
        From `fit`, before any stage is fitted, when an argument is not valid. (What a stage itself
        refuses, as the columns of a dataframe, it refuses in its own fit.)

    See Also
    --------
    sklearn.ensemble.StackingClassifier : Stages that all run on every row.
    sklearn.model_selection.FixedThresholdClassifier : Another cut than 1/2 for `predict`.

    Notes
    -----
    The last stage is fitted first, with true labels. Its out-of-fold score p and the catch
    threshold t give the chance that it catches a row, ``q = sigma((logit p - logit t) / T)``; what
    an earlier stage is then trained on is derived in `CaughtFeedback` and `GainFeedback`. In-sample
    scores would look perfect and tell nothing, so all scores that anything is learned from are
    out-of-fold.

    Feedback helps where the last stage errs and the first has few rows or features; where a screen
    sees all that the last stage sees, it changes little. Without feedback this is an ordinary
    cascade.

    Rows without a label reach an earlier stage's pipeline twice, once as either class. Steps that
    look at y but take no weights are misled by that: select features before the cascade.

    References
    ----------
    Training a Multi-Stage Deep Classifier with Feedback Signals, arXiv 2311.06823: training in
    reverse order, guided by sample weights. Its formulas are not used; ours are derived.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc import FeedbackCascadeClassifier, PassBudget
    >>> X, y = make_classification(2000, weights=[0.95], random_state=0)
    >>> cascade = FeedbackCascadeClassifier(thresholds=PassBudget(0.2), random_state=0).fit(X, y)
    >>> cascade.predict_proba(X[:2]).shape
    (2, 2)
    >>> float((cascade.route(X).stage == 1).mean()) < 0.25
    True
    """

    __metadata_request__fit = {"time": False}  # requested by the policies that read it

    def __init__(
        self,
        stages: Sequence[tuple[str, Estimator]] | None = None,
        *,
        feedback: Literal["caught", "gain", "none", "auto"] | Strategy = "caught",
        catch_threshold: float | Literal["best_f1", "argmax"] = "best_f1",
        survivor_rate: float | None = None,
        thresholds: Thresholds = None,
        stage_costs: StageCosts = None,
        calibration: Literal["sigmoid", "isotonic", "temperature"] | None = "sigmoid",
        cv: Splitter = 5,
        validation_fraction: float | None = None,
        pos_label: Label = None,
        memory: str | Memory | None = None,
        store_oof: bool = False,
        unlabeled_label: float | str | None = None,
        on_stage_error: OnStageError = "raise",
        n_jobs: int | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.stages = stages
        self.feedback = feedback
        self.catch_threshold = catch_threshold
        self.survivor_rate = survivor_rate
        self.thresholds = thresholds
        self.stage_costs = stage_costs
        self.calibration = calibration
        self.cv = cv
        self.validation_fraction = validation_fraction
        self.pos_label = pos_label
        self.memory = memory
        self.store_oof = store_oof
        self.unlabeled_label = unlabeled_label
        self.on_stage_error = on_stage_error
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @property
    def named_stages_(self) -> dict[str, Estimator]:
        """Fitted stages by name."""
        return dict(zip(self._stage_names, self.stages_, strict=True))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters, those of the given stages among them as ``name__parameter``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the stages and their parameters.

        Returns
        -------
        params : dict
        """
        return self._get_params("stages", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters; a stage is replaced, or dropped with "drop", by its name.

        Parameters
        ----------
        **params : dict
            Parameters, of stages as ``name__parameter``.

        Returns
        -------
        self : FeedbackCascadeClassifier
        """
        self._set_params("stages", **params)
        return self

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
        """Fit the stages, last one first, and set the thresholds.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Training rows. Arrays are checked as in scikit-learn; sparse matrices and nan are
            accepted where every stage accepts them; of dataframes only names and shape are
            checked, their columns are the stages' business.
        y : array-like of shape (n_samples,)
            Labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0: a weight of 2 counts as two rows, of 0 as none.
        false_negative_cost, false_positive_cost : array-like of shape (n_samples,), default=None
            Costs >= 0 of each row, for an `ExpectedCost` that has none.
        **fit_params : dict
            ``groups`` and ``time`` for `cv`, ``time`` also for `AlertBudget`; with metadata routing
            enabled, what `cv` and the stages ask for.

        Returns
        -------
        self : FeedbackCascadeClassifier

        Raises
        ------
        ValueError
            When an argument is not valid, a class is missing from a training part of `cv`, or the
            policy of `thresholds` cannot be met.
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
        """Fit the stages, last one first; give what thresholds and calibrations are found on."""
        grouped = fit_params.get("groups") is not None
        pairs, costs = self._check_parameters()
        self._stage_names = [name for name, _ in pairs]
        rows = self._check_training_rows(X, y, sample_weight, fit_params, pairs, costs)
        last, spares = len(pairs) - 1, self._spares_fetches(pairs)
        fits = [CrossFit.unknown(rows.fitter)] * len(pairs)
        feedback_weights, comparisons = np.ones((rows.idx.size, len(pairs))), []
        self.catch_threshold_ = None  # until the last stage has scores

        # Reverse pass: the last stage learns the labels; each earlier one learns what the
        # later ones, by their out-of-fold scores, make of its rows.
        for k in reversed(range(last if spares else last + 1)):
            guide = Guide(fits[k + 1 :], rows, self._positive, self.catch_threshold_, costs)
            fits[k], feedback_weights[:, k], comparison = train_stage(
                self.feedback, *pairs[k], guide, score_unlabeled=k > 0
            )
            if comparison:
                comparisons.insert(0, comparison)
            if k == last:
                judge = self._judge_by(fits[last], rows)

        # Survivors: the last stage again, on the rows that it will meet at work.
        survivors = self._find_survivors(fits, rows)
        if spares:
            fits[last] = rows.fit_on_labels(*pairs[last], survivors, fetch_others=False)
            if survivors is not None:
                feedback_weights[~survivors, last] = np.nan
            judge = self._judge_by(fits[last], rows)
        elif survivors is not None and not isinstance(pairs[last][1], FrozenEstimator):
            fits[last] = rows.fit_on_labels(*pairs[last], survivors).filled_by(judge)

        self._keep_stages([fit.scorer for fit in fits], costs)
        seen = self._scores_for(fits, judge, rows)
        scores = seen if rows.held_out is None else self._held_out_scores(fits, judge, rows)
        if comparisons:
            self.feedback_comparison_ = {
                column: np.concatenate([part[column] for part in comparisons])
                for column in comparisons[0]
            }
        if self.store_oof:
            stage_proba = np.stack([fit.proba for fit in fits], axis=1)
            self.oof_stage_proba_ = rows.spread(stage_proba)
            self.feedback_weights_ = rows.spread(feedback_weights)
        return Evidence(scores, seen, grouped)

    def _decide(self, evidence):
        """Set thresholds and calibrations; see the base class."""
        super()._decide(evidence)
        self._warn_of_loose_thresholds(evidence.scores)

    def _training_kind(self):
        """Whether training rows that do not survive are spared costly features."""
        return self._spares_fetches(self._stage_parts()), self._row_kind()

    def score(self, X: Rows, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Give the accuracy on the rows that have a label.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Labels; rows with `unlabeled_label` are left out.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights.

        Returns
        -------
        score : float
        """
        if self.unlabeled_label is not None:
            X = X if hasattr(X, "shape") else np.asarray(X)
            idx = np.flatnonzero(self._find_labeled(y))
            if not idx.size:
                raise ValueError(f"y holds no label: every row is {self.unlabeled_label!r}.")
            X, y, sample_weight = (take_rows(part, idx) for part in (X, y, sample_weight))
        return super().score(X, y, sample_weight)

    def _check_parameters(self):
        """Validate what needs no data; return the (name, stage) pairs in use, and their costs."""
        pairs = check_stages(self.stages, reserved=self._get_param_names())
        names = [name for name, _ in pairs]
        dropped = [name for name, _ in self.stages or [] if name not in names]
        costs = check_stage_costs(self.stage_costs, names, dropped)
        costs = add_fetch_costs(costs, [stage for _, stage in pairs])
        check_feedback(self.feedback, costs, unlabeled=self.unlabeled_label is not None)
        if costs is None and needs_costs(self.thresholds):
            check_countable(pairs, self.thresholds)
        if isinstance(self.catch_threshold, str):
            valid = self.catch_threshold in ("best_f1", "argmax")
        else:
            valid = is_number(self.catch_threshold) and 0 <= self.catch_threshold <= 1
        if not valid:
            raise ValueError(
                "catch_threshold must be 'best_f1', 'argmax' or a number in [0, 1]; got "
                f"{self.catch_threshold!r}."
            )
        check_number("survivor_rate", self.survivor_rate, "(0, 1]", optional=True)
        check_number("validation_fraction", self.validation_fraction, "(0, 1)", optional=True)
        check_calibration(self.calibration)
        check_memory(self.memory)
        if self.unlabeled_label is not None:
            check_unlabeled_label(self.unlabeled_label)
        return pairs, costs

    def _check_training_rows(self, X, y, sample_weight, fit_params, pairs, costs):
        """Validate the rows and what depends on them; return a `TrainingRows`."""
        self._accepts = self._input_tags()
        X, y, sample_weight = self._check_X_y(X, y, sample_weight)
        labeled = self._find_labeled(y)
        used = labeled if sample_weight is None else labeled & (sample_weight > 0)
        if not used.any():
            raise ValueError(
                f"y holds no label: every row with a weight is unlabeled_label="
                f"{self.unlabeled_label!r}."
            )
        self._check_classes(y[used], None if sample_weight is None else sample_weight[used])
        self._check_on_stage_error(self._positive is not None)
        for name, stage in pairs:
            check_frozen(name, stage, self.classes_, self.n_features_in_)
            check_costly(name, stage, X)
        metadata = self._take_row_metadata(fit_params)
        self._check_policy(len(self.classes_), costs, metadata)
        row_values = find_row_values(self.thresholds, metadata, check_weight(sample_weight, len(y)))
        split_params, stage_params = self._route_metadata(fit_params, pairs)
        weight = None if sample_weight is None else sample_weight[used]
        check_independent(self.thresholds, weight, split_params.get("groups"))

        rows = choose_training_rows(
            X,
            y,
            sample_weight,
            labeled=labeled,
            learn_unlabeled=self._uses_feedback(),
            classes=self.classes_,
            positive=self._positive,
            cv=self.cv,
            split_params=split_params,
            stage_params=stage_params,
            validation_fraction=self.validation_fraction,
            rng=check_random_state(self.random_state),
            n_jobs=self.n_jobs,
            memory=self.memory,
            progress=Progress(self),
        )
        if rows.held_out is not None:
            self._check_held_out(rows.held_out[0])
        return replace(rows, row_values=row_values)

    def _check_classes(self, y, sample_weight):
        """Set `classes_` and the codes of the positive and the negative class."""
        self.classes_ = np.unique(y)
        check_two_classes(self, self.classes_)
        n_classes = len(self.classes_)
        if n_classes > 2:
            if self._uses_feedback():
                raise ValueError(
                    "Only binary classification is supported. The type of the target is "
                    f"{type_of_target(y)}. With feedback='none' any number of classes is; a label "
                    "that stands for no label is named by unlabeled_label."
                )
            if self.pos_label is not None:
                raise ValueError(
                    f"pos_label={self.pos_label!r} has no meaning for {n_classes} classes; leave "
                    "it at None."
                )
            self._positive = self._negative = None
            return
        self._positive = 1
        if self.pos_label is not None:
            if self.pos_label not in self.classes_.tolist():
                raise ValueError(
                    f"pos_label must be one of {self.classes_.tolist()}; got {self.pos_label!r}."
                )
            self._positive = self.classes_.tolist().index(self.pos_label)
        elif np.average(y == self.classes_[1], weights=sample_weight) > 0.5:
            warn(
                "The positive class {1!r} is the more frequent one; early stages answer only the "
                "other, {0!r}. Set pos_label to choose.".format(*self.classes_.tolist())
            )
        self._negative = 1 - self._positive

    def _uses_feedback(self):
        """Whether later stages weigh the rows of earlier ones."""
        return not (isinstance(self.feedback, str) and self.feedback == "none")

    def _find_labeled(self, y):
        """Mask of the rows with a label."""
        if self.unlabeled_label is None:
            return np.ones(len(y), dtype=bool)
        return find_labeled(y, self.unlabeled_label)

    def _spares_fetches(self, pairs):
        """Whether nothing asks for the last stage's scores of training rows that do not survive.

        Then its costly features are fetched only for the rows that survive the earlier stages.
        """
        return (
            self.survivor_rate is not None
            and len(pairs) > 1
            and costly_head(pairs[-1][1]) is not None
            and not self._uses_feedback()
            and not needs_last_stage(self.thresholds)
        )

    def _keep_stages(self, scorers, costs):
        """Set what is known of the fitted stages; costs None are counted, where they can be."""
        self._scorers = scorers
        self.stages_ = [scorer.estimator for scorer in scorers]
        self.stage_costs_ = count_costs(self.stages_) if costs is None else costs
        self._first_checks_all = checks_all_columns(self.stages_[0])
        self._gives_own_arrays = [gives_own_arrays(stage) for stage in self.stages_]

    def _judge_by(self, fit, rows):
        """Let a fit of the last stage decide what counts as caught; returns it."""
        self.catch_threshold_ = find_catch_threshold(
            self.catch_threshold, fit.proba, rows, self._positive
        )
        self._catcher = fit.scorer
        return fit

    def _find_survivors(self, fits, rows):
        """Mask of the rows that the earlier stages score highest; None: train on all rows."""
        if self.survivor_rate is None or len(fits) == 1:
            return None
        scores = self._scores_for(fits, None, rows)
        thresholds = PassBudget(self.survivor_rate).find_thresholds(scores)
        survivors = rows.fitter.scored.copy()
        survivors[survivors] = eager_stage(scores.stage_proba, thresholds) == scores.n_stages - 1
        if (survivors & rows.fitter.with_splits_for(survivors).scored).any():
            return survivors
        warn(
            f"survivor_rate={self.survivor_rate} leaves, in every training part of cv, rows of one "
            "class or none: the last stage is fitted on all rows."
        )
        return None

    def _scores_for(self, fits, judge, rows):
        """What policies see of the training rows that have out-of-fold scores.

        `judge` is the fit of the last stage that decides what is caught; None: nothing asks.
        """
        scored = rows.fitter.scored
        codes, caught = rows.fitter.codes[scored], None
        if judge is not None:
            caught = self._caught_by(judge.proba[scored], self._is_positive(codes))
        stage_proba = np.stack([fit.proba[scored] for fit in fits], axis=1)
        row_values = rows.row_values_of(rows.idx[scored])
        return self._make_scores(
            stage_proba, codes, rows.weight[scored], caught, row_values, untouched=False
        )

    def _held_out_scores(self, fits, judge, rows):
        """What policies see of the held-out rows."""
        codes = np.searchsorted(self.classes_, rows.held_out[0])
        caught = self._caught_by(judge.held_out_proba, self._is_positive(codes))
        stage_proba = np.stack([fit.held_out_proba for fit in fits], axis=1)
        return self._scores_held_out(rows, stage_proba, caught)

    def _caught_by(self, last_proba, positive):
        """Positives whose score by the last stage reaches the catch threshold."""
        if positive is None:
            return None
        return positive & (last_proba[:, self._positive] >= self.catch_threshold_)

    def _caught(self, X, positive, last_proba):
        """Mask of the positives that the last stage, as fitted on all rows, catches."""
        if positive is None:
            return None
        known = ~np.isnan(last_proba[:, 0])
        if self._catcher is not self._scorers[-1]:
            known[:] = False
        caught = known & self._caught_by(last_proba, positive)
        idx = np.flatnonzero(positive & ~known)
        if idx.size:
            caught[idx] = self._caught_by(self._catcher(take_rows(X, idx)), positive[idx])
        return caught

    def _steps(self):
        """Steps for `skmsc.routing.route`: each runs its stage on the waiting rows of X."""
        return [scorer.step for scorer in self._scorers]

    def _warn_of_loose_thresholds(self, scores):
        """Warn when more rows reach the last stage than it was fitted on."""
        if self.survivor_rate is None or scores.n_stages == 1:
            return
        pass_rate = scores.pass_rates(self.thresholds_)[-1]
        if pass_rate > 1.1 * self.survivor_rate:
            warn(
                f"The thresholds pass {pass_rate:.3f} of the rows, but survivor_rate="
                f"{self.survivor_rate}: the last stage will meet rows unlike those that it was "
                "fitted on."
            )

    def _stage_parts(self):
        """The (name, stage) pairs in use."""
        return check_stages(self.stages, reserved=())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = not self._uses_feedback()
        return tags

    def _sk_visual_block_(self):
        pairs = self.stages if isinstance(self.stages, (list, tuple)) else []
        if not pairs:
            return _VisualBlock("single", None, names="default stages", name_details="")
        names, stages = zip(*pairs, strict=True)
        return _VisualBlock("serial", list(stages), names=list(names), dash_wrapped=True)
