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
    assert seen == [60, 60, 60, 20]
    for name in ("stage", "proba", "cost"):
        np.testing.assert_array_equal(getattr(sliced, name), getattr(together, name))


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
