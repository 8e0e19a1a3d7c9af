"""An exported classifier answers as the classifier does, where neither sklearn nor torch is."""

import copy
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import skmsc
from skmsc import serving
from skmsc.neural import MultiExitNet, TabularNet
from skmsc.serving import NotExportable, _export
from skmsc.serving._archive import read_archive, write_archive
from skmsc.serving._manifest import KIND, MANIFEST
from skmsc.trunks import RandomReLU

PACKAGE = Path(skmsc.__file__).parents[1]
N_FEATURES = 6


def rows(n_classes=2, n_rows=400, seed=0):
    return make_classification(
        n_rows,
        N_FEATURES,
        n_informative=4,
        n_redundant=0,
        n_classes=n_classes,
        weights=[0.8] if n_classes == 2 else None,
        random_state=seed,
    )


def screen():
    return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))


def net(kind=TabularNet):
    depth = {"depth": 2} if kind is MultiExitNet else {}
    return kind(width=8, max_epochs=4, lr=0.02, random_state=0, **depth)


def cascade(*lasts, **params):
    """A cascade of a screen and others."""
    lasts = lasts or (RandomForestClassifier(5, max_depth=4, random_state=0),)
    stages = [("screen", screen()), *((f"stage{k}", last) for k, last in enumerate(lasts))]
    params = {"thresholds": skmsc.PassBudget(0.4), "cv": 2, "random_state": 0} | params
    return skmsc.FeedbackCascadeClassifier(stages, **params)


def early_exits(first_stage=None, **params):
    params = {"exit_weighting": "uniform", "cv": 2, "random_state": 0} | params
    return skmsc.EarlyExitClassifier(first_stage, net(MultiExitNet), **params)


def heads(first_stage=None, trunk="passthrough", **params):
    params = {"thresholds": 0.9, "random_state": 0} | params
    return skmsc.ComposableHeadClassifier(first_stage, trunk, **params)


# Name -> (classifier, number of classes).
MODELS = {
    "three stages": (cascade(RidgeClassifier(), net(), thresholds=skmsc.PassBudget(0.5)), 2),
    "isotonic": (cascade(calibration="isotonic"), 2),
    "not calibrated": (cascade(calibration=None, thresholds=0.3), 2),
    "alerts": (cascade(thresholds=skmsc.ExpectedCost(20.0, 1.0)), 2),
    "exits, two classes": (early_exits(screen()), 2),
    "exits, margin": (early_exits(screen(), confidence="margin", thresholds=0.4), 3),
    "exits, entropy": (early_exits(confidence="entropy", thresholds=0.1), 3),
    "exits that recall": (early_exits(screen(), ensemble=True, thresholds=0.6), 3),
    "heads": (heads(screen(), calibration="temperature"), 3),
    "heads, sigmoid": (heads(screen(), RandomReLU(20, random_state=0), proba="sigmoid"), 3),
    "heads, open": (heads(proba="open", unknown_label=-1, reject=0.1), 3),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """``exported(name)``: a fitted classifier, its export loaded, its rows, and the file."""
    folder, made = tmp_path_factory.mktemp("exports"), {}

    def get(name):
        if name not in made:
            model, n_classes = MODELS[name]
            X, y = rows(n_classes)
            model = clone(model).fit(X, y)
            path = folder / f"{len(made)}.skmsc"
            serving.export(model, path, X[:50])
            made[name] = model, serving.load(path), rows(n_classes, seed=1)[0], path
        return made[name]

    return get


def assert_same_answers(model, served, X):
    """Equal within 1e-5, and from the same stage unless a score is as near to a cut."""
    ours, theirs = served.route(X), model.route(X)
    same = ours.stage == theirs.stage
    np.testing.assert_allclose(ours.proba[same], theirs.proba[same], rtol=0, atol=1e-5)
    gap = np.abs(model._acting(model.stage_proba(X)) - model.thresholds_)
    first = np.minimum(ours.stage, theirs.stage)
    near = gap[np.arange(len(X)), first].min(axis=1) <= 1e-5
    assert (same | near).all()
    if theirs.cost is None:
        assert ours.cost is None
    else:
        np.testing.assert_array_equal(ours.cost[same], theirs.cost[same])
    assert ours.n_stages == theirs.n_stages
    return theirs


@pytest.mark.parametrize("name", MODELS)
def test_answers_equal_those_of_the_classifier(exported, name):
    model, served, X, _ = exported(name)
    wild = np.concatenate([X, 100 * X[:20], 1e-3 * X[:20], np.zeros((1, N_FEATURES))])
    theirs = assert_same_answers(model, served, wild)
    if len(model._stage_names) > 1:
        assert np.unique(theirs.stage).size > 1  # else nothing was routed
    np.testing.assert_array_equal(served.classes_, model.classes_)
    assert served.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(served.thresholds_, model.thresholds_)
    assert served.alert_threshold_ == model.alert_threshold_
    assert served.stage_names == model._stage_names
    np.testing.assert_array_equal(served.predict(X), model.predict(X))


@pytest.mark.parametrize("name", MODELS)
def test_single_rows_are_answered_as_in_batches(exported, name):
    _, served, X, _ = exported(name)
    batch, stage = served.predict_proba(X), served.route(X).stage
    some = np.concatenate([np.flatnonzero(stage == k)[:15] for k in np.unique(stage)])
    one_by_one = np.concatenate([served.predict_proba(X[[i]]) for i in some])
    np.testing.assert_allclose(one_by_one, batch[some], rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(one_by_one.argmax(axis=1), batch[some].argmax(axis=1))


@pytest.mark.parametrize("name", ["three stages", "exits that recall", "heads"])
def test_steps_one_by_one(exported, name):
    _, served, X, _ = exported(name)
    routing = served.route(X)
    proba, waiting, carry = np.empty_like(routing.proba), np.arange(len(X)), X
    for k in range(routing.n_stages):
        step = served.step(k, carry)
        np.testing.assert_array_equal(step.answered, routing.stage[waiting] == k)
        proba[waiting] = step.proba
        waiting, carry = waiting[~step.answered], step.carry
    np.testing.assert_allclose(proba, routing.proba, rtol=0, atol=1e-6)
    assert waiting.size == 0 and carry is None


def test_a_passing_row_has_the_answer_if_one_had_to_stop(exported):
    model, served, X, _ = exported("three stages")
    expected = next(iter(model.staged_predict_proba(X)))
    np.testing.assert_allclose(served.step(0, X).proba, expected, rtol=0, atol=1e-6)


def test_alerts(exported):
    model, served, X, _ = exported("alerts")
    np.testing.assert_array_equal(served.alerts(X), model.alerts(X))
    assert 0 < served.alerts(X).sum() < len(X)
    with pytest.raises(ValueError, match="no alert threshold"):
        exported("isotonic")[1].alerts(X)


def test_many_rows_in_pieces(exported, monkeypatch):
    _, served, X, _ = exported("exits that recall")
    whole = served.route(X)
    monkeypatch.setattr(serving._runtime, "_ROWS_AT_ONCE", 17)
    pieces = served.route(X)
    np.testing.assert_array_equal(pieces.stage, whole.stage)
    np.testing.assert_allclose(pieces.proba, whole.proba, rtol=1e-6, atol=1e-12)


def test_threads_share_a_model(exported):
    _, served, X, _ = exported("three stages")
    parts = np.array_split(X, 16)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(served.predict_proba, parts))
    for part, proba in zip(parts, found, strict=True):
        np.testing.assert_array_equal(proba, served.predict_proba(part))


# --- where nothing else is --------------------------------------------------------------------
def test_loads_and_predicts_without_sklearn_scipy_and_torch(exported, tmp_path):
    for name in ("three stages", "exits that recall", "heads, sigmoid"):
        _, served, X, path = exported(name)
        np.save(tmp_path / "X.npy", X)
        code = f"""
import sys
absent = "sklearn", "scipy", "torch", "skorch", "joblib", "pandas", "onnx"
sys.modules.update(dict.fromkeys(absent))
import numpy as np
from skmsc.serving import load
model = load({str(path)!r})
X = np.load({str(tmp_path / "X.npy")!r})
routing = model.route(X)
model.predict_proba(X[:1]), model.predict(X)
np.savez({str(tmp_path / "found.npz")!r}, stage=routing.stage, proba=routing.proba)
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=PACKAGE,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found, expected = np.load(tmp_path / "found.npz"), served.route(X)
        np.testing.assert_array_equal(found["stage"], expected.stage)
        np.testing.assert_array_equal(found["proba"], expected.proba)


def test_it_is_not_copied(exported):
    _, served, _, _ = exported("isotonic")
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied: load its file"):
            copied(served)


# --- around the classifier --------------------------------------------------------------------
def test_pipelines_and_searches(tmp_path):
    X, y = rows()
    labels = np.array(["fair", "fraud"])[y]
    inner = make_pipeline(StandardScaler(), cascade(pos_label="fraud"))
    grid = {"feedbackcascadeclassifier__thresholds": [0.1, 0.5]}
    search = GridSearchCV(inner, grid, cv=2).fit(X, labels)
    for model in (search, search.best_estimator_, FrozenEstimator(search.best_estimator_)):
        serving.export(model, tmp_path / "m", X)
        served = serving.load(tmp_path / "m")
        np.testing.assert_array_equal(served.predict(X), search.predict(X))
        np.testing.assert_allclose(
            served.predict_proba(X), search.predict_proba(X), rtol=0, atol=1e-5
        )
        assert served.predict_proba(X[:1]).shape == (1, 2)


@pytest.mark.parametrize("labels", [[True, False], [3, 7], [1.0, 2.0], ["a", "bcd"]], ids=str)
def test_labels_of_any_type(labels, tmp_path):
    X, y = rows()
    y = np.array(labels)[y]
    model = cascade(pos_label=labels[1]).fit(X, y)
    serving.export(model, tmp_path / "m")
    served = serving.load(tmp_path / "m")
    np.testing.assert_array_equal(served.predict(X), model.predict(X))
    assert served.predict(X).dtype == model.predict(X).dtype


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A cascade on columns of several types, its export, and a dataframe."""
    X, y = rows()
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "amount": X[:, 0],
            "country": rng.choice(["DE", "FR", "IT"], len(X)),
            "n_items": rng.integers(0, 5, len(X)),
            "is_new": X[:, 1] > 0,
            "risk": X[:, 2],
        }
    )
    encoded = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore"), ["country"]),
            ("numbers", StandardScaler(), ["amount", "n_items", "risk"]),
        ],
        remainder="passthrough",
    )
    forest = RandomForestClassifier(5, max_depth=4, random_state=0)
    stages = [
        ("screen", make_pipeline(clone(encoded), LogisticRegression())),
        ("final", make_pipeline(encoded, forest)),
    ]
    model = skmsc.FeedbackCascadeClassifier(stages, thresholds=0.2, cv=2, random_state=0)
    model.fit(table, y)
    path = tmp_path_factory.mktemp("typed") / "m"
    serving.export(model, path, table)
    return model, serving.load(path), table


def test_columns_of_several_types(typed):
    model, served, table = typed
    np.testing.assert_allclose(
        served.predict_proba(table), model.predict_proba(table), rtol=0, atol=1e-5
    )
    assert served.feature_names_in_.tolist() == list(table.columns)
    unknown = table.head(3).assign(country="XX")
    np.testing.assert_allclose(
        served.predict_proba(unknown), model.predict_proba(unknown), rtol=0, atol=1e-5
    )


def test_a_mapping_is_a_row_or_columns(typed):
    _, served, table = typed
    expected = served.predict_proba(table)
    row = table.iloc[3].to_dict()
    np.testing.assert_allclose(served.predict_proba(row), expected[[3]], rtol=0, atol=1e-12)
    columns = {name: table[name].tolist() for name in reversed(table.columns)}
    np.testing.assert_allclose(served.predict_proba(columns), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.to_numpy(), TypeError, "dataframe or a mapping of columns"),
        (lambda t: t[t.columns[::-1]], ValueError, "names should match"),
        (lambda t: t.drop(columns="risk"), ValueError, "names should match"),
        (lambda t: t.assign(country=1.0), ValueError, "'country' must hold strings"),
        (lambda t: t.assign(n_items=0.5), ValueError, "'n_items' must hold integers"),
        (lambda t: t.assign(is_new=2), ValueError, "'is_new' must hold True or False"),
        (lambda t: t.assign(amount="much"), ValueError, "'amount' must hold numbers"),
        (lambda t: t.assign(amount=np.nan), ValueError, "'screen' gave scores that are nan"),
        (lambda t: t.head(0), ValueError, "0 sample"),
        (lambda t: t.iloc[0].to_dict() | {"more": 1}, ValueError, "must have the columns"),
        (lambda t: t.iloc[0].to_dict() | {"risk": [1.0, 2.0]}, ValueError, "one length"),
    ],
)
def test_bad_columns_are_refused(typed, change, error, message):
    _, served, table = typed
    with pytest.raises(error, match=message):
        served.predict_proba(change(table))


# --- features fetched in between --------------------------------------------------------------
CALLS = []


def fetch(keys):
    """Two features of each key."""
    keys = np.asarray(keys, dtype=float)
    CALLS.append(len(keys))
    return np.column_stack([keys * 2, np.sin(keys)])


@pytest.fixture(scope="module")
def costly(tmp_path_factory):
    """A cascade whose last stage fetches, its file and rows."""
    X, y = rows()
    X[:, 0] = np.arange(len(X)) % 50
    y = (np.sin(X[:, 0]) + X[:, 1] > 0.5).astype(int)
    last = make_pipeline(
        skmsc.CostlyFeatures(fetch, on=0), RandomForestClassifier(5, max_depth=4, random_state=0)
    )
    model = cascade(last, thresholds=skmsc.PassBudget(0.4)).fit(X, y)
    path = tmp_path_factory.mktemp("costly") / "m"
    serving.export(model, path, X[:100])
    return model, path, X


def test_fetch_is_asked_for_the_rows_that_reach_the_stage(costly):
    model, path, X = costly
    served = serving.load(path, fetch={"stage0": fetch})
    CALLS.clear()
    routing = assert_same_answers(model, served, X)
    assert CALLS[0] == (routing.stage == 1).sum() < len(X)
    late = X[routing.stage == 1][:1]
    np.testing.assert_allclose(served.predict_proba(late), model.predict_proba(late), atol=1e-5)


def test_a_service_fetches_between_steps(costly):
    model, path, X = costly
    served = serving.load(path)
    first = served.step(0, X)
    proba, waiting = first.proba, ~first.answered
    proba[waiting] = served.step(1, first.carry, fetched=fetch(X[waiting, 0])).proba
    np.testing.assert_allclose(proba, model.predict_proba(X), rtol=0, atol=1e-5)


def test_fetches_that_are_none(costly):
    _, path, X = costly
    served = serving.load(path)
    with pytest.raises(ValueError, match="'stage0' fetches features: give load"):
        served.predict_proba(X)
    carry = served.step(0, X).carry
    with pytest.raises(ValueError, match=r"must be fetched an array of shape \(\d+, 2\)"):
        served.step(1, carry, fetched=np.ones((len(carry), 3)))
    with pytest.raises(ValueError, match="must be fetched 1"):
        served.step(1, carry, fetched=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"name stages that fetch, \['stage0'\]; got 'final'"):
        serving.load(path, fetch={"final": fetch})
    with pytest.raises(TypeError, match="must be callable"):
        serving.load(path, fetch={"stage0": 3})
    with pytest.raises(TypeError, match="fetch must be a dict of names"):
        serving.load(path, fetch=fetch)
    with pytest.raises(ValueError, match="'stage0' was fetched infinity"):
        served.step(1, carry, fetched=np.full((len(carry), 2), np.inf))
    with pytest.raises(ValueError, match="'screen' fetches nothing"):
        served.step(0, X, fetched=X)


@pytest.mark.parametrize("fate", ["answer_earlier", "alert"])
def test_a_fetch_that_fails(costly, fate):
    model, path, X = costly

    asked = []

    def fails(keys):
        asked.append(len(keys))
        raise TimeoutError("no bureau")

    served = serving.load(path, fetch={"stage0": fails}, on_stage_error=fate)
    with pytest.warns(RuntimeWarning, match="Stage 'stage0' raised TimeoutError") as told:
        routing = served.route(X)
    assert told[0].filename == __file__ and len(told) == 1
    passed = model.route(X).stage == 1
    np.testing.assert_array_equal(routing.failed, passed)
    assert (routing.stage == 0).all()
    expected = next(iter(model.staged_predict_proba(X)))
    if fate == "alert":
        expected[passed] = [0.0, 1.0]
    np.testing.assert_allclose(routing.proba, expected, rtol=0, atol=1e-5)
    asked.clear()
    with pytest.warns(RuntimeWarning, match="on 1 rows") as told:
        one = served.predict_proba(X[passed][:1])
    assert asked == [1]  # not once more by another way
    np.testing.assert_allclose(one, expected[passed][:1], rtol=0, atol=1e-5)
    with pytest.warns(RuntimeWarning, match="raised TimeoutError") as more:
        served.predict(X)
    assert {warning.filename for warning in (*told, *more)} == {__file__}
    with pytest.raises(TimeoutError):
        serving.load(path, fetch={"stage0": fails}).predict(X)


def test_on_stage_error_is_exported(exported, tmp_path):
    X, y = rows()
    model = cascade(on_stage_error="alert").fit(X, y)
    serving.export(model, tmp_path / "m")
    assert serving.load(tmp_path / "m").on_stage_error == "alert"
    *_, path = exported("exits, margin")
    for fate in ("alert", "ignore"):
        with pytest.raises(ValueError, match=r"on_stage_error must be .*got '" + fate):
            serving.load(path, on_stage_error=fate)


def test_fetched_columns_of_a_dataframe(tmp_path):
    X, y = rows()
    table = pd.DataFrame(X, columns=list("abcdef")).assign(id=[f"c{i % 7}" for i in range(len(X))])

    def lookup(ids):
        grade = np.array([int(one[1:]) for one in ids])
        return pd.DataFrame(
            {"grade": grade, "kind": np.where(grade % 2, "odd", "even")}, index=ids.index
        )

    screened = make_pipeline(
        ColumnTransformer([("keep", "passthrough", list("abc"))]), LogisticRegression()
    )
    last = make_pipeline(
        skmsc.CostlyFeatures(lookup, on="id"),
        ColumnTransformer([("kind", OneHotEncoder(), ["kind"])], remainder="passthrough"),
        LogisticRegression(max_iter=1000),
    )
    model = skmsc.FeedbackCascadeClassifier(
        [("screen", screened), ("final", last)], thresholds=0.1, cv=2, random_state=0
    ).fit(table, y)
    serving.export(model, tmp_path / "m", table)

    def of_arrays(ids):
        grade = np.array([int(one[1:]) for one in ids])
        return {"grade": grade, "kind": np.where(grade % 2, "odd", "even")}

    served = serving.load(tmp_path / "m", fetch={"final": of_arrays})
    np.testing.assert_allclose(
        served.predict_proba(table), model.predict_proba(table), rtol=0, atol=1e-5
    )
    assert (served.route(table).stage == 1).any()


def last_digits(ids):
    """A feature that a key rounded to float64 does not have."""
    return (np.asarray(ids) % 7).astype(float)


@pytest.mark.parametrize("as_frame", [False, True])
def test_keys_that_float64_cannot_hold(tmp_path, as_frame):
    X, y = rows()
    ids = 2**60 + np.arange(len(X))
    X = np.column_stack([ids, (100 * X).astype(np.int64)])
    y = ids % 7 > 3
    kept = ColumnTransformer([("small", "passthrough", [1, 2])])
    stages = [
        ("screen", make_pipeline(kept, LogisticRegression())),
        ("final", make_pipeline(skmsc.CostlyFeatures(last_digits, on=0), screen())),
    ]
    if as_frame:
        X = pd.DataFrame(X, columns=list("abcdefg"))
    model = skmsc.FeedbackCascadeClassifier(
        stages, thresholds=skmsc.PassBudget(0.5), cv=2, random_state=0
    ).fit(X, y)
    serving.export(model, tmp_path / "m", X)
    served = serving.load(tmp_path / "m", fetch={"final": last_digits})
    assert_same_answers(model, served, X)


# --- what is refused --------------------------------------------------------------------------
def shift(X):
    return X + 1


def test_what_has_no_graph_is_named(tmp_path):
    X, y = rows()
    last = make_pipeline(FunctionTransformer(shift), LogisticRegression())
    model = cascade(last).fit(X, y)
    with pytest.raises(NotExportable, match=r"'stage0'.*shift"):
        serving.export(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_columns_with_names_of_tensors(tmp_path):
    X, y = rows()
    names = ["X", "hidden_0", "logs_0", "column a", "a", "kind"]
    table = pd.DataFrame(X, columns=names).assign(kind=np.where(X[:, 5] > 0, "odd", "even"))
    encoded = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])], remainder="passthrough")
    model = cascade(make_pipeline(encoded, LogisticRegression()))
    model.set_params(screen=make_pipeline(clone(encoded), LogisticRegression())).fit(table, y)
    serving.export(model, tmp_path / "m", table)
    assert_same_answers(model, serving.load(tmp_path / "m"), table)
    unnamed = table.set_axis(range(6), axis=1)
    binary = OneHotEncoder(handle_unknown="ignore")
    model.set_params(stages=[("screen", make_pipeline(binary, LogisticRegression()))])
    with pytest.raises(NotExportable, match="need names that are strings"):
        serving.export(model.fit(unnamed, y), tmp_path / "m", unnamed)


@pytest.mark.parametrize(
    "last",
    [
        RandomForestClassifier(3, random_state=0),
        pytest.param(net(), marks=pytest.mark.slow),
        HistGradientBoostingClassifier(),
    ],
)
@pytest.mark.parametrize("around", [False, True])
def test_logarithms_of_zero(tmp_path, last, around):
    X, y = rows()
    X = np.abs(X)
    first = FunctionTransformer(np.log)
    one = [("final", last if around else make_pipeline(first, last))]
    model = skmsc.FeedbackCascadeClassifier(one, cv=2, random_state=0)
    model = (make_pipeline(first, model) if around else model).fit(X, y)
    serving.export(model, tmp_path / "m")
    served, X = serving.load(tmp_path / "m"), np.ones((2, N_FEATURES))
    X[0, 0] = 0.0
    with np.errstate(divide="ignore"):
        try:
            expected = model.predict_proba(X)
        except ValueError:
            expected = None
    if expected is None:
        for some in (X, X[:1]):
            with pytest.raises(ValueError, match="infin"):
                served.predict_proba(some)
    else:
        np.testing.assert_allclose(served.predict_proba(X), expected, rtol=0, atol=1e-5)


def test_a_screen_that_does_not_know_a_class(tmp_path):
    X, y = rows(3)
    model = heads(screen(), proba="sigmoid").fit(X[y < 2], y[y < 2])
    with pytest.warns(UserWarning, match="first stage never saw"):
        model.add_class(X[y == 2], 2)
    serving.export(model, tmp_path / "m", X)
    assert_same_answers(model, serving.load(tmp_path / "m"), X)


def test_graphs_that_answer_otherwise_are_refused(tmp_path, monkeypatch):
    X, y = rows()
    model, other = cascade().fit(X, y), cascade().fit(*rows(seed=1))
    written = _export._stages
    monkeypatch.setattr(_export, "_stages", lambda _, inputs: written(other, inputs))
    with pytest.raises(NotExportable, match=r"\d+ of 400 rows otherwise"):
        serving.export(model, tmp_path / "m", X)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tolerance", [0, -1.0, np.nan, "1e-5", None])
def test_bad_tolerances_are_refused(tmp_path, tolerance):
    with pytest.raises(ValueError, match="tolerance must be a number > 0"):
        serving.export(cascade(), tmp_path / "m", tolerance=tolerance)


def test_only_multi_stage_classifiers(tmp_path):
    X, y = rows()
    wrapped = FixedThresholdClassifier(cascade().fit(X, y), threshold=0.3).fit(X, y)
    for model in (LogisticRegression().fit(X, y), wrapped):
        with pytest.raises(TypeError, match="must be a multi-stage classifier"):
            serving.export(model, tmp_path / "m")
    with pytest.raises(ValueError, match="not fitted"):
        serving.export(cascade(), tmp_path / "m")


def test_another_format_is_refused(exported, tmp_path):
    *_, path = exported("isotonic")
    parts = read_archive(path, KIND)
    told = json.loads(parts[MANIFEST])
    parts[MANIFEST] = json.dumps(told | {"format": 99}).encode()
    write_archive(tmp_path / "m", KIND, parts)
    with pytest.raises(ValueError, match="format 99, and this version of skmsc reads"):
        serving.load(tmp_path / "m")


BAD_ROWS = {
    "1-D": (np.zeros(N_FEATURES), ValueError, "Expected 2D array"),
    "3-D": (np.zeros((1, 2, 3)), ValueError, "Expected 2D array"),
    "no row": (np.zeros((0, N_FEATURES)), ValueError, "0 sample"),
    "few columns": (np.zeros((2, 3)), ValueError, "X has 3 features"),
    "nan": (np.full((2, N_FEATURES), np.nan), ValueError, "contains NaN"),
    "one row with nan": (np.full((1, N_FEATURES), np.nan), ValueError, "contains NaN"),
    "inf": (np.full((1, N_FEATURES), np.inf), ValueError, "infinity"),
    "text": (np.full((1, N_FEATURES), "1.0"), ValueError, "must hold numbers"),
    "complex": (np.ones((1, N_FEATURES), complex), ValueError, "must hold numbers"),
    "object": (np.full((1, N_FEATURES), None, object), ValueError, "must hold numbers|NaN"),
    "ragged": ([[1.0], [1.0, 2.0]], ValueError, "table of numbers"),
    "mapping": ({"a": 1.0}, TypeError, "knows no names"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_rows_are_refused(exported, kind):
    _, served, _, _ = exported("isotonic")
    X, error, message = BAD_ROWS[kind]
    for ask in (served.predict_proba, served.predict, served.route, partial(served.step, 0)):
        with pytest.raises(error, match=message):
            ask(X)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint64, bool, object, ">f8"])
def test_numbers_of_any_type_are_rows(exported, dtype):
    model, served, X, _ = exported("isotonic")
    X = np.abs(X * 3).astype(np.int64).clip(0, 1).astype(dtype)
    np.testing.assert_allclose(served.predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        served.predict_proba(X[:1].tolist()), model.predict_proba(X[:1]), rtol=0, atol=1e-5
    )


def test_huge_rows_do_not_warn(exported):
    model, served, _, _ = exported("isotonic")
    for X in (np.full((1, N_FEATURES), 1.7e308), np.full((3, N_FEATURES), -1.7e308)):
        with np.errstate(all="ignore"):
            try:
                expected = model.predict_proba(X)
            except ValueError:
                expected = None
        if expected is None:
            with pytest.raises(ValueError, match="nan or infinite"):
                served.predict_proba(X)
        else:
            np.testing.assert_allclose(served.predict_proba(X), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["three stages", "exits, margin"])
def test_steps_without_rows(exported, name):
    _, served, X, _ = exported(name)
    carry = served.step(0, X).carry.take_rows(slice(0))
    for k in range(1, len(served.stage_names)):
        step = served.step(k, carry)
        assert step.proba.shape == (0, len(served.classes_)) and step.answered.shape == (0,)
        carry = step.carry
    assert carry is None


BROKEN = {
    "no JSON": (MANIFEST, lambda part: b"{", "a manifest that is not"),
    "another JSON": (MANIFEST, lambda part: b"[3]", "tells of no classifier"),
    "few thresholds": (
        MANIFEST,
        lambda part: json.dumps(json.loads(part) | {"thresholds": [[0.5, 0.5]]}).encode(),
        "not its stages'",
    ),
    "no graph": ("1.onnx", lambda part: b"", r"graph '1\.onnx' cannot be run"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_parts_that_have_checksums_but_are_none(exported, tmp_path, kind):
    *_, path = exported("isotonic")
    name, change, message = BROKEN[kind]
    parts = read_archive(path, KIND)
    write_archive(tmp_path / "m", KIND, parts | {name: change(parts[name])})
    with pytest.raises(ValueError, match=message):
        serving.load(tmp_path / "m")


def test_graphs_of_another_stage(exported, tmp_path):
    *_, path = exported("exits, margin")
    parts = read_archive(path, KIND)
    write_archive(tmp_path / "m", KIND, parts | {"0.onnx": parts["2.onnx"]})
    with pytest.raises(ValueError, match=r"graph '0\.onnx' is none of its stage"):
        serving.load(tmp_path / "m")


@pytest.mark.parametrize("n_threads", [-1, 1.5, "all"])
def test_numbers_of_threads_that_are_none(exported, n_threads):
    *_, path = exported("isotonic")
    with pytest.raises(ValueError, match="n_threads must be an integer >= 0"):
        serving.load(path, n_threads=n_threads)


def test_steps_of_no_stage(exported):
    _, served, X, _ = exported("isotonic")
    for k in (-1, 2, "final"):
        with pytest.raises(ValueError, match=r"k must be an integer in \[0, 2\)"):
            served.step(k, X)
    with pytest.raises(TypeError, match="must be the carry of step 0"):
        served.step(1, X)
