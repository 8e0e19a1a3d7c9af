"""Do thresholds with a confidence keep their promise, and what do they cost, beside MAPIE's?

Run alone with ``python -m benchmarks.guarantees --data DIR [--quick]``.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

from benchmarks import reference
from benchmarks.command import parse_arguments
from benchmarks.datasets import CARD_WEEKS, card_week, table, ulb
from benchmarks.methods import behind_one_hot, make_forest, make_screen
from benchmarks.objective import expect, expectation_table, interval, markdown_table, write
from benchmarks.timing import timed

N_DRAWS = 1000
CONFIDENCES = (0.95, 0.9)
RECALLS = (0.9, 0.95, 0.99)
N_THRESHOLDS = 400  # of the fine grid
N_CHECKED = 10  # draws in which MAPIE's controller is called as a whole, and timed
FIRST_WEEK, N_WEEKS, N_DEALS = "2018-04-08", 23, 20
SLACK = 1e-9

GRID, PLAIN, OURS, BY_HAND = "grid search", "skmsc, no confidence", "skmsc", "LTT by hand"
FIXED, HOLM, DEFAULT = "MAPIE, fixed sequence", "MAPIE, Holm", "MAPIE as it comes"
NAIVE, CERTIFIED, PEERS = (GRID, PLAIN), (OURS, BY_HAND), (FIXED, HOLM, DEFAULT)
DEFAULT_THRESHOLDS = np.linspace(0, 0.99, 100)  # MAPIE's own
DEFAULT_CONFIDENCE = 0.9


# --- rows and promises ------------------------------------------------------------------------
@dataclass(frozen=True)
class Screened:
    """Held-out rows behind a screen; draws of them, with replacement, set thresholds.

    Attributes
    ----------
    name : str
    stage_proba : ndarray of shape (n_rows, 2, n_classes)
        Of the screen and the last stage. Of a recall both are the screen's, which alone decides.
    needs : ndarray of bool of shape (n_rows,)
        Rows that are lost when the screen answers them.
    negative : int or None
        The class that the screen may answer; None: any.
    grid : ndarray of shape (n_thresholds,)
        Values of `suspicion` from which on a row passes, rising; set without these rows.
    n_draw : int
        Rows in a draw.
    levels : tuple of float
        Recalls to promise, or shares of disagreement.
    """

    name: str
    stage_proba: np.ndarray
    needs: np.ndarray
    negative: int | None
    grid: np.ndarray
    n_draw: int
    levels: tuple

    @property
    def is_recall(self):
        """Whether a recall is promised, of the rows in need; else a share of all rows."""
        return self.negative is not None

    @cached_property
    def confidence(self):
        """What the screen is cut at, of shape (n_rows,)."""
        screen = self.stage_proba[:, 0]
        return screen.max(axis=1) if self.negative is None else screen[:, self.negative]

    @cached_property
    def suspicion(self):
        """What a row passes by when it is high, of shape (n_rows,)."""
        return 1 - self.confidence

    def allowed(self, level):
        """Largest share that may be lost."""
        return 1 - level if self.is_recall else level

    def judge(self, passed):
        """True share lost and share that passes, of all rows, when these pass."""
        lost = (self.needs & ~passed).sum() / (self.needs.sum() if self.is_recall else passed.size)
        return float(lost), float(passed.mean())


def recall_rows(name, split, n_draw, levels=RECALLS):
    """The recall of a logistic screen, on the test rows of a split."""
    screen = behind_one_hot(make_screen(), split.X_train).fit(split.X_train, split.y_train)
    proba = screen.predict_proba(split.X_test)
    of_positives = screen.predict_proba(split.X_train[split.y_train == 1])[:, 1]
    # From all rows pass to a fifth of the training positives lost.
    grid = np.quantile(of_positives, np.linspace(0, 0.2, N_THRESHOLDS - 1))
    return Screened(
        name,
        np.stack([proba, proba], axis=1),
        split.y_test == 1,
        negative=0,
        grid=np.append(0.0, grid),
        n_draw=n_draw,
        levels=levels,
    )


def agreement_rows(name, split, n_draw, levels):
    """Agreement of a logistic screen, which may answer any class, with a forest."""
    stages = [
        behind_one_hot(model, split.X_train).fit(split.X_train, split.y_train)
        for model in (make_screen(), make_forest())
    ]
    proba = np.stack([stage.predict_proba(split.X_test) for stage in stages], axis=1)
    answers = proba.argmax(axis=2)
    suspicion = 1 - stages[0].predict_proba(split.X_train).max(axis=1)
    return Screened(
        name,
        proba,
        answers[:, 0] != answers[:, 1],
        negative=None,
        grid=np.append(0.0, np.quantile(suspicion, np.linspace(0, 1, N_THRESHOLDS - 1))),
        n_draw=n_draw,
        levels=levels,
    )


# --- choices of a threshold -------------------------------------------------------------------
class Draw:
    """Rows drawn with replacement, and what each value of a grid would lose of them."""

    def __init__(self, rows, rng):
        self.rows = rows
        self.idx = rng.integers(rows.needs.size, size=rows.n_draw)
        self.suspicion, self.needs = rows.suspicion[self.idx], rows.needs[self.idx]
        self.sorted_all = np.sort(self.suspicion)
        self.sorted_needs = np.sort(self.suspicion[self.needs])
        self.n = self.sorted_needs.size if rows.is_recall else rows.n_draw

    def lost(self, grid):
        """Rows lost where those from a value on pass, for each value."""
        return np.searchsorted(self.sorted_needs, grid)

    def passing(self, grid):
        """Rows that pass, for each value."""
        return self.suspicion.size - np.searchsorted(self.sorted_all, grid)


def by_grid_search(draw, level):
    """The highest value at which the draw itself keeps the level."""
    lost = draw.lost(draw.rows.grid) / draw.n
    return draw.rows.grid[np.flatnonzero(lost <= draw.rows.allowed(level) + SLACK)[-1]]


def by_hand(draw, level, confidence):
    """Learn then Test over the grid with exact binomial tests; None where nothing passes."""
    grid = draw.rows.grid
    chosen = reference.fixed_sequence(
        draw.lost(grid), draw.n, draw.rows.allowed(level), 1 - confidence
    )
    return None if chosen < 0 else grid[chosen]


def our_scores(rows, idx):
    """What a policy of ours sees."""
    from skmsc.thresholds import StageScores

    proba, needs = rows.stage_proba[idx], rows.needs[idx]
    return StageScores(
        stage_proba=proba,
        y=needs.astype(int) if rows.is_recall else proba[:, 1].argmax(axis=1),
        sample_weight=np.ones(idx.size),
        negative=rows.negative,
        caught=needs if rows.is_recall else None,
        stage_costs=None,
        stage_names=("screen", "final"),
        untouched=True,
    )


def our_policy(rows, level, confidence):
    """A floor of all positives or an agreement."""
    from skmsc import Agreement, RecallFloor

    if rows.is_recall:
        return RecallFloor(level, of="positives", confidence=confidence)
    return Agreement(level, confidence=confidence)


def our_cut(policy, scores):
    """Cut of the screen's confidence; None where the policy refuses."""
    try:
        return policy.find_thresholds(scores)[0, 0]
    except ValueError as error:
        if "cannot be promised" not in str(error):
            raise
        return None


def mapie_risk(rows):
    """The name of a risk of MAPIE's, or a risk of one's own."""
    from mapie.risk_control import BinaryRisk

    if rows.is_recall:
        return "recall"
    return BinaryRisk(
        risk_occurrence=lambda needs, passed: (needs == 1) & (passed == 0),
        risk_condition=lambda needs, passed: np.ones(len(needs), dtype=bool),
        higher_is_better=False,
    )


def mapie_setting(rows, method):
    """Grid, correction for many tests, and what decides between the valid values."""
    if method == DEFAULT:
        return DEFAULT_THRESHOLDS, "bonferroni_holm", "auto"
    correction = {FIXED: "fixed_sequence", HOLM: "bonferroni_holm"}[method]
    return rows.grid, correction, "predicted_positive_fraction"


def by_mapie(draw, level, confidence, method):
    """MAPIE's controller on a draw, as its pages say: the value from which on rows pass, or None.

    A row's label says whether it needs the last stage, a prediction whether it gets it.
    """
    from mapie.risk_control import BinaryClassificationController

    grid, correction, best = mapie_setting(draw.rows, method)
    controller = BinaryClassificationController(
        lambda proba: proba,
        mapie_risk(draw.rows),
        level,
        confidence_level=confidence,
        best_predict_param_choice=best,
        list_predict_params=grid,
        fwer_method=correction,
    )
    proba = np.column_stack([1 - draw.suspicion, draw.suspicion])
    return controller.calibrate(proba, draw.needs).best_predict_param


def by_parts_of_mapie(draw, level, confidence, method):
    """The same from MAPIE's p-values and tests, on counts of ours: it takes far less time."""
    from mapie.risk_control import control_fwer
    from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value

    grid, correction, best = mapie_setting(draw.rows, method)
    lost, passing = draw.lost(grid), draw.passing(grid)
    # As MAPIE computes them: 1 minus a recall is not always a whole number of rows in floats.
    risk = 1 - (draw.n - lost) / draw.n if draw.rows.is_recall else lost / draw.n
    p_values = compute_hoeffding_bentkus_p_value(
        risk, np.full(grid.size, float(draw.n)), np.array([draw.rows.allowed(level)]), binary=True
    )[:, 0]
    valid = control_fwer(p_values, 1 - confidence, correction)
    if valid.size == 0:
        return None
    if best == "auto":  # precision
        second = 1 - (draw.n - lost[valid]) / np.maximum(passing[valid], 1)
    else:
        second = passing[valid]
    ties = valid[second == second.min()]
    return grid[ties[np.argmax(risk[ties])]]


# --- many draws -------------------------------------------------------------------------------
def has_mapie():
    """Whether MAPIE is installed."""
    try:
        import mapie.risk_control  # noqa: F401
    except ImportError:
        print("MAPIE is not installed: its columns are left out.")
        return False
    return True


def differs_from_order_statistic(draw, level, confidence, passed):
    """Whether a cut of ours is another than that of the ordered scores, on the rows drawn."""
    most = reference.most_lost(draw.n, draw.rows.allowed(level), 1 - confidence)
    if most < 0 or passed is None:
        return (most < 0) != (passed is None)
    own = draw.rows.confidence[draw.idx]
    of_needs = np.append(np.sort(own[draw.needs])[::-1], -np.inf)
    first_kept = of_needs[min(most, of_needs.size - 1)]
    return not np.array_equal(passed[draw.idx], own <= first_kept)


def noted(spent, method, choose, *given):
    """What a choice gives; its CPU time is noted."""
    chosen, seconds = timed(choose, *given)
    spent[method].append(seconds)
    return chosen


def choices(draw, with_mapie, is_checked, spent):
    """Level, confidence, method and the mask of all rows that would pass (None: refused)."""
    rows = draw.rows
    scores = our_scores(rows, draw.idx)

    def pass_below(cut):
        return None if cut is None else rows.confidence < cut

    def pass_from(value):
        return None if value is None else rows.suspicion >= value

    for level in rows.levels:
        grid_search = noted(spent, GRID, by_grid_search, draw, level)
        yield level, None, GRID, pass_from(grid_search)
        plain = noted(spent, PLAIN, our_cut, our_policy(rows, level, None), scores)
        yield level, None, PLAIN, pass_below(plain)
        for confidence in CONFIDENCES:
            ours = noted(spent, OURS, our_cut, our_policy(rows, level, confidence), scores)
            yield level, confidence, OURS, pass_below(ours)
            yield level, confidence, BY_HAND, pass_from(by_hand(draw, level, confidence))
            for method in mapie_methods(rows, confidence) if with_mapie else ():
                value = by_parts_of_mapie(draw, level, confidence, method)
                if is_checked:
                    given = draw, level, confidence, method
                    whole = noted(spent, method, by_mapie, *given)
                    if whole != value:
                        raise AssertionError(f"{rows.name}, {given[1:]}: {whole}, {value}")
                yield level, confidence, method, pass_from(value)


def mapie_methods(rows, confidence):
    """MAPIE as it comes has a confidence and a grid of its own, and no disagreement."""
    is_default = rows.is_recall and confidence == DEFAULT_CONFIDENCE
    return PEERS if is_default else PEERS[:2]


def run_draws(rows, n_draws, with_mapie):
    """Records of one set of rows: for each promise and method what became of all draws."""
    rng, spent = np.random.default_rng(0), defaultdict(list)
    found, n_differ = defaultdict(list), 0
    with warnings.catch_warnings():
        # That nothing passes the test, of either library: it is counted.
        warnings.simplefilter("ignore", UserWarning)
        for i in range(n_draws):
            draw = Draw(rows, rng)
            for *setting, passed in choices(draw, with_mapie, i < N_CHECKED, spent):
                found[tuple(setting)].append(
                    (np.nan, np.nan) if passed is None else rows.judge(passed)
                )
                if setting[2] == OURS:
                    n_differ += differs_from_order_statistic(draw, *setting[:2], passed)
    found = {setting: np.array(values) for setting, values in found.items()}
    milliseconds = {method: 1000 * float(np.mean(values)) for method, values in spent.items()}
    records = [
        summary(rows, *setting, values, found[*setting[:2], OURS] if setting[1] else None)
        for setting, values in found.items()
    ]
    return records, {"rows": rows.name, "n_draw": rows.n_draw, "ms": milliseconds}, n_differ


def summary(rows, level, confidence, method, values, ours):
    """What became of a promise in all draws that were not refused."""
    lost, passing = values.T
    answered = ~np.isnan(lost)
    n_answered, n_broken = int(answered.sum()), int((lost > rows.allowed(level) + SLACK).sum())
    record = {
        "rows": rows.name,
        "is_recall": rows.is_recall,
        "level": level,
        "confidence": confidence,
        "method": method,
        "n_draws": len(values),
        "n_answered": n_answered,
        "n_broken": n_broken,
    }
    if n_answered:
        bounds = binomtest(n_broken, n_answered).proportion_ci(method="wilson")
        record["broken"] = n_broken / n_answered
        record["broken_bounds"] = [float(bound) for bound in bounds]
        record["kept"] = float(1 - lost[answered].mean())
        record["passing"] = float(passing[answered].mean())
    both = answered if ours is None else answered & ~np.isnan(ours[:, 0])
    if ours is not None and both.any():
        record["passing_minus_ours"] = interval(passing[both] - ours[both, 1])
    return record


# --- drift ------------------------------------------------------------------------------------
def drift(data_dir, n_weeks):
    """Records of the card weeks: floors set on the end of a training week, tested two weeks later.

    The screen learns from the first five days, its floor is set on the last two, and the test week
    tells the recall. Beside it the recalls where the rows of both parts are shuffled and dealt
    again: a finite test week alone breaks some floors, too.
    """
    import pandas as pd

    rng = np.random.default_rng(0)
    for start in pd.date_range(FIRST_WEEK, periods=n_weeks, freq="7D"):
        split = card_week(data_dir, str(start.date()))
        n_fit = round(len(split.y_train) * 5 / 7)  # the rows are in the order of time
        screen = make_screen().fit(split.X_train[:n_fit], split.y_train[:n_fit])
        X, y = (
            np.concatenate([train[n_fit:], test])
            for train, test in ((split.X_train, split.X_test), (split.y_train, split.y_test))
        )
        proba, n_own = screen.predict_proba(X), len(split.y_train) - n_fit
        rows = Screened(
            split.name, np.stack([proba, proba], axis=1), y == 1, 0, None, n_own, RECALLS[:2]
        )
        orders = [np.arange(len(y)), *(rng.permutation(len(y)) for _ in range(N_DEALS))]
        for level in rows.levels:
            for confidence in (None, *CONFIDENCES):
                policy = our_policy(rows, level, confidence)
                recalls = [recall_on_the_rest(rows, policy, order) for order in orders]
                yield {
                    "week": split.name,
                    "level": level,
                    "confidence": confidence,
                    "n_positive": int(rows.needs[:n_own].sum()),
                    "recall": recalls[0],
                    "recalls_when_shuffled": recalls[1:],
                }


def recall_on_the_rest(rows, policy, order):
    """Recall on the later rows of an order when a policy sees the first; None: it refuses."""
    own, later = np.split(order, [rows.n_draw])
    cut = our_cut(policy, our_scores(rows, own))
    return None if cut is None else float((rows.confidence[later][rows.needs[later]] < cut).mean())


# --- tables -----------------------------------------------------------------------------------
def percent(share):
    """A share in percent."""
    return f"{100 * share:.1f}"


def by_promise(records):
    """The records of each promise by method; those without a confidence stand in all of a level."""
    promises = {}
    for record in records:
        if record["confidence"] is not None:
            promises.setdefault((record["rows"], record["level"], record["confidence"]), {})
    for (rows, level, confidence), by_method in promises.items():
        for record in records:
            if (record["rows"], record["level"]) == (rows, level):
                if record["confidence"] in (None, confidence):
                    by_method[record["method"]] = record
    return promises


def shown_methods(records):
    """The methods that were run, in their order."""
    run = {record["method"] for record in records}
    return [method for method in (*NAIVE, *CERTIFIED, *PEERS) if method in run]


def promise_table(records, cell, *, methods=None, wanted=None):
    """A row for each promise, a column for each method; `cell` makes text of a record."""
    shown = methods or shown_methods(records)
    rows = []
    for (name, level, confidence), by_method in by_promise(records).items():
        if wanted is None or wanted(by_method):
            cells = [cell(by_method[m]) if m in by_method else "" for m in shown]
            rows.append([name, f"{level:g}", f"{confidence:g}", *cells])
    level_name = "recall" if records[0]["is_recall"] else "disagreement"
    return markdown_table(["rows", level_name, "confidence", *shown], rows)


def broken_cell(record):
    """How often the promise was broken, in percent, with bounds."""
    if not record["n_answered"]:
        return "refuses"
    low, high = record["broken_bounds"]
    return f"{percent(record['broken'])} ({percent(low)} to {percent(high)})"


def passing_cell(record):
    """Mean share that passes, in percent, and the mean recall or agreement."""
    if not record["n_answered"]:
        return "refuses"
    return f"{percent(record['passing'])} ({record['kept']:.3f})"


def refused_cell(record):
    """How many draws were refused, in percent."""
    return percent(1 - record["n_answered"] / record["n_draws"])


def beyond_cell(record):
    """Share that passes beyond ours, in percent points, in the draws that both answer."""
    beyond = record.get("passing_minus_ours")
    if beyond is None:
        return ""
    half_width = "" if beyond["half_width"] is None else f" ± {100 * beyond['half_width']:.2f}"
    return f"{100 * beyond['mean']:.2f}{half_width}"


def is_ever_refused(by_method):
    """Whether a method with a confidence refused any draw."""
    return any(r["n_answered"] < r["n_draws"] for r in by_method.values())


def spread(values):
    """Least and most, in percent."""
    return f"{percent(min(values))} to {percent(max(values))}" if values else "refuses"


def digest(records):
    """What became of all promises together, a row for each method."""
    rows = []
    for method in shown_methods(records):
        own = [r for r in records if r["method"] == method]
        broken = [
            [r["broken"] for r in own if r["n_answered"] and r["confidence"] in (None, confidence)]
            for confidence in CONFIDENCES
        ]
        refused = [1 - r["n_answered"] / r["n_draws"] for r in own]
        beyond = [r["passing_minus_ours"]["mean"] for r in own if "passing_minus_ours" in r]
        rows.append(
            [
                method,
                *(
                    "" if method == DEFAULT and c != DEFAULT_CONFIDENCE else spread(b)
                    for c, b in zip(CONFIDENCES, broken, strict=True)
                ),
                f"{100 * np.mean(beyond):.2f}" if beyond and method != OURS else "",
                percent(np.mean(refused)),
            ]
        )
    header = [f"broken at {confidence:g}, %" for confidence in CONFIDENCES]
    return markdown_table(["method", *header, "passes beyond skmsc, points", "refused, %"], rows)


def tables(records):
    """Sections on what was kept, what it costs and what was refused."""
    peers = [m for m in shown_methods(records) if m in (BY_HAND, *PEERS)]
    kept = "recall" if records[0]["is_recall"] else "agreement"
    with_confidence = [r for r in records if r["confidence"] is not None]
    parts = [
        "How often the promise is broken, % of the draws that are not refused (95 % interval):",
        promise_table(records, broken_cell),
        f"Rows that pass, % of all rows (and mean {kept}):",
        promise_table(records, passing_cell),
        "Rows that pass beyond those of skmsc, percent points, in the draws that both answer:",
        promise_table(with_confidence, beyond_cell, methods=peers),
    ]
    if any(r["n_answered"] < r["n_draws"] for r in records):
        parts += [
            "Draws that are refused, %, where any is:",
            promise_table(
                with_confidence, refused_cell, methods=[OURS, *peers], wanted=is_ever_refused
            ),
        ]
    return parts


def time_table(times):
    """Milliseconds of one choice."""
    methods = [m for m in (*NAIVE, OURS, *PEERS) if any(m in t["ms"] for t in times)]
    rows = [
        [t["rows"], t["n_draw"], *(f"{t['ms'][m]:.2f}" if m in t["ms"] else "" for m in methods)]
        for t in times
    ]
    return markdown_table(["rows", "in a draw", *methods], rows)


def drift_table(records):
    """Weeks whose recall is below the floor, in the order of time and shuffled."""
    rows = []
    for level in dict.fromkeys(r["level"] for r in records):
        for confidence in (None, *CONFIDENCES):
            own = [r for r in records if (r["level"], r["confidence"]) == (level, confidence)]
            later = np.array([r["recall"] for r in own if r["recall"] is not None])
            dealt = np.array([x for r in own for x in r["recalls_when_shuffled"] if x is not None])
            if not (later.size and dealt.size):  # too few frauds in all weeks
                continue
            rows.append(
                [
                    f"{level:g}",
                    "none" if confidence is None else f"{confidence:g}",
                    f"{(later < level - SLACK).sum()} of {later.size}",
                    percent((later < level - SLACK).mean()),
                    percent((dealt < level - SLACK).mean()),
                    f"{later.mean():.3f}",
                    f"{later.min():.3f}",
                    f"{dealt.mean():.3f}",
                ]
            )
    header = ["recall", "confidence", "weeks below it", "%", "% when shuffled"]
    return markdown_table([*header, "mean recall", "lowest", "mean when shuffled"], rows)


def report(content):
    """The Markdown of all that was found."""
    records, weeks = content["records"], content["drift"]
    floors = [r for r in records if r["is_recall"]]
    agreements = [r for r in records if not r["is_recall"]]
    text = [
        "# Guarantees: thresholds with a confidence, beside MAPIE's",
        f"{records[0]['n_draws']:,} draws of held-out rows, with replacement, set a threshold "
        "each; all held-out rows tell what is true. *Confidence* is what the methods with one "
        "promise; a share of 1 minus it may break it. *LTT by hand* and MAPIE's fixed sequence and "
        f"Holm have the same {N_THRESHOLDS} thresholds.",
        expectation_table(content["expectations"]),
        "## All promises together",
        "The least and the most broken promise, and means over promises. Recall of a screen:",
        digest(floors),
        "Agreement of a screen with the last stage:",
        digest(agreements),
    ]
    if weeks:
        text += [
            "## Drift: floors of a week, two weeks later",
            f"{len({r['week'] for r in weeks})} card weeks; the recall is that of the test week's "
            "frauds. No promise covers this.",
            drift_table(weeks),
        ]
    text += [
        "## Milliseconds of CPU time for one choice, scores given",
        time_table(content["times"]),
        "## Recall of a screen",
        *tables(floors),
        "## Agreement of a screen with the last stage",
        *tables(agreements),
    ]
    return "\n\n".join(text)


# --- the question -----------------------------------------------------------------------------
def excess(record):
    """How often a promise is broken beyond what it allows, in standard errors of the count."""
    allowed = 1 - record["confidence"]
    return (record["broken"] - allowed) / np.sqrt(allowed * (1 - allowed) / record["n_answered"])


def check(records, n_differ):
    """What is expected of the draws."""
    found = []
    for what, is_recall in (("floors", True), ("agreements", False)):
        own = [r for r in records if r["is_recall"] == is_recall and r["n_answered"]]
        certified = [r for r in own if r["method"] == OURS]
        if not certified:
            continue
        beyond = [r["passing_minus_ours"]["mean"] for r in own if r["method"] == FIXED]
        found.append(
            expect(
                f"{what}: broken beyond the promise, standard errors, worst of {len(certified)}",
                max(map(excess, certified)),
                at_most=3,
            )
        )
        if beyond:
            found.append(
                expect(
                    f"{what}: share that passes, skmsc minus MAPIE's fixed sequence, worst",
                    -min(beyond),
                    at_most=0.001,
                )
            )
    naive = min(r["broken"] for r in records if r["method"] in NAIVE)
    return [
        *found,
        expect("draws whose cut differs from the order statistic by hand", n_differ, at_most=0),
        expect(
            "without confidence: share of draws that break the level, least", naive, at_least=0.1
        ),
    ]


def make_rows(arguments):
    """The sets of rows that are asked."""
    data = arguments.data
    mammography = table(data, "mammography")
    sets = [recall_rows("mammography", mammography, 2500)]
    if arguments.quick:
        return [*sets, agreement_rows("mammography", mammography, 2500, (0.004,))]
    adult, letter = table(data, "adult"), table(data, "letter")
    return [
        *sets,
        recall_rows("ULB", ulb(data, 0), 8000),
        recall_rows("card", card_week(data, CARD_WEEKS[-1]), 20_000),
        recall_rows("taiwan", table(data, "taiwan"), 2000),
        recall_rows("adult", adult, 2000),
        agreement_rows("adult", adult, 2000, (0.02, 0.05)),
        agreement_rows("letter", letter, 2000, (0.02, 0.05)),
    ]


def main(arguments):
    """Ask the question, write results/guarantees.md and .json; return the expectations."""
    quick = arguments.quick
    n_draws, with_mapie = 50 if quick else N_DRAWS, has_mapie()
    records, times, n_differ = [], [], 0
    with threadpool_limits(1):
        for rows in make_rows(arguments):
            found, spent, differ = run_draws(rows, n_draws, with_mapie)
            records, times, n_differ = records + found, [*times, spent], n_differ + differ
        weeks = list(drift(arguments.data, 2 if quick else N_WEEKS))
    expectations = check(records, n_differ)
    content = {"records": records, "times": times, "drift": weeks, "expectations": expectations}
    write("guarantees", report(content), content, quick=quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=True))
