"""A picture of audits: correlations, and what a start at any noise level does to samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from genkit.artifacts import CouplingStatistics
from genkit.errors import Code, UsageError
from genkit.parts.figure import PALETTE, figure_with_axes, line_style, png_of, set_title
from genkit.start import CORRECTIONS
from genkit_audit.measure import Audit
from genkit_audit.prediction import StartLimits

_LEVELS = np.geomspace(1.0, 1000.0, 200)
_BLUE, _ORANGE, _GREEN, _PINK = PALETTE[:4]


def picture_of(audits: Sequence[Audit], start: StartLimits) -> bytes:
    """Return a PNG, with a row for each audit.

    Args:
        audits: audits; those without statistics are left out.
        start: start whose noise level is marked.

    Raises:
        UsageError: none has statistics of images that vary.
    """
    drawn = [(a.subject, a.statistics) for a in audits if a.statistics and a.statistics.deviations]
    if not drawn:
        raise UsageError(
            "--picture must have statistics to draw, and there are none; leave it out",
            Code.NOT_FOUND,
        )
    figure, places = figure_with_axes(2 * len(drawn), columns=2)
    for row, (subject, found) in enumerate(drawn):
        _correlations(places[2 * row], subject, found)
        _spread(places[2 * row + 1], found, start)
    return png_of(figure)


def _correlations(axes: Axes, subject: str, found: CouplingStatistics) -> None:
    numbers = np.arange(1, len(found.correlations) + 1)
    error = 2 * found.pairs**-0.5
    axes.axhspan(-error, error, color="#8a8a8a", alpha=0.2, linewidth=0)
    axes.plot(numbers, found.correlations, marker="o", markersize=4, **line_style(0))
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -3 * error), max(high, 3 * error))
    axes.set_xlabel("principal direction of the images")
    axes.set_ylabel("correlation of image and assigned noise")
    note = "shaded: two standard errors around independent noise"
    axes.text(0.99, 0.97, note, transform=axes.transAxes, fontsize=9, ha="right", va="top")
    set_title(axes, subject)


def _spread(axes: Axes, found: CouplingStatistics, start: StartLimits) -> None:
    """Draw the least and the largest spread of samples against the noise level of the start."""
    for (name, count), colour in zip(CORRECTIONS.items(), (_ORANGE, _BLUE, _PINK), strict=True):
        ratios = np.array([found.spread_of_samples(float(s), count) for s in _LEVELS])
        axes.plot(_LEVELS, ratios[:, 0], color=colour, label=f"start {name}, first direction")
        axes.fill_between(
            _LEVELS, ratios.min(1), ratios.max(1), color=colour, alpha=0.15, linewidth=0
        )
    tolerance = start.tolerance
    axes.axhspan(1 - tolerance, 1 + tolerance, color=_GREEN, alpha=0.2, linewidth=0)
    axes.axvline(start.sigma_max, color="#333333", linewidth=1, linestyle=":")
    axes.annotate(
        f"sigma_max {start.sigma_max:g}",
        (start.sigma_max, 0.95),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=9,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0.5, 1.25)
    axes.set_xlabel("noise level at which sampling starts")
    axes.set_ylabel("spread of samples over the images'\npale: all directions; green: tolerance")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    set_title(axes, "What the start alone does to samples")
