"""
How much of the network does a row need?
========================================

A network with four exits behind a linear model: most rows are easy, and leave early. Here the whole
curve of accuracy over cost comes from one fit, since thresholds are set anew without training, and
what a budget promises is compared with what new rows really cost.
"""

# %%
# The data
# --------
# Six classes of several clusters each: a line separates some rows well and others not at all. The
# last quarter of the rows is for looking at the result only.
import numpy as np
from sklearn.datasets import make_classification

X, y = make_classification(
    13_000,
    n_features=20,
    n_informative=12,
    n_classes=6,
    n_clusters_per_class=3,
    class_sep=1.7,
    flip_y=0.01,
    random_state=0,
)
train, tune, new = slice(0, 7_000), slice(7_000, 9_500), slice(9_500, None)

# %%
# One fit
# -------
# Stage 0 is a scaled logistic regression; stages 1 to 4 are the blocks of one network, each twice
# as wide as the one before it, with an exit behind each. Left to itself the classifier answers
# early as long as at most one row in a hundred gets another answer than the last exit would give.
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmsc import CostBudget, EarlyExitClassifier
from skmsc.neural import MultiExitNet

model = EarlyExitClassifier(
    make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    MultiExitNet(width=[32, 64, 128, 256], depth=4, dropout=0.1, max_epochs=10, batch_size=256),
    exit_weighting="uniform",
    random_state=0,
).fit(X[train], y[train])
print(model.report(X[new], y[new]))

# %%
# The costs are multiply-adds, as shares of a row that goes all the way; the early exits are cheap
# because the early blocks are narrow.
names = ["first stage", *(f"exit {k}" for k in range(1, 5))]
for name, count, share in zip(names, model.multiply_adds_, model.stage_costs_, strict=True):
    print(f"{name:12}{count:8,.0f} multiply-adds  {share:6.1%} of the cost")

# %%
# Budgets
# -------
# `tune_thresholds` sets a budget without fitting anything; `copy=True` leaves the model as it is.
# The thresholds come from rows that nothing was fitted on, and new rows cost what was planned, up
# to the noise of two samples.
budgets = [0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8]
tuned = {
    budget: model.tune_thresholds(X[tune], y[tune], thresholds=CostBudget(budget), copy=True)
    for budget in budgets
}
curve = {}
print(f"{'budget':>8}{'spent':>8}{'accuracy':>10}   answered by each stage")
for budget, cheaper in tuned.items():
    spent = cheaper.route(X[new]).cost.mean()
    shares = cheaper.exit_distribution(X[new])
    curve[budget] = spent, cheaper.score(X[new], y[new]), shares
    print(f"{budget:8.2f}{spent:8.3f}{curve[budget][1]:10.3f}   {shares.round(2)}")

# %%
# Every exit alone, for comparison: what a network of that size answers when all rows stop there.
stage_proba = model.stage_proba(X[new])
accuracy = (stage_proba.argmax(axis=2) == y[new][:, None]).mean(axis=0)
cost = np.cumsum(model.stage_costs_)

# %%
# The picture
# -----------
# Left: routing rows by how sure the exits are beats stopping all rows at any one exit. Right: who
# answers at which budget.
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
spent, score = np.array([curve[budget][:2] for budget in budgets]).T
left.plot(spent, score, "o-", color="tab:blue", label="rows leave when an exit is sure")
left.plot(cost, accuracy, "s--", color="tab:orange", label="all rows leave at one exit")
for name, x, value in zip(names, cost, accuracy, strict=True):
    below = {"xytext": (7, -13), "ha": "left"} if x < 0.1 else {"xytext": (4, -16), "ha": "center"}
    left.annotate(name, (x, value), textcoords="offset points", fontsize=9, color="0.3", **below)
left.set(xlabel="mean cost of a row (all stages = 1)", ylabel="accuracy on new rows")
left.set(xscale="log", title="Accuracy over cost, one fit")
left.grid(color="0.9", which="both")
left.margins(x=0.08, y=0.12)
left.legend(loc="lower right")

before = np.zeros(len(budgets))
shades = plt.get_cmap("viridis")(np.linspace(0.95, 0.1, len(names)))
for k, name in enumerate(names):
    share = np.array([curve[budget][2][k] for budget in budgets])
    right.barh([f"{b:g}" for b in budgets], share, left=before, color=shades[k], label=name)
    before += share
right.set(xlabel="share of the rows", ylabel="budget", xlim=(0, 1), title="Who answers")
right.invert_yaxis()
figure.legend(*right.get_legend_handles_labels(), loc="outside right upper", frameon=False)
figure.savefig("early_exit.png", dpi=120)
plt.show()
