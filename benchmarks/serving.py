"""How long does one transaction take: exported, by scikit-learn, in raw onnxruntime?

Run alone with ``python -m benchmarks.serving [--quick]``; the rows are simulated.
"""

from __future__ import annotations

import itertools
import tempfile
import warnings
from pathlib import Path

import lightgbm
import numpy as np
import onnxruntime
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skmsc
from benchmarks.command import parse_arguments
from benchmarks.objective import expect, expectation_table, write
from benchmarks.timing import interleaved, timing_table, torch_threads
from skmsc import serving
from skmsc.neural import MultiExitNet, TabularNet
from skmsc.serving._archive import read_archive
from skmsc.serving._inputs import FEATURES, MATRIX, SCORES
from skmsc.serving._manifest import KIND, MANIFEST, Manifest

N_TRAIN, N_QUICK, N_FEATURES, N_ROWS = 4000, 1500, 20, 400
OURS, RAW, ESTIMATOR = "exported", "raw onnxruntime", "estimator"
LIGHTGBM, LOGISTIC = "LightGBM alone", "scikit-learn logistic alone"
MOST_TIMES_RAW = 3.0


def rows(n_rows, seed=0):
    """Transactions, 2 % of them frauds."""
    return make_classification(
        n_rows, N_FEATURES, n_informative=8, weights=[0.98], class_sep=1.5, random_state=seed
    )


def screen():
    """The cheap stage."""
    return make_pipeline(StandardScaler(), LogisticRegression())


def boosting():
    """The peer, also a last stage."""
    return lightgbm.LGBMClassifier(n_estimators=200, n_jobs=1, verbose=-1)


def models():
    """Unfitted classifiers by name."""
    net = {"max_epochs": 3, "random_state": 0}
    budget = skmsc.PassBudget(0.1)
    lasts = {
        "forest": RandomForestClassifier(100, random_state=0),
        "LightGBM": boosting(),
        "net": TabularNet(**net),
    }
    found = {
        f"cascade, last stage {name}": skmsc.FeedbackCascadeClassifier(
            [("screen", screen()), ("final", last)], thresholds=budget, cv=2, random_state=0
        )
        for name, last in lasts.items()
    }
    found["early exits"] = skmsc.EarlyExitClassifier(
        screen(), MultiExitNet(**net), exit_weighting="uniform", cv=2, random_state=0
    )
    found["composable heads"] = skmsc.ComposableHeadClassifier(
        screen(), TabularNet(**net), thresholds=0.99, random_state=0
    )
    return found


def raw_call(path):
    """``call(X, stage)``: the graphs that a row of that stage needs, and nothing else."""
    parts = read_archive(path, KIND)
    manifest = Manifest.from_json(parts.pop(MANIFEST))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(
            parts[f"{k}.onnx"], options, providers=["CPUExecutionProvider"]
        )
        for k in range(len(manifest.stages))
    ]
    stages = [
        (s.run, stage.inputs, [SCORES, *stage.outputs])
        for s, stage in zip(sessions, manifest.stages, strict=True)
    ]
    assert FEATURES not in parts

    def call(X, stage):
        known = {MATRIX: X}
        for run, inputs, outputs in stages[: stage + 1]:
            found = run(outputs, {name: known[source] for name, source in inputs})
            known.update(zip(outputs, found, strict=True))
        return found[0]

    return call


def calls_of(model, X, y, X_new, folder):
    """Calls of one row each by name, of rows that a stage answers, by (stage, call)."""
    model.fit(X, y)
    path = folder / "model.skmsc"
    serving.export(model, path, X[:200])
    served, raw = serving.load(path), raw_call(path)
    alone = boosting().fit(X, y)
    logistic = screen().fit(X, y)
    stage = model.route(X_new).stage
    assert (served.route(X_new).stage == stage).mean() > 0.999
    last = len(model.thresholds_) - 1
    for name, wanted in (("first", 0), ("last", last)):
        mine = [X_new[[i]] for i in np.flatnonzero(stage == wanted)[:N_ROWS]]

        def on(call, mine=mine):
            row = itertools.cycle(mine)
            return lambda: call(next(row))

        yield (
            name,
            {
                RAW: on(lambda x, wanted=wanted: raw(x, wanted)),
                OURS: on(served.predict_proba),
                ESTIMATOR: on(model.predict_proba),
                LIGHTGBM: on(alone.predict_proba),
                LOGISTIC: on(logistic.predict_proba),
            },
        )


def main(arguments):
    """Ask the question, write results/serving.md and .json; return the expectations."""
    how = {"seconds": 0, "min_turns": 2} if arguments.quick else {"seconds": 4, "min_turns": 9}
    n_train = N_QUICK if arguments.quick else N_TRAIN
    (X, y), (X_new, _) = rows(n_train), rows(20_000, seed=0)
    records = []
    with torch_threads(1), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        for name, model in models().items():
            for stage, calls in calls_of(model, X, y, X_new, Path(folder)):
                timings = interleaved(calls, baseline=RAW, n_calls=100, **how)
                records += [
                    {"model": name, "answered by": stage, "call": call, **timing}
                    for call, timing in timings.items()
                ]

    def ratios(over, under):
        found = {(r["model"], r["answered by"], r["call"]): r["ratio"] for r in records}
        return [
            found[(*key, over)] / found[(*key, under)] for key in sorted({key[:2] for key in found})
        ]

    expectations = [
        expect(
            "one row, exported, times raw onnxruntime on the same graphs, the dearest case",
            max(ratios(OURS, RAW)),
            at_most=MOST_TIMES_RAW,
        ),
        expect(
            "one row, the estimator, times its export, the least gain",
            min(ratios(ESTIMATOR, OURS)),
            at_least=1.0,
        ),
    ]
    text = "\n\n".join(
        [
            "# Serving: one row at a time",
            f"{N_FEATURES} features; each call answers one row of those that the first or the last "
            "stage answers, a new one each time. *raw onnxruntime* runs the same graphs for the "
            "same rows and decides nothing. *estimator* is predict_proba of the fitted classifier. "
            "The last two are LightGBM (200 trees) and a scaled logistic regression by themselves, "
            "on the same rows. One thread.",
            expectation_table(expectations),
            timing_table(["model", "answered by", "call"], records, RAW),
        ]
    )
    content = {"records": records, "expectations": expectations}
    write("serving", text, content, quick=arguments.quick)
    return expectations


if __name__ == "__main__":
    main(parse_arguments(__doc__, needs_data=False))
