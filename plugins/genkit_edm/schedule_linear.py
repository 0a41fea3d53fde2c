"""Noise levels that are evenly spaced."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genkit_edm.sigma_range import RangeSchedule


@dataclass(frozen=True, kw_only=True)
class LinearSchedule(RangeSchedule):
    """Noise levels evenly spaced in sigma, then 0."""

    source = "EDM, arXiv 2206.00364, eq. 5 with rho = 1"

    def levels(self) -> Tensor:
        return torch.linspace(self.sigma_max, self.sigma_min, self.steps, dtype=torch.float64)
