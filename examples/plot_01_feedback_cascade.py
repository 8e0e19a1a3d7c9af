"""
A cascade that catches what the network catches
===============================================

Card transactions: few are fraud, and a network finds them well, but running it on every transaction
is slow. Here a logistic regression screens the transactions, and only the suspicious ones reach the
network. The two are trained in the reverse of their working order: the network tells the screen
which frauds it would catch, and the screen learns not to lose those.

Run it on simulated transactions, or with ``--data FILE`` on those of the Fraud Detection Handbook
(a parquet file with its ``TX_*`` columns), by that book's protocol: train on a week, skip a week,
test on the next.
"""

# %%
# The data
# --------
# The training days come first; a week passes until their labels are known; then the test days. The
# rows of the week between, whose labels nobody knows yet, will do to set budgets on.
import argparse
import time

import numpy as np


def simulated():
    """X, y and the day of every row, and the masks of training rows and test rows."""
    from skmsc.datasets import make_card_transactions

    data = make_card_transactions(60_000, random_state=0)
    return data.data, data.target, data.day, data.day < 40, data.day >= 47


def handbook(path):
    """The same from the handbook's file: the training week begins on 2018-07-25."""
    import pandas as pd

    table = pd.read_parquet(path)
    windows = [name for name in table if name.endswith("_WINDOW")]
    features = ["TX_AMOUNT", "TX_DURING_WEEKEND", "TX_DURING_NIGHT", *windows]
    day = (table["TX_DATETIME"] - pd.Timestamp("2018-07-25")).dt.days.to_numpy()
    X, y = table[features].to_numpy(dtype=np.float64), table["TX_FRAUD"].to_numpy()
    train, test = (day >= 0) & (day < 7), (day >= 14) & (day < 21)
    # A card is blocked once its fraud is known, seven days late: it is gone from the test days.
    customer = table["CUSTOMER_ID"].to_numpy()
    for test_day in range(14, 21):
        known = (y == 1) & (day >= 0) & (day < test_day - 7)
        test &= ~((day == test_day) & np.isin(customer, customer[known]))
    return X, y, day, train, test


parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("--data", help="parquet file of the handbook; default: simulate")
parser.add_argument("--picture", default="feedback_cascade.png", help="where the picture goes")
options, _ = parser.parse_known_args()

X, y, day, train, test = handbook(options.data) if options.data else simulated()
X = np.hstack([X, np.log1p(X)])  # amounts and counts spread over orders of magnitude
X_train, y_train, X_test, y_test, day_test = X[train], y[train], X[test], y[test], day[test]
between = (day > day[train].max()) & (day < day_test.min())
print(f"train: {len(y_train):,} transactions, {y_train.sum():,} frauds ({y_train.mean():.2%})")
print(f"test:  {len(y_test):,} transactions, {y_test.sum():,} frauds ({y_test.mean():.2%})")

# %%
# The cascade
# -----------
# At most 8 % of the rows may reach the net. Both stages see the same: the features and their logs.
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmsc import FeedbackCascadeClassifier, PassBudget
from skmsc.neural import TabularNet

cascade = FeedbackCascadeClassifier(
    [
        ("screen", make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))),
        ("net", TabularNet(width=192, dropout=0, batch_size=512, max_epochs=4)),
    ],
    feedback="caught",
    thresholds=PassBudget(0.08),
    cv=3,
    random_state=0,
)
start = time.perf_counter()
cascade.fit(X_train, y_train)
taken = time.perf_counter() - start
print(f"\nfitted in {taken:.0f} s (each stage four times: three folds, all rows)")

# %%
# What each stage did
# -------------------
# On the test rows. Costs are measured, on one thread, and told in units of one row through the net.
# A fraud is *caught* when the net's score reaches the catch threshold; *retained recall* is the
# share of these that reach the net.
from threadpoolctl import threadpool_limits

with threadpool_limits(1):
    seconds = cascade.measure_costs(X_test)
cascade.stage_costs_ = seconds / seconds[-1]
report = cascade.report(X_test, y_test)
print(f"\nstage report (cost: net = 1; caught: score >= {cascade.catch_threshold_:.3f})")
print(report)

# %%
# Beside each stage alone
# -----------------------
# The frauds among the 1 % of each day's transactions that a model scores highest are those that a
# team of that size would find. Time is that of one call for all test rows, on one thread again, so
# it counts what a call to the net costs beside its rows.
from sklearn.metrics import average_precision_score, roc_auc_score


def found(score):
    """Frauds among the 1 % of the rows of each day with the highest scores."""
    total = 0
    for day in np.unique(day_test):
        rows = np.flatnonzero(day_test == day)
        highest = np.argsort(-score[rows], kind="stable")[: max(len(rows) // 100, 1)]
        total += y_test[rows[highest]].sum()
    return total


screen, net = cascade.stages_
models = {"screen alone": screen, "net alone": net, "cascade": cascade}
scores, seconds = {}, {name: [] for name in models}
for _ in range(3):  # in turns, so that a busy moment of the machine meets all of them
    for name, model in models.items():
        with threadpool_limits(1):
            start = time.perf_counter()
            scores[name] = model.predict_proba(X_test)[:, 1]
            seconds[name].append(time.perf_counter() - start)
time_of_net = np.median(seconds["net alone"])
print(f"\n{'':14}{'AP':>7}{'ROC AUC':>9}{'found':>7}{'time':>8}   (time: net alone = 1)")
for name, score in scores.items():
    ap, auc = average_precision_score(y_test, score), roc_auc_score(y_test, score)
    ratio = np.median(seconds[name]) / time_of_net
    print(f"{name:14}{ap:7.3f}{auc:9.3f}{found(score):7d}{ratio:8.3f}")

# %%
# More or fewer rows for the net
# ------------------------------
# Thresholds can be set anew without fitting anything: the picture follows the pass rate from 0.2 %
# to all rows.
import matplotlib.pyplot as plt

rates = np.array([0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.2, 1.0])
ap, kept, cost = [], [], []
for rate in rates:
    budget = PassBudget(rate)
    tuned = cascade.tune_thresholds(X[between], y[between], thresholds=budget, copy=True)
    report = tuned.report(X_test, y_test)
    ap.append(average_precision_score(y_test, tuned.predict_proba(X_test)[:, 1]))
    kept.append(report.columns["retained_recall"][-1])
    cost.append(report.mean_cost)
alone = {name: average_precision_score(y_test, scores[name]) for name in models}

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(rates, kept, "o-", color="tab:blue")
left.axvline(0.08, color="0.6", linestyle=":", label="the budget of 8 %")
left.set(
    xscale="log",
    xlabel="share of rows that may reach the net",
    ylabel="retained recall",
    title="Caught frauds that reach the net",
    ylim=(0, 1.03),
)
ticks = [0.002, 0.01, 0.05, 0.2, 1]
left.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks], minor=False)
left.legend(loc="lower right")
right.plot(cost, ap, "o-", color="tab:blue", label="cascade")
right.plot(1, alone["net alone"], "s", color="tab:orange", label="net alone")
right.plot(
    cascade.stage_costs_[0], alone["screen alone"], "^", color="tab:green", label="screen alone"
)
right.set(
    xlabel="cost of a row (net alone = 1)",
    ylabel="average precision",
    title="Quality and cost",
)
right.legend(loc="lower right")
figure.savefig(options.picture, dpi=120)
print(f"\npicture: {options.picture}")
plt.show()
