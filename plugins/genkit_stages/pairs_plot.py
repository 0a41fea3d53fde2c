"""Plot of the pairs of a run: the reduction of their distance, and the distribution of the noise.

It shows no times, so that a run that was killed and resumed has the same plot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

from genkit.artifacts.scores import Row
from genkit.parts.figure import PALETTE, figure_with_axes, label_ends, png_of, set_title
from genkit.train.diagnostics import MIN_POOLS, is_skewed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_MAX_POINTS = 200  # per line; in a longer run each point is the mean of several pools
_MAX_MARKERS = 30  # lines with more points have no markers
_SHARE = 0.99  # probability that a pool of Gaussian noise lies in the bands
_EXACT = 1e-6  # gaps up to this size are rounding errors
_BLUE, _ORANGE, _GREEN = PALETTE[:3]

Value = Callable[[Row], float]
"""Function that returns the plotted value of a pool."""


def pairs_plot(rows: Sequence[Row], dimensions: int) -> bytes:
    """Return a PNG with plots of a run's pools: distances and noise, and any gaps and group sizes.

    With many pools, each point is the mean of several consecutive pools, and a pale band shows
    their minimum and maximum.

    Args:
        rows: rows of the stage ``train``, one for each pool; rows without ``pool`` are ignored.
        dimensions: number of values of an item, for the standard errors of the noise's moments.
    """
    pools = [row for row in rows if "pool" in row]
    from matplotlib.ticker import EngFormatter, MaxNLocator

    gaps = [row for row in pools if row["gap"] is not None]
    grouped = [row for row in pools if row["parts"]]
    exact = 0 < len(gaps) == len(pools) and all(row["gap"] <= _EXACT for row in gaps)
    panels: list[Callable[[Axes], list[Line2D]]] = [
        lambda axes: _distances(axes, pools, exact),
        lambda axes: _noise(axes, pools, dimensions),
    ]
    if gaps and not exact:
        panels.append(lambda axes: _gap(axes, gaps))
    if grouped:
        panels.append(lambda axes: _groups(axes, grouped))
    # Two columns of this width are readable on a page that is 1,000 pixels wide.
    figure, places = figure_with_axes(len(panels), width=5.2, columns=2)
    figure.suptitle(_verdict(pools, dimensions), x=0.01, ha="left", fontsize=12, fontweight="bold")
    end = max((row["images"] + row["pairs"] for row in pools), default=1)
    for axes, draw in zip(places, panels, strict=True):
        lines = draw(axes)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("images seen")
        axes.set_xlim(0, end)
        if pools:
            label_ends(axes, lines)
    return png_of(figure)


def _verdict(pools: Sequence[Row], dimensions: int) -> str:
    """Return in words how much the coupling reduces the distance, and whether noise is N(0, I)."""
    before, after = (sum(row[key] for row in pools) for key in ("cost_before", "cost_after"))
    if not before:
        return "No pairs yet"
    distance = f"Pairs are {1 - after / before:.1%} closer than random pairs"
    if len(pools) < MIN_POOLS:
        return f"{distance}. Too few pools for a test of the noise."
    if is_skewed(pools, (dimensions,)):
        return f"{distance}. The assigned noise is not N(0, I)."
    return f"{distance}. No significant deviation of the noise from N(0, I)."


def _distances(axes: Axes, pools: Sequence[Row], exact: bool) -> list[Line2D]:
    set_title(axes, f"Distance{': optimal for its cost' if exact else ''}")
    axes.set_ylabel("mean distance of image and noise")
    before_line = _line(axes, pools, _item("cost_before"), "random pairs", _ORANGE)
    after_line = _line(axes, pools, _item("cost_after"), "assigned noise", _BLUE)
    return [before_line, after_line]


def _noise(axes: Axes, pools: Sequence[Row], dimensions: int) -> list[Line2D]:
    """Draw the deviation of each pool's noise from N(0, I), in units of its standard error."""
    normal = NormalDist()

    def worst(share: float) -> float:
        """Return the quantile ``share`` of max |z| over the dimensions, for unit normal z."""
        return normal.inv_cdf((1 + share ** (1 / dimensions)) / 2)

    def mean(row: Row) -> float:
        return float(row["noise_mean"]) * math.sqrt(row["pairs"] * dimensions)

    def variance(row: Row) -> float:
        # The variance of a squared unit Gaussian is 2.
        return float(row["noise_variance"] - 1) * math.sqrt(row["pairs"] * dimensions / 2)

    set_title(axes, "Moments of the assigned noise")
    axes.set_ylabel("standard errors away from N(0, I)")
    reach, tail = normal.inv_cdf((1 + _SHARE) / 2), (1 - _SHARE) / 2
    axes.axhspan(-reach, reach, color="#8a8a8a", alpha=0.13, linewidth=0)
    axes.axhspan(worst(tail), worst(1 - tail), color=_GREEN, alpha=0.13, linewidth=0)
    lines = [
        _line(axes, pools, _item("noise_worst"), "worst dimension", _GREEN),
        _line(axes, pools, variance, "variance", _ORANGE),
        _line(axes, pools, mean, "mean", _BLUE),
    ]
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.12 * (high - low), high)  # room for the note
    note = f"shaded: where {_SHARE:.0%} of the pools of Gaussian noise lie"
    axes.text(0.01, 0.025, note, transform=axes.transAxes, fontsize=9, color="#555555")
    return lines


def _gap(axes: Axes, pools: Sequence[Row]) -> list[Line2D]:
    highest = max(row["gap"] for row in pools)
    set_title(axes, f"Total cost: at most {100 * highest:.2g} % above min")
    axes.set_ylabel("upper bound of the relative gap")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    line = _line(axes, pools, _item("gap"), "gap", _BLUE)
    axes.set_ylim(bottom=0)
    return [line]


def _groups(axes: Axes, pools: Sequence[Row]) -> list[Line2D]:
    set_title(axes, "Groups that are coupled separately")
    axes.set_ylabel("pairs in a group")
    names, colors = ("smallest", "median", "largest"), (_ORANGE, _BLUE, _GREEN)
    lines = [
        _line(axes, [{**row, "size": row["parts"][k]} for row in pools], _item("size"), *style)
        for k, style in enumerate(zip(names, colors, strict=True))
    ]
    axes.set_ylim(bottom=0)
    return lines


def _item(key: str) -> Value:
    return lambda row: float(row[key])


def _line(axes: Axes, pools: Sequence[Row], value: Value, label: str, color: str) -> Line2D:
    """Draw a line of a value, and a band of its range over the pools averaged in each point."""
    size = max(1, math.ceil(len(pools) / _MAX_POINTS))
    groups = [pools[k : k + size] for k in range(0, len(pools), size)]
    places = [fmean(row["images"] for row in group) for group in groups]
    values = [[value(row) for row in group] for group in groups]
    if size > 1:
        ends = [min(group) for group in values], [max(group) for group in values]
        axes.fill_between(places, *ends, color=color, alpha=0.18, linewidth=0)
    (line,) = axes.plot(
        places,
        [fmean(group) for group in values],
        color=color,
        label=label,
        linewidth=1.6,
        marker="o" if len(groups) <= _MAX_MARKERS else "",
        markersize=4,
    )
    return line
