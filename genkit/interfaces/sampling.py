"""Bases of the parts of a sampler, and of stages that draw samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from genkit.artifacts import Samples
from genkit.artifacts.coupling import Coupling
from genkit.errors import DataError, Problem
from genkit.interfaces.base import Component, Context, Inputs, Stage, Stages
from genkit.interfaces.binding import unbound
from genkit.settings import setting
from genkit.types import SEED_LIMIT, Denoise, Draws, RandnLike, Start, State


@dataclass(frozen=True)
class Sampler:
    """Denoiser, solver and start, for a schedule whose noise levels depend on them.

    Attributes:
        denoiser: module of the denoiser, without guidance.
        coupling: declarations of the coupler with which it was trained; None if unknown.
        solver: solver of the sampling ODE.
        start: start that the user chose; see :mod:`genkit.start`.
    """

    denoiser: nn.Module
    coupling: Coupling | None
    solver: Solver
    start: Start


@dataclass(frozen=True, kw_only=True)
class Schedule(Component):
    """The noise levels of a solver. Implements ``sigmas`` or ``bind``."""

    implements: ClassVar[tuple[str, ...]] = ("sigmas", "bind")

    steps: int = setting(18, doc="number of solver steps", at_least=1)

    @property
    def bound(self) -> bool:
        """Whether the settings alone determine the noise levels, without :meth:`bind`."""
        return type(self).sigmas is not Schedule.sigmas

    def check_sampler(
        self, denoiser: str, solver: Solver, start: Start, earlier: Stages
    ) -> Iterator[Problem]:
        """Yield a problem if the schedule cannot be used with a denoiser, a solver and a start.

        Called before anything runs.

        Args:
            denoiser: id of the stage that trains the denoiser.
            solver: solver of the sampling ODE.
            start: start in the settings, which may be ``auto``.
            earlier: stages before this one, by id.
        """
        return iter(())

    def bind(self, inputs: Inputs, sampler: Sampler) -> Schedule:
        """Return the schedule with its noise levels, which may come from an earlier stage.

        Called once per stage. A schedule that refers to no stage returns itself.

        Raises:
            DataError: the noise levels were fitted to a different denoiser or solver.
        """
        return self

    def sigmas(self) -> Tensor:
        """Return the ``[steps + 1]`` float64 noise levels, which decrease; the last one is 0."""
        raise unbound(self, "sigmas")

    def within(self, lowest: float, highest: float) -> Schedule:
        """Return the schedule, clipped to the range of noise levels that a network supports."""
        return self

    def sigma_range(self) -> tuple[float, float]:
        """Return the min and the max of the range of noise levels above 0.

        If the noise levels come from a table, the ends of the range need not be among them.
        """
        sigmas = self.sigmas()
        return float(sigmas[-2]), float(sigmas[0])


class Solver(Component):
    """Integrates the probability-flow ODE, or an SDE, over decreasing noise levels."""

    two_slopes: ClassVar[bool] = False
    """Whether a step combines the slope at its state with the slope at an ``inner`` evaluation."""

    churns: ClassVar[bool] = False
    """Whether each step begins with ``denoise.churn`` and adds the returned amount of noise."""

    @property
    def stochastic(self) -> bool:
        """Whether steps add fresh noise, so that even a step between equal levels has an effect."""
        return False

    def between(self, sigma_min: float, sigma_max: float, sigmas: Tensor) -> Solver:
        """Return the solver for a range of noise levels; by default itself.

        Called before :meth:`solve`, and in checks. A solver whose time variable depends on the
        range, such as that of the VP SDE, sets it here.

        Args:
            sigma_min: min noise level of the schedule, clipped to the range of the network.
            sigma_max: max noise level of the schedule, clipped likewise.
            sigmas: ``[steps + 1]`` noise levels of the steps.

        Raises:
            DataError: the solver is undefined for the range; the message contains both ends.
        """
        return self

    @abstractmethod
    def solve(
        self, denoise: Denoise, x: Tensor, sigmas: Tensor, randn_like: RandnLike
    ) -> Iterator[State]:
        """Yield the trajectory: a state for each noise level, the last with ``sigma`` 0.

        Args:
            denoise: denoiser, with or without guidance. Each step evaluates it once at the yielded
                state; every other evaluation is marked with ``inner=True``.
            x: ``[B, *shape]`` start, with standard deviation ``sigmas[0]``.
            sigmas: ``[steps + 1]`` decreasing noise levels on the CPU, the last 0. Reading one does
                not synchronize with the device of ``x``.
            randn_like: function that returns fresh N(0, I) noise, for stochastic solvers.
        """


class Latents(Component):
    """Draws the latents, the classes and the noise of samples from their seeds."""

    depends_on_device: ClassVar[bool] = False
    """Whether draws differ between CPU and GPU, so that their samples must not be mixed."""

    def require(self, shape: tuple[int, ...], seeds: Sequence[int]) -> None:
        """Raise DataError unless samples of this shape can be drawn from these seeds.

        Called before anything is drawn or written, with at least one seed.
        """
        # A range may be long; min and max would visit each of its seeds.
        for seed in (seeds[0], seeds[-1]) if isinstance(seeds, range) else seeds:
            if not 0 <= seed < SEED_LIMIT:
                limit = SEED_LIMIT - 1
                raise DataError(f"seeds must be from 0 to {limit}, got {seed}; choose other seeds")

    @abstractmethod
    def draw(
        self,
        shape: tuple[int, ...],
        seeds: Sequence[int],
        classes: int,
        device: torch.device,
        run_seed: int,
    ) -> Draws:
        """Return the random draws of a batch of samples.

        The draws of a sample depend on its own seed, and not on the other samples of the batch.

        Args:
            shape: shape of one item.
            seeds: ``[B]`` seeds of the samples; in a stage, the indices of the samples.
            classes: number of classes from which labels are drawn; 0 for no labels.
            device: device of the sampling.
            run_seed: seed that all samples of a run or stage have in common.
        """


@dataclass(frozen=True, kw_only=True)
class SamplingStage(Stage):
    """A stage that draws samples, whose settings the stage `sweep` can vary."""

    output = Samples

    count: int = setting(64, doc="number of samples", at_least=1)

    @property
    def depends_on_device(self) -> bool:
        """Whether samples differ between CPU and GPU, so that they must not be mixed."""
        return False

    def sampler_fact(self, context: Context) -> str | None:
        """Return the text of the fact ``sampler``, which describes the settings, or None.

        The cells of a sweep differ in their samplers; a sweep saves the fact of the stage that it
        varies.
        """
        return None

    @abstractmethod
    def draw(self, context: Context) -> Samples:
        """Draw all samples without writing a file. Collective: every rank returns all samples."""
