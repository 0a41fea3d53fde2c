"""Plot audits: correlations, and standard deviations of samples against the first noise level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from genkit.artifacts import CouplingStatistics
from genkit.errors import Code, UsageError
from genkit.parts.figure import PALETTE, figure_with_axes, line_style, png_of, set_title
from genkit.start import CORRECTIONS
from genkit_audit.measure import Audit
from genkit_audit.prediction import StartLimits

_LEVELS = np.geomspace(1.0, 1000.0, 200)
_BLUE, _ORANGE, _GREEN, _PINK = PALETTE[:4]


def picture_of(audits: Sequence[Audit], start: StartLimits) -> bytes:
    """Return a PNG with a row for each audit.

    Args:
        audits: audits; those without statistics are skipped.
        start: criteria of a start, which are marked in the plots.

    Raises:
        UsageError: no audit has statistics of images that vary.
    """
    rows = [(a.subject, a.statistics) for a in audits if a.statistics and a.statistics.deviations]
    if not rows:
        measured = any(audit.statistics for audit in audits)
        reason = "the images do not vary" if measured else "no stage has any"
        raise UsageError(
            f"--picture requires statistics of images that vary, but {reason}; remove the option",
            Code.NOT_FOUND,
        )
    figure, places = figure_with_axes(2 * len(rows), columns=2)
    for row, (subject, statistics) in enumerate(rows):
        _correlations(places[2 * row], subject, statistics)
        _spread(places[2 * row + 1], statistics, start)
    return png_of(figure)


def _correlations(axes: Axes, subject: str, statistics: CouplingStatistics) -> None:
    numbers = np.arange(1, len(statistics.correlations) + 1)
    error = 2 * statistics.pairs**-0.5
    axes.axhspan(-error, error, color="#8a8a8a", alpha=0.2, linewidth=0)
    axes.plot(numbers, statistics.correlations, marker="o", markersize=4, **line_style(0))
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -3 * error), max(high, 3 * error))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel(
        "principal direction of the images\n"
        "shaded: two standard errors around 0, the value for independent noise"
    )
    axes.set_ylabel("correlation of image and assigned noise")
    set_title(axes, subject)


def _spread(axes: Axes, statistics: CouplingStatistics, start: StartLimits) -> None:
    """Plot the relative standard deviation of samples against the first noise level.

    The line shows the first direction, and the band the range over all directions.
    """
    for (name, count), color in zip(CORRECTIONS.items(), (_ORANGE, _BLUE, _PINK), strict=True):
        ratios = np.array([statistics.spread_of_samples(float(s), count) for s in _LEVELS])
        axes.plot(_LEVELS, ratios[:, 0], color=color, label=f"start {name}, first direction")
        axes.fill_between(
            _LEVELS, ratios.min(1), ratios.max(1), color=color, alpha=0.15, linewidth=0
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
    axes.set_ylabel(
        "standard deviation of samples / of images\npale: all directions; green: tolerance"
    )
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    set_title(axes, "Effect of the start on samples, without other errors")
