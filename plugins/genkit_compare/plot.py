"""A score against the cost of a sample, a line for each run."""

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

_STEPS = "schedule.steps"  # sets the cost, so it varies along a line and not between lines
_CALLS = "calls of the denoiser for a sample (NFE)"
_EQUIVALENTS = "arithmetic of all networks for a sample, in calls of the denoiser (NFE-equivalents)"
_GFLOP = "arithmetic of all networks for a sample, in GFLOP"
_LOG_FROM = 8.0  # greatest over least cost, from which on the cost is on a log axis
_APART = 0.05  # of the width of the axes, the least distance between two ticks at the costs

Point = tuple[float, float, float]
"""Cost, score and standard deviation of a row."""

Lines = dict[tuple[str, str], list[Point]]
"""Points by the label of their run and the settings that distinguish lines of one run."""


def score_plot(table: Table, score: str, ending: str) -> bytes:
    """Return a picture of a score against the cost of a sample.

    The cost is the arithmetic of all networks where it is recorded for every row, else the calls of
    the denoiser. Bars are one standard deviation over the sets, to either side.

    Args:
        table: rows of the runs.
        score: score on the y-axis; rows without it are left out.
        ending: format, ``png`` or ``svg``.

    Raises:
        UsageError: no row has a cost.
    """
    rows = [row for row in table.rows if score in row.scores and row.nfe is not None]
    if not rows:
        raise UsageError(
            f"--score must have a cost to be plotted, and no row of {score} has an NFE; choose "
            "another score",
            Code.NOT_FOUND,
        )
    costs, words_of_cost = _costs(rows, table.calls_differ)
    lines = _lines(rows, costs, score)
    figure, (axes,) = figure_with_axes()
    figure.set_figheight(figure.get_figheight() + 0.25 * (1 + len(lines) // 2))
    _draw(axes, lines)
    log_where_wide(axes, [row.scores[score] for row in rows])
    _scale(axes, sorted(set(costs)))
    axes.set_xlabel(words_of_cost)
    spread = any(score in row.spread for row in rows)
    words = score.replace("_", " ")
    higher = rows[0].member.scores.higher_is_better(score)
    better = {True: " (higher is better)", False: " (lower is better)", None: ""}[higher]
    label = f"{words}{better}"
    axes.set_ylabel(f"{label}\nbars: standard deviation over the sets" if spread else label)
    set_title(axes, f"{words} against the cost of a sample")
    # Below the axes, where no line can cross it.
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    content = io.BytesIO()
    # Neither date nor version in the file: equal pictures are equal bytes, but for ids in an SVG.
    figure.savefig(content, format=ending, metadata=_METADATA[ending])
    return content.getvalue()


_METADATA: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None}}


def _costs(rows: Sequence[Row], calls_differ: bool) -> tuple[list[float], str]:
    """Return the cost of each row, and what it is in words."""
    known = [row.cost for row in rows if row.cost is not None]
    if len(known) == len(rows):
        found = [cost.gflop_per_image if calls_differ else cost.nfe_equivalents for cost in known]
        counted = [cost for cost in found if cost is not None]
        if len(counted) == len(rows):
            return counted, _GFLOP if calls_differ else _EQUIVALENTS
    guided = any(row.guidance_nfe for row in rows)
    apart = "\ncalls of guidance networks come on top" if guided else ""
    return [row.nfe for row in rows if row.nfe is not None], _CALLS + apart


def _lines(rows: Sequence[Row], costs: Sequence[float], score: str) -> Lines:
    """Return the points by line; a setting that never changes within a run distinguishes none."""
    values: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for key, value in row.settings.items():
            values.setdefault((row.member.label, key), set()).add(number(value))
    lines: Lines = {}
    for row, cost in zip(rows, costs, strict=True):
        run = row.member.label
        varied = (k for k in row.settings if k != _STEPS and len(values[run, k]) > 1)
        apart = ", ".join(f"{key} {number(row.settings[key])}" for key in varied)
        point = (cost, row.scores[score], row.spread.get(score, 0.0))
        lines.setdefault((run, apart), []).append(point)
    return lines


def _draw(axes: Axes, lines: Lines) -> None:
    runs = list(dict.fromkeys(run for run, _ in lines))
    drawn = dict.fromkeys(runs, 0)
    for below, ((run, apart), points) in zip(
        reversed(range(len(lines))), lines.items(), strict=True
    ):
        style = line_style(runs.index(run))
        dashes = DASHES.index(style["linestyle"]) + drawn[run]
        costs, values, spreads = zip(*sorted(points), strict=True)
        axes.errorbar(
            costs,
            values,
            yerr=spreads if any(spreads) else None,
            label=f"{run}: {apart}" if apart else run,
            color=style["color"],
            linestyle=DASHES[dashes % len(DASHES)],
            marker="os^D"[drawn[run] % 4],
            # Wider where others lie above it: lines of equal scores are all seen.
            markersize=3.5 + 0.7 * min(below, 6),
            linewidth=1.5 + 0.3 * min(below, 6),
            elinewidth=1.2,
            capsize=4,
        )
        drawn[run] += 1


def _scale(axes: Axes, costs: Sequence[float]) -> None:
    """Scale the cost, with ticks at the costs where their labels have room."""
    if costs[0] > 0 and costs[-1] > _LOG_FROM * costs[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
    to_axes = axes.transData + axes.transAxes.inverted()
    places = [float(to_axes.transform((cost, 1.0))[0]) for cost in costs]
    if all(after - before >= _APART for before, after in pairwise(places)):
        axes.xaxis.set_major_locator(FixedLocator(list(costs)))
        axes.xaxis.set_major_formatter(lambda cost, _: number(float(cost)))
