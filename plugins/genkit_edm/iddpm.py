"""Improved DDPM (arXiv 2102.09672) in EDM's notation: a table of noise levels.

EDM, arXiv 2206.00364, table 1: with a(j) = sin^2(pi/2 j / (m (c_2 + 1))), u_m = 0 and
u_{j-1}^2 + 1 = (u_j^2 + 1) / max(a(j-1) / a(j), c_1). The product telescopes into a sum of
logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Component, NoiseDistribution, Stages
from genkit.settings import MAX_SIGMA, MIN_SIGMA, setting, sigma_setting
from genkit_edm.levels import RangeSchedule
from genkit_edm.vp import NoisePrediction


def iddpm_levels(c_1: float = 0.001, c_2: float = 0.008, m: int = 1000) -> Tensor:
    """Return the ``[m]`` noise levels u_{m-1} to u_0, increasing, in float64 on the CPU.

    Args:
        c_1: minimum ratio of adjacent a(j), which bounds the highest level.
        c_2: offset of the cosine, which bounds the lowest levels.
        m: number of levels.
    """
    # As in the reference: a(j) and its ratios in float32, in this order, the rest in float64. With
    # a(j) in float64, samples would differ by up to 3e-6.
    j = torch.arange(m, -1, -1, dtype=torch.float32, device="cpu")
    a = (math.pi / 2 * j / m / (c_2 + 1)).sin().square()
    ratio = (a[1:] / a[:-1]).clamp(min=c_1).double()
    return torch.expm1(-ratio.log().cumsum(0)).sqrt()


def nearest(sigma: Tensor, levels: Tensor) -> Tensor:
    """Return the index of the table's level nearest to each noise level.

    The indices have the shape of ``sigma``.

    Args:
        sigma: noise levels of any shape.
        levels: ``[m]`` increasing noise levels, of the same dtype and device.
    """
    return torch.bucketize(sigma.contiguous(), (levels[1:] + levels[:-1]) / 2)


@dataclass(frozen=True, kw_only=True)
class Table(Component):
    """Settings of the table of noise levels."""

    c_1: float = setting(
        0.001,
        doc="c_1 of EDM's table 1, which bounds the highest noise level",
        at_least=MIN_SIGMA,
        below=1,
    )
    c_2: float = setting(
        0.008, doc="c_2 of EDM's table 1, which bounds the lowest noise levels", above=0, at_most=1
    )
    m: int = setting(1000, doc="number of noise levels in the table", at_least=2, at_most=100_000)

    def formula(self) -> Tensor:
        """Return the ``[m]`` noise levels, see :func:`iddpm_levels`."""
        return iddpm_levels(self.c_1, self.c_2, self.m)


@dataclass(frozen=True, kw_only=True)
class IddpmPreconditioner(Table, NoisePrediction):
    """Preconditions a network that predicts the noise from the image and the index of its level."""

    source = "EDM, arXiv 2206.00364, table 1, column iDDPM; arXiv 2102.09672"

    table: tuple[float, ...] = setting(
        (),
        doc="m increasing noise levels, such as the table of a published network; default: the "
        "levels of the formula",
        at_least=MIN_SIGMA,
        at_most=MAX_SIGMA,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # Fill the cache now: torch.compile cannot trace the first access to a cached property.
        _ = self._table

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.table and len(self.table) != self.m:
            yield Problem(
                ("table",),
                f"must have m = {self.m} noise levels, got {len(self.table)}",
                f"write m = {len(self.table)}, or remove table",
            )
        for index, (level, after) in enumerate(pairwise(self.table)):
            if level >= after:
                yield Problem(
                    ("table", index + 1),
                    f"must be above the previous level, {level:g}, got {after:g}",
                    "write increasing noise levels",
                )
                return

    def c_noise(self, sigma: Tensor) -> Tensor:
        return nearest(sigma, self._levels(sigma)).to(sigma)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        levels = self._levels(sigma)
        return levels[nearest(sigma, levels)]

    def _levels(self, like: Tensor) -> Tensor:
        # Converted on the CPU, because not every device has float64. The copy does not synchronize.
        return self._table.to(like.dtype).to(like.device, non_blocking=True)

    @cached_property
    def _table(self) -> Tensor:
        """The noise levels in float64 on the CPU, cached: computing takes 0.1 ms, copying 4 us."""
        if self.table:
            return torch.tensor(self.table, dtype=torch.float64, device="cpu")
        return self.formula()


@dataclass(frozen=True, kw_only=True)
class IddpmDistribution(Table, NoiseDistribution):
    """Draws all noise levels of improved DDPM's table with equal probability."""

    source = "EDM, arXiv 2206.00364, table 1, column iDDPM; arXiv 2102.09672"

    def quantile(self, u: Tensor) -> Tensor:
        levels = self.formula().to(u.device, non_blocking=True)
        return levels[(u * self.m).long().clamp(max=self.m - 1)]


@dataclass(frozen=True, kw_only=True)
class IddpmSchedule(Table, RangeSchedule):
    """Takes evenly spaced entries of improved DDPM's table of noise levels, then adds 0."""

    source = "EDM, arXiv 2206.00364, table 1, column iDDPM; arXiv 2102.09672"

    sigma_max: float = sigma_setting(81.0, "first noise level")

    def check_levels(self) -> Iterator[Problem]:
        count = len(self._table())
        if self.steps > count:
            yield Problem(
                ("steps",),
                f"must be at most the {count:,} noise levels of the table between sigma_min and "
                f"sigma_max, got {self.steps:,}",
                f"write {count:,} or less, or widen the range" if count else "widen the range",
            )
        else:
            yield from super().check_levels()

    def levels(self) -> Tensor:
        table = self._table()
        if not len(table):
            raise DataError(
                f"the table must have noise levels from {self.sigma_min:g} to {self.sigma_max:g}, "
                "got none; widen the range",
                Code.OUT_OF_RANGE,
            )
        stride = (len(table) - 1) / max(self.steps - 1, 1)
        return table[(stride * torch.arange(self.steps, dtype=torch.float64)).round().long()]

    def _table(self) -> Tensor:
        """Return the levels within the range, decreasing."""
        levels = self.formula().flip(0)
        return levels[(levels >= self.sigma_min) & (levels <= self.sigma_max)]
