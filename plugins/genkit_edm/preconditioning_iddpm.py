"""The preconditioning of networks trained on the discrete levels of improved DDPM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import Preconditioner, Stages
from genkit.settings import setting
from genkit.types import Coefficients
from genkit_edm.iddpm import iddpm_levels, nearest


@dataclass(frozen=True, kw_only=True)
class IddpmPreconditioner(Preconditioner):
    """The network predicts the noise, and is told the index of the level in its table."""

    source = "EDM, arXiv 2206.00364, table 1, column iDDPM; arXiv 2102.09672"

    c_1: float = setting(0.001, doc="bounds the highest noise level", above=0, below=1)
    c_2: float = setting(0.008, doc="bounds the lowest noise levels", above=0)
    m: int = setting(1000, doc="number of noise levels", at_least=2, at_most=100_000)
    table: tuple[float, ...] = setting(
        (),
        doc="m increasing noise levels that replace those of the formula, such as the table of a "
        "published network; empty for the formula",
        above=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # Computed now, since torch.compile cannot trace the first access to a cached property.
        _ = self._table

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.table and len(self.table) != self.m:
            yield Problem(
                ("table",),
                f"must have m = {self.m} noise levels, got {len(self.table)}",
                f"write m = {len(self.table)}, or leave table out",
            )
        for index, (level, after) in enumerate(pairwise(self.table)):
            if level >= after:
                yield Problem(
                    ("table", index + 1),
                    f"must be above the level before, {level:g}, got {after:g}",
                    "write increasing noise levels",
                )
                return

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return Coefficients(
            c_skip=torch.ones_like(sigma),
            c_out=-sigma,
            c_in=(1 + sigma.square()).rsqrt(),
            c_noise=nearest(sigma, self._levels(sigma)).to(sigma),
        )

    def weight(self, sigma: Tensor) -> Tensor:
        """Return ``1 / c_out^2``: the loss is that of the predicted noise."""
        return 1 / sigma.square()

    def round_sigma(self, sigma: Tensor) -> Tensor:
        levels = self._levels(sigma)
        return levels[nearest(sigma, levels)]

    def _levels(self, like: Tensor) -> Tensor:
        # Converted on the CPU, as not every device has float64; the copy does not synchronize.
        return self._table.to(like.dtype).to(like.device, non_blocking=True)

    @cached_property
    def _table(self) -> Tensor:
        """The levels in float64 on the CPU: making them takes 0.1 ms, a copy of them 4 us."""
        if self.table:
            return torch.tensor(self.table, dtype=torch.float64, device="cpu")
        return iddpm_levels(self.c_1, self.c_2, self.m)
