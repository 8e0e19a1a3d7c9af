"""Files give back the bits of a model, and make nothing that is not trusted.

A fetch of costly features and a stage of this module's own stand for a caller's code.
"""

import copy
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import Bunch
from skops import io as skops_io
from skorch import NeuralNetClassifier
from torch import nn

import skmsc
from skmsc import (
    Agreement,
    AlertBudget,
    ComposableHeadClassifier,
    CostBudget,
    CostlyFeatures,
    EarlyExitClassifier,
    ExpectedCost,
    FeedbackCascadeClassifier,
    PassBudget,
    RecallFloor,
    RidgeHead,
)
from skmsc.model_selection import FinalCutClassifier, ThresholdSearchCV
from skmsc.neural import MultiExitNet, TabularNet
from skmsc.serving import _files, dump, load_estimator
from skmsc.serving._archive import write_archive
from skmsc.serving._trusted import _OF_MODULES, may_make, trusted_names

X, y = make_classification(300, n_informative=5, weights=[0.7], random_state=0)
FRAME = pd.DataFrame(X[:, :3], columns=["p", "q", "r"]).assign(
    colour=np.where(X[:, 3] > 0, "red", "blue")
)
HERE = __name__


def fetch(keys):
    return np.column_stack([keys, keys**2])


class Mine(ClassifierMixin, BaseEstimator):
    """A caller's own stage."""

    def fit(self, X, y):
        self.model_ = GaussianNB().fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


class OwnNet(NeuralNetClassifier):
    """A caller's own net."""


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Test modules are not in sys.modules by their names here."""
    module = sys.modules.get(HERE) or type(sys)(HERE)
    vars(module).update(Mine=Mine, OwnNet=OwnNet, fetch=fetch)
    monkeypatch.setitem(sys.modules, HERE, module)


def raw_net(kind=NeuralNetClassifier, **params):
    module = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    params = {"criterion": nn.CrossEntropyLoss, "max_epochs": 2, "verbose": 0} | params
    return kind(module, **params)


def cascade(*later, **params):
    stages = [("first", LogisticRegression())]
    stages += [(f"later{k}", stage) for k, stage in enumerate(later or (GaussianNB(),))]
    params = {"thresholds": PassBudget(0.4), "feedback": "none", "cv": 2} | params
    return FeedbackCascadeClassifier(stages, random_state=0, **params)


def exits(first=None, **params):
    net = MultiExitNet(width=8, max_epochs=1, lr=0.02, trunk=params.pop("trunk", "mlp"))
    return EarlyExitClassifier(first, net, random_state=0, **{"thresholds": 0.9} | params)


def heads(first=None, trunk="passthrough", **params):
    return ComposableHeadClassifier(first, trunk, random_state=0, **params)


def tabular(**params):
    return TabularNet(width=8, max_epochs=2, lr=0.02, **params)


def written(model, tmp_path, **params):
    path = tmp_path / "model.skops"
    dump(model, path, **params)
    return path


def read_back(model, tmp_path, **params):
    return load_estimator(written(model, tmp_path, **params), **params)


def assert_same(model, again, X=X):
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))
    np.testing.assert_array_equal(model.predict(X), again.predict(X))
    one, other = skmsc.route(model, X), skmsc.route(again, X)
    for name in ("stage", "proba", "cost"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


STAGES = {
    "forest": lambda: RandomForestClassifier(3),
    "extra trees": lambda: ExtraTreesClassifier(3, min_samples_leaf=2),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=3),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=3),
    "decisions only": lambda: LinearSVC(),
    "calibrated": lambda: CalibratedClassifierCV(LinearSVC(), cv=2),
    "voting": lambda: VotingClassifier(
        [("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=3))], voting="soft"
    ),
    "perceptron": lambda: make_pipeline(StandardScaler(), MLPClassifier((4,), tol=1.0)),
    "frozen": lambda: FrozenEstimator(GaussianNB().fit(X, y)),
    "net": lambda: tabular(),
    "ensemble net": lambda: tabular(trunk="tabm"),
    "skorch net": lambda: FrozenEstimator(raw_net().fit(X.astype(np.float32), y.astype(np.int64))),
}


@pytest.mark.filterwarnings("ignore:TabularNet learned nothing")
@pytest.mark.parametrize("kind", STAGES)
def test_stages_of_a_cascade(kind, tmp_path):
    model = cascade(GaussianNB(), STAGES[kind]()).fit(X, y)
    again = read_back(model, tmp_path)
    assert_same(model, again)
    np.testing.assert_array_equal(model.stage_proba(X), again.stage_proba(X))
    assert again.stages_[0] is again._scorers[0].estimator  # one object, as it was


MODELS = {
    "isotonic, kept scores": lambda: cascade(
        calibration="isotonic", store_oof=True, cv=StratifiedKFold(2)
    ),
    "recall floor": lambda: cascade(thresholds=RecallFloor(0.9), feedback="caught"),
    "expected cost": lambda: cascade(
        thresholds=ExpectedCost(false_negative_cost=5, false_positive_cost=1)
    ),
    "cost budget": lambda: cascade(
        thresholds=CostBudget(3.0), stage_costs={"first": 1, "later0": 9}
    ),
    "numbers": lambda: cascade(thresholds=[0.3], calibration=None),
    "exits": lambda: exits(LogisticRegression(), calibration="sigmoid"),
    "residual exits": lambda: exits(
        trunk="resnet", thresholds=Agreement(0.1), exit_weighting="learned"
    ),
    "heads": lambda: heads(LogisticRegression(), tabular(), thresholds=0.8),
    "heads on random features": lambda: heads(head=RidgeHead(n_random_features=30)),
    "heads from rows": lambda: heads(head="pairwise", replay_size=20),
    "fixed heads": lambda: heads(trunk=tabular(), head="hadamard", replay_size=20),
    "heads on a module": lambda: heads(trunk=nn.Sequential(nn.Linear(20, 8), nn.Tanh())),
    "unknown class": lambda: heads(proba="open", unknown_label=7, reject=0.1),
    "pipeline": lambda: make_pipeline(StandardScaler(), cascade()),
    "search": lambda: GridSearchCV(
        cascade(),
        {"thresholds__max_pass_rate": [0.2, 0.4]},
        cv=StratifiedKFold(2),
        scoring=["average_precision", "accuracy"],
        refit="accuracy",
    ),
    "search over thresholds": lambda: ThresholdSearchCV(
        cascade(), [PassBudget(0.2), PassBudget(0.4)], cv=2
    ),
    "final cut": lambda: FinalCutClassifier(cascade(), final_cut=0.3),
}


@pytest.mark.filterwarnings("ignore:(TabularNet|MultiExitNet) learned nothing")
@pytest.mark.parametrize("kind", MODELS)
def test_models_and_what_holds_them(kind, tmp_path):
    model = MODELS[kind]().fit(X, y)
    again = read_back(model, tmp_path)
    assert_same(model, again)
    assert again.score(X, y) == model.score(X, y)
    assert repr(again) == repr(model)


@pytest.mark.parametrize("make", [cascade, lambda: heads(LogisticRegression(), thresholds=0.8)])
@pytest.mark.parametrize(
    "labels", [np.array(["no", "yes"]), np.array([False, True]), np.array([-1.0, 2.0])]
)
def test_labels_of_any_type(make, labels, tmp_path):
    model = make().fit(X, labels[y])
    again = read_back(model, tmp_path)
    assert_same(model, again)
    assert again.classes_.dtype == labels.dtype


def test_rows_with_columns_of_any_type(tmp_path):
    encode = ColumnTransformer([("c", OneHotEncoder(), ["colour"])], remainder="passthrough")
    stages = [(name, make_pipeline(encode, GaussianNB())) for name in ("a", "b")]
    for _, stage in stages:
        stage[0].set_params(sparse_threshold=0.0)
    model = FeedbackCascadeClassifier(stages, thresholds=PassBudget(0.3)).fit(FRAME, y)
    assert_same(model, read_back(model, tmp_path), FRAME)


def test_what_a_monitor_and_alerts_need(tmp_path):
    model = cascade(thresholds=AlertBudget(5, per=1)).fit(X, y, time=np.arange(len(y)) // 60)
    again = read_back(model, tmp_path)
    np.testing.assert_array_equal(model.alerts(X), again.alerts(X))
    assert repr(model.monitor(X)) == repr(again.monitor(X))
    assert repr(model.report(X, y)) == repr(again.report(X, y))


def test_what_was_read_can_be_changed(tmp_path):
    model = heads(head="ridge").fit(X, y)
    again = read_back(model, tmp_path)
    for one in (model, again):
        one.add_class(X[:30] + 3.0, 2)
        one.tune_thresholds(X, thresholds=0.5)
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))


@pytest.mark.filterwarnings("ignore:TabularNet learned nothing")
def test_a_net_that_was_read_trains_on_as_it_would_have(tmp_path):
    net = tabular(random_state=0).fit(X, y)
    again = read_back(net, tmp_path)
    before = net.predict_proba(X)
    for one in (net, again):
        one.partial_fit(X, y)
    np.testing.assert_array_equal(net.predict_proba(X), again.predict_proba(X))
    assert (net.predict_proba(X) != before).any()


def test_a_net_of_a_device_that_is_not_there_is_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = cascade(raw_net()).fit(X, y)
    proba = model.predict_proba(X)
    model.stages_[1].net_.device = "cuda"
    path = written(model, tmp_path)
    with pytest.warns(UserWarning, match="was on the device cuda; .* it is on cpu"):
        again = load_estimator(path)
    assert again.stages_[1].net_.device == "cpu"
    np.testing.assert_array_equal(again.predict_proba(X), proba)


def test_writing_leaves_the_model_alone(tmp_path):
    model = cascade(raw_net()).fit(X, y)
    before = joblib.hash(model)
    written(model, tmp_path)
    assert joblib.hash(model) == before


def test_parts_of_torch_come_back(tmp_path):
    shared = nn.Parameter(torch.tensor([1.0, -0.0, np.nan]))
    parts = {
        "bits": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "whole": torch.tensor(3),
        "parameters": [shared, shared],
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "bunch": Bunch(part=torch.zeros(2)),
        "keys": {1: "a", None: "b", False: "c", "1": "d"},
    }
    model = StandardScaler().fit(X)
    model.parts = parts
    again = read_back(model, tmp_path).parts
    for name in ("bits", "whole"):
        assert again[name].dtype == parts[name].dtype
        assert torch.equal(again[name], parts[name])
    first, second = again["parameters"]
    assert first is second and isinstance(first, nn.Parameter)
    assert first.detach().numpy().tobytes() == shared.detach().numpy().tobytes()
    assert type(again["bunch"]) is Bunch and torch.equal(again["bunch"].part, torch.zeros(2))
    assert again["dtype"] is torch.float16 and again["device"] == torch.device("cpu")
    assert list(again["keys"].items()) == list(parts["keys"].items())


# --- what is refused --------------------------------------------------------------------------
def refusal(names):
    return f"holds what is not trusted: {sorted(names)}".replace("[", r"\[").replace("]", r"\]")


def costly():
    final = make_pipeline(CostlyFeatures(fetch, on=0), GaussianNB())
    return cascade(final, survivor_rate=None)


UNKNOWN = {
    "a fetch": (costly, [f"{HERE}.fetch"]),
    "an own stage": (lambda: cascade(Mine()), [f"{HERE}.Mine"]),
    "an own net": (lambda: cascade(raw_net(OwnNet)), [f"{HERE}.OwnNet"]),
    "LightGBM": (
        lambda: cascade(pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=3, verbose=-1)),
        ["lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"],
    ),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_known_is_named_and_may_be_trusted(kind, tmp_path):
    make, names = UNKNOWN[kind]
    model, path = make().fit(X, y), tmp_path / "model.skops"
    with pytest.raises(ValueError, match=refusal(names)):
        dump(model, path)
    assert not path.exists()
    dump(model, path, trusted=names)
    with pytest.raises(ValueError, match="trusted: .*" + names[0].replace(".", r"\.")):
        load_estimator(path)
    assert_same(model, load_estimator(path, trusted=names))


def test_types_may_be_given_for_names(tmp_path):
    assert_same(model := cascade(Mine()).fit(X, y), read_back(model, tmp_path, trusted=[Mine]))


def test_functions_without_a_name_cannot_be_written(tmp_path):
    stage = make_pipeline(FunctionTransformer(lambda X: X), GaussianNB())
    model = cascade(stage).fit(X, y)
    with pytest.raises(ValueError, match=r"not trusted: .*<lambda>"):
        dump(model, tmp_path / "m")
    with pytest.raises(
        ValueError, match=r"trusted names what cannot be imported by that name.*<la"
    ):
        dump(model, tmp_path / "m", trusted=[f"{HERE}.<lambda>"])


@pytest.mark.parametrize("trusted", ["skmsc", Mine, [3]])
def test_trusted_must_be_names(trusted, tmp_path):
    with pytest.raises(TypeError, match="trusted must"):
        dump(cascade(), tmp_path / "m", trusted=trusted)


def test_trees_that_cannot_be_checked_are_refused(tmp_path):
    path = written(make_pipeline(IsolationForest(n_estimators=2)).fit(X), tmp_path)
    with pytest.raises(ValueError, match="trees of an IsolationForest cannot be checked"):
        load_estimator(path)


# --- files that are not what they were --------------------------------------------------------
def altered(path, change, members=()):
    """Let `change` alter the tree of types, put members in, and make the checksum right again."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(content["schema.json"])
    change(schema)
    content["schema.json"] = json.dumps(schema).encode()
    content.update(members)
    del content["checksums.json"]
    write_archive(path, "skmsc estimator", content)
    return path


def states(schema, **wanted):
    """States of a tree of types with these values."""
    found, waiting = [], [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if all(part.get(key) == value for key, value in wanted.items()):
                found.append(part)
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "model.skops"
    dump(cascade(RandomForestClassifier(2)).fit(X, y), path)
    return path.read_bytes()


@pytest.fixture
def path(whole, tmp_path):
    path = tmp_path / "model.skops"
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(path, whole, share):
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"cannot be read: .* is cut short, damaged, or no file"):
        load_estimator(path)


def test_altered_files_are_refused(path, whole):
    for place in np.linspace(0, len(whole) - 1, 25).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            again = load_estimator(path)
        except ValueError as error:
            assert "cannot be read" in str(error)
        else:  # a date or the like of the archive
            assert_same(again, again)


def test_other_files_are_refused(path, tmp_path):
    skops_io.dump(GaussianNB().fit(X, y), path)
    with pytest.raises(ValueError, match="cut short, damaged, or no file of this kind"):
        load_estimator(path)
    path.write_bytes(pickle.dumps(GaussianNB()))
    with pytest.raises(ValueError, match=r"cannot be read: .* is cut short, damaged, or no file"):
        load_estimator(path)


def test_a_part_that_was_added_is_found(path):
    altered(path, lambda schema: None)  # with the checksum made right it is read
    load_estimator(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", b"0")
    with pytest.raises(ValueError, match="was altered: its parts do not have their checksums"):
        load_estimator(path)


class Bomb:
    """What an unpickler would run."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def as_json(value):
    return {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(value),
        "is_json": True,
    }


def in_tuple(*parts):
    return {
        "__class__": "tuple",
        "__module__": "builtins",
        "__loader__": "TupleNode",
        "content": list(parts),
    }


ATTACKS = {
    "a function that is called": lambda marker: {
        "__module__": "os",
        "__class__": "mkdir",
        "__loader__": "ConstructorFromReduceNode",
        "content": in_tuple(as_json(marker)),
    },
    "a function that is named": lambda marker: {
        "__module__": "posix",
        "__class__": "system",
        "__loader__": "FunctionNode",
    },
    "a type": lambda marker: {
        "__module__": "subprocess",
        "__class__": "Popen",
        "__loader__": "ObjectNode",
    },
    "a known name that is called": lambda marker: {
        "__module__": "skmsc.metrics",
        "__class__": "neg_mean_cost_scorer",
        "__loader__": "ConstructorFromReduceNode",
        "content": in_tuple(as_json(marker)),
    },
    "a known name called as a list": lambda marker: {
        "__module__": "skmsc.stages",
        "__class__": "StageScorer",
        "__loader__": "ListNode",
        "content": [as_json(marker)],
    },
    "a known name called as a loss": lambda marker: {
        "__module__": "torch.utils.data.dataloader",
        "__class__": "DataLoader",
        "__loader__": "LossNode",
        "__reduce__": {"args": in_tuple(as_json(marker))},
        "content": as_json({}),
    },
    "a partial": lambda marker: {
        "__module__": "functools",
        "__class__": "partial",
        "__loader__": "PartialNode",
        "content": {
            "func": {"__module__": "os", "__class__": "mkdir", "__loader__": "FunctionNode"},
            "args": in_tuple(as_json(marker)),
            "kwds": as_json({}),
            "namespace": as_json(None),
        },
    },
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_of_an_altered_file_is_run(attack, path, tmp_path):
    marker = tmp_path / "run"
    state = ATTACKS[attack](str(marker))

    def change(schema):
        schema["content"]["content"]["memory"] = state

    altered(path, change)
    name = f"{state['__module__']}.{state['__class__']}"
    name = "os.mkdir" if name == "functools.partial" else name
    with pytest.raises(ValueError, match="not trusted.*" + name.replace(".", r"\.")):
        load_estimator(path)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["skorch.classifier.NeuralNetClassifier", f"{HERE}.OwnNet"])
@pytest.mark.parametrize("trusted", [False, True])
def test_no_net_is_unpickled(kind, trusted, path, tmp_path):
    marker = tmp_path / "run"
    module, _, name = kind.rpartition(".")

    def change(schema):
        attributes = {
            "__class__": "dict",
            "__module__": "builtins",
            "__loader__": "DictNode",
            "key_types": {
                "__class__": "list",
                "__module__": "builtins",
                "__loader__": "ListNode",
                "content": [
                    {"__class__": "str", "__module__": "builtins", "__loader__": "TypeNode"}
                ]
                * 3,
            },
            "content": {
                "device": as_json("cpu"),
                "torch_load_kwargs": as_json({"weights_only": False}),
                "__cuda_dependent_attributes__": {
                    "__class__": "bytes",
                    "__module__": "builtins",
                    "__loader__": "BytesNode",
                    "file": "bomb.bin",
                },
            },
        }
        schema["content"]["content"]["memory"] = {
            "__class__": name,
            "__module__": module,
            "__loader__": "ObjectNode",
            "content": attributes,
        }

    altered(path, change, {"bomb.bin": pickle.dumps(Bomb(marker))})
    with pytest.raises(ValueError, match=rf"not trusted: \['{kind}'\]"):
        load_estimator(path, trusted=[kind] if trusted else ())
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()  # the bomb is one


@pytest.mark.parametrize("hidden", [False, True])
def test_keys_of_a_dict_call_nothing(hidden, path):
    known = {
        "__module__": "torch.nn.modules.linear",
        "__class__": "Identity",
        "__loader__": "TypeNode",
        "__id__": 1,
    }

    def change(schema):
        attributes = schema["content"]
        if hidden:  # skops takes the first with the number 1
            schema["content"]["content"] = {"a": known} | attributes["content"]
            known_again = {**known, "__module__": "builtins", "__class__": "str"}
            attributes["key_types"]["content"].append(known_again)
        else:
            attributes["key_types"]["content"][0] = known

    altered(path, change)
    with pytest.raises(ValueError, match=r"not trusted: \['torch\.nn\.modules\.linear\.Identity'"):
        load_estimator(path)


def test_a_tree_that_is_deeper_than_it_says_is_refused(tmp_path):
    path = written(DecisionTreeClassifier().fit(X, y), tmp_path)

    def change(schema):
        (tree,) = states(schema, __loader__="TreeNode")
        tree["content"]["content"]["max_depth"] = as_json(1)

    altered(path, change)
    with pytest.raises(ValueError, match="not one: it is deeper than it says"):
        load_estimator(path)


def test_no_class_of_nets_is_made_that_is_not_trusted(tmp_path):
    model = cascade(raw_net()).fit(X, y)
    path = written(model, tmp_path)

    def change(schema):
        for state in states(schema, content='"skorch.classifier.NeuralNetClassifier"'):
            state["content"] = '"subprocess.Popen"'

    altered(path, change)
    with pytest.raises(ValueError, match=r"class that is not trusted: subprocess\.Popen"):
        load_estimator(path)


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (lambda: RandomForestClassifier(2), "feature", 10**6),
        (lambda: RandomForestClassifier(2), "left_child", 10**6),
        (lambda: RandomForestClassifier(2), "right_child", 0),
        (lambda: HistGradientBoostingClassifier(max_iter=2), "feature_idx", 10**6),
        (lambda: HistGradientBoostingClassifier(max_iter=2), "left", 10**6),
        (lambda: HistGradientBoostingClassifier(max_iter=2), "right", 0),
    ],
)
def test_trees_that_point_astray_are_refused(make, field, value, tmp_path):
    path = written(cascade(make()).fit(X, y), tmp_path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    changed = {}
    for name, part in content.items():
        if name.endswith(".npy"):
            array = np.load(io.BytesIO(part))
            if array.dtype.names and field in array.dtype.names:
                array[field][0] = value
                buffer = io.BytesIO()
                np.save(buffer, array)
                changed[name] = buffer.getvalue()
    assert changed
    altered(path, lambda schema: None, changed)
    with pytest.raises(ValueError, match="holds a tree that is not one"):
        load_estimator(path)


def test_a_forest_of_other_columns_is_refused(tmp_path):
    forest = RandomForestClassifier(2).fit(X, y)
    forest.n_features_in_ = 3
    path = written(forest, tmp_path)
    with pytest.raises(ValueError, match="trees are for other columns"):
        load_estimator(path)


# --- versions, and what is there without skops ------------------------------------------------
def test_other_versions_are_told(path, monkeypatch):
    versions = {"skmsc": "0.0.1", "scikit-learn": "9.9", "numpy": _files.version("numpy")}
    monkeypatch.setattr(_files, "version", versions.get)
    with pytest.warns(UserWarning) as caught:
        load_estimator(path)
    (message,) = [str(warning.message) for warning in caught]
    assert f"skmsc {skmsc.__version__} (here 0.0.1)" in message
    assert "scikit-learn" in message and "(here 9.9)" in message and "numpy" not in message


@pytest.mark.parametrize("nets", [False, True])
def test_versions_of_torch_are_noted_for_nets(nets, tmp_path):
    path = written(cascade(*([raw_net()] if nets else [])).fit(X, y), tmp_path)
    with zipfile.ZipFile(path) as archive:
        versions = json.loads(archive.read("skmsc.json"))["versions"]
    expected = {"skmsc", "scikit-learn", "numpy"} | ({"torch", "skorch"} if nets else set())
    assert set(versions) == expected


def test_other_formats_are_refused(path, monkeypatch):
    monkeypatch.setattr(_files, "_FORMAT", 2)
    with pytest.raises(ValueError, match="has format 1; this skmsc reads 2"):
        load_estimator(path)


def test_the_package_imports_without_skops():
    code = (
        "import sys; sys.modules['skops'] = None\n"
        "from skmsc import serving\n"
        "assert not {'sklearn', 'torch'} & set(sys.modules)\n"
        "assert {'dump', 'load_estimator'} <= set(dir(serving))\n"
        "try:\n    serving.load_estimator('nothing')\n"
        "except ImportError as error:\n    print(error.name)"
    )
    root = Path(skmsc.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "skops", done.stderr


def test_names_that_are_trusted_exist():
    for module, names in _OF_MODULES.items():
        for name in names:
            assert _files._find(f"{module}.{name}") is not None, f"{module}.{name}"


def test_no_net_of_skorch_is_a_trusted_type():
    for name in trusted_names():
        kind = _files._find(name)
        if isinstance(kind, type):
            assert "skorch.net" not in {base.__module__ for base in kind.__mro__}, name


def test_a_loader_calls_only_what_is_its_own():
    assert may_make("DictNode", "builtins.dict")
    assert not may_make("DictNode", "skmsc.stages.StageScorer")
    assert not may_make("NdArrayNode", "numpydoc.x")
    assert not may_make("PartialNode", "functools.partial")


def test_pickles_and_copies_go_on_working(tmp_path):
    model = cascade(raw_net()).fit(X, y)
    for one in (model, read_back(model, tmp_path)):
        assert_same(model, copy.deepcopy(one))
        assert_same(model, pickle.loads(pickle.dumps(one)))
    joblib.dump(model, tmp_path / "m.joblib")
    assert_same(model, joblib.load(tmp_path / "m.joblib"))
