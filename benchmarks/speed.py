"""What does a cascade save, and what does the class cost beyond the same cascade by hand?

Run alone with ``python -m benchmarks.speed [--quick]``; the rows are simulated.
"""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.command import parse_arguments
from benchmarks.datasets import imbalanced
from benchmarks.methods import make_screen
from benchmarks.objective import expect, expectation_table, markdown_table, write
from benchmarks.reference import HandCascade, fit_hand_cascade
from benchmarks.timing import interleaved, memory_peak, timing_table

PASS_RATE = 0.1
N_TRAIN, N_QUICK = 10_000, 2_000
BATCHES = {200_000: 1.05, 1_000: 1.3}  # rows: ratio to the cascade by hand that is allowed
QUICK_BATCHES = {10_000: 1.05, 1_000: 1.3}
ONE_ROW = {"logistic": 2.5, "scaled logistic": 1.6}  # screen: ratio to its own predict_proba
SCREENS = {"logistic": LogisticRegression, "scaled logistic": make_screen}


def make_last(name):
    """The forest of the expectations, or a logistic regression, which hides nothing."""
    if name == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    return RandomForestClassifier(n_estimators=50, max_depth=10, n_jobs=1, random_state=0)


def fit_ours(screen, last, split, **parameters):
    """FeedbackCascadeClassifier of two stages at the pass rate of this benchmark."""
    from skmsc import FeedbackCascadeClassifier, PassBudget

    cascade = FeedbackCascadeClassifier(
        stages=[("screen", screen), ("final", last)],
        thresholds=PassBudget(PASS_RATE),
        random_state=0,
        **parameters,
    )
    return cascade.fit(split.X_train, split.y_train)


def same_by_hand(cascade):
    """The cascade by hand of the same fitted stages and the same cut."""
    # Ours answers from a cut on the negative score, the one by hand passes above one on the
    # positive score; a row between the two roundings would differ, and is checked not to exist.
    return HandCascade(*cascade.stages_, 1 - cascade.thresholds_[0, 0])


def fallback_of(cascade):
    """scikit-fallback's cascade of the same fitted stages; its threshold defers as many rows."""
    from skfb.ensemble import ThresholdCascadeClassifier

    threshold = float(cascade.thresholds_[0, 0])
    return ThresholdCascadeClassifier(
        list(cascade.stages_), [threshold], prefit=True, return_earray=False
    )


def time_batches(split, last_name, batches, how):
    """Records of predict_proba on batches; also the largest difference from the one by hand."""
    cascade = fit_ours(make_screen(), make_last(last_name), split)
    raw = fit_ours(make_screen(), make_last(last_name), split, calibration=None)
    by_hand = same_by_hand(raw)
    fallback = fallback_of(cascade)
    for n_rows in batches:
        X = split.X_test[:n_rows]
        calls = {
            "by hand": lambda X=X: by_hand.predict_proba(X),
            "skmsc": lambda X=X: cascade.predict_proba(X),
            "skmsc, calibration=None": lambda X=X: raw.predict_proba(X),
            "scikit-fallback": lambda X=X: fallback.predict_proba(X),
            "last stage alone": lambda X=X: by_hand.last.predict_proba(X),
            "screen alone": lambda X=X: by_hand.screen.predict_proba(X),
        }
        n_calls = 1 if n_rows > 10_000 else 5
        timings = interleaved(calls, baseline="by hand", n_calls=n_calls, **how)
        routing = raw.route(X)
        hand_proba = by_hand.predict_proba(X)
        same_route = (routing.stage > 0) == (by_hand.screen.predict_proba(X)[:, 1] > by_hand.cut)
        for method, timing in timings.items():
            yield {
                "last": last_name,
                "n_rows": n_rows,
                "method": method,
                **timing,
                "pass_rate": float((routing.stage > 0).mean()),
                "routed_differently": int((~same_route).sum()),
                "proba_differs": float(np.abs(routing.proba - hand_proba).max()),
            }


def time_one_row(split, screen_name, how):
    """Records of predict_proba on one row: one that the screen answers, one that passes."""
    cascade = fit_ours(SCREENS[screen_name](), make_last("forest"), split)
    screen, last = cascade.stages_
    by_hand = same_by_hand(cascade)
    stage = cascade.route(split.X_test[:1000]).stage
    for route, wanted in (("answered by the screen", 0), ("passes", 1)):
        row = split.X_test[np.flatnonzero(stage == wanted)[:1]]
        calls = {
            "screen alone": lambda row=row: screen.predict_proba(row),
            "by hand": lambda row=row: by_hand.predict_proba(row),
            "skmsc": lambda row=row: cascade.predict_proba(row),
        }
        if wanted == 1:
            calls["last stage alone"] = lambda row=row: last.predict_proba(row)
        timings = interleaved(calls, baseline="screen alone", n_calls=10, **how)
        for method, timing in timings.items():
            yield {"screen": screen_name, "row": route, "method": method, **timing}


def memory_peaks(split):
    """Records of the peak of traced memory during predict_proba, in sizes of X."""
    cascade = fit_ours(make_screen(), make_last("forest"), split)
    by_hand = same_by_hand(cascade)
    X = split.X_test
    for method, model in (
        ("by hand", by_hand),
        ("skmsc", cascade),
        ("scikit-fallback", fallback_of(cascade)),
        ("screen alone", by_hand.screen),
        ("last stage alone", by_hand.last),
    ):
        peak = memory_peak(lambda model=model: model.predict_proba(X))
        yield {"method": method, "n_rows": len(X), "peak_bytes": peak, "ratio": peak / X.nbytes}


def time_fit(split, how):
    """Records of fit: ours against a loop by hand of the same number of stage fits."""
    X, y = split.X_train, split.y_train
    for last_name in ("forest", "logistic"):
        last = make_last(last_name)
        calls = {
            "by hand": lambda last=last: fit_hand_cascade(
                make_screen(), last, X, y, max_pass_rate=PASS_RATE
            ),
            "skmsc": lambda last=last: fit_ours(make_screen(), last, split, feedback="none"),
        }
        timings = interleaved(calls, baseline="by hand", warm=False, **how)
        for method, timing in timings.items():
            yield {"last": last_name, "method": method, **timing}


def tables(batches, rows, peaks, fits, n_train):
    """The four parts as Markdown."""
    parts = []
    for last_name in dict.fromkeys(r["last"] for r in batches):
        for n_rows in dict.fromkeys(r["n_rows"] for r in batches):
            chosen = [r for r in batches if (r["last"], r["n_rows"]) == (last_name, n_rows)]
            parts += [
                f"## predict_proba, {n_rows:,} rows, last stage {last_name}, "
                f"{chosen[0]['pass_rate']:.1%} of them pass",
                timing_table(["method"], chosen, "by hand"),
            ]
    return [
        *parts,
        "## predict_proba, one row",
        timing_table(["screen", "row", "method"], rows, "screen alone"),
        f"## Memory peak of predict_proba, {peaks[0]['n_rows']:,} rows",
        markdown_table(
            ["method", "MB", "times X"],
            [[r["method"], f"{r['peak_bytes'] / 1e6:.1f}", f"{r['ratio']:.2f}"] for r in peaks],
        ),
        f"## fit, {n_train:,} rows, six fits of each stage",
        timing_table(["last", "method"], fits, "by hand"),
    ]


def main(arguments):
    """Ask the question, write results/speed.md and .json; return the expectations."""
    allowed, n_train = BATCHES, N_TRAIN
    how, how_a_row = ({"seconds": seconds, "min_turns": 5} for seconds in (8, 3))
    if arguments.quick:
        allowed, n_train = QUICK_BATCHES, N_QUICK
        how = how_a_row = {"seconds": 0, "min_turns": 2}
    split = imbalanced(n_train, max(allowed))
    # One thread everywhere: what is measured is the work, not how threads share a busy machine.
    with threadpool_limits(1):
        batches = [
            r for last in ("forest", "logistic") for r in time_batches(split, last, allowed, how)
        ]
        rows = [r for screen in SCREENS for r in time_one_row(split, screen, how_a_row)]
        fits = list(time_fit(split, how))
        peaks = list(memory_peaks(split))

    ours = [r for r in batches if r["method"] == "skmsc" and r["last"] == "forest"]
    answered = [r for r in rows if r["method"] == "skmsc" and r["row"] == "answered by the screen"]
    expectations = [
        *(
            expect(f"{r['n_rows']:,} rows, times by hand", r["ratio"], at_most=allowed[r["n_rows"]])
            for r in ours
        ),
        *(
            expect(
                f"one row, {r['screen']} screen, times the screen alone",
                r["ratio"],
                at_most=ONE_ROW[r["screen"]],
            )
            for r in answered
        ),
        expect(
            "rows routed otherwise than by hand",
            max(r["routed_differently"] for r in batches),
            at_most=0,
        ),
        expect(
            "probabilities without calibration differ from those by hand",
            max(r["proba_differs"] for r in batches),
            at_most=1e-6,
        ),
    ]
    text = "\n\n".join(
        [
            "# Speed: the cascade against the same cascade by hand",
            "Medians of interleaved repeats on one thread; ratios are of CPU time, with their "
            "quartiles, and of wall time, which other work on the machine disturbs.",
            expectation_table(expectations),
            *tables(batches, rows, peaks, fits, n_train),
        ]
    )
    records = {"batches": batches, "one_row": rows, "memory": peaks, "fit": fits}
    write("speed", text, {"records": records, "expectations": expectations}, quick=arguments.quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=False))
