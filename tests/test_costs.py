"""What stages cost: given by place or name, or counted by hand."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from skmsc.costs import check_stage_costs, count_multiply_adds

X, Y = make_classification(200, n_features=6, n_informative=4, weights=[0.7], random_state=0)
LR = LogisticRegression()


@pytest.mark.parametrize(
    "costs, error",
    [
        ([1], ValueError),
        ([1, -1], ValueError),
        ([1, np.nan], ValueError),
        ({"a": 1}, ValueError),
        ("ab", TypeError),
        (3.0, ValueError),
    ],
)
def test_bad_costs_are_refused(costs, error):
    with pytest.raises(error, match=r"stage_costs must (be|hold) one finite number >= 0 for each"):
        check_stage_costs(costs, ["a", "b"])


def test_costs_go_by_place_or_by_name():
    np.testing.assert_array_equal(check_stage_costs([1, 2], ["a", "b"]), [1, 2])
    np.testing.assert_array_equal(
        check_stage_costs({"b": 2, "a": 1, "c": 3}, ["a", "b"], ["c"]), [1, 2]
    )


@pytest.mark.parametrize(
    "stage, count",
    [
        (LR, 6),
        (make_pipeline(StandardScaler(), LR), 12),
        (make_pipeline(PCA(2), LR), 14),
        (MLPClassifier((5,), max_iter=500, random_state=0), 35),
        (FrozenEstimator(LogisticRegression().fit(X, Y)), 6),
        (GaussianNB(), 24),
        (make_pipeline(StandardScaler(), KNeighborsClassifier()), 6 + 6 * len(X)),
        (HistGradientBoostingClassifier(), None),
        (make_pipeline(StandardScaler(), BaggingClassifier()), None),
    ],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_multiply_adds_by_hand(stage, count):
    assert count_multiply_adds(stage.fit(X, Y)) == count


def test_multiply_adds_of_support_vectors():
    svc = SVC().fit(X, Y)
    assert count_multiply_adds(svc) == len(svc.support_) * (6 + 1)


def test_a_trees_comparisons_are_those_on_the_paths_of_training_rows():
    tree = DecisionTreeClassifier(random_state=0).fit(X, Y)
    n_nodes = tree.decision_path(X).sum(axis=1)
    assert count_multiply_adds(tree) == round(float((n_nodes - 1).mean()))


@pytest.mark.parametrize("forest", [ExtraTreesClassifier(5), GradientBoostingClassifier()])
def test_a_forests_comparisons_are_those_of_its_trees(forest):
    trees = np.ravel(forest.set_params(random_state=0).fit(X, Y).estimators_)
    per_tree = [(tree.decision_path(X.astype(np.float32)).sum(axis=1) - 1).mean() for tree in trees]
    assert count_multiply_adds(forest) == pytest.approx(sum(per_tree), abs=0.5)
