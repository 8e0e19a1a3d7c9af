"""What the displays share: axes, styles that are told apart in grey, labels that do not overlap."""

import numpy as np

# Each differs from the next in lightness, line and marker: it shows in grey, and to all eyes.
COLORS = ("#173f5f", "#d1762b", "#7fb69a", "#8f2d56", "#b8b08d", "#3c7dc4")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "////", "....", "xxxx", "----", "++++")

_TEXT_WIDTH, _TEXT_HEIGHT = 0.25, 0.06  # of a label, in shares of the axes


def style(k):
    """Color, line, marker and hatch of the k-th thing that is drawn."""
    return tuple(kind[k % len(kind)] for kind in (COLORS, LINES, MARKERS, HATCHES))


def check_labels_given(y):
    """Raise where there are no labels."""
    if y is None:
        raise ValueError("y must hold the labels of the rows; got None.")


def get_axes(ax, display, figsize=None):
    """The axes to draw on, new ones for None, and their figure."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{type(display).__name__}.plot requires matplotlib: pip install 'skmsc[plots]'."
        ) from error
    if ax is None:
        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    return ax, ax.figure


def label_ends(ax, ends, texts, *, turn=0.8, lift=0.0):
    """Write a text at each point, (x, y) in data, clear of those of neighbouring points.

    Distances are shares of the axes, whose limits must be set. A text is right of its point, or
    left of one that is right of `turn`; with `lift` it is so much above it.
    """
    at = ax.transAxes.inverted().transform(ax.transData.transform(ends))
    height, drawn = at[:, 1] + lift, [None] * len(texts)
    placed = []
    for i in np.argsort(height, kind="stable"):
        beside = [height[j] for j in placed if abs(at[i, 0] - at[j, 0]) < _TEXT_WIDTH]
        height[i] = max([height[i], *(y + _TEXT_HEIGHT for y in beside)])
        placed.append(i)
        side = 0 if lift else -1 if at[i, 0] > turn else 1
        drawn[i] = ax.annotate(
            texts[i],
            ends[i],
            xytext=(at[i, 0] + 0.03 * side, height[i]),
            textcoords="axes fraction",
            ha={-1: "right", 0: "center", 1: "left"}[side],
            va="center",
            fontsize="small",
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 1},
        )
    return drawn


def count(value):
    """A number of rows as text."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
