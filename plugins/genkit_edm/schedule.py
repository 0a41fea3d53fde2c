"""EDM's schedule of noise levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import Schedule, Stages
from genkit.settings import setting


@dataclass(frozen=True, kw_only=True)
class EdmSchedule(Schedule):
    """Noise levels evenly spaced in sigma^(1 / rho), then 0."""

    source = "EDM, arXiv 2206.00364, eq. 5"

    sigma_min: float = setting(0.002, doc="least noise level before 0", above=0)
    sigma_max: float = setting(80.0, doc="noise level of the start", above=0)
    rho: float = setting(7.0, doc="greater values put more steps at low noise", above=0)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.sigma_min >= self.sigma_max:
            yield Problem(
                ("sigma_min",),
                f"{self.sigma_min:g} is not below sigma_max = {self.sigma_max:g}",
                f"write a value above 0 and below {self.sigma_max:g}",
            )

    def sigmas(self) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        # A single step goes from sigma_max straight to 0; linspace then has one point, the first.
        roots = torch.linspace(high, low, self.steps, dtype=torch.float64)
        return torch.cat([roots**self.rho, roots.new_zeros(1)])
