"""What thresholds promise, over resamples and all cuts; what the answers of cascades promise."""

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from scipy.stats import binom, norm
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from skmsc import Agreement, CostBudget, FeedbackCascadeClassifier, PassBudget, RecallFloor
from skmsc.thresholds import StageScores, caught_positives_needed, eager_stage, fit_thresholds

coarse_scores = pytest.mark.filterwarnings("ignore:.*distinct scores")
EPS = 1e-9


def stage_scores(proba, y, *, weight=None, negative=0, caught=None, costs=None, untouched=False):
    return StageScores(
        stage_proba=proba,
        y=y,
        sample_weight=np.ones(y.size) if weight is None else weight,
        negative=negative,
        caught=(y != negative) if caught is None and negative is not None else caught,
        stage_costs=costs,
        stage_names=tuple(f"s{k}" for k in range(proba.shape[1])),
        untouched=untouched,
    )


# A recall floor with confidence: violated in at most a share delta of all draws ------------------

SHIFT = 1.5  # positives' mean log-odds at every stage; negatives have 0, both standard deviation 1


def draw_scores(rng, n_samples, n_stages, share, digits):
    """Rows whose scores have a known distribution, independent from stage to stage."""
    y = (rng.random(n_samples) < share).astype(int)
    score = np.round(expit(rng.normal(size=(n_samples, n_stages)) + SHIFT * y[:, None]), digits)
    return stage_scores(np.stack([1 - score, score], axis=2), y, untouched=True)


def true_recall(thresholds, digits):
    """Chance that a new positive reaches the last stage: it passes where 1 - score < threshold."""
    grid = np.arange(10**digits + 1) / 10**digits
    upper = logit(np.clip(grid + 0.5 / 10**digits, 0, 1))
    mass = np.diff(norm.cdf(upper - SHIFT), prepend=0.0)
    return np.prod([mass[1 - grid < cut].sum() for cut in thresholds[:-1, 0]])


def share_of_violations(n_draws, *, policy, seed=0, **setting):
    rng, digits = np.random.default_rng(seed), setting["digits"]
    recalls = [
        true_recall(fit_thresholds(policy, draw_scores(rng, **setting)), digits)
        for _ in range(n_draws)
    ]
    return np.mean(np.array(recalls) < policy.min_recall - EPS)


def most_violations(n_draws, confidence):
    """Share that a chance of 1 - confidence exceeds once in a thousand such tests."""
    return binom.ppf(0.999, n_draws, 1 - confidence) / n_draws


# Scores of four digits are continuous for this purpose, of two tie by the dozen.
@pytest.mark.parametrize("digits", [4, 2])
@pytest.mark.parametrize("n_stages", [2, 3])
@pytest.mark.parametrize("min_recall, confidence", [(0.9, 0.9), (0.95, 0.8)])
@pytest.mark.parametrize("n_samples, share, n_draws", [(400, 0.5, 2000), (30000, 0.005, 1000)])
@pytest.mark.slow
def test_a_certified_floor_is_rarely_violated(
    n_samples, share, n_draws, min_recall, confidence, n_stages, digits
):
    violated = share_of_violations(
        n_draws,
        policy=RecallFloor(min_recall, confidence=confidence),
        n_samples=n_samples,
        n_stages=n_stages,
        share=share,
        digits=digits,
    )
    assert violated <= most_violations(n_draws, confidence)


@pytest.mark.parametrize("n_stages", [2, 3])
def test_a_certified_floor_is_rarely_violated_in_few_draws(n_stages):
    policy = RecallFloor(0.9, confidence=0.8)
    setting = {"n_samples": 200, "n_stages": n_stages, "share": 0.5, "digits": 3}
    violated = share_of_violations(300, policy=policy, **setting)
    assert violated <= most_violations(300, 0.8)


def test_the_test_sees_a_floor_that_promises_too_much():
    # A floor set on the sample itself is violated in about half of the draws.
    setting = {"n_samples": 200, "n_stages": 2, "share": 0.5, "digits": 4}
    violated = share_of_violations(300, policy=RecallFloor(0.9), **setting)
    assert violated > 0.3


def test_a_certified_floor_is_not_timid():
    # If each of 200 positives is lost with a chance of .1, at most 14 are with a chance of .093, at
    # most 15 with one of .143: at a confidence of .9 losing 14 proves the floor, 15 does not.
    assert binom.cdf(14, 200, 0.1) <= 0.1 < binom.cdf(15, 200, 0.1)
    score = np.linspace(0.1, 0.9, 200)
    proba = np.stack([1 - score, score], axis=1)[:, None].repeat(2, axis=1)
    scores = stage_scores(proba, np.ones(200, dtype=int), untouched=True)
    thresholds = fit_thresholds(RecallFloor(0.9, confidence=0.9), scores)
    assert (eager_stage(proba, thresholds) == 0).sum() == 14


@coarse_scores
@pytest.mark.parametrize("n_stages", [2, 3, 4])
@pytest.mark.parametrize("min_recall", [0.6, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_positives_needed_are_the_fewest_that_suffice(n_stages, min_recall, confidence):
    policy = RecallFloor(min_recall, confidence=confidence)
    needed = caught_positives_needed(policy, n_stages)
    score = np.r_[np.linspace(0.1, 0.9, needed), 0.05]  # the last row is the only negative
    proba = np.stack([1 - score, score], axis=1)[:, None].repeat(n_stages, axis=1)
    y = np.r_[np.ones(needed, dtype=int), 0]
    enough = stage_scores(proba, y, untouched=True)
    rejected = eager_stage(proba, fit_thresholds(policy, enough)) == 0
    np.testing.assert_array_equal(rejected, y == 0)
    one_less = stage_scores(proba[1:], y[1:], untouched=True)
    with pytest.raises(ValueError, match=f"it needs {needed} .* got {needed - 1}"):
        fit_thresholds(policy, one_less)


class Sees(LogisticRegression):
    """Logistic regression on some columns; a pipeline would take half as long again."""

    def __init__(self, columns):
        super().__init__()
        self.columns = columns

    def fit(self, X, y, sample_weight=None):
        return super().fit(X[:, self.columns], y, sample_weight)

    def predict_proba(self, X):
        return super().predict_proba(X[:, self.columns])


@pytest.mark.parametrize("of", ["caught", "positives"])
@pytest.mark.slow
def test_a_certified_floor_end_to_end(of):
    # Columns are independent within a class, so whether the last stage catches a positive tells
    # nothing of its score by the screen, whose log-odds are normal with known mean and variance.
    rng, mean, n_draws = np.random.default_rng(0), np.array([1.2, 0.6, 1.5]), 200
    floor = RecallFloor(0.85, of=of, confidence=0.9)
    cascade = FeedbackCascadeClassifier(
        [("screen", Sees([0, 1])), ("final", Sees([2]))],
        thresholds=floor,
        validation_fraction=0.4,
        cv=2,
    )
    violations = 0
    for seed in range(n_draws):
        y = (rng.random(600) < 0.3).astype(int)
        X = rng.normal(size=(600, 3)) + y[:, None] * mean
        cascade.set_params(random_state=seed).fit(X, y)
        screen = cascade.named_stages_["screen"]
        centre = screen.coef_[0] @ mean[:2] + screen.intercept_[0]
        cut = logit(1 - cascade.thresholds_[0, 0])
        recall = norm.sf((cut - centre) / np.linalg.norm(screen.coef_[0]))
        violations += recall < floor.min_recall
    assert violations / n_draws <= most_violations(n_draws, 0.9)


# Budgets and floors on the rows that they were set on ------------------------------------------


def random_case(rng, n_stages, n_classes=2, n_samples=None):
    """Scores with or without ties, with or without weights, either class the negative one."""
    n_samples = n_samples or rng.integers(4, 25)
    levels = rng.choice([2, 4, 7, 1000])
    proba = rng.multinomial(levels, np.full(n_classes, 1 / n_classes), (n_samples, n_stages))
    proba = proba / levels
    negative = int(rng.integers(2)) if n_classes == 2 else None
    y = rng.integers(n_classes, size=n_samples)
    caught = None if negative is None else (y != negative) & (proba[:, -1, negative] <= 0.7)
    weight = rng.choice([rng.random(n_samples) + 0.01, rng.integers(1, 4, n_samples) * 1.0])
    costs = np.r_[1.0, rng.choice([0.5, 2.0, 10.0], n_stages - 1)]
    return stage_scores(proba, y, weight=weight, negative=negative, caught=caught, costs=costs)


def what_every_cut_does(scores):
    """Masks of the rows that the first of two stages answers, one for each possible cut."""
    confidence = scores.confidence(0)
    return [confidence >= cut for cut in [-np.inf, *np.unique(confidence), np.inf]]


def share(scores, rows):
    """Weighted share of the rows."""
    return scores.sample_weight[rows].sum() / scores.sample_weight.sum()


def share_that_passes(policy, scores):
    return scores.pass_rates(fit_thresholds(policy, scores))[-1]


@coarse_scores
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("seed", range(40))
def test_two_stages_pass_what_no_other_cut_betters(seed, n_classes):
    rng = np.random.default_rng(seed)
    scores = random_case(rng, 2, n_classes)
    answered = what_every_cut_does(scores)
    passes = np.array([share(scores, ~rows) for rows in answered])

    budget = rng.choice([0, 0.1, 0.3, 0.5, 1, rng.random()])
    most = passes[passes <= budget + EPS].max()
    assert share_that_passes(PassBudget(budget), scores) == pytest.approx(most)

    budget = 1 + rng.random() * scores.stage_costs[1]
    most = passes[1 + passes * scores.stage_costs[1] <= budget + EPS].max()
    assert share_that_passes(CostBudget(budget), scores) == pytest.approx(most)

    allowed = rng.choice([0, 0.01, 0.2, rng.random()])
    loss = np.array([share(scores, rows & scores.disagrees(0)) for rows in answered])
    least = passes[loss <= allowed + EPS].min()
    assert share_that_passes(Agreement(allowed), scores) == pytest.approx(least)


@coarse_scores
@pytest.mark.parametrize("of", ["caught", "positives"])
@pytest.mark.parametrize("seed", range(40))
def test_two_stages_keep_the_floor_at_the_lowest_pass_rate(seed, of):
    rng = np.random.default_rng(seed)
    scores = random_case(rng, 2, n_samples=20)
    kept = {"caught": scores.caught, "positives": scores.y != scores.negative}[of]
    floor = rng.choice([1, 0.99, 0.5, 0.01 + 0.98 * rng.random()])
    answered = what_every_cut_does(scores)
    passes = np.array([share(scores, ~rows) for rows in answered])
    recall = np.array([share(scores, ~rows & kept) for rows in answered]) / share(scores, kept)
    least = passes[recall >= floor - EPS].min()
    assert share_that_passes(RecallFloor(floor, of=of), scores) == pytest.approx(least)


@coarse_scores
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("n_stages", [3, 4])
@pytest.mark.parametrize("seed", range(40))
def test_more_stages_keep_every_promise(seed, n_stages, n_classes):
    rng = np.random.default_rng(seed)
    scores = random_case(rng, n_stages, n_classes)
    budget = rng.random()
    assert share_that_passes(PassBudget(budget), scores) <= budget + EPS

    rates = np.sort(rng.random(n_stages - 1))[::-1]
    reached = scores.pass_rates(fit_thresholds(PassBudget(rates), scores))[1:]
    assert (reached <= rates + EPS).all()

    budget = 1 + rng.random() * scores.stage_costs[1:].sum()
    spent = scores.pass_rates(fit_thresholds(CostBudget(budget), scores)) @ scores.stage_costs
    assert spent <= budget * (1 + EPS)

    allowed = rng.random() / 2
    stage = eager_stage(scores.stage_proba, fit_thresholds(Agreement(allowed), scores))
    wrong = np.any([(stage == k) & scores.disagrees(k) for k in range(n_stages - 1)], axis=0)
    assert share(scores, wrong) <= allowed + EPS


@coarse_scores
@pytest.mark.parametrize("n_stages", [3, 4])
@pytest.mark.parametrize("seed", range(40))
def test_more_stages_keep_the_floor(seed, n_stages):
    rng = np.random.default_rng(seed)
    scores = random_case(rng, n_stages, n_samples=20)
    floor = 0.01 + 0.98 * rng.random()
    last = eager_stage(scores.stage_proba, fit_thresholds(RecallFloor(floor), scores))
    kept = share(scores, scores.caught & (last == n_stages - 1)) / share(scores, scores.caught)
    assert kept >= floor - EPS


# A weight of 1e-12 is within the tolerance of one budget and beyond that of the next.
def test_a_vanishing_weight_breaks_no_policy():
    proba = np.array(
        [
            [[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.05, 0.9, 0.05]],
            [[0.6, 0.2, 0.2], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]],
        ]
    )
    weight = np.array([1e-12, 1.0])
    scores = stage_scores(proba, np.array([1, 1]), weight=weight, negative=None)
    stage = eager_stage(proba, fit_thresholds(Agreement(0.0), scores))
    assert stage[1] > 0


@coarse_scores
@pytest.mark.parametrize("seed", range(20))
def test_more_budget_never_passes_fewer_rows(seed):
    rng = np.random.default_rng(seed)
    scores, new = random_case(rng, 2, n_samples=60), rng.dirichlet([1, 1], (100, 2))
    families = [
        [PassBudget(rate) for rate in np.linspace(0, 1, 15)],
        [CostBudget(cost) for cost in np.linspace(1, scores.stage_costs.sum(), 15)],
        [RecallFloor(recall) for recall in np.linspace(0.1, 1, 15)],
        [Agreement(share) for share in np.linspace(1, 0, 15)],
    ]
    for family in families:
        thresholds = [fit_thresholds(policy, scores) for policy in family]
        for proba in (scores.stage_proba, new):
            passed = np.array([eager_stage(proba, matrix) for matrix in thresholds])
            assert (np.diff(passed, axis=0) >= 0).all()


@pytest.mark.parametrize("seed", range(10))
def test_more_budget_never_passes_fewer_of_untied_rows_through_three_stages(seed):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet([1, 1], (200, 3))
    scores = stage_scores(proba, rng.integers(2, size=200))
    rates = [share_that_passes(PassBudget(rate), scores) for rate in np.linspace(0, 1, 41)]
    assert (np.diff(rates) >= 0).all()


# What every answer promises --------------------------------------------------------------------


class Softmax(ClassifierMixin, BaseEstimator):
    """Takes the log-odds of its scores from its own block of columns; learns nothing."""

    def __init__(self, place=0, n_levels=None):
        self.place = place
        self.n_levels = n_levels

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        n_classes = len(self.classes_)
        columns = X[:, self.place * n_classes : (self.place + 1) * n_classes]
        if self.n_levels is not None:
            columns = np.round(columns * self.n_levels) / self.n_levels
        return softmax(columns, axis=1)


def random_thresholds(rng, n_stages, n_classes):
    """A policy, a number, numbers, or a matrix that may answer any class early."""
    matrix = rng.choice([0, 0.3, 0.5, 0.6, 0.9, 1, np.inf, -np.inf], (n_stages, n_classes))
    matrix[-1] = -np.inf
    kinds = [
        PassBudget(rng.random()),
        Agreement(rng.random() * 0.3),
        rng.random(),
        rng.random(n_stages - 1),
        matrix,
        matrix,
    ]
    return kinds[rng.integers(len(kinds))]


def random_cascade(seed):
    """A fitted cascade with random scores, thresholds and calibration, and rows to predict."""
    rng = np.random.default_rng(seed)
    n_classes, n_stages = rng.choice([2, 2, 2, 3, 4]), rng.integers(2, 5)
    labels = [np.array(["d", "b", "c", "a"]), np.array([5, -3, 10, 2])][seed % 2][:n_classes]
    codes = np.r_[np.arange(n_classes).repeat(6), rng.geometric(0.6, 60) % n_classes]
    # No log-odds beyond 36, where a score rounds to 1: see the saturated answers below.
    X = rng.normal(size=(codes.size, n_stages * n_classes)) * rng.choice([1, 3, 5])
    for k in range(n_stages):
        X[np.arange(codes.size), k * n_classes + codes] += rng.choice([-1, 0, 1, 2])
    positives = [None, *np.unique(labels).tolist()] if n_classes == 2 else [None]
    cascade = FeedbackCascadeClassifier(
        [(f"s{k}", Softmax(k, rng.choice([None, 1, 4]))) for k in range(n_stages)],
        feedback="none" if n_classes > 2 else rng.choice(["none", "caught"]).item(),
        thresholds=random_thresholds(rng, n_stages, n_classes),
        calibration=rng.choice([None, "sigmoid", "isotonic"]),
        pos_label=positives[rng.integers(len(positives))],
        stage_costs=np.arange(1, n_stages + 1),
        cv=2,
    )
    new = rng.normal(size=(60, X.shape[1])) * rng.choice([1, 3, 5])
    return cascade.fit(X, labels[codes]), np.vstack([X, new])


def early_answers(cascade, X):
    """Rows that an early stage answers, and the code of the class that it answers."""
    stage_proba = cascade.stage_proba(X)
    reached = stage_proba >= cascade.thresholds_
    stage = np.append(reached[:, :-1].any(axis=2), np.ones((len(X), 1), bool), axis=1).argmax(1)
    early = np.flatnonzero(stage < stage_proba.shape[1] - 1)
    here = early, stage[early]
    return early, np.where(reached[here], stage_proba[here], -np.inf).argmax(axis=1)


def check_answers(seed):
    """Check one random cascade; return the number of rows that were answered early."""
    cascade, X = random_cascade(seed)
    proba, routing, stage_proba = cascade.predict_proba(X), cascade.route(X), cascade.stage_proba(X)
    n_stages = stage_proba.shape[1]
    assert ((proba >= 0) & (proba <= 1)).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(cascade.predict(X), cascade.classes_[proba.argmax(axis=1)])

    # An early answer is the prediction, and no tie.
    early, answer = early_answers(cascade, X)
    np.testing.assert_array_equal(proba[early].argmax(axis=1), answer)
    ordered = np.sort(proba[early], axis=1)
    assert (ordered[:, -1] > ordered[:, -2]).all()

    # Lazy is eager.
    np.testing.assert_array_equal(routing.stage, eager_stage(stage_proba, cascade.thresholds_))
    np.testing.assert_array_equal(routing.proba, proba)
    costs = np.cumsum(np.arange(1, n_stages + 1))
    np.testing.assert_array_equal(routing.cost, costs[routing.stage])
    *staged, final = cascade.staged_predict_proba(X)
    np.testing.assert_allclose(final, proba, atol=1e-12)
    for k, at_stage in enumerate(staged):
        answered = routing.stage <= k
        np.testing.assert_allclose(at_stage[answered], proba[answered], atol=1e-12)
        np.testing.assert_allclose(at_stage.sum(axis=1), 1, atol=1e-12)

    # No row's answer depends on the others.
    rng = np.random.default_rng(seed)
    for idx in (rng.permutation(len(X)), rng.integers(len(X), size=20), [len(X) - 1]):
        np.testing.assert_allclose(cascade.predict_proba(X[idx]), proba[idx], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(cascade.route(X[idx]).stage, routing.stage[idx])
    return early.size


@coarse_scores
@pytest.mark.filterwarnings("ignore:The positive class")
@pytest.mark.parametrize("first_seed", range(0, 100, 10))
def test_answers_of_random_cascades(first_seed):
    assert sum(check_answers(seed) for seed in range(first_seed, first_seed + 10)) > 0


@coarse_scores
@pytest.mark.filterwarnings("ignore:The positive class")
@pytest.mark.parametrize("first_seed", range(1000, 2000, 200))
@pytest.mark.slow
def test_answers_of_many_random_cascades(first_seed):
    assert sum(check_answers(seed) for seed in range(first_seed, first_seed + 200)) > 0


def test_a_saturated_early_answer_is_predicted():
    # Negative scores of 1 - 4e-18 and 1 - 9e-27 are both 1.0, a threshold that both reach, though
    # the positive scores, and the calibrated probabilities, differ.
    X = np.repeat([-60.0, -40.0, 1.0], 40)[:, None] * [-0.5, 0.5]
    y = np.r_[np.arange(40) % 4 == 0, np.arange(40) % 4 > 0, np.ones(40, bool)].astype(int)
    cascade = FeedbackCascadeClassifier(
        [("screen", Softmax()), ("final", Softmax())],
        feedback="none",
        calibration="isotonic",
        thresholds=[[1.0, np.inf], [-np.inf, -np.inf]],
        pos_label=1,
    )
    cascade.fit(np.tile(X, 2), y)
    early, answer = early_answers(cascade, np.tile(X, 2))
    assert early.size == 80
    np.testing.assert_array_equal(cascade.predict(np.tile(X, 2))[early], answer)
