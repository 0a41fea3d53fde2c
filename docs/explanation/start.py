"""Draw `../images/start.png`: the effect of the start for Gaussian data with assigned noise, in closed form.

python docs/explanation/start.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genkit.artifacts.coupling import CouplingStatistics
from genkit.start import CORRECTIONS

PICTURE = Path(__file__).parent.parent / "images" / "start.png"
S, CORRELATION, SIGMA_MAX = 15.0, 0.79, 80.0  # CIFAR-10's first direction, in pools of 512
BLACK, BLUE, ORANGE, PINK = "#222222", "#0072B2", "#D55E00", "#CC79A7"
MEASURED = CouplingStatistics(512, 1, (S,), (CORRELATION * S,), S**2, 0.0)


def draw_law(axes: Axes) -> None:
    """Plot the standard deviation of x / sigma against 1 / sigma, and both starts."""
    u = np.linspace(1e-6, 2 / SIGMA_MAX, 200)
    axes.plot(
        u,
        [MEASURED.spread(1 / k)[0] * k for k in u],
        color=BLACK,
        label=r"law of $x = y + \sigma\,n$",
    )
    (right,) = MEASURED.spread(SIGMA_MAX)
    at = 1 / SIGMA_MAX
    axes.plot([0, at], [1, 1], "o-", color=BLUE, label=r"noise: $\sigma_\mathrm{max}\,n$")
    (ratio,) = MEASURED.spread_of_samples(SIGMA_MAX, 1)
    end = ratio * right / SIGMA_MAX
    axes.plot(
        [0, at],
        [1, end],
        "s-",
        color=ORANGE,
        label=r"corrected: $\sigma_\mathrm{max}\,n + D(\sigma_\mathrm{max}\,n)$",
    )
    axes.axvline(at, color="#BBBBBB", lw=0.8, zorder=0)
    axes.annotate(
        r"$\sigma_\mathrm{max} = 80$",
        (at, 1.03),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=9,
    )
    axes.set_xlabel(r"$1 / \sigma$ (0: infinite noise)")
    axes.set_ylabel(r"standard deviation of $x / \sigma$")
    axes.set_title("The state at the first noise level", loc="left", fontweight="bold")
    axes.legend(frameon=False, loc="upper left", fontsize=9)


def draw_samples(axes: Axes) -> None:
    """Plot the spread of samples against sigma_max."""
    levels = np.geomspace(20, 1000, 200)
    colors = BLUE, ORANGE, PINK
    for (name, corrections), color in zip(CORRECTIONS.items(), colors, strict=True):
        ratios = [MEASURED.spread_of_samples(level, corrections)[0] for level in levels]
        axes.plot(levels, ratios, color=color, label=name)
    axes.axhline(1, color="#BBBBBB", lw=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xticks([20, 80, 200, 1000], ["20", "80", "200", "1000"])
    axes.minorticks_off()
    axes.set_xlabel(r"$\sigma_\mathrm{max}$")
    axes.set_ylabel("spread of the samples / the data's")
    axes.set_title("The samples, however many steps", loc="left", fontweight="bold")
    axes.legend(frameon=False, loc="lower right")


def main() -> None:
    """Draw the picture."""
    figure = Figure(figsize=(10, 3.8), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    draw_law(left)
    draw_samples(right)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
