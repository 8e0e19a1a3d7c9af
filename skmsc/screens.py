"""A first stage that composes: one copy of a classifier for each class, against all others."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.utils.parallel import delayed

from skmsc.calibration import fit_calibration
from skmsc.costs import count_multiply_adds
from skmsc.out_of_fold import run_jobs, seeds_for
from skmsc.stages import StageScorer, fit_stage, split_costly

__all__ = []  # for the package's own use

_LEAST = 1e-12  # probability of a class that a copy is sure of is not


@dataclass(frozen=True)
class Screen:
    """A first stage as one-against-the-others classifiers.

    Attributes
    ----------
    scorers : dict of label to StageScorer
        Of the classes that it has seen.
    shares : dict of label to float
        Share of the rows that thresholds were set on, or were told of, that it answers so.
    fetch : CostlyFeatures or None
        Fitted; features that all copies share, fetched once for a row.
    closed : dict of label to (float, frozenset of labels), or None
        Classes that it no longer answers: their thresholds before, and the classes that it never
        saw whose rows it answered so.
    """

    scorers: dict
    shares: dict
    fetch: object = None
    closed: dict | None = None

    @classmethod
    def fit(cls, stage, fitter, labels, params, *, n_jobs, progress):
        """Fit a copy for each class on the rows of a `CrossFitter`."""
        weight, X = fitter.sample_weight, fitter.X
        fetch, stage = split_costly("first_stage", stage)
        if fetch is not None:
            _, fetch = fetch
            X = fetch.fit_transform(X)
        jobs = [
            delayed(fit_stage)(
                stage,
                X,
                fitter.codes == k,
                weight=weight,
                sample_weight=weight,
                seed=seed,
                params=params,
            )
            for k, seed in enumerate(seeds_for(fitter.seed, "first_stage", len(labels)))
        ]
        parts = [f"class {label!r}" for label in labels.tolist()]
        fitted = run_jobs(jobs, "stage 'first_stage'", parts, n_jobs, progress)
        scorers = {}
        for k, label in enumerate(labels.tolist()):
            scorer = StageScorer.of("first_stage", fitted[k], np.array([False, True]))
            if not scorer.has_proba:
                decision_map = fit_calibration(
                    "sigmoid",
                    scorer.raw(X),
                    (fitter.codes == k).astype(np.intp),
                    np.ones(len(fitter.codes)) if weight is None else weight,
                    from_decisions=True,
                )
                scorer = replace(scorer, decision_map=decision_map)
            scorers[label] = scorer
        return cls(scorers, {}, fetch)

    def log_odds(self, X, labels):
        """Log-odds of classes (n_samples, n_labels); -inf of those that it never saw."""
        labels = labels.tolist()
        odds = np.full((X.shape[0], len(labels)), -np.inf)
        if self.fetch is not None:
            X = self.fetch.transform(X)
        for k, label in enumerate(labels):
            if label in self.scorers:
                proba = np.clip(self.scorers[label](X)[:, 1], _LEAST, 1 - _LEAST)
                odds[:, k] = np.log(proba) - np.log1p(-proba)
        return odds

    def only(self, labels):
        """The same for some classes."""
        scorers, shares = (
            {label: part[label] for label in labels.tolist() if label in part}
            for part in (self.scorers, self.shares)
        )
        return replace(self, scorers=scorers, shares=shares)

    def close(self, cuts, labels, because):
        """The same, and thresholds by label, once it no longer answers some classes."""
        closed = dict(self.closed or {})
        for label in labels:
            before, reasons = closed.get(label, (cuts[label], frozenset()))
            closed[label] = before, reasons | frozenset(because)
        return replace(self, closed=closed), {**cuts, **dict.fromkeys(labels, np.inf)}

    def reopen(self, cuts, gone):
        """The same, and thresholds by label, once a class has gone."""
        closed, cuts = {}, dict(cuts)
        for label, (before, reasons) in (self.closed or {}).items():
            if reasons - {gone}:
                closed[label] = before, reasons - {gone}
            else:
                cuts[label] = before
        return replace(self, closed=closed), cuts

    def told(self, answered, labels, weight):
        """The same, told of the positions of the labels that rows were answered with."""
        total = max(weight.sum(), 1e-300)
        shares = {
            label: float(weight[answered == k].sum() / total)
            for k, label in enumerate(labels.tolist())
        }
        return replace(self, shares=shares)

    def count_multiply_adds(self):
        """Multiply-adds of one row in all copies; None where they cannot be counted."""
        counts = [count_multiply_adds(scorer.estimator) for scorer in self.scorers.values()]
        return None if None in counts else sum(counts)


def find_violations(answered, y, weight, n_known, tolerated):
    """Known classes that rows of new classes are answered as, and by what share of one of them.

    Parameters
    ----------
    answered : ndarray of shape (n_samples,)
        Position of the known class that a row is answered with; -1 where it passes.
    y, weight : ndarrays of shape (n_samples,)
        The rows' new labels and weights.
    n_known : int
        Number of known classes.
    tolerated : float
        Share of the rows of a new class that is not yet a violation.

    Returns
    -------
    shares : dict of int to float
        By position of the known class.
    """
    shares = np.zeros(n_known)
    for label in np.unique(y):
        mine = y == label
        counts = np.bincount(answered[mine] + 1, weight[mine], minlength=n_known + 1)[1:]
        shares = np.maximum(shares, counts / weight[mine].sum())
    return {k: float(shares[k]) for k in np.flatnonzero(shares > tolerated).tolist()}
