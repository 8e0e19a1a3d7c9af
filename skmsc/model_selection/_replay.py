"""One fit of a fold, and any thresholds tried on it without another.

Input: an estimator that ends in a multi-stage classifier, the rows of a fold. Output: a classifier
for each setting of `thresholds` that answers the fold's test rows from scores that are kept, and
any other rows as ever. What a scorer sees is what it would see of an estimator fitted with these
thresholds.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from skmsc._base import Evidence, MultiStageClassifier
from skmsc._sklearn import _num_samples, _routing_enabled, take_rows
from skmsc.splits import takes_time
from skmsc.thresholds import needs_last_stage, needs_rows, row_metadata

__all__ = []  # for the package's own use


def find_path(estimator):
    """Names of the steps that lead through pipelines to a multi-stage classifier, a list.

    Raises TypeError when there is none at the end.
    """
    path, last = [], estimator
    while isinstance(last, Pipeline):
        name, last = last.steps[-1]
        path.append(name)
    if not isinstance(last, MultiStageClassifier):
        raise TypeError(
            "estimator must be a FeedbackCascadeClassifier, an EarlyExitClassifier, a "
            "ComposableHeadClassifier or a Pipeline that ends in one of them; got "
            f"{type(estimator).__name__}{f' that ends in {last!r}' if path else ''}."
        )
    return path


def at_path(estimator, path):
    """The classifier at the end of a pipeline."""
    for name in path:
        estimator = estimator.named_steps[name]
    return estimator


def replaced(estimator, path, last):
    """The estimator with another one at its end; a pipeline is changed in place."""
    return estimator.set_params(**{"__".join(path): last}) if path else last


def asking(estimator, path, names):
    """A copy of the estimator that asks for such metadata, whatever its own thresholds read."""
    estimator = clone(estimator)
    at_path(estimator, path).thresholds = SimpleNamespace(row_metadata=names)
    return estimator


def fit_read(estimator, path, names, X, y, params):
    """Fit an estimator; of the metadata `names` its classifier gets what its thresholds read."""
    last = at_path(estimator, path)
    replaced(estimator, path, _Fitter(last, names)).fit(X, y, **params)
    return replaced(estimator, path, last)


@dataclass
class Fold:
    """An estimator fitted on a fold's training rows up to its thresholds.

    Attributes
    ----------
    estimator : estimator
        Of which the classifier at the end of `path` has no thresholds yet.
    path : list of str
    evidence : Evidence
        What its thresholds and calibrations are found on.
    """

    estimator: BaseEstimator
    path: list
    evidence: Evidence

    @classmethod
    def fit(cls, estimator, path, settings, X, y, params, names):
        """Fit a copy of the estimator; the settings must be of one kind (see `kinds_of`).

        `names` are those of the metadata that settings of any kind read.
        """
        estimator = clone(estimator)
        model = at_path(estimator, path)
        model.thresholds = _Pending(settings) if any(map(needs_rows, settings)) else settings[0]
        learner = _Learner(model, names)
        replaced(estimator, path, learner).fit(X, y, **params)
        return cls(replaced(estimator, path, model), path, learner.evidence_)

    def rows(self, X):
        """The test rows, as they arrive at the classifier, with its scores of them."""
        arrives, remembered = X, {}
        estimator = self.estimator
        for name in self.path:
            for step in estimator.steps[:-1]:
                if hasattr(step[1], "transform"):
                    given, arrives = arrives, step[1].transform(arrives)
                    remembered[id(step[1])] = _Remembered(step[1], given, arrives)
            estimator = estimator.named_steps[name]
        # Only its scores are asked for, which no thresholds change.
        estimator.thresholds_ = np.empty((0, len(estimator.classes_)))
        checked = estimator._check_rows(arrives)
        stage_proba = estimator._stage_proba(checked)
        del estimator.thresholds_
        return KeptRows(arrives, checked, stage_proba, remembered, get_tags(estimator))

    def replay(self, setting, rows):
        """The estimator as fitted with these thresholds, answering the rows from their scores."""
        model, setting = at_path(self.estimator, self.path), clone(setting, safe=False)
        decided = model._decided(setting, self.evidence)
        decided.__class__ = _replaying(type(decided))
        decided._rows, decided._routing = rows, None
        return _rebuilt(self.estimator, self.path, decided, rows.remembered)


def kinds_of(estimator, path, settings):
    """Indices of the settings that share one fit; a list of lists."""
    model, kinds = clone(at_path(estimator, path)), {}
    for i, setting in enumerate(settings):
        model.thresholds = setting
        kinds.setdefault(model._training_kind(), []).append(i)
    return list(kinds.values())


class _Pending(BaseEstimator):
    """A policy that stands, while stages are fitted, for all that will be tried."""

    def __init__(self, settings):
        self.settings = settings

    @property
    def needs_last_stage(self):
        return any(map(needs_last_stage, self.settings))

    @property
    def row_metadata(self):
        return row_metadata(self.settings[0])  # of one kind, all read the same

    def per_row(self, given, sample_weight):
        """What the policies read of each row."""
        return self.settings[0].per_row(given, sample_weight)

    def check(self, *, n_stages, stage_costs=None):
        """Validate the policies before any stage is fitted; what needs costs comes later."""
        for setting in self.settings:
            if hasattr(setting, "check"):
                setting.check(n_stages=n_stages)

    def find_thresholds(self, scores):
        raise NotImplementedError("It is never asked: a fit that is kept ends before.")


class TwoStages(BaseEstimator):
    """A policy that only asks for two stages, before any is fitted."""

    def check(self, *, n_stages, stage_costs=None):
        """Raise unless there are two."""
        if n_stages != 2:
            raise ValueError(f"thresholds='pairs' needs two stages; there are {n_stages}.")

    def find_thresholds(self, scores):
        raise NotImplementedError("It is never asked: a fit that is kept ends before.")


class _Fitter(BaseEstimator):
    """Stands for a classifier at the end of a pipeline, which gets what its thresholds read.

    `names` are those of the metadata that the settings of a search read of each row. It asks for
    all of them, and leaves out what nothing in its classifier reads.
    """

    def __init__(self, model, names):
        self.model = model
        self.names = names

    def fit(self, X, y, **params):
        self._fit(X, y, {name: params[name] for name in params.keys() - self._unread()})
        return self

    def _fit(self, X, y, params):
        self.model.fit(X, y, **params)

    def _unread(self):
        model = self._multi_stage()
        unread = set(self.names) - set(row_metadata(model.thresholds))
        if takes_time(getattr(model, "cv", None)):
            unread -= {"time"}
        if _routing_enabled():
            unread -= model.get_metadata_routing().consumes("fit", unread)
        return unread

    def _multi_stage(self):
        return getattr(self.model, "estimator", self.model)  # it may be in a FinalCutClassifier

    def get_metadata_routing(self):
        return asking(self._multi_stage(), [], self.names).get_metadata_routing()


class _Learner(_Fitter):
    """The same, of which the fit ends before the thresholds."""

    def _fit(self, X, y, params):
        self.evidence_ = self.model._learn(X, y, **params)


class _Remembered:
    """A fitted step of a pipeline that knows its output for the test rows."""

    def __init__(self, step, given, output):
        self._step, self._given, self._output = step, given, output

    def transform(self, X, **params):
        return self._output if X is self._given else self._step.transform(X, **params)

    def __sklearn_is_fitted__(self):
        return True  # what is asked of a pipeline that ends in this step

    def __getattr__(self, name):
        if name.startswith("__") and not name.startswith("__sklearn"):  # copying asks for these
            raise AttributeError(name)
        return getattr(self._step, name)


def _rebuilt(estimator, path, last, remembered):
    """Pipelines, not the given ones, with remembered steps and another classifier at the end."""
    if not path:
        return last
    steps = [(name, remembered.get(id(step), step)) for name, step in estimator.steps[:-1]]
    inner = _rebuilt(estimator.named_steps[path[0]], path[1:], last, remembered)
    other = Pipeline.__new__(type(estimator))
    other.__dict__.update(estimator.__dict__, steps=[*steps, (path[0], inner)])
    return other


@dataclass(frozen=True)
class KeptRows:
    """Rows with the scores that all stages give them; what takes the place of their features.

    Attributes
    ----------
    given : array-like, sparse matrix or dataframe
        The rows as they arrive at the classifier.
    checked : array-like, sparse matrix or dataframe
        The same once the classifier has checked them.
    stage_proba : ndarray of shape (n_samples, n_stages, n_classes)
    remembered : dict
        Steps of pipelines before it, by their id.
    tags : sklearn.utils.Tags
        Of the classifier, for which scorers ask again and again.
    """

    given: object
    checked: object
    stage_proba: np.ndarray
    remembered: dict
    tags: object

    def __len__(self):
        return len(self.stage_proba)

    def take_rows(self, idx):
        """The same of some of the rows."""
        return KeptRows(None, take_rows(self.checked, idx), self.stage_proba[idx], {}, None)


class _Replaying:
    """Mixin of a classifier: rows whose scores are kept are scored by no stage again."""

    def _check_rows(self, X):
        return self._rows if X is self._rows.given else super()._check_rows(X)

    def _steps(self):
        return [partial(_step_or_kept, k, step) for k, step in enumerate(super()._steps())]

    def route(self, X):
        if X is not self._rows.given:
            return super().route(X)
        if self._routing is None:
            self._routing = super().route(X)
            self._routing.proba.flags.writeable = False  # many scorers see it
        return self._routing

    def _caught(self, X, positive, last_proba):
        if isinstance(X, KeptRows):
            X, last_proba = X.checked, X.stage_proba[:, -1]
        return super()._caught(X, positive, last_proba)

    def __sklearn_tags__(self):
        return self._rows.tags


def _step_or_kept(k, step, carry):
    """Stage k on rows, or the scores of them that are kept."""
    return (carry.stage_proba[:, k].copy(), carry) if isinstance(carry, KeptRows) else step(carry)


@lru_cache
def _replaying(cls):
    """The class of classifiers that replay."""
    return type(cls.__name__, (_Replaying, cls), {"__module__": cls.__module__})


def pass_rate_and_cost(model, rows, weight):
    """Weighted share of rows that reach the last stage, and mean cost of a row (nan: unknown)."""
    routing = model.route(rows.given)
    passed = routing.stage == rows.stage_proba.shape[1] - 1
    if weight is None:
        weight = np.ones(_num_samples(rows))
    total = weight.sum()
    if total == 0:
        return np.nan, np.nan
    cost = np.nan if routing.cost is None else float(weight @ routing.cost / total)
    return float(weight[passed].sum() / total), cost
