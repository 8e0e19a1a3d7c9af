"""
From the notebook to a service
==============================

A transaction waits for its answer while the customer stands at the till. The process that answers
should carry neither training code nor torch, and should not take longer than it must. This page
exports a fitted cascade into one file, loads it with NumPy and onnxruntime only, and writes the
function that a service calls.
"""

# %%
# In the notebook
# ---------------
# A logistic regression dismisses most transactions, a net looks at the rest: one in ten.
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skmsc
from skmsc.datasets import make_card_transactions
from skmsc.neural import TabularNet

cards = make_card_transactions(8_000, fraud_rate=0.05, random_state=0)
X = pd.DataFrame(cards.data, columns=cards.feature_names)
train = cards.day < 60

cascade = skmsc.FeedbackCascadeClassifier(
    [
        ("screen", make_pipeline(StandardScaler(), LogisticRegression())),
        ("net", TabularNet(batch_size=256, max_epochs=5)),
    ],
    thresholds=skmsc.PassBudget(0.1),
    cv=2,
    random_state=0,
)
cascade.fit(X[train], cards.target[train])

# %%
# The export is checked on the rows that it is given: the graphs must answer them as the cascade
# does, from the same stage. The digest lets the service refuse any other file.
import tempfile
from pathlib import Path

path = Path(tempfile.mkdtemp()) / "cards.skmsc"
digest = skmsc.serving.export(cascade, path, X[~train][:1000])
print(f"{path.stat().st_size / 1000:.0f} kB, sha256 {digest[:12]}...")

# %%
# In the service
# --------------
# All of it. A row may come as a mapping, as it arrives from JSON; bad input raises ValueError or
# TypeError with a message for the caller.
from skmsc.serving import load

model = load(path, sha256=digest)


def score(transaction):
    """Answer one transaction, a mapping of column names to numbers."""
    routing = model.route(transaction)
    return {
        "fraud_probability": float(routing.proba[0, 1]),
        "stage": model.stage_names[routing.stage[0]],
    }


later = X[~train]
print(score(later.iloc[0].to_dict()))
try:
    score({"amount": 12.0})
except ValueError as error:
    print(f"refused: {error}")

# %%
# The same answers
# ----------------
ours, theirs = model.route(later), cascade.route(later)
print(f"from the same stage: {(ours.stage == theirs.stage).mean():.2%} of {len(later):,} rows")
print(f"largest difference of probabilities: {np.abs(ours.proba - theirs.proba).max():.1e}")

# %%
# How long does one take?
# -----------------------
# One transaction at a time, those that the screen answers and those that reach the net.
import time

import matplotlib.pyplot as plt

rows = later.to_numpy()[:300]
late = theirs.stage[:300] == 1


def microseconds(predict, rows):
    """Time of each call on one row."""
    taken = []
    for row in rows:
        start = time.perf_counter()
        predict(row[None])
        taken.append(time.perf_counter() - start)
    return np.array(taken) * 1e6


import warnings

with warnings.catch_warnings():
    # The cascade was fitted on a dataframe and is timed on arrays, which is quicker.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    times = {
        "cascade": microseconds(cascade.predict_proba, rows),
        "exported": microseconds(model.predict_proba, rows),
    }

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
names = [f"{name}, {stage}" for stage in ("screen", "net") for name in times]
parts = [times[name][late == reached] for reached in (False, True) for name in times]
ax.boxplot(
    parts,
    orientation="horizontal",
    tick_labels=names,
    showfliers=False,
    medianprops={"color": "black"},
)
ax.invert_yaxis()
ax.set(
    xscale="log",
    xlabel="microseconds for one transaction",
    title="Who answers: the classifier or its export, from which stage",
)
for name, taken in times.items():
    print(f"{name}: median {np.median(taken):.0f} us")
plt.show()
