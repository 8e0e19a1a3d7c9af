"""The stage report: a table with a row for each stage."""

from dataclasses import dataclass
from html import escape

import numpy as np


@dataclass(frozen=True)
class StageReport:
    """What each stage did with the rows that reached it.

    Prints as a table, and shows as one in a notebook. Which columns there are depends on what was
    known: labels, a positive class, costs.

    Attributes
    ----------
    columns : dict of str to tuple
        Each column with a value for each stage:

        - ``stage``: its name;
        - ``rows_in``, ``answered``, ``passed``: (weighted) numbers of rows;
        - ``pass_rate``: share of all rows that reach the stage;
        - ``cost``: mean cost of a row (of all rows) at the stage, in units of ``stage_costs``;
        - ``positives_in``, ``positives_lost``: positives that reach the stage, and those that it
          answered as negative;
        - ``retained_recall``: share of the caught positives (those that the last stage would
          catch) that no stage so far has answered as negative; the last stage's is that of the
          stage before it, since it catches what it catches;
        - ``cumulative_recall``: share of all positives that no stage so far has answered as
          negative;
        - ``accuracy``: share of the answered rows that were answered with their class.
    n_rows : float
        (Weighted) number of rows.
    mean_cost : float or None
        Mean cost of a row; None where costs are not known.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skmsc import FeedbackCascadeClassifier, PassBudget
    >>> X, y = make_classification(300, weights=[0.9], random_state=0)
    >>> model = FeedbackCascadeClassifier(
    ...     thresholds=PassBudget(0.25), stage_costs=[1, 10], random_state=0
    ... )
    >>> model.fit(X, y).report(X)
    stage   rows in  answered  passed  pass rate  cost
    screen      300       ...
    final        ...
    mean cost of a row: ...
    """

    columns: dict
    n_rows: float
    mean_cost: float | None

    def to_frame(self):
        """Give the report as a dataframe.

        Returns
        -------
        frame : pandas.DataFrame
            Indexed by stage.
        """
        import pandas as pd

        return pd.DataFrame(self.columns).set_index("stage")

    def _texts(self):
        """Header and cells as text: a list of columns."""
        return [
            [name.replace("_", " "), *(_text(name, value) for value in values)]
            for name, values in self.columns.items()
        ]

    def _footer(self):
        """Closing line, or an empty text."""
        return "" if self.mean_cost is None else f"mean cost of a row: {self.mean_cost:.4g}"

    def __repr__(self):
        columns = self._texts()
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in zip(*columns, strict=True)
        ]
        return "\n".join([*lines, self._footer()]).rstrip()

    def _repr_html_(self):
        header, *rows = zip(*self._texts(), strict=True)
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        footer = f"<p>{escape(self._footer())}</p>" if self._footer() else ""
        return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>{footer}"


def stage_report(
    names, stage, sample_weight, *, stage_costs=None, correct=None, positive=None, caught=None
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
    stage_costs : ndarray of shape (n_stages,), default=None
        Cost of running each stage on one row.
    correct : mask of shape (n_samples,), default=None
        Whether the answer was the row's class.
    positive : mask of shape (n_samples,), default=None
        Whether the row is a positive.
    caught : mask of shape (n_samples,), default=None
        Whether the row is a positive that the last stage would catch.

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

    answered = answered_by(1)
    rows_in = reaching(answered)
    n_rows = answered.sum()
    columns = {
        "stage": tuple(names),
        "rows_in": rows_in,
        "answered": answered,
        "passed": rows_in - answered,
        "pass_rate": rows_in / n_rows,
    }
    if stage_costs is not None:
        columns["cost"] = rows_in / n_rows * stage_costs
    if positive is not None:
        lost = answered_by(positive & ~correct)
        columns["positives_in"] = reaching(answered_by(positive))
        columns["positives_lost"] = lost
        if caught is not None and caught.any():
            early_loss = answered_by(caught & ~correct)
            early_loss[-1] = 0.0
            columns["retained_recall"] = 1 - np.cumsum(early_loss) / answered_by(caught).sum()
        if positive.any():
            columns["cumulative_recall"] = 1 - np.cumsum(lost) / answered_by(positive).sum()
    if correct is not None and (caught is None or not caught.any()):
        with np.errstate(invalid="ignore"):
            columns["accuracy"] = answered_by(correct) / answered
    return StageReport(
        columns={
            name: values if name == "stage" else tuple(values.tolist())
            for name, values in columns.items()
        },
        n_rows=float(n_rows),
        mean_cost=None if stage_costs is None else float(columns["cost"].sum()),
    )


def _text(name, value):
    """A cell: counts without decimals where they are whole, shares with three."""
    if name == "stage":
        return value
    if np.isnan(value):
        return "-"
    if name in ("pass_rate", "retained_recall", "cumulative_recall", "accuracy"):
        return f"{value:.3f}"
    if name == "cost":
        return f"{value:.3g}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
