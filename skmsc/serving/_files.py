"""Fitted estimators in files whose loading runs no code.

A file is one of `skops.io`, a zip archive of a tree of named types and of arrays. Types that are
not trusted are refused before anything is made of them. What skops does not know is taken apart
before and put together after: skorch nets and tensors (skorch itself restores nets by a pickle),
and dicts whose keys are no strings.
"""

from __future__ import annotations

import io
import json
import sys
from collections import OrderedDict
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np

from skmsc._checks import warn
from skmsc.serving._archive import read_archive, version, write_archive
from skmsc.serving._trees import check_trees
from skmsc.serving._trusted import may_make, may_make_key, trusted_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from skmsc._typing import Estimator

_KIND = "skmsc estimator"
_RECORD = "skmsc.json"  # what the archive holds besides what skops reads, and checksums
_FORMAT = 1
_PACKAGES = ("skmsc", "scikit-learn", "numpy")
_NET_PACKAGES = ("torch", "skorch")  # recorded where there are nets
_ATOMS = (
    *(bool, int, float, complex, str, bytes, type(None), type, np.generic, np.dtype),
    *(FunctionType, BuiltinFunctionType, MethodType, ModuleType),
)


def dump(
    model: Estimator, path: str | PathLike[str], *, trusted: Sequence[str | type] = ()
) -> None:
    """Write a fitted estimator to a file that `load_estimator` reads without running code.

    Parameters
    ----------
    model : estimator
        A multi-stage classifier, or a pipeline, search or wrapper with one inside.
    path : str or path-like
        The file; one that exists is replaced.
    trusted : sequence of str or type, default=()
        Further types and functions that the model holds and that its readers will trust, by module
        and name, such as ``"shop.features.fetch"``.

    Raises
    ------
    ValueError
        When the model holds something that cannot be written or is of a type that is neither known
        nor in `trusted`; the message names it, and no file is written.
    ImportError
        When skops is not installed.

    See Also
    --------
    load_estimator : Read it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmsc import FeedbackCascadeClassifier, PassBudget
    >>> from skmsc.serving import dump, load_estimator
    >>> X, y = make_classification(300, weights=[0.8], random_state=0)
    >>> stages = [("screen", LogisticRegression()), ("final", LogisticRegression(C=10.0))]
    >>> model = FeedbackCascadeClassifier(stages, thresholds=PassBudget(0.3)).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dump(model, Path(folder) / "model.skops")
    ...     again = load_estimator(Path(folder) / "model.skops")
    >>> bool((again.predict_proba(X) == model.predict_proba(X)).all())
    True
    """
    from skops import io as skops_io

    names, nets = _trusted_by_caller(trusted)
    parts = _Exchange(before=_taking_apart())
    try:
        data = skops_io.dumps(parts(model))
    except Exception as error:
        raise ValueError(f"This {type(model).__name__} cannot be written: {error}") from error
    _refuse_untrusted(data, names, f"This {type(model).__name__}")
    strange = {part.kind for part in parts.seen("PlainNet")} - _known_nets() - nets
    if strange:
        raise ValueError(_told(f"This {type(model).__name__}", strange))
    _check_importable(names | nets)
    packages = _PACKAGES + (_NET_PACKAGES if any(parts.seen("PlainNet", "PlainTensor")) else ())
    record = {"format": _FORMAT, "versions": {package: version(package) for package in packages}}
    with ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    write_archive(path, _KIND, {**members, _RECORD: json.dumps(record, indent=2).encode()})


def load_estimator(path: str | PathLike[str], *, trusted: Sequence[str | type] = ()) -> Any:
    """Read an estimator from a file that `dump` wrote, running no code of the file.

    Types that are neither known to skmsc nor in `trusted` are refused before anything is made.
    Known are the types of skmsc, the estimators of scikit-learn and torch's common layers; nothing
    else is imported, made or called. Trees are checked to point into themselves and into the
    columns that there are.

    The checksum tells that a file is whole, not who wrote it: a stranger's file cannot run code,
    but it may hold a model that answers what he likes.

    Parameters
    ----------
    path : str or path-like
        The file.
    trusted : sequence of str or type, default=()
        Further types and functions that you trust, by module and name. Look at each: whoever wrote
        the file may have any of them called with arguments of his choice.

    Returns
    -------
    model : estimator

    Raises
    ------
    ValueError
        When the file is not one of `dump`, is truncated or altered, or holds something that is not
        trusted, which is named.
    ImportError
        When skops is not installed, or a package that the model needs.

    Warns
    -----
    UserWarning
        When it was written with other versions of skmsc, scikit-learn, numpy, torch or skorch; the
        answers may then differ.

    See Also
    --------
    dump : Write it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skmsc.serving import dump, load_estimator
    >>> X, y = make_classification(random_state=0)
    >>> model = make_pipeline(FunctionTransformer(np.nan_to_num), LogisticRegression()).fit(X, y)
    >>> path = Path(tempfile.mkdtemp()) / "model.skops"
    >>> dump(model, path, trusted=["numpy.nan_to_num"])
    >>> load_estimator(path)
    Traceback (most recent call last):
        ...
    ValueError: The file '...' holds what is not trusted: ['numpy.nan_to_num']. ...
    >>> load_estimator(path, trusted=["numpy.nan_to_num"]).score(X, y) > 0.8
    True
    """
    from skops import io as skops_io

    names, nets = _trusted_by_caller(trusted)
    versions = _read_versions(path)
    data = Path(path).read_bytes()
    _refuse_untrusted(data, names, f"The file {str(path)!r}")
    _warn_of_versions(versions, path)
    try:
        model = skops_io.loads(data, trusted=sorted(trusted_names() | names))
        model = _Exchange(after=lambda part: _put_together(part, nets))(model)
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"The file {str(path)!r} cannot be read: {error}") from error
    check_trees(model, _Exchange)
    return model


@dataclass(frozen=True)
class PlainDict:
    """A dict whose keys are not all strings, which JSON cannot tell apart."""

    keys: list
    values: list
    ordered: bool

    def restored(self):
        """The dict."""
        return (OrderedDict if self.ordered else dict)(zip(self.keys, self.values, strict=True))


class _Exchange:
    """Exchange parts of an object for others; what holds none of them stays, the rest is copied.

    ``before(part)`` is asked on the way down and ``after(part)`` on the way up. An object that is
    held in two places is one object afterwards.
    """

    def __init__(self, before=None, after=None):
        self.before, self.after = before, after
        self.known = {}  # by id: the part, which must stay alive, and what it became

    def seen(self, *names):
        """Plain parts of these types that were made."""
        return [new for _, new in self.known.values() if type(new).__name__ in names]

    def __call__(self, part):
        """The object with its parts exchanged."""
        if isinstance(part, _ATOMS) or (type(part) is np.ndarray and part.dtype != object):
            return part
        if id(part) not in self.known:
            self.known[id(part)] = part, part  # one that holds itself is met again
            new = part if self.before is None else self.before(part)
            new = self._with_parts(new)
            self.known[id(part)] = part, new if self.after is None else self.after(new)
        return self.known[id(part)][1]

    def _with_parts(self, part):
        if isinstance(part, dict):
            values = [self(value) for value in part.values()]
            if _same(values, part.values()):
                return part
            new = copy(part)
            new.update(zip(part, values, strict=True))
            return new
        if isinstance(part, (list, tuple, set)):
            values = [self(value) for value in part]
            if _same(values, part):
                return part
            return type(part)(*values) if hasattr(part, "_fields") else type(part)(values)
        if isinstance(part, np.ndarray):
            values = [self(value) for value in part.ravel()] if part.dtype == object else []
            if _same(values, part.ravel()[: len(values)]):
                return part
            new = np.empty(len(values), dtype=object)
            new[:] = values
            return new.reshape(part.shape)
        if not hasattr(part, "__dict__"):
            return part
        attributes = {name: self(value) for name, value in vars(part).items()}
        if _same(attributes.values(), vars(part).values()):
            return part
        new = type(part).__new__(type(part))
        vars(new).update(attributes)
        return new


def _same(values, others):
    """Whether these are the very same objects."""
    return all(value is other for value, other in zip(values, others, strict=True))


def _taking_apart():
    """Function that gives the plain form of a part."""
    plain_net = None
    if "torch" in sys.modules:  # else there is no net
        from skmsc.neural._plain import plain as plain_net

    def plain(part):
        if type(part) in (dict, OrderedDict) and any(type(key) is not str for key in part):
            return PlainDict(list(part), list(part.values()), type(part) is OrderedDict)
        return part if plain_net is None else plain_net(part)

    return plain


def _put_together(part, nets):
    """What a plain part stands for."""
    if isinstance(part, PlainDict):
        return part.restored()
    if "torch" in sys.modules:  # else there is no part of it
        from skmsc.neural._plain import whole

        return whole(part, nets)
    return part


def _known_nets():
    """Classes of nets that are trusted."""
    neural = sys.modules.get("skmsc.neural._plain")
    return set() if neural is None else set(neural.NETS)


def _trusted_by_caller(trusted):
    """Names that the caller trusts: those of types and functions, and those of classes of nets.

    A net is put together by us. Its class must not become a type that skops restores, as skorch
    would unpickle what the file has for it.
    """
    if isinstance(trusted, (str, type)):
        raise TypeError(f"trusted must be a sequence of names or types; got {trusted!r}.")
    names, nets = set(), set()
    for entry in trusted:
        if isinstance(entry, str):
            name, kind = entry, _find(entry)
        elif hasattr(entry, "__module__") and hasattr(entry, "__qualname__"):
            name, kind = f"{entry.__module__}.{entry.__qualname__}", entry
        else:
            raise TypeError(f"trusted must hold names or types; got {entry!r}.")
        of_skorch = isinstance(kind, type) and any(
            f"{base.__module__}.{base.__qualname__}" == "skorch.net.NeuralNet"
            for base in kind.__mro__
        )
        (nets if of_skorch else names).add(name)
    return names, nets


def _find(name):
    """What has this name; None where nothing has."""
    module, _, last = name.rpartition(".")
    try:
        return getattr(import_module(module), last, None)
    except (ImportError, ValueError):
        return None


def _check_importable(names):
    """Raise for names under which nothing will be found when the file is read."""
    lost = sorted(name for name in names if _find(name) is None)
    if lost:
        raise ValueError(
            f"trusted names what cannot be imported by that name, as a lambda or a function inside "
            f"another: {lost}."
        )


def _refuse_untrusted(data, names, what):
    """Raise for types that are not trusted; nothing is imported or made for it."""
    from skops import io as skops_io

    try:
        with ZipFile(io.BytesIO(data)) as archive:
            called = _called(json.loads(archive.read("schema.json")))
        found = set(skops_io.get_untrusted_types(data=data))
    except Exception as error:
        raise ValueError(f"{what} is no readable tree of types: {error}") from error
    strange = (called | found - trusted_names()) - names
    if strange:
        raise ValueError(_told(what, strange))


def _called(schema):
    """Names of what skops would call for a tree of types, though it is not for it to call."""
    nodes, waiting = [], [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "__loader__" in part:
                nodes.append(part)
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)

    def with_like(some):  # skops takes one node for all that have its number
        numbers = {node["__id__"] for node in some if node.get("__id__")}
        return some + [node for node in nodes if node.get("__id__") in numbers]

    called = {_name(node) for node in nodes if not may_make(node["__loader__"], _name(node))}
    lists = with_like([node["key_types"] for node in nodes if node["__loader__"] == "DictNode"])
    keys = with_like([key for types in lists for key in types["content"]])
    called |= {_name(key) for key in keys if not may_make_key(key["__loader__"], _name(key))}
    return called


def _name(node):
    return f"{node['__module__']}.{node['__class__']}"


def _told(what, strange):
    return (
        f"{what} holds what is not trusted: {sorted(strange)}. If you know each of these and trust "
        "whoever writes such files, name them in trusted."
    )


def _read_versions(path):
    """Versions that `dump` noted in a file, which is checked to be whole."""
    try:
        record = json.loads(read_archive(path, _KIND)[_RECORD])
        found, versions = record["format"], dict(record["versions"])
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"The file {str(path)!r} cannot be read: {error}") from error
    if found != _FORMAT:
        raise ValueError(
            f"The file {str(path)!r} has format {found!r}; this skmsc reads {_FORMAT}."
        )
    return versions


def _warn_of_versions(versions, path):
    """Warn where packages have other versions than when the file was written."""
    here = {package: version(package) for package in versions if package in _ALL_PACKAGES}
    other = [
        f"{package} {versions[package]} (here {found})"
        for package, found in here.items()
        if versions[package] != found
    ]
    if other:
        warn(
            f"The file {str(path)!r} was written with {', '.join(other)}. The model may fail or "
            "answer otherwise."
        )


_ALL_PACKAGES = {*_PACKAGES, *_NET_PACKAGES}
