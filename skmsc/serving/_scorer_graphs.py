"""Fitted stages as ONNX graphs that give the scores of the stage.

What is common is written here node by node, in float64: converters give probabilities in float32,
whose log-odds are off near 0 and 1, and round the thresholds of trees. skl2onnx writes the rest.
"""

import numpy as np

from skmsc.serving._converted import converted
from skmsc.serving._graph import Block, Graph, chain, optional, width
from skmsc.serving._inputs import SCORES
from skmsc.serving._net_graphs import net_graph
from skmsc.serving._transformer_graphs import codes, transform
from skmsc.serving._tree_graphs import (
    forest_proba,
    gradient_boosting,
    hist_gradient_boosting,
    interpolated,
    lightgbm,
    xgboost,
)
from skmsc.stages import is_skorch_net

__all__ = ["chain", "optional", "scorer_graph", "screen_graph"]

_LEAST = 1e-12  # as `skmsc.screens` holds probabilities back


def scorer_graph(scorer, inputs):
    """Graph of a fitted stage.

    Parameters
    ----------
    scorer : StageScorer
        The fitted stage, without `CostlyFeatures` at its head.
    inputs : Inputs
        What the graph takes of each row.

    Returns
    -------
    model : onnx.ModelProto
        Its output "scores" is ``scorer(X)``, float64 of shape (n_samples, n_classes). Categories
        that an encoder with ``handle_unknown="error"`` never saw are an error when the graph runs.

    Raises
    ------
    NotExportable
        When a part of the stage cannot be written; the message names stage and part.
    ValueError
        When the stage was fitted on another number of columns than those of `inputs`.
    """
    expected = getattr(scorer.estimator, "n_features_in_", inputs.n_features)
    if expected != inputs.n_features:
        raise ValueError(
            f"Stage {scorer.name!r} was fitted on {expected} columns; inputs have "
            f"{inputs.n_features}."
        )
    g = Graph(inputs, scorer.name)
    return g.model(inputs, SCORES, _scores(g, scorer, g.table), scorer.n_classes)


def screen_graph(model, inputs):
    """Graph of the first stage of a fitted `ComposableHeadClassifier`.

    Parameters
    ----------
    model : ComposableHeadClassifier
        With a first stage; its costly features are not in the graph, which takes what they give.
    inputs : Inputs
        What the graph takes of each row.

    Returns
    -------
    model : onnx.ModelProto
        Its output "scores" is what the first stage gives to the route; with ``proba="sigmoid"``
        the log-odds of it.

    Raises
    ------
    NotExportable
        As in `scorer_graph`.
    """
    g, screen, labels = Graph(inputs, "first_stage"), model._screen, model._set.labels.tolist()
    known = [label in screen.scorers for label in labels]
    never = -1e3 if model.proba == "sigmoid" else -np.inf  # finite where it is a score
    columns = []
    for label in labels:
        if label not in screen.scorers:
            columns.append(g.per_row([never if any(known) else 0.0]))
            continue
        proba = g.column(_scores(g, screen.scorers[label], g.table), 1)
        proba = g.add("Clip", proba, np.array(_LEAST), np.array(1 - _LEAST))
        rest = g.add("Sub", np.array(1.0), proba)
        columns.append(g.add("Sub", g.add("Log", proba), g.add("Log", rest)))
    if model.proba == "open":
        by_place = dict(zip(model._columns.tolist(), columns, strict=True))
        columns = [by_place.get(c) or g.per_row([0.0]) for c in range(len(model.classes_))]
    odds = g.concat(columns)
    scores = odds if model.proba == "sigmoid" else g.softmax(odds)
    return g.model(inputs, SCORES, scores, len(model.classes_))


# --- scores -------------------------------------------------------------------------------------
def _scores(g, scorer, table):
    """What a `StageScorer` gives, of shape (n_samples, n_classes)."""
    n, columns = scorer.n_classes, scorer.columns
    n_known = n if columns is None else len(columns)
    if scorer.has_proba:
        scores = _proba(g, scorer.estimator, table)
    else:
        scores = _decision(g, scorer.estimator, table)
        if n_known == 2:
            scores = g.add("Mul", scores, np.array([-1.0, 1.0]))
    if columns is not None:
        place = np.eye(n)[columns]
        lowest = None if scorer.has_proba else g.add("ReduceMin", scores, np.array([1]), keepdims=1)
        scores = g.add("MatMul", scores, place)
        if lowest is not None:
            scores = g.add("Add", scores, g.add("Mul", lowest, 1.0 - place.sum(axis=0)))
    return scores if scorer.decision_map is None else _mapped(g, scorer.decision_map, scores, n)


def _mapped(g, calibration, scores, n_classes):
    """What a `Calibration` makes of scores (n_samples, n_classes)."""
    maps = calibration.maps
    if len(maps) == 1:
        own, rest = g.column(scores, 1), None if calibration.from_decisions else g.column(scores, 0)
    else:
        own, rest = scores, None
        if not calibration.from_decisions:
            rest = g.add("Sub", np.array(1.0), scores)
    if rest is not None:
        own = g.add("Log", g.add("Div", own, rest))
    if not all(type(f) is type(maps[0]) for f in maps):
        raise g.refusal(calibration, "maps of different kinds")
    if hasattr(maps[0], "slope"):
        slope, intercept, limit = np.array([[f.slope, f.intercept, f.limit] for f in maps]).T.copy()
        if np.isfinite(limit).any():  # as `skmsc._maps.held_back`
            inner = g.add("Max", g.add("Min", own, limit), -limit)
            all_of_it = g.add("Clip", own, np.array(-1e3), np.array(1e3))
            beyond = g.add("Mul", g.add("Sub", all_of_it, inner), np.array(1e-6))
            own = g.add("Add", inner, beyond)
        if len(maps) == 1:
            return g.two_classes(own, slope[0], intercept[0])
        proba = g.expit(g.add("Add", g.add("Mul", own, slope), intercept))
    else:
        proba = interpolated(g, own, [(f.score, f.proba) for f in maps])
    return g.with_rest(proba) if len(maps) == 1 else g.normalised(proba, n_classes)


def _proba(g, part, table):
    """Probabilities (n_samples, n_known_classes) of a fitted classifier."""
    return _write(g, part, table, _PROBA)


def _decision(g, part, table):
    """Decision values (n_samples, n_known_classes), one column of two classes."""
    return _write(g, part, table, _DECISION)


def _write(g, part, table, writers):
    """Nodes of a classifier or of what wraps one."""
    name = type(part).__name__
    if name == "Pipeline":
        for _, step in part.steps[:-1]:
            table = transform(g, step, table)
        return _write(g, part.steps[-1][1], table, writers)
    if name in _TRANSPARENT:
        return _write(g, getattr(part, _TRANSPARENT[name]), table, writers)
    scores = _written(g, part, table, writers)
    if not g.makes_infinity or name in _TAKE_INFINITY:
        return scores
    infinite = g.add("IsInf", g.matrix(table, part))  # which scikit-learn refuses: nan is, too
    refused = g.add("Where", infinite, np.array(np.nan), np.array(0.0))
    return g.add("Add", scores, g.add("ReduceSum", refused, np.array([1]), keepdims=1))


_TAKE_INFINITY = (
    "HistGradientBoostingClassifier",
    "LGBMClassifier",
    "XGBClassifier",
    "XGBRFClassifier",
)


def _written(g, part, table, writers):
    """Nodes of a classifier itself."""
    name = type(part).__name__
    if is_skorch_net(part) or type(part).__module__.startswith("skmsc.neural"):
        return g.embed(net_graph(part, width(table), g.stage), table, part, SCORES)
    module = type(part).__module__.partition(".")[0]
    if name in writers and module in ("sklearn", "lightgbm", "xgboost"):
        return writers[name](g, part, table)
    if writers is _PROBA:
        return converted(g, part, table)
    known = ", ".join(sorted(writers))
    raise g.refusal(part, f"there is no graph of its decision values; there is one for {known}")


# What answers with the scores of one attribute.
_TRANSPARENT = {
    "FrozenEstimator": "estimator",
    "FixedThresholdClassifier": "estimator_",
    "TunedThresholdClassifierCV": "estimator_",
    **dict.fromkeys(
        ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"),
        "best_estimator_",
    ),
}


# --- linear models ------------------------------------------------------------------------------
def _linear(g, model, table):
    return g.linear(table, model.coef_, model.intercept_, model)


def _two_columns(g, model, table):
    """Log-odds of a linear model of two classes, beside those of the first class, 0."""
    coef, intercept = np.ravel(model.coef_), float(np.ravel(model.intercept_)[0])
    return g.linear(table, np.stack([0.0 * coef, coef]), [0.0, intercept], model)


def _logistic(g, model, table):
    if len(model.classes_) == 2:
        if getattr(model, "multi_class", None) == "multinomial":  # before scikit-learn 1.8
            return g.softmax(g.add("Mul", _two_columns(g, model, table), np.array(2.0)))
        return g.softmax(_two_columns(g, model, table))
    one_by_one = getattr(model, "multi_class", None) == "ovr" or (
        getattr(model, "solver", None) == "liblinear"
    )
    scores = _linear(g, model, table)
    if one_by_one:
        return g.normalised(g.expit(scores), len(model.classes_))
    return g.softmax(scores)


def _sgd(g, model, table):
    two = len(model.classes_) == 2
    if model.loss == "log_loss":
        if two:
            return g.softmax(_two_columns(g, model, table))
        return g.normalised(g.expit(_linear(g, model, table)), len(model.classes_))
    # The loss is "modified_huber", the only other one with probabilities.
    score = g.add("Clip", _linear(g, model, table), np.array(-1.0), np.array(1.0))
    proba = g.add("Div", g.add("Add", score, np.array(1.0)), np.array(2.0))
    return g.with_rest(proba) if two else g.normalised(proba, len(model.classes_))


# --- trees --------------------------------------------------------------------------------------
def _tree(g, model, table):
    return forest_proba(g, [model.tree_], table, model)


def _forest(g, model, table):
    return forest_proba(g, [tree.tree_ for tree in model.estimators_], table, model)


def _boosting_proba(g, model, table):
    raw = _DECISION[type(model).__name__](g, model, table)
    if model.n_classes_ > 2:
        return g.softmax(raw)
    return g.two_classes(raw, 2.0 if model.loss == "exponential" else 1.0)


def _hist(g, model, table):
    if model._preprocessor is None:
        return hist_gradient_boosting(g, model, g.matrix(table, model), [])
    parts = model._preprocessor
    columns = [
        g.take(table, parts._transformer_to_input_indices[n]) for n in ("encoder", "numerical")
    ]
    encoder = parts.named_transformers_["encoder"]
    x = g.matrix([*transform(g, encoder, columns[0]), *columns[1]], model)
    return hist_gradient_boosting(g, model, x, [len(c) for c in encoder.categories_])


def _hist_proba(g, model, table):
    raw = _hist(g, model, table)
    return g.two_classes(raw) if len(model.classes_) == 2 else g.softmax(raw)


def _lightgbm(g, model, table):
    raw, (objective, *settings) = lightgbm(g, model, _as_lightgbm_codes(g, model, table))
    if objective == "binary":
        slope = dict(s.split(":") for s in settings if ":" in s).get("sigmoid", 1.0)
        return g.two_classes(raw, float(slope))
    if objective == "multiclass":
        return g.softmax(raw)
    raise g.refusal(model, f"objective {objective!r}; only 'binary' and 'multiclass' are written")


def _as_lightgbm_codes(g, model, table):
    """The table with numbers for strings, the categories of the dataframe that it was fitted on."""
    remaining = model.booster_.pandas_categorical or []
    if len(remaining) != sum(block.type == "str" for block in table):
        raise g.refusal(
            model,
            "its columns of categories are not those of strings; encode them by OrdinalEncoder",
        )
    coded, remaining = [], iter(remaining)
    for block in table:
        if block.type == "str":
            categories = next(remaining)
            code = g.cast(codes(g, model, block, categories), "float64")
            unknown = g.add("Equal", code, np.array(float(len(categories))))
            block = Block(g.add("Where", unknown, np.array(np.nan), code), 1)
        coded.append(block)
    return coded


def _xgboost(g, model, table):
    raw, objective = xgboost(g, model, table)
    one = np.array(1.0, dtype=np.float32)
    # The links, too, round where XGBoost rounds: each operation to float32.
    if objective == "multi:softprob":
        top = g.add("ReduceMax", raw, np.array([1]), keepdims=1)
        grown = _exp_in_float32(g, g.add("Sub", raw, top))
        total = g.add("ReduceSum", g.cast(grown, "float64"), np.array([1]), keepdims=1)
        return g.cast(g.add("Div", grown, g.cast(total, "float32")), "float64")
    if objective != "binary:logistic":
        raise g.refusal(model, f"objective {objective!r}; only logistic and softprob are written")
    grown = _exp_in_float32(g, g.add("Neg", raw))
    own = g.add("Div", one, g.add("Add", grown, one))
    rest = g.add("Sub", one, own)
    # Of two probabilities in float32 stages take 1 minus the smaller for the larger.
    proba = g.cast(g.concat([rest, own]), "float64")
    small = g.add("ReduceMin", proba, np.array([1]), keepdims=1)
    is_small = g.add("LessOrEqual", proba, small)
    return g.add("Where", is_small, small, g.add("Sub", np.array(1.0), small))


def _exp_in_float32(g, x):
    """Exponentials of float32 numbers, rounded once."""
    return g.cast(g.add("Exp", g.cast(x, "float64")), "float32")


# --- others -------------------------------------------------------------------------------------
def _dummy(g, model, table):
    if model.strategy == "stratified":
        raise g.refusal(model, "strategy 'stratified' answers at random")
    return g.per_row(model.predict_proba(np.zeros((1, 1)))[0])


def _gaussian_nb(g, model, table):
    x = g.add("Unsqueeze", g.matrix(table, model), np.array([1]))
    away = g.add("Sub", x, model.theta_)  # (n_samples, n_classes, n_features)
    square = g.add("Div", g.add("Mul", away, away), model.var_)
    total = g.add("ReduceSum", square, np.array([2]), keepdims=0)
    base = np.log(model.class_prior_) - 0.5 * np.log(2.0 * np.pi * model.var_).sum(axis=1)
    return g.softmax(g.add("Add", g.add("Mul", total, np.array(-0.5)), base))


def _mlp(g, model, table):
    x, last = g.as_block(table, model), len(model.coefs_) - 1
    hidden = {"relu": "Relu", "tanh": "Tanh", "logistic": None, "identity": ""}[model.activation]
    for k, (coef, intercept) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        x = g.linear([x], coef.T, intercept, model)
        if k < last:
            x = g.expit(x) if hidden is None else g.add(hidden, x) if hidden else x
            x = Block(x, len(intercept))
    return g.two_classes(x) if model.out_activation_ == "logistic" else g.softmax(x)


def _neighbors(g, model, table):
    """Votes of the nearest rows; of rows at the same distance the first ones count."""
    metric = model.effective_metric_
    if model.weights not in ("uniform", "distance") or metric not in _DISTANCES:
        raise g.refusal(
            model,
            f"weights {model.weights!r} and metric {metric!r}; written are 'uniform' and "
            f"'distance', and {', '.join(_DISTANCES)}",
        )
    if hasattr(model._fit_X, "toarray"):
        raise g.refusal(model, "it was fitted on a sparse matrix")
    far = _distances(g, g.matrix(table, model), np.asarray(model._fit_X, dtype=float), metric)
    h, k = g.onnx.helper, np.array([model.n_neighbors])
    near, idx = (f"/neighbors/{len(g.nodes)}/{what}" for what in ("distance", "row"))
    g.nodes.append(h.make_node("TopK", [far, g.constant(k)], [near, idx], largest=0, sorted=1))
    own = np.eye(len(model.classes_))[np.ravel(model._y)]
    votes = g.add("Gather", own, idx, axis=0)  # (n_samples, n_neighbors, n_classes)
    if model.weights == "uniform":
        return g.add("ReduceMean", votes, np.array([1]), keepdims=0)
    if metric == "euclidean":
        near = g.add("Sqrt", near)
    zero = g.add("Equal", near, np.array(0.0))
    any_zero = g.add("ReduceMax", g.cast(zero, "float64"), np.array([1]), keepdims=1)
    weight = g.add(
        "Where",
        g.add("Greater", any_zero, np.array(0.0)),
        g.cast(zero, "float64"),
        g.add("Reciprocal", near),
    )
    weighted = g.add("Mul", votes, g.add("Unsqueeze", weight, np.array([2])))
    proba = g.add("ReduceSum", weighted, np.array([1]), keepdims=0)
    return g.add("Div", proba, g.add("ReduceSum", proba, np.array([1]), keepdims=1))


# Operators that make distances of differences; the square root of the first is missing.
_DISTANCES = {
    "euclidean": ("ReduceSumSquare",),
    "manhattan": ("Abs", "ReduceSum"),
    "chebyshev": ("Abs", "ReduceMax"),
}


def _distances(g, x, rows, metric):
    """Distances, or their squares if euclidean, to all rows, (n_samples, n_rows).

    Row by row, which needs no more memory than the distances and less time than all at once.
    Products of matrices would lose the distances of near neighbours that are far from 0.
    """
    h, inner, now = g.onnx.helper, g.inner(), f"/distances/{len(g.nodes)}"
    away = inner.add("Sub", inner.add("Gather", x, now + "/i", axis=0), rows)
    *steps, together = _DISTANCES[metric]
    for op in steps:
        away = inner.add(op, away)
    away = inner.add(together, away, np.array([1]), keepdims=0)
    go_on = inner.add("Identity", now + "/go")
    body = h.make_graph(
        inner.nodes,
        "distances",
        [
            h.make_tensor_value_info(now + "/i", g.element("int64"), []),
            h.make_tensor_value_info(now + "/go", g.element("bool"), []),
        ],
        [
            h.make_tensor_value_info(go_on, g.element("bool"), []),
            h.make_tensor_value_info(away, g.element("float64"), [len(rows)]),
        ],
    )
    # A scan is shorter, but fails without rows.
    return g.add("Loop", g.add("Shape", x, start=0, end=1), np.array(True), body=body)


def _svc_pairs(g, model, table):
    """Decision values of all pairs of classes, as libsvm has them: > 0 is for the first one."""
    if model._sparse or callable(model.kernel) or model.kernel == "precomputed":
        raise g.refusal(model, f"kernel {model.kernel!r}, or sparse training rows")
    kernel = _kernel(g, model, g.matrix(table, model))
    # Classes i < j: the rows of i have their coefficients against j in row j - 1, and those of j
    # theirs in row i.
    ends = np.cumsum(np.append(0, model._n_support))
    n, pairs = len(model.classes_), []
    for i in range(n):
        for j in range(i + 1, n):
            coef = np.zeros(model.support_vectors_.shape[0])
            mine, theirs = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
            coef[mine] = model._dual_coef_[j - 1, mine]
            coef[theirs] = model._dual_coef_[i, theirs]
            pairs.append(coef)
    return g.add("Gemm", kernel, np.array(pairs).T.copy(), np.array(model._intercept_))


def _kernel(g, model, x):
    """Kernels (n_samples, n_support_vectors)."""
    rows, gamma, coef0 = model.support_vectors_, float(model._gamma), float(model.coef0)
    if model.kernel == "rbf":
        centre = rows.mean(axis=0)  # near which rows have kernels that are not 0
        x, rows = g.add("Sub", x, centre), rows - centre
        own = g.add("ReduceSum", g.add("Mul", x, x), np.array([1]), keepdims=1)
        theirs = g.add("Gemm", x, 2.0 * gamma * rows.T, -gamma * (rows**2).sum(axis=1))
        return g.add("Exp", g.add("Sub", theirs, g.add("Mul", own, np.array(gamma))))
    product = g.add("MatMul", x, rows.T.copy())
    if model.kernel == "linear":
        return product
    product = g.add("Add", g.add("Mul", product, np.array(gamma)), np.array(coef0))
    if model.kernel == "sigmoid":
        return g.add("Tanh", product)
    return g.add("Pow", product, np.array(float(model.degree)))


def _svc_decision(g, model, table):
    pairs, n = _svc_pairs(g, model, table), len(model.classes_)
    if n == 2:
        return g.add("Neg", pairs)
    if model.decision_function_shape == "ovo":
        raise g.refusal(model, "decision_function_shape='ovo' gives no score for each class")
    places = [(i, j) for i in range(n) for j in range(i + 1, n)]
    first = np.array([[float(c == i) for c in range(n)] for i, _ in places])
    second = np.array([[float(c == j) for c in range(n)] for _, j in places])
    lost = g.cast(g.add("Less", pairs, np.array(0.0)), "float64")
    won = g.add("Sub", np.array(1.0), lost)
    votes = g.add("Add", g.add("MatMul", won, first), g.add("MatMul", lost, second))
    total = g.add("MatMul", pairs, first - second)
    size = g.add("Mul", g.add("Add", g.add("Abs", total), np.array(1.0)), np.array(3.0))
    return g.add("Add", votes, g.add("Div", total, size))


def _svc_proba(g, model, table):
    """Probabilities by coupling those of all pairs, as libsvm does.

    References
    ----------
    T.-F. Wu, C.-J. Lin, R. C. Weng. Probability estimates for multi-class classification by
    pairwise coupling. JMLR 5, 2004. The second of their methods, with libsvm's stopping rule,
    without which two classes would get other probabilities, too.
    """
    pairs, n = _svc_pairs(g, model, table), len(model.classes_)
    odds = g.add("Add", g.add("Mul", pairs, model._probA), model._probB)
    proba = g.add("Clip", g.expit(g.add("Neg", odds)), np.array(1e-7), np.array(1 - 1e-7))
    return _coupled(g, proba, n)


def _coupled(g, proba, n):
    """Probabilities of n classes from those of the first of each pair, (n_samples, n_pairs)."""
    places = [(i, j) for i in range(n) for j in range(i + 1, n)]
    number = {pair: k for k, pair in enumerate(places)}
    both = g.concat([proba, g.add("Sub", np.array(1.0), proba)])
    # r[:, i, j] is the probability of i where it is i or j.
    at = {
        (i, j): number[i, j] if i < j else len(places) + number[j, i]
        for i in range(n)
        for j in range(n)
        if i != j
    }
    zero = g.per_row([0.0])
    both = g.concat([both, zero])
    index = np.array([[at.get((i, j), 2 * len(places)) for j in range(n)] for i in range(n)])
    r = g.add("Gather", both, index, axis=1)  # (n_samples, n, n)
    turned = g.add("Transpose", r, perm=[0, 2, 1])
    square = g.add("ReduceSum", g.add("Mul", turned, turned), np.array([2]), keepdims=1)
    q = g.add("Sub", g.add("Mul", square, np.eye(n)), g.add("Mul", turned, r))
    p = g.per_row(np.full(n, 1.0 / n))
    h = g.onnx.helper
    inner, now = g.inner(), f"/coupling/{len(g.nodes)}"
    after, go_on = _coupling_step(inner, q, now + "/p", n)
    kinds = g.element
    body = h.make_graph(
        inner.nodes,
        "coupling",
        [
            h.make_tensor_value_info(now + "/i", kinds("int64"), []),
            h.make_tensor_value_info(now + "/go", kinds("bool"), []),
            h.make_tensor_value_info(now + "/p", kinds("float64"), [None, n]),
        ],
        [
            h.make_tensor_value_info(go_on, kinds("bool"), []),
            h.make_tensor_value_info(after, kinds("float64"), [None, n]),
        ],
    )
    return g.add("Loop", np.array(max(100, n)), np.array(True), p, body=body)


def _coupling_step(g, q, p, n):
    """One round over the classes, for the rows that have not settled; whether any has not."""
    column = g.add("Unsqueeze", p, np.array([2]))
    qp = g.add("Squeeze", g.add("MatMul", q, column), np.array([2]))
    pqp = g.add("ReduceSum", g.add("Mul", p, qp), np.array([1]), keepdims=1)
    off = g.add("Abs", g.add("Sub", qp, pqp))
    off = g.add("ReduceMax", off, np.array([1]), keepdims=1)
    waits = g.add("GreaterOrEqual", off, np.array(0.005 / n))
    new = p
    for t in range(n):
        row = g.add("Gather", q, np.array(t), axis=1)  # (n_samples, n)
        own, mine = g.column(row, t), g.column(qp, t)
        step = g.add("Div", g.add("Sub", pqp, mine), own)
        grown = g.add("Add", step, np.array(1.0))
        gain = g.add("Add", g.add("Mul", step, own), g.add("Mul", mine, np.array(2.0)))
        pqp = g.add("Add", pqp, g.add("Mul", step, gain))
        pqp = g.add("Div", g.add("Div", pqp, grown), grown)
        qp = g.add("Div", g.add("Add", qp, g.add("Mul", step, row)), grown)
        new = g.add("Add", new, g.add("Mul", step, np.eye(n)[t]))
        new = g.add("Div", new, grown)
    go_on = g.add("ReduceMax", g.cast(waits, "int64"), np.array([0, 1]), keepdims=0)
    return g.add("Where", waits, new, p), g.cast(go_on, "bool")


# --- ensembles of any classifiers ---------------------------------------------------------------
def _calibrated(g, model, table):
    return g.mean([_calibrated_once(g, part, table) for part in model.calibrated_classifiers_])


def _calibrated_once(g, part, table):
    n = len(part.classes)
    if hasattr(part.estimator, "decision_function"):
        scores = _decision(g, part.estimator, table)
    else:
        scores = _proba(g, part.estimator, table)
        if n == 2 and part.method != "temperature":
            scores = g.column(scores, 1)
    if part.method == "temperature":
        return _at_temperature(g, part, scores, n)
    if not np.array_equal(part.estimator.classes_, part.classes):
        raise g.refusal("CalibratedClassifierCV", "a part of it never saw some of the classes")
    if part.method == "sigmoid":
        slope, intercept = np.array(
            [[-f.a_, -f.b_] for f in part.calibrators], dtype=float
        ).T.copy()
        if n == 2:
            return g.two_classes(scores, slope[0], intercept[0])
        proba = g.expit(g.add("Add", g.add("Mul", scores, slope), intercept))
    else:
        knots = [(f.X_thresholds_, f.y_thresholds_) for f in part.calibrators]
        proba = interpolated(g, scores, knots)
        if n == 2:
            return g.with_rest(proba)
    return g.normalised(proba, n)


def _at_temperature(g, part, scores, n):
    """Softmax of scores, or of logarithms of probabilities, times the inverse temperature."""
    beta = float(part.calibrators[0].beta_)
    if not hasattr(part.estimator, "decision_function"):
        scores = g.add("Log", g.add("Add", scores, np.array(1e-12)))
    elif n == 2:
        scores = g.add("Mul", scores, np.array([-1.0, 1.0]))
    return g.softmax(g.add("Mul", scores, np.array(beta)))


def _voting(g, model, table):
    weights = model._weights_not_none
    weights = np.ones(len(model.estimators_)) if weights is None else np.asarray(weights, float)
    parts = [
        g.add("Mul", _proba(g, part, table), np.array(weight / weights.sum()))
        for part, weight in zip(model.estimators_, weights, strict=True)
    ]
    return g.add("Sum", *parts)


def _bagging(g, model, table):
    parts, n = [], len(model.classes_)
    for part, idx in zip(model.estimators_, model.estimators_features_, strict=True):
        if not hasattr(part, "predict_proba"):
            raise g.refusal(model, f"votes of {type(part).__name__}, which has no probabilities")
        proba = _proba(g, part, g.take(table, idx))
        known = np.asarray(part.classes_, dtype=int)  # positions among all classes
        parts.append(proba if len(known) == n else g.add("MatMul", proba, np.eye(n)[known]))
    return g.mean(parts)


_PROBA = {
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), _logistic),
    "LinearDiscriminantAnalysis": _logistic,
    "SGDClassifier": _sgd,
    **dict.fromkeys(("DecisionTreeClassifier", "ExtraTreeClassifier"), _tree),
    **dict.fromkeys(("RandomForestClassifier", "ExtraTreesClassifier"), _forest),
    "GradientBoostingClassifier": _boosting_proba,
    "HistGradientBoostingClassifier": _hist_proba,
    "LGBMClassifier": _lightgbm,
    **dict.fromkeys(("XGBClassifier", "XGBRFClassifier"), _xgboost),
    "DummyClassifier": _dummy,
    "GaussianNB": _gaussian_nb,
    "MLPClassifier": _mlp,
    "KNeighborsClassifier": _neighbors,
    **dict.fromkeys(("SVC", "NuSVC"), _svc_proba),
    "CalibratedClassifierCV": _calibrated,
    "VotingClassifier": _voting,
    "BaggingClassifier": _bagging,
}
_DECISION = {
    **dict.fromkeys(
        (
            "LogisticRegression",
            "LogisticRegressionCV",
            "LinearDiscriminantAnalysis",
            "SGDClassifier",
            "RidgeClassifier",
            "RidgeClassifierCV",
            "LinearSVC",
            "Perceptron",
            "PassiveAggressiveClassifier",
        ),
        _linear,
    ),
    "GradientBoostingClassifier": gradient_boosting,
    "HistGradientBoostingClassifier": _hist,
    **dict.fromkeys(("SVC", "NuSVC"), _svc_decision),
}
