"""ONNX graphs under construction: nodes by one call each, tables of typed columns, chains."""

from copy import copy
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import count

import numpy as np

from skmsc.serving._inputs import FEATURES, MATRIX, SCORES, NotExportable

OPSET, ML_OPSET, IR_VERSION = 21, 5, 10
ML = "ai.onnx.ml"
_PRECISION = 1e-10  # by which folded scalers may move a linear score


def optional(module):
    """A module of the extra "serving"; raises ImportError that names it where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"Export needs {module.partition('.')[0]}: pip install 'skmsc[serving]'."
        ) from error


@dataclass(frozen=True)
class Block:
    """Neighbouring columns of one type.

    Attributes
    ----------
    tensor : str
        Its name, of shape (n_samples, width).
    width : int
        Number of columns.
    type : str
        One of `skmsc.serving._inputs.TYPES`.
    shift, scale : ndarray of shape (width,) or None
        The columns are ``(tensor - shift) / scale``, which no node computes yet, so that a linear
        model can take it into its coefficients.
    """

    tensor: str
    width: int
    type: str = "float64"
    shift: np.ndarray | None = None
    scale: np.ndarray | None = None


class Nodes:
    """Nodes and constants of a graph, to which they are added one by one.

    Parameters
    ----------
    nodes : list of onnx.NodeProto
        Those that are there already; more are appended.
    initializers : list of onnx.TensorProto
        Likewise.
    used : iterable of str, default=()
        Names that no tensor to come may have.
    """

    def __init__(self, nodes, initializers, used=()):
        self.onnx = optional("onnx")
        self.nodes, self.initializers = nodes, initializers
        self._constants, self._used, self._numbers = {}, set(used), count(1)
        self._names = {node.name for node in nodes}

    def add(self, op, *inputs, output=None, domain="", name=None, **attributes):
        """Add a node with one output; the inputs are names of tensors, or arrays.

        Returns the name of the output.
        """
        inputs = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        output = output or self._new_name(op)
        name = name or output
        if name in self._names:  # no two nodes may have one name
            name = f"{name} {output}"
        self._names.add(name)
        self.nodes.append(
            self.onnx.helper.make_node(op, inputs, [output], name=name, domain=domain, **attributes)
        )
        return output

    def cast(self, x, dtype):
        """A tensor in another type, a NumPy name of it."""
        return self.add("Cast", x, to=self.element(dtype))

    def rename(self, tensor, name):
        """Give a tensor that a node computes another name."""
        for node in self.nodes:
            _rename_node(node, lambda other: name if other == tensor else other)

    def constant(self, value):
        """Name of an initializer, the same one for equal arrays."""
        value = np.asarray(value, order="C")
        content = repr(value.tolist()) if value.dtype == object else value.tobytes()
        key = (value.dtype.str, value.shape, content)
        if key not in self._constants:
            self._constants[key] = self._new_name("constant")
            tensor = self.onnx.numpy_helper.from_array(value, self._constants[key])
            self.initializers.append(tensor)
        return self._constants[key]

    def value_info(self, name, dtype, n_columns):
        """Description of an input or output of shape (n_samples, n_columns)."""
        return self.onnx.helper.make_tensor_value_info(name, self.element(dtype), [None, n_columns])

    def element(self, dtype):
        """Code of ONNX for a type of elements, one of `TYPES` or "float32"."""
        kinds = self.onnx.TensorProto
        return {
            "float64": kinds.DOUBLE,
            "float32": kinds.FLOAT,
            "int64": kinds.INT64,
            "bool": kinds.BOOL,
            "str": kinds.STRING,
        }[dtype]

    def _new_name(self, kind):
        """A name that no tensor has."""
        return next(name for n in self._numbers if (name := f"/{kind}/{n}") not in self._used)


class Graph(Nodes):
    """A graph of a stage, to which nodes are added.

    Parameters
    ----------
    inputs : Inputs
        What it takes of each row.
    stage : str
        Name of the stage, for errors.

    Attributes
    ----------
    table : list of Block
        The columns of a row.
    makes_infinity : bool
        Whether a transformer may have made infinity of finite numbers.
    """

    makes_infinity = False

    def __init__(self, inputs, stage):
        super().__init__([], [])
        self.stage = stage
        self._domains = {}  # of operators of embedded models, with their versions
        if inputs.columns is None:
            self.table = [Block(MATRIX, inputs.n_features)]
        else:
            self.table = [Block(name, 1, kind) for name, kind in inputs.columns]
            for name, _ in inputs.columns:  # tensors of the graph begin with a slash
                if name in ("", SCORES) or name.startswith("/"):
                    raise self.refusal("inputs", f"a column cannot be named {name!r}")

    # --- nodes --------------------------------------------------------------------------------
    def inner(self):
        """The graph inside a loop: nodes of its own, names and constants shared."""
        inner = copy(self)
        inner.nodes = []
        return inner

    def concat(self, tensors, axis=1):
        """Tensors side by side; one alone as it is."""
        return tensors[0] if len(tensors) == 1 else self.add("Concat", *tensors, axis=axis)

    def column(self, x, k):
        """Column k of a matrix, of shape (n_samples, 1)."""
        return self.add("Gather", x, np.array([k]), axis=1)

    def per_row(self, values):
        """The same values for every row, of shape (n_samples, n_values)."""
        n_rows = self.add("Shape", self.table[0].tensor, start=0, end=1)
        shape = self.add("Concat", n_rows, np.array([1]), axis=0)
        return self.add("Expand", np.asarray(values, dtype=np.float64)[None], shape)

    # --- tables -------------------------------------------------------------------------------
    def matrix(self, table, owner):
        """All columns as one float64 tensor; `owner` is who needs it, for errors."""
        tensors = []
        for block in table:
            if block.type == "str":
                raise self.refusal(owner, "it takes numbers, but a column of its rows has strings")
            x = block.tensor
            if block.type != "float64":
                x = self.cast(x, "float64")
            if block.shift is not None:
                x = self.add("Sub", x, block.shift)
            if block.scale is not None:
                x = self.add("Div", x, block.scale)
            tensors.append(x)
        return self.concat(tensors)

    def as_block(self, table, owner):
        """All columns as one float64 block, which may keep its shift and scale."""
        if len(table) == 1 and table[0].type == "float64":
            return table[0]
        return Block(self.matrix(table, owner), width(table))

    def take(self, table, idx):
        """Columns of a table by position."""
        owner = [(block, j) for block in table for j in range(block.width)]
        chosen = []
        idx = [int(i) for i in idx]
        while idx:
            block, start = owner[idx[0]]
            run = [start]  # further columns of the same block
            while len(run) < len(idx) and owner[idx[len(run)]][0] is block:
                run.append(owner[idx[len(run)]][1])
            idx = idx[len(run) :]
            if run == list(range(block.width)):
                chosen.append(block)
                continue
            chosen.append(
                replace(
                    block,
                    tensor=self.add("Gather", block.tensor, np.array(run), axis=1),
                    width=len(run),
                    shift=None if block.shift is None else block.shift[run],
                    scale=None if block.scale is None else block.scale[run],
                )
            )
        return chosen

    def linear(self, table, coef, intercept, owner):
        """``X @ coef.T + intercept``, of shape (n_samples, len(coef)).

        A scaler before it goes into the coefficients, if the intercept does not grow so large
        that rounding would move the sums by more than 1e-10.
        """
        coef = np.atleast_2d(np.asarray(coef, dtype=np.float64))
        intercept = np.broadcast_to(np.asarray(intercept, dtype=np.float64), len(coef))
        block = self.as_block(table, owner)
        x = block.tensor
        if block.scale is not None:
            coef = coef / block.scale
        if block.shift is not None:
            rounding = np.finfo(np.float64).eps * (np.abs(coef) @ np.abs(block.shift)).max()
            if rounding < _PRECISION:
                intercept = intercept - coef @ block.shift
            else:
                x = self.add("Sub", x, block.shift)
        return self.add("Gemm", x, coef.T.copy(), intercept.copy())

    # --- links, all in float64 ----------------------------------------------------------------
    def expit(self, x):
        """Sigmoid of each element; the operator of that name is cut off below 1e-16."""
        return self.add("Reciprocal", self.add("Add", self.add("Exp", self.add("Neg", x)), _ONE))

    def softmax(self, x):
        """Softmax of each row."""
        return self.add("Softmax", x, axis=1)

    def two_classes(self, log_odds, slope=1.0, intercept=0.0):
        """Probabilities of two classes from log-odds of shape (n_samples, 1) by a sigmoid."""
        x = self.add("Mul", log_odds, np.array([0.0, slope]))
        if intercept != 0.0:
            x = self.add("Add", x, np.array([0.0, intercept]))
        return self.softmax(x)

    def with_rest(self, proba):
        """Probabilities of two classes, (n_samples, 2), from that of the second, (n_samples, 1)."""
        return self.add("Add", self.add("Mul", proba, np.array([-1.0, 1.0])), np.array([1.0, 0.0]))

    def normalised(self, proba, n_classes):
        """Rows with sum 1; all the same where the sum is 0."""
        total = self.add("ReduceSum", proba, np.array([1]), keepdims=1)
        none = self.add("Equal", total, np.array(0.0))
        shares = self.add("Div", proba, total)
        return self.add("Where", none, np.array(1.0 / n_classes), shares)

    def mean(self, tensors):
        """Mean of tensors of one shape."""
        total = self.add("Sum", *tensors)
        return self.add("Div", total, np.array(float(len(tensors))))

    # --- the end ------------------------------------------------------------------------------
    def refusal(self, part, reason):
        """The error that this part of the stage cannot be exported."""
        kind = part if isinstance(part, str) else type(part).__name__
        return NotExportable(f"Stage {self.stage!r} cannot be exported: {kind}: {reason}.")

    def embed(self, model, table, owner, output):
        """Nodes of another model, whose input "X" is this table; name of its output."""
        prefix = f"/embedded/{next(self._numbers)}"
        model = _in_opset(self.onnx, _inlined(model))
        self._domains |= _versions(model)
        names = {MATRIX: self.matrix(table, owner)}
        graph = _renamed(model.graph, lambda name: names.get(name) or f"{prefix}/{name}")
        self.nodes.extend(graph.node)
        self.initializers.extend(graph.initializer)
        return f"{prefix}/{output}"

    def model(self, inputs, output, tensor, n_columns):
        """The finished model, with one float64 output of shape (n_samples, n_columns)."""
        h = self.onnx.helper
        if any(tensor in node.output for node in self.nodes):
            self.rename(tensor, output)
        else:  # an input
            self.nodes.append(h.make_node("Identity", [tensor], [output]))
        if inputs.columns is None:
            given = [self.value_info(MATRIX, "float64", inputs.n_features)]
        else:
            given = [self.value_info(name, kind, 1) for name, kind in inputs.columns]
        gives = [self.value_info(output, "float64", n_columns)]
        graph = h.make_graph(self.nodes, self.stage, given, gives, self.initializers)
        return make_model(graph, self._domains)


_ONE = np.array(1.0)


def width(table):
    """Number of columns of a table."""
    return sum(block.width for block in table)


def make_model(graph, domains):
    """Model of a graph, checked; `domains` are the versions of operators other than ours."""
    onnx = optional("onnx")
    versions = {**domains, "": OPSET, ML: ML_OPSET}
    opsets = [onnx.helper.make_opsetid(*opset) for opset in versions.items()]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def chain(first, second):
    """One model of two: the output "features" of the first is the input "X" of the second.

    Parameters
    ----------
    first, second : onnx.ModelProto
        Models; their other inputs and outputs must have different names.

    Returns
    -------
    model : onnx.ModelProto
        With the inputs of the first and the other inputs of the second, the outputs of the second
        and the other outputs of the first.
    """
    onnx = optional("onnx")
    models = [_in_opset(onnx, _inlined(model)) for model in (first, second)]
    parts = [model.graph for model in models]
    kept = [{v.name for v in [*graph.input, *graph.output]} for graph in parts]
    clash = (kept[0] - {FEATURES}) & (kept[1] - {MATRIX})
    if clash:
        raise ValueError(f"Both graphs have inputs or outputs named {sorted(clash)}.")
    between = "/first/" + FEATURES
    first = _renamed(
        parts[0],
        lambda name: name if name in kept[0] and name != FEATURES else f"/first/{name}",
    )
    second = _renamed(
        parts[1],
        lambda name: between if name == MATRIX else name if name in kept[1] else f"/second/{name}",
    )
    graph = onnx.helper.make_graph(
        [*first.node, *second.node],
        second.name,
        [*first.input, *(v for v in second.input if v.name != between)],
        [*second.output, *(v for v in first.output if v.name != between)],
        [*first.initializer, *second.initializer],
    )
    return make_model(graph, _versions(models[0]) | _versions(models[1]))


def _inlined(model):
    """A model without functions of its own."""
    return optional("onnx.inliner").inline_local_functions(model) if model.functions else model


def _versions(model):
    return {opset.domain: opset.version for opset in model.opset_import}


def _in_opset(onnx, model):
    """The model in the version of ONNX's own operators that all graphs here have."""
    if _versions(model).get("", OPSET) == OPSET:
        return model
    return optional("onnx.version_converter").convert_version(model, OPSET)


def _renamed(graph, rename):
    """Copy of a graph with other names of its tensors."""
    renamed = type(graph)()
    renamed.CopyFrom(graph)
    _rename_graph(renamed, rename)
    return renamed


def _rename_graph(graph, rename):
    for part in (graph.input, graph.output, graph.initializer, graph.value_info):
        for value in part:
            value.name = rename(value.name)
    for node in graph.node:
        _rename_node(node, rename)


def _rename_node(node, rename):
    """Rename a node, inputs and outputs, also in its own graphs; "" is an absent one."""
    node.name = node.name and rename(node.name)
    for names in (node.input, node.output):
        names[:] = [name and rename(name) for name in names]
    for attribute in node.attribute:
        if attribute.HasField("g"):
            _rename_graph(attribute.g, rename)
