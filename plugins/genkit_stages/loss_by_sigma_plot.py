"""Plot of the training loss against the noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from genkit.artifacts.record import Row
from genkit.parts.figure import (
    PALETTE,
    figure_with_axes,
    label_ends,
    log_where_wide,
    png_of,
    set_title,
    use_log,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_BELOW = 0.5  # lower end of a logarithmic axis / lowest loss; the bound may fall to 0


def loss_by_sigma_plot(rows: Sequence[Row], bound: Mapping[str, float]) -> bytes:
    """Return a PNG of the loss against the noise level, early and late in training.

    Args:
        rows: at least one row with ``images`` seen, and ``loss_by_sigma`` since the previous row.
        bound: lowest possible loss at each noise level; empty if it is not known.
    """
    figure, (axes,) = figure_with_axes()
    ends = [0, *(row["images"] for row in rows)]
    quarter = max(1, len(rows) // 4)
    early, late = (0, quarter), (len(rows) - quarter, len(rows))
    parts = [early, late] if len(rows) > 1 else [early]
    lines: list[Line2D] = []
    losses: list[float] = []
    for (start, stop), color in zip(parts, (PALETTE[4], PALETTE[0])[-len(parts) :], strict=True):
        means = _means([row["loss_by_sigma"] for row in rows[start:stop]])
        losses += means.values()
        label = f"images {_short(ends[start])} to {_short(ends[stop])}"
        lines.append(_line(axes, means, label, color=color, marker="o", markersize=3.5))
    if bound:
        lines.append(_line(axes, bound, "lower bound", color="#000000", linestyle="--"))
    use_log(axes.xaxis, axes.dataLim.intervalx)
    log_where_wide(axes, losses)
    if axes.get_yscale() == "log" and bound:
        axes.set_ylim(bottom=_BELOW * min(losses))
    axes.set_xlabel("noise level sigma")
    axes.set_ylabel("mean loss")
    set_title(axes, "Training loss by noise level")
    label_ends(axes, lines)
    return png_of(figure)


def _line(axes: Axes, losses: Mapping[str, float], label: str, **style: Any) -> Line2D:
    """Draw a line of losses against noise levels."""
    levels = [float(level) for level in losses]
    (line,) = axes.plot(levels, list(losses.values()), label=label, linewidth=1.6, **style)
    return line


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean loss at each noise level, over the rows that contain the level."""
    levels = sorted({level for row in rows for level in row}, key=float)
    return {level: fmean(row[level] for row in rows if level in row) for level in levels}


def _short(images: int) -> str:
    """Format a number of images with three digits, such as ``25.1 k``."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep=" ")(float(f"{images:.3g}"))
