"""Small checks of arguments."""

from numbers import Real

import numpy as np


def is_number(value):
    """Whether the value is a real number; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


def as_numbers(values, message):
    """The values as a float64 array; raises TypeError with the message when they are no numbers."""
    try:
        array = np.asarray(values)
    except ValueError:  # ragged
        raise TypeError(message) from None
    if array.dtype.kind not in "iuf" and array.size:
        raise TypeError(message)
    return array.astype(np.float64)
