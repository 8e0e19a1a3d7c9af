"""Lazy routing equals eager routing; nothing is computed that is not needed."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from skmsc.routing import Routing, route
from skmsc.thresholds import answered_class, eager_stage, reaches


def random_case(seed, n_samples=200, n_stages=4, n_classes=3):
    rng = np.random.default_rng(seed)
    stage_proba = rng.dirichlet(np.ones(n_classes), size=(n_samples, n_stages))
    thresholds = rng.uniform(0.4, 1.0, size=(n_stages, n_classes))
    thresholds[rng.uniform(size=thresholds.shape) < 0.3] = np.inf
    thresholds[-1] = -np.inf
    return stage_proba, thresholds


class CountingStep:
    """A step that looks scores up by row number, and keeps the rows that it saw."""

    def __init__(self, scores):
        self.scores, self.seen = scores, []

    def __call__(self, rows):
        self.seen.extend(np.asarray(rows).tolist())
        return self.scores[rows], rows


def reference(stage_proba, thresholds):
    """Row by row, in plain Python."""
    stages, answers = [], []
    for row in stage_proba:
        for k, scores in enumerate(row):
            reached = [c for c, score in enumerate(scores) if score >= thresholds[k, c]]
            if reached:
                stages.append(k)
                answers.append(max(reached, key=lambda c: scores[c]))
                break
    return np.array(stages), np.array(answers)


@pytest.mark.parametrize("seed", range(20))
def test_lazy_equals_eager_equals_row_by_row(seed):
    stage_proba, thresholds = random_case(seed)
    steps = [CountingStep(stage_proba[:, k]) for k in range(stage_proba.shape[1])]
    costs = np.array([1.0, 2.0, 4.0, 8.0])
    lazy = route(steps, np.arange(len(stage_proba)), thresholds, costs)
    stage, answer = reference(stage_proba, thresholds)

    np.testing.assert_array_equal(lazy.stage, stage)
    np.testing.assert_array_equal(eager_stage(stage_proba, thresholds), stage)
    np.testing.assert_array_equal(lazy.proba, stage_proba[np.arange(len(stage)), stage])
    np.testing.assert_array_equal(answered_class(lazy.proba, thresholds[stage]), answer)
    np.testing.assert_array_equal(lazy.cost, [costs[: k + 1].sum() for k in stage])
    for k, step in enumerate(steps):
        assert step.seen == np.flatnonzero(stage >= k).tolist()


def test_rows_that_go_in_slices_are_answered_alike():
    stage_proba, thresholds = random_case(0)
    rows, costs = np.arange(len(stage_proba)), np.ones(4)
    seen = []
    steps = [CountingStep(stage_proba[:, k]) for k in range(4)]
    sliced = route(
        [lambda X: (seen.append(len(X)), steps[0](X))[1], *steps[1:]],
        rows,
        thresholds,
        costs,
        at_once=60,
    )
    together = route([CountingStep(stage_proba[:, k]) for k in range(4)], rows, thresholds, costs)
    assert seen == [50, 50, 50, 50]
    for name in ("stage", "proba", "cost"):
        np.testing.assert_array_equal(getattr(sliced, name), getattr(together, name))


class Ranks:
    """A carry that is shortened in place, and counts the rows that were moved."""

    n_moved = 0

    def __init__(self, rows):
        self.rows = rows

    def __array__(self, dtype=None, copy=None):
        return self.rows

    def take_rows(self, rows):
        return Ranks(self.rows[rows].copy())

    def close_ranks(self, holes, movers, n_rows):
        Ranks.n_moved += len(movers)
        self.rows[holes] = self.rows[movers]
        return Ranks(self.rows[:n_rows])


class RankedStep(CountingStep):
    """The same on such a carry."""

    def __call__(self, carry):
        rows = carry.rows if isinstance(carry, Ranks) else carry.copy()
        return super().__call__(rows)[0], Ranks(rows)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("pieces", [None, (0, 70), (1, 70)])
def test_carries_that_close_ranks_are_routed_alike(seed, pieces):
    stage_proba, thresholds = random_case(seed)
    rows, n_stages = np.arange(len(stage_proba)), stage_proba.shape[1]
    steps = [RankedStep(stage_proba[:, k]) for k in range(n_stages)]
    Ranks.n_moved, answered = 0, []

    def answer(k, scores):
        answered.append((k, len(scores)))
        return scores + k

    lazy = route(steps, rows, thresholds, answer=answer, pieces=pieces)
    stage, _ = reference(stage_proba, thresholds)
    np.testing.assert_array_equal(lazy.stage, stage)
    np.testing.assert_array_equal(lazy.proba, stage_proba[rows, stage] + stage[:, None])
    for k, step in enumerate(steps):
        assert sorted(step.seen) == np.flatnonzero(stage >= k).tolist()
    # At most as many rows move as leave, and as stay.
    waiting = [np.sum(stage >= k) for k in range(n_stages + 1)]
    left = np.diff(waiting[:-1]) * -1
    assert 0 < Ranks.n_moved <= np.minimum(left, waiting[1:-1]).sum()
    if pieces is not None:  # one answer for each stage whose rows came in pieces
        in_pieces = [k for k, _ in answered if k >= pieces[0]]
        assert in_pieces == sorted(set(in_pieces))
        assert sum(n for k, n in answered if k >= pieces[0]) == np.sum(stage >= pieces[0])


@pytest.mark.parametrize("pieces", [None, (1, 30)])
def test_errors_after_ranks_were_closed_are_answered_by_the_right_scores(pieces):
    stage_proba, _ = random_case(3)
    rows = np.arange(len(stage_proba))
    thresholds = np.full((3, 3), 0.6)
    thresholds[-1] = -np.inf

    def fails(carry):
        raise RuntimeError("down")

    steps = [RankedStep(stage_proba[:, 0]), RankedStep(stage_proba[:, 1]), fails]
    seen = []

    def on_error(k, scores, error):
        seen.append(k)
        return scores

    routing = route(steps, rows, thresholds, pieces=pieces, on_error=on_error)
    stage = np.where(stage_proba[:, 0].max(axis=1) >= 0.6, 0, 1)
    np.testing.assert_array_equal(routing.stage, stage)
    np.testing.assert_array_equal(routing.proba, stage_proba[rows, stage])
    assert 0 < routing.failed.sum() < len(rows) and set(seen) == {2}


@pytest.mark.parametrize(
    "as_rows",
    [np.asarray, sparse.csr_array, lambda X: pd.DataFrame(X, columns=["a", "b", "c"])],
    ids=["array", "sparse", "dataframe"],
)
def test_the_carry_holds_the_waiting_rows_of_any_container(as_rows):
    X = np.array([[0.0, 1, 2], [1.0, 3, 4], [0.0, 5, 6], [1.0, 7, 8]])
    got = []

    def first(rows):
        return np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8]]), rows

    def second(rows):
        got.append(rows.toarray() if sparse.issparse(rows) else np.asarray(rows))
        return np.full((rows.shape[0], 2), 0.5), rows

    thresholds = np.array([[0.5, np.inf], [-np.inf, -np.inf]])
    routing = route([first, second], as_rows(X), thresholds)
    np.testing.assert_array_equal(got[0], X[[1, 3]])
    np.testing.assert_array_equal(routing.stage, [0, 1, 0, 1])
    assert routing.cost is None


def test_a_stage_is_not_run_when_no_row_waits():
    def never(rows):
        raise AssertionError("no row is waiting")

    thresholds = np.array([[0.0, 0.0], [-np.inf, -np.inf]])
    routing = route([lambda X: (X, X), never], np.full((3, 2), 0.5), thresholds)
    np.testing.assert_array_equal(routing.stage, [0, 0, 0])


def test_rows_are_not_copied_when_all_pass():
    X = np.full((3, 2), 0.5)
    seen = []
    thresholds = np.array([[np.inf, np.inf], [-np.inf, -np.inf]])
    route([lambda X: (X, X), lambda X: (seen.append(X), (X, X))[1]], X, thresholds)
    assert seen[0] is X


def test_the_steps_own_scores_are_not_changed():
    first = np.array([[0.9, 0.1], [0.1, 0.9]])
    given = first.copy()
    thresholds = np.array([[0.5, np.inf], [-np.inf, -np.inf]])
    route([lambda X: (first, X), lambda X: (np.ones((1, 2)), X)], np.zeros((2, 1)), thresholds)
    np.testing.assert_array_equal(first, given)


def test_reaching_is_inclusive():
    assert reaches(np.array([[0.5, 0.5]]), np.array([0.5, np.inf])).all()
    assert not reaches(np.array([[0.5, 0.5]]), np.nextafter([0.5, 0.5], 1)).any()


def test_repr_tells_the_counts():
    routing = Routing(np.array([0, 0, 1]), np.ones((3, 2)), np.array([1.0, 1.0, 4.0]))
    assert repr(routing) == "Routing(3 rows, answered per stage [2, 1], mean cost 2)"
    assert "unknown" in repr(Routing(np.array([0]), np.ones((1, 2)), None))
