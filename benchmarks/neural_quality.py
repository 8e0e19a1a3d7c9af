"""How good is TabularNet with its default parameters?

Run alone with ``python -m benchmarks.neural_quality --data DIR [--quick]``.
"""

from __future__ import annotations

import warnings
from functools import partial
from itertools import product
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks import methods
from benchmarks.command import parse_arguments
from benchmarks.datasets import (
    CARD_FILE,
    CARD_WEEKS,
    TABLES,
    card_week,
    check_files,
    few_rows,
    table,
)
from benchmarks.jobs import run_jobs
from benchmarks.objective import (
    expect,
    expectation_table,
    markdown_table,
    measure_proba,
    measure_ranking,
    over_repeats,
    plus_minus,
    write,
)
from benchmarks.timing import timed

OURS, PEERS = "TabularNet", ("LightGBM", "MLPClassifier", "logistic")
TITLES = {
    "card": "Card fraud, training weeks",
    "adult": "Adult census, its own split",
    "bank": "Bank marketing, the first two thirds by time train",
    "taiwan": "Default of credit cards, Taiwan, stratified splits",
    "mammography": "Mammography, stratified splits",
    "letter": "Letters, the first 16,000 rows train",
    "pendigits": "Pen digits, its own split: other writers",
    "optdigits": "Optical digits, its own split: other writers (held out)",
    "insurance": "Vehicle insurance fraud, the last year tests (held out)",
    "intrusion": "NSL-KDD intrusions, its own split: other attacks (held out)",
}
FEW = ("taiwan", "adult", "pendigits")  # also with few training rows
N_FEW = (200, 1000)
N_REPEATS = 5  # splits or draws
N_SEEDS = 3  # of a model where the split is fixed; of card fraud, per week
N_CASCADE_SEEDS = 1  # of a net and of the cascade around it, per week
# The seed changes nothing in the first two; the third is slow.
N_SEEDS_OF = {"LightGBM": 1, "logistic": 1, "MLPClassifier": 1}
SLOW = "TabularNet, small tabm"  # one fit of a table, and none of the largest
LARGEST = ("card", "letter", "intrusion")
CASCADE = "cascade"
RATE = 0.1
CASCADES = {  # name -> (screen, feedback)
    "no feedback": (methods.make_screen, "none"),
    "caught": (methods.make_screen, "caught"),
    "no feedback, screen with logs": (methods.make_log_screen, "none"),
}
EXPECTED = ("no feedback", "no feedback, screen with logs")  # to be as good as the net alone
N_QUICK_ROWS = 500
QUICK_TABLES = ("adult", "mammography", "letter")
MEASURES = ("ap", "accuracy", "auc", "cp100", "log_loss", "fit_s")


class Job(NamedTuple):
    """One fit of a method; `n_train` None: all training rows."""

    dataset: str
    repeat: str | int
    n_train: int | None
    method: str
    seed: int


def jobs(quick):
    """All jobs, the longest first."""
    names = [name for name in methods.TABLE_MODELS if not (quick and "tabm" in name)]
    weeks = CARD_WEEKS[-1:] if quick else CARD_WEEKS
    n_repeats = 1 if quick else N_REPEATS
    for week, seed in product(weeks, range(1 if quick else N_CASCADE_SEEDS)):
        yield Job("card", week, None, CASCADE, seed)
    for name, dataset in product(names, ("card", *(QUICK_TABLES if quick else TABLES))):
        if name == SLOW and dataset in LARGEST:
            continue
        seeds = range(1 if quick else N_SEEDS_OF.get(name, N_SEEDS))
        if dataset == "card":
            repeats = list(product(weeks, seeds))
        elif TABLES[dataset].is_fixed:
            repeats = [(0, seed) for seed in seeds]
        else:
            repeats = [(split, split) for split in range(n_repeats)]
        for repeat, seed in repeats[:1] if name == SLOW else repeats:
            yield Job(dataset, repeat, None, name, seed)
    few = (FEW[1:2], N_FEW[:1]) if quick else (FEW, N_FEW)
    for dataset, n_train, draw, name in product(*few, range(n_repeats), names):
        yield Job(dataset, draw, n_train, name, draw)


def run(data_dir, quick, job):
    """Records of one job."""
    if job.dataset == "card":
        split = card_week(data_dir, job.repeat)
    else:
        split = table(data_dir, job.dataset, job.repeat)
    n_train = job.n_train or (N_QUICK_ROWS if quick else None)
    if n_train is not None:
        split = few_rows(split, n_train, job.seed)
    if job.method == CASCADE:
        found = cascades(split, job.seed)
    else:
        found = {job.method: fit_and_measure(split, job)}
    return [{**job._asdict(), "method": name, **values} for name, values in found.items()]


def fit_and_measure(split, job):
    """Measures of one model on the test rows, and the CPU seconds of its fit on one thread."""
    model = methods.behind_one_hot(methods.TABLE_MODELS[job.method](job.seed), split.X_train)
    with warnings.catch_warnings():
        # MLPClassifier does its default of 200 epochs and says that it would go on.
        warnings.filterwarnings("ignore", message="Stochastic Optimizer")
        _, seconds = timed(model.fit, split.X_train, split.y_train)
    return {**measure_proba(split, model.predict_proba(split.X_test)), "fit_s": seconds}


def cascades(split, seed):
    """Ranking measures of logistic screens with TabularNet behind them."""
    last = methods.make_tabular_net(seed)
    found = {}
    with TemporaryDirectory() as memory:
        for name, (make_screen, feedback) in CASCADES.items():
            ((_, cascade, answers),) = methods.ours(
                split, last, [RATE], feedback=feedback, screen=make_screen(), memory=memory
            )
            last_score = cascade.stage_proba(split.X_test)[:, -1, 1]
            found[f"{CASCADE}, {name}"] = {
                **measure_ranking(split, answers.score),
                "pass_rate": float(answers.passed.mean()),
                "ap_of_last": measure_ranking(split, last_score)["ap"],
            }
    return found


def model_tables(records):
    """``(title, records)`` of every table of models: a data set with all or few rows."""
    models = [r for r in records if not r["method"].startswith(CASCADE)]
    for n_train in (None, *N_FEW):
        for dataset, title in TITLES.items():
            chosen = [r for r in models if (r["dataset"], r["n_train"]) == (dataset, n_train)]
            if chosen:
                yield title if n_train is None else f"{title}; {n_train:,} rows drawn", chosen


def detail(records):
    """All measures of all methods on one data set."""
    measures = [value for value in MEASURES if value in records[0]]
    rows = []
    for name in dict.fromkeys(r["method"] for r in records):
        cells = [
            plus_minus(over_repeats(records, name, value), 1 if value == "fit_s" else 3)
            for value in measures
        ]
        rows.append([name, *cells, sum(r["method"] == name for r in records)])
    return markdown_table(["method", *measures, "fits"], rows)


def standing(records):
    """TabularNet's row of the overview: its measure, the best peer, the difference, its rank."""
    value = MEASURES[0] if MEASURES[0] in records[0] else MEASURES[1]
    means = {name: over_repeats(records, name, value)["mean"] for name in (OURS, *PEERS)}
    best = max(PEERS, key=means.get)
    return [
        value,
        plus_minus(over_repeats(records, OURS, value)),
        best,
        plus_minus(over_repeats(records, best, value)),
        plus_minus(over_repeats(records, OURS, value, best), 4),
        f"{1 + sum(means[name] > means[OURS] for name in PEERS)} of {len(means)}",
    ]


def cascade_table(records):
    """The cascades on the card weeks beside the net alone, and their differences in AP."""
    measures = ("ap", "auc", "cp100")
    rows = [
        [f"{OURS} alone", *(plus_minus(over_repeats(records, OURS, m)) for m in measures), "", ""]
    ]
    for name in (f"{CASCADE}, {name}" for name in CASCADES):
        rows.append(
            [
                name,
                *(plus_minus(over_repeats(records, name, m)) for m in (*measures, "pass_rate")),
                plus_minus(over_repeats(records, name, "ap", OURS), 4),
            ]
        )
    return markdown_table(["method", *measures, "pass_rate", "ap minus alone"], rows)


def expectations_of(card, same_seeds):
    """What was expected, on card fraud: of the net, and of a cascade with the same net."""
    alone = {(r["repeat"], r["seed"]): r["ap"] for r in card if r["method"] == OURS}
    differs = [
        abs(r["ap_of_last"] - alone[r["repeat"], r["seed"]]) for r in card if "ap_of_last" in r
    ]
    return [
        expect(f"{OURS}, AP", over_repeats(card, OURS, "ap")["mean"], at_least=0.65),
        *(
            expect(
                f"{CASCADE}, {name}, minus {OURS} alone, AP",
                over_repeats(same_seeds, f"{CASCADE}, {name}", "ap", OURS)["mean"],
                at_least=-0.003,
            )
            for name in EXPECTED
        ),
        expect(
            "AP of the cascade's last stage differs from that alone", max(differs), at_most=1e-9
        ),
    ]


def main(arguments):
    """Ask the question, write results/neural_quality.md and .json; return the expectations."""
    check_files(arguments.data, CARD_FILE, *(how.file for how in TABLES.values()))
    job = partial(run, arguments.data, arguments.quick)
    records = run_jobs(job, list(jobs(arguments.quick)), "neural_quality", quick=arguments.quick)

    card = [r for r in records if r["dataset"] == "card"]
    same_seeds = [r for r in card if r["seed"] < N_CASCADE_SEEDS]
    expectations = expectations_of(card, same_seeds)
    tables = list(model_tables(records))
    overview = [[title, *standing(chosen)] for title, chosen in tables]
    header = ["data", "measure", OURS, "best peer", "its value", "difference", "rank"]
    parts = [
        "# Neural quality: TabularNet with its default parameters",
        "All methods have their default parameters, but for `max_iter=1000` of the logistic "
        "regression and the 8 members and 128 units of the small tabm, and get the same columns, "
        "texts one-hot encoded. Mean ± half width of the 95 % interval over repeats (weeks, "
        "splits, draws); where the split is fixed, over seeds, which says nothing of other test "
        "rows. The defaults of TabularNet were chosen by single fits on these data sets, test rows "
        "included, except those that are marked as held out, which were not looked at. "
        "`ap` or `accuracy`, `auc` and `cp100`: higher is better; `log_loss`: lower; "
        "`fit_s`: CPU seconds on one thread, with a fit on every core.",
        expectation_table(expectations),
        f"## Where {OURS} stands among {', '.join(PEERS)}",
        markdown_table(header, overview),
        f"## Card fraud: logistic screens that pass {RATE:.0%}, seeds that both have",
        cascade_table(same_seeds),
    ]
    for title, chosen in tables:
        parts += [f"## {title}", detail(chosen)]
    content = {"records": records, "expectations": expectations}
    write("neural_quality", "\n\n".join(parts), content, quick=arguments.quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=True))
