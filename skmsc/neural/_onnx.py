"""Torch modules as ONNX graphs, by torch's own exporter."""

import logging
import warnings
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import torch

_ROWS = "n"  # name of the axis of rows
_AGREEMENT = 1e-4  # of graph and module, relative to the largest value


def ready_to_run(module):
    """A copy of a fitted module on the CPU and in eval mode, without `torch.compile`."""
    module = deepcopy(getattr(module, "_orig_mod", module)).cpu().eval()
    trunk = getattr(module, "trunk", None)
    is_tabm = type(trunk).__module__ == "tabm" and type(trunk).__name__ == "TabM"
    if is_tabm and trunk.cat_module is None:
        module.trunk = _without_stacking(trunk)
    return module


def _without_stacking(trunk):
    """A TabM of numbers only, whose way to stack what it is given takes a loop in ONNX."""
    before = [] if trunk.num_module is None else [trunk.num_module, torch.nn.Flatten(1)]
    after = [] if trunk.output is None else [trunk.output]
    return torch.nn.Sequential(*before, trunk.ensemble_view, trunk.backbone, *after)


def rows_like(standardise, n_rows=6):
    """Rows (n_rows, n) like those that a `Standardise` was made for; one is far out.

    Where missing values are allowed one row has some.
    """
    z = made_up_rows(standardise.centre.numel(), n_rows)
    z[0] *= 100.0
    if standardise.impute:
        z[1, ::2] = torch.nan
    return standardise.centre + z / standardise.rate


def made_up_rows(n_features, n_rows=6):
    """Normal rows (n_rows, n_features), float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n_rows, n_features, dtype=torch.float64, generator=generator)


def run(module, function, rows):
    """Tuple of what a function of a module gives for rows."""
    with torch.no_grad():
        output = function(module, rows.clone())
    return output if isinstance(output, tuple) else (output,)


def to_onnx(module, function, rows, *, takes, gives, opset):
    """Graph of a function of a module and of rows.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU and in eval mode.
    function : callable
        ``function(module, x)`` gives a tensor or a tuple of tensors with a row for each row of x.
    rows : torch.Tensor of shape (n_rows, ...)
        Rows to look at, at least two.
    takes : str
        Name of the graph's input.
    gives : list of str
        Names of its outputs.
    opset : int
        Of the main domain.

    Returns
    -------
    model : onnx.ModelProto
        With all weights in it.

    Raises
    ------
    Exception
        Whatever torch's exporter raises for what it cannot export.
    """

    class Function(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, x):
            return function(self.module, x.clone())  # it may be overwritten

    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _traced(Function().eval(), rows),
            dynamo=True,
            input_names=[takes],
            output_names=gives,
            opset_version=opset,
            verbose=False,
        )
    return _lean(program.model_proto)


def _traced(module, rows):
    """What a module computes of any number of rows, an `ExportedProgram`."""
    shapes = ({0: torch.export.Dim(_ROWS)},)
    try:
        return torch.export.export(module, (rows,), dynamic_shapes=shapes)
    except Exception:  # the other way is slower, and understands more, such as len(x)
        return torch.export.export(module, (rows,), dynamic_shapes=shapes, strict=True)


@contextmanager
def _quiet():
    """Without what torch's exporter says of itself, whoever calls it."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")

    def is_ours(record):
        return "torchvision is not installed" not in record.getMessage()

    logger.addFilter(is_ours)
    try:
        with warnings.catch_warnings():
            # A deprecated call inside of torch.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        logger.removeFilter(is_ours)


def _lean(model):
    """The same graph without notes on where it comes from, such as paths on this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _ROWS
    return model


def check_graph(model, module, function, rows, takes):
    """Raise RuntimeError unless a graph gives what a function of a module gives.

    Looked at are several rows and one; the arguments are those of `to_onnx`, whose graph it is.
    """
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1
    session = InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for some in (rows, rows[-1:]):
        expected = run(module, function, some)
        given = session.run(None, {takes: some.numpy()})
        for mine, theirs in zip(given, expected, strict=True):
            theirs = theirs.numpy()
            finite = theirs[np.isfinite(theirs)]
            atol = _AGREEMENT * max(1.0, np.abs(finite).max(initial=0.0))
            if mine.shape != theirs.shape or not np.allclose(
                mine, theirs, rtol=0, atol=atol, equal_nan=True
            ):
                raise RuntimeError("the graph of the module does not give what the module gives")
