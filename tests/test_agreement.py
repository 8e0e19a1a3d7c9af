"""Agreement: against brute force over all cuts, by hand, and what it promises of new rows.

Also what thresholds act on, and budgets on new rows with the costs of a network's exits.
"""

import itertools

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from skmsc import Agreement, CostBudget, EarlyExitClassifier, PassBudget
from skmsc.thresholds import (
    StageScores,
    acting_scores,
    check_policy,
    eager_stage,
    fit_thresholds,
    rows_needed,
)
from skmsc.thresholds._policies import halves

INF = np.inf
EPS = 1e-9
MEASURES = ("max_proba", "margin", "entropy")
coarse_scores = pytest.mark.filterwarnings("ignore:.*distinct scores")


def stage_scores(proba, *, weight=None, negative=None, measure="max_proba", **known):
    """StageScores of rows of which nobody asks the labels."""
    n_samples, n_stages, _ = proba.shape
    defaults = {"caught": None, "stage_costs": None, "untouched": False}
    return StageScores(
        stage_proba=proba,
        y=np.zeros(n_samples, dtype=int),
        sample_weight=np.ones(n_samples) if weight is None else np.asarray(weight, dtype=float),
        negative=negative,
        stage_names=tuple(f"s{k}" for k in range(n_stages)),
        measure=measure,
        **(defaults | known),
    )


def random_case(seed, n_stages, n_classes, **how):
    """A small case, with ties or without, with weights or without."""
    rng = np.random.default_rng(seed)
    n_samples, levels = rng.integers(6, 16), rng.choice([4, 10, 10**6])
    proba = rng.multinomial(levels, np.full(n_classes, 1 / n_classes), (n_samples, n_stages))
    weight = rng.choice([np.ones(n_samples), rng.integers(1, 4, n_samples), rng.random(n_samples)])
    return stage_scores(proba / levels, weight=weight + 0.01, **how)


def answers_by_loop(scores, thresholds):
    """Stage and class with which each row is answered, in the words of the docstrings."""
    found = []
    for row, acting in zip(scores.stage_proba, scores.acting, strict=True):
        for k in range(scores.n_stages):
            reached = [c for c in range(row.shape[1]) if acting[k, c] >= thresholds[k, c]]
            if k == scores.n_stages - 1:
                found.append((k, int(np.argmax(row[k]))))
            elif reached:
                found.append((k, max(reached, key=lambda c, k=k, acting=acting: acting[k, c])))
                break
    return map(np.array, zip(*found, strict=True))


def lost_shares(scores, thresholds):
    """Share of all rows that get another class than the last stage's, and of each class's rows."""
    _, answer = answers_by_loop(scores, thresholds)
    last, weight = scores.stage_proba[:, -1].argmax(axis=1), scores.sample_weight
    wrong = weight * (answer != last)
    of_class = [wrong[last == c].sum() / weight[last == c].sum() for c in np.unique(last)]
    return wrong.sum() / weight.sum(), max(of_class)


def pass_rate(scores, thresholds):
    stage, _ = answers_by_loop(scores, thresholds)
    return scores.sample_weight[stage == scores.n_stages - 1].sum() / scores.sample_weight.sum()


# What thresholds act on -------------------------------------------------------------------------


def acting_by_loop(row, measure):
    """Acting scores of one row of probabilities."""
    order = np.argsort(-row, kind="stable")
    first, second = row[order[0]], row[order[1]]
    if measure == "max_proba":
        return row
    top = first - second
    if measure == "entropy":
        top = 1 + sum(p * np.log(p) for p in row if p > 0) / np.log(len(row))
    return np.array([top if c == order[0] else p - first for c, p in enumerate(row)])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_acting_scores_are_those_of_a_loop(n_classes, measure):
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.full(n_classes, 0.4), (30, 3))
    proba[0, 0], proba[1, 1] = np.eye(n_classes)[-1], 1 / n_classes
    proba[2, 2] = np.r_[0.5, 0.5, np.zeros(n_classes - 2)]
    given = proba.copy()
    expected = np.array([[acting_by_loop(row, measure) for row in stages] for stages in proba])
    np.testing.assert_allclose(acting_scores(proba, measure), expected, atol=1e-12)
    np.testing.assert_allclose(acting_scores(proba[:, 1], measure), expected[:, 1], atol=1e-12)
    np.testing.assert_array_equal(proba, given)


def test_acting_scores_by_hand():
    proba = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(
        acting_scores(proba, "margin"), [[0.5, -0.5, -0.6], [-1.0, 1.0, -1.0]]
    )
    certainty = 1 + (0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1)) / np.log(3)
    np.testing.assert_allclose(
        acting_scores(proba, "entropy"), [[certainty, -0.5, -0.6], [-1.0, 1.0, -1.0]]
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_confidence_is_from_knowing_nothing_to_certain(measure):
    proba = np.array([[0.5, 0.5], [0.6, 0.4], [0.1, 0.9], [0.0, 1.0]])
    confidence = acting_scores(proba, measure).max(axis=1)
    assert (np.diff(confidence) > 0).all()
    assert confidence[-1] == 1
    assert confidence[0] == pytest.approx(0.5 if measure == "max_proba" else 0)


@pytest.mark.parametrize("n_classes", range(2, 30))
@pytest.mark.parametrize("measure", MEASURES)
def test_a_threshold_of_0_answers_also_a_row_of_which_nothing_is_known(measure, n_classes):
    proba = np.full((1, 2, n_classes), 1 / n_classes)
    scores = stage_scores(proba, measure=measure)
    assert eager_stage(scores.acting, fit_thresholds(0.0, scores)) == [0]


# Two stages: nothing better is possible ---------------------------------------------------------


def one_cut(scores):
    """Threshold matrices of all cuts of the one early stage."""
    acting = scores.acting[:, 0]
    confidence = acting.max(axis=1) if scores.negative is None else acting[:, scores.negative]
    return [scores.matrix([cut]) for cut in [*np.unique(confidence[np.isfinite(confidence)]), INF]]


def two_cuts(scores):
    """Threshold matrices of all cuts of an early stage of two classes, one cut for each answer."""
    acting, answer = scores.acting[:, 0], scores.stage_proba[:, 0].argmax(axis=1)
    choices = [[*np.unique(acting[answer == c, c]), INF] for c in (0, 1)]
    return [np.array([cuts, [-INF, -INF]]) for cuts in itertools.product(*choices)]


def least_pass_rate(scores, matrices, share, per_class):
    """Pass rate of the cheapest matrix that keeps the share."""
    kept = [m for m in matrices if lost_shares(scores, m)[per_class] <= share + EPS]
    return min(pass_rate(scores, m) for m in kept)


@coarse_scores
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(20))
def test_the_cut_is_the_cheapest_that_keeps_the_share(seed, n_classes, measure):
    scores = random_case(seed, 2, n_classes, measure=measure)
    share = np.random.default_rng(seed).choice([0.0, 0.1, 0.3, 1.0])
    got = fit_thresholds(Agreement(share), scores)
    assert lost_shares(scores, got)[0] <= share + EPS
    assert (got[0] == got[0, 0]).all()
    best = least_pass_rate(scores, one_cut(scores), share, per_class=False)
    assert pass_rate(scores, got) == pytest.approx(best)


@coarse_scores
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("n_classes", [3, 5])
@pytest.mark.parametrize("seed", range(20))
def test_one_cut_is_the_cheapest_that_keeps_the_share_in_each_of_many_classes(
    seed, n_classes, measure
):
    scores = random_case(seed, 2, n_classes, measure=measure)
    share = np.random.default_rng(seed).choice([0.0, 0.2, 0.5])
    got = fit_thresholds(Agreement(share, per_class=True), scores)
    assert lost_shares(scores, got)[1] <= share + EPS
    assert (got[0] == got[0, 0]).all()
    best = least_pass_rate(scores, one_cut(scores), share, per_class=True)
    assert pass_rate(scores, got) == pytest.approx(best)


@coarse_scores
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("seed", range(40))
def test_two_cuts_are_the_cheapest_that_keep_the_share_in_both_classes(seed, measure):
    scores = random_case(seed, 2, 2, measure=measure)
    share = np.random.default_rng(seed).choice([0.0, 0.2, 0.5])
    got = fit_thresholds(Agreement(share, per_class=True), scores)
    assert lost_shares(scores, got)[1] <= share + EPS
    best = least_pass_rate(scores, two_cuts(scores), share, per_class=True)
    assert pass_rate(scores, got) == pytest.approx(best)


@coarse_scores
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("negative", [0, 1])
@pytest.mark.parametrize("seed", range(20))
def test_a_cascade_that_answers_one_class_only(seed, negative, per_class):
    scores = random_case(seed, 2, 2, negative=negative)
    share = np.random.default_rng(seed).choice([0.0, 0.2, 0.5])
    got = fit_thresholds(Agreement(share, per_class=per_class), scores)
    assert got[0, 1 - negative] == INF
    assert lost_shares(scores, got)[per_class] <= share + EPS
    best = least_pass_rate(scores, one_cut(scores), share, per_class)
    assert pass_rate(scores, got) == pytest.approx(best)


def test_a_rare_class_is_kept_only_with_per_class():
    # 98 rows are surely of class 0; the first stage says so of the two others as well.
    early = np.r_[np.linspace(0.6, 0.99, 98), 0.9, 0.95]
    last = np.r_[np.full(98, 0.9), 0.1, 0.1]
    proba = np.stack([np.stack([p, 1 - p], axis=1) for p in (early, last)], axis=1)
    scores = stage_scores(proba)
    of_all = fit_thresholds(Agreement(0.02), scores)
    assert (eager_stage(proba, of_all) == 0).all()
    kept = fit_thresholds(Agreement(0.02, per_class=True), scores)
    assert (eager_stage(proba, kept)[-2:] == 1).all()
    assert (eager_stage(proba, kept) == 0).sum() == (early > 0.95).sum()


@coarse_scores
def test_each_answer_of_two_classes_has_a_cut_of_its_own_by_hand():
    # Positive scores. The last stage calls the first ten rows negative, the others positive.
    early = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.6, 0.7,
                      0.4, 0.12, 0.55, 0.65, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99])  # fmt: skip
    last = np.repeat([0.1, 0.9], 10)
    proba = np.stack([np.stack([1 - p, p], axis=1) for p in (early, last)], axis=1)
    got = fit_thresholds(Agreement(0.1, per_class=True), stage_scores(proba))
    # The answer 0 may lose one of the ten positives, that of 0.12, but not that of 0.4: the cut is
    # between 0.35 and 0.4. The answer 1 may lose the negative of 0.7, but not that of 0.6.
    np.testing.assert_allclose(got, [[1 - 0.375, 0.625], [-INF, -INF]])


@coarse_scores
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_a_weight_of_two_is_the_row_twice(seed, n_classes, per_class):
    rng = np.random.default_rng(seed)
    proba, weight = rng.dirichlet(np.ones(n_classes), (40, 3)), rng.integers(1, 30, 40)
    policy = Agreement(0.1, per_class=per_class)
    weighted = fit_thresholds(policy, stage_scores(proba, weight=weight))
    repeated = fit_thresholds(policy, stage_scores(proba.repeat(weight, axis=0)))
    np.testing.assert_array_equal(weighted, repeated)


# More stages: the promise holds on the rows -----------------------------------------------------


@coarse_scores
@pytest.mark.parametrize(
    "n_classes, negative, measure",
    [(2, 0, "max_proba"), (2, 1, "max_proba"), *itertools.product([2, 4], [None], MEASURES)],
)
@pytest.mark.parametrize("n_stages", [3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_more_stages_keep_the_share(seed, n_stages, n_classes, negative, measure):
    scores = random_case(seed, n_stages, n_classes, negative=negative, measure=measure)
    for share in (0.0, 0.1, 0.4):
        got = fit_thresholds(Agreement(share), scores)
        assert lost_shares(scores, got)[0] <= share + EPS
        got = fit_thresholds(Agreement(share, per_class=True), scores)
        assert lost_shares(scores, got)[1] <= share + EPS


def test_what_a_stage_leaves_over_goes_to_the_next():
    # The row that the first stage is surest of is heavy and wrong: it answers none. The second may
    # then lose all 12 of 159, not half of them, of the 20 rows that it is least sure of.
    weight = np.r_[100, np.ones(59)]
    first, sure = np.r_[0.01, np.linspace(0.6, 0.9, 59)], np.linspace(0.99, 0.51, 60)
    second = np.where(np.arange(60) < 40, sure, 1 - sure)
    proba = of_two(first, second, np.full(60, 0.9))
    thresholds = fit_thresholds(Agreement(12 / 159), stage_scores(proba, weight=weight))
    stage = eager_stage(proba, thresholds)
    np.testing.assert_array_equal(stage, np.where(np.arange(60) < 52, 1, 2))


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_a_larger_share_never_passes_more_rows(seed, n_classes, per_class):
    rng = np.random.default_rng(seed)
    scores, new = (stage_scores(rng.dirichlet(np.ones(n_classes), (80, 2))) for _ in range(2))
    policies = [Agreement(share, per_class=per_class) for share in np.linspace(0, 1, 12)]
    stages = [eager_stage(new.acting, fit_thresholds(policy, scores)) for policy in policies]
    assert (np.diff(stages, axis=0) <= 0).all()
    assert len({stage.sum() for stage in stages}) > 2


# With confidence: two stages ---------------------------------------------------------------------


def of_two(*columns):
    """Probabilities of shape (n, n_stages, 2) from those of class 0 at each stage."""
    return np.stack([np.stack([p, 1 - p], axis=1) for p in map(np.asarray, columns)], axis=1)


ROWS_NEEDED = pytest.mark.parametrize(
    "share, confidence, needed",
    # ceil(log(1 - confidence) / log(1 - share)): 298.07, 44.9, 58.4, 22.85, 113.97, and 2 up to
    # the rounding of the binomial test.
    [
        *((0.01, 0.95, 299), (0.05, 0.9, 45), (0.05, 0.95, 59), (0.1, 0.91, 23), (0.02, 0.9, 114)),
        (0.3, 0.51, 2),
    ],
)


@coarse_scores
@ROWS_NEEDED
def test_the_rows_needed_are_the_fewest_that_suffice(share, confidence, needed):
    policy = Agreement(share, confidence=confidence)
    assert (1 - share) ** needed <= 1 - confidence < (1 - share) ** (needed - 1)
    assert rows_needed(policy, 1, 3) == rows_needed(policy, 2, 3) == (needed, 0)
    score = np.linspace(0.6, 0.9, needed)
    enough = stage_scores(of_two(score, score), untouched=True)
    assert (eager_stage(enough.acting, fit_thresholds(policy, enough)) == 0).all()
    few = enough.only(slice(1, None))
    with pytest.raises(ValueError) as caught:
        fit_thresholds(policy, few)
    assert str(caught.value) == (
        f"{policy!r} cannot be promised: it needs {needed} rows among the rows that it is set on; "
        f"got {needed - 1}."
    )


def test_without_confidence_no_rows_are_needed():
    assert rows_needed(Agreement(0.01), 3, 2) == (0, 0)
    assert rows_needed(Agreement(1.0, confidence=0.9), 2, 2) == (1, 0)
    assert rows_needed(Agreement(1.0, confidence=0.9), 3, 2) == (2, 0)


# One cut takes log(.1) / log(.9) rows of each class, two cuts log(.05) / log(.9).
@pytest.mark.parametrize("negative, needed", [(0, 22), (None, 29)])
def test_the_rows_needed_are_counted_in_each_class(negative, needed):
    policy = Agreement(0.1, per_class=True, confidence=0.9)
    score = np.r_[np.linspace(0.6, 0.9, 50), np.linspace(0.1, 0.4, needed)]
    enough = stage_scores(of_two(score, score), negative=negative, untouched=True)
    stage = eager_stage(enough.acting, fit_thresholds(policy, enough))
    np.testing.assert_array_equal(
        stage == 0, np.full(score.size, True) if negative is None else score > 0.5
    )
    match = rf"it needs {needed} rows of each class among the rows .*; got {needed - 1}\.$"
    with pytest.raises(ValueError, match=match):
        fit_thresholds(policy, enough.only(slice(0, -1)))


@coarse_scores
def test_the_cut_by_hand():
    # The 50 of 100 rows with the lower scores of the first stage disagree. Were the chance of that
    # one in five, at most 14 would with one of 0.080, at most 15 with one of 0.129.
    assert binom.cdf(14, 100, 0.2) <= 0.1 < binom.cdf(15, 100, 0.2)
    early, policy = np.linspace(0.999, 0.501, 100), Agreement(0.2, confidence=0.9)
    last = np.repeat([0.9, 0.1], 50)
    got = fit_thresholds(policy, stage_scores(of_two(early, last), untouched=True))
    np.testing.assert_allclose(got[0], (early[63] + early[64]) / 2)
    # All rows tie, and half of them disagree.
    tied = stage_scores(of_two(np.full(100, 0.8), last), untouched=True)
    with pytest.warns(UserWarning, match="lets no early stage answer: even the safest") as caught:
        got = fit_thresholds(policy, tied)
    assert sum("no early stage" in str(one.message) for one in caught) == 1
    np.testing.assert_array_equal(got, [[INF, INF], [-INF, -INF]])


def lost_rows(scores, thresholds):
    """How many rows of each class get another one."""
    last = scores.stage_proba[:, -1].argmax(axis=1)
    wrong = scores.early_answers(thresholds) != last
    return np.bincount(last[wrong], minlength=scores.stage_proba.shape[2])


@coarse_scores
@pytest.mark.filterwarnings("ignore:Agreement.* lets no early stage answer:UserWarning")
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("n_classes, negative", [(2, None), (2, 1), (4, None)])
@pytest.mark.parametrize("seed", range(5))
def test_the_cheapest_cuts_whose_losses_prove_the_share(
    seed, n_classes, negative, per_class, measure
):
    rng, share, confidence = np.random.default_rng(seed), 0.3, 0.8
    opinion = rng.dirichlet(np.full(n_classes, 0.5), 80)
    proba = np.stack([opinion, 0.7 * opinion + 0.3 * rng.dirichlet(np.ones(n_classes), 80)], axis=1)
    proba = np.round(proba, rng.choice([1, 6]))
    scores = stage_scores(
        proba, weight=np.full(80, 0.7), negative=negative, measure=measure, untouched=True
    )
    has_two_cuts = per_class and n_classes == 2 and negative is None
    error = (1 - confidence) / (2 if has_two_cuts else 1)
    matrices = two_cuts(scores) if has_two_cuts else one_cut(scores)
    n_rows = np.bincount(scores.stage_proba[:, -1].argmax(axis=1)) if per_class else [80]
    most = [max(d for d in range(n) if binom.cdf(d, n, share) <= error) for n in n_rows]

    def is_proven(matrix):
        lost = lost_rows(scores, matrix)
        return (lost <= most).all() if per_class else lost.sum() <= most[0]

    def n_passing(matrix):
        return (eager_stage(scores.acting, matrix) == 1).sum()

    got = fit_thresholds(Agreement(share, per_class, confidence), scores)
    assert is_proven(got)
    assert n_passing(got) == min(n_passing(m) for m in matrices if is_proven(m))


# With confidence: more stages --------------------------------------------------------------------


def interleaved(propose, test):
    """Rows of which those of the one half propose and those of the other test."""
    proba = np.empty((len(propose) + len(test), *propose.shape[1:]))
    for rows, part in zip(halves(len(proba)), (propose, test), strict=True):
        proba[rows] = part
    return proba


def behind_a_blind_stage(early, last):
    """Three stages of which the first calls all rows class 1: it is never let answer."""
    return of_two(np.full(len(early), 0.45), early, last)


@coarse_scores
@ROWS_NEEDED
def test_the_rows_needed_are_the_fewest_that_suffice_in_either_half(share, confidence, needed):
    policy = Agreement(share, confidence=confidence)
    assert rows_needed(policy, 3, 3) == rows_needed(policy, 5, 3) == (2 * needed, 0)
    score = np.linspace(0.6, 0.9, needed)
    half = behind_a_blind_stage(score, score)
    enough = stage_scores(interleaved(half, half), untouched=True)
    assert (eager_stage(enough.acting, fit_thresholds(policy, enough)) == 1).all()
    few = stage_scores(interleaved(half, half[1:]), untouched=True)
    with pytest.raises(ValueError) as caught:
        fit_thresholds(policy, few)
    assert str(caught.value) == (
        f"{policy!r} cannot be promised: half of the rows test it, and that must be {needed} rows; "
        f"got {needed - 1}."
    )


@coarse_scores
def test_the_rows_needed_are_counted_in_each_class_of_a_half():
    policy = Agreement(0.1, per_class=True, confidence=0.9)  # 22 rows
    score = np.r_[np.linspace(0.6, 0.9, 50), np.linspace(0.1, 0.4, 22)]
    half = behind_a_blind_stage(score, score)
    enough = stage_scores(interleaved(half, half), untouched=True)
    assert (eager_stage(enough.acting, fit_thresholds(policy, enough)) == 1).all()
    few = stage_scores(interleaved(half, half[:-1]), untouched=True)
    match = r"must be 22 rows of each class; got 21\.$"
    with pytest.raises(ValueError, match=match):
        fit_thresholds(policy, few)


@coarse_scores
def test_the_family_is_walked_by_hand():
    # Both halves: 100 rows, of which the 50 with the lower scores of the second stage disagree. A
    # share s of the family answers 50 + 100 s of them. At most 14 of 100 may disagree: the chance
    # of so few is 0.080 where one in five does, of 15 0.129.
    assert binom.cdf(14, 100, 0.2) <= 0.1 < binom.cdf(15, 100, 0.2)
    early = np.linspace(0.999, 0.501, 100)
    last = np.repeat([0.9, 0.1], 50)
    half = behind_a_blind_stage(early, last)
    got = fit_thresholds(
        Agreement(0.2, confidence=0.9), stage_scores(interleaved(half, half), untouched=True)
    )
    np.testing.assert_allclose(got[1], (early[63] + early[64]) / 2)
    # Were the tested rows to disagree from the best on, the walk would end at its first step.
    bad = behind_a_blind_stage(early, 1 - last)
    with pytest.warns(UserWarning, match="lets no early stage answer: even the safest"):
        got = fit_thresholds(
            Agreement(0.2, confidence=0.9), stage_scores(interleaved(half, bad), untouched=True)
        )
    np.testing.assert_array_equal(got, [[INF, INF], [INF, INF], [-INF, -INF]])


@coarse_scores
def test_the_two_halves_have_roles():
    score, last = np.linspace(0.6, 0.9, 100), np.where(np.arange(100) < 20, 0.1, 0.9)
    agreeing = behind_a_blind_stage(score, np.full(100, 0.9))
    differing = behind_a_blind_stage(score, last)
    policy = Agreement(0.2, confidence=0.9)
    # What agrees throughout proposes, from the first step on, to answer all; of the rows that test
    # 20 of 100 are lost, which is too many.
    proba = interleaved(agreeing, differing)
    with pytest.warns(UserWarning, match="lets no early stage answer"):
        got = fit_thresholds(policy, stage_scores(proba, untouched=True))
    assert (eager_stage(proba, got) == 2).all()
    # The other way round all is answered in the end, and of what tests nothing is lost.
    proba = interleaved(differing, agreeing)
    got = fit_thresholds(policy, stage_scores(proba, untouched=True))
    assert (eager_stage(proba, got) == 1).all()


@coarse_scores
def test_per_class_every_class_must_pass():
    # Of class 1, as the last stage tells it, 40 rows are tested: at most 3 of them may be lost
    # (0.0285), while of the 160 of class 0 the second stage loses none.
    assert binom.cdf(4, 40, 0.2) <= 0.1 < binom.cdf(5, 40, 0.2)
    early = np.r_[np.linspace(0.99, 0.51, 160), np.linspace(0.505, 0.985, 20), np.full(20, 0.01)]
    last = np.r_[np.full(160, 0.9), np.full(40, 0.1)]
    half = behind_a_blind_stage(early, last)
    scores = stage_scores(interleaved(half, half), untouched=True)
    got = fit_thresholds(Agreement(0.2, per_class=True, confidence=0.9), scores)
    wrong = (eager_stage(half, got) == 1) & (last == 0.1) & (early > 0.5)
    assert wrong.sum() == 4
    # Of all 200 tested rows at most 32 may be lost, so that without per_class all is answered.
    assert binom.cdf(20, 200, 0.2) <= 0.1
    got = fit_thresholds(Agreement(0.2, confidence=0.9), scores)
    assert (eager_stage(half, got) == 1).all()


def test_it_is_refused_on_rows_that_were_seen_or_weigh_unequally():
    score, policy = np.linspace(0.6, 0.9, 200), Agreement(0.1, confidence=0.9)
    proba = of_two(score, score)
    with pytest.raises(ValueError, match="promises its confidence only on rows that no stage"):
        fit_thresholds(policy, stage_scores(proba))
    weight = np.linspace(1, 2, 200)
    with pytest.raises(ValueError, match="for equally weighted rows only; got sample_weight"):
        fit_thresholds(policy, stage_scores(proba, weight=weight, untouched=True))
    heavy = stage_scores(proba, weight=np.full(200, 3.0), untouched=True)
    assert (eager_stage(proba, fit_thresholds(policy, heavy)) == 0).all()


@pytest.mark.parametrize(
    "policy, error, message",
    [
        (Agreement(1.1), ValueError, "max_disagreement of .* must be in \\[0, 1\\]; got 1.1"),
        (Agreement(np.nan), ValueError, "max_disagreement of .* must be in \\[0, 1\\]; got nan"),
        (Agreement("a"), TypeError, "max_disagreement .* must be a number in \\[0, 1\\]; got 'a'"),
        (Agreement(per_class="yes"), TypeError, "per_class must be True or False; got 'yes'"),
        (Agreement(per_class=1), TypeError, "per_class must be True or False; got 1"),
        (Agreement(per_class=None), TypeError, "per_class must be True or False; got None"),
        (Agreement(confidence=1), ValueError, "confidence must be .* \\(0, 1\\) or None; got 1"),
        (Agreement(confidence="a"), ValueError, "confidence must be .* or None; got 'a'"),
        (Agreement(confidence=True), ValueError, "confidence must be .* or None; got True"),
        (Agreement(0, confidence=0.9), ValueError, "max_disagreement=0 cannot be promised"),
    ],
    ids=repr,
)
def test_bad_parameters(policy, error, message):
    with pytest.raises(error, match=message):
        check_policy(policy, n_stages=3, n_classes=3, untouched=True)


# Statistics: untouched rows ---------------------------------------------------------------------


def population(n_classes, share_of_last, digits, n_samples=10_000, n_stages=3):
    """Scores of many rows: every stage sees the last one's opinion through less noise.

    `share_of_last` is the share of the rows that the last stage puts into the last class.
    """
    rng = np.random.default_rng(0)
    base = 2.5 * rng.normal(size=(n_samples, n_classes))
    lead = base[:, -1] - base[:, :-1].max(axis=1)
    base[:, -1] -= np.quantile(lead, 1 - share_of_last)
    logits = np.stack(
        [base + noise * rng.normal(size=base.shape) for noise in np.linspace(2.0, 0.0, n_stages)],
        axis=1,
    )
    proba = np.exp(logits - logits.max(axis=2, keepdims=True))
    proba /= proba.sum(axis=2, keepdims=True)
    early = np.round(proba[:, :-1], digits)
    return np.concatenate([early, proba[:, -1:]], axis=1)


def risks(proba, thresholds):
    """True chance of another class than the last stage's: of a row, and of one of each class."""
    scores = stage_scores(proba)
    last = scores.answers[:, -1]
    wrong = scores.early_answers(thresholds) != last
    of_class = [wrong[last == c].mean() for c in range(proba.shape[2])]
    return wrong.mean(), max(of_class)


def share_of_violations(policy, proba, n_rows, n_draws):
    """Over resamples of so many rows: how often the true chance is above what is promised."""
    rng, above = np.random.default_rng(1), []
    for _ in range(n_draws):
        rows = proba[rng.integers(len(proba), size=n_rows)]
        thresholds = fit_thresholds(policy, stage_scores(rows, untouched=True))
        risk = risks(proba, thresholds)[bool(policy.per_class)]
        above.append(risk > policy.max_disagreement + EPS)
    return np.mean(above)


def most_violations(confidence, n_draws):
    """Three standard errors above what may be violated."""
    error = 1 - confidence
    return error + 3 * np.sqrt(error * (1 - error) / n_draws)


STATISTICS = pytest.mark.parametrize(
    "n_classes, share_of_last, digits, n_rows, policy",
    [
        pytest.param(4, 0.25, 12, 600, Agreement(0.02), id="many classes"),
        pytest.param(3, 0.33, 12, 1500, Agreement(0.02, per_class=True), id="each of many"),
        pytest.param(4, 0.25, 2, 600, Agreement(0.02), id="many classes, ties"),
        pytest.param(2, 0.5, 2, 800, Agreement(0.02), id="two classes, ties"),
        pytest.param(2, 0.02, 12, 9000, Agreement(0.05, per_class=True), id="rare positives"),
        pytest.param(2, 0.02, 2, 9000, Agreement(0.05, per_class=True), id="rare, ties"),
        pytest.param(2, 0.005, 12, 1600, Agreement(0.004), id="one in 200"),
        pytest.param(2, 0.005, 2, 1600, Agreement(0.004), id="one in 200, ties"),
    ],
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Agreement.* lets no early stage answer:UserWarning")
@pytest.mark.parametrize("n_stages", [2, 3])
@STATISTICS
def test_a_certified_agreement_is_rarely_violated(
    n_classes, share_of_last, digits, n_rows, policy, n_stages
):
    policy = clone(policy).set_params(confidence=0.9)
    proba = population(n_classes, share_of_last, digits, n_stages=n_stages)
    violated = share_of_violations(policy, proba, n_rows, 1000)
    assert violated <= most_violations(0.9, 1000)


@pytest.mark.filterwarnings("ignore:Agreement.* lets no early stage answer:UserWarning")
@pytest.mark.parametrize(
    "n_classes, n_stages, per_class", [(3, 2, False), (3, 2, True), (2, 2, True), (3, 3, False)]
)
def test_a_certified_agreement_is_rarely_violated_in_few_draws(n_classes, n_stages, per_class):
    proba = population(n_classes, 0.33, 12, n_samples=5000, n_stages=n_stages)
    policy = Agreement(0.05, per_class, confidence=0.8)
    assert share_of_violations(policy, proba, 250, 150) <= most_violations(0.8, 150)


def test_the_test_sees_an_agreement_that_promises_too_much():
    # Set on the sample itself it is violated in about half of the draws.
    proba = population(3, 0.33, 12, n_samples=5000, n_stages=2)
    assert share_of_violations(Agreement(0.05), proba, 200, 100) > 0.3


@pytest.mark.parametrize("n_stages", [2, 3])
@pytest.mark.parametrize("per_class", [False, True])
def test_a_certified_agreement_is_not_timid(per_class, n_stages):
    # On many rows it comes near the share that it may lose.
    proba = population(2, 0.3, 12, n_stages=n_stages)
    policy = Agreement(0.05, per_class=per_class, confidence=0.9)
    got = fit_thresholds(policy, stage_scores(proba[:8000], untouched=True))
    assert risks(proba, got)[per_class] > 0.03


# Statistics: budgets on new rows, with the costs of a network's exits ---------------------------


@pytest.fixture(scope="module")
def of_a_net():
    """Scores of many rows by a fitted early-exit classifier, and its costs."""
    from skmsc.neural import MultiExitNet

    X, y = make_classification(9000, 8, n_informative=5, n_redundant=0, n_classes=3, random_state=0)
    net = MultiExitNet(width=12, depth=2, max_epochs=5, lr=0.01, random_state=0)
    model = EarlyExitClassifier(LogisticRegression(), net, exit_weighting="uniform", random_state=0)
    model.fit(X[:1000], y[:1000])
    return model.stage_proba(X[1000:]), model.stage_costs_


def misses(policy, proba, costs, budget, n_draws, n_val=500, n_new=2000):
    """|realised - budget| on new rows in units of its standard deviation, for many draws."""
    rng, found = np.random.default_rng(0), []
    for _ in range(n_draws):
        idx = rng.permutation(len(proba))[: n_val + n_new]
        scores = stage_scores(proba[idx[:n_val]], stage_costs=costs)
        thresholds = fit_thresholds(policy, scores)
        spent = np.cumsum(costs)[eager_stage(proba[idx[n_val:]], thresholds)]
        found.append((spent.mean() - budget) / (spent.std() * np.sqrt(1 / n_val + 1 / n_new)))
    return np.array(found)


@pytest.mark.parametrize("spread", ["geometric", "agreement"])
@pytest.mark.parametrize("max_cost", [0.25, 0.5, 0.8])
def test_new_rows_cost_what_a_cost_budget_says(of_a_net, max_cost, spread):
    proba, costs = of_a_net
    assert costs.sum() == pytest.approx(1)
    found = misses(CostBudget(max_cost, spread=spread), proba, costs, max_cost, 200)
    assert np.mean(np.abs(found) <= 3) >= 0.98
    assert np.abs(found).max() > 0.5


@pytest.mark.parametrize("spread", ["geometric", "agreement"])
@pytest.mark.parametrize("rate", [0.1, 0.4, 0.8])
def test_as_many_new_rows_pass_as_a_pass_budget_says(of_a_net, rate, spread):
    proba, _ = of_a_net
    only_last = np.array([0.0, 0.0, 1.0])
    found = misses(PassBudget(rate, spread=spread), proba, only_last, rate, 200)
    assert np.mean(np.abs(found) <= 3) >= 0.98
    assert np.abs(found).max() > 0.5
