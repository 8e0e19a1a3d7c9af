"""scikit-learn's own checks on TabularNet."""

from importlib.util import find_spec

import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

pytest.importorskip("torch")
pytest.importorskip("skorch")

from skmsc.neural import TabularNet

# What nets rightly say of random labels, and of few epochs.
pytestmark = pytest.mark.filterwarnings(
    "ignore:TabularNet learned nothing:sklearn.exceptions.ConvergenceWarning"
)

DENSE = "check_sample_weight_equivalence_on_dense_data"
SPARSE = "check_sample_weight_equivalence_on_sparse_data"
DRAWN = "batches and dropout are drawn for other rows, and float32 rounds"


def expected_failed_checks(net):
    """What cannot hold: weights are repeated rows only in nets without dropout and batches."""
    return {DENSE: DRAWN, SPARSE: DRAWN} if net.dropout else {}


def small(*args, **params):
    """A net that is quick, and learns what the checks want it to learn.

    In float64: with large rates, a row's answer in float32 depends on the rows beside it by more
    than check_methods_subset_invariance allows.
    """
    defaults = {"width": 16, "lr": 0.05, "max_epochs": 12, "batch_size": 100, "random_state": 0}
    return TabularNet(*args, dtype="float64", **(defaults | params))


NETS = [
    TabularNet(),
    small("resnet", depth=1),
    small(missing="mean", class_weight="balanced"),
    # Two fits in a row predict the same once weight decay holds the weights where they are; without
    # it a net learns by heart even rows that weigh 1e-7, which check_class_weight_classifiers
    # forbids.
    small(warm_start=True, dropout=0.0, max_epochs=40, weight_decay=1.0),
]


@parametrize_with_checks(NETS, expected_failed_checks=expected_failed_checks)
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.skipif(find_spec("tabm") is None, reason="tabm is not installed")
@parametrize_with_checks(
    [small("tabm", depth=1, trunk_params={"k": 4})],
    expected_failed_checks=expected_failed_checks,
)
def test_estimator_checks_with_tabm(estimator, check):
    check(estimator)


EXACT = TabularNet(dropout=0.0, batch_size=10**6, validation=None, dtype="float64", max_epochs=30)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=check.func.__name__)
        for _, check in estimator_checks_generator(EXACT)
        if check.func.__name__ in (DENSE, SPARSE)
    ],
)
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_weights_are_repeated_rows_without_batches_dropout_and_float32(check, class_weight):
    check(clone(EXACT).set_params(class_weight=class_weight))
