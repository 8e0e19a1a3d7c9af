"""Costly features in a cascade: who is asked for, how often, and the same results as without them.

The oracle is a cascade whose X holds the fetched columns from the start and whose later stage picks
its columns out of it. Rows carry an id in column 0, by which a bureau counts what it is asked.
"""

import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from packaging.version import Version
from sklearn import __version__ as sklearn_version
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_predict,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch import NeuralNetClassifier
from torch import nn

from skmsc import (
    Agreement,
    AutoFeedback,
    CostBudget,
    FeedbackCascadeClassifier,
    GainFeedback,
    PassBudget,
    RecallFloor,
)
from skmsc.costly_features import CostlyFeatures
from skmsc.model_selection import TimeDelaySplit
from skmsc.neural import TabularNet
from skmsc.thresholds import StageScores, eager_stage
from skmsc.training.feedback import best_f1_cut

OLD = Version(sklearn_version) < Version("1.7")
N = 240
Z, Y = make_classification(
    N, 6, n_informative=5, n_redundant=0, weights=[0.75], flip_y=0.05, random_state=3
)
IDS = np.arange(N)
TABLE = Z[:, 3:]  # what the bureau knows, by id
X = np.column_stack([IDS, Z[:, :3]])
JOINED = np.column_stack([X, TABLE])
WEIGHT = np.random.default_rng(0).integers(0, 3, N).astype(float)
GROUPS = IDS // 4
UNLABELED = np.where(np.random.default_rng(1).random(N) < 0.3, -1, Y)
Y3 = make_classification(
    N, 6, n_informative=5, n_redundant=0, n_classes=3, weights=[0.5, 0.3], random_state=3
)[1]
EVERY = np.ones(N, dtype=bool)

# What cascades rightly say of few rows.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}:UserWarning")
    for message in (
        "A recall of .* needs more than max_pass_rate=",
        "Stage .* takes no sample_weight",
        "(?s)TabularNet learned nothing",
        "The thresholds pass .* of the rows, but survivor_rate=",
    )
]


class Bureau:
    """A service that cannot be copied, and counts whom it is asked for."""

    def __init__(self, table=TABLE):
        self.table = table
        self.lock = threading.Lock()
        self.forget()

    def __call__(self, keys):
        ids = np.asarray(keys, dtype=int)
        with self.lock:
            self.calls.append(ids)
        return self.table[ids]

    def forget(self):
        self.calls = []

    @property
    def sizes(self):
        """Number of rows of each call."""
        return [len(ids) for ids in self.calls]

    @property
    def times(self):
        """How often each row was asked for."""
        return np.bincount(np.concatenate([*self.calls, []]).astype(int), minlength=N)


def was_asked_once_for(bureau, rows):
    np.testing.assert_array_equal(bureau.times, rows)


class NeverFitted(GaussianNB):
    """A classifier that no cascade with a mistake may reach."""

    def fit(self, X, y, sample_weight=None):
        raise AssertionError("fitted before the mistake was told")


def pick(columns, classifier):
    """A stage on some columns of X."""
    return make_pipeline(make_column_transformer(("passthrough", columns)), classifier)


def screen(classifier=None):
    return pick([1, 2, 3], LogisticRegression() if classifier is None else classifier)


def costly(bureau, classifier=None, **params):
    features = CostlyFeatures(bureau, **{"on": 0, **params})
    return make_pipeline(features, GaussianNB() if classifier is None else classifier)


def plain(classifier=None):
    """The oracle of a costly stage, on `JOINED`."""
    return pick([1, 2, 3, 4, 5, 6], GaussianNB() if classifier is None else classifier)


def cascade(*stages, **params):
    params = {"thresholds": PassBudget(0.3), "cv": 3, "random_state": 0, **params}
    names = ["screen", "middle", "final"] if len(stages) == 3 else ["screen", "final"]
    return FeedbackCascadeClassifier(list(zip(names, stages, strict=False)), **params)


def spared(*stages, **params):
    """A cascade that fetches nothing for training rows that it rejects."""
    return cascade(*stages, **{"feedback": "none", "survivor_rate": 0.4, **params})


def by_later_score(positive, later_proba, catch_threshold):
    return np.where(positive, 0.5 + later_proba[:, -1], 1.0)


def assert_same(model, other, X, J, oof=True, rtol=0.0):
    """Equal, bit for bit, where the one has X and the other J.

    Sums of products differ in the last bit with the layout of an array in memory: `rtol` is for
    these, relative to 1.
    """
    close = partial(np.testing.assert_allclose, rtol=rtol, atol=rtol)
    names = ["thresholds_", "catch_threshold_", "oof_stage_proba_", "feedback_weights_"]
    for name in names if oof else names[:1]:
        close(getattr(model, name), getattr(other, name), err_msg=name)
    close(model.stage_proba(X), other.stage_proba(J))
    mine, its = model.route(X), other.route(J)
    close(mine.proba, its.proba)
    np.testing.assert_array_equal(mine.stage, its.stage)


# --- The same results, and each row once -----------------------------------------------------

POLICIES = [PassBudget(0.3), 0.3, RecallFloor(0.9), Agreement(0.05), None]
OF_SCORES = POLICIES[2:]
FEEDBACKS = ("caught", "gain", "auto", by_later_score)
# Every policy with one feedback and with none, every feedback with one policy.
SETTINGS = [
    *[(f, share, t) for f in ("caught", "none") for share in (None, 0.4) for t in OF_SCORES],
    *[(f, None, t) for f in ("caught", "none") for t in POLICIES[:2]],
    *[("caught", 0.4, t) for t in POLICIES[:2]],
    *[(f, share, PassBudget(0.3)) for f in FEEDBACKS[1:] for share in (None, 0.4)],
    *[(f, share, None) for f in FEEDBACKS[1:] for share in (None, 0.4)],
]


@pytest.mark.parametrize("feedback, survivor_rate, thresholds", SETTINGS)
def test_a_cascade_is_that_on_joined_columns(feedback, survivor_rate, thresholds):
    bureau = Bureau()
    params = {
        "feedback": feedback,
        "survivor_rate": survivor_rate,
        "thresholds": thresholds,
        "store_oof": True,
    }
    model = cascade(screen(), costly(bureau), **params).fit(X, Y)
    was_asked_once_for(bureau, EVERY)
    assert bureau.sizes == [N]
    other = cascade(screen(), plain(), **params).fit(JOINED, Y)
    assert_same(model, other, X, JOINED)


WAYS = {
    "weights": ({}, {"sample_weight": WEIGHT}, WEIGHT > 0),
    "weights, survivors": ({"survivor_rate": 0.5}, {"sample_weight": WEIGHT}, WEIGHT > 0),
    "weights, auto": ({"feedback": "auto"}, {"sample_weight": WEIGHT}, WEIGHT > 0),
    "repeated": (
        {"cv": RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0)},
        {},
        EVERY,
    ),
    "groups": ({"cv": GroupKFold(3), "feedback": "auto"}, {"groups": GROUPS}, EVERY),
    "hold-out": ({"validation_fraction": 0.3, "feedback": "auto"}, {}, EVERY),
    "hold-out, weights": (
        {"validation_fraction": 0.3, "survivor_rate": 0.5},
        {"sample_weight": WEIGHT},
        WEIGHT > 0,
    ),
    "hold-out, groups": (
        {"validation_fraction": 0.3, "cv": GroupKFold(3)},
        {"groups": GROUPS},
        EVERY,
    ),
    "rows never scored": ({"cv": TimeSeriesSplit(3), "feedback": "auto"}, {}, EVERY),
    "time, hold-out": ({"cv": TimeSeriesSplit(3), "validation_fraction": 0.2}, {}, EVERY),
    "gap": (
        {"cv": TimeDelaySplit(2, test_size=40, gap=10), "validation_fraction": 0.2},
        {"time": IDS},
        (IDS < 182) | (IDS >= 192),  # the gap lies before the held-out fifth
    ),
    "isotonic": ({"calibration": "isotonic"}, {}, EVERY),
    "uncalibrated": ({"calibration": None, "catch_threshold": "argmax"}, {}, EVERY),
    "costs": ({"stage_costs": [1, 5], "thresholds": CostBudget(3), "feedback": "gain"}, {}, EVERY),
    "jobs": ({"n_jobs": 2, "feedback": "auto", "survivor_rate": 0.4}, {}, EVERY),
}


@pytest.mark.parametrize("params, fit_params, asked", WAYS.values(), ids=WAYS)
def test_in_every_way_of_fitting(params, fit_params, asked):
    bureau, params = Bureau(), {"store_oof": True, **params}
    model = cascade(screen(), costly(bureau), **params).fit(X, Y, **fit_params)
    was_asked_once_for(bureau, asked)
    assert len(bureau.calls) == 1 + ("validation_fraction" in params)
    other = cascade(screen(), plain(), **params).fit(JOINED, Y, **fit_params)
    assert_same(model, other, X, JOINED)


CLASSIFIERS = {  # with how close to the oracle they are
    "forest": (partial(RandomForestClassifier, 5), 0.0),
    "boosting": (partial(HistGradientBoostingClassifier, max_iter=5), 0.0),
    "neighbours": (partial(KNeighborsClassifier, 5), 0.0),
    "calibrated": (lambda: CalibratedClassifierCV(GaussianNB(), cv=2), 0.0),
    "decisions": (partial(LinearSVC, dual=False), 1e-8),
    "scaled": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), 1e-8),
    "net": (partial(TabularNet, max_epochs=2), 1e-4),
    "skorch": (lambda: make_pipeline(Float32Scaler(), raw_net()), 1e-4),
}


def raw_net():
    return NeuralNetClassifier(OneLayer, max_epochs=1, verbose=0)


class OneLayer(nn.Module):
    """A softmax regression."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 2), nn.Softmax(1))

    def forward(self, X):
        return self.layers(X)


class Float32Scaler(StandardScaler):
    """A scaler to float32, which a raw net needs."""

    def transform(self, X, copy=None):
        return super().transform(X).astype(np.float32)


@pytest.mark.parametrize("classifier, rtol", CLASSIFIERS.values(), ids=CLASSIFIERS)
@pytest.mark.parametrize("survivor_rate", [None, 0.5])
def test_behind_every_kind_of_classifier(classifier, rtol, survivor_rate):
    bureau, params = Bureau(), {"store_oof": True, "survivor_rate": survivor_rate}
    model = cascade(screen(), costly(bureau, classifier()), **params)
    model.fit(X, Y, sample_weight=WEIGHT)
    was_asked_once_for(bureau, WEIGHT > 0)
    other = cascade(screen(), plain(classifier()), **params).fit(JOINED, Y, sample_weight=WEIGHT)
    assert_same(model, other, X, JOINED, rtol=rtol)


def test_behind_lightgbm():
    lightgbm = pytest.importorskip("lightgbm")
    bureau, params = Bureau(), {"n_estimators": 5, "verbose": -1, "n_jobs": 1}
    model = cascade(screen(), costly(bureau, lightgbm.LGBMClassifier(**params)), store_oof=True)
    other = cascade(screen(), plain(lightgbm.LGBMClassifier(**params)), store_oof=True)
    assert_same(model.fit(X, Y), other.fit(JOINED, Y), X, JOINED)
    assert bureau.sizes[0] == N


@pytest.mark.parametrize("feedback", ["caught", "gain", "auto", "none"])
@pytest.mark.parametrize("params", [{}, {"validation_fraction": 0.3}])
def test_rows_without_a_label_are_fetched_once_or_never(feedback, params):
    bureau = Bureau()
    params = {"feedback": feedback, "unlabeled_label": -1, "store_oof": True, **params}
    model = cascade(screen(), costly(bureau), **params).fit(X, UNLABELED)
    assert bureau.times.max() == 1
    np.testing.assert_array_equal(bureau.times[UNLABELED != -1], 1)
    n_unlabeled = bureau.times[UNLABELED == -1].sum()
    assert n_unlabeled == (0 if feedback == "none" else (UNLABELED == -1).sum())
    other = cascade(screen(), plain(), **params).fit(JOINED, UNLABELED)
    assert_same(model, other, X, JOINED)


def test_rows_without_a_label_and_survivors():
    bureau = Bureau()
    params = {"unlabeled_label": -1, "store_oof": True, "survivor_rate": 0.5}
    model = cascade(screen(), costly(bureau), **params).fit(X, UNLABELED, sample_weight=WEIGHT)
    was_asked_once_for(bureau, WEIGHT > 0)
    other = cascade(screen(), plain(), **params).fit(JOINED, UNLABELED, sample_weight=WEIGHT)
    assert_same(model, other, X, JOINED)


@pytest.mark.parametrize("feedback", ["caught", "gain", "none", "auto"])
def test_every_place_can_be_costly(feedback):
    """First, middle and last stage have bureaus of their own, each asked once for a row."""
    bureaus = [Bureau(TABLE[:, [k]]) for k in range(3)]
    params = {"feedback": feedback, "store_oof": True, "thresholds": PassBudget([0.6, 0.3])}
    model = cascade(*(costly(bureau) for bureau in bureaus), **params).fit(X, Y)
    for bureau in bureaus:
        was_asked_once_for(bureau, EVERY)
        bureau.forget()
    stages = [pick([1, 2, 3, column], GaussianNB()) for column in (4, 5, 6)]
    other = cascade(*stages, **params).fit(JOINED, Y)
    stage = model.route(X).stage
    for k, bureau in enumerate(bureaus):
        was_asked_once_for(bureau, stage >= k)
        assert len(bureau.calls) == 1
    assert_same(model, other, X, JOINED)


@pytest.mark.parametrize("params", [{}, {"survivor_rate": 0.5}, {"feedback": "auto"}])
def test_only_the_middle_stage_is_costly(params):
    bureau = Bureau()
    params = {"store_oof": True, **params}
    model = cascade(screen(), costly(bureau), pick([1, 2], DecisionTreeClassifier()), **params)
    was_asked_once_for(bureau, ~EVERY)
    model.fit(X, Y)
    was_asked_once_for(bureau, EVERY)
    other = cascade(screen(), plain(), pick([1, 2], DecisionTreeClassifier()), **params)
    assert_same(model, other.fit(JOINED, Y), X, JOINED)


def test_one_stage_alone():
    bureau = Bureau()
    model = cascade(costly(bureau), store_oof=True, survivor_rate=0.5, feedback="none").fit(X, Y)
    was_asked_once_for(bureau, EVERY)
    other = cascade(plain(), store_oof=True, survivor_rate=0.5, feedback="none").fit(JOINED, Y)
    assert_same(model, other, X, JOINED)


def test_more_than_two_classes():
    bureau, params = Bureau(), {"feedback": "none", "store_oof": True, "thresholds": 0.8}
    model = cascade(screen(), costly(bureau), **params).fit(X, Y3)
    was_asked_once_for(bureau, EVERY)
    other = cascade(screen(), plain(), **params).fit(JOINED, Y3)
    assert_same(model, other, X, JOINED, oof=False)
    np.testing.assert_array_equal(model.oof_stage_proba_, other.oof_stage_proba_)


# --- Kinds of X, of keys and of what is fetched ----------------------------------------------

FRAME = pd.DataFrame(
    {
        "id": [f"customer {i}" for i in IDS],
        "city": np.where(Z[:, 0] > 0, "Oslo", "Rome"),
        "amount": Z[:, 1],
        "hour": Z[:, 2],
    },
    index=IDS % 7,  # means nothing
)
RATINGS = pd.CategoricalDtype(["gold", "tin", "none"])
KNOWN = pd.DataFrame(
    {
        "balance": TABLE[:, 0],
        "debt": TABLE[:, 1],
        "rating": pd.Series(np.digitize(TABLE[:, 2], [-0.5, 0.5])).map(
            {0: "gold", 1: "tin", 2: "none"}
        ),
    }
).astype({"rating": RATINGS})
FRAME_JOINED = FRAME.assign(**{name: KNOWN[name].array for name in KNOWN})


class FrameBureau(Bureau):
    """Answers customers' names with a dataframe in which there are categories."""

    def __call__(self, keys):
        ids = np.array([int(key.removeprefix("customer ")) for key in keys])
        super().__call__(ids)
        return KNOWN.iloc[ids]


def frame_screen():
    return make_pipeline(
        make_column_transformer((OneHotEncoder(), ["city"]), ("passthrough", ["amount", "hour"])),
        LogisticRegression(),
    )


def frame_final():
    encoder = make_column_transformer(
        (OrdinalEncoder(), ["city"]),
        ("passthrough", ["amount", "hour", *KNOWN]),
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    boosting = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype")
    return [encoder, boosting]


@pytest.mark.parametrize("params", [{}, {"feedback": "auto", "survivor_rate": 0.5}])
def test_dataframes_with_strings_and_categories(params):
    bureau, params = FrameBureau(), {"store_oof": True, **params}
    stage = make_pipeline(CostlyFeatures(bureau, on="id"), *frame_final())
    model = cascade(frame_screen(), stage, **params).fit(FRAME, Y)
    was_asked_once_for(bureau, EVERY)
    other = cascade(frame_screen(), make_pipeline(*frame_final()), **params).fit(FRAME_JOINED, Y)
    assert_same(model, other, FRAME, FRAME_JOINED)


def test_dataframes_spared():
    bureau = FrameBureau()
    stage = make_pipeline(CostlyFeatures(bureau, on="id"), *frame_final())
    model = spared(frame_screen(), stage, store_oof=True).fit(FRAME, Y)
    was_asked_once_for(bureau, ~np.isnan(model.oof_stage_proba_[:, 1, 0]))
    other = spared(frame_screen(), make_pipeline(*frame_final())).fit(FRAME_JOINED, Y)
    assert_same(model, other, FRAME, FRAME_JOINED, oof=False)


@pytest.mark.parametrize("params", [{}, {"survivor_rate": 0.4, "feedback": "none"}])
def test_polars(params):
    asked = []

    def fetch(keys):
        assert isinstance(keys, pl.Series)
        asked.append(keys.to_list())
        return pl.DataFrame(TABLE[keys.to_numpy()], schema=["a", "b", "c"])

    frame = pl.DataFrame({"id": IDS, "x": Z[:, 0], "y": Z[:, 1], "z": Z[:, 2]})
    final = make_pipeline(CostlyFeatures(fetch, on="id"), GaussianNB())
    names = make_column_transformer(("passthrough", ["x", "y", "z"]))
    model = cascade(make_pipeline(names, LogisticRegression()), final, **params).fit(frame, Y)
    assert len(asked) == 1 and len(set(asked[0])) == len(asked[0])
    other = cascade(screen(), plain(), **params).fit(JOINED, Y)
    assert_same(model, other, frame, JOINED, oof=False)


@pytest.mark.parametrize(
    "on, columns",
    [
        (0, [1, 2, 3, 4, 5, 6]),
        (-4, [1, 2, 3, 4, 5, 6]),
        ([0], [1, 2, 3, 4, 5, 6]),
        ([0, 2], [1, 3, 4, 5, 6]),
        (None, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
@pytest.mark.parametrize("remainder", ["passthrough", "drop"])
def test_on_and_remainder(on, columns, remainder):
    bureau = Bureau()

    def fetch(keys):
        return bureau(keys[:, 0] if keys.ndim == 2 else keys)

    model = cascade(screen(), costly(fetch, on=on, remainder=remainder), store_oof=True).fit(X, Y)
    was_asked_once_for(bureau, EVERY)
    columns = columns if remainder == "passthrough" else [4, 5, 6]
    other = cascade(screen(), pick(columns, GaussianNB()), store_oof=True).fit(JOINED, Y)
    assert_same(model, other, X, JOINED)


def test_nan_is_the_stages_business():
    holes = X.copy()
    holes[::5, 2] = np.nan
    boosting = HistGradientBoostingClassifier(max_iter=5)
    bureau = Bureau()
    model = cascade(screen(boosting), costly(bureau, boosting), store_oof=True).fit(holes, Y)
    joined = np.column_stack([holes, TABLE])
    other = cascade(screen(boosting), plain(boosting), store_oof=True).fit(joined, Y)
    assert_same(model, other, holes, joined)
    # Nothing of X reaches the last stage.
    model = cascade(screen(boosting), costly(bureau, remainder="drop")).fit(holes, Y)
    assert model.predict(holes).shape == (N,)
    bureau.forget()
    with pytest.raises(ValueError, match="contains NaN"):
        cascade(screen(boosting), costly(bureau)).fit(holes, Y)
    assert bureau.calls == []


def test_sparse_rows_are_refused():
    bureau = Bureau()
    model = cascade(LogisticRegression(), costly(bureau))
    with pytest.raises(TypeError, match="Sparse data was passed for X, but dense data is required"):
        model.fit(sp.csr_matrix(X), Y)
    assert bureau.calls == []
    model.fit(X, Y)
    with pytest.raises(TypeError, match="Sparse data was passed"):
        model.predict(sp.csr_matrix(X))


def test_strings_beside_numbers_in_an_array():
    def fetch(ids):
        return KNOWN["rating"].astype(str).to_numpy(dtype=object)[ids.astype(int)]

    encoder = make_column_transformer((OneHotEncoder(), [3]), ("passthrough", [0, 1, 2]))
    stage = make_pipeline(CostlyFeatures(fetch, on=0), encoder, LogisticRegression())
    codes = pd.get_dummies(KNOWN["rating"].astype(str)).to_numpy(float)
    joined = np.column_stack([X, codes])
    model = cascade(screen(), stage, store_oof=True).fit(X, Y)
    plain_stage = pick([4, 5, 6, 1, 2, 3], LogisticRegression())
    other = cascade(screen(), plain_stage, store_oof=True).fit(joined, Y)
    assert_same(model, other, X, joined, rtol=1e-8)


# --- At work ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["predict", "predict_proba", "route", "report"])
def test_only_the_waiting_rows_are_fetched_in_one_call(method):
    bureau = Bureau()
    model = cascade(screen(), costly(bureau)).fit(X, Y)
    waiting = model.route(X).stage == 1
    assert 0 < waiting.sum() < N
    bureau.forget()
    getattr(model, method)(X)
    assert len(bureau.calls) == 1
    was_asked_once_for(bureau, waiting)


def test_without_waiting_rows_nothing_is_fetched():
    bureau = Bureau()
    model = cascade(screen(), costly(bureau)).fit(X, Y)
    rejected = X[model.route(X).stage == 0]
    bureau.forget()
    assert (model.predict(rejected) == 0).all()
    assert model.predict(rejected[:1]).shape == (1,)
    assert bureau.calls == []


def test_a_rows_answer_does_not_depend_on_the_other_rows():
    bureau = Bureau()
    model = cascade(screen(), costly(bureau)).fit(X, Y)
    one_by_one = np.concatenate([model.predict_proba(X[i : i + 1]) for i in range(60)])
    np.testing.assert_allclose(one_by_one, model.predict_proba(X)[:60], atol=1e-12)


def test_what_the_methods_fetch_beyond_the_waiting_rows():
    """Judging asks for more than working does: these counts are part of the documentation."""
    bureau = Bureau()
    model = cascade(screen(), costly(bureau)).fit(X, Y)
    waits = model.route(X).stage == 1
    expected = {
        # What is caught is asked of the positives that do not wait, too.
        "report": (partial(model.report, X, Y), [waits.sum(), ((Y == 1) & ~waits).sum()]),
        "stage_proba": (partial(model.stage_proba, X), [N]),
        "staged": (lambda: list(model.staged_predict_proba(X)), [N]),
        "tune": (partial(model.tune_thresholds, X, Y, thresholds=RecallFloor(0.9)), [N]),
        "agree": (partial(model.tune_thresholds, X, thresholds=Agreement(0.1)), [N]),
        "budget": (partial(model.tune_thresholds, X, thresholds=PassBudget(0.3)), []),
        "number": (partial(model.tune_thresholds, X, thresholds=0.4, copy=True), []),
        "measure": (partial(model.measure_costs, X, n_repeats=3), [N] * 3),
    }
    got = {}
    for name, (method, _) in expected.items():
        bureau.forget()
        method()
        got[name] = bureau.sizes
    assert got == {name: sizes for name, (_, sizes) in expected.items()}


def test_a_judge_of_its_own_asks_once_more_for_the_positives():
    bureau = Bureau()
    model = cascade(screen(), costly(bureau), survivor_rate=0.4).fit(X, Y)
    bureau.forget()
    model.tune_thresholds(X, Y, thresholds=RecallFloor(0.8))
    assert bureau.sizes == [N, (Y == 1).sum()]
    bureau.forget()
    waits = model.route(X).stage == 1
    model.report(X, Y)
    assert bureau.sizes == [waits.sum(), waits.sum(), (Y == 1).sum()]


def test_staged_probabilities_and_reports_are_those_of_the_oracle():
    model = cascade(screen(), costly(Bureau())).fit(X, Y)
    other = cascade(screen(), plain()).fit(JOINED, Y)
    pairs = zip(model.staged_predict_proba(X), other.staged_predict_proba(JOINED), strict=True)
    for mine, its in pairs:
        np.testing.assert_array_equal(mine, its)
    assert str(model.report(X, Y)) == str(other.report(JOINED, Y))
    for fitted, rows in ((model, X), (other, JOINED)):
        fitted.tune_thresholds(rows, Y, thresholds=RecallFloor(0.8))
    assert_same(model, other, X, JOINED, oof=False)


def test_threads_may_ask_at_once():
    bureau = Bureau()
    model = cascade(screen(), costly(bureau)).fit(X, Y)
    expected = model.predict_proba(X)
    waiting = (model.route(X).stage == 1).astype(int)
    bureau.forget()
    parts = np.array_split(np.random.default_rng(0).permutation(N), 12)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda idx: model.predict_proba(X[idx]), parts))
    np.testing.assert_allclose(np.concatenate(answers), expected[np.concatenate(parts)], atol=1e-12)
    np.testing.assert_array_equal(bureau.times, waiting)


def test_fitted_stages_work_alone():
    bureau = Bureau()
    model = cascade(screen(), costly(bureau)).fit(X, Y)
    bureau.forget()
    stage = model.stages_[-1]
    assert model.named_stages_["final"] is stage
    assert [name for name, _ in stage.steps] == ["costlyfeatures", "gaussiannb"]
    np.testing.assert_array_equal(stage.predict_proba(X), model.stage_proba(X)[:, 1])
    assert bureau.sizes == [N, N]
    np.testing.assert_array_equal(
        stage.predict_proba(X), GaussianNB().fit(JOINED[:, 1:], Y).predict_proba(JOINED[:, 1:])
    )
    assert stage.n_features_in_ == 4 and stage[0].fetch is bureau
    assert not hasattr(model.stages[-1][1][0], "schema_")


def test_a_fit_keeps_no_fetched_rows():
    model = cascade(screen(), costly(fetch_of_table)).fit(X, Y)
    assert model.stages_[-1][0].schema_.shape == (0, 3)
    assert TABLE.tobytes()[:64] not in pickle.dumps(model)


# --- Training rows that are rejected ---------------------------------------------------------


def top_by_screen(rate, cv=3, y=Y):
    """The rows that a screen, out-of-fold, scores highest."""
    proba = cross_val_predict(screen(), JOINED, y, cv=cv, method="predict_proba")[:, 1]
    return proba >= np.sort(proba)[-int(rate * N)]


BUDGETS = {
    "passes": {"thresholds": PassBudget(0.3)},
    "costs": {"thresholds": CostBudget(3.0), "stage_costs": [1, 10]},
    "number": {"thresholds": 0.45},
    "matrix": {"thresholds": [[0.55, np.inf], [-np.inf, -np.inf]]},
    "argmax": {"catch_threshold": "argmax"},
    "caught at": {"catch_threshold": 0.7, "calibration": "isotonic"},
    "uncalibrated": {"calibration": None},
}


@pytest.mark.parametrize("params", BUDGETS.values(), ids=BUDGETS)
def test_rejected_rows_are_never_fetched(params):
    bureau = Bureau()
    model = spared(screen(), costly(bureau), store_oof=True, **params).fit(X, Y)
    survivors = top_by_screen(0.4)
    assert len(bureau.calls) == 1
    was_asked_once_for(bureau, survivors)
    np.testing.assert_array_equal(np.isnan(model.oof_stage_proba_[:, 1, 0]), ~survivors)
    # Where no more pass than survive, it is the cascade that has fetched everything.
    other = spared(screen(), plain(), store_oof=True, **params).fit(JOINED, Y)
    assert_same(model, other, X, JOINED, oof=False)
    np.testing.assert_array_equal(
        model.oof_stage_proba_[survivors], other.oof_stage_proba_[survivors]
    )


def test_survivors_tell_what_is_caught():
    model = spared(screen(), costly(Bureau()), store_oof=True).fit(X, Y)
    survivors = top_by_screen(0.4)
    score = model.oof_stage_proba_[survivors, 1, 1]
    cut = best_f1_cut(Y[survivors] == 1, score, np.ones(score.size))
    assert model.catch_threshold_ == cut
    report = model.report(X, Y).columns
    final = GaussianNB().fit(JOINED[survivors, 1:], Y[survivors])
    caught = (final.predict_proba(JOINED[:, 1:])[:, 1] >= cut) & (Y == 1)
    kept = caught & (model.route(X).stage == 1)
    assert report["retained_recall"][-1] == pytest.approx(kept.sum() / caught.sum())


@pytest.mark.parametrize(
    "params, n_expected",
    [
        ({"feedback": "caught"}, N),
        ({"survivor_rate": None}, N),
        ({"thresholds": None}, N),
        ({"thresholds": RecallFloor(0.9)}, N),
        ({"thresholds": Agreement(0.1)}, N),
        ({"thresholds": PassBudget(0.2)}, 96),
        ({"survivor_rate": 1.0}, N),
    ],
)
def test_when_rows_are_spared(params, n_expected):
    bureau = Bureau()
    spared(screen(), costly(bureau), **params).fit(X, Y)
    assert bureau.sizes == [n_expected]


@pytest.mark.parametrize("params", BUDGETS.values(), ids=[f"{name}, hold-out" for name in BUDGETS])
def test_rejected_rows_are_never_fetched_with_a_hold_out(params):
    bureau = Bureau()
    params = {"validation_fraction": 0.3, "store_oof": True, **params}
    model = spared(screen(), costly(bureau), **params).fit(X, Y)
    other = spared(screen(), plain(), **params).fit(JOINED, Y)
    assert bureau.times.max() == 1 and bureau.times.sum() < 0.4 * N
    np.testing.assert_array_equal(bureau.times == 0, np.isnan(model.oof_stage_proba_[:, 1, 0]))
    assert_same(model, other, X, JOINED, oof=False)


@pytest.mark.parametrize("classifier", [KNeighborsClassifier(5), LinearSVC(dual=False)])
def test_weights_of_spared_rows(classifier):
    bureau = Bureau()
    params = {"store_oof": True, "feedback": "none"}
    model = spared(screen(), costly(bureau, classifier), **params)
    model.fit(X, Y, sample_weight=WEIGHT)
    assert bureau.times.max() == 1
    assert WEIGHT[bureau.times == 1].min() == 1
    assert WEIGHT[bureau.times == 1].sum() <= 0.4 * WEIGHT.sum()
    np.testing.assert_array_equal(bureau.times == 0, np.isnan(model.oof_stage_proba_[:, 1, 0]))
    other = spared(screen(), plain(classifier), **params).fit(JOINED, Y, sample_weight=WEIGHT)
    np.testing.assert_array_equal(model.thresholds_, other.thresholds_)


def test_groups_of_spared_rows():
    bureau, params = Bureau(), {"cv": GroupKFold(3)}
    model = spared(screen(), costly(bureau), **params).fit(X, Y, groups=GROUPS)
    assert bureau.sizes == [96]
    other = spared(screen(), plain(), **params).fit(JOINED, Y, groups=GROUPS)
    assert_same(model, other, X, JOINED, oof=False)


def test_spared_rows_without_a_label():
    bureau = Bureau()
    model = spared(screen(), costly(bureau), unlabeled_label=-1).fit(X, UNLABELED)
    assert bureau.times.max() == 1 and not bureau.times[UNLABELED == -1].any()
    assert bureau.times.sum() == int(0.4 * (UNLABELED != -1).sum())
    labeled = UNLABELED != -1
    again = spared(screen(), costly(Bureau())).fit(X[labeled], UNLABELED[labeled])
    np.testing.assert_array_equal(model.thresholds_, again.thresholds_)


def test_folds_in_which_no_row_survives():
    bureau = Bureau()
    params = {"cv": KFold(40), "survivor_rate": 0.2, "thresholds": PassBudget(0.1)}
    model = spared(screen(), costly(bureau), store_oof=True, **params).fit(X, Y)
    survivors = top_by_screen(0.2, KFold(40))
    assert not all(survivors[test].any() for _, test in KFold(40).split(X))
    was_asked_once_for(bureau, survivors)
    other = spared(screen(), plain(), **params).fit(JOINED, Y)
    assert_same(model, other, X, JOINED, oof=False)


def test_spared_by_two_stages():
    """The last stage's bureau is not asked for what the two before reject; the middle one's is."""
    middle, final = Bureau(), Bureau()
    params = {"thresholds": PassBudget([0.6, 0.3]), "store_oof": True}
    model = spared(screen(), costly(middle), costly(final), **params).fit(X, Y)
    was_asked_once_for(middle, EVERY)
    oof = model.oof_stage_proba_
    scores = StageScores(oof, Y, np.ones(N), 0, None, None, ("a", "b", "c"), False)
    cuts = PassBudget(0.4).find_thresholds(scores)
    was_asked_once_for(final, eager_stage(oof, cuts) == 2)


@pytest.mark.parametrize("calibration", ["sigmoid", "isotonic"])
def test_a_class_may_be_lost_among_the_survivors(calibration):
    """A screen sure of a class answers all its rows: the last stage need not know it."""
    easy = X.copy()
    easy[:, 1] += 30 * (Y3 == 2)
    bureau = Bureau()
    model = spared(screen(), costly(bureau), calibration=calibration).fit(easy, Y3)
    asked = bureau.times == 1
    assert not (Y3[asked] == 2).any()
    assert model.stages_[-1].classes_.tolist() == [0, 1]
    np.testing.assert_allclose(model.predict_proba(easy).sum(axis=1), 1)


def test_survivors_of_one_class_fall_back_to_all_rows():
    bureau, params = Bureau(), {"survivor_rate": 0.01, "thresholds": PassBudget(0.01)}
    with pytest.warns(UserWarning, match="leaves, in every training part of cv, rows of one class"):
        model = spared(screen(), costly(bureau), **params).fit(X, Y)
    was_asked_once_for(bureau, EVERY)
    with pytest.warns(UserWarning, match="leaves, in every training part of cv, rows of one class"):
        other = spared(screen(), plain(), **params).fit(JOINED, Y)
    assert model.catch_threshold_ == other.catch_threshold_
    assert_same(model, other, X, JOINED, oof=False)


@pytest.mark.parametrize(
    "cv, fit_params",
    [(TimeSeriesSplit(3), {}), (TimeDelaySplit(2, test_size=40, gap=10), {"time": IDS})],
)
def test_splits_by_time_spare_too(cv, fit_params):
    """Rows of the first training part are never scored: they are no survivors, and cost nothing."""
    bureau = Bureau()
    model = spared(screen(), costly(bureau), cv=cv, store_oof=True).fit(X, Y, **fit_params)
    oof = model.oof_stage_proba_
    scored = ~np.isnan(oof[:, 0, 0])
    cut = np.sort(oof[scored, 0, 1])[-round(0.4 * scored.sum()) :].min()
    was_asked_once_for(bureau, scored & (oof[:, 0, 1] >= cut))
    first_test = min((test for _, test in cv.split(X, Y, **fit_params)), key=min)
    assert scored[first_test].all() and np.isnan(oof[first_test, 1]).all()


@pytest.mark.parametrize("cv", [TimeSeriesSplit(3), StratifiedKFold(3)])
def test_folds_that_cannot_train_on_survivors_keep_the_scores_of_the_fit_on_all_rows(cv):
    params = {"cv": cv, "thresholds": RecallFloor(0.8, max_pass_rate=0.3), "store_oof": True}
    model = cascade(screen(), plain(), survivor_rate=0.4, **params).fit(JOINED, Y)
    on_all = cascade(screen(), plain(), **params).fit(JOINED, Y)
    _, first = next(cv.split(X, Y))
    same = (model.oof_stage_proba_[:, 1] == on_all.oof_stage_proba_[:, 1]).all(axis=1)
    assert same[first].all() == isinstance(cv, TimeSeriesSplit)
    assert np.isfinite(model.oof_stage_proba_[first]).all() and not same[-60:].all()


# --- Errors ----------------------------------------------------------------------------------


class Unreliable(Bureau):
    """A bureau that answers as `spoil` says, from a given call on."""

    def __init__(self, spoil, from_call):
        super().__init__()
        self.spoil, self.from_call = spoil, from_call

    def __call__(self, keys):
        answer = super().__call__(keys)
        return answer if len(self.calls) <= self.from_call else self.spoil(answer)


def is_down(answer):
    raise OSError("no route to bureau")


FAILURES = {
    "raises": (is_down, RuntimeError, r"fetch, asked for \d+ rows, raised OSError: no"),
    "fewer rows": (lambda a: a[1:], ValueError, r"fetch returned \d+ rows, asked for \d+"),
    "no table": (lambda a: None, TypeError, "fetch must return an array of shape"),
    "ragged": (
        lambda a: [[1.0]] * 3 + [[]],
        ValueError,
        "fetch must .*; got rows of different lengths",
    ),
}
CHANGES = {
    "dtype": (
        lambda a: a.astype(np.float32),
        ValueError,
        "fetch returned column .* with dtype float32, in fit",
    ),
    "columns": (lambda a: a[:, :2], ValueError, "fetch returned 2 columns, in fit 3"),
    "names": (
        lambda a: pd.DataFrame(a, columns=list("abc")),
        ValueError,
        "fetch returned 3 columns, in fit 3: .'a'",
    ),
}


@pytest.mark.parametrize("spoil, error, match", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("make", [cascade, spared])
def test_a_failing_fetch_in_fit(make, spoil, error, match):
    good = make(screen(), costly(Bureau())).fit(X, Y)
    model = good.set_params(final__costlyfeatures__fetch=Unreliable(spoil, 0))
    with pytest.raises(error, match=f"^Stage 'final': {match}"):
        model.fit(X, Y)
    assert not hasattr(model, "stages_")  # neither the earlier fit nor half of this one


@pytest.mark.parametrize(
    "spoil, error, match", (FAILURES | CHANGES).values(), ids=FAILURES | CHANGES
)
@pytest.mark.parametrize("place", ["screen", "middle", "final"])
def test_a_failing_fetch_for_held_out_rows_and_at_work(place, spoil, error, match):
    names = ["screen", "middle", "final"]

    def stages(from_call):
        fetch = {name: Bureau() for name in names} | {place: Unreliable(spoil, from_call)}
        return [costly(fetch[name]) for name in names]

    with pytest.raises(error, match=f"^Stage '{place}': {match}"):
        cascade(*stages(1), validation_fraction=0.3).fit(X, Y)
    model = cascade(*stages(1)).fit(X, Y)
    with pytest.raises(error, match=f"^Stage '{place}': {match}") as caught:
        model.predict(X)
    again = [error] if spoil is not is_down else [error, OSError]
    assert [type(e) for e in (caught.value, caught.value.__cause__) if e is not None][-1] in again
    with pytest.raises(error, match=f"^Stage '{place}': {match}"):
        model.stage_proba(X)


def test_a_missing_value_in_work_but_not_in_fit_is_the_classifiers_error():
    def fetch(ids):
        found = TABLE[np.asarray(ids, dtype=int) % N].copy()
        found[np.asarray(ids) >= N] = np.nan
        return found

    model = cascade(screen(), costly(fetch), thresholds=PassBudget(1.0)).fit(X, Y)
    with pytest.raises(ValueError, match="NaN"):
        model.predict(X + np.array([N, 0, 0, 0]))


def misplaced(bureau):
    features = CostlyFeatures(bureau, on=0)
    never = NeverFitted()
    return {
        "second step": make_pipeline(StandardScaler(), features, never),
        "after nothing": Pipeline([("a", "passthrough"), ("b", features), ("c", never)]),
        "two": make_pipeline(features, CostlyFeatures(bureau, on=0), never),
        "the same twice": make_pipeline(features, features, never),
        "columns": make_pipeline(make_column_transformer((features, [0])), never),
        "columns behind a head": make_pipeline(
            features, make_column_transformer((CostlyFeatures(bureau), [0])), never
        ),
        "union": make_pipeline(FeatureUnion([("a", features)]), never),
        "nested": make_pipeline(Pipeline([("a", features)]), never),
        "nested classifier": Pipeline([("a", make_pipeline(features, never))]),
        "calibrated": CalibratedClassifierCV(make_pipeline(features, never)),
        "voting": VotingClassifier([("a", make_pipeline(features, never))], voting="soft"),
        "searched": GridSearchCV(make_pipeline(features, never), {}),
        "frozen head": make_pipeline(FrozenEstimator(features), never),
        "cascade": FeedbackCascadeClassifier([("a", never), ("b", make_pipeline(features, never))]),
    }


@pytest.mark.parametrize("case", misplaced(None))
@pytest.mark.parametrize("place", [0, 1])
def test_misplaced_features_are_refused_before_any_fit(place, case):
    bureau = Bureau()
    stages = [screen(NeverFitted()), screen(NeverFitted())]
    stages[place] = misplaced(bureau)[case]
    name = ["screen", "final"][place]
    match = f"must be the first step of a stage's own pipeline; in stage '{name}' it is elsewhere"
    with pytest.raises(ValueError, match=f"^CostlyFeatures {match}"):
        cascade(*stages).fit(X, Y)
    assert bureau.calls == []


def test_a_frozen_costly_stage_inside_what_cross_fits_is_refused():
    """Else it would be asked for the same rows again and again."""
    bureau = Bureau()
    stage = CalibratedClassifierCV(FrozenEstimator(costly(bureau).fit(X, Y)))
    bureau.forget()
    with pytest.raises(ValueError, match="CostlyFeatures must be the first step"):
        cascade(screen(NeverFitted()), stage).fit(X, Y)
    assert bureau.calls == []


BAD = {
    "fetch": ({"fetch": "bureau"}, TypeError, "fetch must be callable"),
    "cost": ({"cost": -1}, ValueError, "cost must be a finite number >= 0"),
    "cost nan": ({"cost": np.nan}, ValueError, "cost must be a finite number >= 0"),
    "remainder": ({"remainder": "keep"}, ValueError, "remainder must be"),
    "name": ({"on": "customer"}, ValueError, "on must be the name or position"),
    "position": ({"on": 4}, ValueError, "on must be the name or position"),
    "empty": ({"on": []}, ValueError, "on must be the name or position"),
    "kind": ({"on": 0.5}, ValueError, "on must be the name or position"),
}


@pytest.mark.parametrize("params, error, match", BAD.values(), ids=BAD)
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("make", [cascade, spared])
def test_bad_parameters_are_refused_before_any_fit(make, place, params, error, match):
    bureau = Bureau()
    stages = [costly(bureau, NeverFitted()), costly(bureau, NeverFitted())]
    stages[place][0].set_params(**params)
    name = ["screen", "final"][place]
    with pytest.raises(error, match=f"^Stage '{name}': {match}"):
        make(*stages).fit(X, Y)
    assert bureau.calls == []


def test_a_name_that_x_has_not():
    bureau = FrameBureau()
    stages = [
        make_pipeline(CostlyFeatures(bureau, on=on), NeverFitted()) for on in ("customer", "id")
    ]
    message = "Stage 'screen': on must be .*; got 'customer', and X has 4 columns, named"
    with pytest.raises(ValueError, match=f"^{message}"):
        cascade(*stages).fit(FRAME, Y)
    assert bureau.calls == []


def test_steps_may_be_a_tuple():
    """As scikit-learn's Pipeline allows, though it does not recommend it."""
    bureau = Bureau()
    steps = (("features", CostlyFeatures(bureau, on=0)), ("classifier", GaussianNB()))
    model = cascade(screen(), Pipeline(steps), store_oof=True).fit(X, Y)
    was_asked_once_for(bureau, EVERY)
    assert_same(model, cascade(screen(), plain(), store_oof=True).fit(JOINED, Y), X, JOINED)


# --- Costs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage_costs", [[1.0, 10.0], {"screen": 1, "final": 10}])
@pytest.mark.parametrize("cost, total", [(None, 10.0), (0, 10.0), (2.5, 12.5)])
def test_the_cost_of_a_fetch_comes_on_top(stage_costs, cost, total):
    model = cascade(screen(), costly(Bureau(), cost=cost), stage_costs=stage_costs).fit(X, Y)
    np.testing.assert_array_equal(model.stage_costs_, [1.0, total])
    routing = model.route(X)
    np.testing.assert_array_equal(routing.cost, np.where(routing.stage == 1, 1 + total, 1.0))
    assert model.stage_costs == stage_costs


def test_policies_and_feedback_see_the_sum():
    params = {"feedback": GainFeedback(error_costs=(30.0, 1.0)), "store_oof": True}
    model = cascade(
        screen(), costly(Bureau(), cost=4.0), stage_costs=[1, 2], thresholds=CostBudget(3), **params
    ).fit(X, Y)
    other = cascade(screen(), plain(), stage_costs=[1, 6], thresholds=CostBudget(3), **params).fit(
        JOINED, Y
    )
    assert_same(model, other, X, JOINED)
    np.testing.assert_array_equal(model.stage_costs_, other.stage_costs_)
    np.testing.assert_array_equal(model.route(X).cost, other.route(JOINED).cost)
    assert str(model.report(X, Y)) == str(other.report(JOINED, Y))
    without = cascade(
        screen(), plain(), stage_costs=[1, 2], thresholds=CostBudget(3), **params
    ).fit(JOINED, Y)
    assert not np.array_equal(without.feedback_weights_, model.feedback_weights_)
    assert not np.array_equal(without.thresholds_, model.thresholds_)


def test_a_first_stages_fetch_may_exceed_the_budget():
    bureau = Bureau()
    stages = [costly(bureau, NeverFitted(), cost=5.0), screen(NeverFitted())]
    with pytest.raises(ValueError, match=r"first stage runs on every row and costs 6\.0"):
        cascade(*stages, stage_costs=[1, 2], thresholds=CostBudget(5)).fit(X, Y)
    assert bureau.calls == []


def test_costs_are_not_guessed():
    bureau = Bureau()
    stages = [LogisticRegression(), costly(bureau, LogisticRegression(max_iter=5000), cost=5.0)]
    model = cascade(*stages).fit(X, Y)
    assert model.stage_costs_ is None and model.route(X).cost is None
    bureau.forget()
    message = "multiply-adds of stage 'final' cannot be counted: set stage_costs"
    for make in (cascade, spared):
        with pytest.raises(ValueError, match=message):
            make(*stages, thresholds=CostBudget(3)).fit(X, Y)
    with pytest.raises(ValueError, match="set stage_costs too"):
        cascade(*stages, feedback=GainFeedback(error_costs=(5.0, 1.0))).fit(X, Y)
    assert bureau.calls == []


def test_measured_costs_hold_the_time_of_the_fetch():
    def slow(ids):
        threading.Event().wait(0.02)
        return TABLE[ids.astype(int)]

    model = cascade(screen(), costly(slow)).fit(X, Y)
    costs = model.measure_costs(X, n_repeats=1, store=True)
    assert costs[1] > 0.02 / N
    np.testing.assert_array_equal(model.stage_costs_, costs)


# --- Frozen stages ---------------------------------------------------------------------------


def frozen(bureau, **params):
    stage = FrozenEstimator(costly(bureau, **params).fit(X, Y))
    bureau.forget()
    return stage


FROZEN_WAYS = {
    "caught": ({}, EVERY),
    "none": ({"feedback": "none"}, EVERY),
    "survivors": ({"survivor_rate": 0.4}, EVERY),
    "hold-out": ({"validation_fraction": 0.3}, EVERY),
    "auto": ({"feedback": "auto"}, EVERY),
    "time": ({"cv": TimeSeriesSplit(3)}, EVERY),
}


@pytest.mark.parametrize("params, asked", FROZEN_WAYS.values(), ids=FROZEN_WAYS)
def test_a_frozen_last_stage_is_fetched_once(params, asked):
    bureau, params = Bureau(), {"store_oof": True, **params}
    stage = frozen(bureau)
    model = cascade(screen(), stage, **params).fit(X, Y)
    was_asked_once_for(bureau, asked)
    other = cascade(screen(), FrozenEstimator(plain().fit(JOINED, Y)), **params).fit(JOINED, Y)
    assert_same(model, other, X, JOINED)


@pytest.mark.parametrize("feedback, never", [("caught", []), ("none", [-1])])
def test_a_frozen_last_stage_and_rows_without_a_label(feedback, never):
    bureau = Bureau()
    cascade(screen(), frozen(bureau), feedback=feedback, unlabeled_label=-1).fit(X, UNLABELED)
    was_asked_once_for(bureau, ~np.isin(UNLABELED, never))


@pytest.mark.parametrize("feedback", ["caught", "auto", AutoFeedback(candidates=["gain"])])
@pytest.mark.parametrize("place", [0, 1])
def test_a_frozen_early_stage_is_fetched_once(feedback, place):
    bureau = Bureau()
    stages = [screen(), screen(), screen(GaussianNB())]
    stages[place] = frozen(bureau)
    cascade(*stages, feedback=feedback).fit(X, Y)
    was_asked_once_for(bureau, EVERY)


def test_a_frozen_stages_fetch_costs_too():
    stage = frozen(Bureau(), cost=5.0)
    for final in (stage, FrozenEstimator(stage)):
        model = cascade(screen(), final, stage_costs=[1, 2]).fit(X, Y)
        np.testing.assert_array_equal(model.stage_costs_, [1, 7])


def test_a_frozen_stages_failing_fetch_is_told_with_its_name():
    bureau = Unreliable(is_down, 2)
    stage = FrozenEstimator(costly(bureau).fit(X, Y))
    model = cascade(screen(), stage).fit(X, Y)
    with pytest.raises(RuntimeError, match=r"fetch, asked for \d+ rows, raised") as caught:
        model.predict(X)
    assert caught.value.__notes__ == ["This happened in the scores of stage 'final'."]


def test_a_frozen_classifier_behind_costly_features():
    bureau = Bureau()
    classifier = FrozenEstimator(GaussianNB().fit(JOINED[:, 1:], Y))
    model = cascade(screen(), costly(bureau, classifier), store_oof=True)
    model.fit(X, Y, sample_weight=WEIGHT)
    was_asked_once_for(bureau, WEIGHT > 0)
    other = cascade(screen(), plain(classifier), store_oof=True)
    assert_same(model, other.fit(JOINED, Y, sample_weight=WEIGHT), X, JOINED)


def test_a_frozen_cascade_as_last_stage_fetches_what_it_passes():
    bureau = Bureau()
    inner = cascade(screen(), costly(bureau)).fit(X, Y)
    waiting = inner.route(X).stage == 1
    bureau.forget()
    cascade(screen(), FrozenEstimator(inner)).fit(X, Y)
    was_asked_once_for(bureau, waiting)


# --- Among scikit-learn's tools --------------------------------------------------------------


def fetch_of_table(ids):
    return TABLE[np.asarray(ids).astype(int)]


class Double:
    """A fetch without an address in its repr, so that the checks have fixed names."""

    def __call__(self, keys):
        return np.asarray(keys, dtype=np.float64) * 2

    def __repr__(self):
        return "double"


double = Double()


def few(*stages, **params):
    return cascade(*stages, **{"thresholds": PassBudget(0.5), **params})


@parametrize_with_checks(
    [
        few(LogisticRegression(), costly(double, DecisionTreeClassifier(max_depth=3))),
        few(
            LogisticRegression(),
            costly(double, DecisionTreeClassifier(max_depth=3), on=[0], cost=1.0),
            feedback="none",
            survivor_rate=0.9,
        ),
        few(costly(double, LogisticRegression(), on=None), LogisticRegression()),
    ]
)
@pytest.mark.filterwarnings(
    "ignore:The positive class .* is the more frequent one:UserWarning",
    "ignore:Stage .* gives only .* distinct scores:UserWarning",
    "ignore:.*which leaves nothing to learn:UserWarning",
    "ignore:survivor_rate=.* leaves, in every training part of cv:UserWarning",
)
def test_scikit_learn_checks(estimator, check):
    if OLD and check.func.__name__.startswith("check_sample_weight_equivalence"):
        pytest.skip("scikit-learn 1.6 compares fits on other labels")
    check(estimator)


def test_in_a_pipeline():
    bureau = Bureau()
    model = make_pipeline(StandardScaler(), few(LogisticRegression(), costly(double))).fit(X, Y)
    scaled = StandardScaler().fit_transform(X)
    other = few(LogisticRegression(), costly(double)).fit(scaled, Y)
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(scaled))
    outer = make_pipeline(make_column_transformer(("passthrough", [0, 1, 2, 3])))
    outer.steps.append(("cascade", cascade(screen(), costly(bureau))))
    outer.fit(X, Y)
    was_asked_once_for(bureau, EVERY)


@pytest.mark.parametrize("make", [cascade, spared])
def test_in_a_grid_search(make):
    bureau = Bureau()
    grid = {
        "final__costlyfeatures__cost": [1.0, 5.0],
        "final__gaussiannb__var_smoothing": [1e-9, 0.1],
        "thresholds": [PassBudget(0.2)],
    }
    model = make(screen(), costly(bureau))
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, Y)
    assert search.best_estimator_.named_stages_["final"][0].fetch is bureau
    joined = make(screen(), plain())
    plain_grid = {"final__gaussiannb__var_smoothing": [1e-9, 0.1], "thresholds": [PassBudget(0.2)]}
    other = GridSearchCV(joined, plain_grid, cv=2, error_score="raise").fit(JOINED, Y)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"][:2], other.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(search.predict_proba(X), other.predict_proba(JOINED))
    fits = np.array(bureau.sizes)[::2]  # every fit is followed by a prediction, but the last
    expected = [N // 2] * 8 + [N]
    share = 1.0 if make is cascade else 0.4
    np.testing.assert_array_equal(fits, np.multiply(expected, share))


def test_the_head_can_be_searched_away():
    bureau = Bureau()
    model = cascade(screen(), costly(bureau)).set_params(final__costlyfeatures="passthrough")
    other = cascade(screen(), GaussianNB()).fit(X, Y)
    np.testing.assert_array_equal(model.fit(X, Y).predict_proba(X), other.predict_proba(X))
    assert bureau.calls == []
    dropped = cascade(screen(), costly(bureau, cost=-1), pick([1], GaussianNB()))
    dropped.set_params(middle="drop").fit(X, Y)
    assert bureau.calls == []


@pytest.mark.parametrize("make", [cascade, spared])
def test_memory_caches_fits_and_not_fetches(make, tmp_path):
    bureau = Bureau()
    params = {"memory": str(tmp_path), "store_oof": True}
    first = make(screen(), costly(bureau), **params).fit(X, Y)
    sizes = bureau.sizes
    second = make(screen(), costly(bureau), **params).fit(X, Y)
    assert bureau.sizes == sizes * 2
    assert_same(first, second, X, X)
    assert_same(first, make(screen(), costly(Bureau()), store_oof=True).fit(X, Y), X, X)
    # Another answer is another fit.
    changed = make(screen(), costly(Bureau(TABLE[::-1])), **params).fit(X, Y)
    fresh = make(screen(), costly(Bureau(TABLE[::-1])), store_oof=True).fit(X, Y)
    assert_same(changed, fresh, X, X)
    assert not np.array_equal(changed.stage_proba(X), first.stage_proba(X))


@pytest.mark.parametrize("make", [cascade, spared])
def test_pickles(make):
    model = make(screen(), costly(fetch_of_table), feedback="none").fit(X, Y)
    again = pickle.loads(pickle.dumps(model))
    assert_same(again, model, X, X, oof=False)
    again.stages_[-1][0].fetch = is_down
    with pytest.raises(RuntimeError, match=r"^Stage 'final': fetch, asked for"):
        again.predict(X)


def test_clones_share_the_fetch():
    bureau = Bureau()
    model = cascade(screen(), costly(bureau)).fit(X, Y)
    cloned = clone(model)
    assert cloned.stages[1][1][0].fetch is bureau
    assert not hasattr(cloned, "stages_")
    tuned = model.tune_thresholds(X, Y, thresholds=PassBudget(0.1), copy=True)
    assert tuned.stages_[1] is model.stages_[1]
    assert clone(model.stages_[1])[0].fetch is bureau


def test_a_second_fit_of_the_same_cascade_fetches_anew():
    bureau = Bureau()
    model = spared(screen(), costly(bureau))
    model.fit(X, Y)
    model.fit(X[:120], Y[:120])
    assert bureau.sizes == [96, 48]


def test_html():
    model = cascade(screen(), costly(Bureau(), cost=2.0))
    for shown in (model, model.fit(X, Y)):
        html = shown._repr_html_()
        assert "CostlyFeatures" in html and "screen" in html and "final" in html
    assert re.search(r"CostlyFeatures\(cost=2.0,\s+fetch=", repr(model))


@pytest.mark.parametrize("transform", ["pandas", "polars"])
def test_set_output_of_the_stage(transform):
    bureau = Bureau()
    stage = costly(bureau).set_output(transform=transform)
    model = cascade(screen(), stage, store_oof=True, validation_fraction=0.3).fit(X, Y)
    was_asked_once_for(bureau, EVERY)
    other = cascade(screen(), plain(), store_oof=True, validation_fraction=0.3).fit(JOINED, Y)
    assert_same(model, other, X, JOINED)
    assert type(model.stages_[1][0].transform(X[:2])).__module__.startswith(transform)
    assert model.stages_[1][-1].feature_names_in_[-1] == "fetched2"


class Witness(GaussianNB):
    """Remembers which rows' metadata came with which rows."""

    seen = []

    def fit(self, X, y, sample_weight=None, who=None):
        self.seen.append((X[:, 0].copy(), who))
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("make, n_fetched", [(cascade, N), (spared, 96)])
def test_metadata_follows_the_fetched_rows(make, n_fetched):
    bureau = Bureau(np.column_stack([IDS, TABLE]))
    with config_context(enable_metadata_routing=True):
        witness = Witness().set_fit_request(who=True, sample_weight=True)
        Witness.seen.clear()
        stage = costly(bureau, witness, remainder="drop")
        model = make(screen(), stage).fit(X, Y, who=IDS, sample_weight=np.ones(N))
        assert bureau.sizes == [n_fetched]
        assert len(Witness.seen) == 4 and len(Witness.seen[0][0]) == n_fetched
        for rows, who in Witness.seen:
            np.testing.assert_array_equal(rows, who)
        assert model.predict(X).shape == (N,)


@pytest.mark.parametrize("make", [cascade, spared])
def test_metadata_routing_changes_nothing(make):
    expected = make(screen(), costly(Bureau())).fit(X, Y, sample_weight=WEIGHT)
    with config_context(enable_metadata_routing=True):
        bureau = Bureau()
        model = make(screen(), costly(bureau)).fit(X, Y, sample_weight=WEIGHT)
        assert bureau.times.max() == 1
        np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))
