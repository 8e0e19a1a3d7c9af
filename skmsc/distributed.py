"""Rows of dask dataframes and arrays, answered partition by partition by dask's workers.

Dask is an engine of its own: it reads the rows, moves them and computes, on the threads of one
machine or on the workers of many. What is here tells it what to compute, and no more.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np

from skmsc.reporting._unwrap import find_inside
from skmsc.reporting._unwrap import route as route_rows
from skmsc.routing import Routing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skmsc._typing import Estimator

__all__ = ["predict", "predict_proba", "route"]


def predict(
    model: Estimator,
    data: Any,
    *,
    columns: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
) -> Any:
    """Predict the class of each row of a dask dataframe or array.

    Nothing is computed before the result is asked for. The model goes once to each worker: see
    Notes.

    Parameters
    ----------
    model : classifier
        Any fitted classifier: ours, or a pipeline, search or threshold wrapper around one.
    data : dask dataframe or dask array of shape (n_samples, n_features)
        Rows; an array chunked by rows only. Partitions may be empty.
    columns : list of str, default=None
        Columns of the dataframe that the model gets, in this order. None: those named in its
        ``feature_names_in_``; of a model that was fitted without names, all but those of `keep`.
    keep : list of str, default=None
        Columns of the dataframe that the result has as well, such as an id.

    Returns
    -------
    y : dask Series named "prediction", or dask array of shape (n_samples,)
        Labels, with the index and the divisions of `data`. With `keep` a dask dataframe of these
        columns and ``prediction``.

    Raises
    ------
    TypeError
        When `data` is no dask dataframe or array, or the model no fitted classifier.
    ValueError
        When columns are missing, or an array does not have those of the model or is chunked
        across them.

    Notes
    -----
    With a distributed client the model is scattered to all workers when this function is called;
    each of them unpickles it once, however many partitions it answers, and the result has to be
    computed on that cluster. On dask's threads it is not copied at all. Dask's scheduler
    "processes" pickles it for each partition: use a ``LocalCluster`` instead.

    Examples
    --------
    >>> import dask.array as da
    >>> import skmsc
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(600, weights=[0.8], random_state=0)
    >>> model = skmsc.FeedbackCascadeClassifier(thresholds=skmsc.PassBudget(0.3), random_state=0)
    >>> rows = da.from_array(X, chunks=(200, -1))
    >>> labels = skmsc.distributed.predict(model.fit(X, y), rows)
    >>> labels
    dask.array<_block, shape=(600,), dtype=int64, chunksize=(200,), chunktype=numpy.ndarray>
    >>> bool((labels.compute() == model.predict(X)).all())
    True
    """
    classes = _check_model(model, "predict").classes_
    return _told(_Predictions(classes), model, data, columns, keep)


def predict_proba(
    model: Estimator,
    data: Any,
    *,
    columns: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
) -> Any:
    """Predict the class probabilities of each row of a dask dataframe or array.

    Parameters
    ----------
    model : classifier
        Any fitted classifier with `predict_proba`.
    data : dask dataframe or dask array of shape (n_samples, n_features)
        Rows, as for `predict`.
    columns, keep : list of str, default=None
        As for `predict`.

    Returns
    -------
    proba : dask dataframe, or dask array of shape (n_samples, n_classes)
        The dataframe has the columns of `keep` and then, in the order of ``classes_``, a column for
        each class, ``proba_0`` and ``proba_1`` for the labels 0 and 1.

    Raises
    ------
    TypeError, ValueError
        As `predict` does.

    Examples
    --------
    >>> import dask.dataframe as dd
    >>> import pandas as pd
    >>> import skmsc
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(600, weights=[0.8], random_state=0)
    >>> X = pd.DataFrame(X).add_prefix("v")
    >>> model = skmsc.FeedbackCascadeClassifier(thresholds=skmsc.PassBudget(0.3), random_state=0)
    >>> rows = dd.from_pandas(X.assign(card=range(600)), npartitions=3)
    >>> scored = skmsc.distributed.predict_proba(model.fit(X, y), rows, keep=["card"])
    >>> scored.columns.tolist(), scored.npartitions
    (['card', 'proba_0', 'proba_1'], 3)
    """
    classes = _check_model(model, "predict_proba").classes_
    return _told(_Probabilities(classes), model, data, columns, keep)


def route(
    model: Estimator,
    data: Any,
    *,
    columns: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
) -> Any:
    """Tell which stage answers each row of a dask dataframe or array, with what, at what cost.

    Parameters
    ----------
    model : classifier
        A fitted multi-stage classifier, or a pipeline, search or threshold wrapper around one.
    data : dask dataframe or dask array of shape (n_samples, n_features)
        Rows, as for `predict`.
    columns, keep : list of str, default=None
        As for `predict`.

    Returns
    -------
    routing : dask dataframe
        The columns of `keep`, then those of `skmsc.routing.Routing`: ``stage``, an integer;
        ``cost``, nan where costs are not known; and a column of probabilities for each class, as
        `predict_proba` has them. Rows of an array are numbered where its chunk sizes are known.

    Raises
    ------
    TypeError, ValueError
        As `predict` does, and TypeError when there is no multi-stage classifier inside.

    Examples
    --------
    >>> import dask.array as da
    >>> import skmsc
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(600, weights=[0.8], random_state=0)
    >>> model = skmsc.FeedbackCascadeClassifier(thresholds=skmsc.PassBudget(0.3), random_state=0)
    >>> rows = da.from_array(X, chunks=(200, -1))
    >>> routing = skmsc.distributed.route(model.fit(X, y), rows)
    >>> routing.columns.tolist()
    ['stage', 'cost', 'proba_0', 'proba_1']
    >>> routing.stage.value_counts().compute().sum().item()
    600
    """
    inside, _ = find_inside(_check_model(model, "predict"))
    teller = _Routings(inside.classes_)
    return _told(teller, model, data, columns, keep)


@dataclass(frozen=True)
class _Predictions:
    """What `predict` tells of rows."""

    classes: np.ndarray

    def of_none(self):
        """The array of no rows."""
        return self.classes[:0]

    def of_rows(self, model, X):
        """An array with an entry for each row."""
        return model.predict(X)

    def columns(self, labels):
        """Such an array as the columns of a table."""
        import pandas as pd

        # The type is that of all labels: pandas would guess it from those of a partition.
        return {"prediction": pd.array(labels, dtype=pd.Series(self.classes).dtype)}


class _Probabilities(_Predictions):
    """What `predict_proba` tells of rows."""

    def of_none(self):
        return np.empty((0, len(self.classes)))

    def of_rows(self, model, X):
        return model.predict_proba(X)

    def columns(self, proba):
        return {f"proba_{label}": proba[:, c] for c, label in enumerate(self.classes.tolist())}


class _Routings(_Probabilities):
    """What `route` tells of rows."""

    def of_none(self):
        return Routing(np.empty(0, dtype=np.intp), super().of_none(), np.empty(0))

    def of_rows(self, model, X):
        return route_rows(model, X)

    def columns(self, routing):
        cost = np.full(routing.stage.size, np.nan) if routing.cost is None else routing.cost
        return {"stage": routing.stage, "cost": cost, **super().columns(routing.proba)}


def _told(teller, model, data, columns, keep):
    """What a teller says of dask data."""
    da = _import("dask.array")
    if not isinstance(data, da.Array):
        return _told_of_frame(teller, model, data, columns, keep)
    if columns is not None or keep is not None:
        raise ValueError(
            "columns and keep are names of a dataframe's columns, and data is an array; got "
            f"columns={columns!r}, keep={keep!r}."
        )
    if data.ndim != 2 or data.shape[1] != getattr(model, "n_features_in_", data.shape[1]):
        raise ValueError(
            f"data must be of shape (n_samples, {getattr(model, 'n_features_in_', 'n_features')}) "
            f"for this {type(model).__name__}; got {data.shape}."
        )
    if data.numblocks[1] > 1:
        raise ValueError(
            "data must be chunked by rows only, data.rechunk({1: -1}) makes it so; got "
            f"{data.numblocks[1]} chunks across the columns."
        )
    if isinstance(teller, _Routings):
        frame = _import("dask.dataframe").from_dask_array(data)
        return _told_of_frame(teller, model, frame, frame.columns.tolist(), None)
    none = teller.of_none()
    shape = {"drop_axis": 1} if none.ndim == 1 else {"chunks": (data.chunks[0], none.shape[1:])}
    return data.map_blocks(
        _block, teller=teller, shared=_shared(model), dtype=none.dtype, meta=none, **shape
    )


def _told_of_frame(teller, model, data, columns, keep):
    """What a teller says of a dask dataframe."""
    dd = _import("dask.dataframe")
    if not isinstance(data, dd.DataFrame):
        raise TypeError(
            "data must be a dask dataframe or a dask array, and of others the model's own methods "
            f"tell; got {type(data).__module__}.{type(data).__name__}."
        )
    keep = _check_names("keep", [] if keep is None else keep, data)
    names = getattr(model, "feature_names_in_", None)
    if columns is not None:
        columns = _check_names("columns", columns, data)
    elif names is not None:
        columns = _check_names("the model's feature_names_in_", names.tolist(), data)
    else:
        columns = [name for name in data.columns if name not in keep]
    if len(columns) != getattr(model, "n_features_in_", len(columns)):
        raise ValueError(
            f"This {type(model).__name__} was fitted on {model.n_features_in_} features; columns "
            f"are {len(columns)}: {columns!r}."
        )
    told = list(teller.columns(teller.of_none()))
    if set(keep) & set(told):
        raise ValueError(
            f"keep must not hold a name that the result gives to a column, {told}; got {keep!r}."
        )
    how = {"teller": teller, "columns": columns, "keep": keep, "named": names is not None}
    # No other column is read, of Parquet for example.
    data = data[list(dict.fromkeys([*columns, *keep]))]
    meta = _part(data._meta, None, **how)
    return data.map_partitions(_part, _shared(model), **how, meta=meta)


def _block(X, teller, shared):
    """What a teller says of a block of rows; one without rows needs no model."""
    return teller.of_rows(shared.model, X) if X.shape[0] else teller.of_none()


def _part(frame, shared, teller, columns, keep, named):
    """What a teller says of a partition, a pandas dataframe."""
    import pandas as pd

    rows = frame[columns] if named else frame[columns].to_numpy()
    told = pd.DataFrame(teller.columns(_block(rows, teller, shared)), index=frame.index)
    if keep:
        return pd.concat([frame[keep], told], axis=1)
    return told["prediction"] if type(teller) is _Predictions else told


def _shared(model):
    """The model as an argument that dask hands to all tasks without sending it with each."""
    shared = _Shared(uuid4().hex, model)
    client = getattr(_import("dask.base").get_scheduler(), "__self__", None)
    if client is None or client.asynchronous:
        return _import("dask").delayed(shared, traverse=False)
    return client.scatter(shared, broadcast=True, hash=False)


@dataclass(eq=False)
class _Shared:
    """A model that a process unpickles once, should it arrive there more than once."""

    key: str
    model: object

    def __reduce__(self):
        return _arrived, (self.key, _import("cloudpickle").dumps(self.model))


_here, _arriving = WeakValueDictionary(), Lock()


def _arrived(key, pickled):
    """The `_Shared` of a key in this process."""
    with _arriving:
        shared = _here.get(key)
        if shared is None:
            shared = _here[key] = _Shared(key, pickle.loads(pickled))
        return shared


def _check_model(model, method):
    """The model, which must be fitted and have a method."""
    if not hasattr(model, "classes_") or not hasattr(model, method):
        raise TypeError(f"model must be a fitted classifier with {method}; got {model!r}.")
    return model


def _check_names(what, names, data):
    """Names of columns as a list; raises where the dataframe lacks some."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"{what} must be a list of column names; got {names!r}.")
    names = list(names)
    missing = [name for name in names if name not in data.columns]
    if missing or len(set(names)) < len(names):
        raise ValueError(
            f"{what} must be different columns of data, {data.columns.tolist()}; got {names!r}"
            + (f", of which it lacks {missing!r}." if missing else ".")
        )
    return names


def _import(name):
    """A module of dask."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"skmsc.distributed needs {name}: pip install 'skmsc[distributed]'."
        ) from error
