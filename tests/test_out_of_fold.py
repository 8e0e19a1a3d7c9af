"""Out-of-fold scores against scikit-learn's own."""

import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    KFold,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_predict,
)
from sklearn.svm import LinearSVC

from skmsc.out_of_fold import CrossFitter
from skmsc.splits import make_splits

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
