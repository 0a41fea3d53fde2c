"""The noise levels of the variance-preserving SDE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.settings import setting
from genkit_edm.sigma_range import MAX_SIGMA, MIN_SIGMA, RangeSchedule, falling_problems
from genkit_edm.vp import EARLIEST, VpTime


@dataclass(frozen=True, kw_only=True)
class VpSchedule(RangeSchedule):
    """Noise levels evenly spaced in the time of the VP SDE, then 0.

    The SDE's two constants follow from the range; by default they are 19.9 and 0.1.
    """

    source = "EDM, arXiv 2206.00364, table 1, column VP; Song et al., arXiv 2011.13456"

    sigma_min: float = setting(
        VpTime().level(EARLIEST),
        doc="least noise level before 0",
        at_least=MIN_SIGMA,
        at_most=MAX_SIGMA,
    )
    sigma_max: float = setting(
        VpTime().level(1.0), doc="noise level of the start", at_least=MIN_SIGMA, at_most=MAX_SIGMA
    )

    def check_levels(self) -> Iterator[Problem]:
        # A high level so early makes a parabola of B(t) that rises above its end.
        yield from falling_problems(
            self,
            "sigma_min",
            "write a smaller value, 0.01 is usual, or use the schedule edm",
        )

    def levels(self) -> Tensor:
        times = torch.linspace(1, EARLIEST, self.steps, dtype=torch.float64)
        return VpTime.between(self.sigma_min, self.sigma_max).sigma(times)
