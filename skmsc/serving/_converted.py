"""What has no graph of our own, as skl2onnx writes it."""

from skmsc.serving._graph import optional, width
from skmsc.serving._inputs import MATRIX


def converted(g, part, table, output):
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
    output : {"probabilities", "variable"}
        What skl2onnx calls what is wanted: of a classifier, of a transformer.

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
    options = {id(part): {"zipmap": False}} if output == "probabilities" else None
    try:
        model = skl2onnx.to_onnx(
            part, initial_types=[(MATRIX, rows)], options=options, target_opset={"": 18}
        )
    except Exception as error:  # of several kinds, most of them its own
        reason = " ".join(str(error).split())[:300]
        raise g.refusal(
            part, f"there is no graph for this class here, and skl2onnx says: {reason}"
        ) from error
    return g.cast(g.embed(model, table, part, output), "float64")
