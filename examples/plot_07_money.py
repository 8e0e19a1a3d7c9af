"""
Cuts by money
=============

A missed fraud costs its amount, a false alarm a phone call, and a transaction that goes to the last
stage a fetch of features. Which transactions should go there, and which of these be alerts?
`ExpectedCost` sets all cuts where the sum is least; the amounts come with the rows, as metadata.
"""

# %%
# The data
# --------
# The stages learn from the first three weeks, the cuts are set on the 18 days after, and the last
# two weeks are the test; a week lies between, until labels are known. The features of the terminal,
# which the last stage needs, cost 20 cents a transaction, an alert 5 euros.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skmsc import ExpectedCost, FeedbackCascadeClassifier
from skmsc.datasets import make_card_transactions

CALL, FETCH = 5.0, 0.2
data = make_card_transactions(90_000, n_days=60, random_state=0, as_frame=True)
X, y, amount, day = data.data, data.target.to_numpy(), data.amount, data.day
train, recent, test = day < 21, (day >= 21) & (day < 39), day >= 46
cheap = [name for name in X if name not in data.costly_features]

# %%
# The cascade
# -----------
# ``false_negative_cost`` is None in the policy, so that each row brings its own. Stage costs are
# money already: their price is 1.
logs = make_union(FunctionTransformer(), FunctionTransformer(np.log1p))
screen = make_pipeline(
    make_column_transformer((logs, cheap)), StandardScaler(), LogisticRegression(max_iter=1000)
)
cascade = FeedbackCascadeClassifier(
    [("screen", screen), ("final", HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=15))],
    thresholds=ExpectedCost(false_positive_cost=CALL, stage_price=1.0),
    stage_costs=[0.0, FETCH],
    cv=2,
    random_state=0,
)
cascade.fit(X[train], y[train], false_negative_cost=amount[train])


def with_price(price):
    """The cascade with cuts set on the recent days, at so much for a unit of stage costs."""
    return cascade.tune_thresholds(
        X[recent],
        y[recent],
        thresholds=ExpectedCost(false_positive_cost=CALL, stage_price=price),
        false_negative_cost=amount[recent],
        copy=True,
    )


tuned, free = with_price(1.0), with_price(0.0)
print(tuned.report(X[test], y[test]))
print(f"an alert from a probability of {tuned.alert_threshold_:.3f} on")

# %%
# What each way costs
# -------------------
# In euros a day, on the test days. `predict` is the likeliest class, as everywhere in scikit-learn:
# it waits for a probability of 1/2, and that has nothing to do with euros.
fraud, n_days = y[test] == 1, np.unique(day[test]).size


def euros(alerts, n_fetched):
    """Euros a day for missed frauds, calls and fetches."""
    missed = amount[test][fraud & ~alerts].sum()
    return np.array([missed, CALL * (alerts & ~fraud).sum(), FETCH * n_fetched]) / n_days


def n_passed(model):
    """Number of test rows that reach the last stage."""
    return (model.route(X[test]).stage == 1).sum()


only_screen = FeedbackCascadeClassifier([("screen", screen)], thresholds=ExpectedCost(None, CALL))
only_screen.fit(X[train], y[train], false_negative_cost=amount[train])
ways = {
    "no model": euros(np.zeros(fraud.size, dtype=bool), 0),
    "screen alone": euros(only_screen.alerts(X[test]), 0),
    "fetches taken as free": euros(free.alerts(X[test]), n_passed(free)),
    "cascade, predict": euros(tuned.predict(X[test]) == 1, n_passed(tuned)),
    "cascade, alerts": euros(tuned.alerts(X[test]), n_passed(tuned)),
}
print(f"\n{'euros a day':24}{'missed':>9}{'calls':>9}{'fetches':>9}{'sum':>9}")
for name, parts in ways.items():
    print(f"{name:24}" + "".join(f"{part:9.0f}" for part in [*parts, parts.sum()]))

# %%
# Dearer fetches
# --------------
# The price of a fetch decides how many rows are worth one. Only the cuts move.
prices = np.array([0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0])
models = [with_price(price / FETCH) for price in prices]
rates = [n_passed(model) / fraud.size for model in models]
totals = [
    euros(model.alerts(X[test]), n_passed(model)) @ [1, 1, price / FETCH]
    for model, price in zip(models, prices, strict=True)
]

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
start = np.zeros(len(ways))
parts_of = {"missed frauds": "tab:red", "calls": "tab:orange", "fetches": "0.6"}
for part, (label, colour) in zip(np.transpose(list(ways.values())), parts_of.items(), strict=True):
    left.barh(list(ways), part, left=start, color=colour, label=label)
    start += part
left.invert_yaxis()
left.set(xlabel="euros a day", title="Costs on the test days", xlim=(0, 1.05 * start.max()))
left.legend()
right.plot(prices, rates, "o-", color="tab:blue")
right.set(xscale="log", xlabel="euros for a fetch", title="Rows worth a fetch", ylim=(0, 1.05))
right.set_xticks(prices, [f"{price:g}" for price in prices], minor=False)
right.minorticks_off()
right.set_ylabel("share of rows that pass", color="tab:blue")
cost = right.twinx()
cost.plot(prices, totals, "s--", color="tab:red")
cost.set_ylabel("euros a day in all", color="tab:red")
cost.set_ylim(0, None)
figure.savefig("money.png", dpi=120)
plt.show()
