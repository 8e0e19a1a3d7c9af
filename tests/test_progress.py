"""What a fit tells while it runs: lines, and scikit-learn's callbacks."""

import re

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB

import skmsc
from skmsc.neural import MultiExitNet

X, Y = make_classification(300, weights=[0.8], random_state=0)


def cascade(**kwargs):
    stages = [("screen", LogisticRegression()), ("final", GaussianNB())]
    return skmsc.FeedbackCascadeClassifier(
        stages, **{"thresholds": 0.3, "cv": 2, "random_state": 0, **kwargs}
    )


def early_exit(**kwargs):
    net = MultiExitNet(width=4, depth=1, max_epochs=1, random_state=0)
    return skmsc.EarlyExitClassifier(
        GaussianNB(), net, **{"thresholds": 0.9, "cv": 2, "random_state": 0, **kwargs}
    )


def composable(**kwargs):
    return skmsc.ComposableHeadClassifier(
        GaussianNB(), "passthrough", **{"thresholds": 0.9, "random_state": 0, **kwargs}
    )


FOLDS = ["all rows", "fold 1 of 2", "fold 2 of 2"]
TASKS = {
    cascade: [("stage 'final'", FOLDS), ("stage 'screen'", FOLDS)],
    early_exit: [("stage 'first_stage'", FOLDS), ("net", [])],
    composable: [
        ("stage 'first_stage'", ["class 0", "class 1"]),
        ("trunk", []),
        ("heads", []),
    ],
}
each = pytest.mark.parametrize("make", list(TASKS))


def lines_of(tasks):
    for name, parts in tasks:
        yield from (f"{name}: {p}, fit {i} of {len(parts)}" for i, p in enumerate(parts, 1))
        if not parts:
            yield name


@each
def test_a_line_for_each_fit(make, capsys):
    model = make(verbose=1).fit(X, Y)
    out = capsys.readouterr().out
    name = re.escape(type(model).__name__)
    told = [re.fullmatch(rf"\[{name}\] (.*) \(\d+\.\d s\)", line)[1] for line in out.splitlines()]
    assert told == list(lines_of(TASKS[make]))


@each
def test_silence_unless_asked(make, capsys):
    make().fit(X, Y)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_jobs_tell_the_same_and_fit_the_same(capsys):
    alone = cascade(verbose=1).fit(X, Y)
    lines = [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()]
    with joblib.parallel_config("threading"):
        together = cascade(verbose=1, n_jobs=2).fit(X, Y)
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()] == lines
    np.testing.assert_allclose(together.predict_proba(X), alone.predict_proba(X), atol=1e-8)


def test_a_memory_is_told_of_too(tmp_path, capsys):
    for _ in range(2):
        cascade(verbose=1, memory=str(tmp_path)).fit(X, Y)
    lines = [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()]
    own = [line for line in lines if line.startswith("[Feedback")]
    assert own[:6] == own[6:] and len(own) == 12


def test_candidates_of_a_feedback_are_told_of(capsys):
    cascade(verbose=1, feedback="auto").fit(X, Y)
    assert capsys.readouterr().out.count("stage 'screen': all rows") > 1


# --- callbacks --------------------------------------------------------------------------------
callbacks = pytest.mark.skipif(
    not hasattr(cascade(), "set_callbacks"), reason="scikit-learn has callbacks since 1.9"
)


class Recorder:
    """A callback that keeps the path of every task, and whether it was set up and torn down."""

    def __init__(self):
        self.begun, self.ended, self.around = [], [], []

    def setup(self, estimator, context):
        self.around.append("setup")

    def teardown(self, estimator, context):
        self.around.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(path(context))

    def on_fit_task_end(self, estimator, context):
        self.ended.append(path(context))


def path(context):
    """Names of the tasks above a task, and its own."""
    above = [] if context.parent is None else path(context.parent)
    return [*above, context.task_name]


@callbacks
@each
def test_callbacks_see_every_task(make):
    recorder = Recorder()
    model = make().set_callbacks(recorder).fit(X, Y)
    wanted = [["fit"]]
    for name, parts in TASKS[make]:
        wanted += [["fit", name], *(["fit", name, part] for part in parts)]
    assert recorder.begun == wanted
    assert sorted(recorder.ended) == sorted(wanted) and recorder.ended[-1] == ["fit"]
    assert recorder.around == ["setup", "teardown"]
    assert not hasattr(model, "_callback_fit_ctx")


@callbacks
def test_callbacks_change_no_fit_and_are_cloned():
    model = cascade().set_callbacks(Recorder()).fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), cascade().fit(X, Y).predict_proba(X))
    assert clone(model)._skl_callbacks == model._skl_callbacks


@callbacks
def test_a_fit_that_fails_is_torn_down():
    recorder = Recorder()
    with pytest.raises(ValueError, match="catch_threshold"):
        cascade(catch_threshold=2).set_callbacks(recorder).fit(X, Y)
    assert recorder.around == ["setup", "teardown"] and recorder.ended == []


class Propagated(Recorder):
    """The same for a search, which hands it on to its candidates."""

    max_propagation_depth = None


@callbacks
def test_a_search_hands_its_callbacks_on():
    recorder = Propagated()
    search = GridSearchCV(cascade(feedback="none"), {"catch_threshold": [0.4, 0.5]}, cv=2)
    search.set_callbacks(recorder).fit(X, Y)
    folds = [p for p in recorder.begun if p[-2:] == ["stage 'final'", "fold 1 of 2"]]
    assert len(folds) == 5  # two candidates on two folds, and the refit
    assert len({len(p) for p in folds}) <= 2 and min(map(len, folds)) > 3


@callbacks
def test_progress_bars_run(capsys):
    pytest.importorskip("rich")
    bar = pytest.importorskip("sklearn.callback").ProgressBar()
    cascade().set_callbacks(bar).fit(X, Y)
    assert "stage 'final'" in capsys.readouterr().out
