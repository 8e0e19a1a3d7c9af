"""Work that gains nothing from threads takes one, and the process keeps its numbers of threads."""

from threading import Barrier, Thread, current_thread

import numpy as np
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import ThreadpoolController, threadpool_limits

from skmsc import (
    ComposableHeadClassifier,
    EarlyExitClassifier,
    FeedbackCascadeClassifier,
    PassBudget,
)
from skmsc._threads import limit_blas, one_blas_thread
from skmsc.neural import MultiExitNet, TabularNet
from skmsc.neural._threads import limit_openmp
from skmsc.stages import is_projection

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
    monkeypatch.setattr("skmsc._threads.libraries", lambda user_api: libraries)

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
    with limit_blas(999, 2):
        assert blas_threads() == {2}


def stages_of_products():
    """Pipelines that multiply rows by more than the classifier's weights, or may."""
    scaled = make_pipeline(StandardScaler(), PCA(2))
    return [
        scaled,
        RBFSampler(n_components=20, random_state=0),
        FeatureUnion([("pca", PCA(2))]),
        ColumnTransformer([("pca", PCA(1), [0, 1])], remainder="passthrough"),
        FunctionTransformer(np.abs),
    ]


@pytest.mark.parametrize("step", stages_of_products(), ids=lambda step: type(step).__name__)
def test_products_before_the_classifier_keep_their_threads(step):
    assert not is_projection(make_pipeline(step, LogisticRegression()).fit(X, Y))


def test_columns_that_are_prepared_are_no_products():
    columns = ColumnTransformer(
        [("scaled", make_pipeline(SimpleImputer(), StandardScaler()), [0, 1])],
        remainder="passthrough",
    )
    fitted = make_pipeline(columns, LogisticRegression()).fit(X, Y)
    assert is_projection(fitted) and is_projection(FrozenEstimator(fitted))


# --- OpenMP -------------------------------------------------------------------------------------
def threads_at(module, call):
    """Numbers of threads that torch has whenever `call` runs a module."""
    seen = set()
    hook = module.register_forward_pre_hook(lambda *_: seen.add(torch.get_num_threads()))
    call()
    hook.remove()
    return seen


@pytest.mark.parametrize("trunk", ["mlp", "resnet"])
def test_small_predictions_take_one_thread(trunk):
    net = TabularNet(trunk=trunk, max_epochs=1, validation=None, random_state=0).fit(X, Y)
    head, n_multiply_adds = net.net_.module_.head, net.count_multiply_adds()
    few, many = 10_000_000 // n_multiply_adds, 30_000_000 // n_multiply_adds + 1
    rows = np.repeat(X[:1], many, axis=0)
    assert threads_at(head, lambda: net.predict_proba(rows[:few])) == {1}
    assert threads_at(head, lambda: net.predict_proba(rows)) == {2}
    assert torch.get_num_threads() == 2


class OwnTrunk(torch.nn.Module):
    """Whose work nobody knows."""

    def __init__(self, n_inputs):
        super().__init__()
        self.layer = torch.nn.Linear(n_inputs, 1000)

    def forward(self, x):
        return self.layer(x)


def test_a_trunk_of_ones_own_keeps_its_threads():
    net = TabularNet(trunk=OwnTrunk, max_epochs=1, validation=None, random_state=0).fit(X, Y)
    assert threads_at(net.net_.module_.head, lambda: net.predict_proba(X)) == {2}


class Asking(GaussianNB):
    """A first stage that tells how many threads OpenMP has."""

    seen: list[int] = []

    def predict_proba(self, X):
        self.seen.append(torch.get_num_threads())
        return super().predict_proba(X)


def test_exits_take_one_thread_and_the_first_stage_does_not():
    net = MultiExitNet(width=64, depth=2, max_epochs=1, validation=None)
    model = EarlyExitClassifier(Asking(), net, thresholds=[2.0, 2.0], random_state=0).fit(X, Y)
    Asking.seen.clear()
    block = model.net_.net_.module_.blocks[0]
    assert threads_at(block, lambda: model.predict_proba(X)) == {1}
    assert Asking.seen == [2]
    assert torch.get_num_threads() == 2


def test_a_new_thread_keeps_its_number():
    def numbers(limit):
        inside = torch.get_num_threads() if limit is None else None
        if limit is not None:
            with limit:
                inside = torch.get_num_threads()
        seen.append((inside, torch.get_num_threads()))

    seen = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # what a thread has that is new to torch
    for limit in (None, "few"):
        run = (lambda: numbers(None)) if limit is None else (lambda: numbers(limit_openmp(1e6)))
        thread = Thread(target=run)
        thread.start()
        thread.join()
    torch.set_num_threads(before)
    assert seen == [(2, 2), (1, 2)]
