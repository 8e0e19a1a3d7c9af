"""What does a cascade keep of its last stage's quality, and at what cost?

Run alone with ``python -m benchmarks.quality --data DIR [--quick]``.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import methods, reference
from benchmarks.command import parse_arguments
from benchmarks.datasets import CARD_WEEKS, card_week, ulb
from benchmarks.jobs import run_jobs
from benchmarks.objective import (
    expect,
    expectation_table,
    interval,
    markdown_table,
    measure,
    paired,
    plus_minus,
    write,
)

RATES = (0.02, 0.05, 0.10, 0.20)
ULB_SEEDS = (0, 1, 2)
WITH_SURVIVORS = ("none", "caught")  # also with a last stage fitted on what passes
FULL_TABLE_RATE = 0.10
MEASURES = ("auc", "ap", "cp100", "pass_rate", "cost", "retained")
DATASETS = {
    "card": "Card fraud, training weeks",
    "ulb": "ULB credit cards, weighted, stratified splits",
    "ulb by time": "ULB credit cards, weighted, the first two thirds by time train (one split)",
}
SCREEN_ALONE = "logistic alone"


def jobs(quick):
    """``(dataset, repeat, last stage)``."""
    repeats = [("card", start) for start in (CARD_WEEKS[-1:] if quick else CARD_WEEKS)]
    if not quick:
        repeats += [("ulb", seed) for seed in ULB_SEEDS] + [("ulb by time", "time")]
    for (dataset, repeat), last_name in product(repeats, methods.LAST_STAGES):
        yield dataset, repeat, last_name


def run(data_dir, job):
    """Records of all methods around one last stage on one split."""
    dataset, repeat, last_name = job
    split = card_week(data_dir, repeat) if dataset == "card" else ulb(data_dir, repeat)
    return [{"dataset": dataset, **record} for record in run_split(split, last_name)]


def run_split(split, last_name):
    """Records of all methods, each at all pass rates."""
    last = methods.LAST_STAGES[last_name]()
    stages = methods.fit_stages(split, last)

    def record(method, rate, answers, **more):
        # A screen alone dismisses nothing on behalf of a later stage.
        caught = None if method == SCREEN_ALONE else stages.caught
        values = measure(split, answers, screen_cost=stages.screen_cost, caught=caught)
        return {
            "repeat": split.name,
            "last": last_name,
            "method": method,
            "rate": rate,
            **values,
            **more,
        }

    yield record(SCREEN_ALONE, None, methods.alone(stages.screen_test[:, 1], is_last=False))
    yield record(f"{last_name} alone", None, methods.alone(stages.last_test[:, 1], is_last=True))
    for survivors in (False, True):
        for rate, answers in methods.by_hand(split, stages, RATES, survivors=survivors):
            yield record(named("by hand", survivors), rate, answers)
    for rate, answers in methods.scikit_fallback(split, stages, RATES):
        yield record("scikit-fallback", rate, answers)
    with TemporaryDirectory() as memory:
        for feedback in methods.FEEDBACKS:
            for survivors in (False, True) if feedback in WITH_SURVIVORS else (False,):
                name = named(f"skmsc {feedback}", survivors)
                fits = methods.ours(
                    split, last, RATES, feedback=feedback, survivors=survivors, memory=memory
                )
                for rate, cascade, answers in fits:
                    check = {}
                    if feedback == "none":
                        # Same rows, same folds: the budget must give the cut found by hand.
                        cut = reference.pass_cut(stages.screen_oof, rate, split.w_train)
                        check["cut_differs"] = abs(1 - float(cascade.thresholds_[0, 0]) - cut)
                    if rate == RATES[0] and not survivors:
                        # Same rows, same seed: the last stage must be the one fitted alone.
                        own = cascade.stage_proba(split.X_test)[:, -1]
                        check["last_differs"] = float(np.abs(own - stages.last_test).max())
                    yield record(name, rate, answers, **check)


def named(method, survivors):
    """Method name with its last stage's training rows."""
    return f"{method}, survivors" if survivors else method


def rows_of(records, dataset, last_name):
    """The records of one table."""
    return [r for r in records if r["dataset"] == dataset and r["last"] == last_name]


def cell(records, method, rate, value, digits=3):
    """Mean and interval of one measure of one method."""
    chosen = [
        r[value] for r in records if r["method"] == method and r["rate"] == rate and value in r
    ]
    return plus_minus(interval(chosen), digits) if chosen else ""


def tables(records, last_name):
    """All measures at one pass rate with paired differences, then AP at every pass rate."""
    names = list(dict.fromkeys(r["method"] for r in records))
    alone = [name for name in names if name.endswith("alone")]
    cascades = [name for name in names if name not in alone]
    measures = [value for value in MEASURES if any(value in r for r in records)]
    last_alone = f"{last_name} alone"

    def gain(method, rate, against, against_rate):
        of, other = ({"method": m, "rate": r} for m, r in ((method, rate), (against, against_rate)))
        return plus_minus(paired(records, "repeat", "ap", of, other), 4)

    def by_rate(show):
        header = ["method", *(f"{rate:.0%}" for rate in RATES)]
        return markdown_table(header, [[m, *(show(m, rate) for rate in RATES)] for m in cascades])

    rate = FULL_TABLE_RATE
    full = [[m, *(cell(records, m, None, value) for value in measures)] for m in alone]
    full += [[m, *(cell(records, m, rate, value) for value in measures)] for m in cascades]
    rivals = ("by hand", "scikit-fallback", "skmsc none")
    against = [
        [m, gain(m, rate, last_alone, None), *(gain(m, rate, rival, rate) for rival in rivals)]
        for m in cascades
    ]
    return "\n\n".join(
        [
            f"All measures, cascades at {rate:.0%} pass:",
            markdown_table(["method", *measures], full),
            f"AP at {rate:.0%} pass minus that of a rival, paired:",
            markdown_table(["method", last_alone, *rivals], against),
            "AP by pass rate:",
            by_rate(lambda method, rate: cell(records, method, rate, "ap")),
            f"AP minus that of {last_alone}, paired, by pass rate:",
            by_rate(lambda method, rate: gain(method, rate, last_alone, None)),
            "Pass rate realised on the test rows:",
            by_rate(lambda method, rate: cell(records, method, rate, "pass_rate")),
        ]
    )


def expectations_of(records):
    """What was expected: on card fraud with the default feedback, and of the code everywhere."""
    ours, rate = "skmsc caught", FULL_TABLE_RATE

    def gain(last_name, method):
        chosen = rows_of(records, "card", last_name)
        alone = {"method": f"{last_name} alone", "rate": None}
        return paired(chosen, "repeat", "ap", {"method": method, "rate": rate}, alone)["mean"]

    def largest(check):
        return max(r[check] for r in records if check in r)

    return [
        expect("forest cascade minus forest alone, AP", gain("forest", ours), at_least=-0.003),
        expect(
            "LightGBM survivors minus LightGBM alone, AP",
            gain("lightgbm", named(ours, True)),
            at_least=0.02,
        ),
        *(worst_mixing(records, value) for value in ("ap", "auc")),
        worst_automatic(records),
        expect("last stage differs from that fitted alone", largest("last_differs"), at_most=1e-9),
        expect("cut differs from that by hand", largest("cut_differs"), at_most=1e-9),
    ]


def worst_mixing(records, value):
    """Where skmsc without feedback ranks worst against the same stages and cuts by hand.

    Stages, cuts and routing are the same, so all that differs is how the scores of two stages
    become comparable: calibrated, or the passed rows put on top.
    """
    found = {}
    for dataset in DATASETS:
        for last_name in methods.LAST_STAGES:
            chosen = rows_of(records, dataset, last_name)
            for rate in RATES if chosen else ():
                of, by_hand = ({"method": m, "rate": rate} for m in ("skmsc none", "by hand"))
                where = f"{dataset}, {last_name}, {rate:.0%}"
                found[where] = paired(chosen, "repeat", value, of, by_hand)["mean"]
    where = min(found, key=found.get)
    what = f"skmsc none minus by hand, {value.upper()}, worst of all tables ({where})"
    return expect(what, found[where], at_least=-0.01)


def worst_automatic(records):
    """Where the automatic choice of feedback lies lowest below none, its noise granted."""
    found = {}
    for dataset in DATASETS:
        for last_name in methods.LAST_STAGES:
            chosen = rows_of(records, dataset, last_name)
            for rate in RATES if chosen else ():
                of, none = ({"method": f"skmsc {m}", "rate": rate} for m in ("auto", "none"))
                gain = paired(chosen, "repeat", "retained", of, none)
                if gain["half_width"] is not None:
                    where = f"{dataset}, {last_name}, {rate:.0%}"
                    found[where] = gain["mean"] + gain["half_width"]
    if not found:  # a quick run has one repeat
        return expect("auto minus none, retained: no interval", 0.0, at_least=0.0)
    where = min(found, key=found.get)
    what = f"auto minus none, retained recall, top of the interval, worst of all tables ({where})"
    return expect(what, found[where], at_least=0.0)


def main(arguments):
    """Ask the question, write results/quality.md and .json; return the expectations."""
    records = run_jobs(
        partial(run, arguments.data), list(jobs(arguments.quick)), "quality", quick=arguments.quick
    )
    expectations = expectations_of(records)
    parts = [
        "# Quality: what a cascade keeps of its last stage",
        "Mean ± half width of the 95 % interval over repeats. Cost is the mean per row in calls of "
        "the last stage, the screen's own (measured) cost included. Retained is the share of the "
        "frauds caught by the last stage that no early stage dismisses; one judge a table: the "
        "last stage fitted alone, with its out-of-fold cut of best F1.",
        expectation_table(expectations),
    ]
    for dataset, title in DATASETS.items():
        for last_name in methods.LAST_STAGES:
            chosen = rows_of(records, dataset, last_name)
            if chosen:
                parts += [f"## {title}; last stage {last_name}", tables(chosen, last_name)]
    write(
        "quality",
        "\n\n".join(parts),
        {"records": records, "expectations": expectations},
        quick=arguments.quick,
    )
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=True))
