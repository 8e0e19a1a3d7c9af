"""What the displays share: axes, styles that are told apart in grey, labels that do not overlap."""

import numpy as np

# Each differs from the next in lightness, line and marker: it shows in grey, and to all eyes.
COLORS = ("#173f5f", "#d1762b", "#7fb69a", "#8f2d56", "#b8b08d", "#3c7dc4")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "////", "....", "xxxx", "----", "++++")


def style(k):
    """Color, line, marker and hatch of the k-th thing that is drawn."""
    return tuple(kind[k % len(kind)] for kind in (COLORS, LINES, MARKERS, HATCHES))


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


def label_ends(ax, ends, texts, least=0.06, turn=0.8, lift=0.0):
    """Write a text beside each point, (x, y) in data, none closer to another than `least`.

    Distances are shares of the axes, whose limits must be set; right of `turn` a text is written
    left of its point. Each is `lift` above it.
    """
    at = ax.transAxes.inverted().transform(ax.transData.transform(ends))
    order = np.argsort(at[:, 1], kind="stable")
    height = at[order, 1] + lift
    for i in range(1, len(height)):
        height[i] = max(height[i], height[i - 1] + least)
    height[-1] = min(height[-1], 0.97)
    for i in reversed(range(len(height) - 1)):
        height[i] = min(height[i], height[i + 1] - least)
    drawn = [None] * len(texts)
    for i, y in zip(order, height, strict=True):
        side = -1 if at[i, 0] > turn else 1
        drawn[i] = ax.annotate(
            texts[i],
            ends[i],
            xytext=(at[i, 0] + 0.03 * side, y),
            textcoords="axes fraction",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize="small",
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 1},
        )
    return drawn


def count(value):
    """A number of rows as text."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
