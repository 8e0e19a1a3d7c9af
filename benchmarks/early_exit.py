"""Does early exit pay, and what lifts the curve of accuracy over cost?

Run alone with ``python -m benchmarks.early_exit --data DIR [--quick] [--tune]``.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from functools import cache, partial
from unittest import mock

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.command import parse_arguments
from benchmarks.datasets import (
    CARD_FILE,
    MNIST_FILE,
    TABLES,
    card_week,
    check_files,
    few_rows,
    mnist,
    one_hot,
    table,
)
from benchmarks.jobs import run_jobs
from benchmarks.objective import (
    expect,
    expectation_table,
    interval,
    markdown_table,
    plus_minus,
    write,
)

N_MNIST = 10_000  # training images
CARD_WEEK = "2018-07-05"
DATASETS = ("letter", "pendigits", "adult", "bank", "card", "mnist")
SHIFTED = "bank later"  # bank with the test rows last in time: another world, told of apart
ALL_DATA = (*DATASETS, SHIFTED)
RARE = ("bank", SHIFTED, "card")  # judged by average precision, the others by accuracy
TUNE_SHARE = 0.15
N_SEEDS, N_QUICK_SEEDS = 5, 1
N_QUICK_ROWS, QUICK_DATA = 1000, ("bank", "letter")
BUDGETS = np.linspace(0.3, 0.9, 13)  # of the cost of all stages
WEIGHTINGS = ("uniform", "learned", "survivors", "focal")
SHORT_LIST = ("letter", "pendigits", "bank", "card")
DATA_OF = dict(zip(WEIGHTINGS, (ALL_DATA, DATASETS, SHORT_LIST, SHORT_LIST), strict=True))
RATES = (0.002, 0.004, 0.008)  # and beyond, by factors of 2, while the best is at the edge
LOWEST_RATE, HIGHEST_RATE = 0.0005, 0.032
# What --tune found, which takes half as long again: uniform, learned, survivors, focal.
TUNED = {
    "letter": (0.008, 0.004, 0.004, 0.008),
    "pendigits": (0.001, 0.002, 0.0005, 0.004),
    "adult": (0.002, 0.008, 0.016, 0.001),
    "bank": (0.002, 0.002, 0.004, 0.004),
    "card": (0.002, 0.002, 0.001, 0.004),
    "mnist": (0.004, 0.004, 0.002, 0.004),
    SHIFTED: (0.008,),
}
BOOSTED = "uniform, boosted first stage"
N_SEEDS_OF = {"learned": 3, "survivors": 3, "focal": 3, BOOSTED: 3, "peers": 3}
DEPTH, WIDTH = 4, 256
NET = {"width": WIDTH, "depth": DEPTH, "batch_size": 256, "max_epochs": 50, "device": "cpu"}
# What was chosen once for all methods on rows of their own, by trials on the tuning rows.
OF_DATA = {
    "letter": {"dropout": 0.1},
    "pendigits": {"dropout": 0.3},
    "card": {"batch_size": 512},  # it has the most rows
}
MEANS = {
    "plain": (False, "geometric"),
    "by agreement": (False, "agreement"),
    "ensemble": (True, "geometric"),
    "ensemble, by agreement": (True, "agreement"),
}
DEFAULT_MEANS = "ensemble, by agreement"
OTHER_CONFIDENCES = {f"{DEFAULT_MEANS}, {how}": how for how in ("margin", "entropy")}
SINGLE, FIRST, FALLBACK = (
    "net of the last exit alone",
    "logistic regression alone",
    "scikit-fallback",
)
LIGHTGBM = "LightGBM"


# --- data -------------------------------------------------------------------------------------
def load(data_dir, name):
    """One of `ALL_DATA`: arrays, labels 0, 1, ..."""
    if name == "card":
        return card_week(data_dir, CARD_WEEK)
    if name == "mnist":
        return mnist(data_dir, N_MNIST)
    split = table(data_dir, "bank" if name == SHIFTED else name)
    if name == "bank":
        split = shuffled(split)
    split = one_hot(split)
    X_train, X_test = (np.asarray(X, dtype=np.float64) for X in (split.X_train, split.X_test))
    return replace(split, X_train=X_train, X_test=X_test)


def shuffled(split):
    """The rows of a split dealt out anew by chance, as many to train with."""
    X = pd.concat([split.X_train, split.X_test])
    y = np.concatenate([split.y_train, split.y_test])
    train, test = train_test_split(
        np.arange(len(y)), train_size=len(split.y_train), stratify=y, random_state=0
    )
    return replace(
        split, X_train=X.iloc[train], y_train=y[train], X_test=X.iloc[test], y_test=y[test]
    )


def parts_of(data_dir, name, seed, quick):
    """Rows that train, rows that tune, and test rows: (X, y) each."""
    split = load(data_dir, name)
    X, y = split.X_train, split.y_train
    if quick:
        split = few_rows(split, N_QUICK_ROWS, 0)
        X, y = split.X_train, split.y_train
    train, tune = train_test_split(
        np.arange(len(y)), test_size=TUNE_SHARE, stratify=y, random_state=seed
    )
    return (X[train], y[train]), (X[tune], y[tune]), (split.X_test, split.y_test)


def make_first():
    """The sklearn exit 0."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=60))


def value_of(name, y, proba):
    """Accuracy, or average precision where positives are rare."""
    if name in RARE:
        return float(average_precision_score(y, proba[:, 1]))
    return float((proba.argmax(axis=1) == y).mean())


# --- fits -------------------------------------------------------------------------------------
def net_parameters(name, seed, lr, quick):
    """Of a `MultiExitNet` or a `TabularNet`."""
    quick_ones = {"max_epochs": 3} if quick else {}
    return NET | OF_DATA.get(name, {}) | {"lr": lr, "random_state": seed} | quick_ones


def make_boosted(name):
    """A first stage that is strong by itself, of another kind than a net."""
    return HistGradientBoostingClassifier(
        max_iter=20 if name == "mnist" else 50,  # so many columns take long
        max_leaf_nodes=15,
        learning_rate=0.1,
        early_stopping=False,
        random_state=0,
    )


def comparisons(model):
    """Comparisons that a boosted model makes for a training row, in the mean."""
    total = 0.0
    for trees in model._predictors:
        for tree in trees:
            inner = tree.nodes["is_leaf"] == 0
            total += tree.nodes["count"][inner].sum() / tree.nodes["count"][0]
    return total


def fit_exits(name, train, weighting, lr, seed, quick, first=None):
    """EarlyExitClassifier on the training rows, all of them: tuning rows are kept outside."""
    from skmsc import EarlyExitClassifier
    from skmsc.neural import MultiExitNet

    model = EarlyExitClassifier(
        first or make_first(),
        MultiExitNet(**net_parameters(name, seed, lr, quick)),
        exit_weighting=weighting,
        thresholds=1.0,
        calibration=None,
        validation_fraction=None,
        cv=3,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*train)


def stage_scores(model, X, ensemble):
    """Scores of all stages on rows, with what earlier stages said or without."""
    weights = model.ensemble_weights_
    if not ensemble:
        model.ensemble_weights_ = None
    scores = model.stage_proba(X)
    model.ensemble_weights_ = weights
    return scores


def tempered(tune, others):
    """Scores of every stage as its answers: one temperature a stage, from the tuning rows.

    So that rows that different stages answer compare.
    """
    from skmsc.calibration import fit_calibration

    scores, y = tune
    maps = [
        fit_calibration("temperature", scores[:, k], y, np.ones(len(y)))
        for k in range(scores.shape[1])
    ]
    return np.stack([of_stage(others[:, k]) for k, of_stage in enumerate(maps)], axis=1)


def curve(name, tune, test, answers, costs, spread, confidence="max_proba"):
    """Realised cost and value on test rows for every budget; thresholds from tuning rows.

    `tune` and `test` are pairs of stage scores and labels; `answers` are those of the test rows.
    """
    from skmsc import CostBudget
    from skmsc.thresholds import StageScores, acting_scores, eager_stage, fit_thresholds

    scores, y = tune
    seen = StageScores(
        stage_proba=scores,
        y=y,
        sample_weight=np.ones(len(y)),
        negative=None,
        caught=None,
        stage_costs=costs,
        stage_names=tuple(map(str, range(scores.shape[1]))),
        untouched=True,
        measure=confidence,
    )
    acting, points = acting_scores(test[0], confidence), []
    for budget in BUDGETS:
        thresholds = fit_thresholds(CostBudget(float(budget), spread=spread), seen)
        stage = eager_stage(acting, thresholds)
        proba = np.take_along_axis(answers, stage[:, None, None], axis=1)[:, 0]
        cost = float(np.cumsum(costs)[stage].mean())
        points.append((cost, value_of(name, test[1], proba)))
    return points


def area(points):
    """Mean value over the budgets, each read off the curve at what was really spent."""
    cost, value = np.array(sorted(points)).T
    return float(np.interp(BUDGETS, cost, value).mean())


def judge(name, model, tune, test, wanted=(*MEANS, *OTHER_CONFIDENCES)):
    """Records of one fitted model: the curve, area and full value for each of the means."""
    found, costs = {}, model.stage_costs_
    settings = {means: MEANS.get(means, MEANS[DEFAULT_MEANS]) for means in wanted}
    for ensemble in sorted({with_ensemble for with_ensemble, _ in settings.values()}):
        on_tune, on_test = ((stage_scores(model, X, ensemble), y) for X, y in (tune, test))
        answers = tempered(on_tune, on_test[0])
        full = value_of(name, test[1], on_test[0][:, -1])
        for means, (with_ensemble, spread) in settings.items():
            if with_ensemble == ensemble:
                how = (spread, OTHER_CONFIDENCES.get(means, "max_proba"))
                points = curve(name, on_tune, on_test, answers, costs, *how)
                found[means] = {"points": points, "area": area(points), "full": full}
    return found


def tuning_area(name, model, tune):
    """The area of a model by itself on tuning rows, to choose learning rates by."""
    scores = stage_scores(model, tune[0], ensemble=False), tune[1]
    answers = tempered(scores, scores[0])
    return area(curve(name, scores, scores, answers, model.stage_costs_, "geometric"))


def best_rate(value_at):
    """Learning rate of the highest value; `RATES` go on by factors of 2 while it is at an edge."""
    rates = list(RATES)
    while True:
        best = max(rates, key=value_at)
        if best == rates[0] > LOWEST_RATE:
            rates.insert(0, best / 2)
        elif best == rates[-1] < HIGHEST_RATE:
            rates.append(best * 2)
        else:
            return best


def seeds_of(what, quick):
    """Seeds of a weighting, of the boosted first stage, or of the peers."""
    return range(N_QUICK_SEEDS if quick else N_SEEDS_OF.get(what, N_SEEDS))


def run_weighting(data_dir, name, weighting, quick, tune_rate):
    """Fit every seed with one learning rate, found on the first seed's tuning rows.

    Nets of uniform weights are also put behind a boosted first stage.
    """
    lr = TUNED[name][WEIGHTINGS.index(weighting)]
    if tune_rate:
        train, tune, _ = parts_of(data_dir, name, 0, quick)

        @cache
        def value_at(lr):
            return tuning_area(name, fit_exits(name, train, weighting, lr, 0, quick), tune)

        lr = best_rate(value_at)
    records = []
    for seed in seeds_of(weighting, quick):
        train, tune, test = parts_of(data_dir, name, seed, quick)
        model = fit_exits(name, train, weighting, lr, seed, quick)
        record = {"dataset": name, "seed": seed, "lr": lr, "epochs": model.net_.n_iter_}
        for means, found in judge(name, model, tune, test).items():
            counts = {"multiply_adds": model.multiply_adds_.tolist()}
            records.append({**record, "method": weighting, "means": means, **counts, **found})
        if weighting == "uniform" and seed in seeds_of(BOOSTED, quick):
            model = behind_boosted(model, name, train, lr, seed, quick)
            alone = value_of(name, test[1], model.first_stage_.predict_proba(test[0]))
            found = judge(name, model, tune, test, [DEFAULT_MEANS])[DEFAULT_MEANS]
            boosted = {"method": BOOSTED, "means": DEFAULT_MEANS, "first_stage_alone": alone}
            records.append({**record, **boosted, **found})
    return records


def behind_boosted(model, name, train, lr, seed, quick):
    """A model whose net was trained with uniform weights, that net behind a boosted first stage.

    Such training looks at no first stage, so that it would give the same net. A comparison counts
    as a multiply-add, which favours trees.
    """
    from skmsc.neural import MultiExitNet

    def trained(net, *_, **__):
        vars(net).update(vars(model.net_))
        return net

    with mock.patch.object(MultiExitNet, "fit_exits", trained):
        boosted = fit_exits(name, train, "uniform", lr, seed, quick, first=make_boosted(name))
    counts = [comparisons(boosted.first_stage_), *boosted.net_.count_exit_multiply_adds()]
    boosted.stage_costs_ = np.array(counts) / sum(counts)
    return boosted


def run_peers(data_dir, name, seed, quick):
    """Single models, scikit-fallback's cascade of two of them, and LightGBM's early stop."""
    from skmsc.costs import count_multiply_adds
    from skmsc.neural import TabularNet

    train, tune, test = parts_of(data_dir, name, seed, quick)
    net = TabularNet(**net_parameters(name, seed, 0.002, quick))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        first, net = make_first().fit(*train), net.fit(*train)
    costs = np.array([count_multiply_adds(first), count_multiply_adds(net)], dtype=float)
    record = {"dataset": name, "seed": seed}
    alone = [
        {**record, "method": method, "full": value_of(name, test[1], model.predict_proba(test[0]))}
        for method, model in ((FIRST, first), (SINGLE, net))
    ]
    peers = [scikit_fallback(name, [first, net], costs, tune, test)]
    if seed == 0:
        peers.append(lightgbm_early_stop(name, train, test))
    return [r | {"multiply_adds": costs.tolist()} for r in alone] + [record | p for p in peers]


def scikit_fallback(name, models, costs, tune, test):
    """Its cascade of two fitted models; thresholds that defer what a budget allows, by quantile.

    Its costs are those of both models, in units of the net alone: it computes nothing twice, and
    shares nothing.
    """
    from skfb.ensemble import ThresholdCascadeClassifier

    costs = costs / costs[1]
    confidence, points = models[0].predict_proba(tune[0]).max(axis=1), []
    for budget in BUDGETS:
        rate = np.clip(budget - costs[0], 0.0, 1.0)
        threshold = float(np.quantile(confidence, rate))
        cascade = ThresholdCascadeClassifier(models, [threshold], prefit=True)
        answer = cascade.predict_proba(test[0])
        deferred = answer.ensemble_mask.toarray()[:, 1].astype(bool).mean()
        points.append((float(costs[0] + deferred), value_of(name, test[1], np.asarray(answer))))
    return {"method": FALLBACK, "points": points, "area": area(points), "full": points[-1][1]}


def lightgbm_early_stop(name, train, test):
    """LightGBM, and its own early stop over trees at two margins, as shares of its time."""
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_jobs=1, random_state=0, verbosity=-1).fit(*train)

    def timed(**how):
        times = []
        for _ in range(5):
            start = time.process_time()
            proba = model.predict_proba(test[0], **how)
            times.append(time.process_time() - start)
        return float(np.median(times)), value_of(name, test[1], proba)

    full_s, full = timed()
    stops = {}
    for margin in (2.0, 5.0, 10.0):
        seconds, value = timed(
            pred_early_stop=True, pred_early_stop_margin=margin, pred_early_stop_freq=10
        )
        stops[str(margin)] = {"time": seconds / full_s, "value": value}
    return {"method": LIGHTGBM, "full": full, "stops": stops}


def run(data_dir, quick, tune_rates, job):
    """Records of one job."""
    what, name, which = job
    if what == "weighting":
        return run_weighting(data_dir, name, which, quick, tune_rates)
    return run_peers(data_dir, name, which, quick)


# --- summary ----------------------------------------------------------------------------------
def values_of(records, name, method, means=None, value="area"):
    """Values by seed."""
    chosen = [
        r
        for r in records
        if r["dataset"] == name and r["method"] == method and r.get("means") == means
    ]
    return np.array([r[value] for r in sorted(chosen, key=lambda r: r["seed"])])


def ran(records):
    """The data sets that were run."""
    return [name for name in ALL_DATA if any(r["dataset"] == name for r in records)]


def gain(records, name, method, means, against=("uniform", "plain"), value="area"):
    """Interval of the difference from tuned uniform weights, paired by seed; None if not run."""
    left, right = (values_of(records, name, *which, value) for which in ((method, means), against))
    if not left.size:
        return None
    return interval(left - right[: len(left)])  # of the seeds that both have


def at_half(record):
    """Value where half of the full cost is spent, read off the curve."""
    cost, value = np.array(sorted(record["points"])).T
    return float(np.interp(0.5, cost, value))


def is_above(summary):
    """Whether an interval lies above 0."""
    return summary["mean"] - (summary["half_width"] or 0) > 0


def is_below(summary):
    """Whether an interval lies below 0."""
    return summary["mean"] + (summary["half_width"] or 0) < 0


def expectations_of(records, default):
    """What was expected of the default, (method, means)."""
    names = [name for name in ran(records) if name in DATASETS]
    gains = {name: gain(records, name, *default) for name in names}
    kept = [
        expect(
            f"{name}: the value lost at half the cost, points",
            100
            * float(
                np.mean(values_of(records, name, *default, "full"))
                - np.mean([at_half(r) for r in pick(records, name, *default)])
            ),
            at_most=0.5,
        )
        for name in ("letter", "pendigits")
        if name in names
    ]
    boosted = [gain(records, name, BOOSTED, DEFAULT_MEANS) for name in names]
    letter = float(np.mean(values_of(records, "letter", *default, "full")))
    return [
        expect(
            "data sets where the default is below tuned uniform weights",
            sum(map(is_below, gains.values())),
            at_most=0,
        ),
        expect(
            "data sets where the default is above tuned uniform weights",
            sum(map(is_above, gains.values())),
            at_least=4,
        ),
        expect(
            "the same, behind a boosted first stage",
            sum(map(is_above, boosted)),
            at_least=4,
        ),
        *kept,
        expect("letter: accuracy of the full net", letter, at_least=0.96),
    ]


def pick(records, name, method, means):
    """Records of a method and means on a data set."""
    return [
        r for r in records if (r["dataset"], r["method"], r.get("means")) == (name, method, means)
    ]


def means_table(records):
    """Rows: what is done with the same uniformly trained nets; columns: data sets."""
    rows = [
        [
            "uniform, plain: area",
            *(
                plus_minus(interval(values_of(records, n, "uniform", "plain")), 4)
                for n in ran(records)
            ),
        ]
    ]
    shown = [("uniform", means) for means in (*MEANS, *OTHER_CONFIDENCES)][1:]
    shown += [(method, means) for method in WEIGHTINGS[1:] for means in MEANS]
    for method, means in [*shown, (BOOSTED, DEFAULT_MEANS)]:
        gains = (gain(records, name, method, means) for name in ran(records))
        rows.append([f"{method}, {means}", *(signed(g) for g in gains)])
    alone = (
        values_of(records, n, BOOSTED, DEFAULT_MEANS, "first_stage_alone") for n in ran(records)
    )
    rows.append(
        [
            "the boosted first stage alone: value",
            *(f"{a.mean():.4f}" if a.size else "-" for a in alone),
        ]
    )
    return markdown_table(["method, means", *ran(records)], rows)


def signed(summary):
    """A difference; bold where its interval lies above 0, in italics where below; - if not run."""
    if summary is None:
        return "-"
    text = plus_minus(summary, 4)
    text = text if text.startswith("-") else f"+{text}"
    if is_above(summary):
        return f"**{text}**"
    return f"*{text}*" if is_below(summary) else text


def value_table(records, default):
    """Values at the full cost and at half of it, beside single models and the peer."""
    rows = []
    for name in ran(records):
        ours = pick(records, name, *default)
        plain = pick(records, name, "uniform", "plain")
        peer = pick(records, name, FALLBACK, None)
        rows.append(
            [
                name,
                *(
                    plus_minus(interval(values_of(records, name, method, None, "full")))
                    for method in (FIRST, SINGLE)
                ),
                plus_minus(interval([r["full"] for r in ours])),
                *(plus_minus(interval([at_half(r) for r in of])) for of in (ours, plain, peer)),
            ]
        )
    header = ["data", FIRST, SINGLE, "all exits, full cost", "default, half the cost"]
    header += ["uniform, plain, half the cost", "scikit-fallback, half the cost of its net"]
    return markdown_table(header, rows)


def lightgbm_table(records):
    """LightGBM's early stop: value, and time as a share of all trees'."""
    rows = []
    for name in ran(records):
        (found,) = pick(records, name, LIGHTGBM, None)
        stops = [f"{s['value']:.3f} ({s['time']:.2f})" for s in found["stops"].values()]
        rows.append([name, f"{found['full']:.3f}", *stops])
    margins = [f"margin {m} (time)" for m in pick(records, "letter", LIGHTGBM, None)[0]["stops"]]
    return markdown_table(["data", "all trees", *margins], rows)


def settings_table(records):
    """What was chosen on tuning rows: learning rate, and the epochs that came of it."""
    rows = []
    for name in ran(records):
        cells = []
        for method in WEIGHTINGS:
            chosen = pick(records, name, method, "plain")
            epochs = [r["epochs"] for r in chosen]
            cells.append(f"{chosen[0]['lr']}, {np.mean(epochs):.0f}" if chosen else "-")
        rows.append([name, *cells])
    return markdown_table(["data", *(f"{m}: lr, epochs" for m in WEIGHTINGS)], rows)


def seeds_table(records):
    """How many seeds were run of what: an interrupted run is summed up, too."""

    def count(name, method):
        return len({r["seed"] for r in records if (r["dataset"], r["method"]) == (name, method)})

    methods = (*WEIGHTINGS, BOOSTED, FIRST, SINGLE, FALLBACK, LIGHTGBM)
    rows = [[method, *(count(name, method) for name in ran(records))] for method in methods]
    return markdown_table(["seeds run", *ran(records)], rows)


def main(arguments):
    """Ask the question, write results/early_exit.md and .json; return the expectations."""
    check_files(
        arguments.data, CARD_FILE, MNIST_FILE, *(TABLES[n].file for n in DATASETS if n in TABLES)
    )
    # The longest first.
    names = QUICK_DATA if arguments.quick else ALL_DATA
    names = sorted(names, key=("card", "mnist", "letter").__contains__, reverse=True)
    todo = [
        ("weighting", name, method)
        for method in WEIGHTINGS
        for name in names
        if name in DATA_OF[method]
    ]
    todo += [("peers", name, seed) for name in names for seed in seeds_of("peers", arguments.quick)]
    tune_rates = getattr(arguments, "tune", False)  # `benchmarks.run` does not
    job = partial(run, arguments.data, arguments.quick, tune_rates)
    records = run_jobs(job, todo, "early_exit", quick=arguments.quick)
    return summarise(records, quick=arguments.quick)


def summarise(records, *, quick):
    """Write the tables of all records; return the expectations."""
    default = ("uniform", DEFAULT_MEANS)
    n_seeds = len(seeds_of(default[0], quick))
    expectations = expectations_of(records, default)
    parts = [
        "# Early exit: accuracy against cost",
        f"A scaled logistic regression, then {DEPTH} exits behind layers of {WIDTH} units. "
        "`bank` and `card` are judged by average precision, the others by accuracy, on test rows; "
        "`area` is the mean over budgets of 30 to 90 % of the cost (multiply-adds) of all stages, "
        "each read at the cost really spent, beyond the ends of a curve at its ends. Thresholds "
        f"and temperatures come from {TUNE_SHARE:.0%} of the training rows that no fit saw; those "
        "of the first seed also chose the learning rates. Mean ± half width of the 95 % interval "
        f"over {n_seeds} seeds, or as many as the last table says: other training and tuning "
        "rows, other initial weights; the same test rows. Every weighting has its own learning "
        "rate, the best by the area on the first seed's tuning rows of three and, while the best "
        "is at an edge, one more there, and its own length, by early stopping. The rows of `bank` "
        f"are dealt by chance; `{SHIFTED}` tests on the last third in time, where 24 % of the "
        "rows are positive instead of 5 %, and no budget set before holds: values are those of "
        "the cost really spent, and the table of expectations leaves it out.",
        expectation_table(expectations),
        "## What lifts the curve: area minus that of tuned uniform weights, paired by seed",
        "*plain*: every exit by itself, budgets spread by geometric pass rates. *by agreement*: "
        "budgets spread at one level of agreement with the last exit. *ensemble*: every stage "
        "answers with what the stages before it said, too. Bold: the interval lies above 0; in "
        "italics: below.",
        means_table(records),
        "## Values",
        value_table(records, default),
        "## LightGBM and its own early stop over trees (value, and time as a share of all trees')",
        lightgbm_table(records),
        "## Settings",
        settings_table(records),
        seeds_table(records),
    ]
    content = {"records": records, "expectations": expectations}
    write("early_exit", "\n\n".join(parts), content, quick=quick)
    return expectations


if __name__ == "__main__":
    tune = {"tune": "find the learning rates anew"}
    main(parse_arguments(__doc__, needs_data=True, flags=tune))
