"""
Late labels and a costly feature service
========================================

Card transactions again, as they come: the labels of the last week are not there yet, a small team
has reviewed a few of the older ones, and the features that tell most must be asked of a service
that charges for every row. What can a cascade learn from the rows without a label, and what does
that cost?

An answer in short: where labels are few, rows without one are many and the last stage is good, its
scores of the unlabelled rows teach the screen what the few labels cannot. It pays for that once, as
each of these rows is fetched in training. Where labels are plenty, do without, and let the fit
fetch the likely rows only.
"""

# %%
# The data
# --------
# Twelve weeks, of which the last two are the test days. One transaction in twenty is fraud, more
# than in life, so that there are enough to count in a small example. What comes with a transaction
# is cheap: amount, hour, weekday, how often the customer paid lately. The service knows the history
# of the terminal and how the amount compares with the customer's mean.
import time

import numpy as np
import pandas as pd

from skmsc.datasets import make_card_transactions

data = make_card_transactions(30_000, n_days=84, fraud_rate=0.05, random_state=0, as_frame=True)
columns, y = data.data, data.target.to_numpy()
windows = (1, 7, 30)  # days
X = pd.DataFrame(
    {
        "id": np.arange(len(y)) + 70_000,
        "amount": columns["amount"],
        "hour": pd.Series(data.time).dt.hour,
        "weekday": data.day % 7,
        **{f"n_{w}d": columns[f"customer_n_transactions_{w}d"] for w in windows},
    }
)
history = columns[data.costly_features].assign(
    **{f"ratio_{w}d": X["amount"] / columns[f"customer_mean_amount_{w}d"] for w in windows}
)
history.index = X["id"]

# %%
# A label is known after a week. The team reviews ten transactions a day, drawn at random; all other
# rows have no label, which -1 says.
train, test = data.day < 70, data.day >= 70
late = train & (data.day >= 63)
labels = np.full(len(y), -1)
rng = np.random.default_rng(0)
for day in range(63):
    reviewed = rng.choice(np.flatnonzero(data.day == day), 10, replace=False)
    labels[reviewed] = y[reviewed]
print(f"training days: {train.sum():,} rows, the last {late.sum():,} of them too recent for labels")
print(f"labelled:      {(labels >= 0).sum():,} rows, {(labels == 1).sum()} of them fraud")
print(f"test days:     {test.sum():,} rows, {y[test].sum()} of them fraud")

# %%
# The service and the cascade
# ---------------------------
# `CostlyFeatures` asks the service for exactly the rows that reach its stage. The id finds the row
# there and is no feature: the screen selects its columns, and the last stage's `on` column leaves
# once it is used. The screen is a logistic regression with curves for amount and counts and an
# indicator for each hour: some seventy coefficients, a lot to learn from 25 frauds.
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer

from skmsc import CostlyFeatures, FeedbackCascadeClassifier, PassBudget
from skmsc.model_selection import TimeDelaySplit


class Service:
    """Features by transaction id; counts its calls and the rows that it is asked for."""

    def __init__(self, table):
        self.table, self.n_calls, self.n_rows = table, 0, 0

    def __call__(self, ids):
        self.n_calls += 1
        self.n_rows += len(ids)
        return self.table.loc[ids]

    def take_bill(self):
        """Calls and rows since the last bill."""
        bill = self.n_calls, self.n_rows
        self.n_calls = self.n_rows = 0
        return bill


service = Service(history)
curves = make_pipeline(FunctionTransformer(np.log1p), SplineTransformer(8))
screen = make_pipeline(
    make_column_transformer(
        (curves, ["amount", "n_1d", "n_7d", "n_30d"]),
        (OneHotEncoder(handle_unknown="ignore"), ["hour", "weekday"]),
    ),
    LogisticRegression(solver="newton-cholesky"),
)


def make_cascade(last, **parameters):
    """The screen, then `last` with the service's features; a tenth of the rows may reach it."""
    last = make_pipeline(CostlyFeatures(service, on="id", cost=1.0), last)
    return FeedbackCascadeClassifier(
        [("screen", screen), ("last", last)],
        thresholds=PassBudget(0.1),
        stage_costs=[0, 0],  # the service's cost comes on top
        unlabeled_label=-1,
        random_state=0,
        **parameters,
    )


# %%
# Few labels: what the unlabelled rows are good for
# -------------------------------------------------
# A cascade is trained in the reverse of its working order. With feedback, the last stage learns the
# few labels, with the service's features, and scores every row; the screen then learns a row
# without a label as fraud and as honest, by the chance that this score gives each. Without
# feedback, rows without a label are left out and never fetched.
#
# Inside, too, a label must be a week old before it trains what scores the next week: weekly test
# windows, the last of which ends at the latest label, and a gap of a week before each.
#
# A budget of a tenth that is set on a few hundred labelled rows is met only roughly at work. But it
# needs no labels: the last week, whose labels are missing, sets it anew, and is not fetched for it.
#
# All three cascades have the same last stage and so catch the same frauds; they differ in how many
# of these the screen lets through. `kept` is that share when exactly a tenth of the test rows pass.
from sklearn.metrics import average_precision_score

rates = np.array([0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5])


def fit(cascade, rows, seen, **fit_parameters):
    """Fit on some rows, work on the test days: what came out and what the service billed."""
    service.take_bill()
    start = time.perf_counter()
    cascade.fit(X[rows], seen[rows], **fit_parameters)
    cascade.tune_thresholds(X[late], thresholds=PassBudget(0.1))
    seconds = time.perf_counter() - start
    n_calls, n_fit = service.take_bill()
    ap = average_precision_score(y[test], cascade.predict_proba(X[test])[:, 1])
    n_work = service.take_bill()[1]
    return {"AP": ap, "n_work": n_work, "n_fit": n_fit, "n_calls": n_calls, "seconds": seconds}


def kept(cascade):
    """Share of the caught frauds of the test days that pass, for each of the `rates`."""
    score, last = cascade.stage_proba(X[test])[:, :, 1].T  # of all rows, which nobody does at work
    caught = (y[test] == 1) & (last >= cascade.catch_threshold_)
    return np.array([(score[caught] >= np.quantile(score, 1 - rate)).mean() for rate in rates])


ROW = "{AP:8.3f}{n_work:9,} = {share:4.1%}{n_fit:10,} in {n_calls} call{seconds:8.1f} s"
HEADER = f"{'AP':>8}{'fetched at work':>17}{'fetched in fit':>17}{'time':>11}"

forest = RandomForestClassifier(30, min_samples_leaf=3)
weekly = TimeDelaySplit(5, test_size="7D", gap="7D")
recent = train & ((labels >= 0) | (data.day >= 49))
curve, result = {}, {}
print(f"\nfew labels{'':22}{'kept':>6}{HEADER}")
for name, feedback, rows in [
    ("no feedback", "none", train),
    ("caught, pool of three weeks", "caught", recent),
    ("auto", "auto", train),
]:
    cascade = make_cascade(forest, feedback=feedback, cv=weekly)
    result[name] = fit(cascade, rows, labels, time=data.time[rows])
    curve[name] = kept(cascade)
    share = result[name]["n_work"] / test.sum()
    print(f"{name:32}{curve[name][rates == 0.1][0]:6.3f}", ROW.format(**result[name], share=share))

# %%
# Feedback fetches each training row once; the folds share what was fetched. Three weeks of the pool
# do about as well here as all of it, at a third of the price.
#
# "auto" fits the screen by each kind of feedback and keeps the best, if it is better than none by
# more than chance. It can judge the pool only where unlabelled rows lie in training parts, before a
# test window: the last week alone would not do. And it counts the unlabelled rows of the test
# windows by the last stage's word, so that of the last stage's own errors it knows little.
comparison = pd.DataFrame(cascade.feedback_comparison_).set_index("feedback")
print(f"\nwhat auto compared, by cross-validation\n{comparison.drop(columns='stage').round(3)}")

# %%
# Many labels: fetch the likely rows only
# ---------------------------------------
# Now suppose that every transaction older than a week has its label. Then rows without one have
# nothing to add, and the fit itself can do without most of the service: with `survivor_rate` the
# last stage learns the fifth that the screen finds most suspicious, and no other row is fetched.
# The screen must have scored every row out-of-fold for that, hence shuffled folds here; windows of
# time leave the first weeks without a score.
known = np.where(data.day < 63, y, -1)
boosting = HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=8)
print(f"\nmany labels{'':28}{HEADER}")
for name, survivor_rate in [("all rows", None), ("survivors", 0.2)]:
    cascade = make_cascade(boosting, feedback="none", survivor_rate=survivor_rate)
    result[name] = fit(cascade, train, known)
    share = result[name]["n_work"] / test.sum()
    print(f"{name:38}", ROW.format(**result[name], share=share))

# %%
# What it comes to
# ----------------
# When does a pool of unlabelled rows pay? When labels are few, unlabelled rows many, the screen has
# much to learn, and the last stage is good: the screen learns the last stage's scores, errors
# included. And when the service is cheap enough to be asked for the pool once. A screen with a
# handful of coefficients needs no pool to learn them.
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
left.plot(rates, curve["auto"], "o-", color="tab:blue", label="feedback, with the unlabelled rows")
left.plot(rates, curve["no feedback"], "s--", color="tab:orange", label="labelled rows only")
left.axvline(0.1, color="0.6", linestyle=":", label="the budget above")
left.set(
    xscale="log",
    xlabel="share of rows that the screen passes",
    ylabel="share of caught frauds that pass",
    title="Few labels: two screens, one last stage",
    ylim=(0, 1.03),
)
left.set_xticks([0.01, 0.02, 0.05, 0.1, 0.2, 0.5], ["1 %", "2 %", "5 %", "10 %", "20 %", "50 %"])
left.minorticks_off()
left.legend(loc="lower right")

in_fit = {
    "few labels, no feedback": "no feedback",
    "few labels, pool of three weeks": "caught, pool of three weeks",
    "few labels, pool of all rows": "auto",
    "many labels, survivors": "survivors",
    "many labels, all of them": "all rows",
}
at_work = {
    "two test weeks, cascade": result["auto"]["n_work"],
    "two test weeks, every row": test.sum(),
}
place = np.array([0, 1, 2, 3.5, 4.5, 6, 7])
for label, color, where, values in [
    ("in fit", "tab:blue", place[:5], [result[name]["n_fit"] for name in in_fit.values()]),
    ("at work", "lightsteelblue", place[5:], list(at_work.values())),
]:
    drawn = right.barh(where, values, color=color, label=label)
    right.bar_label(drawn, [f"{n:,}" for n in values], padding=3)
right.set_yticks(place, [*in_fit, *at_work])
right.invert_yaxis()
right.xaxis.set_major_formatter("{x:,.0f}")
right.set(xlabel="rows fetched", title="What the service is asked for", xlim=(0, 29_000))
right.spines[["top", "right"]].set_visible(False)
right.legend(loc="lower right")
figure.savefig("late_labels.png", dpi=120)
plt.show()
