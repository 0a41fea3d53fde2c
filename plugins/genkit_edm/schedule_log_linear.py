"""Noise levels whose logarithms are evenly spaced."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.settings import setting
from genkit_edm.sigma_range import MAX_SIGMA, MIN_SIGMA, RangeSchedule


@dataclass(frozen=True, kw_only=True)
class LogLinearSchedule(RangeSchedule):
    """Noise levels evenly spaced in log sigma, then 0."""

    source = "EDM, arXiv 2206.00364, eq. 5 as rho grows without bound; DPM-Solver++, 2211.01095"

    def levels(self) -> Tensor:
        ends = math.log(self.sigma_max), math.log(self.sigma_min)
        return torch.linspace(*ends, self.steps, dtype=torch.float64).exp()


@dataclass(frozen=True, kw_only=True)
class VeSchedule(LogLinearSchedule):
    """Noise levels of the VE SDE: evenly spaced in log sigma from 100 to 0.02, then 0."""

    source = "EDM, arXiv 2206.00364, table 1, column VE; Song et al., arXiv 2011.13456"

    sigma_min: float = setting(
        0.02, doc="least noise level before 0", at_least=MIN_SIGMA, at_most=MAX_SIGMA
    )
    sigma_max: float = setting(
        100.0, doc="noise level of the start", at_least=MIN_SIGMA, at_most=MAX_SIGMA
    )
