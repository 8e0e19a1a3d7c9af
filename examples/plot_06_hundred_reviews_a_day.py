"""
A hundred reviews a day
=======================

A team can look at a hundred transactions a day. Which hundred, and how many transactions must the
costly model see to find them? `AlertBudget` sets both cuts: that of the final probability, from
which a transaction is an alert, and that of the screen, which may dismiss what would be none.
"""

# %%
# The data
# --------
# Some 3,000 transactions a day, of which 30 are fraud. A linear model screens them for boosted
# trees.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skmsc import AlertBudget, FeedbackCascadeClassifier
from skmsc.datasets import make_card_transactions

data = make_card_transactions(100_000, n_days=30, fraud_rate=0.01, random_state=0)
X, y, day, time = data.data, data.target, data.day, data.time
train, test = day < 14, day >= 21  # a week passes until the last training labels are known

# %%
# The cascade
# -----------
# The budget counts alerts by the `time` of the rows, which `fit` takes. The screen must keep nine
# tenths of the frauds among the last stage's own alerts, as its scores tell: the last tenth is in
# rows that are hardly suspect, and to keep these, too, most rows would have to pass.
screen = make_pipeline(
    make_union(FunctionTransformer(), FunctionTransformer(np.log1p)),
    StandardScaler(),
    LogisticRegression(max_iter=1000),
)
final = HistGradientBoostingClassifier(max_iter=40)
cascade = FeedbackCascadeClassifier(
    [("screen", screen), ("final", final)],
    thresholds=AlertBudget(100, per="1D", min_kept=0.9),
    cv=2,
    random_state=0,
)
cascade.fit(X[train], y[train], time=time[train])
print(cascade.report(X[test], y[test]))

# %%
# Each day's alerts
# -----------------
# The budget held on every training day, so a mean day leaves some room; with ``average=True`` busy
# days would have more. It is no promise for the test days: where traffic grows, alerts do, and
# `tune_thresholds` follows it without a label. `predict` alerts where fraud is likelier than not,
# however many that are.
n_days = day.max() - 20


def per_day(rows):
    """Number of the rows, a mask of the test rows, on each test day."""
    return np.bincount(day[test][rows] - 21, minlength=n_days)


alerts, fraud = cascade.alerts(X[test]), y[test] == 1
predicted = cascade.predict(X[test]) == 1
print(f"\n{'':10}{'alerts a day':>14}{'busiest':>9}{'frauds found':>14}   (of {fraud.sum()})")
for name, rows in {"alerts": alerts, "predict": predicted}.items():
    print(
        f"{name:10}{per_day(rows).mean():14.1f}{per_day(rows).max():9d}{(rows & fraud).sum():14d}"
    )

# %%
# Smaller and larger teams
# ------------------------
# The stages are fitted once, and budgets are set anew on the week before the test days, whose
# labels nobody knows yet. The crosses are as many alerts by the last stage alone, on all rows.
teams, between = [10, 20, 40, 70, 100, 150, 200], (day >= 14) & (day < 21)
found, passed, alone = [], [], []
score = cascade.stage_proba(X[test])[:, 1, 1]
for team in teams:
    tuned = cascade.tune_thresholds(
        X[between], thresholds=AlertBudget(team, min_kept=0.9), time=time[between], copy=True
    )
    rows = tuned.alerts(X[test])
    found.append((rows & fraud).sum() / fraud.sum())
    passed.append((tuned.route(X[test]).stage == 1).mean())
    likeliest = np.argsort(-score, kind="stable")[: rows.sum()]
    alone.append(fraud[likeliest].sum() / fraud.sum())

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
days = np.arange(n_days) + 21
left.bar(days, per_day(alerts & fraud), color="tab:red", label="fraud")
left.bar(
    days,
    per_day(alerts & ~fraud),
    bottom=per_day(alerts & fraud),
    color="0.8",
    label="honest",
)
left.axhline(100, color="black", linestyle=":", label="the team")
left.set(xlabel="test day", ylabel="alerts", title="Alerts of each day", ylim=(0, 135))
left.legend(loc="upper right", ncols=3)
right.plot(teams, found, "o-", label="frauds found by the cascade")
right.plot(teams, alone, "x", color="tab:orange", label="by the last stage on all rows")
right.plot(teams, passed, "s--", color="0.5", label="share of rows that the last stage sees")
right.set(xlabel="reviews a day", ylabel="share", ylim=(0, 1.25), title="What a larger team finds")
right.set_yticks(np.linspace(0, 1, 6))
right.legend(loc="upper left")
figure.savefig("hundred_reviews_a_day.png", dpi=120)
plt.show()
