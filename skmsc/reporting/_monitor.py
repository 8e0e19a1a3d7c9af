"""The monitor: new rows against earlier ones, such as those that the thresholds were set on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import chi2_contingency

from skmsc.reporting._table import StageTable, binomial_interval, effective_size
from skmsc.thresholds import eager_stage

__all__ = []

_QUANTILES = np.array([0.01, 0.05, *np.arange(0.1, 0.95, 0.1), 0.95, 0.99])
_LEAST = 5  # rows that a bin should hold

# What counts as shifted: so unlikely by chance, and so large.
_P_VALUE, _PSI, _RATIO = 0.01, 0.1, 1.25


@dataclass(frozen=True)
class ScoreReference:
    """Score distributions and pass rates of the rows that thresholds were set on.

    A few numbers for each stage, so that no training rows are in a pickle.

    Attributes
    ----------
    edges : tuple of ndarray of shape (n_bins - 1,)
        For each stage, cuts between bins of the score that it is cut at, among the rows that reach
        it; none where no score is known.
    shares : tuple of ndarray of shape (n_bins,)
        Share of these rows in each bin.
    sizes : tuple of float
        Effective number of these rows.
    pass_rates : ndarray of shape (n_stages,)
        Share of all rows that reach each stage.
    size : float
        Effective number of all rows.
    untouched : bool
        Whether no stage was fitted on these rows, so that these are the scores of the final stages.
    """

    edges: list
    shares: list
    sizes: list
    pass_rates: np.ndarray
    size: float
    untouched: bool = True

    @classmethod
    def of_scores(cls, scores, thresholds):
        """The reference of `StageScores` under thresholds; None without rows."""
        if not scores.y.size:
            return None
        stage = eager_stage(scores.acting, thresholds)
        reaching = [scores.confidence(k)[stage >= k] for k in range(scores.n_stages)]
        reference = cls.of(stage, reaching, scores.sample_weight)
        return replace(reference, untouched=scores.untouched)

    @classmethod
    def of(cls, stage, scores, weight):
        """The reference of rows that stages answered; see `monitor_report` for the arguments."""
        parts = []
        for k, score in enumerate(scores):
            weights, known = weight[stage >= k], ~np.isnan(score)
            edges = _find_edges(score[known], weights[known])
            shares = _bin(score[known], weights[known], edges)
            parts.append((edges, shares, effective_size(weights[known]), weights.sum()))
        edges, shares, sizes, masses = zip(*parts, strict=True)
        pass_rates = np.array(masses) / weight.sum()
        return cls(edges, shares, sizes, pass_rates, effective_size(weight))

    def compare(self, k, score, weight):
        """Population stability index and p-value of new scores that reach stage k."""
        if not score.size or not self.sizes[k]:
            return np.nan, np.nan
        shares, sizes = _bin(score, weight, self.edges[k]), effective_size(weight)
        counts = np.stack([self.shares[k] * self.sizes[k], shares * sizes])
        return stability_index(counts), homogeneity_p_value(counts)

    def compare_pass_rate(self, k, rate, size):
        """P-value of a new pass rate of so many rows."""
        rates, sizes = np.array([self.pass_rates[k], rate]), np.array([self.size, size])
        return homogeneity_p_value(np.stack([rates, 1 - rates], axis=1) * sizes[:, None])


@dataclass(frozen=True, repr=False)
class MonitorReport(StageTable):
    """New rows against earlier ones, stage by stage.

    The earlier ones, the reference, are those that the thresholds were set on, if no others were
    given.

    Attributes
    ----------
    columns : dict of str to tuple
        Each column with a value for each stage:

        - ``stage``: its name;
        - ``rows_in``: (weighted) number of the new rows that reach it;
        - ``pass_rate``: their share, with the 95 % interval ``pass_rate_low``,
          ``pass_rate_high``, and ``reference_pass_rate``, that of the reference;
        - ``pass_rate_p_value``: chance of such a difference between samples of one population;
        - ``psi``: population stability index of the scores that the stage is cut at, among the rows
          that reach it; below .1 is usually taken as steady, above .25 as another population;
        - ``score_p_value``: of the two-sample chi-square test on the same bins;
        - ``verdict``: "shifted" when the p-value of the scores is below .01 and their index at
          least .1, or that of the pass rate is below .01 and it is off by a quarter; "steady"
          otherwise. "unknown" where there are no scores to compare, and where only the scores
          say so and those of the reference are out-of-fold: see Notes.

        With labels also:

        - ``labeled``: number of the rows answered by the stage whose label is known;
        - ``positives_lost`` (``errors`` where there is no positive class): estimated (weighted)
          number of rows that the stage answered wrongly as negative (answered wrongly), with its
          95 % interval; nan where no label is known.
    n_rows : float
        (Weighted) number of new rows.
    recall : float or None
        Estimated share of the positives (of all rows, where there is no positive class) that is
        answered rightly; None without labels, nan where a stage that answered rows has no label.
    recall_low : float or None
        What it is when every stage loses as many as the upper end of its interval says.
    recall_high : float or None
        The same for the lower ends.
    pos_label : label or None
        Class whose rows are the positives; None where none are told.
    shifted : tuple of str
        Stages whose verdict is "shifted".

    Notes
    -----
    The scores of the stages are cut into bins at quantiles of the reference. After a fit these are
    out-of-fold scores, of other fits than the final ones, on fewer rows and with feedback of their
    own. These differ for that alone, and then the scores give no verdict: rows that nothing was
    fitted on, given as `reference` to `monitor` or to `tune_thresholds` before, do.

    The p-value is that of Pearson's test of homogeneity; bins that hold few rows are merged.
    Weights count by Kish's effective number of rows. The index is ``sum (p - q) log(p / q)`` over
    bins, half a row added to each.

    Labels that are known only because rows were drawn for labelling stand for the others: the
    share of wrong answers among the labelled rows of a stage, weighted by one over the chance of
    being labelled (J. Hajek's ratio estimator), times the rows that it answered. Its interval is
    Clopper and Pearson's with the effective number of labels.

    References
    ----------
    N. Siddiqi, "Credit Risk Scorecards", Wiley 2006: the stability index and its usual bounds.
    B. Yurdakul, J. Naranjo, "Statistical properties of the population stability index", Journal of
    Risk Model Validation 2020: why such bounds need a test beside them.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc import FeedbackCascadeClassifier, PassBudget
    >>> X, y = make_classification(900, weights=[0.9], random_state=0)
    >>> model = FeedbackCascadeClassifier(thresholds=PassBudget(0.25), random_state=0)
    >>> model.fit(X[:600], y[:600]).monitor(X[600:] + 2.0).shifted
    ('final',)
    """

    columns: dict
    n_rows: float
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    pos_label: object

    _blocks = ("labeled",)
    _headers = {
        "reference_pass_rate": "reference",
        "pass_rate_p_value": "p value",
        "score_p_value": "p value",
    }

    @property
    def shifted(self) -> tuple[str, ...]:
        """Stages whose verdict is "shifted"."""
        pairs = zip(self.columns["stage"], self.columns["verdict"], strict=True)
        return tuple(name for name, verdict in pairs if verdict == "shifted")

    def _notes(self):
        if self.recall is None:
            return []
        what = "accuracy" if self.pos_label is None else f"recall of class {self.pos_label}"
        if np.isnan(self.recall):
            return [f"{what}: unknown, a stage answered rows of which none is labelled"]
        return [f"{what}: {self.recall:.3f} [{self.recall_low:.3f}, {self.recall_high:.3f}]"]


def monitor_report(
    names,
    reference,
    stage,
    scores,
    sample_weight,
    *,
    label_weight=None,
    wrong=None,
    positive=None,
    pos_label=None,
):
    """Build a `MonitorReport`.

    Parameters
    ----------
    names : sequence of str
        Names of the stages.
    reference : ScoreReference
        What to compare with.
    stage : ndarray of shape (n_samples,)
        Which stage answered each row.
    scores : list of ndarray of shape (n_rows_in,)
        For each stage, the scores that it is cut at of the rows that reach it.
    sample_weight : ndarray of shape (n_samples,)
        Weights.
    label_weight : ndarray of shape (n_samples,), default=None
        How many rows each label stands for, 0 where it is not known; None without labels.
    wrong : mask of shape (n_samples,), default=None
        Labelled rows that were answered wrongly; where there is a positive class, as negative.
    positive : mask of shape (n_samples,), default=None
        Labelled rows that are positive; None where there is no positive class.
    pos_label : label, default=None
        Class of the positives.

    Returns
    -------
    report : MonitorReport
    """
    n_rows, size = sample_weight.sum(), effective_size(sample_weight)
    rows = []
    for k, name in enumerate(names):
        weight = sample_weight[stage >= k]
        rate = weight.sum() / n_rows
        low, high = binomial_interval(rate, size)
        rate_p = reference.compare_pass_rate(k, rate, size) if k else np.nan
        psi, score_p = reference.compare(k, scores[k], weight)
        row = {
            "stage": name,
            "rows_in": weight.sum(),
            "pass_rate": rate,
            "pass_rate_low": low,
            "pass_rate_high": high,
            "reference_pass_rate": reference.pass_rates[k],
            "pass_rate_p_value": rate_p,
            "psi": psi,
            "score_p_value": score_p,
        }
        row["verdict"] = _verdict(row, reference.untouched)
        if label_weight is not None:
            lost = "errors" if positive is None else "positives_lost"
            mine = stage == k
            row["labeled"] = np.count_nonzero(label_weight[mine])
            row |= _estimated(lost, wrong[mine], sample_weight[mine], label_weight[mine])
        rows.append(row)
    columns = {
        column: tuple(v if isinstance(v, str) else float(v) for v in (row[column] for row in rows))
        for column in rows[0]
    }
    recall = [None] * 3
    if label_weight is not None:
        right = n_rows - sum(columns[lost])
        if positive is not None:
            found = positive & ~wrong
            right = sum(
                _estimated("n", found[mine], sample_weight[mine], label_weight[mine])["n"]
                for mine in (stage == k for k in range(len(names)))
            )
        ends = [sum(columns[f"{lost}{end}"]) for end in ("", "_high", "_low")]
        recall = [_share(right, end) if positive is not None else 1 - end / n_rows for end in ends]
        recall = [float(value) for value in recall]
    return MonitorReport(
        columns, float(n_rows), *recall, pos_label=None if positive is None else pos_label
    )


def stability_index(counts):
    """Population stability index of counts of shape (2, n_bins)."""
    p, q = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    return float((p - q) @ np.log(p / q))


def homogeneity_p_value(counts):
    """P-value of Pearson's test that two samples, counts of shape (2, n_bins), have one source.

    Neighbouring bins are merged until each is expected to hold five rows of either sample; where
    that leaves one bin, nothing speaks against it.
    """
    share = counts.sum(axis=1).min() / counts.sum()
    expected = np.cumsum(counts.sum(axis=0)) * share
    starts, last = [0], 0.0
    for j, total in enumerate(expected[:-1]):  # over bins, of which there are few
        if total - last >= _LEAST and expected[-1] - total >= _LEAST:
            starts.append(j + 1)
            last = total
    if len(starts) == 1:
        return 1.0
    merged = np.add.reduceat(counts, starts, axis=1)
    return float(chi2_contingency(merged, correction=False).pvalue)


def _verdict(row, untouched):
    """Whether pass rate or scores have shifted; the latter tell beside `untouched` ones only."""
    scores = row["score_p_value"] < _P_VALUE and row["psi"] >= _PSI
    before, after = row["reference_pass_rate"], row["pass_rate"]
    off = max(after, before) >= _RATIO * min(after, before)
    if (scores and untouched) or (row["pass_rate_p_value"] < _P_VALUE and off):
        return "shifted"
    return "unknown" if scores or np.isnan(row["psi"]) else "steady"


def _estimated(name, event, sample_weight, label_weight):
    """Estimated weight of the rows with an event, from those with a label, with its interval."""
    weight, total = sample_weight * label_weight, sample_weight.sum()
    share = np.nan
    if weight.any():
        share = weight @ event / weight.sum()
        low, high = binomial_interval(share, effective_size(weight))
    elif not total:
        share = low = high = 0.0
    else:
        low = high = np.nan
    return {name: share * total, f"{name}_low": low * total, f"{name}_high": high * total}


def _share(part, rest):
    """Share of a part in the part and the rest; nan of nothing."""
    return part / (part + rest) if part + rest else np.nan


def _find_edges(score, weight):
    """Cuts at quantiles, midway between neighbouring distinct scores, of bins of some rows each."""
    n = effective_size(weight)
    values, level = np.unique(score, return_inverse=True)
    mass = np.cumsum(np.bincount(level, weight, minlength=values.size))
    wanted = _QUANTILES[np.minimum(_QUANTILES, 1 - _QUANTILES) * n >= _LEAST]
    if values.size < 2 or not wanted.size:
        return np.empty(0)
    below = np.unique(np.searchsorted(mass, wanted * mass[-1]))
    below = below[below < values.size - 1]
    return (values[below] + values[below + 1]) / 2


def _bin(score, weight, edges):
    """Weighted share of the scores in each bin; zeros without rows."""
    counts = np.bincount(np.searchsorted(edges, score), weight, minlength=edges.size + 1)
    return counts / (counts.sum() or 1.0)
