"""Synthetic images with the spectrum of photographs, for measurements of speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Code, UsageError
from genkit.interfaces import Dataset, Inputs
from genkit.parts.memory import total_memory
from genkit.random import generator
from genkit.settings import setting
from genkit.types import Batch, DataSpec

_COLOR = 0.1  # share of the variance that is independent between channels; chosen, not tuned
_BETWEEN = 0.2  # share of the variance that is between classes; chosen, not tuned
_CONTRAST = 0.5  # standard deviation of all values, as in photographs in [-1, 1]
_BLOCK = 2048  # number of images computed at a time, which limits memory


def synthetic(shape: Sequence[int], classes: int, count: int, seed: int) -> Batch:
    """Return images with the 1/f amplitude spectrum of photographs, around a mean for each class.

    White noise would be misleading: the time and the gain of a coupler depend on the spectrum of
    the data, and photographs vary most along few, smooth directions.

    Args:
        shape: shape of an item, ``(channels, height, width)`` or ``(dimensions,)``.
        classes: number of classes; 0 for a single mean and no labels.
        count: number of images.
        seed: seed of means and images.

    Returns:
        Images ``[count, *shape]`` float32 in [-1, 1] with a standard deviation of about 0.5, and
        their labels ``[count]``.
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
    """Return 1/f at the frequencies of an array of this shape, scaled to a mean power of 1."""
    squares = torch.zeros(())
    for side in sides:
        squares = squares[..., None] + torch.fft.fftfreq(side).square()
    # 1/f diverges at f = 0. Frequencies are clamped to that of a wavelength of three sides, which
    # gives the mean of an item a quarter of the variance, as in photographs.
    longest = min(1 / side for side in sides) / 3
    amplitude = 1 / squares.sqrt().clamp(min=longest)
    unit: Tensor = amplitude / amplitude.square().mean().sqrt()
    return unit


def _pink(count: int, shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
    """Return noise ``[count, *shape]`` with mean 0, variance 1 and a 1/f amplitude spectrum."""
    sides = shape[1:] or shape
    amplitude, dims = _amplitude(sides), tuple(range(-len(sides), 0))

    def draw(channels: tuple[int, ...]) -> Tensor:
        white = torch.randn((count, *channels, *sides), generator=draws)
        pink: Tensor = torch.fft.ifftn(torch.fft.fftn(white, dim=dims) * amplitude, dim=dims).real
        return pink

    if len(shape) == 1:
        return draw(())
    return math.sqrt(1 - _COLOR) * draw((1,)) + math.sqrt(_COLOR) * draw((shape[0],))


@dataclass(frozen=True, kw_only=True)
class Synthetic(Dataset):
    """Noise with the 1/f amplitude spectrum of photographs, for measurements of speed."""

    shape: tuple[int, ...] = setting(
        (3, 32, 32), doc="channels, height and width of an image, or length of a vector", at_least=1
    )
    classes: int = setting(10, doc="number of classes; 0 for no labels", at_least=0)
    count: int = setting(2048, doc="number of images", at_least=1)
    seed: int = setting(0, doc="seed of the images", at_least=0)

    def spec(self) -> DataSpec:
        return DataSpec(self.shape, self.classes)

    def load(self, inputs: Inputs) -> Batch:
        require_memory(self.count, self.shape)
        return synthetic(self.shape, self.classes, self.count, self.seed)


def require_memory(count: int, shape: Sequence[int]) -> None:
    """Raise UsageError if data, pool and noise together exceed the memory of the machine."""
    required, available = 3 * 4 * count * math.prod(shape), total_memory()
    if available is not None and required > available:
        raise UsageError(
            f"{count:,} items of shape {tuple(shape)} and their noise require "
            f"{required / 2**30:,.0f} GiB, but this machine has {available / 2**30:,.0f}; choose "
            "smaller pools or items",
            Code.OUT_OF_MEMORY,
        )
