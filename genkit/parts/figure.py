"""Figures without global state, created with ``matplotlib.figure`` and returned as PNG.

Importing matplotlib takes a quarter of the time of importing torch. So it is imported only inside
the functions that create a figure, here and in every module that draws.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's palette, whose colors color-blind readers can distinguish. Its yellow is left out:
# it is too faint for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")

_DPI = 140
_LOG_FROM = 3.0  # max / min of the values; narrower ranges have too few ticks on a log axis
_LABEL_GAP = 0.05  # min distance of two labels, relative to the height of the axes


def figure_with_axes(
    count: int = 1, width: float = 7.2, columns: int | None = None
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, which are arranged in rows.

    Args:
        count: number of axes.
        width: width of each axes in inches.
        columns: number of axes in a row; None for all. The last axes fill their row.
    """
    from matplotlib.figure import Figure

    across = columns or count
    down = -(-count // across)
    figure = Figure(figsize=(width * across, 4.5 * down), dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(down, across)
    panels = []
    for k in range(count):
        row, column = divmod(k, across)
        end = column + 1 if k < count - 1 else across  # the last axes fill their row
        axes = figure.add_subplot(grid[row, column:end])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e3e3e3", linewidth=0.8)
        axes.set_axisbelow(True)
        panels.append(axes)
    return figure, panels


def set_title(axes: Axes, title: str) -> None:
    """Set a left-aligned title."""
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=12)


def line_style(index: int) -> dict[str, Any]:
    """Return the color and the dashes of line number ``index``, distinct for 28 lines."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": DASHES[index // len(PALETTE) % len(DASHES)],
    }


def label_ends(axes: Axes, lines: Sequence[Line2D]) -> None:
    """Write the label of each line beside its last point, without overlaps.

    Must be called after all data is drawn, since it fixes the limits of the axes.
    """
    axes.autoscale_view()
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())
    to_axes = axes.transData + axes.transAxes.inverted()
    last = np.stack([np.asarray(line.get_xydata())[-1] for line in lines])
    ends = np.asarray(to_axes.transform(last))
    order = sorted(range(len(lines)), key=lambda k: float(ends[k][1]))
    heights = spread([float(ends[k][1]) for k in order], _LABEL_GAP)
    for k, height in zip(order, heights, strict=True):
        axes.annotate(
            str(lines[k].get_label()),
            xy=(float(ends[k][0]), float(ends[k][1])),
            xytext=(1.03, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=lines[k].get_color(),
            fontsize=9,
            verticalalignment="center",
            arrowprops={
                "arrowstyle": "-",
                "color": lines[k].get_color(),
                "linewidth": 0.5,
                "relpos": (0, 0.5),
                "shrinkA": 1,
            },
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return ascending heights, moved as little as needed to be at least ``gap`` apart.

    Heights that are too close form a group, which is centered on their mean.
    """
    groups: list[tuple[float, int]] = []  # mean height and number of members
    for height in heights:
        mean, size = height, 1
        while groups and mean - groups[-1][0] < gap * (size + groups[-1][1]) / 2:
            below, members = groups.pop()
            mean = (mean * size + below * members) / (size + members)
            size += members
        groups.append((mean, size))
    return [mean + gap * (i - (size - 1) / 2) for mean, size in groups for i in range(size)]


def span_wide_range(values: Sequence[float]) -> bool:
    """Return whether values are positive and span a range that requires a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) > _LOG_FROM * min(values)


def log_where_wide(axes: Axes, values: Sequence[float]) -> None:
    """Use a logarithmic y axis with plain numbers as labels if the values span a wide range."""
    if span_wide_range(values):
        use_log(axes.yaxis, values)


def use_log(axis: Axis, values: Iterable[float]) -> None:
    """Make an axis logarithmic, with plain numbers as labels: more of them in a narrow range.

    Args:
        axis: axis to change.
        values: values that are drawn; values that are not above 0 are ignored.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    positive = [value for value in values if value > 0] or [1.0]
    ratio = max(positive) / min(positive)
    subs = (1, 1.5, 2, 3, 4, 5, 7) if ratio < 8 else (1, 2, 5) if ratio < 1_000 else (1,)
    axes = axis.axes
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter("{x:,.10g}")
    axis.set_minor_locator(NullLocator())  # the labels are close enough to each other


def number(value: Any) -> str:
    """Return a value as a string, a float with four significant digits."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def with_spread(mean: float, deviation: float) -> str:
    """Return "mean ± standard deviation" with two significant digits of the deviation."""
    digits = max(0, 1 - int(f"{deviation:e}".partition("e")[2])) if deviation else 4
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    content = io.BytesIO()
    # Without the version of matplotlib, so that equal figures have equal bytes.
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
