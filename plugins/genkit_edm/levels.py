"""Common parts of schedules: a range of noise levels, and checks that the levels decrease."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from genkit.errors import Code, Problem
from genkit.interfaces import Schedule, Stages
from genkit.settings import sigma_setting

MAX_STEPS = 100_000
"""Maximum number of solver steps; chosen, not tuned."""


@dataclass(frozen=True, kw_only=True)
class RangeSchedule(Schedule):
    """A schedule from ``sigma_max`` down to ``sigma_min``, then 0."""

    sigma_min: float = sigma_setting(0.002, "lowest noise level above 0")
    sigma_max: float = sigma_setting(80.0, "first noise level")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        problems = list(check_range(self.sigma_min, self.sigma_max))
        yield from problems or self.check_levels()

    def check_levels(self) -> Iterator[Problem]:
        """Yield the problems of the noise levels; called only if the range is valid."""
        yield from check_decreasing(self)

    def within(self, lowest: float, highest: float) -> Self:
        return replace(
            self, sigma_min=max(self.sigma_min, lowest), sigma_max=min(self.sigma_max, highest)
        )

    def sigma_range(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def sigmas(self) -> Tensor:
        levels = self.levels()
        return torch.cat([levels, levels.new_zeros(1)])

    @abstractmethod
    def levels(self) -> Tensor:
        """Return the ``[steps]`` float64 noise levels above 0; ``[sigma_max]`` for one step."""


def check_range(sigma_min: float, sigma_max: float) -> Iterator[Problem]:
    """Yield a problem if ``sigma_min`` is not below ``sigma_max``."""
    if sigma_min >= sigma_max:
        yield Problem(
            ("sigma_min",),
            f"must be below sigma_max = {sigma_max:g}, got {sigma_min:g}",
            f"write a value above 0 and below {sigma_max:g}",
        )


def check_decreasing(
    schedule: Schedule, key: str = "steps", hint: str = "write a smaller number of steps"
) -> Iterator[Problem]:
    """Yield a problem if the noise levels of a schedule do not decrease strictly in float32.

    Args:
        schedule: schedule to check.
        key: setting named in the problem if the levels do not decrease.
        hint: remedy for this problem.
    """
    if schedule.steps > MAX_STEPS:
        reason = f"must be at most {MAX_STEPS:,}, got {schedule.steps:,}"
        yield Problem(("steps",), reason, f"write {MAX_STEPS:,} or less", Code.OUT_OF_RANGE)
        return
    sigmas = schedule.sigmas().float()  # the dtype that is passed to networks
    stuck = ~(sigmas.isfinite()[:-1] & (sigmas.diff() < 0))
    if bool(stuck.any()):
        step = int(stuck.nonzero()[0])
        yield Problem(
            (key,),
            f"must give decreasing noise levels, got step {step + 1} from "
            f"{float(sigmas[step]):.6g} to {float(sigmas[step + 1]):.6g}",
            hint,
        )
