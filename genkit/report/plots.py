"""Plot the curves of metrics, and scores against NFE."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from genkit.artifacts.scores import STD, Row, Scores, settings_of
from genkit.parts.figure import (
    figure_with_axes,
    label_ends,
    line_style,
    log_where_wide,
    number,
    png_of,
    set_title,
    use_log,
)
from genkit.types import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

_FEW = 12  # max number of positions for which each has a tick and a marker
_STEPS = "schedule.steps"  # determines the NFE, so it varies along a line and not between lines


def curve_plot(curves: Mapping[str, Curve]) -> bytes:
    """Return a PNG of curves with bands of their spread; curves with the same labels share axes.

    A band around nonnegative values is cut off at 0, or at half of the min positive value on a
    logarithmic axis.
    """
    from matplotlib.ticker import NullLocator

    groups: dict[tuple[str, str, bool, bool], dict[str, Curve]] = {}
    for name, curve in curves.items():
        key = (curve.x_label, curve.y_label, curve.log_x, curve.log_y)
        groups.setdefault(key, {})[name] = curve
    figure, row = figure_with_axes(max(1, len(groups)))
    for axes, ((x_label, y_label, log_x, log_y), group) in zip(row, groups.items(), strict=False):
        lines = [
            line
            for index, (name, curve) in enumerate(group.items())
            for line in axes.plot(
                curve.x,
                curve.y,
                label=name,
                linewidth=2,
                marker="o" if len(curve.x) <= _FEW else "",
                **line_style(index),
            )
        ]
        for line, curve in zip(lines, group.values(), strict=True):
            _draw_band(axes, curve, line.get_color())
        if log_x:
            use_log(axes.xaxis, [x for curve in group.values() for x in curve.x])
        if log_y:
            use_log(axes.yaxis, [y for curve in group.values() for y in curve.y])
        positions = sorted({x for curve in group.values() for x in curve.x})
        if len(positions) <= _FEW:
            axes.set_xticks(positions, map(number, positions))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        set_title(axes, f"{', '.join(group)} against {x_label}" if len(group) == 1 else y_label)
        if len(group) > 1:
            label_ends(axes, lines)
    return png_of(figure)


def _draw_band(axes: Axes, curve: Curve, color: ColorType) -> None:
    if curve.spread is None:
        return
    floor = 0.0 if min(curve.y, default=0.0) >= 0 else -math.inf
    if curve.log_y:
        floor = min((y for y in curve.y if y > 0), default=0.0) / 2
    lower, upper = (
        [max(floor, y + side * half) for y, half in zip(curve.y, curve.spread, strict=True)]
        for side in (-1, 1)
    )
    axes.fill_between(curve.x, lower, upper, color=color, alpha=0.18, linewidth=0)


def score_plot(scores: Scores, score: str) -> bytes:
    """Return a PNG of a score against NFE, with a line for each combination of varied settings.

    The score of real items is a dashed line.

    Args:
        scores: scores of a sweep; rows have ``nfe`` and the varied settings.
        score: column to draw; rows without this column are left out.
    """
    lines, floor = _lines(scores.rows, score), scores.floor(score)
    figure, (axes,) = figure_with_axes(width=9)
    drawn = [
        line
        for index, (label, points) in enumerate(lines.items())
        for line in axes.plot(
            [nfe for nfe, _, _ in points],
            [value for _, value, _ in points],
            label=label,
            marker="o",
            markersize=5,
            linewidth=1.8,
            **line_style(index),
        )
    ]
    for line, points in zip(drawn, lines.values(), strict=True):
        deviations = [std for _, _, std in points]
        if any(deviations):  # over sets of samples
            x, y = line.get_xdata(), line.get_ydata()
            axes.errorbar(x, y, deviations, fmt="none", ecolor=line.get_color(), capsize=3)
    values = [value for points in lines.values() for _, value, _ in points]
    if floor is not None:
        values.append(floor)
        axes.axhline(floor, color="#000000", linestyle="--", linewidth=1)
        axes.annotate(
            f"real data: {number(floor)}",
            (0, floor),
            (4, 3),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            fontsize=9,
        )
    log_where_wide(axes, values)
    nfes = sorted({nfe for points in lines.values() for nfe, _, _ in points})
    if len(nfes) <= _FEW:
        axes.set_xticks(nfes)
    guided = any(row.get("guidance_nfe") for row in scores.rows)
    apart = "\n(calls of guidance networks are not included)" if guided else ""
    axes.set_xlabel(f"NFE: network calls of the denoiser per sample{apart}")
    axes.set_ylabel(scores.axis_label(score))
    set_title(axes, f"{scores.words(score)} against NFE")
    if list(lines) != [""]:
        label_ends(axes, drawn)
    return png_of(figure)


def _lines(rows: Sequence[Row], score: str) -> dict[str, list[tuple[float, float, float]]]:
    """Return a map from the label of a line to its points (NFE, score, deviation), sorted."""
    usable = [row for row in rows if score in row and "nfe" in row]
    settings = [c for c in settings_of(usable) if c != _STEPS]
    # Constant settings are not part of the labels.
    varied = [s for s in settings if len({number(row.get(s)) for row in usable}) > 1]
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for row in usable:
        label = " ".join(f"{s}={number(row[s])}" for s in varied if s in row)
        lines.setdefault(label, []).append((row["nfe"], row[score], row.get(f"{score}{STD}", 0.0)))
    return {label: sorted(points) for label, points in lines.items()}
