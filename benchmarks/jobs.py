"""Long benchmarks: jobs side by side, what they found kept while the others run."""

from __future__ import annotations

import json
import time
from pathlib import Path

from joblib import Parallel, cpu_count, delayed, parallel_config


def run_jobs(run, jobs, name, *, quick):
    """Records of all jobs, a list of which ``run(job)`` gives for each.

    Whenever a job ends, all records so far are written to ``results/<name>_unfinished.json``, so
    that an interrupted run can be summed up.
    """
    folder = Path(__file__).parent / "results" / ("quick" if quick else "")
    folder.mkdir(parents=True, exist_ok=True)
    records, start = [], time.perf_counter()
    # One thread a fit and a fit a core: small matrix products gain little from threads.
    with parallel_config("loky", n_jobs=cpu_count(), inner_max_num_threads=1):
        results = Parallel(return_as="generator_unordered")(delayed(_run)(run, job) for job in jobs)
        for job, found in results:
            records += found
            (folder / f"{name}_unfinished.json").write_text(json.dumps(records), encoding="utf-8")
            told = " ".join(map(str, job))
            print(f"{time.perf_counter() - start:5.0f} s  {told}", flush=True)
    return records


def _run(run, job):
    """A job and its records."""
    return job, run(job)
