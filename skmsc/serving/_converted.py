"""What has no graph of our own, as skl2onnx writes it."""

from sklearn.base import is_classifier

from skmsc.serving._graph import ML, ML_OPSET, OPSET, optional, width
from skmsc.serving._inputs import MATRIX


def converted(g, part, table):
    """Add skl2onnx's nodes of a fitted estimator of scikit-learn.

    They may compute in float32, less exactly than the nodes written here.

    Parameters
    ----------
    g : Graph
        The graph under construction.
    part : estimator
        The fitted estimator.
    table : list of Block
        The columns that it takes.

    Returns
    -------
    tensor : str
        Name of a float64 tensor with one row for each row of the table.

    Raises
    ------
    NotExportable
        When skl2onnx cannot, with its reason.
    """
    skl2onnx = optional("skl2onnx")
    types = optional("skl2onnx.common.data_types")
    rows = types.DoubleTensorType([None, width(table)])
    options = {id(part): {"zipmap": False}} if is_classifier(part) else None
    try:
        model = skl2onnx.to_onnx(
            part, initial_types=[(MATRIX, rows)], options=options, target_opset={"": 18}
        )
    except Exception as error:  # of several kinds, most of them its own
        raise _refusal(g, part, error) from error
    for node in model.graph.node:
        if node.domain not in ("", ML) or _is_gone(g, node):
            raise _refusal(g, part, f"the operator {node.op_type}, which onnxruntime may not have")
    # The last output is what is wanted: labels come before probabilities.
    return g.cast(g.embed(model, table, part, model.graph.output[-1].name), "float64")


def _is_gone(g, node):
    """Whether the operator has gone by the versions that all graphs here have."""
    version = ML_OPSET if node.domain == ML else OPSET
    return g.onnx.defs.get_schema(node.op_type, version, node.domain).deprecated


def _refusal(g, part, reason):
    told = " ".join(str(reason).split())[:300]
    return g.refusal(part, f"there is no graph for this class here, and skl2onnx gives: {told}")
