"""Which stage answers which row, computing only what is needed.

Everything here is NumPy that knows nothing of how a stage was trained, and exported classifiers are
routed by it as well. Two ways lead to the same
answer: `route` is lazy, it runs stage k only on the rows that no earlier stage answered;
`skmsc.thresholds.eager_stage` reads the answer off the scores of all stages on all rows. That the
two agree is the test that the package rests on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skmsc._acting import reaches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from skmsc._typing import Bools, Floats, RandomState, Rows

__all__ = ["Routing", "route"]


@dataclass(frozen=True)
class Routing:
    """Which stage answered each row, with what, at what cost.

    Attributes
    ----------
    stage : ndarray of shape (n_samples,)
        Index of the stage that answered the row; 0 is the first and cheapest.
    proba : ndarray of shape (n_samples, n_classes)
        Class probabilities of the answer. From an estimator's `route` method these are what
        `predict_proba` returns; from `skmsc.routing.route` the raw scores of the stage.
    cost : ndarray of shape (n_samples,) or None
        Sum of the costs of the stages that ran on the row, a failed one included, in the units of
        the estimator's ``stage_costs``; None where the costs are not known.
    n_stages : int or None, default=None
        Number of stages; None where it is not known.
    failed : ndarray of shape (n_samples,) of bool, default=None
        Whether the stage that the row was passed to, ``stage + 1``, raised an error, so that the
        answer is not what it would have been: see `on_stage_error` of the classifiers. None stands
        for no row.

    Examples
    --------
    >>> import numpy as np
    >>> from skmsc.routing import Routing
    >>> Routing(stage=np.array([0, 1]), proba=np.array([[0.9, 0.1], [0.2, 0.8]]), cost=None)
    Routing(2 rows, answered per stage [1, 1], mean cost unknown)
    """

    stage: np.ndarray
    proba: np.ndarray
    cost: np.ndarray | None
    n_stages: int | None = None
    failed: np.ndarray | None = None

    def __post_init__(self):
        if self.failed is None:
            object.__setattr__(self, "failed", np.zeros(self.stage.size, dtype=bool))

    def shadow(self, share: float, *, random_state: RandomState = None) -> tuple[Bools, Floats]:
        """Mark rows to label although an early stage answered them, and weigh all labels.

        Labels exist mostly for rows that went all the way: somebody looked at these. Thresholds
        that are set anew on them alone hide more rows every time, since what an early stage
        dismissed wrongly is never seen. Labelling a small share of the other rows, drawn by chance,
        mends that, when each counts for those like it.

        Parameters
        ----------
        share : float
            Share in (0, 1] of the rows that an early stage answered. Each is drawn by itself, so
            that rows may come in batches of any size.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. Where rows come in several batches, give one RandomState to all: an
            integer would draw the same places in each.

        Returns
        -------
        marked : ndarray of shape (n_samples,) of bool
            The rows drawn.
        weight : ndarray of shape (n_samples,)
            ``sample_weight`` for `tune_thresholds` or a fit once labels are known: 1 for rows that
            reached the last stage, 1 / `share` for those marked, 0 for the rest, whose labels stay
            unknown. In the mean over draws, weighted sums over labelled rows are those over all.

        Raises
        ------
        TypeError, ValueError
            When `share` is not a number in (0, 1], or the number of stages is not known.

        Examples
        --------
        >>> import numpy as np
        >>> from skmsc.routing import Routing
        >>> routing = Routing(np.array([0, 0, 1, 0]), np.full((4, 2), 0.5), None, n_stages=2)
        >>> routing.shadow(0.5, random_state=14)
        (array([False, False, False,  True]), array([0., 0., 1., 2.]))
        """
        from sklearn.utils import check_random_state

        from skmsc._checks import is_number

        if not is_number(share):
            raise TypeError(f"share must be a number in (0, 1]; got {share!r}.")
        if not 0 < share <= 1:
            raise ValueError(f"share must be a number in (0, 1]; got {share!r}.")
        if self.n_stages is None:
            raise ValueError(
                "This Routing does not know how many stages there are, so that none is the last: "
                "use that of a classifier's route, or give n_stages."
            )
        early = self.stage < self.n_stages - 1
        drawn = check_random_state(random_state).random_sample(early.size) < share
        marked = early & drawn
        return marked, np.where(early, marked / share, 1.0)

    def __repr__(self):
        counts = np.bincount(self.stage, minlength=self.n_stages or 0).tolist()
        cost = "unknown" if self.cost is None else f"{np.mean(self.cost):.4g}"
        told = f"{self.stage.size} rows, answered per stage {counts}, mean cost {cost}"
        n_failed = self.failed.sum()
        return f"Routing({told}, {n_failed} failed)" if n_failed else f"Routing({told})"


class StageErrors:
    """What stages raised while rows were routed; the `on_error` of `route` that goes on.

    Parameters
    ----------
    instead : callable
        ``instead(k, scores) -> proba`` gives the answer of rows at which stage k raised, from the
        scores of the stage before, both of shape (n_rows, n_classes).
    """

    def __init__(self, instead):
        self.instead = instead
        self.seen = {}  # stage: [number of rows, type and text of the first error]

    def __call__(self, k, scores, error):
        # The error itself would keep the rows that its traceback knows in memory.
        self.seen.setdefault(k, [0, type(error).__name__, str(error)])[0] += len(scores)
        return self.instead(k, scores)

    def message(self, names, fate):
        """What happened in words; `names` are those of the stages, `fate` tells of the rows."""
        told = []
        for k, (n_rows, kind, error) in sorted(self.seen.items()):
            told.append(f"Stage {names[k]!r} raised {kind} on {n_rows} rows, which {fate}: {error}")
        return "; ".join(told)


def route(
    steps: Sequence[Callable[[Any], tuple[Floats, Any]]],
    X: Rows,
    thresholds: Floats,
    stage_costs: Floats | None = None,
    *,
    answer: Callable[..., Floats] | None = None,
    acting: Callable[[Floats], Floats] | None = None,
    pieces: tuple[int, int] | None = None,
    on_error: Callable[..., Floats] | None = None,
    at_once: int | None = None,
) -> Routing:
    """Run the stages in order, each only on the rows that are still waiting.

    Parameters
    ----------
    steps : sequence of callables
        ``step(carry) -> (proba, carry)`` with `proba` float64 of shape (n_waiting, n_classes) and
        `carry` whatever the next step needs, with one row for each waiting row: for a cascade the
        rows of X, for a network their hidden features. The first gets X. With `pieces` a step must
        not write to scores that it gave before. Where the `carry` has a
        method ``close_ranks(holes, movers, n_rows)`` it is shortened in place: its rows `movers`
        go to the places `holes` of rows that are answered, and `n_rows` are left.
    X : array-like, sparse matrix or dataframe with n_samples rows
        Input of the first step.
    thresholds : ndarray of shape (n_stages, n_classes)
        Stage k answers a row when, for some class c, its score reaches ``thresholds[k, c]``. The
        last row is not read: the last stage always answers.
    stage_costs : ndarray of shape (n_stages,), default=None
        Cost of running each stage on one row.
    answer : callable, default=None
        ``answer(k, scores) -> proba`` turns the scores of stage k into what it answers, row by
        row, both of shape (n_waiting, n_classes). It may overwrite the scores. None: the scores
        themselves.
    acting : callable, default=None
        ``acting(scores)`` gives what thresholds act on, of the shape of the scores, such as their
        margins. None: the scores themselves.
    pieces : tuple of (int, int), default=None
        ``(k, n_rows)``: from step k on rows are routed so many at once, whose hidden features stay
        in the cache from one step to the next.
    on_error : callable, default=None
        ``on_error(k, scores, error) -> proba`` gives what rows are answered with where step k > 0
        raises `error` on them, from the scores of step k - 1, both of shape (n_waiting, n_classes).
        The rows are all those of that run of the step, of one piece where rows come in pieces; they
        count as answered by step k - 1 and are marked as failed. What step 0 raises, and what is no
        `Exception`, goes on. None: so does every error.
    at_once : int, default=None
        Most rows that go through the steps together, so that what steps make of them fits in
        memory: slices of X, one after the other. None: all rows.

    Returns
    -------
    routing : Routing
        With the answer of the stage that answered as `proba`.

    Examples
    --------
    >>> import numpy as np
    >>> from skmsc.routing import route
    >>> cheap = lambda X: (np.column_stack([1 - X[:, 0], X[:, 0]]), X)
    >>> heavy = lambda X: (np.column_stack([1 - X[:, 1], X[:, 1]]), X)
    >>> X = np.array([[0.1, 0.9], [0.6, 0.2], [0.7, 0.8]])
    >>> thresholds = np.array([[0.5, np.inf], [-np.inf, -np.inf]])
    >>> routing = route([cheap, heavy], X, thresholds, np.array([1.0, 10.0]))
    >>> routing.stage
    array([0, 1, 1])
    >>> routing.cost
    array([ 1., 11., 11.])
    """
    n_samples = X.shape[0] if hasattr(X, "shape") else len(X)
    stage = np.zeros(n_samples, dtype=np.intp)
    proba = np.empty((n_samples, np.shape(thresholds)[1]))
    failed = np.zeros(n_samples, dtype=bool)
    out, how = (stage, proba, failed), (np.asarray(thresholds), acting, on_error, on_error is None)

    def write(k, rows, scores):
        proba[... if rows is None else rows] = scores if answer is None else answer(k, scores)

    if at_once is None or n_samples <= at_once:
        _run(steps, 0, X, None, None, out, write, how, pieces)
    else:
        for rows in row_slices(n_samples, at_once):
            mine = np.arange(rows.start, rows.stop)
            _run(steps, 0, _take(X, rows), mine, None, out, write, how, pieces)
    cost = None if stage_costs is None else np.cumsum(stage_costs)[stage + failed]
    return Routing(stage, proba, cost, len(steps), failed)


def row_slices(n_rows, at_once):
    """Slices of at most `at_once` rows that cover all, in order, equally long up to a row."""
    n = -(-n_rows // at_once)
    return (slice(k * n_rows // n, (k + 1) * n_rows // n) for k in range(n))


def _run(steps, first, carry, waiting, before, out, write, how, pieces):
    """Run the steps from `first` on; write where the waiting rows leave, and with what.

    `waiting` are the indices of the rows that no stage has answered; None: all of them. `before`
    are the scores that the step before gave them, where errors ask for these.
    ``write(k, rows, scores)`` is called for each step with the rows that it answers and, where
    ``how`` says that they may be written again, perhaps with some that go on.
    """
    (stage, proba, failed), (thresholds, acting, on_error, rewrites) = out, how
    for k in range(first, len(steps)):
        if pieces is not None and k == pieces[0]:
            n_rows = len(stage) if waiting is None else waiting.size
            if n_rows > pieces[1]:
                waiting = np.arange(n_rows) if waiting is None else waiting
                found = [[] for _ in steps]  # by step: all its pieces are answered at once

                def collect(j, rows, scores, found=found):
                    found[j].append((rows, scores))

                once = thresholds, acting, on_error, False
                for rows in row_slices(n_rows, pieces[1]):
                    part, known = _take(carry, rows), None if before is None else before[rows]
                    _run(steps, k, part, waiting[rows], known, out, collect, once, None)
                for j, parts in enumerate(found):
                    if parts:
                        write(j, *map(np.concatenate, zip(*parts, strict=True)))
                return
        try:
            scores, carry = steps[k](carry)
        except Exception as error:
            if on_error is None or k == 0:
                raise
            proba[waiting], failed[waiting] = on_error(k, before, error), True
            return
        if waiting is not None:
            stage[waiting] = k
        if k == len(steps) - 1:
            write(k, waiting, scores)
            return
        acts = scores if acting is None else acting(scores)
        reached = reaches(acts, thresholds[k])
        passed = kept = np.flatnonzero(~reached)
        if 0 < passed.size < len(scores):
            carry, kept = _keep(carry, passed)
        if on_error is not None:  # a copy, as the answers may overwrite the scores
            before = scores[kept]
        # To leave out few rows costs more than to answer them.
        if not passed.size or (rewrites and 4 * passed.size < len(scores)):
            write(k, waiting, scores)
        elif passed.size < len(scores):
            mine = np.flatnonzero(reached)
            write(k, mine if waiting is None else waiting[mine], scores[mine])
        if passed.size == 0:
            return
        waiting = kept if waiting is None else waiting[kept]


def _keep(carry, rows):
    """Rows of what a step gave, by increasing indices, and the indices in the order they then have.

    Where `carry` has ``close_ranks(holes, movers, n_rows)`` its last rows fill the places of those
    that leave, so that most rows are not moved; what it was before is lost.
    """
    if not hasattr(type(carry), "close_ranks"):
        return _take(carry, rows), rows
    n_staying = np.searchsorted(rows, rows.size)
    order = np.arange(rows.size)
    is_hole = np.ones(rows.size, dtype=bool)
    is_hole[rows[:n_staying]] = False
    holes, movers = np.flatnonzero(is_hole), rows[n_staying:]
    order[holes] = movers
    return carry.close_ranks(holes, movers, rows.size), order


def _take(carry, rows):
    """Some rows of what a step gave."""
    if isinstance(carry, np.ndarray):
        return carry[rows]
    if hasattr(type(carry), "take_rows"):
        return carry.take_rows(rows)
    from skmsc._sklearn import take_rows

    return take_rows(carry, rows)
