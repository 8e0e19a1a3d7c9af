"""Fixed weights of a classifier's last layer: one row for each class, of length 1, never learned.

Hoffer, Hubara and Soudry, Fix your classifier (arXiv 1801.04540), have orthonormal rows and those
of a Hadamard matrix. The rows of a simplex (Pernici et al., arXiv 1902.10441) are all at the same
angle, the largest that there is; features of nets that are trained to the end come to lie so by
themselves (Papyan, Han and Donoho, doi 10.1073/pnas.2015509117).
"""

import numpy as np
from scipy.linalg import hadamard, helmert

__all__ = []  # for the package's own use

KINDS = ("orthogonal", "hadamard", "simplex")

_TRIES = 10  # choices of a Hadamard matrix's columns


def fixed_rows(kind, n_rows, n_features, seed):
    """Rows of length 1 that lie far apart.

    Parameters
    ----------
    kind : {"orthogonal", "hadamard", "simplex"}
        "orthogonal": orthonormal rows in random directions. "hadamard": rows of a Sylvester
        Hadamard matrix, all of whose values are 1 or -1 up to a factor; orthogonal where
        `n_features` is a power of 2 and at least `n_rows`, else nearly so. "simplex": the corners
        of a regular simplex around 0, in a random position: any two have the cosine
        ``-1 / (n_rows - 1)``.
    n_rows : int
        Number of rows: up to `n_features` for "orthogonal", up to ``2 ** n_features`` for
        "hadamard", from 2 to ``n_features + 1`` for "simplex", whose corners span one dimension
        fewer than they are.
    n_features : int
        Length of a row.
    seed : int
        Same seed, same rows.

    Returns
    -------
    rows : ndarray of shape (n_rows, n_features), float64
        No two are equal.

    Raises
    ------
    ValueError
        When so many rows do not exist.

    References
    ----------
    Hoffer, Hubara and Soudry, arXiv 1801.04540; Pernici et al., arXiv 1902.10441. A Hadamard matrix
    that is cut to its first columns may have equal rows, 64 distinct ones for 64 features and 100
    classes: columns are then chosen, which the first of these papers does not do.

    Examples
    --------
    >>> from skmsc.fixed_rows import fixed_rows
    >>> rows = fixed_rows("simplex", n_rows=3, n_features=2, seed=0)
    >>> (rows @ rows.T).round(3)
    array([[ 1. , -0.5, -0.5],
           [-0.5,  1. , -0.5],
           [-0.5, -0.5,  1. ]])
    """
    least, most = {
        "orthogonal": (1, n_features),
        "hadamard": (1, 2 ** min(n_features, 62)),
        "simplex": (2, n_features + 1),
    }[kind]
    if not least <= n_rows <= most:
        raise ValueError(
            f"n_features={n_features} has room for {least} to {most} distinct {kind} rows; got "
            f"n_rows={n_rows}."
        )
    rng = np.random.default_rng(seed)
    if kind == "orthogonal":
        return _orthonormal(n_rows, n_features, rng)
    if kind == "hadamard":
        return _hadamard(n_rows, n_features, rng)
    # The usual sqrt(C / (C - 1)) (I - 11'/C) U', with the projection I - 11'/C as H'H: the rows of
    # the Helmert matrix H are a basis of what is orthogonal to 1, so U needs one column fewer.
    corners = helmert(n_rows).T @ _orthonormal(n_rows - 1, n_features, rng)
    return np.sqrt(n_rows / (n_rows - 1)) * corners


def _orthonormal(n_rows, n_features, rng):
    """Orthonormal rows, no direction more likely than another."""
    Q, R = np.linalg.qr(rng.normal(size=(n_rows, n_features)).T)
    return np.ascontiguousarray((Q * np.sign(np.diag(R))).T)


def _hadamard(n_rows, n_features, rng):
    """Rows of a Sylvester Hadamard matrix, in columns where no two come close."""
    size = 2 ** (max(n_rows, n_features) - 1).bit_length()
    matrix = hadamard(size, dtype=np.int8)
    # Rows i and j multiply to row i XOR j, so their product in some columns is its sum there.
    products = matrix[1 : 2 ** n_rows.bit_length()]
    # Columns 1, 2, 4, ... spell the row's number: no two rows are equal in all of them.
    spelling = 2 ** np.arange(size.bit_length() - 1)
    others = np.setdiff1d(np.arange(size), spelling)
    chosen = np.arange(n_features)
    closest = products[:, chosen].sum(axis=1).max(initial=0)
    for _ in range(_TRIES if closest else 0):
        drawn = rng.choice(others, n_features - spelling.size, replace=False)
        columns = np.sort(np.concatenate([spelling, drawn]))
        nearness = products[:, columns].sum(axis=1).max(initial=0)
        if nearness < closest:
            chosen, closest = columns, nearness
    # The constant row comes last, since of features that are all >= 0 its product is the largest.
    signs = np.roll(matrix, -1, axis=0)[:n_rows].take(chosen, axis=1)
    return signs / np.sqrt(n_features)
