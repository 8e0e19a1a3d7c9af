"""Work that gains nothing from threads takes one, and the process keeps its numbers of threads."""

from threading import Barrier, Thread, current_thread

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import ThreadpoolController, threadpool_limits

from skmsc import (
    ComposableHeadClassifier,
    EarlyExitClassifier,
    FeedbackCascadeClassifier,
    PassBudget,
)
from skmsc._threads import one_blas_thread, threads_for, threads_to_read

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1200, 4))
Y = (X[:, 0] + RNG.normal(size=1200) > 1).astype(int)
BLAS = ThreadpoolController().select(user_api="blas")


@pytest.fixture(autouse=True)
def two_threads():
    """Two threads for all, whatever the environment says."""
    with threadpool_limits(2):
        yield


def blas_threads():
    """Numbers of threads of the BLAS libraries."""
    return {library["num_threads"] for library in BLAS.info()}


def threads_seen(monkeypatch, kind, method, call, number=blas_threads):
    """What `number` gives whenever `call` runs the method of a class."""
    seen, original = [], getattr(kind, method)

    def looks(self, *given, **params):
        seen.append(number())
        return original(self, *given, **params)

    with monkeypatch.context() as patch:
        patch.setattr(kind, method, looks)
        call()
    return seen


def cascade_of(*stages):
    """A fitted cascade of two stages."""
    named = list(zip(("screen", "final"), stages, strict=True))
    return FeedbackCascadeClassifier(
        named, feedback="none", thresholds=PassBudget(0.3), random_state=0
    ).fit(X, Y)


# --- BLAS ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (LogisticRegression(), {1}),
        (make_pipeline(StandardScaler(), LogisticRegression()), {1}),
        (make_pipeline(PCA(2), LogisticRegression()), {2}),  # whose products may gain
    ],
)
def test_a_linear_stage_reads_many_rows_on_one_thread(monkeypatch, stage, expected):
    cascade = cascade_of(stage, KNeighborsClassifier())
    for rows, wanted in ((X, expected), (X[:10], {2})):
        seen = threads_seen(
            monkeypatch,
            LogisticRegression,
            "predict_proba",
            lambda rows=rows: cascade.predict_proba(rows),
        )
        assert seen == [wanted]
    assert blas_threads() == {2}


def test_a_stage_that_is_not_linear_keeps_its_threads(monkeypatch):
    cascade = cascade_of(KNeighborsClassifier(100), LogisticRegression())
    seen = threads_seen(
        monkeypatch, KNeighborsClassifier, "predict_proba", lambda: cascade.predict_proba(X)
    )
    assert seen == [{2}]


def test_heads_read_features_on_one_thread(monkeypatch):
    from skmsc.training.heads import Heads

    model = ComposableHeadClassifier(trunk="passthrough", random_state=0).fit(X, Y)
    seen = []

    class Looks(np.ndarray):
        def __matmul__(self, other):
            seen.append(blas_threads())
            return np.asarray(self) @ other

    heads = Heads(model.coef_, model.intercept_, 1.0)
    logits = heads.logits(X.view(Looks))
    np.testing.assert_array_equal(logits, X @ model.coef_.T + model.intercept_)
    assert seen == [{1}]
    many = Heads(np.zeros((200, 4)), np.zeros(200), 1.0)  # of which each row is read for long
    many.logits(X.view(Looks))
    assert seen == [{1}, {2}]


def test_errors_leave_the_numbers_as_they_were():
    with pytest.raises(RuntimeError, match="mine"), one_blas_thread():
        assert blas_threads() == {1}
        raise RuntimeError("mine")
    assert blas_threads() == {2}


class Recorded:
    """Libraries that write down what is set, and by whom."""

    def __init__(self):
        self.set = []

    def limit(self, limits):
        return self

    def __enter__(self):
        self.set.append((1, current_thread().name))

    def __exit__(self, *_):
        self.set.append(("as before", current_thread().name))


def test_who_changes_the_number_changes_it_back(monkeypatch):
    libraries, entered, left, over = Recorded(), Barrier(2), Barrier(2), Barrier(2)
    monkeypatch.setattr("skmsc._threads._libraries", lambda user_api: libraries)

    def first():
        with one_blas_thread():
            entered.wait()
            left.wait()  # the other one is in as well
        over.wait()

    thread = Thread(target=first, name="first")
    thread.start()
    entered.wait()
    with one_blas_thread(), one_blas_thread():
        left.wait()
        over.wait()  # the first one is out
    thread.join()
    assert libraries.set == [(1, "first"), ("as before", "first")]
    with one_blas_thread():
        pass
    assert len(libraries.set) == 4


def test_few_rows_change_nothing():
    with threads_to_read(999, 2):
        assert blas_threads() == {2}


# --- OpenMP -------------------------------------------------------------------------------------
class Looking(torch.nn.Module):
    """A trunk that tells how many threads torch has."""

    seen: list[int] = []

    def __init__(self, n_inputs, width=8):
        super().__init__()
        self.layer = torch.nn.Linear(n_inputs, width)

    def forward(self, x):
        self.seen.append(torch.get_num_threads())
        return self.layer(x)


class LookingExits(torch.nn.Module):
    """Two exits that tell the same."""

    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Looking(n_inputs), Looking(8)])
        self.heads = torch.nn.ModuleList([torch.nn.Linear(8, n_classes) for _ in range(2)])


def net_of(trunk):
    """A net of one epoch."""
    from skmsc.neural import TabularNet

    return TabularNet(trunk=trunk, max_epochs=1, validation=None, random_state=0).fit(X, Y)


def exits():
    """A classifier with two exits that any row reaches."""
    from skmsc.neural import MultiExitNet

    net = MultiExitNet(trunk=LookingExits, max_epochs=1, validation=None)
    return EarlyExitClassifier(net=net, thresholds=[2.0], random_state=0).fit(X, Y)


@pytest.mark.parametrize("fitted", [lambda: net_of(Looking), exits], ids=["net", "exits"])
def test_small_predictions_take_one_thread(monkeypatch, fitted):
    model = fitted()
    for allowed, expected in ((1e9, {1}), (0, {2})):
        monkeypatch.setattr("skmsc._threads._WORTH_THREADS", allowed)
        Looking.seen.clear()
        model.predict_proba(X)
        assert set(Looking.seen) == expected
        assert torch.get_num_threads() == 2


def test_other_threads_keep_theirs():
    seen = []
    for n_multiply_adds in (1e9, 1):
        with threads_for(n_multiply_adds):
            thread = Thread(target=lambda: seen.append(torch.get_num_threads()))
            thread.start()
            thread.join()
            mine = torch.get_num_threads()
    assert mine == 1
    assert seen[0] == seen[1]
