"""Write a fitted multi-stage classifier as ONNX graphs and what routes between them."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skmsc._checks import is_number
from skmsc._composable_head import ComposableHeadClassifier
from skmsc._early_exit import EarlyExitClassifier
from skmsc._feedback_cascade import FeedbackCascadeClassifier
from skmsc._sklearn import _num_samples, is_dataframe, take_rows
from skmsc.serving._archive import version, write_archive
from skmsc.serving._inputs import SCORES, Inputs, NotExportable
from skmsc.serving._manifest import KIND, MANIFEST, Fetch, Manifest, Stage
from skmsc.serving._net_graphs import exit_graphs, heads_graph, with_logs
from skmsc.serving._rows import column
from skmsc.serving._runtime import ExportedClassifier
from skmsc.serving._scorer_graphs import scorer_graph, screen_graph
from skmsc.serving._transformer_graphs import transformers_graph
from skmsc.stages import costly_head, thawed

if TYPE_CHECKING:
    from os import PathLike

    from skmsc._typing import Estimator, Rows

_PACKAGES = ("skmsc", "scikit-learn", "skorch", "torch", "numpy", "onnx", "skl2onnx")
_STRINGS = ("str", "object", "categor", "large_string", "enum", "utf8")


def export(
    model: Estimator, path: str | PathLike[str], X: Rows = None, *, tolerance: float = 1e-5
) -> str:
    """Write a fitted multi-stage classifier into one file that `load` predicts from.

    Each stage becomes an ONNX graph; thresholds, calibrations, classes, names and types of columns,
    versions and checksums stand beside them. The answers equal the classifier's within 1e-5, from
    the same stage for each row farther than 1e-5 from a cut.

    Parameters
    ----------
    model : estimator
        A fitted `FeedbackCascadeClassifier`, `EarlyExitClassifier` or `ComposableHeadClassifier`,
        or a pipeline or search around one; the pipeline's earlier steps are exported too.
    path : path-like
        File to write; one that is there is replaced, when all went well.
    X : {array-like, dataframe} of shape (n_samples, n_features), default=None
        Rows as the model takes them, some hundreds say. The export is checked on them before it is
        written. A dataframe tells the types of columns, which a model that was fitted on columns
        of several types needs.
    tolerance : float, default=1e-5
        How far probabilities of rows of X may be from the classifier's. A net in float32 may need
        more for rows far from those that it was fitted on.

    Returns
    -------
    sha256 : str
        Digest of the file; `load` refuses another one if it is given it.

    Raises
    ------
    ValueError
        When `tolerance` is not a number above 0.
    NotExportable
        A ValueError that names the stage that cannot be a graph and why, or, with X, tells in how
        many rows the graphs answer otherwise.
    TypeError
        When there is no multi-stage classifier in a pipeline or search.
    ImportError
        Without the packages of the extra ``skmsc[serving]``.

    Notes
    -----
    `CostlyFeatures` at the head of a stage are not part of the file: whoever loads it gives the
    function that fetches, which then gets NumPy arrays.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmsc import FeedbackCascadeClassifier, serving
    >>> X, y = make_classification(weights=[0.9], random_state=0)
    >>> stages = [("screen", LogisticRegression()), ("final", LogisticRegression(C=100.0))]
    >>> cascade = FeedbackCascadeClassifier(stages).fit(X, y)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "cascade.skmsc"
    >>> digest = serving.export(cascade, path, X)
    >>> serving.load(path)
    ExportedClassifier(FeedbackCascadeClassifier with stages ['screen', 'final'], 20 features)
    """
    if not is_number(tolerance) or not tolerance > 0:
        raise ValueError(f"tolerance must be a number > 0; got {tolerance!r}.")
    inner, steps = _find(model)
    check_is_fitted(inner)
    outer = steps[0] if steps else inner
    names = getattr(outer, "feature_names_in_", None)
    given = Inputs(int(outer.n_features_in_), _column_types(model, X))
    prepared, inputs = None, given
    if steps:
        prepared = transformers_graph(steps, given, "of the pipeline")
        inputs = Inputs(int(inner.n_features_in_))
    graphs, stages, heads = _stages(inner, inputs)
    parts = {f"{k}.onnx": graph.SerializeToString() for k, graph in enumerate(graphs)}
    if prepared is not None:
        parts["prepare.onnx"] = prepared.SerializeToString()
    manifest = Manifest(
        estimator=type(inner).__name__,
        classes=inner.classes_,
        thresholds=inner.thresholds_,
        stage_costs=inner.stage_costs_,
        calibrations=inner._calibrations,
        alert_threshold=inner.alert_threshold_,
        measure=inner._measure,
        positive=_int(inner._positive),
        negative=_int(inner._negative),
        sigmoids=getattr(inner, "proba", None) == "sigmoid",
        stages=tuple(stages),
        n_features=given.n_features,
        names=None if names is None else tuple(names.tolist()),
        columns=given.columns,
        allow_nan=bool(inner._accepts[1] if not steps else _allows_nan(steps[0])),
        on_stage_error=inner.on_stage_error,
        prepared=prepared is not None,
        versions=_versions(),
    )
    told = manifest.to_json()
    if X is not None:
        served = ExportedClassifier(Manifest.from_json(told), parts)
        _check_equal(served, inner, heads, X, steps, tolerance)
    return write_archive(Path(path), KIND, {MANIFEST: told, **parts})


def _find(model):
    """The multi-stage classifier inside pipelines and searches, and the steps before it."""
    given, steps = model, []
    while not isinstance(model, _ESTIMATORS):
        if isinstance(model, Pipeline):
            check_is_fitted(model)
            passed = [step for _, step in model.steps[:-1] if step not in (None, "passthrough")]
            steps, model = steps + passed, model.steps[-1][1]
        elif isinstance(model, FrozenEstimator):
            model = model.estimator
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        else:
            raise TypeError(
                "model must be a multi-stage classifier, or a fitted pipeline or search around "
                f"one; got {given!r}."
            )
    return model, steps


_ESTIMATORS = (FeedbackCascadeClassifier, EarlyExitClassifier, ComposableHeadClassifier)


def _stages(model, inputs):
    """Graphs of a classifier's stages, `Stage` descriptions, and what fetches, or None."""
    if isinstance(model, FeedbackCascadeClassifier):
        parts = [_scored(scorer, inputs) for scorer in model._scorers]
    elif isinstance(model, EarlyExitClassifier):
        parts = []
        if model._scorer is not None:
            graph, fetch, head = _scored(model._scorer, inputs)
            if model.ensemble_weights_ is not None:
                graph = with_logs(graph, 0)
            parts.append((graph, fetch, head))
        parts += [(graph, None, None) for graph in exit_graphs(model, inputs)]
    else:
        parts = []
        if model._screen is not None:
            head = model._screen.fetch
            fetch, joined = _fetched(head, inputs, "first_stage")
            parts.append((screen_graph(model, joined), fetch, head))
        parts.append((heads_graph(model, inputs), None, None))
    graphs, fetches, heads = zip(*parts, strict=True)
    described = zip(model._stage_names, graphs, fetches, strict=True)
    return graphs, [_described(*of_stage, inputs) for of_stage in described], heads


def _scored(scorer, inputs):
    """Graph of a stage without what it fetches, the `Fetch` and what fetches, or None twice."""
    stage = thawed(scorer.estimator)
    head = costly_head(stage)
    if head is None:
        return scorer_graph(scorer, inputs), None, None
    fetch, joined = _fetched(head, inputs, scorer.name)
    rest = Pipeline(stage.steps[1:])
    return scorer_graph(replace(scorer, estimator=rest), joined), fetch, head


def _fetched(head, inputs, name):
    """`Fetch` of fitted costly features (None: none), and the inputs joined with them."""
    if head is None:
        return None, inputs
    schema, rest = head.schema_, tuple(head._rest_idx.tolist())
    names = [str(one) for one in head.get_feature_names_out()[len(rest) :]]
    dtypes = list(schema.dtypes) if is_dataframe(schema) else [schema.dtype] * len(names)
    fetched = tuple((one, _kind(dtype)) for one, dtype in zip(names, dtypes, strict=True))
    if inputs.columns is None:
        if any(kind == "str" for _, kind in fetched):
            raise NotExportable(
                f"Stage {name!r} fetches strings, which a matrix of numbers has no place for: fit "
                "on a dataframe, and give export rows of it as X."
            )
        joined = Inputs(len(rest) + len(fetched))
    else:
        joined = Inputs(len(rest) + len(fetched), (*(inputs.columns[j] for j in rest), *fetched))
    on = tuple(head._on_idx) if isinstance(head._on_idx, list) else _int(head._on_idx)
    return Fetch(on, rest, fetched), joined


def _described(name, graph, fetch, inputs):
    """What the runtime must know of a stage's graph."""
    columns = set()  # which may have names of what is carried
    if inputs.columns is not None:
        fetched = () if fetch is None else fetch.columns
        columns = {one for one, _ in (*inputs.columns, *fetched)}
    taken = [one.name for one in graph.graph.input]
    inputs = tuple((one, column(one) if one in columns else one) for one in taken)
    outputs = tuple(one.name for one in graph.graph.output if one.name != SCORES)
    return Stage(name, inputs, outputs, fetch)


def _column_types(model, X):
    """Names and types of columns that are inputs of their own; None where rows are a matrix."""
    if X is None or not is_dataframe(X):
        return None
    kinds = tuple((name, _kind(X[name].dtype)) for name in X.columns)
    has_names = all(isinstance(name, str) for name in X.columns)
    has_strings = any(kind == "str" for _, kind in kinds)
    if has_strings and not has_names:
        raise NotExportable(
            f"Columns of strings need names that are strings to be exported; got {list(X.columns)}."
        )
    return kinds if has_strings or (has_names and _selects_columns(model)) else None


def _kind(dtype):
    """Type of a column, as `skmsc.serving._inputs.TYPES` has it."""
    dtype = getattr(getattr(dtype, "categories", None), "dtype", dtype)  # what pandas' are of
    told = str(dtype).lower()
    if told.startswith(("int", "uint")):
        return "int64"
    if told.startswith(("float", "double")):
        return "float64"
    if told.startswith("bool"):
        return "bool"
    if told.startswith(_STRINGS):
        return "str"
    raise NotExportable(f"Columns of dtype {dtype} cannot be exported: use numbers or strings.")


def _selects_columns(part):
    """Whether a part of an estimator selects columns, by name perhaps."""
    if isinstance(part, ColumnTransformer):
        return True
    if isinstance(part, (list, tuple)):
        return any(map(_selects_columns, part))
    if isinstance(part, dict):
        return any(map(_selects_columns, part.values()))
    return isinstance(part, BaseEstimator) and any(map(_selects_columns, vars(part).values()))


def _allows_nan(step):
    return step.__sklearn_tags__().input_tags.allow_nan


def _int(code):
    return None if code is None else int(code)


def _versions():
    """Versions of what wrote the export."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # not of those that this export needed
            continue
    return found


def _check_equal(served, model, heads, X, steps, tolerance):
    """Raise where the graphs answer rows otherwise than the classifier."""
    inside = X
    for step in steps:
        inside = step.transform(inside)
    ours = model.route(inside)
    proba, stage = _run(served, heads, X, inside)
    same, apart_by = stage == ours.stage, np.abs(proba - ours.proba).max(axis=1)
    wrong = same & (apart_by > tolerance)
    apart = np.flatnonzero(~same)
    if apart.size:
        acts = model._acting(model.stage_proba(take_rows(inside, apart)))
        gap = np.abs(acts - model.thresholds_)
        rows, first = np.arange(apart.size), np.minimum(stage, ours.stage)[apart]
        wrong[apart] = gap[rows, first].min(axis=1) > tolerance
    if wrong.any():
        raise NotExportable(
            f"The graphs answer {int(wrong.sum())} of {wrong.size} rows otherwise than the "
            f"classifier, by {apart_by[wrong].max():.2g} at most where tolerance={tolerance:g}; "
            f"the first is row {int(wrong.argmax())}, and the stages are "
            f"{sorted({model._stage_names[k] for k in ours.stage[wrong]})}."
        )


def _run(served, heads, X, inside):
    """What the graphs answer, and at which stage; features are fetched by the model's own heads."""
    n_rows = _num_samples(X)
    proba, stage = np.empty((n_rows, len(served.classes_))), np.empty(n_rows, dtype=np.intp)
    waiting, rows = np.arange(n_rows), X
    for k, head in enumerate(heads):
        fetched = None
        if head is not None:
            joined = head.transform(take_rows(inside, waiting))
            fetched = _last_columns(joined, len(head._rest_idx))
        step = served.step(k, rows, fetched=fetched)
        proba[waiting], stage[waiting] = step.proba, k
        waiting, rows = waiting[~step.answered], step.carry
        if not waiting.size:
            break
    return proba, stage


def _last_columns(table, first):
    """Columns from a position on, of an array or dataframe."""
    if hasattr(table, "iloc"):
        return table.iloc[:, first:]
    return table[:, first:]
