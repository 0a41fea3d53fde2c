"""EDM's schedule of noise levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.settings import setting
from genkit_edm.sigma_range import RangeSchedule, falling_problems


@dataclass(frozen=True, kw_only=True)
class EdmSchedule(RangeSchedule):
    """Noise levels evenly spaced in sigma^(1 / rho), then 0."""

    source = "EDM, arXiv 2206.00364, eq. 5"

    # Beyond a million, rounding of the powers would move the levels.
    rho: float = setting(
        7.0, doc="greater values put more steps at low noise", above=0, at_most=1e6
    )

    def check_levels(self) -> Iterator[Problem]:
        yield from falling_problems(self, "rho", "write a value from 1 to 100; 7 is usual")

    def levels(self) -> Tensor:
        ends = torch.tensor([self.sigma_max, self.sigma_min], dtype=torch.float64)
        high, low = (ends ** (1 / self.rho)).tolist()
        # A single step goes from sigma_max straight to 0; linspace then has one point, the first.
        roots = torch.linspace(high, low, self.steps, dtype=torch.float64)
        return roots**self.rho
