"""What couplers are measured on: images like photographs made from a seed, cut into pools."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genkit.bench.alone import NoStages
from genkit.errors import UsageError
from genkit.interfaces import Dataset
from genkit.plugin.registry import Registry
from genkit.random import generator
from genkit.recipe.decode import component
from genkit.settings import shown
from genkit.tensors import decoded
from genkit.types import Batch

_FEWEST = 2048  # synthetic images, for couplers that choose among the whole data set
_EMBEDDINGS = 16  # length of those that data without any is given
_COLOUR = 0.1  # share of a channel's variance that the channels do not have in common
_BETWEEN = 0.2  # share of an image's variance that lies between the classes
_CONTRAST = 0.5  # standard deviation of all values, as in photographs over [-1, 1]
_BLOCK = 2048  # images that are made at a time, to bound the memory


def synthetic(shape: Sequence[int], classes: int, count: int, seed: int) -> Batch:
    """Return images whose amplitude falls as 1/f, as in photographs, around a mean of their class.

    White noise would not do: how long an assignment takes and how much it gains depend on how
    unlike the directions of the data are, and natural images vary most in few, smooth ones.

    Args:
        shape: of an item: ``(channels, height, width)``, or ``(dimensions,)`` for a vector.
        classes: of the labels; 0 for one mean and no labels.
        count: of images.
        seed: chooses means and images.

    Returns:
        ``[count, *shape]`` float32 in [-1, 1] of standard deviation about 0.5, with labels.
    """
    shape = tuple(shape)
    means = _pink(max(classes, 1), shape, generator(seed, "bench", "means"))
    labels = torch.randint(max(classes, 1), (count,), generator=generator(seed, "bench", "labels"))
    data = torch.empty((count, *shape))
    for start in range(0, count, _BLOCK):
        block = data[start : start + _BLOCK]
        own = _pink(len(block), shape, generator(seed, "bench", "images", start))
        block.copy_(own * math.sqrt(1 - _BETWEEN))
        block += means[labels[start : start + _BLOCK]] * math.sqrt(_BETWEEN)
    return Batch((data * _CONTRAST).clamp_(-1, 1), labels if classes else None)


def _amplitude(sides: tuple[int, ...]) -> Tensor:
    """Return 1/f over the spectrum of something with these sides, of unit mean power."""
    squares = torch.zeros(())
    for side in sides:
        squares = squares[..., None] + torch.fft.fftfreq(side).square()
    # 1/f knows no bound at f = 0. A wave three sides long gives the mean of an item a quarter of
    # the variance, its share in photographs.
    longest = min(1 / side for side in sides) / 3
    amplitude = 1 / squares.sqrt().clamp(min=longest)
    unit: Tensor = amplitude / amplitude.square().mean().sqrt()
    return unit


def _pink(count: int, shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
    """Return ``[count, *shape]`` of mean 0 and variance 1 whose amplitude falls as 1/f."""
    sides = shape[1:] or shape
    amplitude, dims = _amplitude(sides), tuple(range(-len(sides), 0))

    def drawn(channels: tuple[int, ...]) -> Tensor:
        white = torch.randn((count, *channels, *sides), generator=draws)
        pink: Tensor = torch.fft.ifftn(torch.fft.fftn(white, dim=dims) * amplitude, dim=dims).real
        return pink

    if len(shape) == 1:
        return drawn(())
    return math.sqrt(1 - _COLOUR) * drawn((1,)) + math.sqrt(_COLOUR) * drawn((shape[0],))


def synthetic_items(shape: Sequence[int], classes: int, largest: int, seed: int) -> Batch:
    """Return the data set from which synthetic pools of up to ``largest`` images are drawn.

    Raises:
        UsageError: the machine has too little memory for it.
    """
    count = max(_FEWEST, largest)
    require_memory(count, shape)
    return synthetic(shape, classes, count, seed)


def load_items(registry: Registry, table: Mapping[str, Any], largest: int) -> Batch:
    """Return all items of a data set, given as a recipe's table.

    Raises:
        GenkitError: there is none of this name, a setting is wrong, it cannot be read, it needs
            what an earlier stage left, or pools of ``largest`` items do not fit into memory.
    """
    registry.find(["dataset"], str(table.get("use")))  # first of all, for its message is short
    dataset = component(registry, "dataset", table)
    if not isinstance(dataset, Dataset):
        raise UsageError(f"{shown(table)} is no data set")
    batch = dataset.load(NoStages(torch.device("cpu")))
    require_memory(max(largest, len(batch)), tuple(batch.data.shape[1:]))
    return batch.with_data(decoded(batch.data))


def require_memory(count: int, shape: Sequence[int]) -> None:
    """Raise UsageError where data set, pool and noise alone need more than the machine has."""
    needed = 3 * 4 * count * math.prod(shape)
    try:
        has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # a system that does not tell
        return
    if needed > has:
        raise UsageError(
            f"{count:,} items of shape {tuple(shape)} and their noise take {needed / 2**30:,.0f} "
            f"GiB, and this machine has {has / 2**30:,.0f}; choose smaller pools or items"
        )


def completed(batch: Batch, seed: int) -> Batch:
    """Return the same items with labels, sources and embeddings made up where they have none.

    So a coupler that needs them can be measured on any data. Made-up labels are 10 random
    classes, sources are random halves, and an embedding is that of the item's class with noise.
    """
    count = len(batch)
    labels = batch.labels
    if labels is None:
        labels = torch.randint(10, (count,), generator=generator(seed, "bench", "no labels"))
    sources = batch.sources
    if sources is None:
        sources = torch.randint(2, (count,), generator=generator(seed, "bench", "sources"))
    embeddings = batch.embeddings
    if embeddings is None:
        draws = generator(seed, "bench", "embeddings")
        centres = torch.randn((int(labels.max()) + 1, _EMBEDDINGS), generator=draws)
        embeddings = centres[labels] + 0.5 * torch.randn((count, _EMBEDDINGS), generator=draws)
    return replace(batch, labels=labels, sources=sources, embeddings=embeddings)


@dataclass(frozen=True)
class Pools:
    """Pools of any size, each with its noise, drawn from a data set.

    Attributes:
        data: all items; :func:`completed` gives them what a coupler may require.
        seed: chooses items and noise.
        device: where pools are.
    """

    data: Batch
    seed: int
    device: torch.device

    def batch(self, size: int, index: int) -> Batch:
        """Return pool number ``index`` of a size; an item comes again when all were used."""
        order: list[Tensor] = []
        for epoch in range(math.ceil(size / len(self.data))):
            draws = generator(self.seed, "bench", "pool", size, index, epoch)
            order.append(torch.randperm(len(self.data), generator=draws))
        return self.data[torch.cat(order)[:size]].to(self.device)

    def noise(self, size: int, index: int, each: int = 1) -> Tensor:
        """Return ``[size * each, *shape]`` unit noise of the same pool."""
        draws = generator(self.seed, "bench", "noise", size, index, each)
        shape = (size * each, *self.data.data.shape[1:])
        return torch.randn(shape, generator=draws).to(self.device)
