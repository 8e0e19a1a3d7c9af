"""What a stage is: its name and place, how it is fitted with weights, and its scores.

A stage is any scikit-learn classifier, pipeline or frozen estimator, or a skorch net. Stage 0 is
the first and cheapest. Nothing here knows in which order stages are trained, or what cuts them.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from skmsc._sklearn import (
    _check_method_params,
    _num_samples,
    _routing_enabled,
    own_request,
    take_rows,
)
from skmsc._threads import limit_blas
from skmsc.calibration import Calibration
from skmsc.costly_features import CostlyFeatures

if TYPE_CHECKING:
    from skmsc._typing import Estimator

__all__ = ["default_stages"]  # the rest is for the package's own use

# Metadata name under which a pipeline's classifier receives its weights when metadata routing is
# on: its transformers ask for the caller's own weights by the ordinary name.
_STAGE_WEIGHT = "stage_weight"

# scikit-learn's linear classifiers.
LINEAR = ("LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "RidgeClassifier")
LINEAR += ("RidgeClassifierCV", "LinearSVC", "Perceptron")
# Its transformers that work column by column.
_OF_COLUMNS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "SimpleImputer")
_OF_COLUMNS += ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder", "KBinsDiscretizer")
_OF_COLUMNS += ("PowerTransformer", "QuantileTransformer")


def default_stages() -> list[tuple[str, Estimator]]:
    """Stages that a cascade takes when none are given.

    Returns
    -------
    stages : list of (str, estimator)
        A scaled logistic regression named "screen" and a `skmsc.neural.TabularNet` named "final".

    Examples
    --------
    >>> from skmsc import default_stages
    >>> [name for name, _ in default_stages()]
    ['screen', 'final']
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from skmsc.neural import TabularNet

    screen = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return [("screen", screen), ("final", TabularNet())]


def default_net():
    """Net that an `EarlyExitClassifier` takes when none is given."""
    from skmsc.neural import MultiExitNet

    return MultiExitNet()


def check_net(net):
    """Raise TypeError unless this is a `MultiExitNet`."""
    from skmsc.neural import MultiExitNet

    if not isinstance(net, MultiExitNet):
        raise TypeError(
            "net must be a skmsc.neural.MultiExitNet or None; got "
            f"{net!r}. A module with blocks and heads goes into MultiExitNet(trunk=...)."
        )


def check_stages(stages, reserved):
    """Validate a `stages` argument and return the (name, stage) pairs that are not "drop".

    Parameters
    ----------
    stages : list of (str, estimator)
        As the estimator was given; None stands for `default_stages`.
    reserved : iterable of str
        Names that a stage may not have, since the estimator's parameters have them.

    Raises
    ------
    TypeError
        When `stages` is not a list of pairs or a stage is not a classifier.
    ValueError
        When names repeat, contain "__", are reserved, or no stage is left.
    """
    if stages is None:
        return default_stages()
    valid = "a list of (name, classifier) pairs, cheapest first"
    if not isinstance(stages, list) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)
        for pair in stages
    ):
        raise TypeError(f"stages must be {valid}; got {stages!r}.")
    names = [name for name, _ in stages]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Names of stages must be unique; {name!r} is given twice.")
        if "__" in name or not name:
            raise ValueError(f"Names of stages must not be empty or contain '__'; got {name!r}.")
        if name in reserved:
            raise ValueError(f"A stage cannot be named like a parameter of its owner: {name!r}.")
    kept = [
        (name, stage) for name, stage in stages if not isinstance(stage, str) or stage != "drop"
    ]
    if not kept:
        raise ValueError(
            f"stages must be {valid}, at least one of them not 'drop'; got {stages!r}."
        )
    for name, stage in kept:
        check_stage(name, stage)
    return kept


def check_stage(name, stage, otherwise="'drop'"):
    """Raise unless this is a classifier that gives scores, costly features at its head only."""
    if isinstance(stage, type) or not hasattr(stage, "fit"):
        raise TypeError(
            f"Stage {name!r} must be a classifier object or {otherwise}; got {stage!r}."
        )
    if not is_classifier(stage) and not is_skorch_net(stage):
        raise TypeError(f"Stage {name!r} must be a classifier; got {stage!r}.")
    last = final_step(stage)
    # Some know only after fit which of the two they have; then their class has it.
    if not any(
        hasattr(last, method) or hasattr(type(last), method)
        for method in ("predict_proba", "decision_function")
    ):
        raise TypeError(
            f"Stage {name!r} must have predict_proba or decision_function; got {stage!r}."
        )
    is_frozen, head = isinstance(stage, FrozenEstimator), costly_head(stage)
    if not is_frozen and _count_costly(stage) > (head is not None):
        raise ValueError(
            f"CostlyFeatures must be the first step of a stage's own pipeline; in stage "
            f"{name!r} it is elsewhere: {stage!r}."
        )
    check_costly(name, stage)


def costly_head(stage):
    """The `CostlyFeatures` that a stage's pipeline begins with, or None."""
    first = stage.steps[0][1] if isinstance(stage, Pipeline) and stage.steps else None
    return first if isinstance(first, CostlyFeatures) else None


def check_costly(name, stage, X=None):
    """Validate the costly features of a stage, against the rows X if given, before any fetch."""
    head = costly_head(stage)
    if head is not None:
        head._for_stage(name).check(X)


def _count_costly(part):
    """Number of `CostlyFeatures` in an estimator, those inside frozen parts among them."""
    part = thawed(part)
    if not hasattr(part, "get_params"):
        return 0
    parts = [part, *part.get_params(deep=True).values()]
    frozen = [inner for inner in parts[1:] if isinstance(inner, FrozenEstimator)]
    n_here = sum(isinstance(inner, CostlyFeatures) for inner in parts)
    return n_here + sum(map(_count_costly, frozen))


def split_costly(name, stage):
    """A stage's costly features, a pair (name, unfitted transformer) or None, and the rest."""
    if costly_head(stage) is None:
        return None, stage
    rest = clone(stage)
    (step, head), *rest.steps = rest.steps
    return (step, head._for_stage(name)), rest


def join_costly(head, rest):
    """The fitted stage of a pair (name, fitted costly features) and the fitted rest."""
    rest.steps.insert(0, head)
    return rest


def check_frozen(name, stage, classes, n_features):
    """Raise unless a frozen stage is fitted, on these classes and this number of features."""
    if not isinstance(stage, FrozenEstimator):
        return
    try:
        check_is_fitted(stage.estimator)
    except NotFittedError:
        raise NotFittedError(
            f"Stage {name!r} is a FrozenEstimator and must be fitted; got {stage!r}."
        ) from None
    StageScorer.of(name, stage, classes)
    expected = getattr(stage, "n_features_in_", n_features)
    if expected != n_features:
        raise ValueError(
            f"Stage {name!r} is frozen and expects {expected} features; X has {n_features}."
        )


def is_skorch_net(estimator):
    """Whether the estimator is a skorch net, told without importing skorch."""
    skorch = sys.modules.get("skorch")
    return skorch is not None and isinstance(estimator, skorch.NeuralNet)


def as_net_stage(net):
    """A fitted skorch net as a `NetStage`."""
    from skmsc.neural import NetStage

    return NetStage.of_fitted(net)


def thawed(estimator):
    """What is inside a frozen estimator; any other as it is."""
    while isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    return estimator


def final_step(stage):
    """Classifier at the end of a stage: the last step of a pipeline, else the stage itself."""
    while isinstance(stage, Pipeline):
        stage = stage.steps[-1][1]
    return stage


def clone_stage(stage):
    """Unfitted copy of a stage in which a raw skorch net speaks scikit-learn's conventions."""
    stage = clone(stage)
    if is_skorch_net(stage):
        from skmsc.neural import NetStage

        return NetStage(stage)
    if isinstance(stage, Pipeline) and is_skorch_net(final_step(stage)):
        name, last = stage.steps[-1]
        stage.steps[-1] = (name, clone_stage(last))
    return stage


def stage_input_tags(stages):
    """What every stage accepts: (sparse, allow_nan)."""
    stages = [clone_stage(stage) for stage in stages]
    sparse = all(get_tags(stage).input_tags.sparse for stage in stages)
    return sparse, all(_allows_nan(stage) for stage in stages)


def _allows_nan(stage):
    """Whether a stage accepts nan; a pipeline does when no step before an imputer refuses it."""
    if not isinstance(stage, Pipeline):
        return get_tags(stage).input_tags.allow_nan
    for _, step in stage.steps:
        if isinstance(step, CostlyFeatures) and step.remainder == "drop":
            return True
        if isinstance(step, (ColumnTransformer, FeatureUnion)):
            return True  # may well impute some columns; if not, a later step refuses
        if step is None or isinstance(step, (str, FunctionTransformer)):
            continue
        if not _allows_nan(step):
            return False
        if "Imputer" in type(step).__name__:
            return True
    return True


def checks_all_columns(stage):
    """Whether a fitted stage is sure to refuse rows with a value that is not finite."""
    return _is_sklearns(stage, LINEAR)


def gives_own_arrays(stage):
    """Whether the array that a fitted stage's `predict_proba` gives is sure to be a new one.

    A stage of unknown origin may keep what it gave, so only scikit-learn's are trusted.
    """
    trusted = (*LINEAR, "RandomForestClassifier", "ExtraTreesClassifier", "MLPClassifier")
    return _is_sklearns(final_step(stage), trusted)


def _is_sklearns(part, names):
    """Whether an estimator is of a class of scikit-learn with one of these names."""
    return type(part).__module__.startswith("sklearn.") and type(part).__name__ in names


def is_projection(stage):
    """Whether the only products of a fitted stage are those with a linear classifier's weights."""
    stage = thawed(stage)
    *steps, last = [s for _, s in stage.steps] if isinstance(stage, Pipeline) else [stage]
    return _is_sklearns(last, LINEAR) and all(map(_works_on_columns, steps))


def _works_on_columns(step):
    """Whether a fitted transformer is sure to multiply no rows by a matrix."""
    if step is None or isinstance(step, str):
        return True
    if isinstance(step, FunctionTransformer):
        return step.func is None
    if isinstance(step, Pipeline):
        return all(_works_on_columns(part) for _, part in step.steps)
    if isinstance(step, ColumnTransformer):
        return all(_works_on_columns(part) for _, part, _ in step.transformers_)
    return _is_sklearns(step, _OF_COLUMNS)


def takes_weight(stage):
    """Whether the classifier at the end of the stage takes `sample_weight` in fit."""
    last = final_step(stage)
    if isinstance(last, FrozenEstimator):
        return True  # it is not fitted: there is nothing to weigh
    return has_fit_parameter(last, "sample_weight") and not _declines_weight(last)


def _declines_weight(part):
    """Whether a part of a stage says, by metadata routing, that it wants no `sample_weight`."""
    if not _routing_enabled():
        return False
    fit = getattr(own_request(part.get_metadata_routing()), "fit", None)
    return fit is not None and fit.requests.get("sample_weight") is False


def fit_stage(stage, X, y, *, weight, sample_weight, seed, params):
    """Fit a copy of a stage.

    Parameters
    ----------
    stage : estimator
        Not changed; a frozen estimator is returned as it is.
    X : array, sparse matrix or dataframe of n_samples rows
        Training rows.
    y : ndarray of shape (n_samples,)
        Labels.
    weight : ndarray of shape (n_samples,) or None
        Weights of the stage's rows. A classifier that takes none is fitted on rows that are
        resampled in proportion to them.
    sample_weight : ndarray of shape (n_samples,) or None
        The caller's weights, for those transformers of a pipeline that take weights: how much a
        row matters to the classifier does not change the distribution of the data.
    seed : int
        Set as `random_state` of every part of the stage that has none.
    params : dict
        Further parameters of the stage's fit.

    Returns
    -------
    fitted : estimator
    """
    stage = clone_stage(stage)
    if isinstance(stage, FrozenEstimator):
        return stage
    rng = np.random.RandomState(seed)
    set_seeds(stage, rng)
    # Weights of 1 say nothing, and cost a histogram of features dearly.
    weight, sample_weight = (
        None if w is not None and (w == 1).all() else w for w in (weight, sample_weight)
    )
    if weight is not None and not takes_weight(stage):
        idx = systematic_resample(weight, y, rng)
        params = _check_method_params(X, params, indices=idx)
        X, y = take_rows(X, idx), y[idx]
        weight = sample_weight = None
    # Weights go to a stage by plain parameters, which need no requests. Only a stage that was sent
    # other metadata is fitted with routing on.
    routed = _routing_enabled() and bool(params)
    params = {**params, **_weight_params(stage, weight, sample_weight, routed)}
    with config_context(enable_metadata_routing=routed):
        return stage.fit(X, y, **params)


def _weight_params(stage, weight, sample_weight, routed):
    """Fit parameters that hand each part of the stage its weights."""
    if not isinstance(stage, Pipeline):
        return {} if weight is None else {"sample_weight": weight}
    params = {}
    for name, step in stage.steps[:-1]:
        if sample_weight is None or not has_fit_parameter(step, "sample_weight"):
            continue
        if _declines_weight(step):
            continue
        if routed:
            step.set_fit_request(sample_weight=True)
        params["sample_weight" if routed else f"{name}__sample_weight"] = sample_weight
    name, last = stage.steps[-1]
    if not routed:
        nested = _weight_params(last, weight, sample_weight, routed)
        return params | {f"{name}__{key}": value for key, value in nested.items()}
    if weight is not None:
        final_step(last).set_fit_request(sample_weight=_STAGE_WEIGHT)
        params[_STAGE_WEIGHT] = weight
    return params


def set_seeds(stage, rng):
    """Give an integer seed to every part of the stage whose `random_state` is None."""
    unset = [
        key
        for key, value in sorted(stage.get_params(deep=True).items())
        if value is None and (key == "random_state" or key.endswith("__random_state"))
    ]
    if unset:
        stage.set_params(**{key: rng.randint(np.iinfo(np.int32).max) for key in unset})


def systematic_resample(weight, y, rng):
    """Rows drawn in proportion to weights, with as little chance as possible.

    Systematic sampling: a row of weight w (in units of the mean) is drawn floor(w) or ceil(w)
    times, so equal weights give exactly the original rows. Every class keeps at least one row.

    Parameters
    ----------
    weight : ndarray of shape (n_samples,)
        Weights >= 0.
    y : ndarray of shape (n_samples,)
        Labels; the rows are walked class by class, so that class shares keep their weight.
    rng : numpy.random.RandomState
        Source of the one random number that is drawn.

    Returns
    -------
    idx : ndarray of shape (about n_samples,)
        Row indices in ascending order, repeated as often as drawn.
    """
    n_samples = weight.size
    if np.ptp(weight) == 0:
        return np.arange(n_samples)
    order = np.argsort(y, kind="stable")
    ticks = np.cumsum(weight[order] * (n_samples / weight.sum()))
    counts = np.empty(n_samples, dtype=np.intp)
    counts[order] = np.diff(np.floor(ticks + rng.uniform()), prepend=0.0)
    for label in np.unique(y):
        mine = np.flatnonzero(y == label)
        if not counts[mine].any():
            counts[mine[weight[mine].argmax()]] = 1
    return np.repeat(np.arange(n_samples), counts)


@dataclass(frozen=True)
class StageScorer:
    """A fitted stage as a function from rows to float64 class scores.

    Attributes
    ----------
    name : str
        Name of the stage.
    estimator : estimator
        The fitted stage.
    columns : ndarray of shape (n_stage_classes,) or None
        Where the stage's classes stand among all classes; None: the two are the same.
    n_classes : int
        Number of classes.
    decision_map : Calibration or None
        Map from decision values to probabilities, for a stage without `predict_proba`.
    is_projection : bool
        Whether its only products are those of a linear classifier.
    """

    name: str
    estimator: object
    columns: np.ndarray | None
    n_classes: int
    decision_map: Calibration | None = None
    is_projection: bool = False

    @classmethod
    def of(cls, name, estimator, classes):
        """Scorer of a fitted stage; raises where it knows other classes or gives no scores."""
        if is_skorch_net(thawed(estimator)):
            estimator = as_net_stage(thawed(estimator))
        if not (hasattr(estimator, "predict_proba") or hasattr(estimator, "decision_function")):
            raise TypeError(
                f"Stage {name!r} must have predict_proba or decision_function; this one was fitted "
                f"without: {estimator!r}."
            )
        known = estimator.classes_
        if not np.isin(known, classes).all():
            raise ValueError(
                f"Stage {name!r} was fitted on the classes {known}, but y has {classes}."
            )
        columns = None if np.array_equal(known, classes) else np.searchsorted(classes, known)
        return cls(name, estimator, columns, len(classes), is_projection=is_projection(estimator))

    @property
    def has_proba(self):
        """Whether the stage gives probabilities itself."""
        return hasattr(self.estimator, "predict_proba")

    def raw(self, X):
        """Probabilities, or decision values where the stage has no probabilities.

        Returns an ndarray of shape (n_samples, n_classes); the decision values of two classes are
        mirrored. Classes that the stage does not know have probability 0.
        """
        has_proba, n_rows = self.has_proba, _num_samples(X)
        n_known = self.n_classes if self.columns is None else self.columns.size
        try:
            with limit_blas(n_rows, n_known if self.is_projection else np.inf):
                if has_proba:
                    scores = self.estimator.predict_proba(X)
                else:
                    scores = self.estimator.decision_function(X)
        except Exception as error:
            error.add_note(f"This happened in the scores of stage {self.name!r}.")
            raise
        if has_proba:
            scores = _float64_proba(scores)
        else:
            scores = np.asarray(scores, dtype=np.float64)
            if scores.ndim == 1:
                scores = np.column_stack([-scores, scores])
        if scores.shape != (n_rows, n_known):
            raise ValueError(
                f"Stage {self.name!r} must give scores of shape {(n_rows, n_known)}; got "
                f"{scores.shape}."
            )
        total = scores.sum()
        if not np.isfinite(total):
            raise ValueError(f"Stage {self.name!r} gave scores that are nan or infinite.")
        if has_proba and not (scores.min() >= 0 and abs(total - len(scores)) <= 1e-3 * len(scores)):
            raise ValueError(
                f"predict_proba of stage {self.name!r} must give probabilities, >= 0 and with sum "
                f"1 in each row; got values from {scores.min()} to {scores.max()} and a mean sum "
                f"of {total / len(scores)}."
            )
        if self.columns is None:
            return scores
        lowest = 0.0 if has_proba else scores.min(axis=1, keepdims=True)
        full = np.full((len(scores), self.n_classes), lowest)
        full[:, self.columns] = scores
        return full

    def __call__(self, X):
        """Class scores in [0, 1], float64 of shape (n_samples, n_classes)."""
        scores = self.raw(X)
        return scores if self.decision_map is None else self.decision_map(scores)

    def step(self, X):
        """One step of `skmsc.routing.route`: the carry is the waiting rows."""
        return self(X), X


def _float64_proba(proba):
    """Probabilities in float64; of two in float32 the larger is taken as 1 minus the smaller."""
    proba = np.asarray(proba)
    if proba.dtype == np.float64 or proba.ndim != 2 or proba.shape[1] != 2:
        return proba.astype(np.float64, copy=False)
    # Near 1 float32 has steps of 6e-8, near 0 it still tells 1e-9 from 1e-10.
    proba = proba.astype(np.float64)
    small = proba.min(axis=1)
    return np.where(proba <= small[:, None], small[:, None], 1.0 - small[:, None])


def warn_of_resampling(name, stage):
    """Say that a stage's weights are honoured by resampling."""
    warnings.warn(
        f"Stage {name!r} ({type(final_step(stage)).__name__}) takes no sample_weight: its training "
        "rows are resampled in proportion to the weights.",
        UserWarning,
        stacklevel=2,
    )
