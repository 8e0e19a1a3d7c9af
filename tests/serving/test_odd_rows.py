"""Rows in any form end in an exported classifier as in the classifier: an answer or an error."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from skmsc import FeedbackCascadeClassifier, PassBudget, serving

NAMES = list("pqr")
RNG = np.random.default_rng(0)
X = RNG.integers(0, 60, size=(120, 3)).astype(float)
Y = (X[:, 0] + 20 * RNG.normal(size=120) > 45).astype(int)
WITH_NAN = np.where(np.arange(360).reshape(120, 3) % 23 == 7, np.nan, X)

pytestmark = pytest.mark.filterwarnings(
    "ignore:X (does not have valid|has) feature names:UserWarning"
)


def boosted(max_iter):
    return HistGradientBoostingClassifier(max_iter=max_iter, min_samples_leaf=5)


@pytest.fixture(scope="module", params=["array", "frame", "nan", "frame with nan"])
def pair(request, tmp_path_factory):
    """A cascade and its export."""
    first, last = LogisticRegression(), RandomForestClassifier(3, max_depth=3, random_state=0)
    rows = X
    if "nan" in request.param:
        first, last, rows = boosted(2), boosted(5), WITH_NAN
    if "frame" in request.param:
        rows = pd.DataFrame(rows, columns=NAMES)
    model = FeedbackCascadeClassifier(
        [("screen", first), ("final", last)], thresholds=PassBudget(0.4), cv=2, random_state=0
    ).fit(rows, Y)
    path = tmp_path_factory.mktemp("odd") / "m"
    serving.export(model, path, rows)
    return model, serving.load(path)


def frame(dtype):
    return lambda rows: pd.DataFrame(rows, columns=NAMES).astype(dtype)


FORMS = {
    **{dtype: lambda rows, dtype=dtype: rows.astype(dtype) for dtype in ("f4", ">f8", "g", "O")},
    "i8": lambda rows: np.nan_to_num(rows).astype("i8"),
    "Fortran": np.asfortranarray,
    "strided": lambda rows: rows.repeat(2, axis=0).repeat(3, axis=1)[::2, ::3],
    "masked": np.ma.array,
    "list": np.ndarray.tolist,
    "None": lambda rows: np.where(np.isnan(rows), None, rows),
    "complex": lambda rows: rows + 1j,
    "vector": np.ravel,
    "deep": lambda rows: rows[None],
    "few": lambda rows: rows[:, :2],
    "none": lambda rows: rows[:0],
    "pandas": frame(float),
    "pandas Float64": frame("Float64"),
    "pandas of Arrow": frame("double[pyarrow]"),
    "pandas of objects": frame(object),
    "pandas, few": lambda rows: frame(float)(rows)[["p", "q"]],
    "polars": lambda rows: pl.DataFrame(rows, schema=NAMES),
}
numbers = st.integers(0, 60).map(float) | st.sampled_from([np.nan, -0.0, 1e-300])
some_rows = st.integers(1, 3).flatmap(lambda n: arrays(float, (n, 3), elements=numbers))


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(plain=some_rows, form=st.sampled_from(list(FORMS)))
def test_as_the_classifier(pair, plain, form):
    outcomes = []
    for model in pair:
        try:
            outcomes.append(model.predict_proba(FORMS[form](plain)))
        except (ValueError, TypeError) as error:
            outcomes.append(type(error))
    expected, found = outcomes
    if isinstance(expected, type):
        assert isinstance(found, type)
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
