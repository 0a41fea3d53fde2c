"""Data sets of points in the plane, whose samples and trajectories can be plotted."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import Dataset, Inputs, Stages
from genkit.parts.memory import memory_problems
from genkit.random import generator
from genkit.settings import setting
from genkit.types import Batch, DataSpec


@dataclass(frozen=True, kw_only=True)
class Points(Dataset):
    """Random points along a plane curve, roughly in [-1, 1]^2, with standard deviation near 0.5."""

    items: int = setting(10_000, doc="number of points", at_least=1)
    noise: float = setting(
        0.02, doc="standard deviation of the points around the curve", at_least=0, at_most=1
    )
    seed: int = setting(0, doc="seed of the points", at_least=0)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        size = 2 * 4 * self.items  # two coordinates in float32
        yield from memory_problems(("items",), self.items, size, f"{self.items:,} points")

    def item_count(self) -> int:
        return self.items

    def load(self, inputs: Inputs) -> Batch:
        draws = generator(self.seed, type(self).__name__)
        points, labels = self._curve(torch.rand(self.items, generator=draws))
        return Batch(points + self.noise * torch.randn(points.shape, generator=draws), labels)

    @abstractmethod
    def _curve(self, position: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return points ``[N, 2]`` of the curve at positions ``[N]`` in [0, 1), and labels ``[N]``.

        The labels are None if there are no classes.
        """


@dataclass(frozen=True, kw_only=True)
class SwissRoll(Points):
    """Two-dimensional points along a spiral of one and a half turns, without labels."""

    def spec(self) -> DataSpec:
        return DataSpec((2,))

    def _curve(self, position: Tensor) -> tuple[Tensor, Tensor | None]:
        # The radius is proportional to the angle, from 1.5 pi to 4.5 pi, and at most 1.
        angle = 1.5 * math.pi * (1 + 2 * position)
        radius = angle / (4.5 * math.pi)
        return torch.stack([angle.cos(), angle.sin()], 1) * radius[:, None], None


@dataclass(frozen=True, kw_only=True)
class Moons(Points):
    """Two-dimensional points along two interleaved half circles, each of which is a class."""

    def spec(self) -> DataSpec:
        return DataSpec((2,), classes=2)

    def _curve(self, position: Tensor) -> tuple[Tensor, Tensor | None]:
        # The second half circle is the first one rotated by 180 degrees about the origin.
        angle = math.pi * position
        first = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1) / 1.5
        labels = torch.arange(len(position)) % 2
        return first * (1 - 2 * labels)[:, None], labels
