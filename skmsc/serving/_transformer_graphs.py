"""Fitted transformers of scikit-learn as ONNX nodes, in float64."""

import numpy as np

from skmsc.serving._converted import converted
from skmsc.serving._graph import ML, Block, Graph, width
from skmsc.serving._inputs import FEATURES, MISSING, is_missing
from skmsc.serving._tree_graphs import interpolated, segments


def transformers_graph(steps, inputs, name):
    """Graph of fitted transformers, one behind the other.

    Parameters
    ----------
    steps : list of transformers
        As in a pipeline; "passthrough" and None change nothing.
    inputs : Inputs
        What the graph takes of each row.
    name : str
        Name of the stage, for errors.

    Returns
    -------
    model : onnx.ModelProto
        Its output "features" is float64 of shape (n_samples, n_features_out).

    Raises
    ------
    NotExportable
        When one of them cannot be written; the message names stage and transformer.
    """
    g = Graph(inputs, name)
    table = g.table
    for step in steps:
        table = transform(g, step, table)
    return g.model(inputs, FEATURES, g.matrix(table, steps[-1] if steps else name), width(table))


def transform(g, part, table):
    """Add a fitted transformer; returns the table that it makes of a table."""
    if part is None or (isinstance(part, str) and part == "passthrough"):
        return table
    write = _WRITERS.get(type(part).__name__)
    if write is not None and type(part).__module__.startswith("sklearn."):
        return write(g, part, table)
    n_features_out = getattr(part, "_n_features_out", None)
    if n_features_out is None and hasattr(part, "get_feature_names_out"):
        n_features_out = len(part.get_feature_names_out())
    return [Block(converted(g, part, table), n_features_out)]


# --- what contains others -----------------------------------------------------------------------
def _pipeline(g, pipeline, table):
    for _, step in pipeline.steps:
        table = transform(g, step, table)
    return table


def _frozen(g, frozen, table):
    return transform(g, frozen.estimator, table)


def _column_transformer(g, union, table):
    made = []
    for name, part, _ in union.transformers_:
        idx = union._transformer_to_input_indices[name]
        if len(idx) and not (isinstance(part, str) and part == "drop"):
            made += transform(g, part, g.take(table, idx))
    return made


def _feature_union(g, union, table):
    made, weights = [], union.transformer_weights or {}
    for name, part in union.transformer_list:
        if isinstance(part, str) and part == "drop":
            continue
        columns = transform(g, part, table)
        if name in weights:
            x = g.add("Mul", g.matrix(columns, union), np.array(float(weights[name])))
            columns = [Block(x, width(columns))]
        made += columns
    return made


def _function(g, function, table):
    if function.func is None:
        return table
    write = next((write for known, write in _FUNCTIONS if known is function.func), None)
    if write is None or function.kw_args:
        known = ", ".join(f"np.{one.__name__}" for one, _ in _FUNCTIONS)
        raise g.refusal(function, f"it calls {function.func!r}; what can be exported is {known}")
    g.makes_infinity = True  # the logarithm of 0, say
    return [Block(write(g, g.matrix(table, function)), width(table))]


_FUNCTIONS = (
    (np.abs, lambda g, x: g.add("Abs", x)),
    (np.exp, lambda g, x: g.add("Exp", x)),
    (np.expm1, lambda g, x: g.add("Sub", g.add("Exp", x), np.array(1.0))),
    (np.log, lambda g, x: g.add("Log", x)),
    (np.log10, lambda g, x: g.add("Div", g.add("Log", x), np.log(10.0))),
    (np.log1p, lambda g, x: g.add("Log", g.add("Add", x, np.array(1.0)))),
    (np.log2, lambda g, x: g.add("Div", g.add("Log", x), np.log(2.0))),
    (np.negative, lambda g, x: g.add("Neg", x)),
    (np.reciprocal, lambda g, x: g.add("Reciprocal", x)),
    (np.sign, lambda g, x: g.add("Sign", x)),
    (np.sqrt, lambda g, x: g.add("Sqrt", x)),
    (np.square, lambda g, x: g.add("Mul", x, x)),
    (np.tanh, lambda g, x: g.add("Tanh", x)),
)


# --- scales -------------------------------------------------------------------------------------
def _standard_scaler(g, scaler, table):
    return _scaled(g, scaler, table, scaler.mean_ if scaler.with_mean else None, scaler.scale_)


def _robust_scaler(g, scaler, table):
    return _scaled(g, scaler, table, scaler.center_, scaler.scale_)


def _max_abs_scaler(g, scaler, table):
    if getattr(scaler, "clip", False):
        x = g.add("Div", g.matrix(table, scaler), scaler.scale_)
        return [Block(_clipped(g, x, -1.0, 1.0), width(table))]
    return _scaled(g, scaler, table, None, scaler.scale_)


def _scaled(g, scaler, table, shift, scale):
    """``(x - shift) / scale``, the same operations in the same order as scikit-learn's."""
    block = g.as_block(table, scaler)
    if block.shift is not None or block.scale is not None:
        block = Block(g.matrix([block], scaler), block.width)
    return [Block(block.tensor, block.width, shift=shift, scale=scale)]


def _min_max_scaler(g, scaler, table):
    x = g.add("Mul", g.matrix(table, scaler), scaler.scale_)
    x = g.add("Add", x, scaler.min_)
    if scaler.clip:
        x = _clipped(g, x, *map(float, scaler.feature_range))
    return [Block(x, width(table))]


def _clipped(g, x, low, high):
    """Values between bounds; nan stays."""
    return g.add("Where", g.add("IsNaN", x), x, g.add("Clip", x, np.array(low), np.array(high)))


def _normalizer(g, normalizer, table):
    x = g.matrix(table, normalizer)
    size, axis = g.add("Abs", x), np.array([1])
    if normalizer.norm == "l2":
        norm = g.add("Sqrt", g.add("ReduceSum", g.add("Mul", x, x), axis, keepdims=1))
    else:
        op = "ReduceSum" if normalizer.norm == "l1" else "ReduceMax"
        norm = g.add(op, size, axis, keepdims=1)
    norm = g.add("Where", g.add("Equal", norm, np.array(0.0)), np.array(1.0), norm)
    return [Block(g.add("Div", x, norm), width(table))]


def _binarizer(g, binarizer, table):
    above = g.add("Greater", g.matrix(table, binarizer), np.array(float(binarizer.threshold)))
    return [Block(g.cast(above, "float64"), width(table))]


def _power_transformer(g, power, table):
    x, exponent = g.matrix(table, power), power.lambdas_
    if power.method == "box-cox":
        y = _power(g, g.add("Log", x), exponent)
    else:
        log = g.add("Log", g.add("Add", g.add("Abs", x), np.array(1.0)))
        above, below = _power(g, log, exponent), _power(g, log, 2.0 - exponent)
        y = g.add("Where", g.add("GreaterOrEqual", x, np.array(0.0)), above, g.add("Neg", below))
    table = [Block(y, width(table))]
    return _standard_scaler(g, power._scaler, table) if power.standardize else table


def _power(g, log, exponent):
    """``(exp(exponent * log) - 1) / exponent``, whose limit for an exponent of 0 is the log."""
    is_zero = np.abs(exponent) < np.finfo(np.float64).eps
    exponent = np.where(is_zero, 1.0, exponent)
    grown = g.add("Sub", g.add("Exp", g.add("Mul", log, exponent)), np.array(1.0))
    y = g.add("Div", grown, exponent)
    return g.add("Where", is_zero, log, y) if is_zero.any() else y


def _bins(g, bins, table):
    starts = [edges[:-1] for edges in bins.bin_edges_]  # what is below the first is in its bin
    number, n = segments(g, g.matrix(table, bins), starts), bins.n_bins_
    if bins.encode == "ordinal":
        before = np.cumsum(n) - n
        return [Block(g.add("Sub", g.cast(number, "float64"), before.astype(float)), len(n))]
    units = g.add("Gather", np.eye(n.sum()), number, axis=0)  # (n_samples, n_columns, n_bins)
    return [Block(g.add("ReduceSum", units, np.array([1]), keepdims=0), int(n.sum()))]


_BOUND = 1e-7  # QuantileTransformer takes what is so near the ends of the data for the ends


def _quantile_transformer(g, quantiles, table):
    x = g.matrix(table, quantiles)
    knots = [(column, quantiles.references_) for column in quantiles.quantiles_.T]
    y = interpolated(g, x, knots)
    first, last = quantiles.quantiles_[0].copy(), quantiles.quantiles_[-1].copy()
    normal = quantiles.output_distribution == "normal"
    if normal:
        high = g.add("Greater", g.add("Add", x, np.array(_BOUND)), last)
        low = g.add("Less", g.add("Sub", x, np.array(_BOUND)), first)
    else:
        high, low = g.add("GreaterOrEqual", x, last), g.add("LessOrEqual", x, first)
    y = g.add("Where", high, np.array(1.0), y)
    y = g.add("Where", low, np.array(0.0), y)
    if normal:
        from scipy.stats import norm

        bounds = norm.ppf([_BOUND - np.spacing(1), 1 - (_BOUND - np.spacing(1))])
        y = g.add("Where", g.add("IsNaN", y), y, _clipped(g, _normal_quantile(g, y), *bounds))
    return [Block(y, width(table))]


# M. J. Wichura, Algorithm AS 241: the percentage points of the normal distribution, Applied
# Statistics 37, 1988: ratios of polynomials, ascending, (numerator, denominator) of three ranges.
_AS241 = np.array(
    [
        [
            [3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
             1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
             3.3430575583588128105e4, 2.5090809287301226727e3],
            [1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
             2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
             5.2264952788528545610e3],
        ],
        [
            [1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
             3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
             2.27238449892691845833e-2, 7.74545014278341407640e-4],
            [1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
             1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
             1.05075007164441684324e-9],
        ],
        [
            [6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
             2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
             2.71155556874348757815e-5, 2.01033439929228813265e-7],
            [1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1,
             1.48753612908506148525e-2, 7.86869131145613259100e-4, 1.84631831751005468180e-5,
             1.42151175831644588870e-7, 2.04426310338993978564e-15],
        ],
    ]
)  # fmt: skip


def _normal_quantile(g, p):
    """Quantiles of the normal distribution, which no operator gives."""
    q = g.add("Sub", p, np.array(0.5))
    tail = g.add("Min", p, g.add("Sub", np.array(1.0), p))
    r = g.add("Sqrt", g.add("Neg", g.add("Log", g.add("Max", tail, np.array(1e-300)))))
    at = [
        g.add("Sub", np.array(0.180625), g.add("Mul", q, q)),
        g.add("Sub", r, np.array(1.6)),
        g.add("Sub", r, np.array(5.0)),
    ]
    # All six polynomials at once, (n_samples, n_columns, range, numerator and denominator).
    at = g.add("Unsqueeze", g.concat([g.add("Unsqueeze", x, _LAST) for x in at], 2), _LAST)
    value = _AS241[:, :, -1].copy()
    for k in range(_AS241.shape[2] - 2, -1, -1):
        value = g.add("Add", g.add("Mul", value, at), _AS241[:, :, k].copy())
    top, bottom = (g.add("Gather", value, np.array(k), axis=3) for k in (0, 1))
    ratio = g.add("Div", top, bottom)
    centre, near, far = (g.add("Gather", ratio, np.array(k), axis=2) for k in range(3))
    beyond = g.add("Where", g.add("LessOrEqual", r, np.array(5.0)), near, far)
    is_central = g.add("LessOrEqual", g.add("Abs", q), np.array(0.425))
    sign = g.add("Sign", q)
    return g.add("Where", is_central, g.add("Mul", q, centre), g.add("Mul", sign, beyond))


_LAST = np.array([-1])


# --- projections and selections -----------------------------------------------------------------
def _pca(g, pca, table):
    components = pca.components_
    if pca.whiten:
        least = np.finfo(pca.explained_variance_.dtype).eps
        components = components / np.maximum(np.sqrt(pca.explained_variance_), least)[:, None]
    x = g.add("Sub", g.matrix(table, pca), pca.mean_)
    return [Block(g.add("MatMul", x, components.T.copy()), len(components))]


def _truncated_svd(g, svd, table):
    x = g.add("MatMul", g.matrix(table, svd), svd.components_.T.copy())
    return [Block(x, len(svd.components_))]


def _selector(g, selector, table):
    return g.take(table, selector.get_support(indices=True))


def _polynomial_features(g, polynomials, table):
    x = g.matrix(table, polynomials)
    powers = polynomials.powers_
    n = powers.shape[1]
    factors = [np.repeat(np.arange(n), row) for row in powers]
    degree = max(map(len, factors))
    # A product of fewer factors has ones, which stand behind the features.
    one = g.per_row([1.0])
    x = g.add("Concat", x, one, axis=1)
    idx = np.array([np.append(f, np.full(degree - len(f), n)) for f in factors], dtype=np.int64)
    product = g.add("Gather", x, idx[:, 0].copy(), axis=1)
    for d in range(1, degree):
        product = g.add("Mul", product, g.add("Gather", x, idx[:, d].copy(), axis=1))
    return [Block(product, len(idx))]


# --- missing values -----------------------------------------------------------------------------
def _missing(g, part, block, missing_values):
    """Which values of a block are missing, bool; None: none can be."""
    if is_missing(missing_values):
        if block.type == "str":
            return g.add("Equal", block.tensor, np.array(MISSING, dtype=object))
        if block.type != "float64":
            return None
        return g.add("IsNaN", g.matrix([block], part))
    if (block.type == "str") != isinstance(missing_values, str):
        return None
    if block.type == "str":
        return g.add("Equal", block.tensor, np.array(missing_values, dtype=object))
    return g.add("Equal", g.matrix([block], part), np.array(float(missing_values)))


def _simple_imputer(g, imputer, table):
    made, statistics = [], np.asarray(imputer.statistics_, dtype=object)
    empty = np.array([is_missing(s) for s in statistics])
    at = 0
    for block in table:
        fill, mask = (
            statistics[at : at + block.width],
            _missing(g, imputer, block, imputer.missing_values),
        )
        at += block.width
        if mask is None:
            made.append(block)
            continue
        kind = "str" if block.type == "str" else "float64"
        x = block.tensor if kind == "str" else g.matrix([block], imputer)
        if kind != "str" and any(isinstance(f, str) for f in fill):
            raise g.refusal(imputer, "it imputes strings, but the columns are of numbers")
        fill = [("" if kind == "str" else 0.0) if is_missing(f) else f for f in fill]
        fill = np.array(fill, dtype=object if kind == "str" else np.float64)
        made.append(Block(g.add("Where", mask, fill, x), block.width, kind))
    if empty.any() and not imputer.keep_empty_features:
        made = g.take(made, np.flatnonzero(~empty))
    if imputer.add_indicator:
        made = made + _missing_indicator(g, imputer.indicator_, table)
    return made


def _missing_indicator(g, indicator, table):
    made = []
    for block in g.take(table, indicator.features_):
        mask = _missing(g, indicator, block, indicator.missing_values)
        if mask is None:
            mask = g.add("Not", g.add("Equal", block.tensor, block.tensor))
        made.append(Block(g.cast(mask, "float64"), block.width))
    return made


# --- categories ---------------------------------------------------------------------------------
def codes(g, encoder, block, categories):
    """Position of each value of a column among the categories, int64; their number if in none."""
    n = len(categories)
    missing = [i for i, c in enumerate(categories) if is_missing(c)]
    known = [i for i, c in enumerate(categories) if not is_missing(c)]
    if len(missing) > 1:
        raise g.refusal(encoder, "None and nan are two categories, which a graph cannot tell apart")
    if (block.type == "str") != all(isinstance(categories[i], str) for i in known):
        raise g.refusal(
            encoder,
            f"its categories {list(categories[:3])}... are not of the type of the column, "
            f"{block.type}",
        )
    if block.type == "str":
        names = [MISSING if i in missing else str(c) for i, c in enumerate(categories)]
        return g.add(
            "LabelEncoder",
            block.tensor,
            domain=ML,
            keys_strings=names,
            values_int64s=list(range(n)),
            default_int64=n,
        )
    x, values = block.tensor, np.asarray([categories[i] for i in known])
    if block.type != "int64" or values.dtype.kind not in "iu":
        x, values = g.matrix([block], encoder), values.astype(np.float64)
    found = g.cast(g.add("Equal", x, values[None]), "float64")
    behind = g.add("MatMul", found, np.array([[n - i] for i in known], dtype=np.float64))
    code = g.add("Sub", np.array(float(n)), behind)
    if missing and block.type == "float64":
        code = g.add("Where", g.add("IsNaN", x), np.array(float(missing[0])), code)
    return g.cast(code, "int64")


def _encoded(g, encoder, table, rows_of):
    """Each column in the rows of a table by category; `rows_of(i)` has those of column i.

    Its last row is that of unknown categories. Where there is none they are an error, of a node
    whose name says so.
    """
    made = []
    for i, categories in enumerate(encoder.categories_):
        (block,) = g.take(table, [i])
        code, rows = codes(g, encoder, block, categories), rows_of(i)
        name = None
        if len(rows) == len(categories):
            name = f"{type(encoder).__name__}: unknown category in column {block.tensor} ({i})"
        if rows.shape[1] == 1:
            x = g.add("Gather", rows[:, 0].copy(), code, axis=0, name=name)
        else:
            x = g.add("Gather", rows, g.add("Squeeze", code, np.array([1])), axis=0, name=name)
        if rows.shape[1]:
            made.append(Block(x, rows.shape[1]))
    return made


def _frequent(encoder, i):
    """Position of each category of column i once the infrequent ones are one, and which that is."""
    mapping = getattr(encoder, "_default_to_infrequent_mappings", None)
    if mapping is None or mapping[i] is None:
        return np.arange(len(encoder.categories_[i])), None
    return mapping[i], mapping[i].max()


def _one_hot_encoder(g, encoder, table):
    def rows_of(i):
        place, infrequent = _frequent(encoder, i)
        unit = np.eye(place.max() + 1)
        rows = unit[place]
        if encoder.handle_unknown != "error":
            grouped = infrequent is not None and encoder.handle_unknown != "ignore"
            rows = np.vstack([rows, unit[infrequent] if grouped else np.zeros(len(unit))])
        drop = encoder._drop_idx_after_grouping
        if drop is not None and drop[i] is not None:
            rows = np.delete(rows, drop[i], axis=1)
        return rows

    return _encoded(g, encoder, table, rows_of)


def _ordinal_encoder(g, encoder, table):
    def rows_of(i):
        rows = _frequent(encoder, i)[0].astype(np.float64)
        if i in encoder._missing_indices:
            rows[encoder._missing_indices[i]] = encoder.encoded_missing_value
        if encoder.handle_unknown != "error":
            rows = np.append(rows, encoder.unknown_value)
        return rows[:, None]

    return _encoded(g, encoder, table, rows_of)


def _target_encoder(g, encoder, table):
    n = len(encoder.encodings_) // len(encoder.categories_)  # columns that one becomes

    def rows_of(i):
        rows = np.column_stack(encoder.encodings_[i * n : (i + 1) * n])
        return np.vstack([rows, np.resize(encoder.target_mean_, n)])

    return _encoded(g, encoder, table, rows_of)


_WRITERS = {
    "Pipeline": _pipeline,
    "FrozenEstimator": _frozen,
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _feature_union,
    "FunctionTransformer": _function,
    "StandardScaler": _standard_scaler,
    "RobustScaler": _robust_scaler,
    "MaxAbsScaler": _max_abs_scaler,
    "MinMaxScaler": _min_max_scaler,
    "Normalizer": _normalizer,
    "Binarizer": _binarizer,
    "QuantileTransformer": _quantile_transformer,
    "PowerTransformer": _power_transformer,
    "KBinsDiscretizer": _bins,
    "PCA": _pca,
    "TruncatedSVD": _truncated_svd,
    "PolynomialFeatures": _polynomial_features,
    "SimpleImputer": _simple_imputer,
    "MissingIndicator": _missing_indicator,
    "OneHotEncoder": _one_hot_encoder,
    "OrdinalEncoder": _ordinal_encoder,
    "TargetEncoder": _target_encoder,
    **dict.fromkeys(
        (
            "SelectKBest",
            "SelectPercentile",
            "SelectFpr",
            "SelectFdr",
            "SelectFwe",
            "GenericUnivariateSelect",
            "VarianceThreshold",
            "SelectFromModel",
            "RFE",
            "RFECV",
            "SequentialFeatureSelector",
        ),
        _selector,
    ),
}
