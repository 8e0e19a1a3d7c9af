"""Does a pool of unlabelled rows, scored by the last stage, help a screen with few labels?

Run alone with ``python -m benchmarks.few_shot --data DIR [--quick]``.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from benchmarks import reference
from benchmarks.command import parse_arguments
from benchmarks.datasets import (
    CARD_FILE,
    CARD_WEEKS,
    TABLES,
    check_files,
    few_labels_card,
    few_labels_specialist,
    few_labels_table,
    few_shot,
)
from benchmarks.jobs import run_jobs
from benchmarks.objective import (
    best_f1_cut,
    expect,
    expectation_table,
    markdown_table,
    over_repeats,
    plus_minus,
    retained_recall,
    write,
)

N_SEEDS = 12
RATES = (0.05, 0.1, 0.2)
RATE = 0.2  # of the differences, of the cascade's AP and of the automatic choice
TEMPERATURE = 1.0
LATER_COST = 0.2  # one call of the last stage, in units of a false alarm
TITLES = {
    "few-shot": "Simulated, strong last stage, screen on ten of thirty columns",
    "specialist": "Simulated, the last stage cannot see 40 % of the positives",
    "card": "Card fraud, four weeks",
    "mammography": "Mammography, stratified splits",
    "taiwan": "Default of credit cards, Taiwan, stratified splits",
    "bank": "Bank marketing, the first two thirds by time train",
    "insurance": "Vehicle insurance fraud, the last year tests",
}
QUICK = ("few-shot", "specialist", "mammography")
NONE, AUTO = "none", "auto, pool"
POOLED = ("caught, pool", "gain, pool")  # also computed by hand
METHODS = {
    NONE: "labelled rows only, weight 1; the stages are trained independently",
    "sequential": "the same screen, and the last stage fitted again on its own rows that it passes",
    "self-training": "scikit-learn's `SelfTrainingClassifier` of the screen, on labels and pool",
    "caught, labels": "labelled rows only, with that feedback",
    "gain, labels": "labelled rows only, with that feedback",
    "scores, pool": "the pool too, by the last stage's chance alone: a distillation, no feedback",
    **dict.fromkeys(POOLED, "labelled rows and pool, with that feedback"),
    AUTO: "whichever of the two, or none, `AutoFeedback` finds best",
    "all labels": "labelled rows and the pool's own labels, weight 1",
    "caught, all labels": "the same with that feedback",
}


N_SMALL = 200
VARIANTS = {  # of "caught, pool", by hand
    "raw scores": "the last stage's score is the chance, without a sigmoid",
    "prior corrected": "the chances made to fit the pool's own share of positives, by EM",
    "weight of the labels": "the pool's weights scaled to the sum of the labelled rows'",
    f"{N_SMALL} of the pool": f"only {N_SMALL} rows without a label",
    f"{N_SMALL} of the pool, scores": "the same without feedback",
}


class ScoreColumn(ClassifierMixin, BaseEstimator):
    """Last stage whose score is the last column of X, so that a forest runs once on each row."""

    def fit(self, X, y):
        """Learn the labels only."""
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        """The column, as probabilities of two classes."""
        return np.column_stack([1 - X[:, -1], X[:, -1]])


class Scored(NamedTuple):
    """A trial with the last stage's scores; `cut` is the one of best F1 on its own rows."""

    trial: object
    last: object
    cut: float
    labeled: np.ndarray
    pool: np.ndarray
    test: np.ndarray


def repeats_of(dataset, n_seeds):
    """Weeks or seeds, each with the number of its draws."""
    if dataset != "card":
        return [(seed, 1) for seed in range(n_seeds)]
    weeks = CARD_WEEKS[:n_seeds]
    return [(start, max(1, n_seeds // len(weeks))) for start in weeks]


def trials(data_dir, dataset, repeat, n_draws):
    """Trials of one repeat: they have the same last stage."""
    if dataset == "card":
        return few_labels_card(data_dir, repeat, range(n_draws))
    if dataset == "few-shot":
        return [few_shot(repeat)]
    if dataset == "specialist":
        return [few_labels_specialist(repeat)]
    return [few_labels_table(data_dir, dataset, repeat)]


# --- the last stage ---------------------------------------------------------------------------
def make_last(dataset):
    """A logistic regression for the specialist, forests elsewhere."""
    if dataset == "specialist":
        return LogisticRegression()
    n_trees = 200 if dataset == "few-shot" else 100
    return RandomForestClassifier(n_trees, oob_score=True, n_jobs=1, random_state=0)


def fit_last(trial, model):
    """The last stage, and its cut of best F1 on scores by trees or fits that left the row out."""
    X, y = trial.later[0][:, trial.later_columns], trial.later[1]
    last = reference.fit(model, X, y)
    if hasattr(last, "oob_decision_function_"):
        return last, best_f1_cut(y, last.oob_decision_function_[:, 1])
    return last, best_f1_cut(y, reference.out_of_fold(model, X, y))


def scored(trial, last, cut):
    """The trial with the last stage's scores of all rows that are not its own."""
    parts = (trial.labeled, trial.pool, trial.test)
    scores = [last.predict_proba(X[:, trial.later_columns])[:, 1] for X, _ in parts]
    return Scored(trial, last, cut, *scores)


def fit_survivors(this, screen):
    """The last stage fitted again on those of its own rows that the screen passes."""
    X, y = this.trial.later
    score = screen(X[:, this.trial.screen_columns])
    passed = score > reference.pass_cut(score, RATE)
    model = this.last
    if hasattr(model, "oob_score"):
        model = RandomForestClassifier(**{**model.get_params(), "oob_score": False})
    last = reference.fit(model, X[passed][:, this.trial.later_columns], y[passed])
    return last.predict_proba(this.trial.test[0][:, this.trial.later_columns])[:, 1]


# --- screens by hand: functions from their columns to scores ----------------------------------
def make_screen():
    """The screen of all methods, with a solver that leaves nothing to its tolerance."""
    return make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))


def fit_by_hand(X, target, weight, pool=None):
    """One weighted logistic regression; every row counts as one in the scaling.

    `pool` is ``(X, weight as negatives, weight as positives)`` of the unlabelled rows.
    """
    if pool is None:
        pool = X[:0], np.empty(0), np.empty(0)
    X_pool, as_negative, as_positive = pool
    scaler, logistic = make_screen()
    scaler.fit(np.concatenate([X, X_pool]))
    logistic.fit(
        scaler.transform(np.concatenate([X, X_pool, X_pool])),
        np.concatenate([target, np.repeat([0, 1], len(X_pool))]),
        sample_weight=np.concatenate([weight, as_negative, as_positive]),
    )
    return lambda X: logistic.predict_proba(scaler.transform(X))[:, 1]


def pool_by_hand(this, scheme):
    """The screen of "caught" or "gain" with the pool, from the formulas."""
    columns = this.trial.screen_columns
    (X, y), X_pool = this.trial.labeled, this.trial.pool[0]
    costs = {}
    if scheme == "gain":
        costs = {"error_costs": ((y == 0).sum() / (y == 1).sum(), 1), "later_cost": LATER_COST}
    weigh, weigh_pool = {
        "caught": (reference.caught_feedback, reference.caught_pool),
        "gain": (reference.gain_feedback, reference.gain_pool),
    }[scheme]
    target, weight = weigh(y, this.labeled, this.cut, temperature=TEMPERATURE, **costs)
    chance = reference.chance_of_positive(this.labeled, y, this.pool)
    either = weigh_pool(
        y, this.labeled, this.cut, this.pool, chance, temperature=TEMPERATURE, **costs
    )
    return fit_by_hand(X[:, columns], target, weight, (X_pool[:, columns], *either))


def variants_by_hand(this):
    """``(variant, screen)``: other ways for the pool to enter the training of "caught, pool"."""
    columns = this.trial.screen_columns
    (X, y), X_pool = this.trial.labeled, this.trial.pool[0][:, columns]
    X, n_pool = X[:, columns], len(X_pool)
    target, weight = reference.caught_feedback(y, this.labeled, this.cut, temperature=TEMPERATURE)
    sigmoid = reference.chance_of_positive(this.labeled, y, this.pool)

    def either(chance):
        return reference.caught_pool(
            y, this.labeled, this.cut, this.pool, chance, temperature=TEMPERATURE
        )

    few = np.random.default_rng(0).choice(n_pool, N_SMALL, replace=False)
    share = len(y) / np.sum(either(sigmoid))
    plain = 1 - sigmoid[few], sigmoid[few]
    corrected = reference.corrected_for_prior(sigmoid, y.mean())
    for variant, labels_count, X_either, weights in (
        ("raw scores", weight, X_pool, either(this.pool)),
        ("prior corrected", weight, X_pool, either(corrected)),
        ("weight of the labels", weight, X_pool, [share * w for w in either(sigmoid)]),
        (f"{N_SMALL} of the pool", weight, X_pool[few], [w[few] for w in either(sigmoid)]),
        (f"{N_SMALL} of the pool, scores", np.ones(len(y)), X_pool[few], plain),
    ):
        yield variant, fit_by_hand(X, target, labels_count, (X_either, *weights))


def self_training(this):
    """Self-training of the screen: it labels the pool's rows that it is sure of, and goes on."""
    columns = this.trial.screen_columns
    (X, y), X_pool = this.trial.labeled, this.trial.pool[0]
    model = SelfTrainingClassifier(make_screen()).fit(
        np.concatenate([X, X_pool])[:, columns], np.append(y, np.full(len(X_pool), -1))
    )
    return lambda X: model.predict_proba(X)[:, 1]


def screens_by_hand(this):
    """``(method, screen)`` of all that needs nothing of skmsc."""
    columns, (X, y) = this.trial.screen_columns, this.trial.labeled
    yield NONE, fit_by_hand(X[:, columns], y, np.ones(len(y)))
    yield "self-training", self_training(this)
    X, y = (
        np.concatenate(parts) for parts in zip(this.trial.labeled, this.trial.pool, strict=True)
    )
    yield "all labels", fit_by_hand(X[:, columns], y, np.ones(len(y)))
    later_score = np.append(this.labeled, this.pool)
    target, weight = reference.caught_feedback(y, later_score, this.cut, temperature=TEMPERATURE)
    yield "caught, all labels", fit_by_hand(X[:, columns], target, weight)


# --- ours -------------------------------------------------------------------------------------
def uniform(positive, later_proba, catch_threshold):
    """No feedback: rows without a label count by the last stage's chance alone."""
    return np.ones(len(positive))


def our_cascades(this, memory):
    """``(method, fitted FeedbackCascadeClassifier)``; the last column of its rows is the score."""
    from skmsc import AutoFeedback, FeedbackCascadeClassifier, PassBudget

    (X, y), X_pool = this.trial.labeled, this.trial.pool[0]
    labeled = np.column_stack([X, this.labeled])
    both = np.concatenate([labeled, np.column_stack([X_pool, this.pool])])
    y_both = np.append(y, np.full(len(X_pool), -1))
    columns = ColumnTransformer([("seen", "passthrough", list(this.trial.screen_columns))])
    stages = [
        ("screen", make_pipeline(columns, *(step for _, step in make_screen().steps))),
        ("final", FrozenEstimator(ScoreColumn().fit(labeled, y))),
    ]
    for method, feedback, rows in (
        ("caught, labels", "caught", (labeled, y)),
        ("gain, labels", "gain", (labeled, y)),
        ("scores, pool", uniform, (both, y_both)),
        ("caught, pool", "caught", (both, y_both)),
        ("gain, pool", "gain", (both, y_both)),
        (AUTO, AutoFeedback(pass_rate=RATE), (both, y_both)),
    ):
        yield (
            method,
            FeedbackCascadeClassifier(
                stages=stages,
                feedback=feedback,
                unlabeled_label=-1,
                catch_threshold=this.cut,
                thresholds=PassBudget(RATE),
                memory=memory,
                random_state=0,
            ).fit(*rows),
        )


# --- measures ---------------------------------------------------------------------------------
def measure(this, score, last_score):
    """Retained recall at each rate and the cascade's AP at one, exact shares of the test rows.

    What the reference last stage catches is the judge for all methods. In the cascade the rows
    that pass rank above those that do not, by the last stage's score.
    """
    y = this.trial.test[1]
    caught = (y == 1) & (this.test >= this.cut)
    values = {}
    for rate in RATES:
        passed = score > reference.pass_cut(score, rate)
        values[f"retained {rate:.0%}"] = retained_recall(passed, caught)
        if rate == RATE:
            cascade = np.where(passed, 1 + last_score, score)
            values["ap"] = float(average_precision_score(y, cascade))
    return values


def run_trial(this):
    """Measures of each method on one trial, by name."""
    X_test = this.trial.test[0]
    X_screen = X_test[:, this.trial.screen_columns]
    found = {}
    for method, screen in screens_by_hand(this):
        found[method] = measure(this, screen(X_screen), this.test)
        if method == NONE:
            found["sequential"] = measure(this, screen(X_screen), fit_survivors(this, screen))
    for variant, screen in variants_by_hand(this):
        found[variant] = measure(this, screen(X_screen), this.test)
    X_ours = np.column_stack([X_test, this.test])
    with TemporaryDirectory() as memory:
        for method, cascade in our_cascades(this, memory):
            score = cascade.stage_proba(X_ours)[:, 0, 1]
            found[method] = measure(this, score, this.test)
            found[method]["realised"] = float((cascade.route(X_ours).stage > 0).mean())
            if method in POOLED:
                by_hand = pool_by_hand(this, method.split(",")[0])(X_screen)
                found[method]["difference_of_scores"] = float(np.abs(score - by_hand).max())
            if method == AUTO:
                table = cascade.feedback_comparison_
                found[method]["chosen"] = str(table["feedback"][np.argmax(table["chosen"])])
    return found


def run(data_dir, job):
    """Records of all trials of one repeat; a job is ``(dataset, repeat, n_draws)``."""
    dataset, repeat, _ = job
    of_repeat = trials(data_dir, *job)
    last, cut = fit_last(of_repeat[0], make_last(dataset))
    return [
        {"dataset": dataset, "repeat": repeat, "draw": draw, "method": method, **values}
        for draw, trial in enumerate(of_repeat)
        for method, values in run_trial(scored(trial, last, cut)).items()
    ]


# --- tables -----------------------------------------------------------------------------------
JUDGED = f"retained {RATE:.0%}"


def detail(records):
    """All measures of all methods on one data set."""
    rows = []
    for method in METHODS:
        own = [r for r in records if r["method"] == method]
        gains = ["", ""]
        if method != NONE:
            gains = [plus_minus(over_repeats(records, method, v, NONE)) for v in (JUDGED, "ap")]
        realised = [r["realised"] for r in own if "realised" in r]
        rows.append(
            [
                method,
                *(plus_minus(over_repeats(records, method, f"retained {r:.0%}")) for r in RATES),
                gains[0],
                plus_minus(over_repeats(records, method, "ap")),
                gains[1],
                f"{np.mean(realised):.3f}" if realised else "",
            ]
        )
    header = ["screen", *(f"retained {r:.0%}" for r in RATES), f"minus none, {RATE:.0%}"]
    return markdown_table([*header, "AP of the cascade", "minus none", "pass rate by labels"], rows)


def choices(records):
    """What AutoFeedback chose, and how often."""
    counts = Counter(r["chosen"] for r in records if "chosen" in r).most_common()
    return "AutoFeedback chose " + ", ".join(f"{name} {n} times" for name, n in counts) + "."


def summary(records, value, methods=METHODS, digits=3):
    """Differences from no feedback of the methods on every data set; a loss is in bold.

    Bold where the whole interval lies below 0.
    """
    datasets = list(dict.fromkeys(r["dataset"] for r in records))
    rows = []
    for method in methods:
        if method == NONE or (method == "sequential" and value == JUDGED):
            continue
        gains = [
            over_repeats([r for r in records if r["dataset"] == d], method, value, NONE)
            for d in datasets
        ]
        cells = [
            f"**{plus_minus(g, digits)}**"
            if g["mean"] + (g["half_width"] or 0) < 0
            else plus_minus(g, digits)
            for g in gains
        ]
        rows.append([method, *cells, f"{np.mean([g['mean'] for g in gains]):.{digits}f}"])
    return markdown_table(["screen", *datasets, "mean"], rows)


def expectations_of(records):
    """The expectations, data set by data set."""
    datasets = list(dict.fromkeys(r["dataset"] for r in records))

    def gain(dataset, method):
        own = [r for r in records if r["dataset"] == dataset]
        return over_repeats(own, method, JUDGED, NONE)

    automatic = {dataset: gain(dataset, AUTO) for dataset in datasets}
    return [
        expect(
            f"few-shot, the better of {' and '.join(POOLED)} minus none",
            max(gain("few-shot", method)["mean"] for method in POOLED),
            at_least=0.05,
        ),
        *(
            expect(
                f"{dataset}, {AUTO} minus none, upper end of the interval",
                g["mean"] + (g["half_width"] or 0),
                at_least=0,
            )
            for dataset, g in automatic.items()
        ),
        *(
            expect(
                f"{method}: skmsc's scores differ from the formulas' by hand",
                max(r["difference_of_scores"] for r in records if r["method"] == method),
                at_most=1e-3,
            )
            for method in POOLED
        ),
    ]


def main(arguments):
    """Ask the question, write results/few_shot.md and .json; return the expectations."""
    datasets, n_seeds = (QUICK, 1) if arguments.quick else (tuple(TITLES), N_SEEDS)
    files = [TABLES[name].file for name in datasets if name in TABLES]
    check_files(arguments.data, *files, *([CARD_FILE] if "card" in datasets else []))
    todo = [(dataset, *how) for dataset in datasets for how in repeats_of(dataset, n_seeds)]
    records = run_jobs(partial(run, arguments.data), todo, "few_shot", quick=arguments.quick)
    expectations = expectations_of(records)
    parts = [
        "# Few labels: what a pool of unlabelled rows, scored by the last stage, does for a screen",
        f"{n_seeds} seeds (card: draws in four weeks, as many in each). 20 labelled positives and "
        "180 negatives (simulated: 200 and 300 rows as they come) and some thousand rows without a "
        "label train the screen, a logistic regression; the last stage is fitted on other rows. "
        "Mean ± half width of the 95 % interval over repeats (seeds, weeks). *Retained* is the "
        "share of the positives caught by the last stage that the screen passes when exactly so "
        "many test rows pass; *pass rate by labels* what a budget of "
        f"{RATE:.0%}, set on the labelled rows, comes to on the test rows. Bold: the whole "
        "interval is a loss.",
        "\n".join(f"- *{method}*: {text}" for method, text in METHODS.items()),
        expectation_table(expectations),
        f"## Retained recall at {RATE:.0%}, minus none",
        summary(records, JUDGED),
        f"## AP of the cascade at {RATE:.0%}, minus none",
        summary(records, "ap"),
        f"## How the pool enters: variants of {POOLED[0]!r} by hand",
        "\n".join(f"- *{variant}*: {text}" for variant, text in VARIANTS.items()),
        f"Retained recall at {RATE:.0%}, minus none:",
        summary(records, JUDGED, (POOLED[0], *VARIANTS)),
        "Retained recall at 5%, minus none:",
        summary(records, "retained 5%", (POOLED[0], *VARIANTS)),
        f"AP of the cascade at {RATE:.0%}, minus none:",
        summary(records, "ap", (POOLED[0], *VARIANTS)),
    ]
    for dataset in datasets:
        own = [r for r in records if r["dataset"] == dataset]
        parts += [f"## {TITLES[dataset]}", detail(own), choices(own)]
    parts.append(
        "Largest difference between skmsc's scores and those by hand: "
        + ", ".join(
            f"{max(r['difference_of_scores'] for r in records if r['method'] == method):.1e} "
            f"({method})"
            for method in POOLED
        )
        + "."
    )
    write(
        "few_shot",
        "\n\n".join(parts),
        {"records": records, "expectations": expectations},
        quick=arguments.quick,
    )
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=True))
