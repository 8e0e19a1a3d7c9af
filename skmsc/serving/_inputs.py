"""What a graph takes of each row: one matrix of numbers, or columns of any type."""

from dataclasses import dataclass

MATRIX = "X"  # name of the only input of a graph on a matrix
SCORES = "scores"  # name of the output with the class scores of a stage
FEATURES = "/features"  # name of the output of transformers, which no column has

# The types of columns, as NumPy calls them, and the ONNX tensor each becomes.
TYPES = ("float64", "int64", "bool", "str")

# What stands for a missing value (None or nan) in a column of strings.
MISSING = "\ue000missing"  # begins with a character of no script, so that no data has it


def is_missing(value):
    """Whether this is None, nan or pandas' NA, which is not equal to anything that is a bool."""
    return value is None or type(value).__name__ == "NAType" or value != value


class NotExportable(ValueError):
    """A stage that cannot be written as an ONNX graph; the message tells which and why.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skmsc import FeedbackCascadeClassifier, serving
    >>> X, y = make_classification(weights=[0.9], random_state=0)
    >>> own = make_pipeline(FunctionTransformer(lambda X: X**3), LogisticRegression())
    >>> cascade = FeedbackCascadeClassifier([("screen", own), ("final", own)], thresholds=0.1)
    >>> try:
    ...     serving.export(cascade.fit(X, y), "cascade.skmsc")
    ... except serving.NotExportable as error:
    ...     print(str(error).partition(":")[0])
    Stage 'screen' cannot be exported
    """


@dataclass(frozen=True)
class Inputs:
    """What a graph takes of each row.

    Attributes
    ----------
    n_features : int
        Number of columns of a row.
    columns : tuple of (str, str), or None
        Name and type (one of `TYPES`) of each column of a dataframe, each an input of its own of
        shape (n_samples, 1) with the column's name. None: one float64 input named "X" of shape
        (n_samples, n_features).
    """

    n_features: int
    columns: tuple | None = None
