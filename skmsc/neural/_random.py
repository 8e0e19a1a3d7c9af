"""Random numbers of one net at a time."""

import threading
from contextlib import contextmanager

import torch

# Torch has one generator of random numbers per process, from which weights, dropout and the order
# of batches come: nets are trained one after the other, or the same seed would not give the same
# net. Training uses all cores anyway.
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def own_random_numbers(seed, device):
    """Seed torch's generators, for one net at a time, and leave them as they were afterwards."""
    devices = [device] if device.type == "cuda" else []
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
