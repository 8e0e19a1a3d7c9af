"""
A new kind of fraud arrives
===========================

A classifier knows two kinds of fraud. A third one comes up, of which there are a handful of
labelled rows and no time to train anything. The class is added to the fitted classifier, exactly as
if its heads had been fitted on all rows, in milliseconds, and without the old rows; then it is
taken away again, bit for bit.
"""

# %%
# The data
# --------
# Simulated card transactions with three kinds of fraud. In the first half of the time nobody has
# seen a compromised terminal yet; then they are found, one by one, for a while; what comes after
# that is for looking at the result only.
import time

import numpy as np

from skmsc.datasets import make_card_transactions

data = make_card_transactions(60_000, random_state=0)
names = np.array(["genuine", "compromised terminal", "stolen card", "test payments"])
X, y = data.data, names[data.scenario]
row = np.arange(len(y))
known = (row < 30_000) & (y != "compromised terminal")
found = np.flatnonzero((row >= 30_000) & (row < 39_000) & (y == "compromised terminal"))
later = row >= 39_000
print({name: int((y[later] == name).sum()) for name in names.tolist()}, "to judge by")

# %%
# One fit
# -------
# A network is trained on the classes there are and frozen below its last layer. "lda" puts a head
# for each class on its features, found from the class's count, mean and second moments alone.
from skmsc import ComposableHeadClassifier
from skmsc.neural import TabularNet

model = ComposableHeadClassifier(
    trunk=TabularNet(width=64, max_epochs=5), head="lda", random_state=0
).fit(X[known], y[known])
print(model.classes_)

# %%
# The class comes
# ---------------
# Five labelled rows are enough for a head. `compose` of all classes makes a copy that shares the
# trunk, so that the model stays as it is.
started = time.perf_counter()
richer = model.compose(model.classes_).add_class(X[found[:5]], "compromised terminal")
print(f"{richer.classes_}, in {1000 * (time.perf_counter() - started):.0f} ms")

back = richer.compose(richer.classes_).remove_class("compromised terminal")
same = np.array_equal(back.predict_proba(X[later]), model.predict_proba(X[later]))
print("taken away again, the same bits:", same)

# %%
# How many labelled rows does it take?
# ------------------------------------
# What matters is the order in which transactions are looked at: by the probability that they are
# not genuine. The last column is what a fit from scratch would give, network and all, with every
# row of the first 39,000 at hand.
from sklearn.metrics import average_precision_score


def suspicion(classifier, X):
    """Probability that a row is fraud of any kind."""
    return 1 - classifier.predict_proba(X)[:, list(classifier.classes_).index("genuine")]


def precision(classifier):
    """Average precision on later rows, of all fraud and of compromised terminals."""
    score = suspicion(classifier, X[later])
    honest = y[later] == "genuine"
    new = y[later] == "compromised terminal"
    return (
        average_precision_score(~honest, score),
        average_precision_score(new[new | honest], score[new | honest]),
    )


curve = {0: precision(model)}
for n_rows in (1, 2, 5, 10, 20, len(found)):
    grown = model.compose(model.classes_).add_class(X[found[:n_rows]], "compromised terminal")
    curve[n_rows] = precision(grown)
scratch = ComposableHeadClassifier(
    trunk=TabularNet(width=64, max_epochs=5), head="lda", random_state=0
).fit(X[~later], y[~later])
hindsight = precision(scratch)
print(f"{'rows':>12}{'all fraud':>12}{'the new kind':>14}")
for n_rows, (of_all, of_new) in [*curve.items(), ("from scratch", hindsight)]:
    print(f"{n_rows!s:>12}{of_all:12.3f}{of_new:14.3f}")

# %%
# Whom does it call?
# ------------------
# Before, the new fraud passes as genuine. Afterwards most of what is called by its name is right.
calls = {}
for name, classifier in {"before": model, "after 5 rows": richer}.items():
    said = classifier.predict(X[later])[y[later] == "compromised terminal"]
    calls[name] = [np.mean(said == other) for other in names]
    print(f"{name:>14}", dict(zip(names.tolist(), np.round(calls[name], 2).tolist(), strict=True)))

# %%
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.2), layout="constrained", gridspec_kw={"width_ratios": [1.35, 1]}
)
places = np.arange(len(curve))
values = np.array(list(curve.values()))
left.plot(places, values[:, 0], "o-", color="tab:blue", label="all fraud")
left.plot(places, values[:, 1], "s--", color="tab:red", label="the new kind")
for k, color in enumerate(["tab:blue", "tab:red"]):
    left.axhline(hindsight[k], color=color, linewidth=1, alpha=0.5)
left.annotate(
    "network and heads from scratch, all rows",
    (places[-1], max(hindsight)),
    xytext=(0, 5),
    textcoords="offset points",
    ha="right",
    fontsize=9,
    color="0.35",
)
left.set_xticks(places, [str(n_rows) for n_rows in curve])
left.set_xlabel("labelled rows of the new kind")
left.set_ylabel("average precision on later rows")
left.set_ylim(0, max(values.max(), *hindsight) * 1.15)
left.legend(loc="lower right")
left.set_title("A class is added without training")

shades = ["0.75", "tab:red", "tab:orange", "tab:olive"]
base = np.zeros(2)
for k, name in enumerate(names):
    share = np.array([calls[which][k] for which in calls])
    right.barh(list(calls), share, left=base, color=shades[k], edgecolor="white", label=name)
    base += share
right.set_xlim(0, 1)
right.set_xlabel("share of the new fraud's later rows")
right.set_title("What the new fraud is called")
right.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
right.invert_yaxis()
figure.savefig("new_kind_of_fraud.png", dpi=120)
plt.show()
