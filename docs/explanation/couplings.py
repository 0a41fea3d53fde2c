"""Draw `../images/couplings.png` and print the figures that `couplings.md` quotes.

    python docs/explanation/couplings.py

takes two minutes on one core. The numbers are the same in every run, since every draw has a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import genkit
from genkit.parts.no_stages import NoStages
from genkit.random import generator
from genkit.tensors import pairwise_cost
from genkit.types import Batch, Pairs

PICTURE = Path(__file__).parent.parent / "images" / "couplings.png"
POOL = 512
POOLS = 40
SHOWN = 1500  # points of a scatter plot
CANDIDATES = 4  # noise samples per image, of which the nearest is used
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
PAIRS = 2048  # min. number of pairs per group size

Pairing = Callable[[Batch, Tensor, torch.Generator], Pairs]


def data(name: str) -> Batch:
    """Return all items of a data set."""
    return genkit.component("dataset", name).load(NoStages())


def pair_with(name: str, **settings: object) -> Pairing:
    """Return the method `pair` of a coupler."""
    return genkit.component("coupler", name, **settings).pair


def nearest(batch: Batch, noise: Tensor, draws: torch.Generator) -> Pairs:
    """Assign to each item the nearest of several noise samples, of which ``noise`` has the first."""
    more = torch.randn((CANDIDATES - 1, *noise.shape), generator=draws)
    candidates = torch.cat([noise[None], more])
    best = (candidates - batch.data).flatten(2).norm(dim=2).argmin(dim=0)
    noise.copy_(candidates[best, torch.arange(len(batch))])
    index = torch.arange(len(batch))
    return Pairs(index, index)


def paired(items: Batch, pairing: Pairing, size: int, pools: int) -> Iterator[tuple[Batch, Tensor]]:
    """Yield pools of items with the noise that is assigned to them."""
    for index in range(pools):
        draws = generator(0, "couplings", size, index)
        batch = items[torch.randperm(len(items), generator=draws)[:size]]
        noise = torch.randn(batch.data.shape, generator=draws)
        pairs = pairing(batch, noise, draws)
        yield batch[pairs.data], noise[pairs.noise]


def pairs_of(items: Batch, pairing: Pairing, label: int | None) -> tuple[Tensor, Tensor]:
    """Return the items of one class, or all, with the noise that is assigned to them."""
    data, noises = [], []
    for batch, noise in paired(items, pairing, POOL, POOLS):
        chosen = slice(None) if label is None else batch.labels == label
        data.append(batch.data[chosen])
        noises.append(noise[chosen])
    return torch.cat(data), torch.cat(noises)


def gain(items: Batch, pairing: Pairing, size: int) -> float:
    """Return the relative reduction of the mean distance over random pairs."""
    before = after = 0.0
    for batch, noise in paired(items, pairing, size, max(8, PAIRS // size)):
        after += float((batch.data - noise).flatten(1).norm(dim=1).sum())
        before += float(pairwise_cost(batch.data, noise).mean(dim=1).sum())
    return 1 - after / before


def gain_inside(items: Batch, pairing: Pairing, size: int) -> float:
    """Return the gain in groups of one class, as the mean over the classes."""
    labels = items.labels.unique()
    return sum(gain(items[items.labels == k], pairing, size) for k in labels) / len(labels)


def levels_and_noise(items: Batch, *, scaled: bool) -> tuple[Tensor, Tensor]:
    """Return noise levels and the noise of their items.

    Args:
        items: items whose noise is assigned.
        scaled: whether noise is multiplied by the noise level of the image before it is paired.
    """
    levels, noises = [], []
    for index in range(POOLS):
        draws = generator(0, "levels", index)
        y = items.data[torch.randperm(len(items), generator=draws)[:POOL]]
        noise = torch.randn(y.shape, generator=draws)
        level = (1.2 * torch.randn(POOL, generator=draws) - 1.2).exp()
        scale = level[:, None, None] if scaled else 1.0
        cost = (y[:, None] - scale * noise[None]).square().sum(dim=2)
        _, columns = linear_sum_assignment(cost.numpy())
        levels.append(level)
        noises.append(noise[torch.from_numpy(columns)])
    return torch.cat(levels), torch.cat(noises)


def variance_by_level(level: Tensor, noise: Tensor) -> tuple[list[float], list[float]]:
    """Divide the noise levels into ten groups; return median level and noise variance of each."""
    order = level.argsort().chunk(10)
    return (
        [float(level[part].median()) for part in order],
        [float(noise[part].square().mean()) for part in order],
    )


def draw_noise(axes: Axes, title: str, points: Tensor, noise: Tensor, others: Tensor) -> None:
    """Plot noise in the color of its image, and circles that contain 50 % and 95 % of N(0, I)."""
    place = points[:SHOWN, 0] - points[:SHOWN, 1]  # grows along the upper moon
    axes.scatter(*others[:SHOWN].T, s=3, color="#bbbbbb", linewidths=0)
    for dots, size in ((noise[:SHOWN], 9), (points[:SHOWN], 7)):
        axes.scatter(*dots.T, s=size, c=place, cmap="viridis", alpha=0.75, linewidths=0)
    angle = torch.linspace(0, 2 * math.pi, 200)
    for share in (0.5, 0.95):
        radius = math.sqrt(-2 * math.log(1 - share))
        axes.plot(radius * angle.cos(), radius * angle.sin(), color="#333333", linewidth=0.9)
    mean, variance = noise.mean(dim=0), noise.var(dim=0)
    text = f"mean ({mean[0]:.2f}, {mean[1]:.2f})\nvariance ({variance[0]:.2f}, {variance[1]:.2f})"
    box = {"facecolor": "white", "linewidth": 0, "alpha": 0.8, "pad": 2}
    axes.text(0.02, 0.02, text, transform=axes.transAxes, fontsize=10, bbox=box)
    axes.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal")
    title_at_left(axes, title)
    axes.set_axis_off()


def title_at_left(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)


def draw_levels(axes: Axes, items: Batch) -> list[float]:
    """Plot the variance of noise at each noise level, paired before and after scaling."""
    found = []
    for scaled, colour, label in ((False, BLUE, "unit noise"), (True, ORANGE, "scaled noise")):
        level, variance = variance_by_level(*levels_and_noise(items, scaled=scaled))
        axes.plot(level, variance, "o-", color=colour)
        top = max(range(10), key=variance.__getitem__) if scaled else 9
        axes.text(level[top] * 1.25, variance[top] + 0.05, label, color=colour, fontsize=10)
        found = variance
    axes.set_xscale("log")
    axes.set_xlim(0.03, 8)
    axes.set_ylim(0, 2.2)
    axes.set_xlabel("noise level of the image")
    axes.set_ylabel("variance of its noise")
    axes.grid(alpha=0.3)
    title_at_left(axes, "Noise must be paired before it is scaled")
    return found


def draw_gains(axes: Axes, gains: dict[str, Sequence[float]]) -> None:
    """Plot the gain against the size of a group."""
    for (name, values), colour in zip(gains.items(), (GREEN, BLUE, ORANGE), strict=True):
        axes.plot(SIZES, values, "o-", color=colour)
        axes.text(SIZES[-1] * 1.25, values[-1], name, color=colour, va="center", fontsize=10)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(0.8, SIZES[-1] * 8)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("images in a group")
    axes.set_ylabel("reduction of the mean distance")
    axes.grid(alpha=0.3)
    title_at_left(axes, "A group of one image gains nothing")


def main() -> None:
    """Measure, draw and print."""
    moons, digits = data("moons"), data("digits")
    blind = pair_with("hungarian")
    inside = pair_with("partitioned", by=["label"], inner={"use": "hungarian"})
    figure = Figure(figsize=(13.5, 8.6), dpi=110, layout="constrained", facecolor="white")
    (one, two, three), (four, five, six) = figure.subplots(2, 3)

    upper, lower = (moons.data[moons.labels == label] for label in (0, 1))
    for axes, title, pairing in (
        (one, "Random pairs: noise of the upper moon", pair_with("random")),
        (two, "Paired across the moons", blind),
        (three, "Paired inside each moon", inside),
    ):
        draw_noise(axes, title, *pairs_of(moons, pairing, 0), lower)
    draw_noise(
        four, f"Nearest of {CANDIDATES}: all noise", *pairs_of(moons, nearest, None), upper[:0]
    )
    scaled = draw_levels(five, moons)
    gains = {
        "digits, mixed": [gain(digits, blind, size) for size in SIZES],
        "digits, one class": [gain_inside(digits, blind, size) for size in SIZES],
        "moons, one class": [gain_inside(moons, blind, size) for size in SIZES],
    }
    draw_gains(six, gains)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Software": None})

    print("variance of noise paired after scaling, lowest and highest tenth of the levels:")
    print(f"{scaled[0]:.2f} {scaled[-1]:.2f}\n")
    print("| images in a group | " + " | ".join(map(str, SIZES)) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    for name, values in gains.items():
        print(f"| {name} | " + " | ".join(f"{value:.1%}" for value in values) + " |")
    print()
    alone = (1 - 1 / 1000) ** (POOL - 1)
    print(f"share of a pool of {POOL} that is alone in its class of 1,000: {alone:.0%}\n")
    for name, pairing in (("across classes", blind), ("inside classes", inside)):
        print(f"digits, pool {POOL}, {name}: {gain(digits, pairing, POOL):.1%} less")
        means = torch.stack([pairs_of(digits, pairing, k)[1].mean(dim=0) for k in range(10)])
        print(f"  max mean of a pixel's noise given the class: {means.abs().max():.2f}")


if __name__ == "__main__":
    main()
