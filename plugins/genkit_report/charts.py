"""Line charts as SVG with the colors of the page, in its light and its dark color scheme."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from genkit.parts.figure import PALETTE, line_style, number, use_log
from genkit_report.blocks import Chart, Table

_INK = "#010203"  # placeholder, replaced by the color of the page's text
_GRID = "#010204"  # placeholder, replaced by the color of the page's lines
FEW = 12
"""Number of positions up to which each has a tick on a logarithmic axis."""

_ROWS = 40  # maximum rows for each line in a data table; more points are thinned to every k-th


Path = Sequence[Sequence[float]]
"""Points in the plane, two coordinates each."""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: name in the legend.
        x: x-coordinates of the points.
        y: y-coordinates of the points.
        spread: standard deviation of each y-coordinate; None if it is unknown. It is drawn as
            error bars if the points are marked, and as a band around the line otherwise.
        marked: whether the points are marked.
        dashed: whether the line is a dashed line in the color of the text, such as a bound.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None
    marked: bool = False
    dashed: bool = False


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    bottom: float | None = None,
) -> Chart:
    """Return a line chart with its data.

    Args:
        title: caption of the chart.
        lines: lines of the chart.
        x_label: label of the x-axis.
        y_label: label of the y-axis.
        log_x: whether the x-axis is logarithmic; ignored if a coordinate is not above 0.
        log_y: whether the y-axis is logarithmic; ignored if a coordinate is not above 0.
        bottom: lower end of a logarithmic y-axis, which cuts off lower coordinates; None for none.
    """
    figure = Figure(figsize=(7.2, 4.0 + 0.1 * len(lines)), layout="constrained")
    axes = figure.subplots()
    handles: list[Any] = []
    for index, line in enumerate(lines):
        style = {"color": _INK, "linestyle": "--"} if line.dashed else line_style(index)
        if line.marked:
            drawn = axes.errorbar(
                line.x,
                line.y,
                line.spread,
                label=line.label,
                marker="o",
                markersize=4,
                capsize=3,
                **style,
            )
            handles.append(drawn)
            continue
        marker = "o" if len(line.x) == 1 else ""  # a line through one point is invisible
        handles += axes.plot(line.x, line.y, label=line.label, marker=marker, **style)
        if line.spread is not None:
            bounds = [(y - s, y + s) for y, s in zip(line.y, line.spread, strict=True)]
            positive = [y for y in line.y if y > 0]
            # A logarithmic axis would hide the whole band where its lower bound is not above 0.
            lowest = min(positive) / 2 if log_y and positive else -math.inf
            low, high = zip(*((max(lowest, a), b) for a, b in bounds), strict=True)
            axes.fill_between(line.x, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _scale(axes, lines, log_x, log_y, bottom)
    if len(lines) > 1:
        # Below the axes, where it cannot cross the data.
        columns = 1 if max(len(line.label) for line in lines) > 30 else 2
        style = {"frameon": False, "labelcolor": _INK, "ncols": columns, "fontsize": 9}
        figure.legend(handles=handles, loc="outside lower left", **style)
    ends = "; ".join(
        f"{line.label} from {number(float(line.y[0]))} to {number(float(line.y[-1]))}"
        for line in lines
        if len(line.y)
    )
    return Chart(
        title,
        _svg(figure, axes),
        f"Line chart of {y_label} against {x_label}: {ends}.",
        _table(lines, x_label, y_label),
    )


def path_chart(title: str, paths: Sequence[Path], points: Path) -> Chart:
    """Return a chart of paths in the plane over points of the data, with the ends of the paths.

    Args:
        title: caption of the chart.
        paths: points of each path, from noise to a sample.
        points: points of the data; may be empty.
    """
    from matplotlib.collections import LineCollection

    figure = Figure(figsize=(6.4, 6.8), layout="constrained")
    axes = figure.subplots()
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=3, color=_GRID, linewidths=0, label="data")
    axes.add_collection(LineCollection(paths, colors=PALETTE[0], linewidths=0.9, alpha=0.7))
    for place, color, label in ((0, PALETTE[1], "noise"), (-1, PALETTE[0], "samples")):
        x, y = zip(*(path[place] for path in paths), strict=True)
        axes.scatter(x, y, s=14, color=color, linewidths=0, label=label, zorder=3)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("first dimension")
    axes.set_ylabel("second dimension")
    figure.legend(
        frameon=False, labelcolor=_INK, loc="outside lower left", ncols=3, markerscale=2, fontsize=9
    )
    rows = [
        (
            str(k),
            *(", ".join(number(float(f"{v:.4g}")) for v in end) for end in (path[0], path[-1])),
        )
        for k, path in enumerate(paths)
    ]
    return Chart(
        title,
        _svg(figure, axes),
        f"{len(paths)} paths in the plane from noise to samples.",
        Table("Data: ends of the paths", ("path", "noise", "sample"), rows),
    )


def _scale(
    axes: Axes, lines: Sequence[Line], log_x: bool, log_y: bool, bottom: float | None
) -> None:
    """Set the scales of both axes, logarithmic if requested and possible, and plain tick labels."""
    heights = [y for line in lines for y in line.y]
    if log_y and bottom is not None and min(heights) < bottom:
        axes.set_ylim(bottom=bottom)
        heights = [y for y in heights if y >= bottom]
    for axis, log, values in (
        (axes.xaxis, log_x, [x for line in lines for x in line.x]),
        (axes.yaxis, log_y, heights),
    ):
        if not log or not values or min(values) <= 0:
            axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
            continue
        use_log(axis, values)
        positions = sorted(set(values))
        if axis is axes.xaxis and len(positions) <= FEW:
            axis.set_major_locator(FixedLocator(positions))


def _svg(figure: Figure, axes: Axes) -> str:
    """Return a figure as SVG without background, with text as text elements.

    The same data gives the same bytes.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=_INK)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "genkit"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor").replace(_GRID, "var(--line)")
    for index, color in enumerate(PALETTE):
        text = text.replace(color.lower(), f"var(--c{index})")
    return re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', text, count=1)


def _table(lines: Sequence[Line], x_label: str, y_label: str) -> Table:
    rows = []
    for line in lines:
        step = max(1, -(-len(line.x) // _ROWS))
        for k in range(0, len(line.x), step):
            spread = f" ± {number(float(line.spread[k]))}" if line.spread is not None else ""
            value = number(float(line.y[k])) + spread
            rows.append((line.label, number(float(line.x[k])), value))
    return Table("Data", ("line", x_label, y_label), rows)
