"""Plots of the fitted weight and the discriminator's log-ratios by noise level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from genkit.parts.figure import (
    PALETTE,
    figure_with_axes,
    log_where_wide,
    png_of,
    set_title,
    use_log,
)

if TYPE_CHECKING:
    from genkit_dg.fit_weight import Level

ERRORS = {"error_at_one": "weight 1", "error_fitted": "fitted weight"}
LOG_RATIOS = {
    "log_ratio_real": "real, assigned noise",
    "log_ratio_fakes": "generated, assigned noise",
    "log_ratio_unpaired": "generated, independent noise",
    "log_ratio_states": "states of trajectories",
}


def weight_plot(levels: Sequence[Level]) -> bytes:
    """Return a PNG of weight, denoising errors and log-ratios against the noise level."""
    figure, (weight, error, ratio) = figure_with_axes(3, width=5.2, columns=2)
    sigmas = [level.sigma for level in levels]
    weights = [level.weight for level in levels]
    spreads = [level.standard_error for level in levels]
    weight.errorbar(sigmas, weights, spreads, color=PALETTE[0], marker="o", markersize=3.5)
    weight.axhline(0, color="#000000", linewidth=0.8)
    weight.axhline(1, color="#000000", linewidth=0.8, linestyle="--")
    weight.set_ylabel("fitted weight")
    set_title(weight, "Weight with minimal denoising error")
    error.set_ylabel("error / error without guidance")
    ratio.set_ylabel("mean of log(d / (1 - d))")
    for axes, names, title in (
        (error, ERRORS, "Denoising error"),
        (ratio, LOG_RATIOS, "Log-ratio of the discriminator"),
    ):
        for index, (name, label) in enumerate(names.items()):
            values = [getattr(level, name) for level in levels]
            axes.plot(sigmas, values, color=PALETTE[index], marker="o", markersize=3.5, label=label)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2, frameon=False, fontsize=8)
        set_title(axes, title)
    log_where_wide(error, [getattr(level, name) for level in levels for name in ERRORS])
    for axes in (weight, error, ratio):
        use_log(axes.xaxis, sigmas)
        axes.set_xlabel("noise level sigma")
    return png_of(figure)
