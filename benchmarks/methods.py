"""The methods compared: each maps a split and pass rates to :class:`Answers`."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn import config_context
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from benchmarks import reference
from benchmarks.objective import best_f1_cut

FEEDBACKS = ("none", "caught", "gain", "auto")
SURVIVOR_RATE = 0.1


class Answers(NamedTuple):
    """A method's answers on the test rows.

    Attributes
    ----------
    score : ndarray of shape (n_test_samples,)
        What the rows are ranked by.
    passed : ndarray of bool of shape (n_test_samples,)
        Rows that the last stage scored.
    screened : float
        Share of the rows that the screen scored: 1 in a cascade, 0 for a model alone.
    flagged : ndarray of bool of shape (n_test_samples,) or None
        Rows that the screen itself answered as positive; None: none. They are not lost.
    """

    score: np.ndarray
    passed: np.ndarray
    screened: float = 1.0
    flagged: np.ndarray | None = None

    @property
    def kept(self):
        """Rows that were not rejected as negative by the screen."""
        return self.passed if self.flagged is None else self.passed | self.flagged


# --- models -----------------------------------------------------------------------------------
def make_screen():
    """The first stage of every cascade here."""
    return make_pipeline(StandardScaler(), LogisticRegression())


def make_log_screen():
    """The same on the features and their logarithms, for features >= 0."""
    return make_pipeline(
        make_union(FunctionTransformer(), FunctionTransformer(np.log1p)),
        StandardScaler(),
        LogisticRegression(max_iter=1000),
    )


def make_forest():
    """100 trees, scikit-learn's defaults."""
    return RandomForestClassifier(n_estimators=100, random_state=0)


def make_lightgbm():
    """200 trees of 15 leaves at a rate of .05."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        n_estimators=200,
        num_leaves=15,
        learning_rate=0.05,
        n_jobs=1,
        random_state=0,
        verbosity=-1,
    )


LAST_STAGES = {"forest": make_forest, "lightgbm": make_lightgbm}


def make_tabular_net(seed=0, **parameters):
    """A net with its defaults, on the CPU like the others."""
    from skmsc.neural import TabularNet

    return TabularNet(random_state=seed, device="cpu", **parameters)


def make_small_tabm(seed=0):
    """An ensemble trunk of 8 members and 128 units; its defaults, 32 and 256, take far longer."""
    return make_tabular_net(seed, trunk="tabm", width=128, trunk_params={"k": 8})


def make_default_lightgbm(seed=0):
    """LightGBM as it comes, on one thread."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(random_state=seed, n_jobs=1, verbosity=-1)


def make_default_mlp(seed=0):
    """scikit-learn's net as it comes, on standardised columns."""
    return make_pipeline(StandardScaler(), MLPClassifier(random_state=seed))


def make_default_logistic(seed=0):
    """Logistic regression on standardised columns; `seed` changes nothing."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def make_xgboost():
    """XGBoost's trees, as many and as large as those of `make_lightgbm`."""
    from xgboost import XGBClassifier

    return XGBClassifier(
        n_estimators=200,
        max_leaves=15,
        max_depth=0,
        grow_policy="lossguide",
        learning_rate=0.05,
        n_jobs=1,
        random_state=0,
    )


def make_default_xgboost():
    """XGBoost as it comes, on one thread."""
    from xgboost import XGBClassifier

    return XGBClassifier(n_jobs=1, random_state=0)


def make_hist_boosting():
    """scikit-learn's trees, as many and as large as those of `make_lightgbm`."""
    return HistGradientBoostingClassifier(
        max_iter=200,
        max_leaf_nodes=15,
        learning_rate=0.05,
        early_stopping=False,
        random_state=0,
    )


def make_default_hist_boosting():
    """scikit-learn's boosting as it comes: it stops early on a tenth of the rows."""
    return HistGradientBoostingClassifier(random_state=0)


def make_stacking(last):
    """Screen and last stage side by side, a logistic regression on top; weights reach all."""
    with config_context(enable_metadata_routing=True):
        screen = make_pipeline(
            *(step.set_fit_request(sample_weight=True) for _, step in make_screen().steps)
        )
        return StackingClassifier(
            [("screen", screen), ("final", last.set_fit_request(sample_weight=True))],
            final_estimator=LogisticRegression().set_fit_request(sample_weight=True),
        )


TABLE_MODELS = {
    "TabularNet": make_tabular_net,
    "TabularNet, small tabm": make_small_tabm,
    "LightGBM": make_default_lightgbm,
    "MLPClassifier": make_default_mlp,
    "logistic": make_default_logistic,
}


def behind_one_hot(model, X):
    """The model behind a one-hot encoding of the text columns of X, if it has any."""
    texts = [] if isinstance(X, np.ndarray) else X.select_dtypes(exclude="number").columns.tolist()
    if not texts:
        return model
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(
        ColumnTransformer([("texts", one_hot, texts)], remainder="passthrough"), model
    )


# --- what the methods of one split share ------------------------------------------------------
@dataclass
class FittedStages:
    """Screen and last stage, each fitted alone on all training rows, with out-of-fold scores.

    Attributes
    ----------
    screen_oof, last_oof : ndarray of shape (n_train_samples,)
    screen_test, last_test : ndarray of shape (n_test_samples, 2)
    screen_cost : float
        CPU time of the screen on the test rows, in CPU times of the last stage on the same rows.
    caught : ndarray of bool of shape (n_test_samples,)
        Positives that the last stage alone catches, at its out-of-fold cut of best F1. One judge
        for all methods of a table.
    """

    screen: Any
    last: Any
    screen_oof: np.ndarray
    last_oof: np.ndarray
    screen_test: np.ndarray
    last_test: np.ndarray
    screen_cost: float
    caught: np.ndarray


def fit_stages(split, last):
    """Fit both stages alone; nothing of skmsc is used."""
    train = split.X_train, split.y_train, split.w_train
    fitted = [reference.fit(model, *train) for model in (make_screen(), last)]
    oof = [reference.out_of_fold(model, *train) for model in (make_screen(), last)]
    test = [model.predict_proba(split.X_test) for model in fitted]
    seconds = [_cpu_seconds(model.predict_proba, split.X_test) for model in fitted]
    cut = best_f1_cut(split.y_train, oof[1], split.w_train)
    caught = (split.y_test == 1) & (test[1][:, 1] >= cut)
    return FittedStages(*fitted, *oof, *test, seconds[0] / seconds[1], caught)


def _cpu_seconds(call, X, *, repeats=5):
    """Median CPU time of a call, all threads together: other work on the machine does not count."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call(X)
        times.append(time.process_time() - start)
    return float(np.median(times))


# --- methods ----------------------------------------------------------------------------------
def alone(score, *, is_last):
    """One model on all rows: the last stage, or the screen without one."""
    return Answers(score, np.full(len(score), is_last), screened=0.0 if is_last else 1.0)


def by_hand(split, stages, rates, *, survivors=False):
    """The cascade in NumPy: cut at the quantile of out-of-fold scores, passed rows ranked on top.

    With `survivors` the last stage is fitted again on the tenth of the training rows that the
    screen scores highest out-of-fold.
    """
    last_test = stages.last_test[:, 1]
    if survivors:
        chosen = stages.screen_oof > reference.pass_cut(
            stages.screen_oof, SURVIVOR_RATE, split.w_train
        )
        weight = None if split.w_train is None else split.w_train[chosen]
        last = reference.fit(stages.last, split.X_train[chosen], split.y_train[chosen], weight)
        last_test = last.predict_proba(split.X_test)[:, 1]
    screen_test = stages.screen_test[:, 1]
    for rate in rates:
        passed = screen_test > reference.pass_cut(stages.screen_oof, rate, split.w_train)
        yield rate, Answers(np.where(passed, 1 + last_test, screen_test), passed)


def make_scikit_fallback(screen, last, screen_oof, rate, weight=None):
    """scikit-fallback's cascade of two fitted stages, at a pass rate.

    It defers a row whose highest class probability is below a threshold; it cannot reject
    negatives only. The threshold is the quantile of the screen's out-of-fold highest
    probability at which the wanted share of the training rows defers; its own search over
    thresholds cannot be told a pass rate.
    """
    from skfb.ensemble import ThresholdCascadeClassifier

    confidence = np.maximum(screen_oof, 1 - screen_oof)
    threshold = -reference.pass_cut(-confidence, rate, weight)
    return ThresholdCascadeClassifier([screen, last], [threshold], prefit=True)


def scikit_fallback(split, stages, rates):
    """scikit-fallback's cascade of the same fitted stages; its scores are returned as they are."""
    for rate in rates:
        cascade = make_scikit_fallback(
            stages.screen, stages.last, stages.screen_oof, rate, split.w_train
        )
        proba = cascade.predict_proba(split.X_test)
        passed = proba.ensemble_mask.toarray()[:, 1].astype(bool)
        score = np.asarray(proba)[:, 1]
        yield rate, Answers(score, passed, flagged=~passed & (score >= 0.5))


def make_ours(last, rate, *, feedback, screen=None, survivors=False, memory=None):
    """FeedbackCascadeClassifier of a screen and a last stage."""
    from skmsc import AutoFeedback, FeedbackCascadeClassifier, PassBudget

    return FeedbackCascadeClassifier(
        stages=[("screen", screen or make_screen()), ("final", last)],
        feedback=AutoFeedback(pass_rate=rate) if feedback == "auto" else feedback,
        thresholds=PassBudget(rate),
        survivor_rate=SURVIVOR_RATE if survivors else None,
        cv=reference.N_FOLDS,
        memory=memory,
        random_state=0,
    )


def make_default_cascade():
    """FeedbackCascadeClassifier as it comes, its net on the CPU like the others."""
    from skmsc import FeedbackCascadeClassifier, default_stages

    cascade = FeedbackCascadeClassifier(default_stages(), random_state=0)
    return cascade.set_params(final__device="cpu")


def ours(split, last, rates, **how):
    """Ours at each rate; with `memory` the pass rates share one set of stage fits."""
    for rate in rates:
        cascade = make_ours(last, rate, **how)
        with warnings.catch_warnings():
            # At a pass rate of 20 % the last stage meets rows that survivors' training left out:
            # the very thing the table is to show.
            warnings.filterwarnings("ignore", message=".*survivor_rate.*")
            cascade.fit(split.X_train, split.y_train, sample_weight=split.w_train)
        routing = cascade.route(split.X_test)  # its proba is what predict_proba gives
        yield rate, cascade, Answers(routing.proba[:, 1], routing.stage > 0)
