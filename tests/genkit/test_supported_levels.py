"""Noise levels of a schedule, and those that a network supports."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from genkit.errors import Code, DataError
from genkit.interfaces import Schedule
from genkit.sample import bind_solver, denoise_fn, sample, supported_levels, trajectory
from raising import raises_code
from toy_sampling import Euler, Gaussian, Plain, draws


@dataclass(frozen=True, kw_only=True)
class Quarters(Plain):
    """A network that knows multiples of 1/4, from 1/4 to 2."""

    def round_sigma(self, sigma):
        return (sigma * 4).round().clamp(1, 8) / 4


@dataclass(frozen=True, kw_only=True)
class Levels(Schedule):
    """Given noise levels, of which a network's range leaves those inside."""

    levels: tuple[float, ...] = ()

    def sigmas(self):
        return torch.tensor([*self.levels, 0.0], dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Clamped(Levels):
    def within(self, lowest, highest):
        return Levels(levels=tuple(min(max(x, lowest), highest) for x in self.levels))


def test_levels_are_rounded_to_those_that_the_network_knows():
    schedule = Levels(levels=(5.0, 1.55, 1.0, 0.3))
    assert supported_levels(schedule, Quarters()).tolist() == [2.0, 1.5, 1.0, 0.25, 0.0]
    assert supported_levels(schedule, None).tolist() == [5.0, 1.55, 1.0, 0.3, 0.0]


def test_a_schedule_learns_the_range_that_the_network_knows():
    schedule = Clamped(levels=(5.0, 1.0, 0.01))
    assert supported_levels(schedule, Quarters()).tolist() == [2.0, 1.0, 0.25, 0.0]


def test_levels_that_are_one_to_the_network_are_one():
    schedule = Levels(levels=(5.0, 2.5, 1.06, 1.04, 0.3))
    assert supported_levels(schedule, Quarters()).tolist() == [2.0, 1.0, 0.25, 0.0]
    drawn = sample(Quartered(), draws(range(2)), schedule=schedule, solver=Euler())
    assert drawn.nfe == 3


@dataclass(frozen=True, kw_only=True)
class AddsNoise(Euler):
    stochastic = True


def test_a_stochastic_solver_steps_between_equal_levels():
    schedule = Levels(levels=(5.0, 2.5, 1.06, 1.04, 0.3))
    kept = [2.0, 2.0, 1.0, 1.0, 0.25, 0.0]
    assert supported_levels(schedule, Quarters(), keep_equal=True).tolist() == kept
    assert bind_solver(schedule, AddsNoise(), Quarters())[1].tolist() == kept
    drawn = sample(Quartered(), draws(range(2)), schedule=schedule, solver=AddsNoise())
    assert drawn.nfe == 5


@pytest.mark.parametrize("levels", [(5.0, 3.0), (0.1, 0.01)])
def test_a_schedule_outside_of_what_the_network_knows_is_refused(levels):
    with raises_code(DataError, Code.DATA, "0.25", "2"):
        supported_levels(Clamped(levels=levels), Quarters())


class Quartered(Gaussian):
    preconditioner = Quarters()


def test_solvers_and_samples_keep_to_the_levels_that_the_network_knows():
    class Rounding(Quartered):
        def forward(self, x, sigma, labels):
            super().forward(x, sigma, labels)
            self.levels = [*getattr(self, "levels", []), float(sigma[0])]
            return torch.zeros_like(x)

    denoiser = Rounding()
    start = sample(
        denoiser, draws(range(500)), schedule=Levels(levels=(5.0, 1.1, 0.3)), solver=Euler()
    )
    assert denoiser.levels == [2.0, 1.0, 0.25]
    assert not start.batch.data.any()
    first = next(
        trajectory(
            denoise_fn(denoiser),
            draws(range(2000)),
            schedule=Levels(levels=(5.0, 1.1)),
            solver=Euler(),
        )
    )
    assert first.sigma == 2
    assert first.x.std() == pytest.approx(2, rel=0.05)  # the start has the rounded level
