"""A table with a row for each stage: in a terminal, in a notebook, as a dataframe."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import beta

if TYPE_CHECKING:
    from pandas import DataFrame

CONFIDENCE = 0.95  # of all intervals in reports
_SHARES = ("accuracy", "cost_share", "pass_rate", "reference_pass_rate", "recall", "psi")


class StageTable:
    """What prints ``columns``, a dict of column to a value for each stage.

    A column with others named ``..._low`` and ``..._high`` shows them as its interval. What was
    answered as which of more than six classes only the dataframe tells. A subclass may say in
    ``_blocks`` which columns stand together in a terminal, in ``_headers`` how they are headed, and
    in ``_notes`` what is said below.
    """

    columns: dict[str, Any]
    _blocks: tuple[str, ...] = ()  # first columns of the blocks below the first
    _headers: dict[str, str] = {}  # of columns whose names are long

    def _notes(self):
        """Lines below the table."""
        return []

    def to_frame(self) -> DataFrame:
        """Give the report as a dataframe.

        Returns
        -------
        frame : pandas.DataFrame
            Indexed by stage.
        """
        import pandas as pd

        return pd.DataFrame(self.columns).set_index("stage")

    def _texts(self):
        """Column name to header and cells as text."""
        texts, by_class = {}, [name for name in self.columns if name.startswith("answered_as_")]
        for name, values in self.columns.items():
            if name.endswith(("_low", "_high")) or (name in by_class and len(by_class) > 6):
                continue
            cells = [_text(name, value) for value in values]
            if f"{name}_low" in self.columns:
                ends = zip(self.columns[f"{name}_low"], self.columns[f"{name}_high"], strict=True)
                cells = [
                    cell if cell == "-" else f"{cell} [{_text(name, low)}, {_text(name, high)}]"
                    for cell, (low, high) in zip(cells, ends, strict=True)
                ]
            header = self._headers.get(name, name)
            header = header.replace("answered_as_", "as ").replace("_", " ")
            texts[name] = [header, *cells]
        return texts

    def __repr__(self):
        texts = self._texts()
        blocks = [[texts.pop("stage")]]
        for name, column in texts.items():
            if name in self._blocks and len(blocks[-1]) > 1:
                blocks.append([blocks[0][0]])
            blocks[-1].append(column)
        parts = ["\n".join(_lines(block)) for block in blocks]
        return "\n".join(["\n\n".join(parts), *self._notes()])

    def _repr_html_(self):
        header, *rows = zip(*self._texts().values(), strict=True)
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
        body = "".join(
            f'<tr><th scope="row">{escape(row[0])}</th>'
            + "".join(f'<td style="text-align: right">{escape(cell)}</td>' for cell in row[1:])
            + "</tr>"
            for row in rows
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self._notes())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"


def binomial_interval(share, n):
    """Clopper-Pearson interval of a share of n, both perhaps arrays; n need not be whole.

    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits", Biometrika 1934, DOI
    10.1093/biomet/26.4.404. Without any row it is [0, 1].
    """
    share, n = np.broadcast_arrays(np.asarray(share, float), np.asarray(n, float))
    hits, tail = np.nan_to_num(share) * n, (1 - CONFIDENCE) / 2
    with np.errstate(all="ignore"):
        low = np.where(hits > 0, beta.ppf(tail, hits, n - hits + 1), 0.0)
        high = np.where(hits < n, beta.ppf(1 - tail, hits + 1, n - hits), 1.0)
    return low, high


def effective_size(weight):
    """How many equally weighted rows tell as much (L. Kish, "Survey Sampling", 1965)."""
    largest = weight.max(initial=0.0)
    if not largest:
        return 0.0
    weight = weight / largest  # the squares of small and of large weights are no numbers
    return float(weight.sum() ** 2 / (weight**2).sum())


def _lines(columns):
    """Lines of text from columns of cells, the first one to the left."""
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = zip(row, widths, strict=True)
        yield "  ".join(
            cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(cells)
        ).rstrip()


def _text(name, value):
    """A cell: counts without decimals where they are whole, shares with three."""
    if isinstance(value, str):
        return value
    if np.isnan(value):
        return "-"
    if name.endswith(_SHARES):
        return f"{value:.3f}"
    if name in ("cost", "seconds") or name.endswith("p_value"):
        return f"{value:.3g}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
