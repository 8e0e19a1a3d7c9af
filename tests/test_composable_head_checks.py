"""scikit-learn's own checks on composable classifiers."""

import pytest
import sklearn
from packaging.version import Version
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmsc import ComposableHeadClassifier, PairwiseHead, RidgeHead
from skmsc.neural import TabularNet

# What is rightly said of the checks' data, which are small, often separable, or labelled by chance.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "(?s)TabularNet learned nothing:sklearn.exceptions.ConvergenceWarning",
        "Stage .* gives only .* distinct scores:UserWarning",
        "validation_fraction=.* holds nothing out:UserWarning",
    )
]

DENSE = "check_sample_weight_equivalence_on_dense_data"
SPARSE = "check_sample_weight_equivalence_on_sparse_data"
OLD = Version(sklearn.__version__) < Version("1.7")
HELD_OUT = "rows are held out by chance: a row given twice may fall on both sides"


def expected_failed_checks(model):
    """What cannot hold where rows are drawn."""
    return {} if model.validation_fraction is None else {DENSE: HELD_OUT, SPARSE: HELD_OUT}


def composable(first_stage=None, trunk="passthrough", **params):
    """A classifier that is quick."""
    return ComposableHeadClassifier(first_stage, trunk, **({"random_state": 0} | params))


def small_net():
    """A net that is quick, in float64, in which a row's answer hardly depends on other rows."""
    return TabularNet(width=16, lr=0.05, max_epochs=10, batch_size=100, dtype="float64")


MODELS = [
    composable(trunk=small_net()),
    composable(trunk=StandardScaler(), head=RidgeHead(n_random_features=10)),
    composable(head="lda", validation_fraction=None),
    composable(head="ridge", class_prior="balanced", validation_fraction=None),
    composable(GaussianNB(), head="ridge"),
    composable(LinearSVC(), StandardScaler(), head="logistic", replay_size=5, thresholds=0.9),
]
MORE = [
    composable(trunk=StandardScaler(), head="imprint"),
    composable(head=PairwiseHead(epochs=100, lr=0.05), validation_fraction=0.2),
    composable(LogisticRegression(), trunk=small_net(), head="lda"),
]


@parametrize_with_checks(MODELS, expected_failed_checks=expected_failed_checks)
def test_estimator_checks(estimator, check):
    if OLD and check.func.__name__ == SPARSE:
        pytest.skip("scikit-learn 1.6 gives sparse rows to what refuses them, too")
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(MORE, expected_failed_checks=expected_failed_checks)
def test_more_estimator_checks(estimator, check):
    check(estimator)
