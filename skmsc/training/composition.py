"""Classes and their heads: added, removed, relabelled, merged, composed.

A `HeadSet` is never changed: every operation of a `Learner` gives another one, so that what fails
leaves nothing half done.

Shapes: n rows, d features, c classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from skmsc._checks import as_numbers
from skmsc.training.heads import ClassStatistics, Heads

__all__ = []  # for the package's own use

# Statistics of all classes take no more than this.
_MOST_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Replay:
    """Some rows of a class, kept to train heads with; `count` is the weight of all its rows."""

    features: np.ndarray
    weight: np.ndarray
    count: float


@dataclass(frozen=True)
class HeadSet:
    """The heads of some classes and what they were found from.

    Attributes
    ----------
    labels : ndarray of shape (c,)
        Labels, sorted.
    heads : Heads
        In the order of the labels.
    statistics : tuple of ClassStatistics, or None
        None: the heads are trained on rows.
    replay : tuple of Replay, or None
    met : ndarray of shape (c, c) of bool
        Whether the head of one class was trained with rows of the other as negatives.
    """

    labels: np.ndarray
    heads: Heads
    statistics: tuple | None
    replay: tuple | None
    met: np.ndarray

    def index_of(self, labels):
        """Positions of labels; raises ValueError for those that are not here."""
        unknown = [label for label in labels if label not in self.labels]
        if unknown:
            raise ValueError(
                f"There is no class {', '.join(map(repr, unknown))}; known are "
                f"{self.labels.tolist()}."
            )
        return np.searchsorted(self.labels, np.array(labels, dtype=self.labels.dtype))

    def strangers(self):
        """Pairs of labels that never met."""
        apart = ~(self.met & self.met.T)
        return [
            (self.labels[i].item(), self.labels[j].item())
            for i, j in zip(*np.nonzero(np.triu(apart, 1)), strict=True)
        ]


@dataclass(frozen=True)
class Learner:
    """How heads are found.

    Attributes
    ----------
    head : strategy
        See `skmsc.training.heads`.
    balanced : bool
        Whether all classes count the same.
    penalty : float or None
        Of heads from statistics.
    replay_size : int
        Rows of each class to keep, for trained heads.
    seed : int
        Seed.
    """

    head: object
    balanced: bool
    penalty: float | None
    replay_size: int
    seed: int

    def with_penalty(self, penalty):
        """The same with another penalty."""
        return replace(self, penalty=penalty)

    def expect(self, known, labels):
        """The same with classes of which no row has come yet, among `labels`, sorted."""
        if known.statistics is None:
            raise ValueError(
                f"head={self.head!r} is trained on rows: the first call of partial_fit must have "
                f"rows of all classes; {np.setdiff1d(labels, known.labels).tolist()} have none."
            )
        blank = known.statistics[0] - known.statistics[0]
        new = np.setdiff1d(labels, known.labels)
        return self._with_statistics(known, new, [blank] * len(new))

    def read(self, known, heads):
        """A `HeadSet` from plain arrays, which are copied, of features like those of `known`."""
        names = ["classes", "coef", "intercept"]
        if known.statistics is not None:
            names += ["count", "n_rows", "total"] + (["gram"] if self.head.needs_gram else [])
        if not isinstance(heads, Mapping):
            raise TypeError(f"heads must be a mapping with the arrays {names}; got {heads!r}.")
        missing = [name for name in names if name not in heads]
        if missing:
            raise ValueError(f"heads must hold the arrays {names}; {missing} are missing.")
        labels = np.array(heads["classes"])
        n_classes, n_features = labels.size, known.heads.coef.shape[1]
        if labels.ndim != 1 or not n_classes:
            raise ValueError(f"heads['classes'] must be a list of labels; got {labels.tolist()}.")
        shapes = {
            "coef": (n_classes, n_features),
            "intercept": (n_classes,),
            "count": (n_classes,),
            "n_rows": (n_classes,),
            "total": (n_classes, n_features),
            "gram": (n_classes, n_features, n_features),
        }
        arrays = {}
        for name in names[1:]:
            array = as_numbers(heads[name], f"heads[{name!r}] must hold real numbers.").copy()
            if array.shape != shapes[name]:
                raise ValueError(
                    f"heads[{name!r}] must have shape {shapes[name]}; got {array.shape}."
                )
            # Of a class without rows the bias is -inf.
            checked = array[array != -np.inf] if name == "intercept" else array
            if not np.isfinite(checked).all():
                raise ValueError(f"heads[{name!r}] must be finite; it holds nan or infinity.")
            arrays[name] = array
        order = np.argsort(labels)
        labels = labels[order]
        if (labels[1:] == labels[:-1]).any():
            raise ValueError(f"heads['classes'] must be distinct; got {labels.tolist()}.")
        met = np.ones((n_classes, n_classes), dtype=bool)
        coef, intercept = arrays["coef"][order], arrays["intercept"][order]
        if known.statistics is None:
            heads = Heads(coef, intercept, known.heads.odds)
            return HeadSet(labels, heads, None, None, met)
        grams = arrays.get("gram", [None] * n_classes)
        statistics = tuple(
            ClassStatistics(
                float(arrays["count"][k]), arrays["total"][k], grams[k], float(arrays["n_rows"][k])
            )
            for k in order
        )
        for label, own in zip(labels.tolist(), statistics, strict=True):
            blank = own.count == own.n_rows == 0 and not own.total.any()
            symmetric = own.gram is None or np.allclose(own.gram, own.gram.T)
            if not (blank or (own.is_possible() and symmetric)):
                raise ValueError(
                    f"heads['count'], heads['total'] and heads['gram'] of class {label!r} are not "
                    "those of any rows."
                )
        return HeadSet(labels, Heads(coef, intercept, None), statistics, None, met)

    def fit(self, labels, features, codes, weight):
        """Heads of classes, `labels` sorted, from rows with `codes` and weights or None."""
        Z = self.head.prepare(features)
        if not self.head.needs_rows:
            self._check_memory(len(labels), Z.shape[1])
            return self.solved(labels, self._statistics(Z, codes, weight, len(labels)))
        self._check_rows_of_all(labels, codes)
        return self._trained(labels, Z, codes, weight, None)

    def solved(self, labels, statistics):
        """Heads of classes from their statistics."""
        heads = self.head.solve(statistics, balanced=self.balanced, penalty=self.penalty)
        return HeadSet(
            labels, heads, tuple(statistics), None, np.ones((len(labels),) * 2, dtype=bool)
        )

    def add(self, known, features, y, weight):
        """The same with more rows, of classes that are known or not."""
        new = np.setdiff1d(y, known.labels)
        labels = np.union1d(known.labels, new)
        codes = np.searchsorted(labels, y)
        Z = self.head.prepare(features)
        before = np.searchsorted(labels, known.labels)
        if not self.head.needs_rows:
            self._check_memory(len(labels), Z.shape[1])
            statistics = list(self._statistics(Z, codes, weight, len(labels)))
            touched = np.bincount(codes, minlength=len(labels)) > 0
            for at, old in zip(before, known.statistics, strict=True):
                statistics[at] = old + statistics[at] if touched[at] else old
            return self.solved(labels, statistics)
        if known.replay is not None:
            return self._add_with_replay(known, labels, before, Z, codes, weight)
        return self._add_strangers(known, new, labels, before, Z, codes, weight)

    def remove(self, known, label):
        """The same without a class."""
        (at,) = known.index_of([label])
        return self.compose(known, np.delete(np.arange(len(known.labels)), at))

    def compose(self, known, idx):
        """Heads of some of the classes, by sorted positions: solved anew where they can be."""
        labels = known.labels[idx]
        if known.statistics is not None:
            return self.solved(labels, [known.statistics[k] for k in idx])
        replay = None if known.replay is None else tuple(known.replay[k] for k in idx)
        some = HeadSet(labels, known.heads.take(idx), None, replay, known.met[np.ix_(idx, idx)])
        return self.refresh(some) if replay is not None and some.strangers() else some

    def relabel(self, known, features, old, new, weight):
        """The same with rows of class `old` counted as `new`, an array of one label."""
        if known.statistics is None:
            raise ValueError(
                f"Rows can be relabelled where heads come from statistics only; head={self.head!r} "
                "is trained on rows: fit again."
            )
        (at,) = known.index_of([old])
        Z = self.head.prepare(features)
        moved = ClassStatistics.of(Z, weight, gram=self.head.needs_gram)
        left = known.statistics[at].count - moved.count
        if left <= 1e-9 * known.statistics[at].count:
            raise ValueError(
                f"The rows to relabel weigh {moved.count:g} and class {old!r} has "
                f"{known.statistics[at].count:g}: some of it must stay, or use remove_class."
            )
        statistics = list(known.statistics)
        statistics[at] = statistics[at] - moved
        if not statistics[at].is_possible():
            raise ValueError(
                f"The rows to relabel are not among those that class {old!r} was learned from."
            )
        changed = replace(known, statistics=tuple(statistics))
        return self._with_statistics(changed, new, [moved])

    def merge(self, known, other):
        """The classes of both; statistics of a class that both have are added."""
        if known.statistics is not None:
            return self._with_statistics(known, other.labels, other.statistics)
        both = np.intersect1d(known.labels, other.labels)
        if both.size:
            raise ValueError(
                f"head={self.head!r} is trained on rows: classes that both have cannot be merged; "
                f"both have {both.tolist()}."
            )
        labels = np.union1d(known.labels, other.labels)
        if self.head.has_fixed_rows:
            self._check_rows_differ(known, other)
        places = [np.searchsorted(labels, part.labels) for part in (known, other)]
        heads, met = _placed((known, other), places, len(labels))
        replay = None
        if known.replay is not None and other.replay is not None:
            parts = dict(zip(np.concatenate(places), known.replay + other.replay, strict=True))
            replay = tuple(parts[k] for k in range(len(labels)))
        merged = HeadSet(labels, heads, None, replay, met)
        return merged if replay is None else self.refresh(merged)

    def refresh(self, known):
        """The same with heads that are found anew, from statistics or kept rows."""
        if known.statistics is not None:
            return self.solved(known.labels, known.statistics)
        if known.replay is None:
            raise ValueError(
                "There is nothing to find the heads anew from: set replay_size, which keeps some "
                f"rows of each class, before fit; got replay_size={self.replay_size}."
            )
        heads = self._train(known.labels, *_stacked(known.replay), known)
        return replace(known, heads=heads, met=np.ones_like(known.met))

    def _with_statistics(self, known, labels, statistics):
        """The same with statistics of further rows of classes."""
        everything = dict(zip(known.labels.tolist(), known.statistics, strict=True))
        for label, more in zip(labels.tolist(), statistics, strict=True):
            everything[label] = everything[label] + more if label in everything else more
        union = np.union1d(known.labels, labels)
        self._check_memory(len(union), known.heads.coef.shape[1])
        return self.solved(union, [everything[label] for label in union.tolist()])

    def _statistics(self, Z, codes, weight, n_classes):
        """Statistics of each class's rows."""
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=n_classes))
        return tuple(
            ClassStatistics.of(
                Z[mine], None if weight is None else weight[mine], gram=self.head.needs_gram
            )
            for mine in np.split(order, ends[:-1])
        )

    def _add_with_replay(self, known, labels, before, Z, codes, weight):
        """Train all heads on the rows kept and the new ones."""
        kept_Z, kept_codes, kept_weight = _stacked(known.replay)
        weight = np.ones(len(codes)) if weight is None else weight
        Z = np.concatenate([kept_Z, Z])
        codes = np.concatenate([before[kept_codes], codes])
        weight = np.concatenate([kept_weight, weight])
        return self._trained(labels, Z, codes, weight, known)

    def _train(self, labels, Z, codes, weight, known):
        """`Heads` of classes, trained on rows; `known` is what there was before, or None."""
        how = {"balanced": self.balanced, "seed": self.seed}
        if self.head.has_fixed_rows:
            how["rows"] = self.head.assign(labels, Z, codes, weight, known)
        return self.head.train(Z, codes, weight, len(labels), **how)

    def _trained(self, labels, Z, codes, weight, known):
        """A `HeadSet` of classes, trained on rows."""
        heads = self._train(labels, Z, codes, weight, known)
        replay = self._replay(heads, Z, codes, weight)
        return HeadSet(labels, heads, None, replay, np.ones((len(labels),) * 2, dtype=bool))

    def _add_strangers(self, known, new, labels, before, Z, codes, weight):
        """Train heads of new classes on their own rows alone; the others stay as they are."""
        there = np.searchsorted(labels, new)
        if not np.isin(codes, there).all() or len(new) < 2:
            raise ValueError(
                f"head={self.head!r} is trained on rows, and none of the known classes are kept to "
                "train it against: set replay_size before fit, or use a head from statistics such "
                "as 'ridge'."
            )
        own = self._trained(new, Z, np.searchsorted(there, codes), weight, known)
        heads, met = _placed((known, own), (before, there), len(labels))
        return HeadSet(labels, heads, None, None, met)

    def _replay(self, heads, Z, codes, weight):
        """Some rows of each class; None where none are to be kept.

        Rows are kept with a chance that grows with what the heads get wrong about them, as in
        local case-control sampling, and count for as many as the chance says.
        """
        if not self.replay_size:
            return None
        rng = np.random.default_rng(self.seed)
        weight = np.ones(len(codes)) if weight is None else weight
        proba = expit(heads.log_odds(heads.logits(Z)))
        own = np.take_along_axis(proba, codes[:, None], axis=1)[:, 0]
        wrong = proba.sum(axis=1) - own + (1.0 - own)
        kept = []
        for k in range(proba.shape[1]):
            mine = np.flatnonzero(codes == k)
            of_class = weight[mine]
            # Half of the chance is the same for all, so that no row counts for very many.
            error = wrong[mine] + np.average(wrong[mine], weights=of_class) + 1e-12
            chance = _chances(of_class * error, self.replay_size)
            some = _systematic(chance, rng)
            own_weight = of_class[some] / chance[some]
            own_weight *= of_class.sum() / own_weight.sum()
            kept.append(Replay(Z[mine[some]], own_weight, float(of_class.sum())))
        return tuple(kept)

    def _check_memory(self, n_classes, n_features):
        """Raise when the statistics would take too much memory."""
        n_bytes = n_classes * n_features * 8
        n_bytes *= n_features if self.head.needs_gram else 1
        if n_bytes > _MOST_BYTES:
            raise ValueError(
                f"The statistics of {n_classes} classes with {n_features} features would take "
                f"{n_bytes / 2**30:.1f} GiB, and {_MOST_BYTES / 2**30:.0f} GiB is the most: take "
                "fewer features, or a head that is trained on rows, such as 'logistic'."
            )

    def _check_rows_differ(self, known, other):
        """Raise when classes of two sets of fixed heads have the same rows, or other ones."""
        taken = []
        for part in (known, other):
            unit = part.heads.coef / np.linalg.norm(part.heads.coef, axis=1, keepdims=True)
            cosines = unit @ self.head.rows_.T
            if not np.allclose(cosines.max(axis=1), 1.0):
                raise ValueError("The fixed rows differ: the heads cannot be merged.")
            taken.append(cosines.argmax(axis=1))
        if np.intersect1d(*taken).size:
            raise ValueError(
                f"Classes of both have the same fixed rows of {self.head!r}: the heads cannot be "
                "merged."
            )

    def _check_rows_of_all(self, labels, codes):
        """Raise unless each class has a row."""
        absent = np.setdiff1d(np.arange(len(labels)), codes)
        if absent.size:
            raise ValueError(
                f"head={self.head!r} is trained on rows, and the classes "
                f"{labels[absent].tolist()} have none."
            )


def _chances(size, n_kept):
    """Chances of rows to be kept: in proportion to their size, at most 1, of the sum n_kept."""
    if len(size) <= n_kept:
        return np.ones(len(size))
    order = np.argsort(-size)
    sizes = size[order]
    # The largest are kept for certain, as many as would else have a chance above 1.
    rest = np.cumsum(sizes[::-1])[::-1]
    certain = np.arange(len(sizes))
    n_certain = int(np.argmin((n_kept - certain) * sizes > rest))
    chance = np.ones(len(size))
    others = order[n_certain:]
    chance[others] = (n_kept - n_certain) * size[others] / rest[n_certain]
    return chance


def _systematic(chance, rng):
    """Sorted indices of rows, each drawn with its chance; as many as the chances sum to."""
    steps = np.floor(np.cumsum(chance) + rng.random())
    return np.flatnonzero(np.diff(steps, prepend=0.0) > 0)


def _stacked(replay):
    """Rows kept of all classes: features, codes, weights."""
    codes = np.repeat(np.arange(len(replay)), [len(part.features) for part in replay])
    return (
        np.concatenate([part.features for part in replay]),
        codes,
        np.concatenate([part.weight for part in replay]),
    )


def _placed(sets, places, n_classes):
    """Heads of two sets in one, each at its places, and which of the classes have met."""
    first = sets[0].heads
    coef = np.zeros((n_classes, first.coef.shape[1]))
    intercept, met = np.zeros(n_classes), np.zeros((n_classes, n_classes), dtype=bool)
    for part, at in zip(sets, places, strict=True):
        coef[at], intercept[at] = part.heads.coef, part.heads.intercept
        met[np.ix_(at, at)] = part.met
    return Heads(coef, intercept, first.odds), met
