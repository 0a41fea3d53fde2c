"""Draw the picture of docs/results/guidance.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guidance_scores import INTERVALS, SECOND_WEIGHTS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

Lines = Mapping[int, dict[str, Any]]
"""Dict from the seed of a training run to its scores for a cell."""

Scores = Mapping[tuple[str, str, int, str, str], Lines]
"""Dict from (method, schedule, steps, guidance, arm) to the scores."""

CURVES = {
    ("edm", "none", "none"): ("EDM", "#555555"),
    ("edm", "dg", "sweep-both"): ("EDM + DG", "#cc79a7"),
    ("edm-aot", "none", "none"): ("EDM-AOT", "#56b4e9"),
    ("edm-aot", "dg", "sweep-both"): ("EDM-AOT + DG", "#0072b2"),
    ("edm-aot", "aot-dg", "sweep-both"): ("EDM-AOT + AOT-DG", "#d55e00"),
}
SECOND = {"classifier-free": "o-", "autoguidance": "s--"}
COLORS = ("#555555", "#0072b2", "#d55e00")


def draw(scores: Scores, discriminators: Mapping[tuple[str, str], Lines], path: Path) -> None:
    """Draw the Fréchet distance against cost, the fitted weights, and guidance by a second denoiser."""
    figure = Figure(figsize=(16, 9), layout="constrained", facecolor="white")
    above = ["paper", "paper", "fitted", "fitted", "conditional", "conditional"]
    axes = figure.subplot_mosaic([above, ["weights"] * 3 + ["second"] * 3])
    against_cost(axes["paper"], scores, "", "paper", "unconditional, noise levels of each paper")
    against_cost(axes["fitted"], scores, "", "fitted", "unconditional, fitted noise levels")
    title = "class-conditional, noise levels of each paper"
    against_cost(axes["conditional"], scores, "-cond", "paper", title)
    by_level(axes["weights"], discriminators)
    steps = sorted({key[2] for key in scores if key[0] == "edm-second"})
    if steps:
        against_weight(axes["second"], scores, steps[-1])
    figure.savefig(path, dpi=110)


def against_cost(axes: Axes, scores: Scores, end: str, schedule: str, title: str) -> None:
    """Draw the Fréchet distance of each method against the cost of a sample.

    Args:
        axes: axes to draw on.
        scores: all scores.
        end: suffix of the names of the methods, such as ``-cond``.
        schedule: name of the schedule.
        title: title of the axes.
    """
    steps = sorted({key[2] for key in scores})
    for (method, guidance, arm), (label, color) in CURVES.items():
        cells = [scores.get((method + end, schedule, n, guidance, arm), {}) for n in steps]
        lines = [list(cell.values()) for cell in cells if cell]
        if lines:
            costs = [statistics.fmean(x["cost"]["nfe_equivalents"] for x in cell) for cell in lines]
            axes.errorbar(costs, *middles(lines), fmt="o-", color=color, label=label, capsize=3)
    distances(axes)
    axes.set_xlabel("NFE-equivalents: arithmetic / arithmetic of one call of the denoiser")
    finish(axes, title)


def by_level(axes: Axes, discriminators: Mapping[tuple[str, str], Lines]) -> None:
    """Draw the fitted weight of each discriminator, with a curve for each training run."""
    for (method, guidance), (label, color) in {
        ("edm", "dg"): CURVES["edm", "dg", "sweep-both"],
        ("edm-aot", "dg"): CURVES["edm-aot", "dg", "sweep-both"],
        ("edm-aot", "aot-dg"): CURVES["edm-aot", "aot-dg", "sweep-both"],
    }.items():
        for number, line in enumerate(discriminators.get((method, guidance), {}).values()):
            weight = line["weight"]
            name = "" if number else label
            axes.plot(weight["sigmas"], weight["weights"], "o-", color=color, label=name, ms=3)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_ylim(-0.5, 2.5)
    axes.set_xlabel("noise level")
    axes.set_ylabel("weight")
    finish(axes, "weight fitted on held-out images, w*")


def against_weight(axes: Axes, scores: Scores, steps: int) -> None:
    """Plot the Fréchet distance against the weight of guidance by a second denoiser.

    There is a curve for each interval of noise levels.
    """
    none = scores.get(("edm-second", "paper", steps, "none", "none"), {})
    for guidance, style in SECOND.items():
        for (interval, text), color in zip(INTERVALS.items(), COLORS, strict=True):
            cells = {0.0: none} | {
                weight: scores.get(
                    ("edm-second", "paper", steps, guidance, f"{weight:g}-{interval}"), {}
                )
                for weight in SECOND_WEIGHTS
            }
            lines = {weight: list(cell.values()) for weight, cell in cells.items() if cell}
            label = f"{guidance}, {text or 'everywhere'}"
            found = middles(list(lines.values()))
            axes.errorbar(list(lines), *found, fmt=style, color=color, label=label, capsize=3)
    distances(axes)
    axes.set_xlabel("weight")
    finish(axes, f"conditional EDM, {steps} steps")


def middles(cells: list[list[dict[str, Any]]]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each cell's Fréchet distance.

    The deviation is that over the training runs, or over the sets of samples of a single run.
    """
    each = [[line["frechet_classifier"] for line in lines] for lines in cells]
    deviations = [
        statistics.stdev(values) if len(values) > 1 else lines[0]["frechet_classifier_std"]
        for values, lines in zip(each, cells, strict=True)
    ]
    return [statistics.fmean(values) for values in each], deviations


def distances(axes: Axes) -> None:
    """Label the axis of the Fréchet distance, which is logarithmic with plain numbers."""
    axes.set_yscale("log")
    axes.set_ylabel("Fréchet distance, classifier features")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")


def finish(axes: Axes, title: str) -> None:
    """Add the title, the grid and the legend, which all panels have."""
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")
