"""An exported classifier at work: NumPy and onnxruntime, neither scikit-learn nor torch."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Mapping
from functools import cached_property
from math import isfinite
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skmsc._acting import reaches
from skmsc._answers import INSTEAD, Answers
from skmsc._maps import sigmoids
from skmsc.routing import StageErrors, route
from skmsc.serving._archive import read_archive
from skmsc.serving._inputs import FEATURES, MATRIX, SCORES
from skmsc.serving._manifest import KIND, MANIFEST, Manifest
from skmsc.serving._one_row import answer_of_one
from skmsc.serving._rows import RowChecker, Waiting, as_floats, column

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike

    from numpy.typing import NDArray

    from skmsc._typing import Bools, Floats, OnStageError, Rows
    from skmsc.routing import Routing

_ROWS_AT_ONCE = 16_384  # so that what stages give on the way needs little memory


class Step(NamedTuple):
    """What one stage of an `ExportedClassifier` made of rows.

    Attributes
    ----------
    answered : ndarray of shape (n_samples,) of bool
        Rows that the stage answers; the others pass.
    proba : ndarray of shape (n_samples, n_classes)
        The answers, and for rows that pass the stage's probabilities: the answer if one had to
        stop here.
    carry : Waiting or None
        The rows that pass, for the next step; None after the last stage.

    Examples
    --------
    >>> import numpy as np
    >>> from skmsc.serving import Step
    >>> step = Step(np.array([True]), np.array([[0.9, 0.1]]), None)
    >>> step.proba[step.answered]
    array([[0.9, 0.1]])
    """

    answered: np.ndarray
    proba: np.ndarray
    carry: Waiting | None


def load(
    path: str | PathLike[str],
    *,
    fetch: Mapping[str, Callable[..., Any]] | None = None,
    on_stage_error: OnStageError | None = None,
    n_threads: int = 1,
    sha256: str | None = None,
) -> ExportedClassifier:
    """Load what `export` wrote, to predict with NumPy and onnxruntime only.

    Parameters
    ----------
    path : path-like
        The file.
    fetch : dict of str to callable, default=None
        For stages that fetch features, by name: ``fetch(keys)`` as in `skmsc.CostlyFeatures`, where
        keys are NumPy arrays: of shape (n_rows,) for one column, (n_rows, n_columns) for several
        of a matrix, else a dict of column names to arrays.
    on_stage_error : {"raise", "answer_earlier", "alert"}, default=None
        What becomes of rows at which a later stage raises, its fetch for one; None: as in the
        classifier.
    n_threads : int, default=1
        Threads that each stage computes with; 0: one for each core. One is quickest for single
        rows.
    sha256 : str, default=None
        What `export` returned; a file with another digest is refused.

    Returns
    -------
    model : ExportedClassifier

    Raises
    ------
    TypeError, ValueError
        When the file is no export, cut short, altered, of another format version, or its graphs are
        not those of its stages; when `fetch` is no dict of functions, or names a stage that fetches
        nothing; when another parameter is not valid.
    ImportError
        Without onnxruntime.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmsc import FeedbackCascadeClassifier, serving
    >>> X, y = make_classification(weights=[0.9], random_state=0)
    >>> stages = [("screen", LogisticRegression()), ("final", RandomForestClassifier(10))]
    >>> cascade = FeedbackCascadeClassifier(stages, random_state=0).fit(X, y)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "cascade.skmsc"
    >>> digest = serving.export(cascade, path)
    >>> model = serving.load(path, sha256=digest)
    >>> bool(abs(model.predict_proba(X) - cascade.predict_proba(X)).max() < 1e-5)
    True
    """
    parts = read_archive(path, KIND, sha256)
    try:
        manifest = Manifest.from_json(parts.pop(MANIFEST))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} tells of no classifier, as `export` writes it.") from error
    how: dict[str, Any] = {"on_stage_error": on_stage_error, "n_threads": n_threads}
    return ExportedClassifier(manifest, parts, fetch=fetch, **how)


class ExportedClassifier(Answers):
    """A classifier that `load` has read: the same answers, without scikit-learn or torch.

    Threads may share one. It cannot be pickled or copied: a process that needs one loads the file.

    Parameters
    ----------
    manifest : Manifest
        Everything but the graphs.
    graphs : dict of str to bytes
        The graphs, "0.onnx" for stage 0, and "prepare.onnx" for transformers before all stages.
    fetch : dict of str to callable, default=None
        As in `load`.
    on_stage_error : {"raise", "answer_earlier", "alert"}, default=None
        As in `load`.
    n_threads : int, default=1
        As in `load`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in sorted order.
    stage_names : list of str
        Names of the stages.
    thresholds_ : ndarray of shape (n_stages, n_classes)
        Stage k answers a row when, for some class c, its score reaches ``thresholds_[k, c]``.
    alert_threshold_ : float or None
        Positive probability from which on a row is an alert.
    stage_costs_ : ndarray of shape (n_stages,) or None
        Cost of running each stage on one row.
    n_features_in_ : int
        Number of columns of a row.
    feature_names_in_ : ndarray of shape (`n_features_in_`,) of str
        Their names; only where the classifier was fitted with names.
    versions : dict of str to str
        Versions of the packages that the export was written with.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmsc import FeedbackCascadeClassifier, serving
    >>> X, y = make_classification(weights=[0.9], random_state=0)
    >>> stages = [("screen", LogisticRegression()), ("final", LogisticRegression(C=100.0))]
    >>> cascade = FeedbackCascadeClassifier(stages, thresholds=0.1).fit(X, y)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "cascade.skmsc"
    >>> _ = serving.export(cascade, path)
    >>> serving.load(path).route(X[:5]).stage.tolist() == cascade.route(X[:5]).stage.tolist()
    True
    """

    def __init__(
        self,
        manifest: Manifest,
        graphs: Mapping[str, bytes],
        *,
        fetch: Mapping[str, Callable[..., Any]] | None = None,
        on_stage_error: OnStageError | None = None,
        n_threads: int = 1,
    ) -> None:
        names = [stage.name for stage in manifest.stages]
        self._fetch = _check_fetch(fetch, manifest.stages)
        self.classes_, self.stage_names = manifest.classes, names
        self.thresholds_, self.stage_costs_ = manifest.thresholds, manifest.stage_costs
        self.alert_threshold_, self.versions = manifest.alert_threshold, manifest.versions
        self.n_features_in_ = manifest.n_features
        if manifest.names is not None:
            self.feature_names_in_ = np.array(manifest.names, dtype=object)
        self._manifest = manifest
        self.on_stage_error = manifest.on_stage_error if on_stage_error is None else on_stage_error
        self._check_on_stage_error()
        if not isinstance(n_threads, Integral) or isinstance(n_threads, bool) or n_threads < 0:
            raise ValueError(f"n_threads must be an integer >= 0; got {n_threads!r}.")
        self._check_rows = RowChecker(
            manifest.n_features, manifest.names, manifest.columns, manifest.allow_nan
        )
        # What `Answers` reads.
        self._calibrations, self._measure = manifest.calibrations, manifest.measure
        self._positive, self._negative = manifest.positive, manifest.negative
        self._stage_names, self._gives_own_arrays = names, [True] * len(names)
        self._set_how_answers_show()

        self._prepare = None
        if manifest.prepared:
            taken = [name for name, _ in manifest.columns or [(MATRIX, None)]]
            self._prepare = _session(graphs, "prepare.onnx", n_threads, taken, [FEATURES])
        later = [
            set().union(*(_needed(stage, manifest) for stage in manifest.stages[k:]))
            for k in range(1, len(names) + 1)
        ]
        self._steps: list[_GraphStep] = [
            _GraphStep(
                stage,
                _session(
                    graphs,
                    f"{k}.onnx",
                    n_threads,
                    [name for name, _ in stage.inputs],
                    [SCORES, *stage.outputs],
                ),
                later[k],
                manifest.sigmoids,
                self._fetch.get(stage.name),
                self._check_rows,
            )
            for k, stage in enumerate(manifest.stages)
        ]
        self._set_one_row()

    def predict(self, X: Rows) -> NDArray[Any]:
        """Predict the class of each row.

        Parameters
        ----------
        X : array-like, dataframe or mapping of shape (n_samples, n_features)
            Rows. A mapping has a value (one row) or a sequence for each column.

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        return self.classes_[self._proba(X).argmax(axis=1)]

    def predict_proba(self, X: Rows) -> Floats:
        """Predict class probabilities, running later stages only on rows that reach them.

        Parameters
        ----------
        X : array-like, dataframe or mapping of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)

        Raises
        ------
        ValueError, TypeError
            When these are no rows of the classifier.
        """
        return self._proba(X)

    def alerts(self, X: Rows) -> Bools:
        """Tell which rows are alerts: their positive probability reaches ``alert_threshold_``.

        Parameters
        ----------
        X : array-like, dataframe or mapping of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        alerts : ndarray of shape (n_samples,) of bool

        Raises
        ------
        ValueError
            When the classifier had no alert threshold.
        """
        if self.alert_threshold_ is None:
            raise ValueError("The classifier had no alert threshold when it was exported.")
        return self._find_alerts(self._route(self._rows(X)))

    def route(self, X: Rows) -> Routing:
        """Tell which stage answers each row, with what and at what cost.

        Parameters
        ----------
        X : array-like, dataframe or mapping of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        routing : skmsc.routing.Routing
        """
        return self._route(self._rows(X))

    def step(self, k: int, X: Rows, *, fetched: Any = None) -> Step:
        """Run one stage, for a service that does something of its own between stages.

        Parameters
        ----------
        k : int
            Number of the stage.
        X : array-like, dataframe or mapping of shape (n_samples, n_features), or Waiting
            For stage 0 rows; for a later one the ``carry`` of the step before it, or some of its
            rows (``carry.take_rows(indices)``).
        fetched : array-like of shape (n_samples, n_fetched) or mapping, default=None
            Features of these rows for a stage that fetches some; None: its `fetch` is called.

        Returns
        -------
        step : Step
            With ``answered``, ``proba`` and ``carry``. What a stage raises is raised, whatever
            `on_stage_error` says.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> from sklearn.datasets import make_classification
        >>> from sklearn.linear_model import LogisticRegression
        >>> from skmsc import FeedbackCascadeClassifier, serving
        >>> X, y = make_classification(weights=[0.9], random_state=0)
        >>> stages = [("screen", LogisticRegression()), ("final", LogisticRegression(C=100.0))]
        >>> cascade = FeedbackCascadeClassifier(stages, thresholds=0.1).fit(X, y)
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "cascade.skmsc"
        >>> _ = serving.export(cascade, path)
        >>> model = serving.load(path)
        >>> first = model.step(0, X)
        >>> proba = first.proba.copy()
        >>> proba[~first.answered] = model.step(1, first.carry).proba
        >>> bool((proba == model.predict_proba(X)).all())
        True
        """
        if k not in range(len(self._steps)):
            raise ValueError(f"k must be an integer in [0, {len(self._steps)}); got {k!r}.")
        if k and not isinstance(X, Waiting):
            raise TypeError(
                f"Rows of stage {k} must be the carry of step {k - 1}, or some of its rows; got "
                f"{type(X).__name__}."
            )
        run, rows = self._steps[k], X if isinstance(X, Waiting) else self._rows(X)
        if fetched is not None and run.stage.fetch is None:
            raise ValueError(f"Stage {run.stage.name!r} fetches nothing; got fetched features.")
        if not len(rows):  # which some graphs, and some functions that fetch, cannot take
            nothing = np.empty((0, len(self.classes_)))
            return Step(np.empty(0, bool), nothing, rows if k < len(self._steps) - 1 else None)
        scores, carry = run(rows, fetched)
        answered = np.ones(len(scores), dtype=bool)
        if k < len(self._steps) - 1:
            answered = reaches(self._acting(scores), self.thresholds_[k])
        proba = self._calibrated(k, scores)
        proba[answered] = self._answer(k, scores[answered])
        return Step(answered, proba, carry and carry.take_rows(np.flatnonzero(~answered)))

    def _rows(self, X):
        """Checked rows as the first stage takes them."""
        rows = self._check_rows(X)
        if self._prepare is None:
            return rows
        feed = {_graph_name(name): array for name, array in rows.arrays.items()}
        if MATRIX in rows.arrays:
            feed[MATRIX] = as_floats(feed[MATRIX], "X")
        prepared = self._prepare.run([FEATURES], feed)[0]
        if np.isinf(prepared).any():
            raise ValueError("What the pipeline made of X contains infinity.")
        return Waiting({MATRIX: prepared})

    def _proba(self, X):
        """Probabilities of rows."""
        if type(X) is np.ndarray and X.shape == self._zeros.shape and X.dtype == np.float64:
            if self.on_stage_error == "raise":
                return self._one(X)
            if not self._fetches:  # none that fails is asked twice
                with contextlib.suppress(Exception):
                    return self._one(X)
        return self._route(self._rows(X), n_frames=4).proba

    def _route(self, rows, n_frames=3):
        """Routing of checked rows; warns of stages that raised, where it goes on.

        `n_frames` is how many calls up, from here, the caller of this package is.
        """
        errors = None if self.on_stage_error == "raise" else StageErrors(self._answer_instead)
        routing = route(
            self._steps,
            rows,
            self.thresholds_,
            self.stage_costs_,
            answer=self._answer,
            acting=None if self._measure == "max_proba" else self._acting,
            at_once=_ROWS_AT_ONCE,
            on_error=errors,
        )
        if errors is not None and errors.seen:
            told = errors.message(self.stage_names, INSTEAD[self.on_stage_error])
            warnings.warn(told, RuntimeWarning, stacklevel=n_frames)
        return routing

    def _check_on_stage_error(self):
        """Raise unless `on_stage_error` is valid for these classes."""
        valid = ["raise", *INSTEAD]
        if self._manifest.positive is None:
            valid.remove("alert")
        if self.on_stage_error not in valid:
            raise ValueError(
                f"on_stage_error must be one of {valid}, for the classes {self.classes_.tolist()}; "
                f"got {self.on_stage_error!r}."
            )

    def _one(self, X):
        """Probabilities of a single row, with as little between the graphs as can be."""
        # No sum, which would warn of an overflow: 0 times what is not finite is nan.
        if self._takes_arrays and np.vdot(X, self._zeros) == 0.0:
            arrays = {MATRIX: X}
        else:
            arrays = self._rows(X).arrays
        last, is_max_proba = len(self._steps) - 1, self._measure == "max_proba"
        for k, step in enumerate(self._steps):
            scores, arrays = step.run(arrays)
            if k == last:
                break
            if is_max_proba:
                row = scores.tolist()[0]
                if any(row[c] >= cut for c, cut in self._cuts[k]):
                    break
            elif reaches(self._acting(scores), self.thresholds_[k])[0]:
                break
        answer = self._answers_of_one[k]
        if answer is None:
            return self._answer(k, scores)
        proba = answer(*scores.tolist()[0])
        scores[0, 0], scores[0, 1] = 1.0 - proba, proba
        return scores

    def _set_one_row(self):
        """Set what `_one` needs."""
        self._fetches = any(stage.fetch is not None for stage in self._manifest.stages)
        self._zeros = np.zeros((1, self.n_features_in_))
        self._takes_arrays = self._manifest.columns is None and self._prepare is None
        finite = np.isfinite(self.thresholds_)
        self._cuts = [
            [(c, cuts[c].item()) for c in np.flatnonzero(known)]
            for cuts, known in zip(self.thresholds_, finite, strict=True)
        ]
        self._answers_of_one = [None] * len(self._steps)
        # Of two classes, and none where what is told of a tie needs arrays.
        if self._other_top is None or self._manifest.sigmoids:
            return
        self._answers_of_one = [
            answer_of_one(
                self._calibrations[k],
                self.thresholds_[k].tolist(),
                self._keeps_answers[k],
                self._other_top[k].tolist(),
                self._other_limit[k].tolist(),
            )
            for k in range(len(self._steps))
        ]

    def _answer(self, k, scores):
        """As the estimator answers rows of such scores."""
        if self._manifest.sigmoids:
            return self._answer_apart(k, scores)
        return super()._answer(k, scores)

    def __reduce__(self):
        raise TypeError(
            "An ExportedClassifier cannot be pickled or copied: load its file where it is needed."
        )

    @cached_property
    def _shown(self):
        return f"{self._manifest.estimator} with stages {self.stage_names}"

    def __repr__(self):
        return f"ExportedClassifier({self._shown}, {self.n_features_in_} features)"


class _GraphStep:
    """A stage's graph as a step of `skmsc.routing.route`.

    Parameters
    ----------
    stage : Stage
        What it takes and gives.
    session : onnxruntime.InferenceSession
        Of its graph.
    later : set of str
        Arrays that later stages take.
    sigmoids : bool
        Whether the graph gives log-odds.
    fetch : callable or None
        Of a stage that fetches features.
    checker : RowChecker
        What makes fetched columns inputs of graphs.
    """

    def __init__(self, stage, session, later, sigmoids, fetch, checker):
        self.stage, self._run, self._sigmoids = stage, session.run, sigmoids
        self._inputs = stage.inputs
        self._fetch, self._checker = fetch, checker
        self._given = [name for name in stage.outputs if name in later]
        self._outputs = [SCORES, *self._given]
        self._kept, self._is_last = later.difference(self._given), not later

    def __call__(self, rows, fetched=None):
        """Scores of shape (n_waiting, n_classes), and the rows with what later stages take."""
        scores, arrays = self.run(rows.arrays, fetched)
        return scores, arrays and Waiting(arrays)

    def run(self, arrays, fetched=None):
        """The same on the arrays themselves."""
        known = arrays if self.stage.fetch is None else self._joined(arrays, fetched)
        # Not before, since rows are many and a fetch is asked for keys as they were given.
        if MATRIX in known and known[MATRIX].dtype != np.float64:
            known = {**known, MATRIX: as_floats(known[MATRIX], "X")}
        try:
            scores, *given = self._run(self._outputs, {name: known[s] for name, s in self._inputs})
        except Exception as error:  # of kinds of onnxruntime's own: an unknown category, say
            raise ValueError(f"Stage {self.stage.name!r} refuses these rows: {error}") from error
        total = scores.item(0) + scores.item(1) if scores.size == 2 else scores.sum()
        if not isfinite(total):
            raise ValueError(f"Stage {self.stage.name!r} gave scores that are nan or infinite.")
        if self._sigmoids:
            scores = sigmoids(scores)
        if self._is_last:
            return scores, None
        if not given and arrays.keys() <= self._kept:
            return scores, arrays
        carry = {name: arrays[name] for name in self._kept if name in arrays}
        carry.update(zip(self._given, given, strict=True))
        return scores, carry

    def _joined(self, arrays, fetched):
        """Arrays that the graph takes, fetched ones among them."""
        spec, n_rows = self.stage.fetch, len(Waiting(arrays))
        names = [name for name, _ in self._checker.columns or ()]
        is_matrix = MATRIX in arrays
        if fetched is None:
            if self._fetch is None:
                raise ValueError(
                    f"Stage {self.stage.name!r} fetches features: give load a function for it, "
                    f"fetch={{{self.stage.name!r}: ...}}, or its step fetched=..."
                )
            fetched = self._fetch(_keys(arrays, spec.on, names, is_matrix))
        fetched = _as_columns(fetched, spec.columns, n_rows, self.stage.name)
        if is_matrix:
            rest = as_floats(arrays[MATRIX][:, spec.rest], "X")
            parts = [as_floats(one, f"fetched {name!r}") for name, one in fetched.items()]
            joined = np.column_stack([rest, *parts])
            if np.isinf(joined).any():
                raise ValueError(f"Stage {self.stage.name!r} was fetched infinity.")
            return {MATRIX: joined}
        kept = {column(names[j]): arrays[column(names[j])] for j in spec.rest}
        return kept | self._checker.of_types(fetched, spec.columns)


def _needed(stage, manifest):
    """Names of the arrays that a stage takes, also for its fetch."""
    needed = {source for _, source in stage.inputs}
    if stage.fetch is not None and manifest.columns is not None and not manifest.prepared:
        needed |= {column(name) for name, _ in manifest.columns}
    return needed


def _keys(arrays, on, names, is_matrix):
    """What a fetch is given of the rows."""
    if is_matrix:
        return arrays[MATRIX] if on is None else arrays[MATRIX][:, on]
    if isinstance(on, int):
        return arrays[column(names[on])][:, 0]
    taken = names if on is None else [names[j] for j in on]
    return {name: arrays[column(name)][:, 0] for name in taken}


def _as_columns(fetched, columns, n_rows, stage):
    """Fetched features by name, each of shape (n_rows,)."""
    names = [name for name, _ in columns]
    if isinstance(fetched, Mapping) or hasattr(fetched, "columns"):
        found = list(fetched.keys())
        if found != names:
            raise ValueError(f"Stage {stage!r} must be fetched the columns {names}; got {found}.")
        values = {name: np.asarray(fetched[name]) for name in names}
    else:
        table = np.asarray(fetched)
        table = table[:, None] if table.ndim == 1 else table
        if table.ndim != 2 or table.shape[1] != len(names):
            raise ValueError(
                f"Stage {stage!r} must be fetched an array of shape ({n_rows}, {len(names)}); got "
                f"shape {table.shape}."
            )
        values = dict(zip(names, table.T, strict=True))
    if any(one.shape != (n_rows,) for one in values.values()):
        raise ValueError(f"Stage {stage!r} must be fetched {n_rows} rows.")
    return values


def _check_fetch(fetch, stages):
    """The functions by stage; raises where one has no stage, or is none."""
    if not isinstance(fetch, Mapping | None):
        raise TypeError(f"fetch must be a dict of names of stages to functions; got {fetch!r}.")
    fetch = {} if fetch is None else dict(fetch)
    fetching = [stage.name for stage in stages if stage.fetch is not None]
    for name, function in fetch.items():
        if name not in fetching:
            raise ValueError(f"fetch must name stages that fetch, {fetching}; got {name!r}.")
        if not callable(function):
            raise TypeError(f"fetch[{name!r}] must be callable; got {function!r}.")
    return fetch


def _graph_name(name):
    return name.removeprefix("column ")


def _session(graphs, name, n_threads, takes, gives):
    """A session of a graph on the processor; raises where it has not these inputs and outputs."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ImportError(
            "Exported classifiers need onnxruntime, of the extra skmsc[serving]."
        ) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
    options.log_severity_level = 4  # errors are raised, and need not be printed, too
    try:
        session = runtime.InferenceSession(
            graphs[name], options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # of kinds of onnxruntime's own
        raise ValueError(f"The export's graph {name!r} cannot be run: {error}") from error
    given = {one.name for one in session.get_outputs()}
    if {one.name for one in session.get_inputs()} != set(takes) or not given.issuperset(gives):
        raise ValueError(f"The export's graph {name!r} is none of its stage.")
    return session
