"""Fixed rows of a classifier's last layer: how they lie to each other, and how many there are."""

from itertools import combinations

import numpy as np
import pytest
from scipy.linalg import hadamard

from skmsc.fixed_rows import KINDS, fixed_rows

# Numbers of rows and features that every kind has.
SIZES = [(2, 2), (3, 8), (8, 8), (10, 64), (10, 100), (80, 100)]


def cosines(rows):
    """Cosines of all pairs of rows."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.array([first @ second for first, second in combinations(rows, 2)])


@pytest.mark.parametrize("n_rows, n_features", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_distinct_and_of_length_1(kind, n_rows, n_features):
    rows = fixed_rows(kind, n_rows, n_features, 0)
    assert rows.shape == (n_rows, n_features) and rows.dtype == np.float64
    assert rows.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-12)
    assert cosines(rows).max() < 0.5


@pytest.mark.parametrize("n_rows, n_features", [(1, 1), *SIZES])
def test_orthogonal_rows_are_orthonormal(n_rows, n_features):
    rows = fixed_rows("orthogonal", n_rows, n_features, 0)
    np.testing.assert_allclose(rows @ rows.T, np.eye(n_rows), atol=1e-12)


def test_no_direction_of_orthogonal_rows_is_more_likely():
    drawn = np.array([fixed_rows("orthogonal", 2, 3, seed) for seed in range(2000)])
    # Coordinates on a sphere have mean 0, variance 1/3 and, in three dimensions, equal tenths.
    assert np.abs(drawn.mean(axis=0)).max() < 4 * (1 / 3 / 2000) ** 0.5
    counts = np.apply_along_axis(lambda x: np.histogram(x, 10, (-1, 1))[0], 0, drawn)
    assert np.abs(counts - 200).max() < 4.5 * (2000 * 0.1 * 0.9) ** 0.5


@pytest.mark.parametrize("n_rows, n_features", [(2, 1), (9, 8), *SIZES])
def test_corners_of_a_simplex_have_one_cosine(n_rows, n_features):
    rows = fixed_rows("simplex", n_rows, n_features, 0)
    np.testing.assert_allclose(cosines(rows), -1 / (n_rows - 1), atol=1e-12)
    np.testing.assert_allclose(rows.sum(axis=0), 0, atol=1e-12)


def test_a_simplex_is_that_of_the_formula():
    rows = fixed_rows("simplex", 5, 7, 0)
    # The formula's U is found from the rows; any completion of it by a fifth column will do.
    centre = np.eye(5) - 1 / 5
    U = np.linalg.pinv(np.sqrt(5 / 4) * centre) @ rows
    np.testing.assert_allclose(np.sqrt(5 / 4) * centre @ U, rows, atol=1e-12)
    np.testing.assert_allclose(np.linalg.svd(U)[1], [1, 1, 1, 1, 0], atol=1e-12)


@pytest.mark.parametrize("n_rows, n_features", [(2, 2), (3, 8), (8, 8), (10, 64), (64, 64)])
def test_hadamard_rows_of_a_power_of_2_are_those_of_the_matrix(n_rows, n_features):
    rows = fixed_rows("hadamard", n_rows, n_features, 0)
    matrix = hadamard(n_features) / np.sqrt(n_features)
    # All but the first, which is constant, as far as they go.
    np.testing.assert_array_equal(rows, np.vstack([matrix[1:], matrix[:1]])[:n_rows])
    np.testing.assert_allclose(rows @ rows.T, np.eye(n_rows), atol=1e-12)


@pytest.mark.parametrize(
    "n_rows, n_features, most",
    [(100, 64, 0.25), (80, 100, 0.2), (100, 65, 0.25), (10, 100, 0.05)],
)
def test_cut_hadamard_rows_are_far_apart(n_rows, n_features, most):
    rows = fixed_rows("hadamard", n_rows, n_features, 0)
    signs = np.rint(rows * np.sqrt(n_features)).astype(int)
    np.testing.assert_allclose(signs / np.sqrt(n_features), rows, rtol=1e-12)
    assert len(np.unique(signs, axis=0)) == n_rows
    assert cosines(rows).max() <= most


@pytest.mark.parametrize("n_rows, n_features", [(100, 64), (80, 100), (100, 65)])
def test_columns_of_cut_hadamard_rows_are_columns_of_the_matrix(n_rows, n_features):
    signs = np.rint(fixed_rows("hadamard", n_rows, n_features, 0) * np.sqrt(n_features))
    matrix = np.roll(hadamard(128), -1, axis=0)[:n_rows]
    places = [np.flatnonzero((matrix == column[:, None]).all(axis=0)) for column in signs.T]
    assert [len(place) for place in places] == [1] * n_features
    assert len(np.unique(places)) == n_features


def test_first_columns_alone_would_hold_rows_twice():
    assert len(np.unique(hadamard(128)[:100, :64], axis=0)) == 64
    assert cosines(hadamard(128)[:100, :65]).max() > 0.95


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n_features", range(1, 8))
def test_as_many_hadamard_rows_as_there_can_be(n_features, seed):
    rows = fixed_rows("hadamard", 2**n_features, n_features, seed)
    assert len(np.unique(rows, axis=0)) == 2**n_features


@pytest.mark.parametrize("n_rows, n_features", [(9, 10), (10, 9)])
def test_the_constant_row_of_a_hadamard_matrix_comes_last(n_rows, n_features):
    rows = fixed_rows("hadamard", n_rows, n_features, 0)
    assert (np.ptp(rows, axis=1) > 0).all()
    assert np.ptp(fixed_rows("hadamard", 16, n_features, 0)[-1]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bits(kind):
    n_rows, n_features = {"hadamard": (100, 64)}.get(kind, (10, 64))
    first, again, other = (fixed_rows(kind, n_rows, n_features, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    "kind, n_rows, n_features, least, most",
    [
        ("orthogonal", 101, 100, 1, 100),
        ("orthogonal", 0, 100, 1, 100),
        ("hadamard", 9, 3, 1, 8),
        ("simplex", 102, 100, 2, 101),
        ("simplex", 1, 100, 2, 101),
    ],
)
def test_as_many_rows_do_not_exist(kind, n_rows, n_features, least, most):
    with pytest.raises(ValueError) as error:
        fixed_rows(kind, n_rows, n_features, 0)
    assert str(error.value) == (
        f"n_features={n_features} has room for {least} to {most} distinct {kind} rows; got "
        f"n_rows={n_rows}."
    )
