"""How calls are timed against each other, and their memory measured."""

from __future__ import annotations

import time
import tracemalloc
from contextlib import contextmanager

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.objective import markdown_table


@contextmanager
def torch_threads(n_threads):
    """So many threads for torch and for all others, in the process at hand."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with threadpool_limits(n_threads):
            yield
    finally:
        torch.set_num_threads(before)


def interleaved(calls, *, baseline, seconds, n_calls=1, min_turns=5, warm=True, work=None):
    """Times of `calls` (name -> function), run in turn for `seconds`, and their ratios.

    A turn runs each call once untimed (if `warm`), then `n_calls` times: else a small call pays
    for the caches that the forest before it emptied. The order of the calls changes from turn to
    turn. Ratios are taken within a turn, so that a slow spell of the machine stands on both sides.
    Where calls do unequal work, `work` (name -> amount) says how much, and times are those of one
    unit of it.

    Returns
    -------
    timings : dict of str to dict
        ``wall_s`` and ``cpu_s``, the medians; ``ratio``, the median over turns of the ratio of CPU
        times to `baseline`, with its quartiles in ``ratio_quartiles``; ``wall_ratio``, the same of
        wall times. On one thread of an idle machine the two ratios agree; other work on it
        disturbs CPU time far less.
    """
    names, turns = list(calls), []
    order = np.random.default_rng(0)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(turns) < min_turns:
        turn = np.empty((len(names), 2, n_calls))
        for i in order.permutation(len(names)):
            call = calls[names[i]]
            if warm:
                call()
            for j in range(n_calls):
                wall, cpu = time.perf_counter(), time.process_time()
                call()
                turn[i, :, j] = time.perf_counter() - wall, time.process_time() - cpu
        turns.append(np.median(turn, axis=-1))
    seconds_of = np.array(turns)  # (n_turns, n_calls by name, wall and CPU)
    if work is not None:
        seconds_of /= np.array([work[name] for name in names])[:, None]
    ratios = seconds_of / seconds_of[:, [names.index(baseline)]]
    (wall_s, cpu_s), (wall_ratio, ratio) = (np.median(a, axis=0).T for a in (seconds_of, ratios))
    quartiles = np.quantile(ratios[..., 1], (0.25, 0.75), axis=0).T
    columns = zip(wall_s, cpu_s, ratio, quartiles, wall_ratio, strict=True)
    return {
        name: {
            "wall_s": float(w),
            "cpu_s": float(c),
            "ratio": float(r),
            "ratio_quartiles": q.tolist(),
            "wall_ratio": float(wr),
        }
        for name, (w, c, r, q, wr) in zip(names, columns, strict=True)
    }


def timed(call, *given, **params):
    """What one call returns, and its CPU seconds."""
    start = time.process_time()
    result = call(*given, **params)
    return result, time.process_time() - start


def memory_peak(call):
    """Peak of the traced memory, in bytes, that `call` allocates."""
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def timing_table(keys, records, baseline):
    """Records of `interleaved` as a table; `keys` name the fields that tell them apart."""

    def row(record):
        low, high = record["ratio_quartiles"]
        return [
            *(record[key] for key in keys),
            f"{1000 * record['wall_s']:.3f}",
            f"{record['ratio']:.3f} ({low:.3f} to {high:.3f})",
            f"{record['wall_ratio']:.3f}",
        ]

    header = [*keys, "ms", f"times {baseline}, CPU", "wall"]
    return markdown_table(header, [row(record) for record in records])
