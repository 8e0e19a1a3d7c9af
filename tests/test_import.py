"""`import skmsc` is as light as `import sklearn`; private scikit-learn names stay in one module."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import skmsc

PACKAGE = Path(skmsc.__file__).parent
HEAVY = ("torch", "skorch", "matplotlib")
OPTIONAL = ("matplotlib", "pandas", "polars", "pyarrow")


def output_of(code):
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_after(statements):
    """Which of the heavy packages a fresh interpreter has loaded after the statements."""
    code = f"{statements}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    return output_of(code).split()


def private_sklearn_imports(path):
    """Private names that a file imports from scikit-learn, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "sklearn" and any(part.startswith("_") for part in rest):
                yield name


def test_version_is_that_of_the_installed_package():
    assert skmsc.__version__ == version("skmsc")


def test_import_is_light():
    assert loaded_after("import skmsc") == []


def test_public_names_resolve_and_are_light():
    assert skmsc.__all__
    assert len(set(skmsc.__all__)) == len(skmsc.__all__)
    assert loaded_after("".join(f"from skmsc import {name}\n" for name in skmsc.__all__)) == []


def typed_names(package):
    """What a package imports for type checkers: name to module."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_typed_names_are_those_imported_when_asked_for():
    typed = typed_names(skmsc)
    assert typed == skmsc._HOME_OF
    assert set(typed) == set(skmsc.__all__) <= set(dir(skmsc))
    homes = {name: f"skmsc.serving.{home}" for name, home in skmsc.serving._HOMES.items()}
    assert typed_names(skmsc.serving) == homes


def test_importing_the_package_imports_no_scikit_learn():
    assert output_of("import skmsc, sys\nprint('sklearn' in sys.modules)").strip() == "False"


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="no attribute 'Cascade'"):
        skmsc.Cascade  # noqa: B018


def test_public_names_need_no_optional_package():
    # scikit-learn itself loads pandas where there is one, so that absence is what can be tested:
    # None in sys.modules makes an import raise ImportError.
    absent = f"import sys\nsys.modules.update(dict.fromkeys({OPTIONAL}))\n"
    assert output_of(absent + "from skmsc import *\nprint('imported')").strip() == "imported"


def test_dask_is_imported_only_when_used():
    code = "import sys, skmsc\nskmsc.distributed.predict\nprint('dask' in sys.modules)"
    assert output_of(code).strip() == "False"


def test_training_nets_does_not_import_the_compiler():
    code = """
import sys, numpy as np
from sklearn.naive_bayes import GaussianNB
from skmsc import EarlyExitClassifier, FeedbackCascadeClassifier
from skmsc.neural import MultiExitNet, TabularNet
X = np.random.default_rng(0).normal(size=(200, 3))
y = (X[:, 0] > 0).astype(int)
for model in (
    TabularNet(max_epochs=1),
    TabularNet("resnet", max_epochs=1, lr_schedule="cosine"),
    EarlyExitClassifier(GaussianNB(), MultiExitNet(max_epochs=2), exit_weighting="learned"),
    FeedbackCascadeClassifier([("first", GaussianNB()), ("net", TabularNet(max_epochs=1))]),
):
    model.fit(X, y).predict(X)
    print(type(model).__name__, "torch" in sys.modules, "torch._dynamo" in sys.modules)
"""
    printed = output_of(code).splitlines()
    assert len(printed) == 4
    assert [line for line in printed if not line.endswith(" True False")] == []


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.relative_to(PACKAGE).as_posix())
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "_sklearn.py"
    ],
)
def test_private_sklearn_names_stay_in_one_module(path):
    assert list(private_sklearn_imports(path)) == []
