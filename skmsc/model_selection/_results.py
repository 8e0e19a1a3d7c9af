"""Scores of a search's candidates as a table: ``cv_results_``, ranks, the front."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from skmsc._checks import warn

# What is told of every setting beside its scores; less is better.
BILL = ("cost", "pass_rate")


@dataclass(frozen=True)
class ResultTable:
    """Scores and times of all candidates, arrays of shape (n_candidates, n_splits).

    `names` are those of the scorers; `scores` holds cost and pass rate, too.
    """

    names: list
    scores: dict
    times: dict

    @classmethod
    def of_outcomes(cls, outcomes, error_score):
        """From dicts of shape (n_candidates, n_splits)."""
        names = next(list(one["scores"]) for row in outcomes for one in row if "scores" in one)

        def array(value):
            return np.array([[value(one) for one in row] for row in outcomes], dtype=np.float64)

        failed = dict.fromkeys(names, error_score)
        scores = {n: array(lambda one, n=n: one.get("scores", failed)[n]) for n in names}
        scores |= {n: array(lambda one, n=n: one.get(n, np.nan)) for n in BILL}
        times = {n: array(lambda one, n=n: one[n]) for n in ("fit_time", "score_time")}
        return cls(names, scores, times)

    def flat(self):
        """The same of arrays whose candidates have two axes."""
        parts = [
            {name: values.reshape(-1, values.shape[-1]) for name, values in part.items()}
            for part in (self.scores, self.times)
        ]
        return ResultTable(self.names, *parts)

    def format(self, candidates):
        """``cv_results_`` for candidates, a dict of parameters to lists of values."""
        results = {}
        for name, values in self.times.items():
            results[f"mean_{name}"], results[f"std_{name}"] = (
                values.mean(axis=1),
                values.std(axis=1),
            )
        for name, values in candidates.items():
            results[f"param_{name}"] = _masked(values)
        results["params"] = [
            dict(zip(candidates, one, strict=True))
            for one in zip(*candidates.values(), strict=True)
        ]
        for name, values in self.scores.items():
            if name == "cost" and np.isnan(values).all():
                continue  # not known
            results |= {f"split{i}_test_{name}": column for i, column in enumerate(values.T)}
            mean = np.average(values, axis=1)
            results[f"mean_test_{name}"] = mean
            results[f"std_test_{name}"] = values.std(axis=1)
            results[f"rank_test_{name}"] = _rank(-mean if name in BILL else mean)
            if name in self.names and not np.isfinite(mean).all():
                warn(f"One or more of the test scores are non-finite: {mean}")
        return results


def _masked(values):
    """Values of a parameter as a masked array, of objects unless they are plain numbers."""
    try:
        array = np.array(values)
    except ValueError:  # of several lengths
        array = None
    if array is None or array.ndim != 1 or array.dtype.kind == "U":
        array = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            array[i] = value
    return np.ma.MaskedArray(array, mask=np.zeros(len(values), dtype=bool))


def _rank(mean):
    """Ranks, 1 the highest; nan ties with the worst, all are 1 where all are nan."""
    if np.isnan(mean).all():
        return np.ones(mean.size, dtype=np.int32)
    mean = np.nan_to_num(mean, nan=np.nanmin(mean) - 1)
    return rankdata(-mean, method="min").astype(np.int32)


def pareto_front(price, score):
    """Indices of the rows that no other beats, of low price and high score, cheapest first."""
    known = np.flatnonzero(~np.isnan(price) & ~np.isnan(score))
    if not known.size:
        return known
    _, at = np.unique(price[known], return_inverse=True)
    best = np.full(at.max() + 1, -np.inf)
    np.maximum.at(best, at, score[known])
    cheaper = np.concatenate([[-np.inf], np.maximum.accumulate(best)[:-1]])
    on_front = (score[known] == best[at]) & (score[known] > cheaper[at])
    front = known[on_front]
    return front[np.argsort(price[front], kind="stable")]
