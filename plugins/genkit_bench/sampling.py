"""Measures how fast a denoiser's samples are drawn, and what of it is the network's."""

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
    """The figures of a number of steps and a batch size.

    Attributes:
        steps: steps of the solver.
        batch_size: samples drawn at a time.
        nfe: calls of the network for each sample.
        images_per_second: median over the rounds.
        seconds_network: seconds of a batch in the network, the device waited for after each call.
        seconds_solver: seconds of a batch in all else: noise, the solver's arithmetic, the copy to
            the CPU.
        peak_bytes: most memory that it needs, beside the weights; None where it is not known.
        utilization: share of the device's peak in this precision; None where that is not known.
        note: why it was not measured.
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
    """The figures that all rows have in common.

    Attributes:
        parameters: number of parameters of the network.
        flops: operations of one call for an image.
        rows: one for each number of steps and batch size.
    """

    parameters: int
    flops: float
    rows: tuple[Row, ...]


class _Clocked(nn.Module):
    """A denoiser whose calls are the phase ``network``."""

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
    """A number of steps in batches of a size.

    Attributes:
        denoiser: the denoiser.
        schedule: noise levels of the steps.
        solver: integrates over them.
        batch_size: samples drawn at a time.
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
    clocked: list[float] = field(default_factory=list)
    network: list[float] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.schedule.steps} steps, batch {self.batch_size}"

    def draw(self, module: nn.Module, schedule: Schedule) -> float:
        """Draw a batch; return the seconds, those of the random draws included."""
        wait_for(self.denoiser.device)
        begun = time.perf_counter()
        draws = _draws(self.denoiser, self.batch_size)
        drawn = sample(
            module,
            draws,
            schedule=schedule,
            solver=self.solver,
            start=self.denoiser.resolve_start(schedule),
            precision=self.precision,
        )
        self.nfe = drawn.nfe
        return time.perf_counter() - begun  # samples end on the CPU: all is done

    def warm_up(self) -> None:
        """Draw a batch in as few steps as show what memory it needs."""
        short = replace(self.schedule, steps=min(self.schedule.steps, 2))
        try:
            with PeakMemory(self.denoiser.device) as peak:
                self.draw(self.denoiser.module, short)
            self.peak = peak.bytes
        except torch.OutOfMemoryError as error:
            self.note = str(error).partition("\n")[0]

    def time(self) -> None:
        """Draw a batch, and one of which the network's calls are timed."""
        self.seconds.append(self.draw(self.denoiser.module, self.schedule))
        phases = Phases(self.denoiser.device)
        with phases.counting():
            self.clocked.append(self.draw(_Clocked(self.denoiser.module, phases), self.schedule))
        self.network.append(phases.seconds["network"])

    def row(self, flops: float) -> Row:
        """Return the figures."""
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
            max(0.0, statistics.median(self.clocked) - network),
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
    tell: Callable[[str], None],
) -> Sampling:
    """Draw samples of every number of steps in every batch size.

    Args:
        denoiser: trained or not.
        schedule: noise levels, of any number of steps.
        solver: integrates over them.
        steps: numbers of steps to measure.
        batch_sizes: batch sizes to measure.
        precision: precision of the network's arithmetic.
        rounds: batches that are drawn of each; in turns, so that a busy moment hits all.
        tell: is called with what is measured next.
    """
    cases = [
        _Case(denoiser, replace(schedule, steps=count), solver, size, precision)
        for count in steps
        for size in batch_sizes
    ]
    one = _draws(denoiser, 1)
    flops = call_flops(
        denoiser.module, one.latents, torch.ones(1, device=denoiser.device), one.labels
    )
    for case in cases:
        tell(f"{case}: warming up")
        case.warm_up()
    for turn in range(rounds):
        for case in (case for case in cases if not case.note):
            tell(f"{case}: round {turn + 1} of {rounds}")
            case.time()
    parameters = sum(p.numel() for p in denoiser.module.parameters())
    return Sampling(parameters, flops, tuple(case.row(flops) for case in cases))
