"""Heads: one vector and one bias for each class, on the features of a frozen trunk.

A strategy says how they are found. Heads from *statistics* (`RidgeHead`, `LDAHead`, `ImprintHead`)
need of each class no more than sums over its rows, so that a class is added by adding its sums,
and removed by leaving them out: both are exact. *Trained* heads (`LogisticHead`, `PairwiseHead`,
`FixedHead`) need the rows.

Shapes: n rows, d features, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve, lapack
from scipy.optimize import linear_sum_assignment, minimize, minimize_scalar
from scipy.special import expit, logsumexp, softmax
from sklearn.base import BaseEstimator

from skmsc._checks import check_bool, check_choice, check_integer, check_number
from skmsc._threads import limit_blas
from skmsc.fixed_rows import KINDS, fixed_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skmsc._typing import Floats, Ints

__all__ = ["FixedHead", "ImprintHead", "LDAHead", "LogisticHead", "PairwiseHead", "RidgeHead"]

# A feature whose variance is no more than this share of its mean square is constant.
_CONSTANT = 1e-12
# Log-odds by normal distributions are about so many times too large: tails are heavier. Beyond what
# calibration mends, the likeliest of several rare classes would drown the others.
_TOO_SURE = 4.0
# Share of the degrees of freedom beyond which a fit says nothing about new rows.
_MOST_FREEDOM = 0.95


@dataclass(frozen=True)
class ClassStatistics:
    """Sums over the rows of one class.

    Attributes
    ----------
    count : float
        Sum of the weights.
    total : ndarray of shape (d,)
        Weighted sum of the features.
    gram : ndarray of shape (d, d) or None
        Weighted sum of their outer products.
    n_rows : float
        Number of rows.
    """

    count: float
    total: np.ndarray
    gram: np.ndarray | None
    n_rows: float

    @classmethod
    def of(cls, features, sample_weight, *, gram):
        """Statistics of rows; `gram` tells whether their outer products are wanted."""
        if sample_weight is None:
            weighted, count = features, float(len(features))
        else:
            weighted, count = features * sample_weight[:, None], float(sample_weight.sum())
        total = weighted.sum(axis=0)
        gram = weighted.T @ features if gram else None
        return cls(count, total, gram, float(len(features)))

    def is_possible(self):
        """Whether there are rows of such sums, up to rounding."""
        if self.count <= 0:
            return False
        if self.gram is None:  # sums of rows of length 1
            return bool(np.linalg.norm(self.total) <= self.count * (1 + 1e-6))
        own = self.count * self.gram.diagonal()
        return bool((self.total**2 <= own + 1e-6 * np.abs(own) + 1e-12).all())

    def __add__(self, other):
        return self._with(other, np.add)

    def __sub__(self, other):
        return self._with(other, np.subtract)

    def _with(self, other, operation):
        gram = None if self.gram is None else operation(self.gram, other.gram)
        count, n_rows = (
            float(operation(getattr(self, name), getattr(other, name)))
            for name in ("count", "n_rows")
        )
        return ClassStatistics(count, operation(self.total, other.total), gram, n_rows)


@dataclass(frozen=True)
class Heads:
    """Vectors and biases of some classes: ``logits = features @ coef.T + intercept``.

    Attributes
    ----------
    coef : ndarray of shape (c, d)
    intercept : ndarray of shape (c,)
        -inf for a class of which no row is known.
    odds : float or None
        Factor that makes of the logits the log-odds of each class against all others. None: they
        follow from the probabilities of the classes at hand.
    """

    coef: np.ndarray
    intercept: np.ndarray
    odds: float | None

    def logits(self, features):
        """Logits of rows, shape (n, c)."""
        with limit_blas(len(features), len(self.coef)):
            return features @ self.coef.T + self.intercept

    def log_odds(self, logits):
        """Each class against all others, shape (n, c), from the logits."""
        if self.odds is not None:
            return logits * self.odds
        proba = softmax(logits, axis=1)
        with np.errstate(divide="ignore"):
            return np.log(proba) - np.log1p(-np.minimum(proba, 1 - 1e-15))

    def take(self, idx):
        """The heads of some classes."""
        return Heads(self.coef[idx], self.intercept[idx], self.odds)


class _Head(BaseEstimator):
    """How heads are found."""

    needs_gram = False
    penalty: str | None = None  # name of the parameter that `fit` chooses where it is None
    n_random_features = 0  # that take the place of the trunk's
    has_fixed_rows = False  # below which the trunk is trained

    def prepare(self, features: Floats) -> Floats:
        """Features as the head sees them."""
        return features

    def check(self) -> None:
        """Validate the parameters."""

    def check_room(self, n_classes: int) -> None:
        """Raise unless there can be so many classes."""


class _StatisticsHead(_Head):
    """Heads that are solved for from the statistics of the classes."""

    needs_rows = False
    needs_gram = True

    def solve(self, statistics: list[ClassStatistics], *, balanced: bool, penalty: float) -> Heads:
        """Heads of classes from their statistics.

        Parameters
        ----------
        statistics : sequence of ClassStatistics
            Of the classes, sorted.
        balanced : bool
            Whether all classes count the same, instead of by their rows.
        penalty : float
            Value of the parameter that `penalty` names.

        Returns
        -------
        heads : Heads
        """
        count = np.array([s.count for s in statistics])
        known = np.flatnonzero(count > 0)
        if not known.size:
            raise ValueError("No class has a row: there is nothing to solve for.")
        some = [statistics[k] for k in known]
        weight = count.sum() / (known.size * count[known]) if balanced else np.ones(known.size)
        try:
            heads = self._solve(some, weight, penalty)
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"{self.penalty}={penalty:g} of {type(self).__name__} is too small for these "
                f"features: {error}"
            ) from error
        if known.size == count.size:
            return heads
        coef = np.zeros((count.size, heads.coef.shape[1]))
        intercept = np.full(count.size, -np.inf)
        coef[known], intercept[known] = heads.coef, heads.intercept
        return Heads(coef, intercept, heads.odds)


class RidgeHead(_StatisticsHead):
    """Linear regression on the classes' indicators, with a penalty.

    Adding and removing classes is exact: the heads are the same as those of a fit on all rows.

    Parameters
    ----------
    alpha : float, default=None
        Penalty > 0, in units of the features' variances, so that their scales do not matter. None:
        chosen in `fit`, once, for the log-loss on the rows of `validation_fraction` (.1 where
        there are none).
    n_random_features : int, default=0
        Number of random ReLU features ``max(0, r.z + b)`` of the standardised features that take
        their place; 0: none. 1,000 make the heads far stronger where classes come to a trunk that
        was not trained on them.

    Notes
    -----
    Of class k with indicator t (1 in its rows, else 0) the fitted value f is turned into log-odds
    ``slope * (f - (m1 + m0)/2) + log(pi / (1 - pi))``, where m1 and m0 are the means of the
    leave-one-out fitted values in the class and outside of it, estimated with the mean leverage,
    and pi is its share. For two normal distributions of variance v the slope is (m1 - m0)/v, which
    is 1/(pi (1 - pi)) and more, the more the features tell of the class. What it is more is
    estimated badly for single classes, and its mean over the classes is taken. All of it comes
    from the statistics. The fitted values of a rare class are all small: by themselves they would
    never make it the likeliest. Logits are a quarter of the log-odds, which are too sure, and
    calibration has less to mend.

    References
    ----------
    arXiv 2408.10349 has class-balanced ridge heads from such statistics.

    Examples
    --------
    >>> from skmsc import RidgeHead
    >>> RidgeHead(alpha=0.01)
    RidgeHead(alpha=0.01)
    """

    penalty = "alpha"
    grid = tuple(10.0 ** np.arange(-5, 1.5, 0.5))
    fallback = 0.1

    def __init__(self, alpha: float | None = None, n_random_features: int = 0) -> None:
        self.alpha = alpha
        self.n_random_features = n_random_features

    def check(self) -> None:
        """Validate the parameters."""
        _check_number(self, "alpha", "(0, inf)", optional=True)
        check_integer("n_random_features of RidgeHead", self.n_random_features, 0)

    def _solve(self, statistics, weight, alpha):
        count, mean, scatter, share, varies = _pooled(statistics, weight)
        diagonal = scatter.diagonal()
        penalty = np.where(varies, alpha * diagonal, count)
        system = scatter + np.diag(penalty)
        factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
        own = np.stack(
            [w * (s.total - s.count * mean) for s, w in zip(statistics, weight, strict=True)]
        )
        coef = cho_solve(factor, own.T, check_finite=False).T
        inverse = np.tril(lapack.dtrtri(np.asfortranarray(factor[0]), lower=1)[0])
        freedom = 1 + diagonal.size - np.square(inverse).sum(axis=0) @ penalty
        # Weights below 1 in the mean are no more than relative.
        n_rows = max(sum(s.count for s in statistics), sum(s.n_rows for s in statistics))
        freedom = min(freedom / n_rows, _MOST_FREEDOM)

        # Fitted values in the class and outside, each row left out of its own fit: that moves its
        # residual away from 0 by the factor 1/(1 - leverage).
        if len(statistics) == 1:
            return Heads(np.zeros_like(coef), np.zeros(1), 1.0)
        means = np.stack([s.total / s.count for s in statistics]) - mean
        inside = share + np.einsum("kd,kd->k", coef, means)
        outside = share * (1 - inside) / (1 - share)
        spread = ((coef @ scatter) * coef).sum(axis=1) / count
        gap = inside - outside
        within = np.maximum(spread - share * (1 - share) * gap**2, _CONSTANT)
        inside, outside = 1 - (1 - inside) / (1 - freedom), outside / (1 - freedom)
        gap = np.maximum(inside - outside, 1e-3 * gap)
        # Of two normals the slope is that of a class which the features do not tell, and what they
        # tell of it. The second part differs by chance, and is that of a mean class.
        untold = 1 / (share * (1 - share))
        told = np.maximum(gap * (1 - freedom) ** 2 / within - untold, 0.0)
        slope = untold + share @ told
        intercept = slope * (share - coef @ mean - (inside + outside) / 2)
        intercept += np.log(share) - np.log1p(-share)
        # Two heads say the same: their difference is twice the log-odds.
        factor = _TOO_SURE * (2 if len(statistics) == 2 else 1)
        return Heads(slope[:, None] * coef / factor, intercept / factor, factor)


class LDAHead(_StatisticsHead):
    """Linear discriminant analysis: normal classes of one covariance matrix, shrunk.

    Adding and removing classes is exact, as for `RidgeHead`.

    Parameters
    ----------
    shrinkage : float, default=None
        In (0, 1]: how far the covariance matrix is drawn to its diagonal. None: chosen in `fit`,
        once, for the log-loss on the rows of `validation_fraction` (.01 where there are none).

    Examples
    --------
    >>> from skmsc import LDAHead
    >>> LDAHead(shrinkage=0.1)
    LDAHead(shrinkage=0.1)
    """

    penalty = "shrinkage"
    grid = (1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)
    fallback = 0.01

    def __init__(self, shrinkage: float | None = None) -> None:
        self.shrinkage = shrinkage

    def check(self) -> None:
        """Validate the parameters."""
        _check_number(self, "shrinkage", "(0, 1]", optional=True)

    def _solve(self, statistics, weight, shrinkage):
        count, mean, scatter, share, varies = _pooled(statistics, weight)
        means = np.stack([s.total / s.count for s in statistics]) - mean
        spread = scatter.diagonal() / count
        within = scatter / count - (means.T * share) @ means
        within = (within + within.T) / 2
        # A feature that varies between the classes only would else decide alone.
        diagonal = np.where(varies, np.maximum(within.diagonal(), 1e-9 * spread), 1.0)
        within *= 1 - shrinkage
        within[~varies], within[:, ~varies], means[:, ~varies] = 0.0, 0.0, 0.0
        np.fill_diagonal(within, diagonal)
        factor = cho_factor(within, lower=True, overwrite_a=True, check_finite=False)
        coef = cho_solve(factor, means.T, check_finite=False).T
        intercept = np.log(share) - np.einsum("kd,kd->k", coef, means / 2 + mean)
        return Heads(coef, intercept, None)


class ImprintHead(_StatisticsHead):
    """The mean direction of each class; logits are cosines times a scale.

    The cheapest head, which needs few rows of a class. Adding and removing classes is exact.

    Parameters
    ----------
    scale : float, default=None
        Factor > 0 of the cosines. None: chosen in `fit`, once, for the log-loss on the rows of
        `validation_fraction` (10 where there are none).

    References
    ----------
    H. Qi, M. Brown and D. Lowe. Low-shot learning with imprinted weights. CVPR 2018, arXiv
    1712.07136.

    Examples
    --------
    >>> from skmsc import ImprintHead
    >>> ImprintHead(scale=20.0)
    ImprintHead(scale=20.0)
    """

    needs_gram = False
    penalty = "scale"
    grid = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
    fallback = 10.0

    def __init__(self, scale: float | None = None) -> None:
        self.scale = scale

    def prepare(self, features: Floats) -> Floats:
        """Features as the head sees them: of length 1."""
        return _unit(features)

    def check(self) -> None:
        """Validate the parameters."""
        _check_number(self, "scale", "(0, inf)", optional=True)

    def _solve(self, statistics, weight, scale):
        mass = weight * [s.count for s in statistics]
        coef = scale * _unit(np.stack([s.total for s in statistics]))
        return Heads(coef, np.log(mass / mass.sum()), None)


class _TrainedHead(_Head):
    """Heads that are trained on the rows."""

    needs_rows = True


class LogisticHead(_TrainedHead):
    """Logistic regressions of each class against all others, all in one convex fit.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength > 0 of the penalty on the squared coefficients of the standardised
        features, as in scikit-learn.
    max_iter : int, default=200
        Steps of L-BFGS at most.
    tol : float, default=1e-5
        Largest gradient, in units of a row, at which it stops.

    Examples
    --------
    >>> from skmsc import LogisticHead
    >>> LogisticHead(C=0.1)
    LogisticHead(C=0.1)
    """

    def __init__(self, C: float = 1.0, max_iter: int = 200, tol: float = 1e-5) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol

    def check(self) -> None:
        """Validate the parameters."""
        _check_number(self, "C", "(0, inf)")
        _check_number(self, "tol", "(0, inf)")
        check_integer("max_iter of LogisticHead", self.max_iter, 1)

    def train(
        self,
        features: Floats,
        codes: Ints,
        sample_weight: Floats | None,
        n_classes: int,
        *,
        balanced: bool,
        seed: int,
    ) -> Heads:
        """Heads from rows; see `PairwiseHead.train`."""
        weight = row_weights(codes, sample_weight, n_classes, balanced)
        total = weight.sum()
        mean = weight @ features / total
        scale = np.sqrt(np.maximum(weight @ (features - mean) ** 2 / total, 0.0))
        scale[scale**2 <= _CONSTANT * (scale**2 + mean**2)] = np.inf
        Z = (features - mean) / scale
        target = np.zeros((len(codes), n_classes))
        target[np.arange(len(codes)), codes] = 1.0
        share = np.clip(weight @ target / total, 1e-12, 1 - 1e-12)
        penalty = 1.0 / (self.C * total)

        def loss(theta):
            theta = theta.reshape(n_classes, -1)
            logits = Z @ theta[:, 1:].T + theta[:, 0]
            value = weight @ (np.logaddexp(0.0, logits) - target * logits).sum(axis=1) / total
            error = (expit(logits) - target) * (weight / total)[:, None]
            gradient = np.column_stack([error.sum(axis=0), error.T @ Z])
            gradient[:, 1:] += penalty * theta[:, 1:]
            return value + penalty / 2 * (theta[:, 1:] ** 2).sum(), gradient.ravel()

        start = np.zeros((n_classes, 1 + Z.shape[1]))
        start[:, 0] = np.log(share) - np.log1p(-share)
        options = {"maxiter": self.max_iter, "gtol": self.tol, "ftol": 1e-12}
        theta = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options).x
        theta = theta.reshape(n_classes, -1)
        coef = theta[:, 1:] / scale
        return Heads(coef, theta[:, 0] - coef @ mean, 1.0)


class PairwiseHead(_TrainedHead):
    """Lee's heads: each class alone, against as many rows of the others.

    Offered to reproduce his results; `RidgeHead` and `LogisticHead` are better and cheaper. A
    two-way layer is trained for each class by Adam, from a random start. His rule keeps its
    positive row alone, which loses accuracy under the softmax, whose log-odds are the *difference*
    of the two rows.

    Parameters
    ----------
    keep : {"difference", "positive"}, default="difference"
        What becomes the class's head.
    loss : {"softmax", "sigmoid", "softmax_bce"}, default="softmax"
        Of the two-way layer.
    epochs : int, default=20
        Times that the rows are seen; his are 5.
    lr : float, default=0.01
        Learning rate of Adam; his is 1e-4.
    batch_size : int, default=64
        Rows of a batch.
    correct_prior : bool, default=True
        Whether to take the share of the negatives that were drawn out of the log-odds.

    References
    ----------
    J. Lee. Dynamic model construction for efficient classification. A. Dal Pozzolo et al.
    Calibrating probability with undersampling for unbalanced classification, SSCI 2015: the
    correction.

    Examples
    --------
    >>> from skmsc import PairwiseHead
    >>> PairwiseHead(keep="positive")
    PairwiseHead(keep='positive')
    """

    def __init__(
        self,
        keep: Literal["difference", "positive"] = "difference",
        loss: Literal["softmax", "sigmoid", "softmax_bce"] = "softmax",
        epochs: int = 20,
        lr: float = 0.01,
        batch_size: int = 64,
        correct_prior: bool = True,
    ) -> None:
        self.keep = keep
        self.loss = loss
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.correct_prior = correct_prior

    def check(self) -> None:
        """Validate the parameters."""
        check_choice("keep of PairwiseHead", self.keep, ("difference", "positive"))
        check_choice("loss of PairwiseHead", self.loss, ("softmax", "sigmoid", "softmax_bce"))
        _check_number(self, "lr", "(0, inf)")
        for name in ("epochs", "batch_size"):
            check_integer(f"{name} of PairwiseHead", getattr(self, name), 1)
        check_bool("correct_prior of PairwiseHead", self.correct_prior)

    def train(
        self,
        features: Floats,
        codes: Ints,
        sample_weight: Floats | None,
        n_classes: int,
        *,
        balanced: bool,
        seed: int,
    ) -> Heads:
        """Heads from rows.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features.
        codes : ndarray of shape (n,)
            Classes, each of 0 to n_classes - 1 at least once.
        sample_weight : ndarray of shape (n,) or None
            Weights.
        n_classes : int
            Number of classes.
        balanced : bool
            Whether all classes count the same.
        seed : int
            Seed.

        Returns
        -------
        heads : Heads
        """
        from skmsc.neural._pairwise import fit_pairwise

        coef, intercept, share = fit_pairwise(
            features,
            codes,
            sample_weight,
            n_classes,
            loss=self.loss,
            keep=self.keep,
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            seed=seed,
        )
        if self.correct_prior and not balanced:
            # The positive row of a softmax alone is half of the log-odds.
            half = self.keep == "positive" and self.loss != "sigmoid"
            intercept = intercept + np.log(share) * (0.5 if half else 1.0)
        return Heads(coef, intercept, 1.0)


class FixedHead(_TrainedHead):
    """Rows that never change; one scale and a bias for each class are all that is found.

    Logits are ``scale * cosine + bias``, of the cosine between the features and the class's row.
    A `skmsc.neural.TabularNet` as trunk is trained below such rows, so that its features come to
    lie along them; for any other trunk the rows are strangers, and the head is weak. A class that
    comes takes the free row that is nearest to its rows' mean direction.

    Parameters
    ----------
    kind : {"orthogonal", "hadamard", "simplex"}, default="orthogonal"
        Which rows: orthonormal ones; those of a Hadamard matrix; the corners of a regular simplex.
    n_rows : int, default=None
        Number of rows, among them those for classes to come; None: as many as classes in `fit`.

    References
    ----------
    E. Hoffer, I. Hubara and D. Soudry. Fix your classifier, arXiv 1801.04540. The simplex is that
    of F. Pernici et al., arXiv 1902.10441.

    Examples
    --------
    >>> from skmsc import FixedHead
    >>> FixedHead("simplex", n_rows=20)
    FixedHead(kind='simplex', n_rows=20)
    """

    has_fixed_rows = True

    def __init__(
        self,
        kind: Literal["orthogonal", "hadamard", "simplex"] = "orthogonal",
        n_rows: int | None = None,
    ) -> None:
        self.kind = kind
        self.n_rows = n_rows

    def prepare(self, features: Floats) -> Floats:
        """Features as the head sees them: of length 1."""
        return _unit(features)

    def check(self) -> None:
        """Validate the parameters."""
        check_choice("kind of FixedHead", self.kind, KINDS)
        check_integer("n_rows of FixedHead", self.n_rows, 1, optional=True)

    def check_room(self, n_classes: int) -> None:
        """Raise unless there are rows for so many classes."""
        n_rows = getattr(self, "rows_", np.empty((self.n_rows or n_classes, 0))).shape[0]
        if n_classes > n_rows:
            raise ValueError(
                f"{self!r} has {n_rows} rows, too few for {n_classes} classes: give n_rows before "
                "fit."
            )

    def start(self, rows: Floats | None, n_features: int, n_classes: int, seed: int) -> None:
        """Keep the rows, those that the trunk was trained below (None: none were), `rows_`."""
        if rows is None:
            rows = fixed_rows(self.kind, self.n_rows or n_classes, n_features, seed)
        self.rows_ = rows

    def assign(
        self,
        labels: NDArray[Any],
        features: Floats,
        codes: Ints,
        sample_weight: Floats | None,
        known: Any,
    ) -> Floats:
        """Rows of classes: of known ones theirs, of others the free ones that suit them best.

        `labels` are sorted, `known` is a `HeadSet` or None.
        """
        if known is None:
            self.check_room(len(labels))
            return self.rows_[: len(labels)]
        places = np.full(len(labels), -1)
        theirs = (_unit(known.heads.coef) @ self.rows_.T).argmax(axis=1)
        for label, place in zip(known.labels, theirs, strict=True):
            places[labels == label] = place
        new = np.flatnonzero(places < 0)
        if new.size:
            free = np.setdiff1d(np.arange(len(self.rows_)), theirs)
            if free.size < new.size:
                self.check_room(len(theirs) + new.size)
            weight = np.ones(len(codes)) if sample_weight is None else sample_weight
            means = np.stack([weight[codes == k] @ features[codes == k] for k in new])
            which, best = linear_sum_assignment(_unit(means) @ self.rows_[free].T, maximize=True)
            places[new[which]] = free[best]
        return self.rows_[places]

    def train(
        self,
        features: Floats,
        codes: Ints,
        sample_weight: Floats | None,
        n_classes: int,
        *,
        balanced: bool,
        seed: int,
        rows: Floats,
    ) -> Heads:
        """Heads from rows of the data; see `PairwiseHead.train`, and `assign` for `rows`."""
        weight = row_weights(codes, sample_weight, n_classes, balanced)
        weight = weight / weight.sum()
        cosines, own = features @ rows.T, np.arange(len(codes))
        share = np.bincount(codes, weight, minlength=n_classes)

        def loss(theta):
            scale, bias = np.exp(theta[0]), theta[1:]
            logits = scale * cosines + bias
            norm = logsumexp(logits, axis=1)
            error = np.exp(logits - norm[:, None])
            error[own, codes] -= 1.0
            error *= weight[:, None]
            gradient = np.append((error * cosines).sum() * scale, error.sum(axis=0))
            # As held as by one row, else separable classes take the scale to infinity.
            held = (theta[0] - start[0]) / len(codes)
            value = weight @ (norm - logits[own, codes]) + held * (theta[0] - start[0]) / 2
            gradient[0] += held
            return value, gradient

        start = np.append(np.log(10.0), np.log(np.maximum(share, 1e-12)))
        theta = minimize(loss, start, jac=True, method="L-BFGS-B").x
        return Heads(np.exp(theta[0]) * rows, theta[1:], None)


HEADS = {
    "ridge": RidgeHead,
    "lda": LDAHead,
    "logistic": LogisticHead,
    "pairwise": PairwiseHead,
    "imprint": ImprintHead,
    **{kind: partial(FixedHead, kind) for kind in KINDS},  # type: ignore[arg-type]
}


def check_head(head):
    """The strategy that a `head` argument stands for, validated."""
    if isinstance(head, str) and head in HEADS:
        return HEADS[head]()
    if isinstance(head, _Head):
        head.check()
        return head
    valid = ", ".join(map(repr, HEADS))
    names = ", ".join(kind for kind in __all__)
    raise ValueError(f"head must be one of {valid}, or an object of {names}; got {head!r}.")


def row_weights(codes, sample_weight, n_classes, balanced):
    """Weights of rows; balanced ones give every class the same sum, all in all the same."""
    weight = np.ones(len(codes)) if sample_weight is None else sample_weight
    if not balanced:
        return weight
    mass = np.bincount(codes, weight, minlength=n_classes)
    return weight * (mass.sum() / ((mass > 0).sum() * mass[codes]))


def choose_penalty(head, statistics, features, codes, sample_weight, *, balanced):
    """Value of the head's penalty with the least log-loss on rows that it was not fitted on.

    Each value is judged at its own best temperature.
    """
    rows, weight = np.arange(len(codes)), sample_weight / sample_weight.sum()
    losses = []
    for value in head.grid:
        logits = head.solve(statistics, balanced=balanced, penalty=value).logits(features)

        def loss(log_slope, logits=logits):
            scaled = np.exp(log_slope) * logits
            return weight @ (logsumexp(scaled, axis=1) - scaled[rows, codes])

        losses.append(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded").fun)
    return float(head.grid[int(np.argmin(losses))])


def _pooled(statistics, weight):
    """Weighted count, mean, scatter matrix around the mean, shares, and which features vary.

    The sums are taken in the order of the classes, so that the same classes give the same bits.
    """
    count, total, gram = 0.0, 0.0, np.zeros_like(statistics[0].gram)
    for s, w in zip(statistics, weight, strict=True):
        count, total = count + w * s.count, total + w * s.total
        gram += s.gram if w == 1.0 else w * s.gram
    mean = total / count
    about_zero = gram.diagonal().copy()
    gram -= count * np.outer(mean, mean)
    varies = gram.diagonal() > _CONSTANT * about_zero
    gram[~varies], gram[:, ~varies] = 0.0, 0.0
    share = weight * [s.count for s in statistics] / count
    return count, mean, gram, share, varies


def _unit(rows):
    """Rows of length 1; rows of zeros stay."""
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return rows / np.where(length == 0, 1.0, length)[:, None]


def _check_number(head, name, interval, *, optional=False):
    """Raise unless a parameter is a number in an interval, or None where that is allowed."""
    where = f"{name} of {type(head).__name__}"
    check_number(where, getattr(head, name), interval, optional=optional)
