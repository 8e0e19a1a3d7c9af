"""What it costs to run a stage on a row: costs that are given, of what it fetches, or counted."""

from collections.abc import Mapping

import numpy as np
from sklearn.pipeline import Pipeline

from skmsc._checks import as_numbers
from skmsc.stages import (
    LINEAR,
    as_net_stage,
    clone_stage,
    costly_head,
    is_skorch_net,
    thawed,
)

__all__ = []  # for the package's own use


def check_stage_costs(stage_costs, names, dropped=()):
    """Costs as an array of shape (n_stages,), or None when None is given.

    `stage_costs` is a sequence in working order or a mapping from names, which may hold the names
    of `dropped` stages too.
    """
    if stage_costs is None:
        return None
    valid = f"one finite number >= 0 for each of the stages {list(names)}"
    given = stage_costs
    if isinstance(given, Mapping):
        if not set(names) <= set(given) <= {*names, *dropped}:
            raise ValueError(f"stage_costs must hold {valid}; got {given!r}.")
        stage_costs = [given[name] for name in names]
    costs = as_numbers(stage_costs, f"stage_costs must be {valid}; got {given!r}.")
    if costs.shape != (len(names),) or not np.isfinite(costs).all() or (costs < 0).any():
        raise ValueError(f"stage_costs must be {valid}; got {given!r}.")
    return costs


def add_fetch_costs(stage_costs, stages):
    """Costs with those of fetches on top, by `stages`, the first ones; None stays None."""
    if stage_costs is None:
        return None
    costs = stage_costs.copy()
    for k, stage in enumerate(stages):
        head = costly_head(thawed(stage))
        costs[k] += 0.0 if head is None else head.cost or 0.0
    return costs


_COUNTS = {
    **dict.fromkeys(LINEAR, lambda part: np.size(part.coef_)),
    **dict.fromkeys(
        ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"),
        lambda part: part.n_features_in_,
    ),
    **dict.fromkeys(("PCA", "TruncatedSVD"), lambda part: part.components_.size),
    "MLPClassifier": lambda part: sum(coef.size for coef in part.coefs_),
    "LinearDiscriminantAnalysis": lambda part: np.size(part.coef_),
    "GaussianNB": lambda part: 2 * part.theta_.size,
    **dict.fromkeys(
        ("SVC", "NuSVC"),
        lambda part: part.support_vectors_.size + part.dual_coef_.size,
    ),
    "KNeighborsClassifier": lambda part: part.n_samples_fit_ * part.n_features_in_,
    "DecisionTreeClassifier": lambda part: _mean_path(part),
    **dict.fromkeys(
        ("RandomForestClassifier", "ExtraTreesClassifier", "GradientBoostingClassifier"),
        lambda part: sum(_mean_path(tree) for tree in np.ravel(part.estimators_)),
    ),
}


def _mean_path(tree):
    """Comparisons that a decision tree makes for a training row, in the mean."""
    nodes = tree.tree_
    inner = nodes.children_left >= 0
    return nodes.weighted_n_node_samples[inner].sum() / nodes.weighted_n_node_samples[0]


def _leaves(stage):
    """Parts of a stage that do work: the steps of pipelines, what is frozen, else the stage."""
    stage = thawed(stage)
    if isinstance(stage, Pipeline):
        for _, step in stage.steps:
            yield from _leaves(step)
    elif stage is not None and not isinstance(stage, str):
        yield stage


def _counter(leaf):
    """Function from a leaf, once it is fitted, to its multiply-adds or None; None: no function."""
    if hasattr(leaf, "count_multiply_adds"):
        return lambda net: net.count_multiply_adds()
    if is_skorch_net(leaf):  # a frozen one: others are wrapped
        return lambda net: as_net_stage(net).count_multiply_adds()
    if not type(leaf).__module__.startswith("sklearn."):
        return None
    return _COUNTS.get(type(leaf).__name__)


def count_multiply_adds(estimator):
    """Multiply-adds that a fitted stage spends on one row; None where they cannot be counted.

    Counted are scalers, linear projections, linear classifiers, `GaussianNB`, `MLPClassifier`,
    nets, and pipelines of these. For others it is the operations that a row is compared by:
    the comparisons on its path through scikit-learn's trees, forests and
    `GradientBoostingClassifier` (of a mean training row), the products of its distances to all
    training rows (`KNeighborsClassifier`; an index computes fewer) or of its kernels with the
    support vectors (`SVC`). One operation of theirs takes longer than one of a matrix product.
    """
    total = 0
    for leaf in _leaves(estimator):
        counter = _counter(leaf)
        count = None if counter is None else counter(leaf)
        if count is None:
            return None
        total += count
    return round(total)


def count_costs(stages):
    """Multiply-adds of each fitted stage, or None when some stage's cannot be counted."""
    counts = [count_multiply_adds(stage) for stage in stages]
    return None if None in counts else np.array(counts, dtype=np.float64)


def check_countable(pairs, policy):
    """Raise when the cost of a stage, which the policy needs, will not be known after its fit."""
    for name, stage in pairs:
        if any(_counter(leaf) is None for leaf in _leaves(clone_stage(stage))):
            raise ValueError(
                f"{policy!r} needs the cost of every stage, and the multiply-adds of stage "
                f"{name!r} cannot be counted: set stage_costs (measure_costs(X) gives seconds per "
                "row)."
            )
