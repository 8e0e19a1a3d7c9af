"""
From raw transactions to a monitored cascade
============================================

A fraud team scores every card transaction. A logistic regression dismisses most of them, a forest
looks at the rest. This page goes from the table of transactions to a cascade that is watched at
work: what each stage does, where it is cut, whether its probabilities can be believed, and how the
team learns, without labels of the dismissed transactions, that the world has changed.
"""

# %%
# Transactions
# ------------
# Ninety days of simulated payments; about one in eighty is fraud. A label is known a week after the
# payment, so the cascade of day 57 is trained on the days before 50, and serves from day 57 on.
import numpy as np

from skmsc.datasets import make_card_transactions

cards = make_card_transactions(36_000, random_state=0)
X, y, day, card = cards.data, cards.target, cards.day, cards.customer
train, serve = day < 50, day >= 57
print(f"{train.sum():,} training rows, {y[train].sum()} frauds; {serve.sum():,} rows to serve")

# %%
# A cascade
# ---------
# At most a tenth of the transactions may reach the forest. Costs are in calls of the forest.
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skmsc

screen = make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), LogisticRegression())
forest = RandomForestClassifier(30, min_samples_leaf=5)
cascade = skmsc.FeedbackCascadeClassifier(
    [("screen", screen), ("forest", forest)],
    thresholds=skmsc.PassBudget(0.1),
    stage_costs=[0.01, 1.0],
    cv=3,
    random_state=0,
    verbose=1,
)
cascade.fit(X[train], y[train])

# %%
# What each stage did
# -------------------
# On the days that it serves. A notebook shows the report as a table, and ``to_frame`` gives it as a
# dataframe. The intervals matter: some of these numbers rest on few frauds.
report = cascade.report(X[serve], y[serve], measure_time=True)
print(report)

# %%
# The same as a picture. Frauds flow in a lane of their own, since among all rows nobody would see
# them; the hatched ones are lost.
import matplotlib.pyplot as plt

from skmsc.reporting import (
    CostScoreDisplay,
    StageCalibrationDisplay,
    StageFlowDisplay,
    ThresholdDisplay,
)

StageFlowDisplay.from_estimator(cascade, X[serve], y[serve])

# %%
# Where the screen is cut, and whether the answers can be believed as probabilities.
figure, axes = plt.subplots(1, 2, figsize=(13, 4), layout="constrained")
ThresholdDisplay.from_estimator(cascade, X[serve], y[serve], ax=axes[0])
StageCalibrationDisplay.from_estimator(cascade, X[serve], y[serve], ax=axes[1])

# %%
# Three calls a day
# -----------------
# Of some four hundred payments a day, the team can call the holders of three cards.
# `card_precision_at_k` is the share of compromised ones among the three cards of highest score, day
# by day; a card that was found is blocked. It is compared, over several pass rates, with what a row
# costs. Thresholds are set anew on the days between, whose labels nobody knows yet: a budget needs
# none.
from skmsc.metrics import card_precision_at_k, mean_cost

between = ~train & ~serve
team = {"card": card[serve], "period": day[serve], "k": 3}
costs, found = [], []
for rate in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
    tuned = cascade.tune_thresholds(X[between], thresholds=skmsc.PassBudget(rate), copy=True)
    routing = tuned.route(X[serve])
    costs.append(mean_cost(routing.stage, cascade.stage_costs_))
    found.append(card_precision_at_k(y[serve], routing.proba[:, 1], **team))

alone = {}
for k, (name, stage) in enumerate(cascade.named_stages_.items()):
    score = card_precision_at_k(y[serve], stage.predict_proba(X[serve])[:, 1], **team)
    alone[f"{name} alone"] = (cascade.stage_costs_[k], score)
CostScoreDisplay(
    costs, found, chosen=5, single=alone, score_name="card precision, 3 cards a day"
).plot()

# %%
# Watching it
# -----------
# From here on labels come for the transactions that reached the forest; the dismissed ones are
# never looked at. `monitor` compares pass rates and scores with those of earlier rows, here the
# days between, and needs no label for it.
quiet = serve & (day < 73)
print(cascade.monitor(X[quiet], reference=X[between]))

# %%
# Then prices rise by half, and customers pay twice as often. Nobody told the cascade. The screen's
# scores shift, more rows pass, and the bill grows.
later = X[day >= 73].copy()
amounts = [i for i, name in enumerate(cards.feature_names) if "amount" in name]
numbers = [i for i, name in enumerate(cards.feature_names) if name.startswith("customer_n")]
later[:, amounts] *= 1.5
later[:, numbers] *= 2
alarm = cascade.monitor(later, reference=X[between])
print(alarm)
print("shifted:", alarm.shifted)

# %%
# What is lost among the dismissed rows only labels can tell. One in ten of them, drawn by chance,
# is labelled anyway: each stands for ten, as ``shadow`` says. The estimate comes with its interval,
# and the truth, which only a simulation knows, is beside it.
y_later = y[day >= 73]
_, label_weight = cascade.route(later).shadow(0.1, random_state=0)
known = np.where(label_weight > 0, y_later, -1)  # of any value where it is not known
shadow = cascade.monitor(later, known, reference=X[between], label_weight=label_weight)
print(shadow)
truth = cascade.report(later, y_later).columns
print(f"in truth: {truth['positives_lost'][0]:.0f} lost by the screen")

# %%
# The budget is mended without labels, on the new rows, and the model that serves is not touched
# until the copy has been looked at.
mended = cascade.tune_thresholds(later, thresholds=skmsc.PassBudget(0.1), copy=True)
for name, model in (("before", cascade), ("after", mended)):
    print(f"{name}: {(model.route(later).stage == 1).mean():.1%} of the rows reach the forest")
plt.show()
