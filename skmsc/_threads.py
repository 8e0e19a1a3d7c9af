"""How many threads libraries use for work that gains nothing from many, and wakes or blocks them.

Threads that OpenBLAS used spin on for some 30 ms, in wait for more, and keep the cores from the
OpenMP threads of the stage that runs next; a thread that sleeps takes long to wake on a virtual
machine. What it costs is measured in ``benchmarks/threads.py``.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from threading import Lock

from threadpoolctl import ThreadpoolController

__all__ = []  # for the package's own use

_WORTH_THREADS = 25_000_000  # multiply-adds, about a millisecond of one thread
_ROWS_OF_THREADS = 1_000  # below which a BLAS works on one thread anyway
_FEW_OUTPUTS = 32


class _OneBlasThread:
    """Context in which the BLAS libraries of the process use one thread.

    Their number of threads is the process's: it changes when the first thread of it enters, and
    back when the last one leaves.
    """

    def __init__(self):
        self._lock, self._n_inside, self._limit = Lock(), 0, None

    def __enter__(self):
        with self._lock:
            if self._n_inside == 0:
                self._limit = _libraries("blas").limit(limits=1)
            self._n_inside += 1

    def __exit__(self, *_):
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._limit.restore_original_limits()


one_blas_thread = _OneBlasThread()


def threads_to_read(n_rows, n_outputs):
    """Context for products of so many rows and the weights of so many outputs.

    With few outputs the rows are read for as long as they are multiplied, which more threads do
    no sooner. A BLAS would take them all the same.
    """
    starts_threads = n_rows >= _ROWS_OF_THREADS and n_outputs <= _FEW_OUTPUTS
    return one_blas_thread if starts_threads else nullcontext()


def threads_for(n_multiply_adds):
    """Context for matrix products of a net that need so many multiply-adds in all.

    Few are computed on one thread. Only the OpenMP loops that the calling thread starts, as torch's
    are, change: OpenMP has a number of threads for each thread.
    """
    if n_multiply_adds > _WORTH_THREADS:
        return nullcontext()
    return _libraries("openmp").limit(limits=1)


@cache
def _libraries(user_api):
    """Controller of the libraries that are loaded at the first call."""
    return ThreadpoolController().select(user_api=user_api)
