"""Nets, exits and trunks with heads as ONNX graphs.

Our own modules are written node by node; any other by torch's exporter, which takes far longer, of
the very functions that the estimators call. What NumPy computes on top of it is added node by node.
All weights are inside the graphs.
"""

import numpy as np
from sklearn.pipeline import Pipeline

from skmsc.serving._graph import IR_VERSION, OPSET, Graph, Nodes, chain, optional
from skmsc.serving._inputs import FEATURES, MATRIX, SCORES, NotExportable
from skmsc.serving._transformer_graphs import transformers_graph
from skmsc.stacking import _LIMIT
from skmsc.stages import is_skorch_net, thawed
from skmsc.training.heads import FixedHead, ImprintHead, _Head
from skmsc.trunks import RandomReLU, _is_learned, _is_module


def net_graph(net, n_features, name):
    """Graph of a fitted net that classifies by itself.

    Parameters
    ----------
    net : TabularNet, NetStage or skorch net
        The net; it may be frozen.
    n_features : int
        Number of columns of X.
    name : str
        Of the stage, for messages.

    Returns
    -------
    graph : onnx.ModelProto
        From "X" to "scores": what `predict_proba` of a `TabularNet` or a `NetStage` gives.

    Raises
    ------
    NotExportable
        When the net is of another kind, or torch cannot export its module.
    """
    from skmsc.neural import NetStage, TabularNet
    from skmsc.neural._module_nodes import write_answer
    from skmsc.neural._modules import to_proba
    from skmsc.neural._net_stage import runs_plainly, with_module
    from skmsc.neural._onnx import made_up_rows, ready_to_run, rows_like

    net = thawed(net)
    if is_skorch_net(net):
        net = NetStage.of_fitted(net)
    if _is_ours(net, TabularNet, "predict_proba"):
        module = ready_to_run(net.net_.module_)

        def proba(nodes, x):
            logits = nodes.cast(write_answer(nodes, module, x), "float64")
            return [nodes.add("Softmax", logits, axis=-1)]

        rows, function = rows_like(module.standardise), lambda m, x: to_proba(m.answer(x))
        return _exported(name, module, function, rows, MATRIX, [SCORES], write=proba)
    if not _is_ours(net, NetStage, "predict_proba") or not runs_plainly(net.net_):
        raise NotExportable(f"Stage {name!r}: {type(net).__name__} predicts in a way of its own.")
    module = ready_to_run(net.net_.module_)
    inner, nonlinearity = with_module(net.net_, module), net.net_._get_predict_nonlinearity()

    def scores(module, x):
        output = inner.infer(x.float())
        output = output[0] if isinstance(output, tuple) else output
        return nonlinearity(output.double()).double()

    return _exported(name, module, scores, made_up_rows(n_features), MATRIX, [SCORES])


def exit_graphs(model, inputs):
    """Graphs of the exits of a fitted `EarlyExitClassifier`.

    Parameters
    ----------
    model : EarlyExitClassifier
        The classifier.
    inputs : Inputs
        What the first exit takes.

    Returns
    -------
    graphs : list of onnx.ModelProto
        One for each exit. Where it is stage k among all stages it gives "scores", and "hidden_k"
        in the net's dtype unless it is the last; the first exit takes rows, any other the hidden
        features of the one before it. Where stages recall, all also take "logs_0", "logs_1", ...
        of the stages before, float64 of shape (n, n_classes), and all but the last give "logs_k".

    Raises
    ------
    NotExportable
        When torch cannot export a block or a head.
    """
    from skmsc.neural import MultiExitNet
    from skmsc.neural._module_nodes import write_exit
    from skmsc.neural._modules import to_log_proba, to_proba
    from skmsc.neural._onnx import ready_to_run, rows_like, run

    names, net, weights = model._stage_names, model.net_, model.ensemble_weights_
    n_before = len(names) - net.n_exits_
    if not _is_ours(net, MultiExitNet, "run_exit"):
        raise NotExportable(
            f"Stage {names[n_before]!r}: {type(net).__name__} runs exits in a way of its own."
        )
    answer, own = (to_proba, SCORES) if weights is None else (to_log_proba, "log_proba")
    module = ready_to_run(net.net_.module_)
    graphs, takes, rows = [], MATRIX, rows_like(module.standardise)
    for k in range(n_before, len(names)):
        is_last = k == len(names) - 1

        def step(module, x, k=k, is_last=is_last):
            logits, hidden = module.run(k - n_before, x)
            return answer(logits) if is_last else (answer(logits), hidden)

        def write(nodes, x, k=k, is_last=is_last):
            logits, hidden = write_exit(nodes, module, k - n_before, x)
            scores = nodes.cast(logits, "float64")
            if answer is to_proba:
                scores = nodes.add("Softmax", scores, axis=-1)
            return [scores] if is_last else [scores, hidden]

        gives = [own] if is_last else [own, f"hidden_{k}"]
        graph = _exported(names[k], module, step, rows, takes, gives, write)
        if takes == MATRIX:
            graph = _take_columns(graph, inputs, names[k])
        if weights is not None:
            graph = _recall(graph, weights[k, : k + 1], len(model.classes_), is_last)
        graphs.append(graph)
        takes, rows = f"hidden_{k}", run(module, step, rows)[-1]
    return graphs


def with_logs(graph, k):
    """A copy of the graph of stage k that also gives "logs_k", which later stages recall.

    Parameters
    ----------
    graph : onnx.ModelProto
        Its output "scores" are probabilities, float64 of shape (n, n_classes).
    k : int
        Number of the stage.

    Returns
    -------
    graph : onnx.ModelProto
    """
    nodes = _Extension(graph)
    (scores,) = (output for output in graph.graph.output if output.name == SCORES)
    logs = nodes.add("Max", nodes.add("Log", SCORES), -1e3)  # -inf has no order
    _held_back(nodes, logs, f"logs_{k}")
    return nodes.give(f"logs_{k}", scores.type.tensor_type.shape.dim[1].dim_value or None)


def heads_graph(model, inputs):
    """Graph of trunk and heads of a fitted `ComposableHeadClassifier`.

    Parameters
    ----------
    model : ComposableHeadClassifier
        The classifier.
    inputs : Inputs
        What the trunk takes.

    Returns
    -------
    graph : onnx.ModelProto
        From rows to the "scores" of the heads, of shape (n, n_classes). With ``proba="sigmoid"``
        they are the slope times the log-odds, whose `skmsc._maps.sigmoids` are the scores.

    Raises
    ------
    NotExportable
        When the trunk cannot be exported, or the head is of another kind.
    """
    name, head, lift = model._stage_names[-1], model.head_, model._trunk.lift
    before, last = _trunk_steps(model._trunk.estimator)
    nodes, features = _Extension(), MATRIX
    if last is not None:
        nodes, features = _Extension(_features_graph(last, inputs.n_features, name)), FEATURES
        del nodes.model.graph.output[:]
    else:
        width = model.coef_.shape[1] if lift is None else lift.directions_.shape[0]
        nodes.take(MATRIX, width)
    if lift is not None:
        features = _random_relu(nodes, lift, features)
    if type(head).prepare in (FixedHead.prepare, ImprintHead.prepare):
        features = nodes.add("LpNormalization", features, axis=-1, p=2)
    elif type(head).prepare is not _Head.prepare:
        raise NotExportable(
            f"Stage {name!r}: {type(head).__name__} prepares features in a way of its own."
        )
    _compose(nodes, model, features)
    graph = nodes.give(SCORES, len(model.classes_))
    if not before:
        return _take_columns(graph, inputs, name)
    return chain(transformers_graph(before, inputs, name), graph)


# --- what the estimators compute in NumPy -------------------------------------------------------
def _held_back(nodes, logs, output):
    """Add what `skmsc.stacking.as_stack_logs` makes of log-probabilities."""
    axis = np.array([-1])
    logs = nodes.add("Sub", logs, nodes.add("ReduceMax", logs, axis, keepdims=1))
    far = nodes.add("Sub", nodes.add("Mul", logs, 1e-6), _LIMIT * (1 - 1e-6))
    return nodes.add("Max", logs, far, output=output)


def _recall(graph, weights, n_classes, is_last):
    """The graph of an exit whose "log_proba" are combined with the logs of the stages before it.

    `weights` are those of the stages' logs, the exit's own the last, (k + 1,).
    """
    nodes, k = _Extension(graph), len(weights) - 1
    (own,) = (output for output in nodes.model.graph.output if output.name == "log_proba")
    own.name = SCORES
    for j in range(k):
        nodes.take(f"logs_{j}", n_classes)
    _held_back(nodes, "log_proba", f"logs_{k}")
    parts = [nodes.add("Mul", f"logs_{j}", weight) for j, weight in enumerate(weights)]
    total = parts[0] if k == 0 else nodes.add("Sum", *parts)
    nodes.add("Softmax", total, output=SCORES, axis=-1)
    if not is_last:
        nodes.give(f"logs_{k}", n_classes)
    return nodes.model


def _random_relu(nodes, lift, features, output=None):
    """Add what a `RandomReLU` makes of features."""
    return nodes.add("Relu", nodes.linear(features, lift.directions_, lift.biases_), output=output)


def _compose(nodes, model, features):
    """Add the scores of the heads; see `ComposableHeadClassifier._composed`."""
    heads, columns, n_classes = model._set.heads, model._columns, len(model.classes_)
    coef, intercept = heads.coef.T, heads.intercept
    if model.proba == "conditional":
        nodes.add("Softmax", nodes.linear(features, coef, intercept), output=SCORES, axis=-1)
    elif heads.odds is None:
        proba = nodes.add("Softmax", nodes.linear(features, coef, intercept), axis=-1)
        rest = nodes.add("Sub", 1.0, nodes.add("Min", proba, 1 - 1e-15))
        odds = nodes.add("Sub", nodes.add("Log", proba), nodes.add("Log", rest))
        if model.proba == "sigmoid":
            nodes.add("Mul", odds, model._odds_slope, output=SCORES)
            return
        both = nodes.add("Pad", odds, np.array([0, 0, 0, 1]), model._log_unknown)
        order = np.argsort(np.append(columns, np.setdiff1d(np.arange(n_classes), columns)))
        nodes.add("Softmax", nodes.add("Gather", both, order, axis=1), output=SCORES, axis=-1)
    elif model.proba == "sigmoid":
        factor = heads.odds * model._odds_slope
        nodes.linear(features, factor * coef, factor * intercept, output=SCORES)
    else:  # the unknown class is one more head, whose log-odds are constant
        all_coef = np.zeros((len(coef), n_classes))
        all_intercept = np.full(n_classes, model._log_unknown)
        all_coef[:, columns], all_intercept[columns] = heads.odds * coef, heads.odds * intercept
        odds = nodes.linear(features, all_coef, all_intercept)
        nodes.add("Softmax", odds, output=SCORES, axis=-1)


# --- trunks -------------------------------------------------------------------------------------
def _trunk_steps(trunk):
    """A fitted trunk as scikit-learn transformers and what comes last, or None.

    See `skmsc.trunks._features`.
    """
    before, last = [], thawed(trunk)
    while isinstance(last, Pipeline):
        *more, last = (thawed(step) for _, step in last.steps)
        before += more
    before = [step for step in before if step is not None and not isinstance(step, str)]
    if isinstance(last, str):
        return before, None
    is_net = _is_learned(last) or is_skorch_net(getattr(last, "net", None)) or _is_module(last)
    if is_net or isinstance(last, RandomReLU):
        return before, last
    return [*before, last], None


def _features_graph(trunk, n_features, name):
    """Graph from "X" to the "features" of the end of a trunk, float64; see `_trunk_steps`."""
    if isinstance(trunk, RandomReLU):
        nodes = _Extension()
        nodes.take(MATRIX, len(trunk.directions_))
        _random_relu(nodes, trunk, MATRIX, FEATURES)
        return nodes.give(FEATURES, trunk.biases_.size)
    from skmsc.neural import TabularNet
    from skmsc.neural._module_nodes import write_features
    from skmsc.neural._net_features import batch_features
    from skmsc.neural._net_stage import runs_plainly, with_module
    from skmsc.neural._onnx import made_up_rows, ready_to_run, rows_like

    rows, write = made_up_rows(getattr(trunk, "n_features_in_", n_features)), None
    if _is_module(trunk):
        module = ready_to_run(trunk)

        def function(module, x):
            return module(x.float()).flatten(1).double()
    elif _is_ours(trunk, TabularNet, "features"):
        module = ready_to_run(trunk.net_.module_)
        rows = rows_like(module.standardise)

        def function(module, x):
            return module.features(x)

        def write(nodes, x):
            return [write_features(nodes, module, x)]
    else:
        net = trunk if is_skorch_net(trunk) else getattr(trunk, "net_", None)
        if not (is_skorch_net(net) and runs_plainly(net)):
            raise NotExportable(
                f"Stage {name!r}: {type(trunk).__name__} makes features in a way of its own."
            )
        module = ready_to_run(net.module_)
        inner = with_module(net, module)

        def function(module, x):
            return batch_features(inner, x.float())

    return _exported(name, module, function, rows, MATRIX, [FEATURES], write)


# --- graphs -------------------------------------------------------------------------------------
def _is_ours(net, cls, method):
    """Whether an estimator is of a class of ours and has the class's own method."""
    return isinstance(net, cls) and getattr(type(net), method) is getattr(cls, method)


def _exported(name, module, function, rows, takes, gives, write=None):
    """Graph of a function of a module; see `skmsc.neural._onnx.to_onnx`.

    ``write(nodes, x)``, where there is one, adds the nodes itself and gives the names of what they
    compute; where it raises NotWrittenError, and without it, torch exports the function.
    """
    from skmsc.neural._module_nodes import NotWrittenError
    from skmsc.neural._onnx import check_graph, to_onnx

    for needed in ("onnx", "onnxruntime"):
        optional(needed)
    try:
        try:
            graph = _written(write, module, function, rows, takes, gives)
        except NotWrittenError:
            optional("onnxscript")
            graph = to_onnx(module, function, rows, takes=takes, gives=gives, opset=OPSET)
        check_graph(graph, module, function, rows, takes)
    except ImportError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split("\n\n", 1)[0].split())
        raise NotExportable(
            f"Stage {name!r} cannot be exported: its net {type(module).__name__}: "
            f"{type(error).__name__}: {reason}"
        ) from error
    return graph


def _written(write, module, function, rows, takes, gives):
    """Graph of what ``write(nodes, x)`` adds, which computes a function of a module."""
    from skmsc.neural._module_nodes import NotWrittenError
    from skmsc.neural._onnx import run

    if write is None or rows.ndim != 2:
        raise NotWrittenError
    nodes = _Extension()
    nodes.take(takes, rows.shape[1], rows.numpy().dtype.name)
    tensors = write(nodes, takes)
    for tensor, output, like in zip(tensors, gives, run(module, function, rows), strict=True):
        nodes.rename(tensor, output)
        nodes.give(output, like.shape[1], like.numpy().dtype.name)
    return nodes.model


def _take_columns(graph, inputs, name):
    """A graph on "X" that takes the columns of `inputs` in its place, where there are any."""
    if inputs.columns is None:
        return graph
    rows = Graph(inputs, name)
    table = rows.model(inputs, FEATURES, rows.matrix(rows.table, "a net"), inputs.n_features)
    return chain(table, graph)


class _Extension(Nodes):
    """A graph that goes on from another one.

    Parameters
    ----------
    model : onnx.ModelProto, default=None
        What is there already, copied; None: nothing.
    """

    def __init__(self, model=None):
        onnx = optional("onnx")
        self.model = onnx.ModelProto()
        if model is None:
            self.model.ir_version = IR_VERSION
            self.model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
            self.model.graph.name = "graph"
        else:
            self.model.CopyFrom(model)
        graph = self.model.graph
        used = {part.name for part in (*graph.input, *graph.initializer)}
        used.update(name for node in graph.node for name in node.output)
        super().__init__(graph.node, graph.initializer, used)

    def take(self, name, width, dtype="float64"):
        """Declare an input of shape (n, width)."""
        self.model.graph.input.append(self.value_info(name, dtype, width))

    def give(self, name, width, dtype="float64"):
        """Declare an output of shape (n, width), and return the model."""
        self.model.graph.output.append(self.value_info(name, dtype, width))
        return self.model

    def linear(self, x, coef, intercept, output=None):
        """Add ``x @ coef + intercept``; return the name of its output."""
        return self.add("Gemm", x, coef, intercept, output=output)
