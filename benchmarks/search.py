"""What does a search over thresholds cost beyond the fits, and does it find as good thresholds?

Run alone with ``python -m benchmarks.search [--quick]``; the rows are simulated.
"""

from __future__ import annotations

import time
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_limits

from benchmarks.command import parse_arguments
from benchmarks.datasets import imbalanced
from benchmarks.jobs import run_jobs
from benchmarks.methods import make_screen
from benchmarks.objective import (
    expect,
    expectation_table,
    interval,
    markdown_table,
    paired,
    plus_minus,
    write,
)
from benchmarks.timing import interleaved, timing_table

SCREEN_COST, MAX_COST = 0.02, 0.1  # in calls of the last stage
N_ROWS, N_CUTS = 1_000_000, 512


class Scope(NamedTuple):
    """How much is searched."""

    n_train: int
    n_test: int
    n_repeats: int
    n_folds: int
    n_settings: int
    n_for_grid: int  # of these settings, for GridSearchCV
    n_few_cuts: int  # of a search that has as many settings on both sides


FULL, QUICK = Scope(10_000, 40_000, 5, 5, 50, 10, 20), Scope(2000, 2000, 1, 2, 6, 3, 6)
PEER, OURS = "scikit-fallback", "skmsc, pairs"
# With as many settings on both sides; in the first repeat only, as is GridSearchCV.
AS_MANY = f"{PEER}, as many settings"
FEW_PAIRS = f"{OURS}, few"
SHORT, GRID = "skmsc, short list", "GridSearchCV, short list"


# --- all pairs of a million rows --------------------------------------------------------------
def many_rows(n_rows, seed=0):
    """Scores of two stages and labels, 1 % of them positive."""
    rng = np.random.default_rng(seed)
    positive = rng.uniform(size=n_rows) < 0.01
    screen = 1 / (1 + np.exp(4 - 2 * rng.normal(size=n_rows) - 4 * positive))
    last = 1 / (1 + np.exp(4 - 1.5 * rng.normal(size=n_rows) - 5 * positive))
    return screen, last, positive


def counts_by_hand(confidence, last, positive, cuts, final_cuts):
    """True positives, false positives and passed rows of all pairs, and nothing else."""
    n_columns = len(final_cuts) + 1
    cell = np.searchsorted(cuts, confidence, side="right") * n_columns
    cell += np.searchsorted(final_cuts, last, side="right")
    n_cells = (len(cuts) + 1) * n_columns
    found = []
    for rows in (positive, ~positive):
        cells = np.bincount(cell[rows], minlength=n_cells).reshape(-1, n_columns)
        found.append(cells.cumsum(axis=0)[:-1, ::-1].cumsum(axis=1)[:, ::-1])
    return found[0][:, 1:], found[1][:, 1:], found[0][:, 0] + found[1][:, 0]


def time_pairs(seconds):
    """Records of the counts of all pairs, ours and by hand; they must be the same."""
    from skmsc.model_selection._pairs import count_pairs, spread_cuts

    screen, last, positive = many_rows(N_ROWS)
    confidence = 1 - screen
    cuts = np.sort(1 - spread_cuts(screen[positive], screen.min(), N_CUTS))
    final_cuts = spread_cuts(last[positive], last.min(), N_CUTS)
    given = confidence, last, positive
    ours = count_pairs(*given, None, cuts, final_cuts)
    by_hand = counts_by_hand(*given, cuts, final_cuts)
    for one, other in zip((ours.tp, ours.fp, ours.passed[:, 0]), by_hand, strict=True):
        if not np.array_equal(one, other):
            raise AssertionError("The counts by hand are others.")
    calls = {
        "by hand": lambda: counts_by_hand(*given, cuts, final_cuts),
        "skmsc": lambda: count_pairs(*given, None, cuts, final_cuts),
    }
    timings = interleaved(calls, baseline="by hand", seconds=seconds)
    for method, timing in timings.items():
        yield {"method": method, "n_rows": N_ROWS, "n_pairs": ours.tp.size, **timing}


# --- searches ---------------------------------------------------------------------------------
class Clock:
    """CPU seconds spent in fits: of a cascade up to its thresholds, or of the peer's stages."""

    def __init__(self):
        self.fits = 0.0

    def timed(self, call, *given, **params):
        start = time.process_time()
        result = call(*given, **params)
        self.fits += time.process_time() - start
        return result


CLOCK = Clock()


def make_stages():
    """Screen and last stage of all methods."""
    forest = RandomForestClassifier(n_estimators=30, max_depth=10, n_jobs=1, random_state=0)
    return make_screen(), forest


def clocked(cls, method):
    """A subclass whose method tells the clock how long it takes."""

    def run(self, *given, **params):
        return CLOCK.timed(getattr(super(made, self), method), *given, **params)

    made = type(cls.__name__, (cls,), {method: run, "__module__": cls.__module__})
    return made


def clocked_fit(stage):
    """A stage whose fits tell the clock."""
    return clocked(type(stage), "fit")(**stage.get_params(deep=False))


def make_cascade():
    """The cascade without feedback, whose screen is the peer's screen."""
    from skmsc import FeedbackCascadeClassifier

    # What a fit does before thresholds; GridSearchCV does it for every setting.
    cascade = clocked(FeedbackCascadeClassifier, "_learn")
    stages = list(zip(("screen", "final"), make_stages(), strict=True))
    costs = {"screen": SCREEN_COST, "final": 1.0}
    return cascade(stages, feedback="none", stage_costs=costs, cv=3, random_state=0)


def make_searches(scope):
    """Searches by name with the number of settings; all maximise F1 at a bounded cost."""
    from skmsc import PassBudget
    from skmsc.model_selection import ThresholdSearchCV

    budgets = [PassBudget(rate) for rate in np.geomspace(0.002, 0.3, scope.n_settings)]
    few = budgets[:: max(scope.n_settings // scope.n_for_grid, 1)]
    common = {"scoring": "f1", "cv": scope.n_folds}
    ours = {**common, "constraints": {"cost": ("<=", MAX_COST)}}
    searches = {
        OURS: (ThresholdSearchCV(make_cascade(), "pairs", **ours), None),
        FEW_PAIRS: (
            ThresholdSearchCV(make_cascade(), "pairs", n_cuts=scope.n_few_cuts, **ours),
            None,
        ),
        "skmsc, list": (ThresholdSearchCV(make_cascade(), budgets, **ours), len(budgets)),
        SHORT: (ThresholdSearchCV(make_cascade(), few, **ours), len(few)),
        # It knows no constraint; what is compared is its time and its results.
        GRID: (
            GridSearchCV(make_cascade(), {"thresholds": few}, **common),
            len(few),
        ),
    }
    try:
        from skfb.ensemble import ThresholdCascadeClassifierCV
    except ImportError:
        print("scikit-fallback is not installed: its row is left out.")
        return searches
    for name, n in ((PEER, len(budgets)), (AS_MANY, scope.n_few_cuts**2)):
        peer = ThresholdCascadeClassifierCV(
            [clocked_fit(stage) for stage in make_stages()],
            costs=[SCREEN_COST, 1.0],
            cv_thresholds=n,
            max_cost=MAX_COST,
            strategy="min_score",  # the best score that the cost allows
            return_earray=True,
            **common,
        )
        searches[name] = peer, n
    return searches


def run_search(name, search, n_settings, split):
    """Record of one search: its time by parts, and what it found on the test rows."""
    CLOCK.__init__()
    start = time.process_time()
    with warnings.catch_warnings():
        # Of the peer, that nothing meets its constraints; of forests, few distinct scores.
        warnings.simplefilter("ignore")
        search.fit(split.X_train, split.y_train)
    total = time.process_time() - start
    record = {
        "method": name,
        "repeat": split.name,
        "total_s": total,
        "fits_s": CLOCK.fits,
    }
    if name in (PEER, AS_MANY):
        proba = search.predict_proba(split.X_test)
        passed = proba.ensemble_mask.toarray()[:, 1].astype(bool)
    else:
        import skmsc

        passed = skmsc.route(search, split.X_test).stage > 0
        n_settings = len(search.cv_results_["params"])
        record["scores"] = (
            search.cv_results_["mean_test_score"].tolist() if n_settings < 100 else []
        )
    record["n_settings"] = n_settings
    record["f1"] = float(f1_score(split.y_test, search.predict(split.X_test)))
    record["cost"] = float(SCREEN_COST + passed.mean())
    return record


def run_searches(scope, job):
    """Records of all searches; some take long and are asked in the first repeat only."""
    (seed,) = job
    split = imbalanced(scope.n_train, scope.n_test, seed)
    return [
        run_search(name, search, n, split)
        for name, (search, n) in make_searches(scope).items()
        if seed == 0 or name not in (FEW_PAIRS, SHORT, GRID, AS_MANY)
    ]


def search_table(records):
    """Means over repeats, a row for each method."""
    rows = []
    for name in dict.fromkeys(r["method"] for r in records):
        own = [r for r in records if r["method"] == name]
        mean = {key: np.mean([r[key] for r in own]) for key in own[0] if key.endswith("_s")}
        rows.append(
            [
                name,
                f"{np.mean([r['n_settings'] for r in own]):,.0f}",
                f"{mean['total_s']:.2f}",
                f"{mean['fits_s']:.2f}",
                f"{mean['total_s'] - mean['fits_s']:.2f}",
                plus_minus(interval([r["f1"] for r in own])),
                plus_minus(interval([r["cost"] for r in own])),
            ]
        )
    header = ["search", "settings", "CPU s", "in fits", "beyond"]
    return markdown_table([*header, "F1 of test rows", "cost"], rows)


def of(records, name):
    """The first record of a method; None where it was not run."""
    return next((r for r in records if r["method"] == name), None)


def check_searches(records):
    """What is expected of the searches."""
    ours, short, grid, peer = (of(records, name) for name in (OURS, SHORT, GRID, PEER))
    # The same folds and stages: what GridSearchCV fits beyond one fit of each is its search.
    beyond_grid = grid["total_s"] - short["fits_s"]
    found = [
        expect(
            "GridSearchCV beyond the fits, times ours, same settings",
            beyond_grid / (short["total_s"] - short["fits_s"]),
            at_least=100,
        ),
        expect(
            "scores of GridSearchCV differ from ours",
            np.abs(np.subtract(grid["scores"], short["scores"])).max(),
            at_most=1e-12,
        ),
    ]
    if peer is None:
        return found
    few, many = of(records, FEW_PAIRS), of(records, AS_MANY)
    beyond = {r["method"]: r["total_s"] - r["fits_s"] for r in (ours, peer, few, many)}
    found += [
        expect(
            f"scikit-fallback beyond the fits, times ours, {many['n_settings']} settings and "
            f"{few['n_settings']} pairs",
            beyond[AS_MANY] / beyond[FEW_PAIRS],
            at_least=100,
        ),
        expect(
            f"scikit-fallback beyond the fits, {peer['n_settings']} settings, times ours, "
            f"{ours['n_settings']:,} pairs",
            beyond[PEER] / beyond[OURS],
            at_least=100,
        ),
        expect(
            "F1 on test rows, pairs minus scikit-fallback",
            paired(records, "repeat", "f1", {"method": OURS}, {"method": PEER})["mean"],
            at_least=0,
        ),
    ]
    return found


def main(arguments):
    """Ask the question, write results/search.md and .json; return the expectations."""
    quick = arguments.quick
    scope = QUICK if quick else FULL
    with threadpool_limits(1):
        pairs = list(time_pairs(0 if quick else 10))
    repeats = [(seed,) for seed in range(scope.n_repeats)]
    searches = run_jobs(partial(run_searches, scope), repeats, "search", quick=quick)
    mine = next(r for r in pairs if r["method"] == "skmsc")
    expectations = [
        expect("all pairs of a million rows, seconds", mine["wall_s"], at_most=0.5),
        expect("all pairs of a million rows, times by hand", mine["ratio"], at_most=1.1),
        *check_searches(searches),
    ]
    text = "\n\n".join(
        [
            "# Search: thresholds tried beyond the fits",
            "CPU seconds on one thread. *In fits* is the time in fits of stages and, of ours, in "
            "all that comes before thresholds; *beyond* is the rest. All maximise F1 at a cost of "
            f"at most {MAX_COST} calls of the last stage, over {scope.n_folds} folds of "
            f"{scope.n_train:,} rows with 1 % positives; GridSearchCV knows no such constraint.",
            expectation_table(expectations),
            f"## Counts of {mine['n_pairs']:,} pairs on {N_ROWS:,} rows",
            timing_table(["method"], pairs, "by hand"),
            "## Searches",
            search_table(searches),
        ]
    )
    records = {"pairs": pairs, "searches": searches}
    write("search", text, {"records": records, "expectations": expectations}, quick=quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=False))
