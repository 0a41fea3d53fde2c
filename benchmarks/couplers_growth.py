"""The section of `couplers.md` on the growth of time with pool size, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from couplers_sections import described, rows_of

from genkit.parts.figure import figure_with_axes, label_ends, line_style, png_of, set_title
from genkit_bench.tables import time_text

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "couplers-growth.png"
FIT_FROM = 1024  # minimum pool size of the fit; for smaller pools, constant costs dominate
Table = dict[str, Any]


def growth(part: Table) -> str:
    """Return the section on the growth of time with pool size."""
    lines = timed(part["rows"])
    sizes = sorted({size for points in lines.values() for size in points})
    rows = []
    for name, points in sorted(lines.items(), key=lambda item: item[1][max(item[1])]):
        times = [time_text(points[size]) if size in points else "" for size in sizes]
        rows.append([name, *times, exponent(points)])
    left_out = notes(part["rows"])
    listed = "\n".join(f"- {line}" for line in left_out)
    missing = f"\n\nNot measured:\n\n{listed}" if left_out else ""
    return f"""## Growth with the pool

![Time against pool size for each coupler, both axes logarithmic](../images/{PICTURE.name})

The exponent k is the slope of a linear fit to a coupler's times on logarithmic axes, for pools of {FIT_FROM:,} and more: a
pool of twice the size takes 2^k times as long. Each coupler has its default settings, except for those in parentheses.
`partitioned` and `conditional` divide the pool into {part["data"]["classes"]} classes. `semidiscrete`, if installed,
searches a data set of {part["data"]["items"]:,} images for every pool size. Its potential is fitted before, which is
not included in the times. {described(part)}

{rows_of(["", *(f"{size:,}" for size in sizes), "exponent"], rows)}{missing}"""


def notes(rows: Sequence[Table]) -> list[str]:
    """Return one line for each coupler that was not measured: smallest pool size and reason."""
    first: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["note"]:
            key = row["coupler"], row["note"]
            first[key] = min(row["pool"], first.get(key, row["pool"]))
    return [f"{name}, pools of {size:,} and more: {note}" for (name, note), size in first.items()]


def timed(rows: Sequence[Table]) -> dict[str, dict[int, float]]:
    """Return a dict from each coupler to a dict from pool size to seconds."""
    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["seconds"] is not None:
            lines.setdefault(row["coupler"], {})[row["pool"]] = row["seconds"]
    return lines


def exponent(points: dict[int, float]) -> str:
    """Return the slope of log time against log pool size as text, or an empty string for fewer than two points."""
    fitted = {size: time for size, time in points.items() if size >= FIT_FROM}
    if len(fitted) < 2:
        return ""
    slope = np.polyfit(np.log(list(fitted)), np.log(list(fitted.values())), 1)[0]
    return f"{slope:.2f}"


def draw_growth(rows: Sequence[Table]) -> None:
    """Draw the time for a pool against pool size."""
    figure, (axes,) = figure_with_axes(width=9)
    drawn = []
    for index, (name, points) in enumerate(timed(rows).items()):
        label = f"{name} ({slope})" if (slope := exponent(points)) else name
        drawn += axes.loglog(
            list(points),
            list(points.values()),
            marker="o",
            markersize=4,
            label=label,
            **line_style(index),
        )
    sizes = sorted({row["pool"] for row in rows})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("images in a pool")
    axes.set_ylabel("seconds")
    set_title(axes, "Time for a pool (in brackets: exponent)")
    label_ends(axes, drawn)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(png_of(figure))
