"""scikit-learn's own checks on early-exit classifiers."""

import pytest
import sklearn
from packaging.version import Version
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from skmsc import EarlyExitClassifier, FocalWeights, LearnedWeights
from skmsc.neural import MultiExitNet

# What is rightly said of the checks' data, which are small, often separable, or labelled by chance.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "(?s)MultiExitNet learned nothing:sklearn.exceptions.ConvergenceWarning",
        "Stage .* gives only .* distinct scores:UserWarning",
        "cv=. is lowered to .*:UserWarning",
        # Of torch itself, when it first takes a forward-mode derivative.
        ".*torch.jit.script. is deprecated:DeprecationWarning",
    )
]

DENSE = "check_sample_weight_equivalence_on_dense_data"
SPARSE = "check_sample_weight_equivalence_on_sparse_data"
OLD = Version(sklearn.__version__) < Version("1.7")
HELD_OUT = "rows are held out by chance: a row given twice may fall on both sides"


def expected_failed_checks(model):
    """What cannot hold where the thresholds' rows are drawn."""
    return {DENSE: HELD_OUT, SPARSE: HELD_OUT}


def small_net(**params):
    """A net that is quick, and learns what the checks want it to learn.

    In float64, in which a row's answer hardly depends on the rows beside it.
    """
    defaults = {"width": 16, "depth": 2, "lr": 0.05, "max_epochs": 10, "batch_size": 100}
    return MultiExitNet(dtype="float64", **(defaults | params))


def early_exit(first_stage=None, **params):
    """Without calibration: a temperature fitted on the checks' repeated rows makes all certain."""
    defaults = {
        "net": small_net(),
        "exit_weighting": "uniform",
        "calibration": None,
        "cv": 3,
        "random_state": 0,
    }
    return EarlyExitClassifier(first_stage, **(defaults | params))


MODELS = [
    early_exit(LogisticRegression(), confidence="margin", exit_weighting="survivors"),
    early_exit(LinearSVC(dual=False), exit_weighting=FocalWeights()),
    early_exit(DecisionTreeClassifier(min_samples_leaf=5), confidence="entropy"),
    early_exit(net=small_net(trunk="resnet")),
]
MORE = [
    early_exit(LogisticRegression(), exit_weighting=LearnedWeights(every=20, n_hidden=8)),
    early_exit(LogisticRegression(), net=small_net(depth=1), thresholds=0.8),
    early_exit(LogisticRegression(), calibration="sigmoid"),
]


@parametrize_with_checks(MODELS, expected_failed_checks=expected_failed_checks)
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(MORE, expected_failed_checks=expected_failed_checks)
def test_more_estimator_checks(estimator, check):
    check(estimator)


def all_but_the_weight_checks(model):
    """The two are left out: on rows that are repeated, probabilities of 0 and 1 pass them."""
    return [
        pytest.param(check, id=check.func.__name__)
        for _, check in estimator_checks_generator(model)
        if check.func.__name__ not in (DENSE, SPARSE, "check_array_api_input")
    ]


WITH_TEMPERATURE = early_exit(LogisticRegression(), calibration="temperature")


@pytest.mark.parametrize("check", all_but_the_weight_checks(WITH_TEMPERATURE))
def test_estimator_checks_with_a_temperature(check):
    if OLD and check.func.__name__ == "check_methods_subset_invariance":
        pytest.skip("with scikit-learn 1.6 a score is at the cut, and batches round it differently")
    check(clone(WITH_TEMPERATURE))


@pytest.mark.slow
@pytest.mark.parametrize("check", all_but_the_weight_checks(EarlyExitClassifier()))
def test_estimator_checks_of_the_default(check):
    check(EarlyExitClassifier())


# Nothing is held out, all rows are one batch, there is no dropout: what is left of chance are the
# initial weights.
EXACT = EarlyExitClassifier(
    LogisticRegression(tol=1e-10, max_iter=1000),
    MultiExitNet(
        width=8, depth=2, dropout=0.0, batch_size=10**6, validation=None, dtype="float64",
        max_epochs=20,
    ),
    exit_weighting="uniform",
    thresholds=0.8,
    calibration=None,
    validation_fraction=None,
)  # fmt: skip


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=check.func.__name__)
        for _, check in estimator_checks_generator(EXACT)
        if check.func.__name__ in (DENSE, SPARSE)
    ],
)
@pytest.mark.parametrize("with_first_stage", [False, True])
def test_weights_are_repeated_rows_where_nothing_is_held_out(check, with_first_stage):
    first_stage = EXACT.first_stage if with_first_stage else None
    check(clone(EXACT).set_params(first_stage=first_stage))
