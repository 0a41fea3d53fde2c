"""Plot a score against the cost of a sample, with a line for each run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from genkit.errors import Code, UsageError
from genkit.parts.figure import (
    DASHES,
    figure_with_axes,
    line_style,
    log_where_wide,
    number,
    set_title,
)
from genkit_compare.comparison import Row, Table

_STEPS = "schedule.steps"  # determines the cost, so it varies along a line and not between lines
_CALLS = "calls of the denoiser per sample (NFE)"
_EQUIVALENTS = "arithmetic of all networks per sample, in calls of the denoiser (NFE-equivalents)"
_GFLOP = "arithmetic of all networks per sample, in GFLOP"
_LOG_RATIO = 8.0  # ratio of max to min cost above which the axis of the cost is logarithmic
_MIN_DISTANCE = 0.05  # minimum distance of ticks, relative to the width of the axes

Point = tuple[float, float, float]
"""Cost, score and standard deviation of the score of a row."""

Lines = dict[tuple[str, str], list[Point]]
"""Dict from the label of a run and the settings that distinguish its lines to the points."""


def score_plot(table: Table, score: str, ending: str) -> bytes:
    """Return a plot of a score against the cost of a sample.

    The cost is the arithmetic of all networks if it was recorded for every row, otherwise the
    number of calls of the denoiser. Error bars show one standard deviation over the sets of samples
    in both directions.

    Args:
        table: rows of the runs.
        score: name of the score; rows without it are skipped.
        ending: format of the plot, ``png`` or ``svg``.

    Returns:
        Content of the file.

    Raises:
        UsageError: no row has a cost.
    """
    rows = [row for row in table.rows if score in row.scores and row.nfe is not None]
    if not rows:
        raise UsageError(
            f"--plot requires a score with an NFE, but no row of {score} has one; write a "
            "different --score",
            Code.NOT_FOUND,
        )
    costs, cost_label = _costs(rows, table.calls_differ)
    lines = _lines(rows, costs, score)
    figure, (axes,) = figure_with_axes()
    figure.set_figheight(figure.get_figheight() + 0.25 * (1 + len(lines) // 2))
    _draw(axes, lines)
    log_where_wide(axes, [row.scores[score] for row in rows])
    _scale(axes, sorted(set(costs)))
    axes.set_xlabel(cost_label)
    spread = any(score in row.spread for row in rows)
    scores = rows[0].member.scores
    label = scores.axis_label(score)
    axes.set_ylabel(f"{label}\nbars: standard deviation over the sets" if spread else label)
    set_title(axes, f"{scores.words(score)} against the cost of a sample")
    # The legend is outside of the axes, so that it hides no line.
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    content = io.BytesIO()
    # Without date and version, equal plots have equal bytes, except for the ids in an SVG.
    figure.savefig(content, format=ending, metadata=_METADATA[ending])
    return content.getvalue()


_METADATA: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None}}


def _costs(rows: Sequence[Row], calls_differ: bool) -> tuple[list[float], str]:
    """Return the cost of each row, and the label of the axis."""
    recorded = [row.cost for row in rows if row.cost is not None]
    if len(recorded) == len(rows):
        costs = [c.gflop_per_image if calls_differ else c.nfe_equivalents for c in recorded]
        counted = [cost for cost in costs if cost is not None]
        if len(counted) == len(rows):
            return counted, _GFLOP if calls_differ else _EQUIVALENTS
    guided = any(row.guidance_nfe for row in rows)
    note = "\nwithout calls of guidance networks" if guided else ""
    return [row.nfe for row in rows if row.nfe is not None], _CALLS + note


def _lines(rows: Sequence[Row], costs: Sequence[float], score: str) -> Lines:
    """Return the points of each line.

    The lines of a run differ in the settings that vary within the run, except the number of steps.
    """
    values: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for key, value in row.settings.items():
            values.setdefault((row.member.label, key), set()).add(number(value))
    lines: Lines = {}
    for row, cost in zip(rows, costs, strict=True):
        run = row.member.label
        varied = (k for k in row.settings if k != _STEPS and len(values[run, k]) > 1)
        settings = ", ".join(f"{key} {number(row.settings[key])}" for key in varied)
        point = (cost, row.scores[score], row.spread.get(score, 0.0))
        lines.setdefault((run, settings), []).append(point)
    return lines


def _draw(axes: Axes, lines: Lines) -> None:
    runs = list(dict.fromkeys(run for run, _ in lines))
    counts = dict.fromkeys(runs, 0)
    for later, ((run, settings), points) in zip(
        reversed(range(len(lines))), lines.items(), strict=True
    ):
        style = line_style(runs.index(run))
        dashes = DASHES.index(style["linestyle"]) + counts[run]
        costs, values, spreads = zip(*sorted(points), strict=True)
        axes.errorbar(
            costs,
            values,
            yerr=spreads if any(spreads) else None,
            label=f"{run}: {settings}" if settings else run,
            color=style["color"],
            linestyle=DASHES[dashes % len(DASHES)],
            marker="os^D"[counts[run] % 4],
            # Lines that are drawn first are wider, so that lines with equal scores remain visible.
            markersize=3.5 + 0.7 * min(later, 6),
            linewidth=1.5 + 0.3 * min(later, 6),
            elinewidth=1.2,
            capsize=4,
        )
        counts[run] += 1


def _scale(axes: Axes, costs: Sequence[float]) -> None:
    """Set the scale of the x-axis, with ticks at the costs if their labels do not overlap."""
    if costs[0] > 0 and costs[-1] > _LOG_RATIO * costs[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
    to_axes = axes.transData + axes.transAxes.inverted()
    places = [float(to_axes.transform((cost, 1.0))[0]) for cost in costs]
    if all(after - before >= _MIN_DISTANCE for before, after in pairwise(places)):
        axes.xaxis.set_major_locator(FixedLocator(list(costs)))
        axes.xaxis.set_major_formatter(lambda cost, _: number(float(cost)))
