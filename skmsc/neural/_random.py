"""Random numbers of one net at a time."""

import threading
from contextlib import contextmanager

import torch

# Torch has one generator of random numbers per process and device, from which weights, dropout and
# the order of batches come: nets are trained one after the other, or the same seed would not give
# the same net. Training uses all cores anyway.
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def own_random_numbers(seed, device):
    """Seed the generators that a net uses, for one net at a time, and restore them afterwards."""
    with _ONE_AT_A_TIME:
        generators = [torch.default_generator]
        if device.type == "cuda":
            torch.cuda.init()
            index = torch.cuda.current_device() if device.index is None else device.index
            generators.append(torch.cuda.default_generators[index])
        states = [generator.get_state() for generator in generators]
        try:
            for generator in generators:
                generator.manual_seed(seed)
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
