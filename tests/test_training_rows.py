"""Which rows train, in which splits, and which are held out."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    PredefinedSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)

from skmsc.splits import make_splits, restrict
from skmsc.training_rows import check_splits, choose_training_rows

X, Y = make_classification(120, n_features=5, n_informative=3, weights=[0.7], random_state=0)
CLASSES = np.array([0, 1])


def chosen(cv, *, sample_weight=None, fraction=None, **params):
    return choose_training_rows(
        X,
        Y,
        sample_weight,
        labeled=np.ones(120, dtype=bool),
        learn_unlabeled=True,
        classes=CLASSES,
        positive=1,
        cv=cv,
        split_params=params,
        stage_params={"a": {"row": np.arange(120), "option": "x"}},
        validation_fraction=fraction,
        rng=np.random.RandomState(0),
    )


def test_rows_of_weight_zero_are_absent_also_with_groups():
    weight = (np.arange(120) % 4 > 0).astype(float)
    groups = np.arange(120) // 6
    rows = chosen(GroupKFold(3), sample_weight=weight, groups=groups)
    alone = make_splits(
        GroupKFold(3), X[weight > 0], Y[weight > 0], params={"groups": groups[weight > 0]}
    )
    for got, expected in zip(rows.fitter.splits, alone, strict=True):
        np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_array_equal(rows.fitter.X, X[weight > 0])
    np.testing.assert_array_equal(rows.stage_params["a"]["row"], np.flatnonzero(weight))
    assert rows.stage_params["a"]["option"] == "x"


def test_rows_are_held_out_before_the_rest_is_split():
    rows = chosen(StratifiedKFold(5), fraction=0.5)
    n_positive = [rows.fitter.codes[test].sum() for _, test in rows.fitter.splits]
    assert len(rows.fitter.splits) == 5 and max(n_positive) - min(n_positive) <= 1
    assert rows.held_out[0].shape == (60,)
    assert not set(map(tuple, rows.fitter.X_held_out)) & set(map(tuple, rows.fitter.X))


def test_a_time_splitter_has_all_its_folds_before_the_held_out_rows():
    rows = chosen(TimeSeriesSplit(5), fraction=0.35)
    assert len(rows.fitter.splits) == 5
    np.testing.assert_array_equal(rows.idx, np.arange(78))


def test_splits_by_position_lose_the_held_out_rows():
    fold = np.arange(120) % 3
    rows = chosen(PredefinedSplit(fold), fraction=0.25)
    for k, (train, test) in enumerate(rows.fitter.splits):
        assert (fold[rows.idx][test] == k).all() and (fold[rows.idx][train] != k).all()


@pytest.mark.parametrize("cv", [3, KFold(3), StratifiedKFold(3)], ids=["int", "kfold", "strat"])
def test_splitters_see_only_the_rows_in_use(cv):
    used = np.random.default_rng(0).uniform(size=Y.size) < 0.6
    some = make_splits(cv, X, Y, used=used)
    alone = make_splits(cv, X[used], Y[used])
    for (train, test), (train_alone, test_alone) in zip(some, alone, strict=True):
        np.testing.assert_array_equal(train, train_alone)
        np.testing.assert_array_equal(test, test_alone)


@pytest.mark.parametrize(
    "as_cv",
    [lambda s: list(s.split()), lambda s: iter(list(s.split())), lambda s: s],
    ids=["list", "iterator", "splitter"],
)
def test_indices_speak_of_the_rows_as_given(as_cv):
    fold = np.arange(Y.size) % 3
    used = np.arange(Y.size) >= 10
    splits = make_splits(as_cv(PredefinedSplit(fold)), X, Y, used=used)
    for k, (train, test) in enumerate(splits):
        np.testing.assert_array_equal(test, np.flatnonzero(fold[used] == k))
        np.testing.assert_array_equal(train, np.flatnonzero(fold[used] != k))


def test_masks_are_indices():
    mask = np.arange(Y.size) < 60
    ((train, test),) = make_splits([(mask, ~mask)], X, Y)
    np.testing.assert_array_equal(train, np.arange(60))
    np.testing.assert_array_equal(test, np.arange(60, 120))


def test_groups_reach_the_splitter():
    groups = np.arange(Y.size) // 10
    for train, test in make_splits(GroupKFold(3), X, Y, params={"groups": groups}):
        assert not set(groups[train]) & set(groups[test])


def testrestricting_keeps_the_folds_of_the_rows_in_use():
    used = np.array([True, False, True, True])
    splits = [(np.array([0, 1]), np.array([2, 3])), (np.array([2, 3]), np.array([1]))]
    ((train, test),) = restrict(splits, used)
    assert train.tolist() == [0] and test.tolist() == [1, 2]


def test_bad_splits_are_refused():
    codes = np.array([0, 0, 1, 1])
    labels = np.array(["honest", "fraud"])
    with pytest.raises(
        ValueError, match="training part of split 0 of cv holds no row of class fraud"
    ):
        check_splits([(np.array([0, 1]), np.array([2, 3]))], codes, labels, 1)
    with pytest.raises(ValueError, match="scores no row of the positive class fraud"):
        check_splits([(np.array([1, 2, 3]), np.array([0]))], codes, labels, 1)
    with pytest.raises(ValueError, match="no split"):
        check_splits([], codes, labels, 1)
    with pytest.raises(ValueError, match=r"indices from 0 to 119, .* got 0 to 120"):
        make_splits([(np.arange(121), np.arange(3))], X, Y)


@pytest.mark.parametrize("cv", [5, KFold(3), [(np.arange(60), np.arange(60, 120))]])
def test_a_splitter_without_time_says_so(cv):
    with pytest.raises(TypeError, match="takes no time; a TimeDelaySplit does"):
        chosen(cv, time=np.arange(120))
