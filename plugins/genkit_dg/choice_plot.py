"""Plots of a discriminator's scores on held-out items."""

from __future__ import annotations

import math
from collections.abc import Mapping

from genkit.parts.figure import PALETTE, figure_with_axes, png_of, set_title, use_log
from genkit_dg.judgment import Judgment


def choice_plot(judgments: Mapping[int, Judgment], levels: Mapping[str, Judgment]) -> bytes:
    """Return a PNG of two plots: cross-entropy of all snapshots, and scores by noise level.

    Args:
        judgments: scores of each snapshot, keyed by number of training images.
        levels: scores of the chosen snapshot, keyed by noise level.
    """
    figure, (along, across) = figure_with_axes(2)
    entropies = [judgment.cross_entropy for judgment in judgments.values()]
    errors = [judgment.standard_error for judgment in judgments.values()]
    along.errorbar(list(judgments), entropies, errors, color=PALETTE[0], marker="o", markersize=3.5)
    along.axhline(math.log(2), color="#000000", linestyle="--", linewidth=1, label="chance")
    lowest = min(entropies)
    best = list(judgments)[entropies.index(lowest)]
    along.plot([best], [lowest], "o", color=PALETTE[1], markersize=8, label="chosen")
    along.set_xlabel("training images")
    along.set_ylabel("held-out cross-entropy")
    set_title(along, "Snapshots on held-out items")
    below = {"loc": "upper left", "bbox_to_anchor": (0, -0.14), "ncols": 3, "frameon": False}
    along.legend(**below)
    sigmas = [float(level) for level in levels]
    for index, name in enumerate(("cross_entropy", "accuracy", "calibration_error")):
        values = [getattr(judgment, name) for judgment in levels.values()]
        label = name.replace("_", " ")
        across.plot(sigmas, values, color=PALETTE[index], marker="o", markersize=3.5, label=label)
    use_log(across.xaxis, sigmas)
    across.set_ylabel("score of held-out items")
    across.set_xlabel("noise level sigma")
    set_title(across, "The chosen snapshot by noise level")
    across.legend(**below)
    return png_of(figure)
