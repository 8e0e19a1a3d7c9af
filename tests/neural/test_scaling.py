"""Scaling is the mean and the standard deviation of a column's bulk."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.preprocessing import StandardScaler

pytest.importorskip("torch")
pytest.importorskip("skorch")

from skmsc.neural import _scaling
from skmsc.neural._scaling import Scaling

N = 500
RNG = np.random.default_rng(0)
PLAIN = RNG.normal([0.0, 1e-7, -5e6, 1e9], [1.0, 1e-9, 1e6, 40.0], size=(N, 4))
WEIGHT = RNG.integers(1, 6, size=N)


def rough(n_samples=N):
    """Columns with far values, rare values and missing values."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n_samples, 6))
    X[:, 1] *= rng.random(n_samples) < 0.05
    X[:, 2] = rng.random(n_samples) < 0.01
    X[:2, 3] = 1e12, -1e15
    X[:3, 4] = 1e300
    X[rng.random(X.shape) < 0.1] = np.nan
    X[:, 5] = 0.1
    return X


def assert_same(ours, theirs, rtol=1e-10):
    np.testing.assert_allclose(ours.centre, theirs.centre, rtol=rtol)
    np.testing.assert_allclose(ours.scale, theirs.scale, rtol=rtol)
    np.testing.assert_array_equal(ours.missing, theirs.missing)


def of_column(column, weight=None):
    """Centre and scale of one column."""
    scaling = Scaling.of(column[:, None], weight)
    return scaling.centre[0], scaling.scale[0]


@pytest.mark.parametrize(
    "make",
    [
        np.array,
        np.asfortranarray,
        lambda X: np.broadcast_to(X, (2, *X.shape))[0],
        lambda X: X.astype(np.float32),
        lambda X: np.rint(X).astype(np.int64),
        lambda X: X > [0.0, 1e-7, -5e6, 1e9],
        sparse.csr_matrix,
        sparse.csc_matrix,
        sparse.csr_array,
        lambda X: sparse.csr_matrix(X.astype(np.float32)),
    ],
    ids=[
        "float64",
        "fortran",
        "read_only",
        "float32",
        "int64",
        "bool",
        "csr",
        "csc",
        "csr_array",
        "float32_csr",
    ],
)
@pytest.mark.parametrize("weight", [None, WEIGHT, WEIGHT / 7], ids=["none", "whole", "fraction"])
def test_plain_columns_as_standard_scaler_has_them(make, weight):
    X = make(PLAIN)
    known = StandardScaler().fit(sparse.csr_matrix(X).toarray().astype(np.float64), None, weight)
    ours = Scaling.of(X, weight)
    np.testing.assert_allclose(ours.centre, known.mean_, rtol=1e-10)
    np.testing.assert_allclose(ours.scale, known.scale_, rtol=1e-10)
    assert ours.centre.dtype == ours.scale.dtype == np.float64
    assert not ours.missing.any()


@pytest.mark.parametrize("X", [PLAIN, rough()], ids=["plain", "rough"])
def test_a_weight_is_the_row_so_many_times(X):
    assert_same(Scaling.of(X, WEIGHT), Scaling.of(np.repeat(X, WEIGHT, axis=0)))


def test_no_weights_are_equal_weights():
    idx = np.arange(0, N, 2)
    assert_same(Scaling.of(rough()), Scaling.of(rough(), np.ones(N)))
    assert_same(Scaling.of(rough(), idx=idx), Scaling.of(rough(), np.ones(N), idx))


@pytest.mark.parametrize("factor", [1e-300, 0.1, 1e300])
def test_only_the_ratios_of_weights_matter(factor):
    assert_same(Scaling.of(rough(), WEIGHT * factor), Scaling.of(rough(), WEIGHT))
    complete = np.nan_to_num(rough(200))
    assert_same(Scaling.of(complete, np.full(200, factor)), Scaling.of(complete))


@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix])
@pytest.mark.parametrize("weight", [np.ones(N), WEIGHT], ids=["equal", "weights"])
@pytest.mark.parametrize(
    "idx",
    [np.arange(40, 300), RNG.permutation(N)[:200], np.repeat(np.arange(0, N, 3), 2)],
    ids=["range", "any_order", "twice"],
)
def test_rows_that_count_are_as_if_there_were_no_others(idx, weight, make):
    X = make(rough())
    assert_same(Scaling.of(X, weight, idx), Scaling.of(X[idx], weight[idx]))


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["none", "weights"])
def test_sparse_is_dense(make, weight):
    X = rough() * (np.random.default_rng(2).random((N, 6)) < 0.5)
    assert_same(Scaling.of(make(X), weight), Scaling.of(X, weight))


def test_float32_is_its_values_in_float64():
    X = rough()[:, [0, 1, 2, 3, 5]].astype(np.float32)
    assert_same(Scaling.of(X), Scaling.of(X.astype(np.float64)), rtol=0)


@pytest.mark.parametrize("max_block", [1, N, 2 * N + 1, 100 * N])
@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix])
def test_columns_may_be_looked_at_in_blocks(monkeypatch, make, max_block):
    X = make(np.hstack([rough(), PLAIN, rough()]))
    known = Scaling.of(X, WEIGHT)
    monkeypatch.setattr(_scaling, "_MAX_BLOCK", max_block)
    assert_same(Scaling.of(X, WEIGHT), known)


def test_X_and_the_weights_are_left_as_they_are():
    X, weight = rough(), WEIGHT.astype(np.float64)
    Scaling.of(X, weight)
    np.testing.assert_array_equal(X, rough())
    np.testing.assert_array_equal(weight, WEIGHT)


def test_missing_values_are_left_out_and_noted():
    rng = np.random.default_rng(3)
    X = np.where(rng.random(PLAIN.shape) < [0.0, 0.01, 0.5, 0.0], np.nan, PLAIN)
    scaling = Scaling.of(X)
    np.testing.assert_allclose(scaling.centre, np.nanmean(X, axis=0), rtol=1e-10)
    np.testing.assert_allclose(scaling.scale, np.nanstd(X, axis=0), rtol=1e-10)
    np.testing.assert_array_equal(scaling.missing, [False, True, True, False])


def test_missing_values_take_their_weights_with_them():
    column = np.where(np.random.default_rng(3).random(N) < 0.3, np.nan, PLAIN[:, 0])
    there = ~np.isnan(column)
    np.testing.assert_allclose(
        of_column(column, WEIGHT), of_column(column[there], WEIGHT[there]), rtol=1e-10
    )


def test_missing_values_only_among_rows_that_count():
    X = np.array([[1.0, np.nan], [3.0, 1.0], [np.nan, 3.0]])
    np.testing.assert_array_equal(Scaling.of(X, idx=np.array([0, 1])).missing, [False, True])


def test_a_column_without_any_value():
    scaling = Scaling.of(np.column_stack([np.full(N, np.nan), PLAIN[:, 0]]), WEIGHT)
    assert (scaling.centre[0], scaling.scale[0]) == (0, 1)
    np.testing.assert_array_equal(scaling.missing, [True, False])


@pytest.mark.parametrize("far", [1e12, -1e12, 1e300, 1.7e308])
@pytest.mark.parametrize("n_far", [1, 5])
@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e9])
def test_a_few_values_far_out_do_not_hide_the_others(unit, n_far, far):
    bulk = np.random.default_rng(0).normal(3 * unit, unit, size=1000)
    column = np.r_[np.full(n_far, far), bulk[n_far:]]
    centre, scale = of_column(column)
    assert abs(centre - 3 * unit) < 0.3 * unit
    assert 0.9 * unit < scale < 2 * unit


def test_values_far_out_on_both_sides():
    column = np.random.default_rng(3).normal(size=1000)
    column[:3] = 1.7e308, -1.7e308, 1e12
    centre, scale = of_column(column)
    assert abs(centre) < 0.3 and 0.9 < scale < 2


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (-1.0, -0.8), (0.8, 1.0)])
def test_what_is_beyond_the_bulk_may_be_no_number(low, high):
    column = np.random.default_rng(3).uniform(low, high, size=1000)
    expected = of_column(column)
    np.testing.assert_allclose(np.divide(of_column(1.7e308 * column), 1.7e308), expected)


def test_a_far_value_of_a_timestamp():
    column = 1.7e9 + np.random.default_rng(3).uniform(0, 86400, size=1000)
    column[7] = 0.0
    centre, scale = of_column(column)
    assert abs(centre - column[8:].mean()) < 3600
    np.testing.assert_allclose(scale, column[8:].std(), rtol=0.2)


@pytest.mark.parametrize("level", [-1e3, 0.0, 1e3])
def test_values_far_out_among_the_few_that_are_not_zero(level):
    rng = np.random.default_rng(3)
    column = rng.normal(level, size=10_000) * (rng.random(10_000) < 0.05)
    mean, spread = column.mean(), column.std()
    column[column.nonzero()[0][0]] = 1e12
    centre, scale = of_column(column)
    assert abs(centre - mean) < spread
    assert 0.9 * spread < scale < 2 * spread


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.99, 0.999])
def test_a_binary_column_keeps_its_standard_deviation(share):
    column = np.zeros(10_000)
    column[: round(share * column.size)] = 1
    column = np.random.default_rng(3).permutation(column)
    np.testing.assert_allclose(of_column(column), (share, np.sqrt(share * (1 - share))), rtol=1e-10)


@pytest.mark.parametrize("weight", [None, RNG.random(10_000) + 0.1], ids=["none", "weights"])
@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1.7e9, 2.0240101123456788e16, 1e-300, 1.7e308])
def test_a_constant_column_has_scale_1(value, weight):
    assert of_column(np.full(10_000, value), weight) == (value, 1)


def test_a_column_that_varies_by_no_more_than_rounding_has_scale_1():
    centre, scale = of_column(1e17 + 16.0 * (np.arange(1000) % 3))
    assert scale == 1
    np.testing.assert_allclose(centre, 1e17, rtol=1e-14)


def test_one_row():
    np.testing.assert_array_equal(of_column(np.array([3.0])), (3, 1))


@pytest.mark.parametrize("factor", [2.0**-900, 2.0**-30, 2.0**20, -1.0])
def test_the_unit_of_a_column_does_not_matter(factor):
    X = rough()[:, [0, 1, 2, 3]]
    ours, known = Scaling.of(X * factor), Scaling.of(X)
    np.testing.assert_allclose(ours.centre, known.centre * factor, rtol=1e-10)
    np.testing.assert_allclose(ours.scale, known.scale * abs(factor), rtol=1e-10)


def test_rows_in_any_order():
    X = rough()
    order = np.random.default_rng(3).permutation(N)
    assert_same(Scaling.of(X[order], WEIGHT[order]), Scaling.of(X, WEIGHT), rtol=1e-9)


def test_quantiles_of_more_rows_than_are_sorted():
    column = np.random.default_rng(3).normal(size=50_000)
    column[::1000] = 1e12
    centre, scale = of_column(column)
    assert abs(centre) < 0.1 and 0.9 < scale < 1.5


@pytest.mark.parametrize("n_rows, n_huge", [(1000, 30), (1000, 9), (90, 1), (50, 2)])
def test_some_huge_values_in_any_number_of_rows_leave_the_scale(n_rows, n_huge):
    column = np.random.default_rng(0).normal(size=(n_rows, 1))
    plain = Scaling.of(column).scale[0]
    column[:n_huge] = 1e12
    assert Scaling.of(column).scale[0] < 6 * plain


def test_values_at_the_ends_of_float64_give_no_warning():
    column = np.zeros((1000, 2))
    column[:2, 0], column[2:4, 0] = 1.7e308, -1.7e308
    column[:, 1] = np.random.default_rng(0).normal(size=1000) * 1e-310
    scaling = Scaling.of(column)
    assert np.isfinite(1 / scaling.scale).all()
