"""What a stage is: validation, weights, resampling and scores."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GroupShuffleSplit
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skmsc.neural import TabularNet
from skmsc.stages import (
    StageScorer,
    check_stages,
    fit_stage,
    stage_input_tags,
    systematic_resample,
    takes_weight,
)

X, Y = make_classification(200, n_features=6, n_informative=4, weights=[0.7], random_state=0)
LR = LogisticRegression()


def fit(stage, *, weight=None, sample_weight=None, seed=0, y=Y):
    return fit_stage(stage, X, y, weight=weight, sample_weight=sample_weight, seed=seed, params={})


@pytest.mark.parametrize(
    "stages, error, match",
    [
        (LR, TypeError, "stages must be a list of"),
        ([LR], TypeError, "stages must be a list of"),
        ([(1, LR)], TypeError, "stages must be a list of"),
        ([("a", LR), ("a", LR)], ValueError, "unique; 'a' is given twice"),
        ([("a__b", LR)], ValueError, "must not be empty or contain '__'; got 'a__b'"),
        ([("cv", LR)], ValueError, "named like a parameter of its owner: 'cv'"),
        ([("a", "drop")], ValueError, "at least one of them not 'drop'"),
        ([], ValueError, "at least one"),
        ([("a", "dorp")], TypeError, "Stage 'a' must be a classifier object or 'drop'; got 'dorp'"),
        ([("a", LogisticRegression)], TypeError, "Stage 'a' must be a classifier object"),
        ([("a", LinearRegression())], TypeError, "Stage 'a' must be a classifier"),
        ([("a", StandardScaler())], TypeError, "Stage 'a' must be a classifier"),
    ],
)
def test_bad_stages_are_refused(stages, error, match):
    with pytest.raises(error, match=match):
        check_stages(stages, reserved=["cv"])


def test_dropped_stages_are_left_out():
    assert check_stages([("a", LR), ("b", "drop")], reserved=[]) == [("a", LR)]


@pytest.mark.parametrize(
    "stage, takes",
    [
        (LR, True),
        (KNeighborsClassifier(), False),
        (make_pipeline(StandardScaler(), LR), True),
        (make_pipeline(StandardScaler(), KNeighborsClassifier()), False),
    ],
)
def test_whether_a_stage_takes_weights(stage, takes):
    assert takes_weight(stage) == takes


def test_a_step_none_takes_what_the_others_take():
    imputes = make_pipeline(None, SimpleImputer(), LR)
    takes_nan = [stage_input_tags(stages)[1] for stages in ([imputes], [make_pipeline(None, LR)])]
    assert takes_nan == [True, False]


def test_a_pipelines_scaler_gets_the_callers_weights_and_its_classifier_the_stages():
    rng = np.random.default_rng(0)
    sample_weight, weight = rng.uniform(0.5, 2, Y.size), rng.uniform(0.5, 2, Y.size)
    pipeline = fit(make_pipeline(StandardScaler(), LR), weight=weight, sample_weight=sample_weight)
    scaler = StandardScaler().fit(X, sample_weight=sample_weight)
    expected = LogisticRegression().fit(scaler.transform(X), Y, sample_weight=weight)
    np.testing.assert_allclose(pipeline[-1].coef_, expected.coef_, rtol=1e-10)


def test_seeds_are_set_where_there_are_none():
    forest = fit(RandomForestClassifier(3), seed=7)
    assert isinstance(forest.random_state, int)
    assert fit(RandomForestClassifier(3, random_state=5), seed=7).random_state == 5
    again = fit(RandomForestClassifier(3), seed=7)
    np.testing.assert_array_equal(forest.predict_proba(X), again.predict_proba(X))


def test_equal_weights_resample_to_the_rows_themselves():
    idx = systematic_resample(np.full(50, 3.7), np.arange(50) % 2, np.random.RandomState(0))
    np.testing.assert_array_equal(idx, np.arange(50))
    stage = fit(KNeighborsClassifier(), weight=np.full(Y.size, 2.0))
    plain = KNeighborsClassifier().fit(X, Y)
    np.testing.assert_array_equal(stage.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("seed", range(10))
def test_resampling_draws_each_row_its_weight_rounded_down_or_up(seed):
    rng = np.random.RandomState(seed)
    weight = rng.exponential(size=60)
    counts = np.bincount(systematic_resample(weight, rng.randint(0, 2, 60), rng), minlength=60)
    expected = weight * 60 / weight.sum()
    assert (np.abs(counts - expected) < 1).all()
    assert abs(counts.sum() - 60) <= 1


def test_resampling_is_unbiased():
    rng = np.random.RandomState(0)
    weight, y = np.array([0.2, 0.5, 1.3, 2.0]), np.array([0, 1, 0, 1])
    mean = np.mean(
        [np.bincount(systematic_resample(weight, y, rng), minlength=4) for _ in range(4000)], axis=0
    )
    np.testing.assert_allclose(mean, weight, atol=0.03)


def test_resampling_keeps_a_row_of_every_class():
    weight, y = np.array([1.0] * 99 + [1e-6]), np.array([0] * 99 + [1])
    assert 99 in systematic_resample(weight, y, np.random.RandomState(0))


@pytest.mark.parametrize(
    "stage", [LR, RidgeClassifier(), SVC(), GaussianNB()], ids=lambda s: type(s).__name__
)
def test_raw_scores_are_the_stages_own(stage):
    stage = stage.fit(X, Y)
    raw = StageScorer.of("a", stage, np.array([0, 1])).raw(X)
    own = (
        stage.predict_proba(X)[:, 1]
        if hasattr(stage, "predict_proba")
        else (stage.decision_function(X))
    )
    np.testing.assert_array_equal(raw[:, 1], own)
    assert raw.dtype == np.float64


def test_scores_are_aligned_to_all_classes():
    stage = LogisticRegression().fit(X, np.where(Y == 1, "c", "a"))
    raw = StageScorer.of("a", stage, np.array(["a", "b", "c"])).raw(X)
    np.testing.assert_array_equal(raw[:, [0, 2]], stage.predict_proba(X))
    np.testing.assert_array_equal(raw[:, 1], 0)


def test_a_stage_fitted_on_other_classes_is_refused():
    stage = FrozenEstimator(LogisticRegression().fit(X, Y + 5))
    with pytest.raises(ValueError, match=r"Stage 'a' was fitted on the classes \[5 6\]"):
        StageScorer.of("a", stage, np.array([0, 1]))


def test_a_stage_that_was_fitted_without_scores_is_refused():
    X, y = make_classification(random_state=0)
    votes = VotingClassifier([("one", GaussianNB())], voting="hard").fit(X, y)
    with pytest.raises(TypeError, match="Stage 's' must have predict_proba or decision_function"):
        StageScorer.of("s", votes, votes.classes_)


def test_scores_that_are_nan_name_the_stage():
    class Broken(LogisticRegression):
        def predict_proba(self, X):
            return np.full((len(X), 2), np.nan)

    scorer = StageScorer.of("bad", Broken().fit(X, Y), np.array([0, 1]))
    with pytest.raises(ValueError, match="Stage 'bad' gave scores that are nan or infinite"):
        scorer(X)


def test_float32_probabilities_keep_small_scores_apart():
    class Single(LogisticRegression):
        def predict_proba(self, X):
            return np.array([[1, 1e-9], [1, 2e-9], [3e-9, 1]], dtype=np.float32)

    proba = StageScorer.of("a", Single().fit(X, Y), np.array([0, 1]))(X[:3])
    assert proba[0, 0] > proba[1, 0] and proba[2, 1] < 1
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-15)


def test_a_net_with_a_splitter_may_decline_weights():
    with config_context(enable_metadata_routing=True):
        for validation in (None, GroupShuffleSplit(1)):
            net = TabularNet(validation=validation)
            assert takes_weight(net)
            assert not takes_weight(net.set_fit_request(sample_weight=False))
