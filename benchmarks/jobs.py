"""Long benchmarks: jobs side by side, what they found kept while the others run."""

from __future__ import annotations

import json
import time
from pathlib import Path

from joblib import Parallel, cpu_count, delayed, parallel_config


def run_jobs(run, jobs, name, *, quick):
    """Records of all jobs, in their order; ``run(job)`` gives a list of them.

    Give the longest jobs first: the last of them should not keep one core busy alone. Whenever a
    job ends, all records so far are written to ``results/<name>_unfinished.json``, so that an
    interrupted run can be summed up.
    """
    folder = Path(__file__).parent / "results" / ("quick" if quick else "")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{name}_unfinished.json"
    found, start = {}, time.perf_counter()
    # One thread a fit and a fit a core: small matrix products gain little from threads.
    with parallel_config("loky", n_jobs=cpu_count(), inner_max_num_threads=1):
        results = Parallel(return_as="generator_unordered")(
            delayed(_run)(run, i, job) for i, job in enumerate(jobs)
        )
        for i, records in results:
            found[i] = records
            unfinished.write_text(json.dumps(in_order(found)), encoding="utf-8")
            told = " ".join(map(str, jobs[i]))
            print(f"{time.perf_counter() - start:5.0f} s  {told}", flush=True)
    return in_order(found)


def in_order(found):
    """Records of the jobs that have ended."""
    return [record for i in sorted(found) for record in found[i]]


def _run(run, i, job):
    """The number of a job, and its records."""
    return i, run(job)
