"""Products that gain nothing from threads are computed on one thread of the BLAS.

Threads that OpenBLAS used spin on for a while, in wait for more, and keep the cores from the OpenMP
threads of the stage that runs next. What that costs is measured in
``benchmarks/threads.py``; `skmsc.neural._threads` is about the threads of nets.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import cache
from threading import Lock

from threadpoolctl import ThreadpoolController

__all__ = []  # for the package's own use

_LEAST_ROWS = 1_000  # with fewer a BLAS starts no threads
_MOST_OUTPUTS = 32
_LIMITING = Lock()


def limit_blas(n_rows, n_outputs):
    """Context for products of so many rows with the weights of so many outputs.

    With few outputs it takes as long to read the rows as to multiply them, which more threads do no
    sooner. A BLAS would take them all the same.
    """
    is_read = n_rows >= _LEAST_ROWS and n_outputs <= _MOST_OUTPUTS
    return one_blas_thread() if is_read else nullcontext()


@contextmanager
def one_blas_thread():
    """Context in which the BLAS libraries of the process use one thread.

    Their number is the process's, and the thread that changed it must be the one that changes it
    back: while one is at it, others leave it alone. As with any two users of threadpoolctl, another
    limit that begins meanwhile in another thread, and ends later, ends with the number it found.
    """
    if not _LIMITING.acquire(blocking=False):
        yield
        return
    try:
        with libraries("blas").limit(limits=1):
            yield
    finally:
        _LIMITING.release()


@cache
def libraries(user_api):
    """Controller of the "blas" or "openmp" libraries that are loaded at the first call."""
    return ThreadpoolController().select(user_api=user_api)
