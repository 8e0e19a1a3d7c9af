"""What the multi-stage classifiers share: everything after the fit, thresholds to begin with."""

from __future__ import annotations

from copy import copy as shallow_copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone

from skmsc._answers import INSTEAD, Answers
from skmsc._checks import check_choice, check_weight, no_half_fit, warn
from skmsc._progress import told
from skmsc._reports import Reports
from skmsc._rows import ChecksRows, without_none
from skmsc._sklearn import CallbackSupportMixin, _num_samples, take_rows
from skmsc.calibration import fit_calibrations
from skmsc.reporting._monitor import ScoreReference
from skmsc.routing import StageErrors, route, row_slices
from skmsc.stages import stage_input_tags
from skmsc.thresholds import (
    StageScores,
    check_independent,
    check_policy,
    eager_stage,
    find_row_values,
    fit_thresholds,
    needs_labels,
    needs_last_stage,
    needs_rows,
    refuse_blind_raise,
    row_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray
    from sklearn.utils.metadata_routing import MetadataRouter

    from skmsc._typing import Bools, Floats, Rows, Thresholds
    from skmsc.routing import Routing


@dataclass(frozen=True)
class Evidence:
    """What thresholds and calibrations are found on, once the stages are fitted.

    Attributes
    ----------
    scores : StageScores
        Of the rows that thresholds are found on.
    seen : StageScores
        Of the rows that calibrations are fitted on; they may be the same.
    grouped : bool
        Whether rows came in groups.
    """

    scores: StageScores
    seen: StageScores
    grouped: bool
    _of_all: dict = field(default_factory=dict)  # by stage; see `fit_calibrations`


class MultiStageClassifier(
    Reports, ChecksRows, Answers, CallbackSupportMixin, ClassifierMixin, BaseEstimator
):
    """Prediction by lazy routing, thresholds that can be tuned after the fit, reports.

    A subclass's `fit` calls `_fit`, which is two steps: ``_learn(X, y, sample_weight,
    **fit_params)``, a method of the subclass, fits the stages and gives the `Evidence`, on which
    ``_decide(evidence)`` finds thresholds and calibrations. They set ``classes_``,
    ``thresholds_``, ``stage_costs_`` and the private ``_stage_names``, ``_calibrations`` (one per
    stage), ``_positive`` (code of the class that reports count, or None), ``_negative`` (code of
    the only class that early stages may answer, or None), ``_accepts`` (sparse, allow_nan),
    ``_first_checks_all`` (whether stage 0 refuses what is not finite in any column) and
    ``_gives_own_arrays`` (for each stage, whether nobody else holds the scores that it gives). The
    subclass has two more methods: ``_stage_parts()``, the (name, part) pairs that are fitted, and
    ``_steps()``, the steps for `skmsc.routing.route`, one for each stage.
    """

    # What a fit leaves beside the attributes that end in an underscore.
    _fitted_names: tuple[str, ...] = (
        "_accepts",
        "_calibrations",
        "_catcher",
        "_first_checks_all",
        "_gives_own_arrays",
        "_keeps_answers",
        "_measure",
        "_negative",
        "_other_limit",
        "_other_top",
        "_positive",
        "_reference",
        "_scorer",
        "_scorers",
        "_stage_names",
    )

    _measure = "max_proba"  # what thresholds act on; see `acting_scores`
    _spread = "geometric"  # of a budget over stages; see `PassBudget`
    _pieces = None  # how rows are routed; see `skmsc.routing.route`
    _reference = None  # what `monitor` compares with

    def _caught(self, X, positive, last_proba):
        """Mask of the positives that the last stage catches; None without a positive class.

        `last_proba` are the last stage's scores of the rows, nan where it did not run.
        """
        return None

    def predict(self, X: Rows) -> NDArray[Any]:
        """Predict the class of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Most likely class by `predict_proba`.
        """
        return self._told(
            self._check_rows(X), lambda routing: self.classes_[routing.proba.argmax(axis=1)]
        )

    def predict_proba(self, X: Rows) -> Floats:
        """Predict class probabilities, running later stages only on rows that reach them.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Calibrated probabilities of the stage that answered the row, in the order of
            ``classes_``. Where an early stage answered, the class it answered is the likeliest,
            and where it dismissed the row the positive probability is below ``alert_threshold_``.
        """
        return self._told(self._check_rows(X), lambda routing: routing.proba)

    def alerts(self, X: Rows) -> Bools:
        """Tell which rows are alerts: their positive probability reaches ``alert_threshold_``.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        alerts : ndarray of shape (n_samples,) of bool

        Raises
        ------
        ValueError
            When the policy that set the thresholds sets no alert threshold, `AlertBudget` and
            `ExpectedCost` do, or the classes' heads have changed since.
        """
        X = self._check_rows(X)
        if getattr(self, "alert_threshold_", None) is None:
            raise ValueError(
                f"This {type(self).__name__} has no alert threshold: set its thresholds by "
                "AlertBudget or ExpectedCost, in fit or, also after a change of heads, in "
                "tune_thresholds."
            )
        return self._told(X, self._find_alerts)

    def route(self, X: Rows) -> Routing:
        """Tell which stage answers each row, with what and at what cost.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        routing : skmsc.routing.Routing
            With ``stage`` of shape (n_samples,), ``proba`` of shape (n_samples, n_classes), which
            is what `predict_proba` gives, and ``cost`` of shape (n_samples,) or None.
        """
        return self._route(self._check_rows(X))

    def stage_proba(self, X: Rows) -> Floats:
        """Raw scores of every stage on every row; thresholds act on these.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        stage_proba : ndarray of shape (n_samples, n_stages, n_classes)
        """
        return self._stage_proba(self._check_rows(X))

    def staged_predict_proba(self, X: Rows) -> Iterator[Floats]:
        """Give the answer at each stage, if one had to stop there.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.

        Yields
        ------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities after stage 0, 1, ...: rows that are answered keep their answer, the rest
            have the probabilities of the stage that ran last. The last one is `predict_proba`.
        """
        stage_proba = self.stage_proba(X)
        stage = eager_stage(self._acting(stage_proba), self.thresholds_)
        answers = np.empty_like(stage_proba[:, 0])
        for k in range(stage_proba.shape[1]):
            scores, mine, waiting = stage_proba[:, k], stage == k, stage > k
            answers[mine] = self._answer(k, scores[mine])
            proba = answers.copy()
            proba[waiting] = self._calibrated(k, scores[waiting])
            yield proba

    def tune_thresholds(
        self,
        X: Rows,
        y: ArrayLike | None = None,
        *,
        thresholds: Thresholds,
        sample_weight: ArrayLike | None = None,
        copy: bool = False,
        false_negative_cost: ArrayLike | None = None,
        false_positive_cost: ArrayLike | None = None,
        time: ArrayLike | None = None,
    ) -> Self:
        """Set the thresholds anew on given rows, fitting nothing again.

        Stages and calibration stay as they are.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows, best ones that nothing was fitted on: the stages' scores of their own training
            rows are too good, and a policy with `confidence` keeps its promise only on new rows.
        y : array-like of shape (n_samples,), default=None
            Labels. A policy that counts rows only, `PassBudget`, `CostBudget`, `AlertBudget` or
            `Agreement`, does without, which lets a budget follow rows whose labels have not come
            yet.
        thresholds : policy, float or array-like
            As in the constructor.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0: a weight of 2 counts as two rows, and weight 0 is as good as absence. A
            row whose label became known only by sampling carries 1 / the chance of that, for the
            rows like it whose labels nobody knows: see `skmsc.routing.Routing.shadow`.
        copy : bool, default=False
            Whether to leave this classifier as it is and change a copy, which shares its stages.
        false_negative_cost, false_positive_cost : array-like of shape (n_samples,), default=None
            Costs >= 0 of each row, for an `ExpectedCost` that has none.
        time : array-like of shape (n_samples,), default=None
            Date or number of each row, for `AlertBudget`.

        Returns
        -------
        self : object
            This classifier, or the copy.

        Raises
        ------
        ValueError
            When y holds unknown labels, or the policy cannot be met on these rows; when a
            `RecallFloor` would let a stage dismiss more rows than it does now, and none of the
            labelled rows is one that it dismisses now.
        """
        X = self._check_rows(X)
        metadata = without_none(
            false_negative_cost=false_negative_cost,
            false_positive_cost=false_positive_cost,
            time=time,
        )
        if y is None and needs_labels(thresholds):
            raise ValueError(
                f"thresholds={thresholds!r} requires y to be passed, but the target y is None."
            )
        check_policy(
            thresholds,
            n_stages=len(self._stage_names),
            n_classes=len(self.classes_),
            stage_costs=self.stage_costs_,
            untouched=True,
            given=metadata,
        )
        codes, weight = self._check_labels(X, y, sample_weight)
        all_rows = check_weight(sample_weight, weight.size)
        row_values = find_row_values(thresholds, metadata, all_rows)
        early_only = not self._asks_last(thresholds)
        scores = self._scores_of(X, codes, weight, early_only, row_values)
        matrix = fit_thresholds(thresholds, scores)
        refuse_blind_raise(thresholds, self.thresholds_, matrix, scores)
        tuned = self._copy() if copy else self
        tuned._set_thresholds(matrix, thresholds, scores)
        tuned._keep_reference(scores)
        return tuned

    def _fit(self, X, y, sample_weight, fit_params, **costs):
        """Learn and decide; `costs` are metadata that may be None."""
        with no_half_fit(self, self._fitted_names), told(self):
            self._finish(self._learn(X, y, sample_weight, **fit_params, **without_none(**costs)))
        return self

    def _decide(self, evidence):
        """Set the thresholds, and a calibration for the rows that they let reach each stage."""
        thresholds = fit_thresholds(self.thresholds, evidence.scores)
        self._calibrations = fit_calibrations(
            self.calibration, evidence.seen, thresholds, evidence._of_all
        )
        self._set_thresholds(thresholds, self.thresholds, evidence.scores)

    def _finish(self, evidence):
        """Decide on what was learned, and keep what `monitor` compares with."""
        self._decide(evidence)
        self._keep_reference(evidence.scores)

    def _decided(self, thresholds, evidence):
        """A copy as `fit` would leave it with other thresholds; it shares the stages."""
        scores, other = evidence.scores, shallow_copy(self)
        other.thresholds, other._reference = thresholds, None
        check_policy(
            thresholds,
            n_stages=scores.n_stages,
            n_classes=len(self.classes_),
            untouched=scores.untouched,
            stage_costs=self.stage_costs_,
            given=row_metadata(thresholds),  # as in the fit, or it had failed
        )
        check_independent(thresholds, None, evidence.grouped or None)
        other._check_held_out(self.classes_[scores.y])
        other._decide(evidence)
        return other

    def _training_kind(self):
        """Settings of `thresholds` with the same answer need one `_learn` only."""
        return self.validation_fraction is None and needs_rows(self.thresholds), self._row_kind()

    def _row_kind(self):
        """What `thresholds` reads of each row besides the scores."""
        return row_metadata(self.thresholds), getattr(self.thresholds, "per", None)

    def _copy(self):
        """A copy with parameters of its own, which shares what is fitted."""
        other = shallow_copy(self)
        return other.set_params(**clone(self).get_params(deep=False))

    def _asks_last(self, thresholds):
        """Whether a `thresholds` argument looks at the last stage's scores."""
        return needs_last_stage(thresholds)

    def _route(self, X, **how):
        """Routing of checked rows; warns of stages that raised, where it goes on."""
        errors = self._errors()
        routing = self._routed(X, errors, **how)
        self._warn_of(errors)
        return routing

    def _told(self, X, tell, **how):
        """What `tell` says of the routing of checked rows; of many rows no more is kept than that.

        ``tell(routing)`` is an array with one entry for each row.
        """
        n_rows, at_once, errors = _num_samples(X), self._rows_at_once(X), self._errors()
        if n_rows <= at_once:
            told = tell(self._routed(X, errors, **how))
        else:
            told = None
            for rows in row_slices(n_rows, at_once):
                part = tell(self._routed(take_rows(X, rows), errors, **how))
                if told is None:
                    told = np.empty((n_rows, *part.shape[1:]), dtype=part.dtype)
                told[rows] = part
        self._warn_of(errors)
        return told

    def _routed(self, X, errors, steps=None, answer=None):
        """Routing of checked rows; `errors` collects what stages raise, None lets them raise."""
        return route(
            steps or self._steps(),
            X,
            self.thresholds_,
            self.stage_costs_,
            answer=answer or self._answer,
            acting=None if self._measure == "max_proba" else self._acting,
            pieces=self._pieces,
            on_error=errors,
            at_once=self._rows_at_once(X),
        )

    def _errors(self):
        """What collects the errors of stages; None where they are raised."""
        if self.on_stage_error == "raise":
            return None
        self._check_on_stage_error(self._positive is not None)  # it may be set after the fit
        return StageErrors(self._answer_instead)

    def _warn_of(self, errors):
        """Warn once of all stages that raised."""
        if errors is not None and errors.seen:
            warn(errors.message(self._stage_names, INSTEAD[self.on_stage_error]), RuntimeWarning)

    def _check_on_stage_error(self, has_positive):
        """Raise unless `on_stage_error` is valid for classes of which one is positive, or none."""
        check_choice("on_stage_error", self.on_stage_error, ("raise", *INSTEAD))
        if self.on_stage_error == "alert" and not has_positive:
            raise ValueError(
                "on_stage_error='alert' needs two classes, of which one is positive; use 'raise' "
                "or 'answer_earlier'."
            )

    def _stage_proba(self, X, early_only=False):
        """Scores of all stages on checked rows; those of the last one nan if it is not run."""
        steps, n_rows = self._steps(), _num_samples(X)
        scores = np.full((n_rows, len(steps), len(self.classes_)), np.nan)
        at_once = self._rows_at_once(X)
        if n_rows > at_once:
            for rows in row_slices(n_rows, at_once):
                scores[rows] = self._stage_proba(take_rows(X, rows), early_only)
            return scores
        if early_only:
            steps = steps[:-1]
        n_whole, n_at_once = self._pieces or (len(steps), n_rows)
        carry = X
        for k, step in enumerate(steps[:n_whole]):
            scores[:, k], carry = step(carry)
        for rows in row_slices(n_rows if n_whole < len(steps) else 0, n_at_once):
            part = carry if n_at_once >= n_rows else take_rows(carry, rows)
            for k in range(n_whole, len(steps)):
                scores[rows, k], part = steps[k](part)
        return scores

    def _scores_of(self, X, codes, weight, early_only=False, row_values=None):
        """What policies see of checked rows that nothing was fitted on; codes None: no labels."""
        stage_proba, caught = self._stage_proba(X, early_only), None
        used = weight > 0
        if codes is None:
            codes = np.zeros(weight.size, dtype=np.intp)
        elif not early_only and self._negative is not None:
            caught = self._caught(X, used & self._is_positive(codes), stage_proba[:, -1])
        caught = None if caught is None else caught[used]
        row_values = {name: values[used] for name, values in (row_values or {}).items()}
        return self._make_scores(
            stage_proba[used], codes[used], weight[used], caught, row_values, untouched=True
        )

    def _scores_held_out(self, rows, stage_proba, caught=None):
        """What policies see of the rows held out of `TrainingRows`; `stage_proba` None: of none."""
        if stage_proba is None:
            stage_proba = np.empty((0, len(self._stage_names), len(self.classes_)))
        y, weight = rows.held_out or (self.classes_[:0], np.empty(0))
        codes, row_values = np.searchsorted(self.classes_, y), rows.row_values_of(rows.held_idx)
        return self._make_scores(stage_proba, codes, weight, caught, row_values, untouched=True)

    def _make_scores(self, stage_proba, codes, weight, caught, row_values=None, *, untouched):
        """`StageScores` of rows: their scores, class codes, weights > 0 and what is caught."""
        return StageScores(
            stage_proba=stage_proba,
            y=codes,
            sample_weight=weight,
            negative=self._negative,
            caught=caught,
            stage_costs=getattr(self, "stage_costs_", None),  # in fit perhaps not known yet
            stage_names=tuple(self._stage_names),
            untouched=untouched,
            measure=self._measure,
            spread=self._spread,
            row_values=row_values,
        )

    def _set_thresholds(self, thresholds, policy=None, scores=None):
        """Set the threshold matrix, that of alerts if the policy has one, and what follows.

        `scores` are those that the policy saw.
        """
        self.thresholds_, self.alert_threshold_ = thresholds, None
        self._set_how_answers_show()
        if not hasattr(policy, "find_alert_threshold"):
            return
        self._warn_of_common_alerts(scores)
        last = scores.n_stages - 1
        passed = eager_stage(scores.acting, thresholds) == last
        proba = np.full(passed.size, np.nan)
        proba[passed] = self._answer(last, scores.stage_proba[passed, last])[:, self._positive]
        # Above 0, so that dismissed rows, of probability 0 perhaps, are below it.
        found = float(policy.find_alert_threshold(proba, scores))
        self.alert_threshold_ = max(found, float(np.finfo(np.float64).tiny))
        self._set_how_answers_show()

    def _warn_of_common_alerts(self, scores):
        """Warn where the class that alerts are of is the common one, and nobody chose it."""
        if self._negative is not None:  # the fit chose it, and warned
            return
        if np.average(scores.y == self._positive, weights=scores.sample_weight) > 0.5:
            warn(
                f"Alerts are of the second of two classes, {self._pos_label()!r}, which is the "
                f"more frequent one; a {type(self).__name__} takes no other: let the label of the "
                "rare class sort last."
            )

    def _keep_reference(self, scores):
        """Keep what `monitor` compares with, of the `StageScores` that the thresholds are from."""
        self._reference = ScoreReference.of_scores(scores, self.thresholds_)

    def get_metadata_routing(self) -> MetadataRouter:
        """Get the metadata routing: what `fit` takes itself, what it hands to `cv` and the parts.

        Returns
        -------
        routing : sklearn.utils.metadata_routing.MetadataRouter
        """
        return self._metadata_router(self._stage_parts())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            sparse, allow_nan = self._input_tags()
        except (TypeError, AttributeError, ValueError):  # `fit` tells what is wrong with the parts
            sparse = allow_nan = False
        tags.input_tags.sparse, tags.input_tags.allow_nan = sparse, allow_nan
        return tags

    def _input_tags(self):
        """What all parts accept: (sparse, allow_nan)."""
        return stage_input_tags([part for _, part in self._stage_parts()])

    def _is_positive(self, codes):
        """Mask of the positive rows; None without a positive class."""
        return None if self._positive is None else codes == self._positive

    def _pos_label(self):
        """The positive class; None where there is none."""
        return None if self._positive is None else self.classes_.tolist()[self._positive]
