"""Out-of-fold scores against scikit-learn's own, and the splits they come from."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    PredefinedSplit,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_predict,
)
from sklearn.svm import LinearSVC

from skmsc.out_of_fold import CrossFitter, check_splits, make_splits, restrict_splits

X, Y = make_classification(120, n_features=5, n_informative=3, weights=[0.7], random_state=0)
CLASSES = np.array([0, 1])


def fitter(splits, **kwargs):
    return CrossFitter(
        X=X, codes=Y, classes=CLASSES, sample_weight=None, splits=splits, seed=0, **kwargs
    )


def test_scores_are_those_of_cross_val_predict():
    cv = StratifiedKFold(4)
    fit = fitter(make_splits(cv, X, Y)).fit("a", LogisticRegression(), target=Y)
    expected = cross_val_predict(LogisticRegression(), X, Y, cv=cv, method="predict_proba")
    np.testing.assert_allclose(fit.proba, expected, rtol=1e-12)
    on_all = LogisticRegression().fit(X, Y)
    np.testing.assert_array_equal(fit.scorer.estimator.coef_, on_all.coef_)


def test_rows_scored_twice_are_averaged():
    cv = RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0)
    splits = make_splits(cv, X, Y)
    fit = fitter(splits).fit("a", LogisticRegression(), target=Y)
    halves = [
        fitter(part).fit("a", LogisticRegression(), target=Y) for part in (splits[:3], splits[3:])
    ]
    np.testing.assert_allclose(fit.proba, (halves[0].proba + halves[1].proba) / 2, rtol=1e-12)


def test_rows_never_scored_are_nan():
    cross = fitter(make_splits(TimeSeriesSplit(3), X, Y))
    fit = cross.fit("a", LogisticRegression(), target=Y)
    np.testing.assert_array_equal(np.isnan(fit.proba).any(axis=1), ~cross.scored)
    assert cross.scored.sum() == 90


def test_weights_are_those_of_the_training_rows():
    weight = np.random.default_rng(0).uniform(0.2, 3, Y.size)
    (train, test), *_ = splits = make_splits(KFold(3), X, Y)
    fit = fitter(splits).fit("a", LogisticRegression(), target=Y, weight=weight)
    model = LogisticRegression().fit(X[train], Y[train], sample_weight=weight[train])
    np.testing.assert_allclose(fit.proba[test], model.predict_proba(X[test]), rtol=1e-12)


def test_only_the_given_rows_train_and_all_are_scored():
    rows = X[:, 0] > -0.5
    (train, test), *_ = splits = make_splits(KFold(3), X, Y)
    fit = fitter(splits).fit("a", LogisticRegression(), target=Y, rows=rows)
    model = LogisticRegression().fit(X[train][rows[train]], Y[train][rows[train]])
    np.testing.assert_allclose(fit.proba[test], model.predict_proba(X[test]), rtol=1e-12)
    on_rows = LogisticRegression().fit(X[rows], Y[rows])
    np.testing.assert_array_equal(fit.scorer.estimator.coef_, on_rows.coef_)


def test_decision_values_become_probabilities_out_of_fold():
    cv = StratifiedKFold(4)
    fit = fitter(make_splits(cv, X, Y)).fit("svc", LinearSVC(random_state=0), target=Y)
    decisions = cross_val_predict(
        LinearSVC(random_state=0), X, Y, cv=cv, method="decision_function"
    )
    # Platt's sigmoid is the maximum of the likelihood with smoothed targets: its score equations
    # are solved by the fitted probabilities.
    n_pos, n_neg = Y.sum(), (1 - Y).sum()
    target = np.where(Y == 1, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    residual = fit.proba[:, 1] - target
    assert abs(residual.sum()) < 1e-6 and abs((residual * decisions).sum()) < 1e-6
    np.testing.assert_array_equal(np.argsort(fit.proba[:, 1]), np.argsort(decisions))


def test_seeds_hang_on_name_and_fold_only():
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_features=1)
    splits = make_splits(KFold(3), X, Y)
    fit = {name: fitter(splits).fit(name, tree, target=Y) for name in ("a", "b")}
    again = fitter(splits, n_jobs=2).fit("a", tree, target=Y)
    np.testing.assert_array_equal(fit["a"].proba, again.proba)
    assert (fit["a"].proba != fit["b"].proba).any()


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


def test_restricting_keeps_the_folds_of_the_rows_in_use():
    used = np.array([True, False, True, True])
    splits = [(np.array([0, 1]), np.array([2, 3])), (np.array([2, 3]), np.array([1]))]
    ((train, test),) = restrict_splits(splits, used)
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
