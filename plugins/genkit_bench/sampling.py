"""Measure the speed of sampling from a denoiser, and the network's share of the time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

import genkit
from genkit.interfaces import Schedule, Solver
from genkit.latents import Derived
from genkit.parts.flops import call_flops
from genkit.parts.precision import Precision
from genkit.sample import sample
from genkit.types import Draws
from genkit_bench.flops import peak_flops
from genkit_bench.meters import PeakMemory, Phases, wait_for


@dataclass(frozen=True)
class Row:
    """Measurements for a number of steps and a batch size.

    Attributes:
        steps: number of solver steps.
        batch_size: number of samples drawn at a time.
        nfe: calls of the network per sample.
        images_per_second: samples per second, median over the rounds.
        seconds_network: seconds for a batch in the network, with a synchronization after each call.
        seconds_solver: seconds for a batch outside of the network: noise, arithmetic of the solver,
            and copy to the CPU.
        peak_bytes: peak memory without the weights; None if it is unknown.
        utilization: operations per second as a share of the device's peak in this precision; None
            if the peak is unknown.
        note: reason why this row was not measured; empty if it was.
    """

    steps: int
    batch_size: int
    nfe: int = 0
    images_per_second: float | None = None
    seconds_network: float | None = None
    seconds_solver: float | None = None
    peak_bytes: int | None = None
    utilization: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Sampling:
    """Results of a measurement of sampling.

    Attributes:
        parameters: number of parameters of the network.
        flops: number of operations of one network call per image.
        rows: one row for each number of steps and batch size.
    """

    parameters: int
    flops: float
    rows: tuple[Row, ...]


class _TimedDenoiser(nn.Module):
    """A denoiser whose calls are timed as the phase ``network``."""

    def __init__(self, denoiser: nn.Module, phases: Phases) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.preconditioner = denoiser.preconditioner
        self._phases = phases

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        with self._phases.phase("network"):
            denoised: Tensor = self.denoiser(x, sigma, labels)
        return denoised


@dataclass
class _Case:
    """A case to measure: a number of steps and a batch size.

    Attributes:
        denoiser: denoiser to sample.
        schedule: noise levels of the steps.
        solver: solver of the sampling ODE.
        batch_size: number of samples drawn at a time.
        precision: precision of the network's arithmetic.
    """

    denoiser: genkit.Denoiser
    schedule: Schedule
    solver: Solver
    batch_size: int
    precision: Precision
    nfe: int = 0
    peak: int | None = None
    seconds: list[float] = field(default_factory=list)
    with_phases: list[float] = field(default_factory=list)
    network: list[float] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.schedule.steps} steps, batch {self.batch_size}"

    def draw(self, module: nn.Module, schedule: Schedule) -> float:
        """Draw a batch, and return the seconds, including random draws."""
        wait_for(self.denoiser.device)
        begin = time.perf_counter()
        draws = _draws(self.denoiser, self.batch_size)
        samples = sample(
            module,
            draws,
            schedule=schedule,
            solver=self.solver,
            start=self.denoiser.resolve_start(schedule),
            precision=self.precision,
        )
        self.nfe = samples.nfe
        return time.perf_counter() - begin  # no synchronization, since samples are on the CPU

    def warm_up(self) -> None:
        """Draw a batch with two steps, and measure the peak memory."""
        short = replace(self.schedule, steps=min(self.schedule.steps, 2))
        try:
            with PeakMemory(self.denoiser.device) as peak:
                self.draw(self.denoiser.module, short)
            self.peak = peak.bytes
        except torch.OutOfMemoryError as error:
            self.note = str(error).partition("\n")[0]

    def time(self) -> None:
        """Measure the time of a batch, then the time of the network calls in a second batch."""
        self.seconds.append(self.draw(self.denoiser.module, self.schedule))
        phases = Phases(self.denoiser.device)
        with phases.counting():
            timed = _TimedDenoiser(self.denoiser.module, phases)
            self.with_phases.append(self.draw(timed, self.schedule))
        self.network.append(phases.seconds["network"])

    def row(self, flops: float) -> Row:
        """Return the row of the case; ``flops`` is the number of operations of a call per image."""
        if self.note:
            return Row(self.schedule.steps, self.batch_size, note=self.note)
        speed = self.batch_size / statistics.median(self.seconds)
        network = statistics.median(self.network)
        peak = peak_flops(self.denoiser.device, self.precision)
        return Row(
            self.schedule.steps,
            self.batch_size,
            self.nfe,
            speed,
            network,
            max(0.0, statistics.median(self.with_phases) - network),
            self.peak,
            flops * self.nfe * speed / peak if peak else None,
        )


def _draws(denoiser: genkit.Denoiser, count: int) -> Draws:
    spec, device = denoiser.spec, denoiser.device
    return Derived().draw(spec.shape, range(count), denoiser.classes, device, run_seed=0)


def measure_sampling(
    denoiser: genkit.Denoiser,
    schedule: Schedule,
    solver: Solver,
    steps: Sequence[int],
    batch_sizes: Sequence[int],
    precision: Precision,
    rounds: int,
    report: Callable[[str], None],
) -> Sampling:
    """Measure sampling for every combination of steps and batch size.

    Args:
        denoiser: denoiser, trained or untrained.
        schedule: schedule, of which the number of steps is replaced.
        solver: solver of the sampling ODE.
        steps: numbers of steps to measure.
        batch_sizes: batch sizes to measure.
        precision: precision of the network's arithmetic.
        rounds: number of batches of each case; a round measures a batch of all cases, so that
            other load on the machine affects all cases equally.
        report: function that is called with a description of the next measurement.
    """
    cases = [
        _Case(denoiser, replace(schedule, steps=count), solver, size, precision)
        for count in steps
        for size in batch_sizes
    ]
    single = _draws(denoiser, 1)
    flops = call_flops(
        denoiser.module, single.latents, torch.ones(1, device=denoiser.device), single.labels
    )
    for case in cases:
        report(f"{case}: warming up")
        case.warm_up()
    for turn in range(rounds):
        for case in (case for case in cases if not case.note):
            report(f"{case}: round {turn + 1} of {rounds}")
            case.time()
    parameters = sum(p.numel() for p in denoiser.module.parameters())
    return Sampling(parameters, flops, tuple(case.row(flops) for case in cases))
