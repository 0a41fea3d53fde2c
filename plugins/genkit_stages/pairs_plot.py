"""Plot of the pairs of a run: what they gained, and whether noise stayed noise.

It draws no seconds: a run that was killed and resumed has the same picture as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

from genkit.artifacts.scores import Row
from genkit.parts.figure import PALETTE, figure_with_axes, label_ends, png_of, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_MOST = 200  # points of a line; of a longer run each stands for several pools
_MARKED = 30  # points up to which each is marked
_SHARE = 0.99  # of the pools of Gaussian noise: how many lie in the bands
_EXACT = 1e-6  # a gap up to here is rounding
_BLUE, _ORANGE, _GREEN = PALETTE[:3]

Value = Callable[[Row], float]
"""What is drawn of a pool."""


def pairs_plot(rows: Sequence[Row], dimensions: int) -> bytes:
    """Return a PNG of a run's pools: distances, noise, and gap and part sizes if any.

    Of many pools each point is the mean of some neighbours, and a pale band reaches from their
    least to their greatest.

    Args:
        rows: as the train stage logs them, a pool each; those without ``pool`` are left out.
        dimensions: values of an item, which mean and variance of a pool's noise are taken over.
    """
    pools = [row for row in rows if "pool" in row]
    from matplotlib.ticker import EngFormatter, MaxNLocator

    gaps = [row for row in pools if row["gap"] is not None]
    parted = [row for row in pools if row["parts"]]
    exact = 0 < len(gaps) == len(pools) and all(row["gap"] <= _EXACT for row in gaps)
    panels: list[Callable[[Axes], list[Line2D]]] = [
        lambda axes: _distances(axes, pools, exact),
        lambda axes: _noise(axes, pools, dimensions),
    ]
    if gaps and not exact:
        panels.append(lambda axes: _gap(axes, gaps))
    if parted:
        panels.append(lambda axes: _parts(axes, parted))
    figure, places = figure_with_axes(len(panels), columns=3 if len(panels) == 3 else 2)
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


def _distances(axes: Axes, pools: Sequence[Row], exact: bool) -> list[Line2D]:
    before, after = (sum(row[key] for row in pools) for key in ("cost_before", "cost_after"))
    saved = f"{1 - after / before:.1%} less than unpaired" if before else "no pairs yet"
    set_title(axes, f"Distance: {saved}{', optimal for its cost' if exact else ''}")
    axes.set_ylabel("mean distance of image and noise")
    unpaired = _line(axes, pools, _item("cost_before"), "unpaired", _ORANGE)
    paired = _line(axes, pools, _item("cost_after"), "paired", _BLUE)
    return [unpaired, paired]


def _noise(axes: Axes, pools: Sequence[Row], dimensions: int) -> list[Line2D]:
    """Draw how far each pool's noise is from N(0, I), in standard errors of such noise."""
    normal = NormalDist()

    def worst(share: float) -> float:
        """Return below what the greatest |z| of all dimensions lies with this probability."""
        return normal.inv_cdf((1 + share ** (1 / dimensions)) / 2)

    def mean(row: Row) -> float:
        return float(row["noise_mean"]) * math.sqrt(row["pairs"] * dimensions)

    def variance(row: Row) -> float:
        # The variance of a squared unit Gaussian is 2.
        return float(row["noise_variance"] - 1) * math.sqrt(row["pairs"] * dimensions / 2)

    set_title(axes, "Is the paired noise still Gaussian?")
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
    greatest = max(row["gap"] for row in pools)
    set_title(axes, f"Above the least total of its cost: by {100 * greatest:.2g} % at most")
    axes.set_ylabel("bound of the relative gap")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    line = _line(axes, pools, _item("gap"), "gap", _BLUE)
    axes.set_ylim(bottom=0)
    return [line]


def _parts(axes: Axes, pools: Sequence[Row]) -> list[Line2D]:
    set_title(axes, "Size of the parts that are paired apart")
    axes.set_ylabel("pairs in a part")
    names, colours = ("smallest", "median", "largest"), (_ORANGE, _BLUE, _GREEN)
    lines = [
        _line(axes, [{**row, "size": row["parts"][k]} for row in pools], _item("size"), *style)
        for k, style in enumerate(zip(names, colours, strict=True))
    ]
    axes.set_ylim(bottom=0)
    return lines


def _item(key: str) -> Value:
    return lambda row: float(row[key])


def _line(axes: Axes, pools: Sequence[Row], value: Value, label: str, colour: str) -> Line2D:
    """Draw a value of the pools, and the range of those that share a point."""
    size = max(1, math.ceil(len(pools) / _MOST))
    groups = [pools[k : k + size] for k in range(0, len(pools), size)]
    places = [fmean(row["images"] for row in group) for group in groups]
    values = [[value(row) for row in group] for group in groups]
    if size > 1:
        ends = [min(found) for found in values], [max(found) for found in values]
        axes.fill_between(places, *ends, color=colour, alpha=0.18, linewidth=0)
    (line,) = axes.plot(
        places,
        [fmean(found) for found in values],
        color=colour,
        label=label,
        linewidth=1.6,
        marker="o" if len(groups) <= _MARKED else "",
        markersize=4,
    )
    return line
