"""Trees as ONNX nodes, with the leaf of the estimator for every row.

`TreeEnsemble` of ai.onnx.ml 5 compares and sums in float64, which the older `TreeEnsembleRegressor`
does not: its sums come out in float32. Converters write the older one, hence none is used.
"""

import json

import numpy as np

from skmsc.serving._graph import ML

_LEQ, _LT = 0, 1  # which comparison sends a row to the left


class Trees:
    """Trees that are evaluated by one node, each with a number in every leaf.

    Attributes
    ----------
    n_targets : int
        Number of sums; a tree adds to one of them.
    dtype : type
        Of features, thresholds, numbers and sums.
    """

    def __init__(self, n_targets, dtype=np.float64):
        self.n_targets, self.dtype = n_targets, dtype
        self._trees, self._n_nodes, self._n_leaves = [], 0, 0

    def add(self, left, right, feature, threshold, nan_left, value, target=0, mode=_LEQ):
        """Add a tree.

        Parameters
        ----------
        left, right : ndarrays of shape (n_nodes,)
            Children of each node, negative in leaves. Node 0 is the root.
        feature, threshold, nan_left, value : ndarrays of shape (n_nodes,)
            What inner nodes compare, whether nan goes to the left; the numbers of leaves.
        target : int
            Sum that the leaves add to.
        mode : int
            Whether rows <= or < the threshold go to the left.
        """
        is_leaf = left < 0
        inner, leaf = np.flatnonzero(~is_leaf), np.flatnonzero(is_leaf)
        place = np.empty(len(left), dtype=np.int64)
        n_inner = max(len(inner), 1)
        place[inner] = np.arange(len(inner)) + self._n_nodes
        place[leaf] = np.arange(len(leaf)) + self._n_leaves
        if len(inner):
            children = left[inner], right[inner]
            compared = feature[inner], threshold[inner], nan_left[inner]
        else:  # a leaf alone: a node whose two branches both lead to it
            children = np.array([0]), np.array([0])
            compared = np.array([0]), np.array([0.0]), np.array([0])
        self._trees.append(
            {
                "tree_roots": [self._n_nodes],
                "nodes_featureids": compared[0],
                "nodes_splits": compared[1],
                "nodes_missing_value_tracks_true": compared[2],
                "nodes_modes": np.full(n_inner, mode),
                "nodes_truenodeids": place[children[0]],
                "nodes_falsenodeids": place[children[1]],
                "nodes_trueleafs": is_leaf[children[0]],
                "nodes_falseleafs": is_leaf[children[1]],
                "leaf_weights": value[leaf],
                "leaf_targetids": np.full(len(leaf), target),
            }
        )
        self._n_nodes += n_inner
        self._n_leaves += len(leaf)

    def add_constant(self, value, target):
        """Add a number to a sum."""
        zero = np.array([0])
        self.add(zero - 1, zero - 1, zero, zero, zero, np.array([value], dtype=float), target)

    def write(self, g, x):
        """Sums of shape (n_samples, n_targets) for a tensor of features."""
        parts = {
            key: np.concatenate([np.asarray(tree[key]) for tree in self._trees])
            for key in self._trees[0]
        }
        arrays = {
            key: g.onnx.numpy_helper.from_array(parts.pop(key).astype(dtype))
            for key, dtype in [
                ("nodes_splits", self.dtype),
                ("leaf_weights", self.dtype),
                ("nodes_modes", np.uint8),
            ]
        }
        lists = {key: value.astype(np.int64).tolist() for key, value in parts.items()}
        return g.add(
            "TreeEnsemble",
            x,
            domain=ML,
            n_targets=self.n_targets,
            aggregate_function=1,
            post_transform=0,
            **arrays,
            **lists,
        )


# --- trees and forests of scikit-learn ----------------------------------------------------------
def _sklearn_tree(tree):
    """Arguments of `Trees.add` but the numbers of the leaves."""
    nan_left = tree.__getstate__()["nodes"]["missing_go_to_left"]
    return tree.children_left, tree.children_right, tree.feature, tree.threshold, nan_left


def in_float32(g, table, owner):
    """Features rounded to float32, in which some trees compare, as float64."""
    return g.cast(g.cast(g.matrix(table, owner), "float32"), "float64")


def forest_proba(g, trees, table, owner):
    """Mean probabilities (n_samples, n_classes) of scikit-learn's decision trees.

    Of two classes one sum is enough. Of more, each tree tells its leaf, and the probabilities of
    leaves are looked up: a leaf adds to one sum only, and a tree for each class took longer.
    """
    x = in_float32(g, table, owner)
    n_classes = trees[0].value.shape[2]
    if n_classes == 2:
        ensemble = Trees(1)
        for tree in trees:
            ensemble.add(*_sklearn_tree(tree), tree.value[:, 0, 1])
        total = ensemble.write(g, x)
        return g.with_rest(_over(g, total, len(trees)))
    ensemble, leaves, n_leaves = Trees(len(trees)), [], 0
    for t, tree in enumerate(trees):
        is_leaf = tree.children_left < 0
        number = np.cumsum(is_leaf) - 1 + n_leaves
        ensemble.add(*_sklearn_tree(tree), number.astype(np.float64), target=t)
        leaves.append(tree.value[is_leaf, 0])
        n_leaves += len(leaves[-1])
    number = g.cast(ensemble.write(g, x), "int64")
    proba = g.add(
        "Gather", np.concatenate(leaves), number, axis=0
    )  # (n_samples, n_trees, n_classes)
    total = g.add("ReduceSum", proba, np.array([1]), keepdims=0)
    return _over(g, total, len(trees))


def _over(g, total, n):
    return total if n == 1 else g.add("Div", total, np.array(float(n)))


def gradient_boosting(g, model, table):
    """Raw scores (n_samples, 1 or n_classes) of a `GradientBoostingClassifier`."""
    if not isinstance(model.init_, str) and type(model.init_).__name__ != "DummyClassifier":
        raise g.refusal(model, f"boosting starts from {type(model.init_).__name__} (init)")
    base = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))[0]
    ensemble = Trees(model.estimators_.shape[1])
    for row in model.estimators_:
        for k, tree in enumerate(row):
            value = model.learning_rate * tree.tree_.value[:, 0, 0]
            ensemble.add(*_sklearn_tree(tree.tree_), value, target=k)
    for k, value in enumerate(base):
        ensemble.add_constant(value, k)
    return ensemble.write(g, in_float32(g, table, model))


# --- scikit-learn's histogram gradient boosting -------------------------------------------------
def hist_gradient_boosting(g, model, x, n_categories):
    """Raw scores (n_samples, 1 or n_classes) of a `HistGradientBoostingClassifier`.

    Parameters
    ----------
    g : Graph
        Graph.
    model : HistGradientBoostingClassifier
        Fitted.
    x : str
        Its preprocessed features: codes of categories, nan where missing or unknown; then numbers.
    n_categories : list of int
        For each of the first features, which are categories.
    """
    ensemble, sides = Trees(model.n_trees_per_iteration_), _Sides(model.n_features_in_)
    for predictors in model._predictors:
        for k, predictor in enumerate(predictors):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
            feature, threshold = nodes["feature_idx"].astype(int), nodes["num_threshold"].copy()
            for at in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~is_leaf):
                left = _members(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][at]])
                right = np.ones(n_categories[feature[at]] + 1)
                right[left] = 0.0
                right[-1] = np.nan
                feature[at], threshold[at] = sides.add(feature[at], right), 0.5
            left, right = (
                np.where(is_leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right")
            )
            ensemble.add(
                left, right, feature, threshold, nodes["missing_go_to_left"], nodes["value"], k
            )
    for k, value in enumerate(np.ravel(model._baseline_prediction)):
        ensemble.add_constant(value, k)

    def to_code(column, n):
        return g.add("Where", g.add("IsNaN", column), np.array(float(n)), column)

    return ensemble.write(g, sides.write(g, x, to_code))


class _Sides:
    """Splits by categories: for each one a further feature, 0 for the left side, 1 for the right.

    Operators that ask whether a category is in a set do so for codes that are small whole numbers.
    """

    def __init__(self, n_features):
        self._n_features, self._splits = n_features, {}

    def add(self, feature, sides):
        """Number of the further feature; sides by code, the last one of other codes."""
        key = (int(feature), sides.tobytes())
        if key not in self._splits:
            self._splits[key] = (self._n_features + len(self._splits), sides)
        return self._splits[key][0]

    def write(self, g, x, to_code):
        """Features beside those of all splits; `to_code(column, n)` gives codes, n if none."""
        number, parts = {}, []
        for feature in dict.fromkeys(f for f, _ in self._splits):
            splits = [split for (f, _), split in self._splits.items() if f == feature]
            n = max(len(sides) for _, sides in splits) - 1
            table = np.array([np.append(s[:-1], np.full(n + 2 - len(s), s[-1])) for _, s in splits])
            code = g.cast(to_code(g.column(x, feature), n), "int64")
            rows = g.add("Gather", table.T, code, axis=0)  # (n_samples, 1, n_splits)
            parts.append(g.add("Squeeze", rows, np.array([1])))
            number |= {at: len(number) + i for i, (at, _) in enumerate(splits)}
        if not parts:
            return x
        order = [number[at] for at, _ in self._splits.values()]
        further = g.concat(parts)
        if order != sorted(order):
            further = g.add("Gather", further, np.array(order), axis=1)
        return g.concat([x, further])


def _members(words):
    """The numbers in a set of bits, 32 to a word."""
    bits = (np.asarray(words, dtype=np.uint32)[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    return np.flatnonzero(bits.ravel())


# --- LightGBM -----------------------------------------------------------------------------------
_TINY = float(np.float32(1e-35))  # up to which LightGBM takes a number for 0


def lightgbm(g, model, table):
    """Raw scores (n_samples, 1 or n_classes) and the objective of an `LGBMClassifier`.

    Thresholds and leaves are read from the text of the model, which has all their digits.
    """
    head, *texts = model.booster_.model_to_string().split("\nTree=")
    header = dict(line.partition("=")[::2] for line in head.split("\n"))
    n_sums = int(header["num_tree_per_iteration"])
    ensemble, sides = Trees(n_sums), _Sides(model.n_features_in_)
    share = n_sums / len(texts) if "average_output" in header else 1.0
    zero_missing, other = set(), set()
    for t, text in enumerate(texts):
        tree = dict(line.partition("=")[::2] for line in text.split("\n"))
        if tree.get("is_linear", "0") != "0":
            raise g.refusal(model, "linear_tree")
        value = _numbers(tree, "leaf_value", float) * share
        n_inner = int(tree["num_leaves"]) - 1
        feature, threshold = (
            _numbers(tree, "split_feature", int),
            _numbers(tree, "threshold", float),
        )
        kind = _numbers(tree, "decision_type", int)
        categorical, nan_left, missing = kind & 1, (kind >> 1) & 1, (kind >> 2) & 3
        nan_left = np.where(missing == 0, 0.0 <= threshold, nan_left)  # nan is 0 then
        near = (np.abs(threshold) <= _TINY) & (categorical == 0)  # all such numbers go one way
        below = np.nextafter(-_TINY, -np.inf)
        threshold = np.where(near, np.where(threshold < 0, below, _TINY), threshold)
        for at in np.flatnonzero(categorical):
            bounds = _numbers(tree, "cat_boundaries", int)[int(threshold[at]) :][:2]
            left = _members(_numbers(tree, "cat_threshold", np.int64)[slice(*bounds)])
            right = np.ones(left.max(initial=0) + 2)
            right[left] = 0.0
            feature[at], threshold[at], nan_left[at] = sides.add(feature[at], right), 0.5, 0
        zero_missing |= set(feature[(missing == 1) & (categorical == 0)].tolist())
        other |= set(feature[(missing != 1) & (categorical == 0)].tolist())
        children = [_numbers(tree, f"{side}_child", int) for side in ("left", "right")]
        # Child -1 is leaf 0, -2 leaf 1, ...: here leaves are nodes after the inner ones.
        leaf = np.full(len(value), -1)
        left, right = (np.append(np.where(c < 0, n_inner + ~c, c), leaf) for c in children)
        pad = np.zeros(len(value))
        ensemble.add(
            left,
            right,
            np.append(feature, pad).astype(int),
            np.append(threshold, pad),
            np.append(nan_left, pad),
            np.append(np.zeros(n_inner), value),
            target=t % n_sums,
        )
    if zero_missing & other:
        raise g.refusal(model, "trees that do not agree on whether 0 is missing")
    x = g.matrix(table, model)
    if zero_missing:
        is_in = np.zeros(model.n_features_in_, dtype=bool)
        is_in[list(zero_missing)] = True
        zero = g.add("LessOrEqual", g.add("Abs", x), np.where(is_in, _TINY, -1.0))
        x = g.add("Where", zero, np.array(np.nan), x)

    def to_code(column, n):
        top = np.array(float(n))
        known = g.add("And", g.add("Greater", column, np.array(-1.0)), g.add("Less", column, top))
        return g.add("Where", known, column, top)  # the cast to integers cuts off what is behind

    return ensemble.write(g, sides.write(g, x, to_code)), header["objective"].split()


def _numbers(tree, key, dtype):
    return np.array(tree.get(key, "").split(), dtype=dtype)


# --- XGBoost ------------------------------------------------------------------------------------
def xgboost(g, model, table):
    """Raw scores (n_samples, 1 or n_classes) in float32 and the objective of an `XGBClassifier`.

    XGBoost compares and sums in float32, and so does the graph, in the same order as long as
    onnxruntime has one thread. Still a probability may be off by a step of float32, 6e-8, as
    exponentials and logarithms of libraries are: near 1 that is much of its log-odds.
    """
    if not np.isnan(model.missing):
        raise g.refusal(model, f"missing={model.missing!r} other than nan")
    learner = json.loads(bytes(model.get_booster().save_raw("json")))["learner"]
    params, booster = learner["learner_model_param"], learner["gradient_booster"]
    objective = learner["objective"]["name"]
    if booster["name"] != "gbtree":
        raise g.refusal(model, f"booster {booster['name']!r}; only 'gbtree' is")
    if learner.get("feature_types") and "c" in learner["feature_types"]:
        raise g.refusal(model, "categorical features; encode them by OrdinalEncoder")
    n_sums = max(int(params["num_class"]), 1)
    base = np.array(json.loads("[" + params["base_score"].strip("[]") + "]"), dtype=np.float32)
    if objective.startswith("binary:logi"):
        base = -np.log(1 / base - 1)  # in float32, as there
    forest = booster["model"]
    trees, info = forest["trees"], forest["tree_info"]
    best = getattr(model, "best_iteration", None) if model.early_stopping_rounds else None
    if best is not None:
        n_used = forest["iteration_indptr"][best + 1]
        trees, info = trees[:n_used], info[:n_used]
    ensemble = Trees(n_sums, np.float32)
    for k, value in enumerate(np.broadcast_to(base, n_sums)):
        ensemble.add_constant(value, k)
    for tree, k in zip(trees, info, strict=True):
        if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
            raise g.refusal(model, "multi_strategy='multi_output_tree'")
        if np.any(tree["split_type"]):
            raise g.refusal(model, "categorical splits; encode categories by OneHotEncoder")
        condition = np.array(tree["split_conditions"], dtype=np.float32)
        left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
        ensemble.add(
            left,
            right,
            np.array(tree["split_indices"]),
            condition,
            np.array(tree["default_left"]),
            condition,  # of a leaf: its number
            target=k,
            mode=_LT,
        )
    return ensemble.write(g, g.cast(g.matrix(table, model), "float32")), objective


# --- lookups ------------------------------------------------------------------------------------
def segments(g, x, starts):
    """Number of the segment that each value is in, int64 (n_samples, n_columns).

    Parameters
    ----------
    g : Graph
        Graph.
    x : str
        A matrix.
    starts : list of n_columns ndarrays
        Where the segments of each column start, ascending and without repeats; what is below the
        first is in it, too. Segments are numbered on from column to column.
    """
    lookup, n_before = Trees(len(starts)), 0
    for column, start in enumerate(starts):
        left, right, threshold, value = [], [], [], []

        def grow(low, high, start=start, nodes=(left, right, threshold, value)):
            at = len(nodes[0])
            for part, content in zip(nodes, (-1, -1, 0.0, low + n_before), strict=True):  # noqa: B023
                part.append(content)
            if low < high:
                middle = (low + high + 1) // 2
                nodes[2][at] = start[middle]
                nodes[0][at] = grow(low, middle - 1)
                nodes[1][at] = grow(middle, high)
            return at

        grow(0, len(start) - 1)
        n_nodes = len(left)
        lookup.add(
            np.array(left),
            np.array(right),
            np.full(n_nodes, column),
            np.array(threshold),
            np.zeros(n_nodes),
            np.array(value, dtype=np.float64),
            target=column,
            mode=_LT,
        )
        n_before += len(start)
    return g.cast(lookup.write(g, x), "int64")


def interpolated(g, x, knots):
    """``numpy.interp`` of each column, the middle of the jump where knots repeat; nan stays.

    Parameters
    ----------
    g : Graph
        Graph.
    x : str
        A matrix.
    knots : list of (xp, fp)
        For each column, ascending.

    Returns
    -------
    y : str
        Of the shape of the matrix.
    """
    starts, lines = [], []
    for xp, fp in knots:
        start, first = np.unique(xp, return_index=True)
        last = np.append(first[1:], len(xp)) - 1
        slope = np.append((fp[first[1:]] - fp[last[:-1]]) / np.diff(start), 0.0)
        line = np.column_stack([start, fp[last], slope])
        at = np.flatnonzero(first < last)
        jump = np.column_stack([start[at], (fp[first[at]] + fp[last[at]]) / 2, np.zeros(at.size)])
        # A jump is a segment of one number; the line beyond it starts at the next.
        behind = start.copy()
        behind[at] = np.nextafter(start[at], np.inf)
        order = np.argsort(np.concatenate([behind, start[at]]), kind="stable")
        starts.append(np.concatenate([behind, start[at]])[order])
        lines.append(np.concatenate([line, jump])[order])
    lowest, highest = (np.array([xp[i] for xp, _ in knots], dtype=float) for i in (0, -1))
    inner = g.add("Max", g.add("Min", x, highest), lowest)
    number = segments(g, inner, starts)
    x0, y0, slope = np.concatenate(lines).T
    step = g.add("Sub", inner, g.add("Gather", x0.copy(), number))
    rise = g.add("Mul", step, g.add("Gather", slope.copy(), number))
    y = g.add("Add", rise, g.add("Gather", y0.copy(), number))
    return g.add("Where", g.add("IsNaN", x), x, y)
