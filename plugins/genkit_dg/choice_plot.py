"""Plots of a discriminator's scores on held-out items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from genkit.parts.figure import PALETTE, figure_with_axes, png_of, set_title, use_log
from genkit_dg.judgment import HeldOutScores, Judgment


def choice_plot(
    judgments: Mapping[int, HeldOutScores], levels: Sequence[tuple[float, HeldOutScores]]
) -> bytes:
    """Return a PNG of two plots: the criterion of all snapshots, and all scores by noise level.

    Args:
        judgments: scores of each snapshot, keyed by number of training images.
        levels: noise levels, each with the scores of the chosen snapshot.
    """
    figure, (along, across) = figure_with_axes(2)
    scores = [*judgments.values()]
    values = [judgment.value for judgment in scores]
    errors = [judgment.standard_error for judgment in scores]
    along.errorbar(list(judgments), values, errors, color=PALETTE[0], marker="o", markersize=3.5)
    if isinstance(scores[0], Judgment):
        along.axhline(math.log(2), color="#000000", linestyle="--", linewidth=1, label="chance")
    lowest = min(values)
    best = list(judgments)[values.index(lowest)]
    along.plot([best], [lowest], "o", color=PALETTE[1], markersize=8, label="chosen")
    along.set_xlabel("training images")
    along.set_ylabel(f"held-out {scores[0].criterion.replace('_', '-')}")
    set_title(along, "Snapshots on held-out items")
    below = {"loc": "upper left", "bbox_to_anchor": (0, -0.14), "ncols": 3, "frameon": False}
    along.legend(**below)
    sigmas = [level for level, _ in levels]
    for index, name in enumerate(name for name in scores[0].row() if name != "standard_error"):
        values = [getattr(judgment, name) for _, judgment in levels]
        label = name.replace("_", " ")
        across.plot(sigmas, values, color=PALETTE[index], marker="o", markersize=3.5, label=label)
    use_log(across.xaxis, sigmas)
    across.set_ylabel("score of held-out items")
    across.set_xlabel("noise level sigma")
    set_title(across, "The chosen snapshot by noise level")
    across.legend(**below)
    return png_of(figure)
