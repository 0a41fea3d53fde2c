"""Plots of a run: the loss, the curves of metrics, and scores against NFE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from genkit.artifacts.scores import Row, settings_of
from genkit.parts.figure import (
    PALETTE,
    figure_with_axes,
    label_ends,
    line_style,
    png_of,
    set_title,
)
from genkit.report.table import number
from genkit.types import Curve

_LOG_FROM = 3.0  # greatest over least value; a narrower range has too few ticks on a log axis
_STEPS = "schedule.steps"  # sets the NFE, so it varies along a line and not between lines


def loss_plot(images: Sequence[float], loss: Sequence[float]) -> bytes:
    """Return a PNG of the training loss against the images seen.

    Args:
        images: images seen, ascending.
        loss: mean loss at each of them.
    """
    figure, (axes,) = figure_with_axes()
    logged = axes.plot(images, loss, color=PALETTE[4], linewidth=0.8, label="logged")
    if reach := len(loss) // 40:
        smooth = _moving_mean(loss, reach)
        logged += axes.plot(images, smooth, color=PALETTE[0], linewidth=2, label="running mean")
    _log_where_wide(axes, loss)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set_xlabel("images seen")
    axes.set_ylabel("loss")
    set_title(axes, "Training loss")
    if loss:
        label_ends(axes, logged)
    return png_of(figure)


def curve_plot(curves: Mapping[str, Curve]) -> bytes:
    """Return a PNG of curves; those with the same axes share them."""
    groups: dict[tuple[str, str, bool, bool], dict[str, Curve]] = {}
    for name, curve in curves.items():
        key = (curve.x_label, curve.y_label, curve.log_x, curve.log_y)
        groups.setdefault(key, {})[name] = curve
    figure, row = figure_with_axes(max(1, len(groups)))
    for axes, ((x_label, y_label, log_x, log_y), group) in zip(row, groups.items(), strict=False):
        lines = [
            line
            for index, (name, curve) in enumerate(group.items())
            for line in axes.plot(curve.x, curve.y, label=name, linewidth=2, **line_style(index))
        ]
        axes.set_xscale("log" if log_x else "linear")
        axes.set_yscale("log" if log_y else "linear")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        set_title(axes, f"{', '.join(group)} against {x_label}" if len(group) == 1 else y_label)
        if len(group) > 1:
            label_ends(axes, lines)
    return png_of(figure)


def score_plot(rows: Sequence[Row], score: str) -> bytes:
    """Return a PNG of a score against NFE, a line for each combination of the varied settings.

    Args:
        rows: of a sweep; each has ``nfe`` and the settings that it was made with.
        score: column to draw. Rows without it are left out.
    """
    lines = _lines(rows, score)
    figure, (axes,) = figure_with_axes(width=9)
    drawn = [
        line
        for index, (label, points) in enumerate(lines.items())
        for line in axes.plot(
            [nfe for nfe, _ in points],
            [value for _, value in points],
            label=label,
            marker="o",
            markersize=5,
            linewidth=1.8,
            **line_style(index),
        )
    ]
    values = [value for points in lines.values() for _, value in points]
    _log_where_wide(axes, values)
    nfes = sorted({nfe for points in lines.values() for nfe, _ in points})
    if len(nfes) <= 12:
        axes.set_xticks(nfes)
    guided = any(row.get("guidance_nfe") for row in rows)
    apart = "\n(calls of the guidance's network come on top)" if guided else ""
    axes.set_xlabel(f"NFE: network calls of the denoiser for each sample{apart}")
    axes.set_ylabel(score)
    set_title(axes, f"{score} against NFE")
    if list(lines) != [""]:
        label_ends(axes, drawn)
    return png_of(figure)


def _lines(rows: Sequence[Row], score: str) -> dict[str, list[tuple[float, float]]]:
    """Return (NFE, score) points by the label of their line, ascending in NFE."""
    usable = [row for row in rows if score in row and "nfe" in row]
    settings = [c for c in settings_of(usable) if c != _STEPS]
    # A setting that never changes says nothing about a line.
    varied = [s for s in settings if len({number(row.get(s)) for row in usable}) > 1]
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in usable:
        label = " ".join(f"{s}={number(row[s])}" for s in varied if s in row)
        lines.setdefault(label, []).append((row["nfe"], row[score]))
    return {label: sorted(points) for label, points in lines.items()}


def _log_where_wide(axes: Axes, values: Sequence[float]) -> None:
    """Scale y logarithmically, with plain numbers, where the values span a wide range."""
    if values and min(values) > 0 and max(values) > _LOG_FROM * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _moving_mean(values: Sequence[float], reach: int) -> list[float]:
    """Return the mean of each value and its ``reach`` neighbours on either side, where they are."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    last = len(values)
    spans = [(max(0, k - reach), min(last, k + reach + 1)) for k in range(last)]
    return [(sums[right] - sums[left]) / (right - left) for left, right in spans]
