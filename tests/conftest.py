"""What all tests share."""

import sys

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _global_seed():
    """One seed for estimators with ``random_state=None``, and for tensors drawn by tests.

    Estimators draw from NumPy's global generator. Unseeded, a net on few rows stops too early in
    a few of a hundred runs, and its warning fails whichever test it comes up in.
    """
    np.random.seed(0)  # noqa: NPY002 (the generator that scikit-learn falls back to)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
