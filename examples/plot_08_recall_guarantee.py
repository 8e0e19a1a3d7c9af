"""
A recall guarantee, and what it costs
=====================================

A floor of 95 % of the caught frauds that is set on a sample holds on that sample. Whether it holds
for all transactions is another matter: in about half of all samples it does not. With `confidence`
it does, in all but one sample of ten, say. That costs a lower cut, so that more rows pass; and it
speaks only of rows exchangeable with the sample.
"""

# %%
# The data
# --------
# Five in a hundred are fraud, more than in life, so that a small example has enough of them. The
# stages learn from the first days; the other rows up to day 70 are untouched. Days after that are
# kept for the end.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skmsc import FeedbackCascadeClassifier, PassBudget, RecallFloor
from skmsc.datasets import make_card_transactions

data = make_card_transactions(40_000, n_days=90, fraud_rate=0.05, random_state=0)
X, y, day = data.data, data.target, data.day
train, pool, late = day < 30, (day >= 30) & (day < 70), day >= 70
screen = make_pipeline(
    make_union(FunctionTransformer(), FunctionTransformer(np.log1p)),
    StandardScaler(),
    LogisticRegression(max_iter=1000),
)
cascade = FeedbackCascadeClassifier(
    [("screen", screen), ("final", HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=15))],
    thresholds=PassBudget(0.1),
    cv=2,
    random_state=0,
).fit(X[train], y[train])

# %%
# A hundred samples
# -----------------
# Each is 4,000 rows of the untouched ones, drawn by chance; the rest of these tells the true
# retained recall. Thresholds are set without any fit.
rng = np.random.default_rng(0)
X_pool, y_pool = X[pool], y[pool]
first, last = cascade.stage_proba(X_pool).swapaxes(0, 1)
caught = (y_pool == 1) & (last[:, 1] >= cascade.catch_threshold_)
floors = {
    "no confidence": RecallFloor(0.95),
    "confidence .9": RecallFloor(0.95, confidence=0.9),
}
recall, pass_rate = ({name: [] for name in floors} for _ in range(2))
for _ in range(100):
    order = rng.permutation(len(y_pool))
    sample, rest = order[:4000], order[4000:]
    for name, floor in floors.items():
        tuned = cascade.tune_thresholds(X_pool[sample], y_pool[sample], thresholds=floor, copy=True)
        passed = first[rest, 0] < tuned.thresholds_[0, 0]
        recall[name].append(passed[caught[rest]].mean())
        pass_rate[name].append(passed.mean())
print(f"{'':16}{'below .95':>10}{'mean recall':>13}{'pass rate':>11}")
for name in floors:
    kept = np.array(recall[name])
    print(
        f"{name:16}{(kept < 0.95).mean():10.1%}{kept.mean():13.3f}{np.mean(pass_rate[name]):11.3f}"
    )

# %%
# What a higher confidence costs
# ------------------------------
# Fewer positives, or more confidence, and the cut must leave more room below it. The last column
# are the days after: they are not exchangeable with the sample, and nothing is promised for them.
order = rng.permutation(len(y_pool))
late_caught = (y[late] == 1) & (cascade.stage_proba(X[late])[:, 1, 1] >= cascade.catch_threshold_)
print(f"\n{'rows':>6}{'confidence':>12}{'pass rate':>11}{'later days':>12}")
for n_rows in (3000, 6000, 10_000):
    for confidence in (0.5, 0.9, 0.99):
        floor = RecallFloor(0.95, confidence=confidence)
        sample = order[:n_rows]
        tuned = cascade.tune_thresholds(X_pool[sample], y_pool[sample], thresholds=floor, copy=True)
        stage = tuned.route(X[late]).stage
        later = (stage == 1)[late_caught].mean()
        print(f"{n_rows:6d}{confidence:12.2f}{(stage == 1).mean():11.3f}{later:12.3f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
bins = np.linspace(0.9, 1.0, 41)
rates = np.linspace(min(map(min, pass_rate.values())), max(map(max, pass_rate.values())), 31)
for (name, kept), colour in zip(recall.items(), ("tab:orange", "tab:blue"), strict=True):
    style = {"histtype": "stepfilled", "edgecolor": colour, "linewidth": 1.5, "label": name}
    left.hist(kept, bins, color=(colour, 0.3), **style)
    right.hist(pass_rate[name], rates, color=(colour, 0.3), **style)
left.axvline(0.95, color="black", linestyle=":", label="the floor")
left.set(xlabel="true retained recall", ylabel="samples", title="Does the floor hold?")
right.set(xlabel="share of rows that pass", title="What it costs")
left.legend()
right.legend()
figure.savefig("recall_guarantee.png", dpi=120)
plt.show()
