"""
A neural stage for your pipeline
================================

A network is worth a place behind a cheap screen only if it is as easy to use as the screen. Here
`TabularNet` takes a dataframe with missing values through an ordinary pipeline, stops by the loss
on the days that follow, is searched by `GridSearchCV`, and becomes the last stage of a cascade.
What skorch gives a network, its history and callbacks, is still there.
"""

# %%
# The data
# --------
# Simulated card transactions as a dataframe, in time order, with more fraud than in life, so that a
# small example has enough of it. One value in twenty of the costly features is missing, and the
# hour is a string.
import numpy as np
import pandas as pd

from skmsc.datasets import make_card_transactions

data = make_card_transactions(15_000, fraud_rate=0.04, random_state=0)
X = pd.DataFrame(data.data, columns=data.feature_names)
X = X.mask(np.random.default_rng(0).random(X.shape) < 0.05 * X.columns.str.startswith("terminal"))
X["part_of_day"] = np.where(X.pop("during_night") == 1, "night", "day")
y = np.where(data.target == 1, "fraud", "honest")
train = data.day < np.quantile(data.day, 0.7)
print(f"{train.sum():,} transactions to train on, {(~train).sum():,} to test on")

# %%
# The net, in a pipeline
# ----------------------
# Columns of strings are encoded as for any classifier; the net standardises its input itself and
# replaces missing values. A tenth of the rows, the last ones, decides when to stop: fraud changes
# with time, and rows drawn by chance would flatter.
from sklearn.compose import make_column_transformer
from sklearn.metrics import average_precision_score
from sklearn.model_selection import TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skmsc.neural import TabularNet

last_tenth = TimeSeriesSplit(9)  # its last split


def encoder():
    """Strings as indicator columns; all other columns as they are."""
    return make_column_transformer(
        (OneHotEncoder(drop="if_binary"), ["part_of_day"]), remainder="passthrough"
    )


net = TabularNet(
    missing="mean", width=64, lr=0.008, batch_size=256, validation=last_tenth, random_state=0
)
model = make_pipeline(encoder(), net).fit(X[train], y[train])
net = model[-1]
print(
    f"classes {net.classes_}, stopped by {net.termination_condition_!r} after {net.n_iter_} epochs"
)
print(
    f"kept: the weights of epoch {net.best_epoch_}; "
    f"{net.count_multiply_adds():,} multiply-adds a row"
)

# %%
# A search
# --------
# All of its parameters are in the constructor, so a grid search reaches them.
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

short = clone(net).set_params(max_epochs=6)
search = GridSearchCV(
    make_pipeline(encoder(), short),
    {"tabularnet__dropout": [0.1, 0.4]},
    scoring="neg_log_loss",
    cv=TimeSeriesSplit(2),
    refit=False,
).fit(X[train], y[train])
print(f"best by log loss: {search.best_params_}")

# %%
# Behind a screen
# ---------------
# As the last stage of a cascade it sees 15 % of the rows at most. The encoder comes first, for both
# stages. The net is the one above, since rows and seed are the same.
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from skmsc import FeedbackCascadeClassifier, PassBudget, route

screen = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=1000))
cascade = make_pipeline(
    encoder(),
    FeedbackCascadeClassifier(
        [("screen", screen), ("net", clone(net))],
        thresholds=PassBudget(0.15),
        pos_label="fraud",
        cv=TimeSeriesSplit(2),
        random_state=0,
    ),
).fit(X[train], y[train])
passed = (route(cascade, X[~train]).stage == 1).mean()
print(f"share of the test rows that the net sees in the cascade: {passed:.3f}")

encoded = cascade[0].transform(X[~train])
score = {
    "screen alone": cascade[-1].stages_[0].predict_proba(encoded)[:, 0],
    "net alone": model.predict_proba(X[~train])[:, 0],
    "cascade": cascade.predict_proba(X[~train])[:, 0],
}
for name, fraud in score.items():
    ap = average_precision_score(y[~train] == "fraud", fraud)
    print(f"{name:14}average precision {ap:.3f}")

# %%
# What is left of skorch
# ----------------------
# `net_` is a skorch net: its history tells the losses of each epoch.
import matplotlib.pyplot as plt
from sklearn.metrics import PrecisionRecallDisplay

history = net.net_.history
epochs = np.arange(1, len(history) + 1)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(epochs, history[:, "train_loss"], color="tab:blue", label="training, with dropout")
left.plot(epochs, history[:, "valid_loss"], color="tab:orange", label="the tenth that follows")
left.axvline(net.best_epoch_, color="0.6", linestyle=":", label="weights that were kept")
left.set(xlabel="epoch", ylabel="log loss", title="When training stopped")
left.xaxis.get_major_locator().set_params(integer=True)
left.legend()
for name, fraud in score.items():
    PrecisionRecallDisplay.from_predictions(
        y[~train], fraud, pos_label="fraud", name=name, ax=right
    )
right.set(title="Days that no model saw", aspect="auto", xlabel="recall", ylabel="precision")
right.legend(loc="lower left")
figure.savefig("neural_stage.png", dpi=120)
plt.show()
