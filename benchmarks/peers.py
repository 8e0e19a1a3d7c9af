"""How does a cascade stand beside the models that people would use instead?

Run alone with ``python -m benchmarks.peers --data DIR [--quick]``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV

from benchmarks import methods, reference
from benchmarks.command import parse_arguments
from benchmarks.datasets import (
    CARD_FILE,
    CARD_WEEKS,
    ULB_FILE,
    card_week,
    check_files,
    few_rows,
    ulb,
)
from benchmarks.jobs import run_jobs
from benchmarks.objective import (
    expect,
    expectation_table,
    interval,
    markdown_table,
    measure_ranking,
    paired,
    plus_minus,
    write,
)
from benchmarks.timing import interleaved, timed, torch_threads

RATE = 0.10
ULB_SEEDS = (0, 1, 2)
N_QUICK_ROWS = 1500
MARGINS = (8, 11, 12)  # on twice the raw score: the higher, the more trees
TITLES = {
    "card": "Card fraud, four training weeks",
    "ulb": "ULB credit cards, weighted, three stratified splits",
}

LOGISTIC, FOREST, LIGHTGBM, XGBOOST = "logistic", "forest", "LightGBM", "XGBoost"
DEFAULT_XGBOOST = "XGBoost, defaults"
NET, DEFAULT_CASCADE = "TabularNet", "skmsc, as it comes"
WHOLE_MODELS = {
    LOGISTIC: methods.make_screen,
    FOREST: methods.make_forest,
    LIGHTGBM: methods.make_lightgbm,
    XGBOOST: methods.make_xgboost,
    DEFAULT_XGBOOST: methods.make_default_xgboost,
    "HistGradientBoosting": methods.make_hist_boosting,
    "HistGradientBoosting, defaults": methods.make_default_hist_boosting,
}
# What stands behind the screen. On ULB cards the forest does in `quality`, too.
LAST_STAGES = {"card": (FOREST, LIGHTGBM, XGBOOST, NET), "ulb": (LIGHTGBM, XGBOOST)}


def ours(last_name, survivors=False):
    """Name of our cascade of the logistic screen and that last stage."""
    return f"skmsc, {last_name}" + (", survivors" if survivors else "")


def fallback(last_name):
    """Name of the peer's cascade of the same stages."""
    return f"scikit-fallback, {last_name}"


# The two cascades of ours that all others are compared with.
COMPARED = {
    "card": (ours(FOREST), ours(LIGHTGBM, survivors=True)),
    "ulb": (ours(XGBOOST), ours(LIGHTGBM, survivors=True)),
}

# --- published --------------------------------------------------------------------------------
# AUC, AP, CP@100 of Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for
# Credit Card Fraud Detection - Practical Handbook, 2022, chapter 3; tuned, chapters 5 and 7.
HANDBOOK_WEEK = "2018-07-25"
PUBLISHED = {
    LOGISTIC: (0.871, 0.606, 0.291),
    FOREST: (0.867, 0.658, 0.287),
    DEFAULT_XGBOOST: (0.862, 0.639, 0.273),
}
PUBLISHED_TUNED = {
    "logistic": (0.868, 0.623, 0.297),
    "forest": (0.870, 0.678, 0.299),
    "XGBoost": (0.869, 0.687, 0.303),
    "neural network": (0.876, 0.675, 0.303),
}
MEASURES = ("auc", "ap", "cp100")
HERE = (LOGISTIC, FOREST, LIGHTGBM, XGBOOST, NET, *COMPARED["card"], ours(XGBOOST, survivors=True))


# --- whole models -----------------------------------------------------------------------------
class Candidate(NamedTuple):
    """A fitted model; `reach` is the (weighted) share of the test rows that its last stage scores.

    It is 1 for a model that is no cascade, and 0 for the logistic regression, the screen of all.
    """

    predict_proba: Callable
    fit_s: float | None
    reach: float = 1.0


def fit_models(split, last_names):
    """Candidates by name; how far the last stages of ours are from the same models alone."""
    train = split.X_train, split.y_train, split.w_train
    fitted = {name: timed(reference.fit, make(), *train) for name, make in WHOLE_MODELS.items()}
    found = {
        name: Candidate(model.predict_proba, fit_s, reach=float(name != LOGISTIC))
        for name, (model, fit_s) in fitted.items()
    }
    for margin in MARGINS:
        stop = {"pred_early_stop": True, "pred_early_stop_margin": margin}
        found[f"{LIGHTGBM}, early stop at {margin}"] = Candidate(
            partial(found[LIGHTGBM].predict_proba, pred_early_stop_freq=10, **stop),
            found[LIGHTGBM].fit_s,
        )

    screen, screen_s = fitted[LOGISTIC]
    screen_oof, oof_s = timed(reference.out_of_fold, methods.make_screen(), *train)
    differences = []
    for name in last_names:
        if name == NET:
            continue
        last, last_s = fitted[name]
        found[f"stacking, {name}"] = fit_stacking(WHOLE_MODELS[name](), train)

        peer = methods.make_scikit_fallback(screen, last, screen_oof, RATE, split.w_train)
        deferred = peer.predict_proba(split.X_test).ensemble_mask.toarray()[:, 1]
        found[fallback(name)] = Candidate(
            peer.predict_proba, screen_s + oof_s + last_s, mean_of(deferred, split)
        )

        fit_s = 0.0
        with TemporaryDirectory() as memory:
            for survivors in (False, True):
                cascade = methods.make_ours(
                    WHOLE_MODELS[name](), RATE, feedback="none", survivors=survivors, memory=memory
                )
                candidate = fit_cascade(cascade, split)
                # The second reads the fits of the first from `memory`: they are its own, too.
                fit_s += candidate.fit_s
                found[ours(name, survivors)] = candidate._replace(fit_s=fit_s)
                if not survivors:
                    own = cascade.stage_proba(split.X_test)[:, -1]
                    differences.append(np.abs(own - last.predict_proba(split.X_test)).max())

    if NET in last_names:
        cascade = methods.make_default_cascade()
        found[DEFAULT_CASCADE] = fit_cascade(cascade, split)
        # The cascade fits its last stage on all rows: the net alone.
        found[NET] = Candidate(cascade.named_stages_["final"].predict_proba, None)
    return found, float(max(differences))


def fit_stacking(last, train):
    """scikit-learn's stacking of the screen and a last stage."""
    with config_context(enable_metadata_routing=True):
        stacking, fit_s = timed(reference.fit, methods.make_stacking(last), *train)
    return Candidate(stacking.predict_proba, fit_s)


def fit_cascade(cascade, split):
    """Fit one of ours; its share of rows that pass is that of the test rows."""
    with warnings.catch_warnings():
        # The default policy says when its cap on the pass rate binds: part of its answer here.
        warnings.filterwarnings("ignore", message=".*max_pass_rate.*")
        _, fit_s = timed(cascade.fit, split.X_train, split.y_train, sample_weight=split.w_train)
    passed = cascade.route(split.X_test).stage > 0
    return Candidate(cascade.predict_proba, fit_s, mean_of(passed, split))


def mean_of(values, split):
    """Mean over test rows, weighted where they are."""
    return float(np.average(values, weights=split.w_test))


def run_models(split, last_names, quick):
    """Records of all models on one split."""
    found, difference = fit_models(split, last_names)
    calls = {name: partial(one.predict_proba, split.X_test) for name, one in found.items()}
    timings = interleaved(
        calls, baseline=FOREST, seconds=0, min_turns=1 if quick else 5, warm=False
    )
    for name, one in found.items():
        yield {
            "method": name,
            **measure_ranking(split, np.asarray(calls[name]())[:, 1]),
            "reach": one.reach,
            "fit_s": one.fit_s,
            "predict_ms": 1e6 * timings[name]["cpu_s"] / len(split.y_test),
            "ratio": timings[name]["ratio"],
            "last_differs": difference,
        }


# --- decisions --------------------------------------------------------------------------------
MISS = 20  # a missed fraud costs as much as so many false alarms
N_FOLDS = 3
N_TREES, DEPTH = 20, 10
MAX_PASS_RATE = 0.1
HALF, TUNED_F1, TUNED_COST = "forest, cut at 1/2", "forest, tuned for F1", "forest, tuned for cost"
OURS_F1, OURS_COST = "skmsc, searched for F1", "skmsc, ExpectedCost"


def cost_of(y, alerts):
    """Mean cost of a row, in false alarms."""
    return float(np.mean(np.where(y == 1, MISS * (alerts == 0), alerts == 1)))


def make_deciders():
    """Models that decide, by name; all of the same forest, behind the same screen in ours."""
    from skmsc import ExpectedCost, FeedbackCascadeClassifier
    from skmsc.model_selection import ThresholdSearchCV

    forest = RandomForestClassifier(N_TREES, max_depth=DEPTH, n_jobs=1, random_state=0)
    cascade = FeedbackCascadeClassifier(
        [("screen", methods.make_screen()), ("final", forest)],
        feedback="none",
        cv=N_FOLDS,
        random_state=0,
    )
    cost = make_scorer(cost_of, greater_is_better=False)
    expected_cost = ExpectedCost(false_negative_cost=MISS, false_positive_cost=1)
    return {
        HALF: forest,
        TUNED_F1: TunedThresholdClassifierCV(forest, scoring="f1", cv=N_FOLDS),
        OURS_F1: ThresholdSearchCV(
            cascade,
            "pairs",
            scoring="f1",
            constraints={"pass_rate": ("<=", MAX_PASS_RATE)},
            cv=N_FOLDS,
        ),
        TUNED_COST: TunedThresholdClassifierCV(forest, scoring=cost, cv=N_FOLDS),
        OURS_COST: clone(cascade).set_params(thresholds=expected_cost),
    }


def run_decisions(split):
    """Records of all that decide on one split."""
    import skmsc

    for name, model in make_deciders().items():
        _, fit_s = timed(model.fit, split.X_train, split.y_train)
        alerts = (model.alerts if name == OURS_COST else model.predict)(split.X_test)
        is_ours = name in (OURS_F1, OURS_COST)
        passed = skmsc.route(model, split.X_test).stage > 0 if is_ours else 1.0
        yield {
            "method": name,
            "f1": float(f1_score(split.y_test, alerts)),
            "cost": 1000 * cost_of(split.y_test, alerts),
            "reach": float(np.mean(passed)),
            "fit_s": fit_s,
        }


# --- jobs -------------------------------------------------------------------------------------
class Job(NamedTuple):
    """A part of the question on one split."""

    part: str
    dataset: str
    repeat: str | int


def jobs(quick):
    """All jobs, the longest first."""
    weeks = [HANDBOOK_WEEK] if quick else CARD_WEEKS
    return [
        *(Job("models", "card", week) for week in weeks),
        *(Job("decisions", "card", week) for week in weeks),
        *(Job("models", "ulb", seed) for seed in (() if quick else ULB_SEEDS)),
    ]


def run(data_dir, quick, job):
    """Records of one job."""
    split = (card_week if job.dataset == "card" else ulb)(data_dir, job.repeat)
    if quick:
        split = few_rows(split, N_QUICK_ROWS, 0)
    with torch_threads(1):
        if job.part == "models":
            found = run_models(split, LAST_STAGES[job.dataset], quick)
        else:
            found = run_decisions(split)
        return [{**job._asdict(), **record} for record in found]


# --- tables -----------------------------------------------------------------------------------
def chosen(records, part, dataset):
    """The records of one table."""
    return [r for r in records if (r["part"], r["dataset"]) == (part, dataset)]


def over(records, method, value):
    """Interval of a value of a method; None where it was not measured."""
    values = [r[value] for r in records if r["method"] == method]
    return None if values[0] is None else interval(values)


def cell(records, method, value, digits=3, *, mean_only=False):
    """The same as text."""
    summary = over(records, method, value)
    if summary is None:
        return ""
    return f"{summary['mean']:.{digits}f}" if mean_only else plus_minus(summary, digits)


def ap_gain(records, method, against):
    """Interval of the AP of a method minus that of another on the same splits."""
    return paired(records, "repeat", "ap", {"method": method}, {"method": against})


def model_table(records, compared):
    """A row for each model, the best AP on top."""
    names = dict.fromkeys(r["method"] for r in records)
    names = sorted(names, key=lambda name: -over(records, name, "ap")["mean"])
    cards = ["cp100"] if "cp100" in records[0] else []
    header = ["model", "AP", "minus A", "minus B", "AUC", *(["CP@100"] if cards else [])]
    header += ["reach last", "ms per 1,000 rows", "times forest", "fit s"]
    marks = dict(zip(compared, ("A: ", "B: "), strict=True))
    rows = [
        [
            marks.get(name, "") + name,
            cell(records, name, "ap"),
            *(plus_minus(ap_gain(records, name, against)) for against in compared),
            *(cell(records, name, value) for value in ["auc", *cards]),
            cell(records, name, "reach", mean_only=True),
            cell(records, name, "predict_ms", 2, mean_only=True),
            cell(records, name, "ratio"),
            cell(records, name, "fit_s", 1, mean_only=True),
        ]
        for name in names
    ]
    return markdown_table(header, rows)


def triple(values):
    """AUC, AP and CP@100 in one cell."""
    return " / ".join(f"{value:.3f}" for value in values)


def handbook_table(records):
    """The handbook's week, published and here."""
    week = [r for r in records if str(r["repeat"]) == HANDBOOK_WEEK]
    names = [*PUBLISHED, *(name for name in HERE if name not in PUBLISHED)]
    here = {r["method"]: triple(r[value] for value in MEASURES) for r in week}
    rows = [
        [name, triple(PUBLISHED[name]) if name in PUBLISHED else "", here[name]] for name in names
    ]
    return markdown_table(["model", "published", "here"], rows)


def tuned_table(records):
    """The handbook's tuned models beside ours, which are not tuned."""
    rows = [[f"{name}, tuned", triple(values), ""] for name, values in PUBLISHED_TUNED.items()]
    for name in HERE:
        means = (over(records, name, value)["mean"] for value in MEASURES)
        rows.append([name, "", triple(means)])
    return markdown_table(["model", "published, several weeks", "here, four weeks"], rows)


def decision_table(records):
    """A row for each model that decides."""
    rows = [
        [
            name,
            cell(records, name, "f1"),
            cell(records, name, "cost", 1),
            cell(records, name, "reach"),
            cell(records, name, "fit_s", 1),
        ]
        for name in dict.fromkeys(r["method"] for r in records)
    ]
    header = ["model", "F1", "cost of 1,000 rows", "rows that need the forest", "fit and search s"]
    return markdown_table(header, rows)


def check_models(records, dataset):
    """What is expected on one dataset."""
    names = dict.fromkeys(r["method"] for r in records)
    behind = [name for name in LAST_STAGES[dataset] if name != NET]
    kept = {name: ap_gain(records, ours(name), name)["mean"] for name in behind}
    beside = {name: ap_gain(records, ours(name), fallback(name))["mean"] for name in behind}
    worst, closest = (min(gains, key=gains.get) for gains in (kept, beside))
    best, best_peer = (
        max(group, key=lambda name: over(records, name, "ap")["mean"])
        for group in (
            [name for name in names if name.startswith("skmsc")],
            [name for name in names if not name.startswith("skmsc")],
        )
    )
    first = COMPARED[dataset][0]
    found = [
        expect(
            f"{dataset}: cascade minus its last stage alone, AP, the worst ({worst})",
            kept[worst],
            at_least=-0.01,
        ),
        expect(
            f"{dataset}: skmsc minus scikit-fallback, AP, same stages, the closest ({closest})",
            beside[closest],
            at_least=0,
        ),
        expect(
            f"{dataset}: the best of ours ({best}) minus the best peer ({best_peer}), AP",
            ap_gain(records, best, best_peer)["mean"],
            at_least=0,
        ),
        expect(
            f"{dataset}: CPU time of predict_proba, {first}, times the forest alone",
            over(records, first, "ratio")["mean"],
            at_most=0.5,
        ),
    ]
    if DEFAULT_CASCADE in names:
        what = f"{dataset}: {DEFAULT_CASCADE}, minus its last stage alone, AP"
        value = ap_gain(records, DEFAULT_CASCADE, NET)["mean"]
        found.append(expect(what, value, at_least=-0.01))
    return found


def check_decisions(records):
    """What is expected of decisions."""

    def minus(value, of, against):
        return paired(records, "repeat", value, {"method": of}, {"method": against})["mean"]

    tuned_cost = over(records, TUNED_COST, "cost")["mean"]
    return [
        expect(
            "decisions: F1, skmsc minus the tuned forest",
            minus("f1", OURS_F1, TUNED_F1),
            at_least=-0.01,
        ),
        expect(
            "decisions: cost, skmsc minus the tuned forest, in costs of the latter",
            minus("cost", OURS_COST, TUNED_COST) / tuned_cost,
            at_most=0.05,
        ),
    ]


def main(arguments):
    """Ask the question, write results/peers.md and .json; return the expectations."""
    check_files(arguments.data, CARD_FILE, ULB_FILE)
    quick = arguments.quick
    records = run_jobs(partial(run, arguments.data, quick), jobs(quick), "peers", quick=quick)
    by_dataset = {name: chosen(records, "models", name) for name in TITLES}
    decisions = chosen(records, "decisions", "card")
    expectations = [
        *(e for name, own in by_dataset.items() if own for e in check_models(own, name)),
        *check_decisions(decisions),
        expect(
            "last stage differs from the same model alone (XGBoost's scores are float32)",
            max(r["last_differs"] for r in records if "last_differs" in r),
            at_most=1e-7,
        ),
    ]
    text = [
        "# Peers: a cascade beside the models people would use instead",
        "Mean ± half width of the 95 % interval over splits. *Minus A*, *minus B*: AP minus that "
        "of the rows so marked, paired by split. *Reach last* is the share of the test rows that "
        "the heavy model scores. Times are CPU times on one thread: of `predict_proba` on the "
        "test rows, and its ratio to the forest's; of the fit, all fits for thresholds and "
        "calibration included. All cascades have a logistic screen and a budget of "
        f"{RATE:.0%}; `{DEFAULT_CASCADE}` has its default thresholds and TabularNet last.",
        expectation_table(expectations),
    ]
    for name, own in by_dataset.items():
        if own:
            text += [f"## {TITLES[name]}", model_table(own, COMPARED[name])]
    text += [
        "## Beside the handbook's own numbers",
        f"AUC / AP / CP@100 of its one published week, training from {HANDBOOK_WEEK}, the same "
        "protocol; its models as they came, of older versions: XGBoost's defaults have changed.",
        handbook_table(by_dataset["card"]),
        "Its tuned models (prequential validation, chapters 5 and 7), averaged over several weeks "
        "that are not these four; ours are not tuned. No pairs: a difference of .01 says nothing.",
        tuned_table(by_dataset["card"]),
        "## Decisions",
        f"Card weeks; a forest of {N_TREES} trees of depth {DEPTH}. Cost: a missed fraud {MISS}, "
        "a false alarm 1. *Tuned* is TunedThresholdClassifierCV, *searched* ThresholdSearchCV over "
        f"pairs at most {MAX_PASS_RATE:.0%} passing. All with {N_FOLDS} folds; the search fits "
        "cascades, which have folds of their own.",
        decision_table(decisions),
    ]
    content = {"records": records, "expectations": expectations}
    write("peers", "\n\n".join(text), content, quick=quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=True))
