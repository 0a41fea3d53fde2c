"""Noise levels from the table of improved DDPM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import DataError, Problem
from genkit.settings import setting
from genkit_edm.iddpm import iddpm_levels
from genkit_edm.sigma_range import MAX_SIGMA, MIN_SIGMA, RangeSchedule


@dataclass(frozen=True, kw_only=True)
class IddpmSchedule(RangeSchedule):
    """Levels of improved DDPM's table within the range, at even distances in it, then 0."""

    source = "EDM, arXiv 2206.00364, table 1, column iDDPM; arXiv 2102.09672"

    sigma_max: float = setting(
        81.0, doc="noise level of the start", at_least=MIN_SIGMA, at_most=MAX_SIGMA
    )
    c_1: float = setting(0.001, doc="bounds the highest level of the table", above=0, below=1)
    c_2: float = setting(0.008, doc="bounds the lowest levels of the table", above=0)
    m: int = setting(1000, doc="number of levels in the table", at_least=2, at_most=100_000)

    def check_levels(self) -> Iterator[Problem]:
        known = len(self._table())
        if self.steps > known:
            yield Problem(
                ("steps",),
                f"{self.steps:,}, and between sigma_min and sigma_max the table has {known:,} "
                "noise levels",
                f"write {known:,} or less, or widen the range" if known else "widen the range",
            )
        else:
            yield from super().check_levels()

    def levels(self) -> Tensor:
        table = self._table()
        if not len(table):
            raise DataError(
                f"the table has no noise level from {self.sigma_min:g} to {self.sigma_max:g}"
            )
        stride = (len(table) - 1) / max(self.steps - 1, 1)
        return table[(stride * torch.arange(self.steps, dtype=torch.float64)).round().long()]

    def _table(self) -> Tensor:
        """Return the levels within the range, falling."""
        levels = iddpm_levels(self.c_1, self.c_2, self.m).flip(0)
        return levels[(levels >= self.sigma_min) & (levels <= self.sigma_max)]
