"""
A neural stage for your pipeline
================================

A network is worth a place behind a cheap screen only if it is as easy to use as the screen. Here
`TabularNet` takes a dataframe with missing values through an ordinary pipeline, stops by the loss
on the days that follow, is searched by `GridSearchCV`, and becomes the last stage of a cascade. What
skorch gives a network, its history and callbacks, is still there.
"""

# %%
# The data
# --------
# Simulated card transactions as a dataframe, in time order. One value in twenty of the costly
# features is missing, and the hour is a string.
import numpy as np
import pandas as pd

from skmsc.datasets import make_card_transactions

data = make_card_transactions(30_000, random_state=0)
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
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skmsc.neural import TabularNet

n_train = train.sum()
last_tenth = [(np.arange(int(0.9 * n_train)), np.arange(int(0.9 * n_train), n_train))]


def encoder():
    """Strings as indicator columns; all other columns as they are."""
    return make_column_transformer(
        (OneHotEncoder(drop="if_binary"), ["part_of_day"]), remainder="passthrough"
    )


net = TabularNet(missing="mean", width=128, validation=last_tenth, random_state=0)
model = make_pipeline(encoder(), net).fit(X[train], y[train])
net = model[-1]
print(f"classes {net.classes_}, stopped by {net.termination_condition_!r} after {net.n_iter_} epochs")
print(f"kept: the weights of epoch {net.best_epoch_}; {net.count_multiply_adds():,} multiply-adds a row")

# %%
# A search
# --------
# All of its parameters are in the constructor, so a grid search reaches them.
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

search = GridSearchCV(
    make_pipeline(encoder(), TabularNet(missing="mean", width=64, max_epochs=10, random_state=0)),
    {"tabularnet__dropout": [0.1, 0.4], "tabularnet__class_weight": [None, "balanced"]},
    scoring="neg_log_loss",
    cv=TimeSeriesSplit(3),
).fit(X[train], y[train])
print(f"best by log loss: {search.best_params_}")
