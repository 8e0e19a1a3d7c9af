"""
Cuts by money
=============

A missed fraud costs its amount, a false alarm a phone call, and a row through the last stage a
fetch. Which rows should the last stage see, and which of them be alerts? `ExpectedCost` sets all
cuts where the sum is least; the amounts come with the rows, as metadata.
"""

# %%
# The data
# --------
# Training days, a week until their labels are known, test days. The last stage's features of the
# terminal cost 2 cents a transaction, an alert 5 euros.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skmsc import ExpectedCost, FeedbackCascadeClassifier, PassBudget
from skmsc.datasets import make_card_transactions

data = make_card_transactions(90_000, n_days=60, random_state=0, as_frame=True)
X, y, amount = data.data, data.target.to_numpy(), data.amount
train, test = data.day < 39, data.day >= 46
cheap = [name for name in X if name not in data.costly_features]
CALL, FETCH = 5.0, 0.02

# %%
# The cascade
# -----------
# ``false_negative_cost`` is None in the policy, so each row brings its own. Stage costs are money
# already, so that their price is 1.
screen = make_pipeline(
    make_column_transformer((make_union("passthrough", FunctionTransformer(np.log1p)), cheap)),
    StandardScaler(),
    LogisticRegression(max_iter=1000),
)
cascade = FeedbackCascadeClassifier(
    [("screen", screen), ("final", HistGradientBoostingClassifier(max_iter=60))],
    thresholds=ExpectedCost(false_positive_cost=CALL, stage_price=1.0),
    stage_costs=[0.0, FETCH],
    cv=3,
    random_state=0,
)
cascade.fit(X[train], y[train], false_negative_cost=amount[train])
print(cascade.report(X[test], y[test]))
print(f"an alert from a probability of {cascade.alert_threshold_:.3f} on")

# %%
# What each way costs
# -------------------
# In euros a day, on the test days. `predict` is the likeliest class: it waits for a probability of
# 1/2, which has nothing to do with euros. The other policies know nothing of money, and their cut
# of the last stage is the same.
n_days = np.unique(data.day[test]).size
fraud = y[test] == 1


def euros(alerts, n_fetched):
    """Euros a day for missed frauds, calls and fetches."""
    missed = amount[test][fraud & ~alerts].sum()
    return np.array([missed, CALL * (alerts & ~fraud).sum(), FETCH * n_fetched]) / n_days


def way(model, alerts):
    """The same of a cascade, whose fetches are its passed rows."""
    return euros(alerts, (model.route(X[test]).stage == 1).sum())


def best_cut(score):
    """Cut of a score that costs least on the training rows, fetches aside."""
    gain = np.where(y[train] == 1, amount[train], -CALL)
    order = np.argsort(-score)
    return score[order][np.cumsum(gain[order]).argmax()]


everything = cascade.tune_thresholds(
    X[train],
    y[train],
    thresholds=ExpectedCost(false_positive_cost=CALL),  # as if fetches were free
    false_negative_cost=amount[train],
    copy=True,
)
narrow = cascade.tune_thresholds(X[train], thresholds=PassBudget(0.02), copy=True)
screen_score = cascade.stages_[0].predict_proba(X)[:, 1]
ways = {
    "no model": euros(np.zeros(fraud.size, dtype=bool), 0),
    "screen alone": euros(screen_score[test] >= best_cut(screen_score[train]), 0),
    "PassBudget(0.02),\npredict": way(narrow, narrow.predict(X[test]) == 1),
    "ExpectedCost,\npredict": way(cascade, cascade.predict(X[test]) == 1),
    "ExpectedCost,\nfetches free": way(everything, everything.alerts(X[test])),
    "ExpectedCost,\nalerts": way(cascade, cascade.alerts(X[test])),
}
print(f"\n{'euros a day':32}{'missed':>9}{'calls':>9}{'fetches':>9}{'sum':>9}")
for name, parts in ways.items():
    cells = "".join(f"{part:9.0f}" for part in [*parts, parts.sum()])
    print(f"{name.replace(chr(10), ' '):32}{cells}")

# %%
# Dearer fetches
# --------------
# The price of a fetch decides how many rows are worth one. Stages stay fitted; only the cuts move.
prices = np.array([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5])
rates, totals = [], []
for price in prices:
    tuned = cascade.tune_thresholds(
        X[train],
        y[train],
        thresholds=ExpectedCost(false_positive_cost=CALL, stage_price=price / FETCH),
        false_negative_cost=amount[train],
        copy=True,
    )
    passed = (tuned.route(X[test]).stage == 1).mean()
    rates.append(passed)
    missed, calls, fetches = way(tuned, tuned.alerts(X[test]))
    totals.append(missed + calls + fetches * price / FETCH)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
start = np.zeros(len(ways))
for part, colour, label in zip(
    np.array(list(ways.values())).T,
    ("tab:red", "tab:orange", "0.6"),
    ("missed frauds", "calls", "fetches"),
    strict=True,
):
    left.barh(list(ways), part, left=start, color=colour, label=label)
    start += part
left.invert_yaxis()
left.set(xlabel="euros a day", title="Costs on the test days")
left.legend()
right.plot(prices, rates, "o-", color="tab:blue")
right.set(xscale="log", xlabel="euros for a fetch", title="Rows worth a fetch", ylim=(0, None))
right.set_ylabel("share of rows that pass", color="tab:blue")
cost = right.twinx()
cost.plot(prices, totals, "s--", color="tab:red")
cost.set_ylabel("euros a day in all", color="tab:red")
cost.set_ylim(0, None)
figure.savefig("money.png", dpi=120)
plt.show()
