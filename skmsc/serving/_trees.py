"""Trees that were read from a file: scikit-learn follows their numbers without looking."""

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

_TREES = (DecisionTreeClassifier, DecisionTreeRegressor)
_BOOSTED = (GradientBoostingClassifier, GradientBoostingRegressor)
_FORESTS = (
    *(ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor),
    *(RandomTreesEmbedding, *_BOOSTED),
)
_HISTOGRAMS = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)


def check_trees(model, walk):
    """Raise unless every tree in a model points into itself and into the columns that there are.

    `walk` is a class whose objects, made with a function `after`, call that with every part.
    """
    found, checked = [], set()

    def see(part):
        if isinstance(part, _TREES) and hasattr(part, "tree_"):
            _check_tree(part)
            checked.add(id(part.tree_))
        elif isinstance(part, _FORESTS) and hasattr(part, "estimators_"):
            _check_forest(part)
        elif isinstance(part, IsolationForest) and hasattr(part, "estimators_"):
            _require(False, "trees of an IsolationForest cannot be checked")
        elif isinstance(part, _HISTOGRAMS) and hasattr(part, "_predictors"):
            binned = part._bin_mapper.is_categorical_
            _require(np.shape(binned) == (part.n_features_in_,), "its bins are of other columns")
            for predictor in (one for several in part._predictors for one in several):
                _check_predictor(predictor, part.n_features_in_)
                checked.add(id(predictor))
        elif type(part).__name__ in ("Tree", "TreePredictor"):
            found.append(part)
        return part

    walk(after=see)(model)
    _require(all(id(part) in checked for part in found), "there is a tree outside of an estimator")


def _check_forest(part):
    """The trees of a forest get rows that only the forest has checked."""
    for tree in np.ravel(part.estimators_):
        _require(
            isinstance(tree, _TREES) and tree.n_features_in_ == part.n_features_in_,
            "a forest's trees are for other columns",
        )
    if isinstance(part, _BOOSTED):
        several = np.shape(part.estimators_)[1:]
        _require(several == (part.n_trees_per_iteration_,), "it boosts other classes")


def _check_tree(part):
    """A decision tree: children come after their parent, features are columns, values fit."""
    tree, n_features = part.tree_, part.n_features_in_
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    own = np.arange(tree.node_count)
    inner = left != -1
    _require(tree.node_count > 0 and tree.n_features == n_features, "its columns are others")
    for child in (left[inner], right[inner]):
        _require(
            bool(((child > own[inner]) & (child < tree.node_count)).all()),
            "children are not among the nodes",
        )
    depth, level = 0, np.zeros(1, dtype=int)
    while (level := level[inner[level]]).size:
        depth, level = depth + 1, np.unique([left[level], right[level]])
    _require(tree.max_depth >= depth, "it is deeper than it says")  # it is asked for a path's room
    columns = feature[inner]
    _require(bool(((columns >= 0) & (columns < n_features)).all()), "a feature is no column")
    _require(len(tree.value) == tree.node_count, "nodes lack values")
    is_classifier = isinstance(part, DecisionTreeClassifier)
    n_classes = np.max(part.n_classes_) if is_classifier else 1
    _require(tree.value.shape[1:] == (part.n_outputs_, n_classes), "values are of other classes")


def _check_predictor(predictor, n_features):
    """A tree of histogram boosting."""
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    own = np.arange(len(nodes))
    _require(len(nodes) > 0, "a tree has no node")
    for side in ("left", "right"):
        child = nodes[side][inner].astype(np.int64)
        _require(bool(((child > own[inner]) & (child < len(nodes))).all()), "children are astray")
    columns = nodes["feature_idx"][inner].astype(np.int64)
    _require(bool(((columns >= 0) & (columns < n_features)).all()), "a feature is no column")
    sets = nodes["bitset_idx"][inner & (nodes["is_categorical"] != 0)].astype(np.int64)
    for bits in (predictor.raw_left_cat_bitsets, predictor.binned_left_cat_bitsets):
        _require(bits.ndim == 2 and bits.shape[1] == 8, "sets of categories have another shape")
        _require(bool((sets < len(bits)).all()), "a set of categories is missing")


def _require(holds, message):
    if not holds:
        raise ValueError(f"The file holds a tree that is not one: {message}.")
