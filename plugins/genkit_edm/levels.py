"""What schedules share: a range of noise levels, and the refusal of levels that fall together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from genkit.errors import Code, Problem
from genkit.interfaces import Schedule, Stages
from genkit.settings import setting

MIN_SIGMA, MAX_SIGMA = 1e-9, 1e9
"""Bounds of every noise level: networks square them in float32."""

MOST_STEPS = 100_000


def sigma_setting(default: float, doc: str) -> Any:
    """Return the declaration of a noise level that a recipe may set."""
    return setting(default, doc=doc, at_least=MIN_SIGMA, at_most=MAX_SIGMA)


@dataclass(frozen=True, kw_only=True)
class RangeSchedule(Schedule):
    """Noise levels from ``sigma_max`` down to ``sigma_min``, then 0."""

    sigma_min: float = sigma_setting(0.002, "least noise level before 0")
    sigma_max: float = sigma_setting(80.0, "noise level of the start")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        problems = list(range_problems(self.sigma_min, self.sigma_max))
        yield from problems or self.check_levels()

    def check_levels(self) -> Iterator[Problem]:
        """Yield what is wrong with the levels of a range that makes sense."""
        yield from falling_problems(self)

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
        """Return the ``[steps]`` float64 noise levels above 0; a single one is ``sigma_max``."""


def range_problems(sigma_min: float, sigma_max: float) -> Iterator[Problem]:
    """Yield that a component's ``sigma_min`` is not below its ``sigma_max``, where that is so."""
    if sigma_min >= sigma_max:
        yield Problem(
            ("sigma_min",),
            f"{sigma_min:g} is not below sigma_max = {sigma_max:g}",
            f"write a value above 0 and below {sigma_max:g}",
        )


def falling_problems(
    schedule: Schedule, key: str = "steps", hint: str = "write a smaller number of steps"
) -> Iterator[Problem]:
    """Yield why a solver cannot walk the levels of a schedule, such as that two are one.

    Args:
        schedule: what is checked.
        key: the setting that is to blame where levels do not fall.
        hint: what to write there instead.
    """
    if schedule.steps > MOST_STEPS:
        reason = f"must be at most {MOST_STEPS:,}, got {schedule.steps:,}"
        yield Problem(("steps",), reason, f"write {MOST_STEPS:,} or less", Code.OUT_OF_RANGE)
        return
    sigmas = schedule.sigmas().float()  # networks see them so
    stuck = ~(sigmas.isfinite()[:-1] & (sigmas.diff() < 0))
    if bool(stuck.any()):
        step = int(stuck.nonzero()[0])
        yield Problem(
            (key,),
            f"the noise levels must fall, and step {step + 1} goes from {float(sigmas[step]):.6g} "
            f"to {float(sigmas[step + 1]):.6g}",
            hint,
        )
