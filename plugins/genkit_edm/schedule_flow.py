"""Noise levels that are evenly spaced in the time of flow matching."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import Schedule, Stages
from genkit.settings import setting
from genkit_edm.sigma_range import MAX_SIGMA, MIN_SIGMA, falling_problems


@dataclass(frozen=True, kw_only=True)
class FlowSchedule(Schedule):
    """Noise levels evenly spaced in t = sigma / (1 + sigma), down to 0."""

    source = "Flow matching, arXiv 2210.02747, eq. 20; rectified flow, arXiv 2209.03003"

    # At 1000, t = 0.999: noise alone, t = 1, has no finite level.
    sigma_max: float = setting(
        1000.0, doc="noise level of the start", at_least=MIN_SIGMA, at_most=MAX_SIGMA
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from falling_problems(self)

    def within(self, lowest: float, highest: float) -> Self:
        return replace(self, sigma_max=min(self.sigma_max, highest))

    def sigmas(self) -> Tensor:
        start = self.sigma_max / (1 + self.sigma_max)
        t = torch.linspace(start, 0, self.steps + 1, dtype=torch.float64)
        return t / (1 - t)
