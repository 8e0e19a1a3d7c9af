"""Small predictions of nets run on one thread.

A thread that sleeps takes milliseconds to wake on a virtual machine, longer than the work that it
would take over; see ``benchmarks/threads.py``.
"""

from contextlib import nullcontext

import torch

from skmsc._threads import libraries

# Multiply-adds: below the first torch starts no threads, above the second, a millisecond or so of
# wide layers on one thread, they are worth their price.
_LEAST, _MOST = 300_000, 25_000_000


def limit_openmp(n_multiply_adds):
    """Context for so many multiply-adds in all; few are computed on one thread.

    OpenMP has a number of threads for each thread that starts loops: that of the calling thread
    changes, and no other's.
    """
    if not _LEAST <= n_multiply_adds <= _MOST:
        return nullcontext()
    torch.get_num_threads()  # which sets the number of a thread that is new to torch
    return libraries("openmp").limit(limits=1)
