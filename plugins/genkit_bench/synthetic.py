"""Images like photographs, made from a seed: to measure with, not to learn from."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Code, UsageError
from genkit.interfaces import Dataset, Inputs
from genkit.random import generator
from genkit.settings import setting
from genkit.types import Batch, DataSpec

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


@dataclass(frozen=True, kw_only=True)
class Synthetic(Dataset):
    """Noise whose amplitude falls as 1/f, as in photographs: to measure with, not to learn from."""

    shape: tuple[int, ...] = setting(
        (3, 32, 32), doc="channels, height and width of an image, or length of a vector", at_least=1
    )
    classes: int = setting(10, doc="classes of the labels; 0 for no labels", at_least=0)
    count: int = setting(2048, doc="number of images", at_least=1)
    seed: int = setting(0, doc="chooses the images", at_least=0)

    def spec(self) -> DataSpec:
        return DataSpec(self.shape, self.classes)

    def load(self, inputs: Inputs) -> Batch:
        require_memory(self.count, self.shape)
        return synthetic(self.shape, self.classes, self.count, self.seed)


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
            f"GiB, and this machine has {has / 2**30:,.0f}; choose smaller pools or items",
            Code.OUT_OF_MEMORY,
        )
