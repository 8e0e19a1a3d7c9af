"""Docstrings tell the truth about the signatures, which are annotated; all have an example."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from functools import cached_property
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString

import skmsc


def is_ours(obj):
    """Whether the object is defined in skmsc."""
    module = getattr(obj, "__module__", None) or ""
    return module.split(".")[0] == "skmsc"


def public_modules():
    """Import skmsc and every module below it whose path has no private part."""

    def fail(name):
        raise  # walk_packages calls this inside its except block

    yield skmsc
    for info in pkgutil.walk_packages(skmsc.__path__, "skmsc.", onerror=fail):
        if not any(part.startswith("_") for part in info.name.split(".")):
            yield importlib.import_module(info.name)


def public_names(module):
    """The names in `__all__`; without one, those that the module itself defines."""
    if hasattr(module, "__all__"):
        return module.__all__
    return [
        name
        for name, obj in vars(module).items()
        if not name.startswith("_") and getattr(obj, "__module__", None) == module.__name__
    ]


def public_objects():
    """Every public class and function once, under the first name that leads to it."""
    found = {}
    for module in public_modules():
        for name in sorted(public_names(module)):
            obj = getattr(module, name)
            if (inspect.isclass(obj) or inspect.isroutine(obj)) and is_ours(obj):
                found.setdefault(id(obj), (f"{module.__name__}.{name}", obj))
    return list(found.values())


def public_methods(cls):
    """Public methods and properties of a class that skmsc defines, inherited ones included."""
    for name in sorted(dir(cls)):
        if name.startswith("_"):
            continue
        member = inspect.getattr_static(cls, name)
        if isinstance(member, property):
            member = member.fget
        elif isinstance(member, cached_property):
            member = member.func
        else:
            member = getattr(cls, name)
        # What scikit-learn adds to a class (set_fit_request, get_params, ...) is defined there.
        if inspect.isroutine(member) and is_ours(member):
            yield name, member


OBJECTS = public_objects()
METHODS = [
    (f"{path}.{name}", method)
    for path, cls in OBJECTS
    if inspect.isclass(cls)
    for name, method in public_methods(cls)
]

each_object = pytest.mark.parametrize("obj", [pytest.param(obj, id=path) for path, obj in OBJECTS])
each_method = pytest.mark.parametrize(
    "method", [pytest.param(method, id=path) for path, method in METHODS]
)


def parsed(obj):
    """The object's own docstring, parsed; an unknown section is a warning, thus an error."""
    assert obj.__doc__, "no docstring"
    return NumpyDocString(inspect.cleandoc(obj.__doc__))


def summary(obj):
    """The first line of the docstring."""
    return (obj.__doc__ or "").strip().split("\n")[0]


def signature_defaults(obj):
    """Parameter name to default (`Parameter.empty` without one), in order, without self."""
    if inspect.isclass(obj):
        # Exceptions, enumerations and the like take their constructor from elsewhere.
        if not (is_ours(obj.__init__) or dataclasses.is_dataclass(obj)):
            return {}
        obj = obj.__init__
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(obj).parameters.values()
        if parameter.name not in ("self", "cls")
    }


def missing_annotations(obj):
    """Names of the parameters without an annotation, "return" for what is returned."""
    if inspect.isclass(obj):
        # The fields of a dataclass have types; other constructors may come from elsewhere.
        if dataclasses.is_dataclass(obj) or not is_ours(obj.__init__):
            return
        obj = obj.__init__
    signature = inspect.signature(obj)
    for parameter in signature.parameters.values():
        if parameter.name not in ("self", "cls") and parameter.annotation is parameter.empty:
            yield parameter.name
    if signature.return_annotation is signature.empty:
        yield "return"


def documented_types(obj):
    """Parameter name to documented type, in order.

    A dataclass that users are handed, rather than build, documents its fields as attributes.
    """
    doc = parsed(obj)
    entries = doc["Parameters"] + doc["Other Parameters"]
    if dataclasses.is_dataclass(obj) and not entries:
        fields = {field.name for field in dataclasses.fields(obj)}
        entries = [entry for entry in doc["Attributes"] if entry.name in fields]
    # One entry may document several parameters: "X, y : array-like".
    return {
        name.strip().lstrip("*"): entry.type for entry in entries for name in entry.name.split(",")
    }


def documented_default(type_):
    """What follows "default=" in a documented type, None where nothing does."""
    match = re.search(r"\bdefault\s*[=:]\s*(.+)$", type_, flags=re.DOTALL)
    return match and match.group(1).strip().strip("`").rstrip(".")


def same_default(text, value):
    """Whether the documented text names the value: the literal itself, its repr or its name."""
    try:
        documented = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        shown = {repr(value), str(value), getattr(value, "__name__", None)}
        return text.removeprefix("np.") in shown
    return type(documented) is type(value) and documented == value


def wrong_defaults(obj):
    """Documented defaults that differ from the signature's, as readable lines."""
    defaults = signature_defaults(obj)
    for name, type_ in documented_types(obj).items():
        text, value = documented_default(type_), defaults.get(name, inspect.Parameter.empty)
        if text is None:
            continue
        if value is inspect.Parameter.empty:
            yield f"{name}: documented default {text}, none in the signature"
        elif not same_default(text, value):
            yield f"{name}: documented default {text}, in the signature {value!r}"


def missing_defaults(obj):
    """Names of the parameters whose default the docstring does not tell, "y : ignored" apart."""
    types = documented_types(obj)
    for name, value in signature_defaults(obj).items():
        type_ = types.get(name, "")
        if value is inspect.Parameter.empty or type_.lower() in ("none", "ignored"):
            continue
        if documented_default(type_) is None:
            yield name


def test_there_is_something_to_check():
    assert OBJECTS


def test_the_reference_has_every_public_object_once():
    page = Path(__file__).parents[1] / "docs" / "reference" / "index.md"
    listed = re.findall(r"^   ~?(skmsc\.[\w.]+)$", page.read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(path for path, _ in OBJECTS)


@each_object
def test_summary(obj):
    assert summary(obj).endswith(".")


@each_object
def test_parameters(obj):
    assert list(documented_types(obj)) == list(signature_defaults(obj))


@each_object
def test_defaults(obj):
    assert list(wrong_defaults(obj)) == []
    assert list(missing_defaults(obj)) == []


@each_object
def test_annotations(obj):
    assert list(missing_annotations(obj)) == []


@each_method
def test_method_annotations(method):
    assert list(missing_annotations(method)) == []


@each_object
def test_has_example(obj):
    assert any(">>>" in line for line in parsed(obj)["Examples"])


@each_method
def test_method_summary(method):
    assert summary(method).endswith(".")


@each_method
def test_method_parameters(method):
    # A method may leave its parameters out, but not tell of others.
    documented = list(documented_types(method))
    assert documented in ([], list(signature_defaults(method)))
    assert list(wrong_defaults(method)) == []


@pytest.mark.parametrize(
    "text, value, same",
    [
        ("None", None, True),
        ("'caught'", "caught", True),
        ('"caught"', "caught", True),
        ("caught", "caught", True),
        ("0.2", 0.2, True),
        (".2", 0.2, True),
        ("(0.25, 0.75)", (0.25, 0.75), True),
        ("np.inf", float("inf"), True),
        ("(0.25, 0.75)", (25.0, 75.0), False),
        ("5", 10, False),
        ("1", True, False),
        ("None", "none", False),
    ],
)
def test_same_default(text, value, same):
    assert same_default(text, value) is same
