"""The stage report: a table with a row for each stage."""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np

from skmsc.reporting._table import StageTable, binomial_interval, effective_size


@dataclass(frozen=True, repr=False)
class StageReport(StageTable):
    """What each stage did with the rows that reached it.

    Prints as a table, shows as one in a notebook, and `to_frame` makes it a dataframe. Which
    columns there are depends on what was known: labels, a positive class, costs, time.

    Attributes
    ----------
    columns : dict of str to tuple
        Each column with a value for each stage:

        - ``stage``: its name;
        - ``rows_in``, ``answered``, ``passed``: (weighted) numbers of rows;
        - ``answered_as_...``: the answered rows by the class that they were answered with, one
          column for each;
        - ``pass_rate``: share of all rows that reach the stage;
        - ``cost``: mean cost of a row (of all rows) at the stage, in units of ``stage_costs``;
        - ``cost_share``: its share of the cost of all stages;
        - ``seconds``: time that the stage took for the rows that reached it, where it was measured;
        - ``failed``: rows at which the stage raised an error, which count as answered by the stage
          before: see `on_stage_error` of the classifiers; where there are any;
        - ``alerts``: answered rows that are alerts, where there is an ``alert_threshold_``;
        - ``positives_in``, ``positives_lost``: positives that reach the stage, and those that it
          answered as negative, as `predict` does; alerts have a cut of their own;
        - ``positives_alerted``: positives among the alerts;
        - ``positives_kept``: positives that no stage so far has answered as negative;
        - ``retained_recall``: share of the caught positives (those that the last stage would
          catch) that no stage so far has answered as negative; the last stage's is that of the
          stage before it, since it catches what it catches;
        - ``cumulative_recall``: share of all positives that no stage so far has answered as
          negative; ``..._low`` and ``..._high`` are the ends of the 95 % Clopper-Pearson interval
          of either recall. Weights are taken as those of a sample, with Kish's effective size;
        - ``accuracy``: share of the answered rows that were answered with their class.
    n_rows : float
        (Weighted) number of rows.
    mean_cost : float or None
        Mean cost of a row; None where costs are not known.
    pos_label : label or None
        Class whose rows are the positives; None where none are told.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc import FeedbackCascadeClassifier, PassBudget
    >>> X, y = make_classification(300, weights=[0.9], random_state=0)
    >>> model = FeedbackCascadeClassifier(
    ...     thresholds=PassBudget(0.25), stage_costs=[1, 10], random_state=0
    ... )
    >>> model.fit(X, y).report(X)
    stage   rows in  answered  as 0  as 1  passed  pass rate  cost  cost share
    screen      300       ...
    final        ...
    mean cost of a row: ...
    """

    columns: dict
    n_rows: float
    mean_cost: float | None
    pos_label: object

    _blocks = ("positives_in",)
    _headers = {"positives_alerted": "alerted"}

    def _notes(self):
        notes = [] if self.pos_label is None else [f"positives: rows of class {self.pos_label}"]
        if self.mean_cost is not None:
            notes.append(f"mean cost of a row: {self.mean_cost:.4g}")
        return notes


def stage_report(
    names,
    stage,
    sample_weight,
    *,
    answer=None,
    classes=(),
    stage_costs=None,
    seconds=None,
    correct=None,
    positive=None,
    caught=None,
    alerts=None,
    failed=None,
    pos_label=None,
):
    """Build a `StageReport` from the routing of rows.

    Parameters
    ----------
    names : sequence of str
        Names of the stages.
    stage : ndarray of shape (n_samples,)
        Which stage answered each row.
    sample_weight : ndarray of shape (n_samples,)
        Weights; ones give plain counts.
    answer : ndarray of shape (n_samples,), default=None
        Code of the class that each row was answered with.
    classes : sequence of length n_classes, default=()
        Their labels.
    stage_costs : ndarray of shape (n_stages,), default=None
        Cost of running each stage on one row.
    seconds : ndarray of shape (n_stages,), default=None
        Time that each stage took.
    correct : mask of shape (n_samples,), default=None
        Whether the answer was the row's class.
    positive : mask of shape (n_samples,), default=None
        Whether the row is a positive.
    caught : mask of shape (n_samples,), default=None
        Whether the row is a positive that the last stage would catch.
    alerts : mask of shape (n_samples,), default=None
        Whether the row is an alert.
    failed : mask of shape (n_samples,), default=None
        Whether the stage after the one that answered the row raised an error.
    pos_label : label, default=None
        Class of the positives.

    Returns
    -------
    report : StageReport
    """
    n_stages = len(names)

    def answered_by(rows):
        """Weight of the given rows that each stage answered."""
        return np.bincount(stage, sample_weight * rows, minlength=n_stages)

    def reaching(answered):
        """Weight that reaches each stage, from the weight that each answers."""
        return np.cumsum(answered[::-1])[::-1]

    def add_share(name, lost, rows):
        """Add what is left of rows, cumulatively, as a share with its interval."""
        share = np.clip(1 - np.cumsum(lost) / answered_by(rows).sum(), 0.0, 1.0)
        columns[name] = share
        ends = binomial_interval(share, effective_size(sample_weight[rows]))
        columns[f"{name}_low"], columns[f"{name}_high"] = ends

    answered = answered_by(1)
    rows_in = reaching(answered)
    n_rows = answered.sum()
    columns = {"stage": tuple(names), "rows_in": rows_in, "answered": answered}
    for c, label in enumerate(classes):
        columns[f"answered_as_{label}"] = answered_by(answer == c)
    columns["passed"] = rows_in - answered
    columns["pass_rate"] = rows_in / n_rows
    n_failed = np.zeros(n_stages)
    if failed is not None and failed.any():
        n_failed = columns["failed"] = np.bincount(
            stage[failed] + 1, sample_weight[failed], minlength=n_stages
        )
    mean_cost = None
    if stage_costs is not None:
        columns["cost"] = (rows_in + n_failed) / n_rows * stage_costs
        mean_cost = float(columns["cost"].sum())
        columns["cost_share"] = columns["cost"] / (mean_cost or np.nan)
    if seconds is not None:
        columns["seconds"] = seconds
    if alerts is not None:
        columns["alerts"] = answered_by(alerts)
    if positive is not None:
        lost = answered_by(positive & ~correct)
        columns["positives_in"] = reaching(answered_by(positive))
        columns["positives_lost"] = lost
        columns["positives_kept"] = answered_by(positive).sum() - np.cumsum(lost)
        if alerts is not None:
            columns["positives_alerted"] = answered_by(positive & alerts)
        if caught is not None and caught.any():
            early_loss = answered_by(caught & ~correct)
            early_loss[-1] = 0.0
            add_share("retained_recall", early_loss, caught)
        if positive.any():
            add_share("cumulative_recall", lost, positive)
    if correct is not None and (caught is None or not caught.any()):
        with np.errstate(invalid="ignore"):
            columns["accuracy"] = answered_by(correct) / answered
    return StageReport(
        columns={
            name: values if name == "stage" else tuple(values.tolist())
            for name, values in columns.items()
        },
        n_rows=float(n_rows),
        mean_cost=mean_cost,
        pos_label=None if positive is None else pos_label,
    )


def watch_steps(steps, see):
    """Steps of a routing that call ``see(k, scores, seconds)`` after each run of step k."""

    def watched(k, step, carry):
        start = time.perf_counter()
        scores, carry = step(carry)
        see(k, scores, time.perf_counter() - start)
        return scores, carry

    return [partial(watched, k, step) for k, step in enumerate(steps)]
