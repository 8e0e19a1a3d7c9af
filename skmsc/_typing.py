"""Words for the types in public signatures. Only type checkers import this.

Many are `Any` to a type checker, as scikit-learn, SciPy's sparse matrices and most dataframes have
no types for one; their names say what is meant.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.intp]

Rows: TypeAlias = Any  # array-like, sparse matrix or dataframe of shape (n_samples, n_features)
Label: TypeAlias = Any  # whatever may be a class
Estimator: TypeAlias = Any  # classifier, pipeline or search; a transformer where one is asked for
Splitter: TypeAlias = Any  # int, splitter, iterable of splits or None

RandomState: TypeAlias = int | np.random.RandomState | None
Duration: TypeAlias = str | float | timedelta | np.timedelta64
StageCosts: TypeAlias = ArrayLike | Mapping[str, float] | None
OnStageError: TypeAlias = Literal["raise", "answer_earlier", "alert"]


class Policy(Protocol):
    """What finds thresholds from a `skmsc.thresholds.StageScores`."""

    def find_thresholds(self, scores: Any) -> ArrayLike:
        """Threshold matrix of shape (n_stages, n_classes)."""


Thresholds: TypeAlias = ArrayLike | Policy | None

Strategy: TypeAlias = Any  # an estimator as `RidgeHead()`, or a callable where one may be given
