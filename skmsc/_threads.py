"""How many threads libraries use for work that gains nothing from many, and wakes or blocks them.

Threads that OpenBLAS used spin on for some 30 ms, in wait for more, and keep the cores from the
OpenMP threads of the stage that runs next; a thread that sleeps takes long to wake on a virtual
machine. What it costs is measured in ``benchmarks/threads.py``.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import cache
from threading import Lock

from threadpoolctl import ThreadpoolController

__all__ = []  # for the package's own use

_WORTH_THREADS = 25_000_000  # multiply-adds, about a millisecond of one thread
_ROWS_OF_THREADS = 1_000  # below which a BLAS works on one thread anyway
_FEW_OUTPUTS = 32


_LIMITING = Lock()


@contextmanager
def one_blas_thread():
    """Context in which the BLAS libraries of the process use one thread.

    Their number is the process's, and the thread that changed it must be the one that changes it
    back: while one is at it, others leave it alone.
    """
    if not _LIMITING.acquire(blocking=False):
        yield
        return
    try:
        with _libraries("blas").limit(limits=1):
            yield
    finally:
        _LIMITING.release()


def threads_to_read(n_rows, n_outputs):
    """Context for products of so many rows and the weights of so many outputs.

    With few outputs the rows are read for as long as they are multiplied, which more threads do
    no sooner. A BLAS would take them all the same.
    """
    starts_threads = n_rows >= _ROWS_OF_THREADS and n_outputs <= _FEW_OUTPUTS
    return one_blas_thread() if starts_threads else nullcontext()


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
