"""ComposableHeadClassifier: one frozen trunk, a head for each class; classes come and go."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import process_routing

from skmsc._base import Evidence, MultiStageClassifier
from skmsc._changing_classes import ChangesClasses
from skmsc._checks import (
    check_bool,
    check_choice,
    check_integer,
    check_number,
    check_two_classes,
    check_weight,
    warn,
)
from skmsc._labels import cast_labels
from skmsc._maps import sigmoids
from skmsc._progress import Progress
from skmsc._rows import part_params
from skmsc._sklearn import (
    _raise_for_params,
    _routing_enabled,
    _VisualBlock,
    with_callbacks,
)
from skmsc.calibration import fit_calibration, fit_calibrations
from skmsc.costs import add_fetch_costs, check_countable, check_stage_costs
from skmsc.out_of_fold import seeds_for
from skmsc.screens import Screen
from skmsc.splits import check_all_train
from skmsc.stages import check_costly, check_stage, stage_input_tags
from skmsc.thresholds import (
    answered_class,
    check_independent,
    find_row_values,
    fit_thresholds,
    needs_costs,
    needs_rows,
)
from skmsc.training.composition import Learner
from skmsc.training.heads import check_head, choose_penalty
from skmsc.training_rows import choose_training_rows
from skmsc.trunks import (
    RandomReLU,
    Trunk,
    below_fixed_rows,
    check_frozen_trunk,
    check_trunk,
    fit_trunk,
    rows_above,
    trunk_input_tags,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skmsc._typing import (
        Estimator,
        Floats,
        Label,
        OnStageError,
        RandomState,
        Rows,
        StageCosts,
        Strategy,
        Thresholds,
    )

_MODES = ("conditional", "open", "sigmoid")
# Features of rows that go through the heads together, at least of so many rows: much more memory
# than this is fetched from the system anew at every call.
_FEATURE_BYTES, _LEAST_AT_ONCE = 2**24, 4096


class ComposableHeadClassifier(ChangesClasses, MultiStageClassifier):
    """One frozen trunk, a head for each class: classes are added, removed, composed as they come.

    The trunk is trained once, with the classes there are; then it is frozen, and every class gets
    a head, a vector and a bias, on its features. With heads from statistics (`RidgeHead`, the
    default, and `LDAHead`) a class that comes or goes gives exactly the classifier that a fit of
    the heads on all rows would give, without the rows of the other classes.

    Parameters
    ----------
    first_stage : classifier, default=None
        Stage 0: any scikit-learn classifier or pipeline, of which one copy is fitted for each class
        against all others, so that it composes as the heads do. It answers rows where `thresholds`
        allow it, and the heads the others. None: there is none.
    trunk : object, default=None
        What the features come from: `skmsc.neural.TabularNet` (None stands for one) or a skorch
        net, trained as classifiers and used below their last layer; a torch module or a
        `FrozenEstimator`, used as they are; a scikit-learn transformer; a pipeline that ends in one
        of these; or "passthrough", the rows themselves.
    head : {"ridge", "lda", "logistic", "pairwise", "imprint", "orthogonal", "hadamard", \
"simplex"} or strategy, default="ridge"
        How heads are found: `RidgeHead`, `LDAHead`, `LogisticHead`, `PairwiseHead`, `ImprintHead`,
        or a `FixedHead` of one of three kinds.
    class_prior : {"train", "balanced"}, default="train"
        Whether classes count by their rows, or all the same. Balanced heads answer rare classes far
        too often where most rows are not of them.
    proba : {"conditional", "open", "sigmoid"}, default="conditional"
        What `predict_proba` gives. "conditional": probabilities given that one of ``classes_`` is
        right. "open": those of "none of these", too, which is the class `unknown_label`.
        "sigmoid": each class against all others; a row's probabilities need not sum to 1.
    unknown_label : label, default=None
        With ``proba="open"``: the label of a row of no known class, of the labels' type and none of
        them. It is in ``classes_``.
    reject : float, default=None
        With ``proba="open"``: the share, in (0, 1), of the rows of `validation_fraction`, all of
        them of known classes, that may be answered `unknown_label`. None: a row is, where every
        class is less likely than not by a comparison of log-odds with 0.
    allow_new_classes : bool, default=False
        Whether `partial_fit` may meet labels that are not in ``classes_``, and adds them.
    thresholds : float, array-like or policy, default=None
        When the first stage answers a row; see `EarlyExitClassifier`. None: ``Agreement(0.01)``.
    on_violation : {"inf", "keep", "raise"}, default="inf"
        What happens when a class comes that the first stage never saw, and the thresholds of a
        class would have it answer the new rows: more of them than the policy's `max_disagreement`,
        or any. "inf": the first stage no longer answers that class, until `refresh` fits it anew,
        and a warning tells the pass rate that this causes. "keep": it goes on, and a warning tells
        how many rows of the new class it answers. "raise": an error, and nothing is changed.
    stage_costs : array-like of shape (n_stages,) or dict of str to float, default=None
        Cost >= 0 of running each stage, "first_stage" and "heads", on one row. None: its share of
        the multiply-adds of both; unknown where they cannot be counted.
    validation_fraction : float, default=0.1
        Share of the rows in (0, 1) held out of trunk and heads: for thresholds, calibration,
        `reject` and what the head chooses once. With thresholds that promise a confidence one half
        of them chooses, the other half proves. None: nothing is held out.
    calibration : {"temperature", None}, default="temperature"
        How scores become probabilities, fitted on the rows of `validation_fraction` and kept.
    replay_size : int, default=0
        Rows of each class whose features are kept to train heads with that need rows ("logistic",
        "pairwise") when classes come. Heads from statistics need none.
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
        Whether to print a line for each fit; above 1 the jobs print theirs, too. A net as the trunk
        prints its epochs by its own `verbose`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted, at any time.
    trunk_ : object
        The fitted trunk.
    head_ : strategy
        The strategy of the heads.
    penalty_ : float or None
        What the head chose or was given: `alpha`, `shrinkage` or `scale`.
    coef_ : ndarray of shape (n_heads, n_hidden)
        Vectors of the heads, in the order of ``classes_`` without `unknown_label`.
    intercept_ : ndarray of shape (n_heads,)
        Biases.
    first_stages_ : dict of label to estimator, or None
        The first stage's fitted copies; None for a class that it never saw.
    thresholds_ : ndarray of shape (n_stages, n_classes)
        As in `EarlyExitClassifier`.
    alert_threshold_ : float or None
        Likewise; None, too, once the heads have changed, and with them what they say.
    stage_costs_ : ndarray of shape (n_stages,) or None
        Cost of running each stage on one row, in the units of `stage_costs`; without these, as its
        share of the multiply-adds of all stages. None where they are unknown.
    statistics_bytes_ : int
        Memory of the classes' statistics: n_heads * n_hidden**2 * 8 for "ridge" and "lda".
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Raises
    ------
    ValueError, TypeError
        From `fit`, before anything is fitted, when an argument is not valid. Whatever a method
        that changes classes raises, the classifier is as it was.

    See Also
    --------
    EarlyExitClassifier : Later stages share their work with earlier ones.
    FeedbackCascadeClassifier : One rare class, stages that tell each other which rows matter.

    Notes
    -----
    A head is found from its class's count, sum and Gram matrix of the features, and those of the
    others; the sums run in the order of the labels, so that the same classes give the same bits.
    What is chosen once, in `fit`, is kept: trunk, random features, penalty, calibration. Rows of
    `validation_fraction` are not in the statistics; rows of classes that come later all are.

    References
    ----------
    J. Lee. Dynamic model construction for efficient classification: the composition of heads. E.
    Hoffer et al. Fix your classifier, arXiv 1801.04540.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skmsc import ComposableHeadClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> old, new = y < 9, y == 9
    >>> model = ComposableHeadClassifier(random_state=0).fit(X[old], y[old])
    >>> model.add_class(X[new][:100], 9).classes_
    array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    >>> model.score(X[new][100:], y[new][100:]) > 0.5
    True
    >>> model.compose([3, 8]).predict(X[(y == 3) | (y == 8)])[:4]
    array([3, 8, 3, 8])
    """

    __metadata_request__fit = {"time": False}  # requested by the policies that read it

    # What a fit leaves beside the attributes that end in an underscore.
    _fitted_names = (
        *MultiStageClassifier._fitted_names,
        "_columns",
        "_learner",
        "_log_unknown",
        "_measured_costs",
        "_odds_slope",
        "_screen",
        "_set",
        "_trunk",
        "_unknown",
    )

    def __init__(
        self,
        first_stage: Estimator = None,
        trunk: Any = None,
        *,
        head: Literal[
            "ridge", "lda", "logistic", "pairwise", "imprint", "orthogonal", "hadamard", "simplex"
        ]
        | Strategy = "ridge",
        class_prior: Literal["train", "balanced"] = "train",
        proba: Literal["conditional", "open", "sigmoid"] = "conditional",
        unknown_label: Label = None,
        reject: float | None = None,
        allow_new_classes: bool = False,
        thresholds: Thresholds = None,
        on_violation: Literal["inf", "keep", "raise"] = "inf",
        stage_costs: StageCosts = None,
        validation_fraction: float = 0.1,
        calibration: Literal["temperature"] | None = "temperature",
        replay_size: int = 0,
        on_stage_error: OnStageError = "raise",
        n_jobs: int | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.first_stage = first_stage
        self.trunk = trunk
        self.head = head
        self.class_prior = class_prior
        self.proba = proba
        self.unknown_label = unknown_label
        self.reject = reject
        self.allow_new_classes = allow_new_classes
        self.thresholds = thresholds
        self.on_violation = on_violation
        self.stage_costs = stage_costs
        self.validation_fraction = validation_fraction
        self.calibration = calibration
        self.replay_size = replay_size
        self.on_stage_error = on_stage_error
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # --- fit ----------------------------------------------------------------------------------
    @with_callbacks
    def fit(
        self,
        X: Rows,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        false_negative_cost: ArrayLike | None = None,
        false_positive_cost: ArrayLike | None = None,
        **fit_params: Any,
    ) -> Self:
        """Fit the trunk, freeze it, find the heads, and set the first stage's thresholds.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,)
            Labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0 of the rows; one of weight 0 is left out.
        groups : array-like of shape (n_samples,), default=None
            Groups, held out as a whole.
        false_negative_cost, false_positive_cost : array-like of shape (n_samples,), default=None
            Costs >= 0 of each row, for an `ExpectedCost` that has none.
        **fit_params : dict
            ``time`` for `AlertBudget`; with metadata routing enabled, what the first stage and the
            trunk ask for.

        Returns
        -------
        self : ComposableHeadClassifier

        Raises
        ------
        ValueError
            When an argument is not valid, or the policy of `thresholds` cannot be met.
        """
        return self._fit(
            X,
            y,
            sample_weight,
            {"groups": groups, **fit_params},
            false_negative_cost=false_negative_cost,
            false_positive_cost=false_positive_cost,
        )

    @property
    def coef_(self) -> Floats:
        """Vectors of the heads."""
        return self._set.heads.coef

    @property
    def intercept_(self) -> Floats:
        """Biases of the heads."""
        return self._set.heads.intercept

    @property
    def statistics_bytes_(self) -> int:
        """Memory of the classes' statistics."""
        parts = [] if self._set.statistics is None else self._set.statistics
        return sum(s.total.nbytes + (0 if s.gram is None else s.gram.nbytes) for s in parts)

    @property
    def first_stages_(self) -> dict[Label, Estimator] | None:
        """The first stage's fitted copies by label."""
        if self._screen is None:
            return None
        scorers = self._screen.scorers
        return {
            label: scorers[label].estimator if label in scorers else None
            for label in self._set.labels.tolist()
        }

    @property
    def trunk_(self) -> Any:
        """The fitted trunk."""
        return self._trunk.estimator

    def measure_costs(self, X: Rows, *, n_repeats: int = 5, store: bool = False) -> Floats:
        """Measure the seconds that each stage takes for a row.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Rows.
        n_repeats : int, default=5
            Measurements, of which the median counts.
        store : bool, default=False
            Whether they become ``stage_costs_``, and stay so when classes come and go.

        Returns
        -------
        costs : ndarray of shape (n_stages,)
        """
        costs = super().measure_costs(X, n_repeats=n_repeats, store=store)
        if store:
            self._measured_costs = costs
        return costs

    # --- parts of fit -------------------------------------------------------------------------
    def _learn(self, X, y, sample_weight=None, *, groups=None, expected=None, **fit_params):
        """Fit all parts; give what thresholds and calibrations are found on.

        `expected` are the classes that `partial_fit` was told of, or None.
        """
        self._check_parameters()
        self.head_ = clone(check_head(self.head))
        rows, labels = self._check_training_rows(X, y, sample_weight, groups, fit_params, expected)
        choosing, proving = self._halve_held_out(rows)
        fitter, params = rows.fitter, rows.stage_params
        self._screen = self._measured_costs = None
        if self.first_stage is not None:
            self._screen = self._fit_screen(rows, labels, params.get("first_stage", {}))
        with fitter.progress.task("trunk"):
            features = self._fit_trunk(fitter, labels, params.get("trunk", {}))
        self._learner = Learner(
            self.head_,
            self.class_prior == "balanced",
            None,
            self.replay_size,
            seeds_for(fitter.seed, "heads", 1)[0],
        )
        with fitter.progress.task("heads"):
            self._learn_heads(choosing, features, labels)
        del features
        if expected is not None and len(expected) > len(labels):
            self._set = self._learner.expect(self._set, expected)
        self.classes_, self._columns = self._order_classes(self._set.labels)
        self._count_costs()
        if needs_costs(self.thresholds):
            self.thresholds.check_known(len(self._stage_names), self.stage_costs_)
        self._gives_own_arrays = [True] * len(self._stage_names)
        self._first_checks_all, self._positive = False, self._find_positive()
        self._log_unknown, self._odds_slope = 0.0, 1.0
        if choosing.held_out is not None:
            y, weight = choosing.held_out
            codes = np.searchsorted(self._set.labels, y)
            self._set_odds(choosing.fitter.X_held_out, codes, weight)
        return self._gather_evidence(proving, groups is not None)

    def _check_training_rows(self, X, y, sample_weight, groups, fit_params, expected):
        """Validate what needs the rows; return a `TrainingRows` and the labels, sorted."""
        self._accepts = self._input_tags()
        X, y, sample_weight = self._check_X_y(X, y, sample_weight)
        labels = np.unique(y if sample_weight is None else y[sample_weight > 0])
        if expected is not None and not np.isin(labels, expected).all():
            unknown = np.setdiff1d(labels, expected)
            raise ValueError(f"y holds labels that are not in classes: {unknown.tolist()}.")
        check_two_classes(self, labels)
        self.head_.check_room(len(labels))
        self._unknown = self._check_unknown_label(labels if expected is None else expected)
        self.classes_ = labels
        self._stage_names = ["heads"]
        if self.first_stage is not None:
            self._stage_names.insert(0, "first_stage")
            check_costly("first_stage", self.first_stage, X)
        costs = check_stage_costs(self.stage_costs, self._stage_names)
        costs = add_fetch_costs(costs, [self.first_stage])
        metadata = self._take_row_metadata(fit_params)
        n_classes = len(labels if expected is None else expected) + (self._unknown is not None)
        self._check_on_stage_error(n_classes == 2)
        self._check_policy(n_classes, costs, metadata)
        check_independent(self.thresholds, sample_weight, groups)
        row_values = find_row_values(self.thresholds, metadata, check_weight(sample_weight, len(y)))
        if costs is None and needs_costs(self.thresholds):
            check_countable(self._stage_parts(), self.thresholds)
        check_frozen_trunk(self.trunk, self.n_features_in_)
        self._negative, self._measure, self._positive = None, "max_proba", None
        split_params, stage_params = self._route_fit(groups, fit_params)
        rows = self._choose_rows(X, y, sample_weight, split_params, stage_params)
        what = f"validation_fraction={self.validation_fraction}"
        check_all_train(what, labels, np.arange(len(labels)), rows.fitter.codes)
        return replace(rows, row_values=row_values), labels

    def _halve_held_out(self, rows):
        """Rows held out to choose on, and to find thresholds on: all of them for both.

        But what promises a confidence needs rows that nothing was chosen on.
        """
        promises = getattr(self.thresholds, "confidence", None) is not None
        chooses = self._chooses_penalty() or self.reject is not None
        if rows.held_out is None or not (promises and chooses and self.first_stage is not None):
            return rows, rows
        seed = seeds_for(rows.fitter.seed, "halves", 1)[0]
        choosing, proving = rows.halve_held_out(seed)
        self._check_held_out(proving.held_out[0], "half of the rows")
        return choosing, proving

    def _chooses_penalty(self):
        """Whether the heads' penalty is left to `fit`."""
        head = self.head_
        return head.penalty is not None and getattr(head, head.penalty) is None

    def _fit_trunk(self, fitter, labels, params):
        """Fit the trunk, random features and fixed rows; return the training rows' features."""
        trunk, head, seed = self.trunk, self.head_, fitter.seed
        if head.has_fixed_rows:
            trunk = below_fixed_rows(trunk, head.kind, head.n_rows)
        trunk = fit_trunk(
            trunk,
            fitter.X,
            labels[fitter.codes],
            fitter.sample_weight,
            seeds_for(seed, "trunk", 1)[0],
            params,
        )
        self._trunk = Trunk(trunk)
        features = self._trunk(fitter.X)
        if head.n_random_features:
            lift = RandomReLU(head.n_random_features, seeds_for(seed, "random_features", 1)[0])
            features = lift.fit(features, sample_weight=fitter.sample_weight).transform(features)
            self._trunk = Trunk(trunk, lift)
        if head.has_fixed_rows:
            rows_seed = seeds_for(seed, "fixed_rows", 1)[0]
            head.start(rows_above(trunk), features.shape[1], len(labels), rows_seed)
        return features

    def _learn_heads(self, rows, features, labels):
        """Set the heads, and what is chosen once for them."""
        fitter, head = rows.fitter, self.head_
        penalty = None
        if head.penalty is not None:
            penalty = getattr(head, head.penalty)
        chooses = self._chooses_penalty()
        if chooses:
            penalty = head.fallback
        self._learner = self._learner.with_penalty(penalty)
        self._set = self._learner.fit(labels, features, fitter.codes, fitter.sample_weight)
        if chooses and rows.held_out is not None:
            y, weight = rows.held_out
            penalty = choose_penalty(
                head,
                self._set.statistics,
                head.prepare(self._trunk(fitter.X_held_out)),
                np.searchsorted(labels, y),
                weight,
                balanced=self._learner.balanced,
            )
            self._learner = self._learner.with_penalty(penalty)
            self._set = self._learner.refresh(self._set)
        self.penalty_ = penalty

    def _gather_evidence(self, rows, grouped):
        """What is found on the rows held out: their scores, or those of no row."""
        X = rows.fitter.X_held_out
        scores = self._scores_held_out(rows, None if X is None else self._stage_proba(X))
        return Evidence(scores, scores, grouped)

    def _decide(self, evidence, last=None):
        """Set thresholds and calibrations, for the heads the `last` ones if given, [map]."""
        scores = evidence.scores
        thresholds = fit_thresholds(self.thresholds, scores)
        self._calibrations = [None] * scores.n_stages
        if self.calibration is not None and self.proba != "sigmoid" and scores.y.size:
            self._calibrations = fit_calibrations(
                "temperature", evidence.seen, thresholds, evidence._of_all
            )
        if last is not None:
            self._calibrations[-1:] = last
        self._set_thresholds(thresholds, self.thresholds, scores)

    def _set_odds(self, X, codes, weight):
        """Set the slope of the log-odds, and what the unknown class is compared by."""
        if self.proba == "conditional":
            return
        odds = self._set.heads.log_odds(self._logits(X))
        if self.calibration is not None and self.proba == "sigmoid":
            own = np.arange(len(self._set.labels)) == codes[:, None]
            proba = expit(np.stack([-odds.ravel(), odds.ravel()], axis=1))
            temperature = fit_calibration(
                "temperature",
                proba / proba.sum(axis=1, keepdims=True),
                own.ravel().astype(np.intp),
                np.repeat(weight / len(self._set.labels), len(self._set.labels)),
            )
            self._odds_slope = temperature.slope
        if self.reject is not None:
            order = np.argsort(odds.max(axis=1), kind="stable")
            mass = np.cumsum(weight[order])
            at = np.searchsorted(mass, self.reject * mass[-1], side="right")
            # Rows below it are answered by the unknown label, this one and those above are not.
            self._log_unknown = float(np.nextafter(odds.max(axis=1)[order[at]], -np.inf))

    def _check_parameters(self):
        """Validate what needs no data."""
        if self.first_stage is not None:
            check_stage("first_stage", self.first_stage, otherwise="None")
            if isinstance(self.first_stage, FrozenEstimator):
                raise TypeError(
                    "first_stage is fitted for each class against all others and cannot be frozen; "
                    f"got {self.first_stage!r}."
                )
        check_trunk(self.trunk)
        check_head(self.head)
        check_choice("class_prior", self.class_prior, ("train", "balanced"))
        check_choice("proba", self.proba, _MODES)
        check_choice("on_violation", self.on_violation, ("inf", "keep", "raise"))
        check_choice("calibration", self.calibration, ("temperature", None))
        for name in ("reject", "validation_fraction"):
            check_number(name, getattr(self, name), "(0, 1)", optional=True)
        check_integer("replay_size", self.replay_size, 0)
        check_bool("allow_new_classes", self.allow_new_classes)
        is_open = self.proba == "open"
        if is_open == (self.unknown_label is None):
            raise ValueError(
                "unknown_label and proba='open' go together: give a label with it, and none "
                f"without; got proba={self.proba!r}, unknown_label={self.unknown_label!r}."
            )
        if self.reject is not None and not is_open:
            raise ValueError(f"reject needs proba='open'; got proba={self.proba!r}.")
        if self.validation_fraction is None and self._needs_held_out():
            raise ValueError(
                "validation_fraction=None leaves no rows for reject, the first stage's thresholds "
                "and alerts: set thresholds to numbers and reject to None, or give a number in "
                "(0, 1)."
            )

    def _check_unknown_label(self, labels):
        """The unknown label as an array of one, or None; raises where it is no such label."""
        if self.unknown_label is None:
            return None
        if np.ndim(self.unknown_label) != 0:
            raise TypeError(f"unknown_label must be a single label; got {self.unknown_label!r}.")
        unknown = cast_labels([self.unknown_label], labels, "unknown_label")
        if unknown[0] in labels:
            raise ValueError(
                f"unknown_label must be of the type of the labels {labels.tolist()} and none of "
                f"them; got {self.unknown_label!r}."
            )
        return unknown

    def _choose_rows(self, X, y, sample_weight, split_params, stage_params=None):
        """`TrainingRows` of rows with known labels."""
        used = slice(None) if sample_weight is None else sample_weight > 0
        classes, counts = np.unique(y[used], return_counts=True)
        rows = choose_training_rows(
            X,
            y,
            sample_weight,
            classes=classes,
            cv=None,
            split_params=split_params,
            stage_params=stage_params or {},
            validation_fraction=self._share_to_hold_out(classes, counts, split_params),
            rng=check_random_state(self.random_state),
            cross_fit=False,
            n_jobs=self.n_jobs,
            progress=Progress(self),
        )
        if rows.held_out is not None:
            self._check_held_out(rows.held_out[0])
        return rows

    def _share_to_hold_out(self, classes, counts, split_params):
        """`validation_fraction`, or so much more that each class has a row in it; None: nothing."""
        share = self.validation_fraction
        if share is None or "groups" in split_params:
            return share
        if counts.min() > 1:
            return max(share, min(len(counts) / counts.sum(), 0.5))
        if self._needs_held_out():
            return share  # an error tells why it cannot be
        warn(
            f"validation_fraction={share} holds nothing out, as the classes "
            f"{classes[counts == 1].tolist()} have one row: what is chosen on such rows is left at "
            "its default, and scores are not calibrated."
        )
        return None

    def _needs_held_out(self):
        """Whether something that was asked for is found on rows held out."""
        has_policy = self.first_stage is not None and needs_rows(self.thresholds)
        has_policy |= hasattr(self.thresholds, "find_alert_threshold")
        return has_policy or self.reject is not None

    def _fit_screen(self, rows, labels, params):
        """The first stage, fitted on the training rows."""
        how = {"n_jobs": self.n_jobs, "progress": Progress(self)}
        return Screen.fit(self.first_stage, rows.fitter, labels, params, **how)

    # --- classes and costs -------------------------------------------------------------------
    def _cuts(self):
        """The first stage's thresholds by label."""
        if self._screen is None:
            return {}
        cuts = self.thresholds_[0, self._columns].tolist()
        return dict(zip(self._set.labels.tolist(), cuts, strict=True))

    def _set_thresholds(self, thresholds, policy=None, scores=None):
        """As in the other estimators; the first stage never answers a class it does not know.

        With `scores` they are new ones, of which the first stage is told.
        """
        if self._screen is not None:
            known = [label in self._screen.scorers for label in self._set.labels.tolist()]
            closed = np.ones(len(self.classes_), dtype=bool)
            closed[self._columns[known]] = False
            thresholds = thresholds.copy()
            thresholds[0, closed] = np.inf
        super()._set_thresholds(thresholds, policy, scores)
        if self._screen is not None and scores is not None:
            self._screen = replace(self._screen, closed=None)
            if scores.y.size:
                self._tell_screen(scores.stage_proba[:, 0], scores.sample_weight)

    def _answered_first(self, scores):
        """Position of the known class that the first stage answers a row with; -1: it passes."""
        known = scores[:, self._columns]
        cuts = self.thresholds_[0, self._columns]
        answer = answered_class(known, np.broadcast_to(cuts, known.shape))
        return np.where((known >= cuts).any(axis=1), answer, -1)

    def _tell_screen(self, scores, weight):
        """Let the first stage know which share of the rows it answers with each class."""
        self._screen = self._screen.told(self._answered_first(scores), self._set.labels, weight)

    def _order_classes(self, labels):
        """Labels as in ``classes_``, and where the known ones stand among them."""
        classes = labels if self._unknown is None else np.union1d(labels, self._unknown)
        return classes, np.searchsorted(classes, labels)

    def _find_positive(self):
        """Code of the class that reports count: of two the second."""
        return 1 if len(self.classes_) == 2 else None

    def _count_costs(self):
        """Set the costs of the stages."""
        self.stage_costs_ = self._find_costs(self._set, self._screen)

    def _find_costs(self, known, screen):
        """Costs of the stages: measured and stored, given, or counted; None where unknown."""
        if self._measured_costs is not None:
            return self._measured_costs
        costs = check_stage_costs(self.stage_costs, self._stage_names)
        if costs is not None:
            return costs if screen is None else add_fetch_costs(costs, [self.first_stage])
        counts = [self._trunk.count_multiply_adds()]
        if counts[0] is not None:
            counts[0] += known.heads.coef.size
        if screen is not None:
            counts.insert(0, screen.count_multiply_adds())
        if None in counts or not all(counts):
            return None
        return np.array(counts, dtype=np.float64) / sum(counts)

    # --- scores -------------------------------------------------------------------------------
    def _steps(self):
        steps = [self._heads_step]
        return steps if self._screen is None else [self._first_step, *steps]

    def _first_step(self, X):
        """Scores of the first stage, and the rows."""
        odds = self._screen.log_odds(X, self._set.labels)
        if not any(label in self._screen.scorers for label in self._set.labels.tolist()):
            odds[:] = 0.0  # it knows none of them, and answers none
        return self._composed(odds, odds, 0.0, 1.0), X

    def _heads_step(self, X):
        """Scores of the heads."""
        logits = self._logits(X)
        odds = None
        if self.proba != "conditional":
            odds = self._set.heads.log_odds(logits)
        return self._composed(logits, odds, self._log_unknown, self._odds_slope), None

    def _answer(self, k, scores):
        """As in the other estimators; what need not sum to 1 is not made to."""
        if self.proba == "sigmoid":
            return self._answer_apart(k, scores)
        return super()._answer(k, scores)

    def _rows_at_once(self, X):
        """As in the base, fewer where their features would take memory that is slow to come by."""
        row_bytes = 8 * self._set.heads.coef.shape[1]
        return min(super()._rows_at_once(X), max(_FEATURE_BYTES // row_bytes, _LEAST_AT_ONCE))

    def _logits(self, X):
        """Logits of rows."""
        return self._set.heads.logits(self.head_.prepare(self._trunk(X)))

    def _composed(self, logits, odds, log_unknown, slope):
        """Class scores (n, n_classes) from logits and log-odds of the known classes."""
        if self.proba == "conditional":
            return softmax(logits, axis=1)
        if self.proba == "sigmoid":
            return sigmoids(slope * odds)
        both = np.full((len(odds), len(self.classes_)), log_unknown)
        both[:, self._columns] = odds
        return softmax(both, axis=1)

    # --- what scikit-learn asks ---------------------------------------------------------------
    def _stage_parts(self):
        """The (name, part) pairs that are fitted."""
        parts = [] if self.first_stage is None else [("first_stage", self.first_stage)]
        return parts + ([("trunk", self.trunk)] if hasattr(self.trunk, "fit") else [])

    def _input_tags(self):
        """What all parts accept: (sparse, allow_nan)."""
        sparse, allow_nan = trunk_input_tags(self.trunk)
        if self.first_stage is not None:
            first = stage_input_tags([self.first_stage])
            sparse, allow_nan = sparse and first[0], allow_nan and first[1]
        return sparse, allow_nan

    def _route_fit(self, groups, fit_params):
        """Parameters of the hold-out, and of each part's fit by name."""
        split_params = {} if groups is None else {"groups": groups}
        if not _routing_enabled():
            _raise_for_params(fit_params, self, "fit")
            return split_params, {}
        routed = process_routing(self, "fit", **fit_params)
        return split_params, part_params(routed, self._stage_parts())

    def __sklearn_is_fitted__(self):
        return hasattr(self, "thresholds_")

    def _sk_visual_block_(self):
        parts = [("first_stage", self.first_stage)] if self.first_stage is not None else []
        parts += [("trunk", "TabularNet()" if self.trunk is None else self.trunk)]
        parts += [("head", self.head if not isinstance(self.head, str) else f"{self.head} head")]
        return _VisualBlock(
            "serial", [part for _, part in parts], names=[n for n, _ in parts], dash_wrapped=True
        )
