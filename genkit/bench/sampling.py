"""Measures how fast a denoiser's samples are drawn, and what of it is the network's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from genkit.bench.flops import peak_flops, sampling_flops
from genkit.bench.memory import PeakMemory
from genkit.bench.phases import Phases, wait_for
from genkit.interfaces import Schedule, Solver, Trained
from genkit.latents import Derived
from genkit.sample import sample
from genkit.types import Draws


@dataclass(frozen=True)
class Row:
    """What was found of a number of steps and a batch.

    Attributes:
        steps: of the solver.
        batch_size: samples drawn at a time.
        nfe: calls of the network for each sample.
        images_per_second: median over the rounds.
        seconds_network: of a batch, in the network, the device waited for after each call.
        seconds_solver: of a batch, in all else: noise, the solver's arithmetic, the way to the CPU.
        peak_bytes: memory that it needs at most, beside the weights; None where it is not known.
        utilization: of the device's peak in TF32; None where that is not known.
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
    """What all rows have in common.

    Attributes:
        parameters: of the network.
        flops: of one call for an image.
        rows: one for each number of steps and batch.
    """

    parameters: int
    flops: float
    rows: tuple[Row, ...]


class _Clocked(nn.Module):
    """A denoiser of which every call is timed."""

    def __init__(self, denoiser: nn.Module, phases: Phases) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.preconditioner = denoiser.preconditioner
        self._phases = phases

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        with self._phases.phase("network"):
            denoised: Tensor = self.denoiser(x, sigma, labels)
        return denoised


class _Case:
    """A number of steps in batches of a size."""

    def __init__(self, steps: int, batch_size: int) -> None:
        self.steps = steps
        self.batch_size = batch_size
        self.nfe = 0
        self.peak: int | None = None
        self.seconds: list[float] = []
        self.network: list[float] = []
        self.clocked: list[float] = []
        self.note = ""


class _Bench:
    """Draws the batches of cases."""

    def __init__(
        self, denoiser: Trained, schedule: Schedule, solver: Solver, device: torch.device
    ) -> None:
        self._denoiser = denoiser
        self._schedule = schedule
        self._solver = solver
        self._device = device

    def _draws(self, count: int) -> Draws:
        """Return the draws of a batch; drawing them is part of what is measured."""
        denoiser = self._denoiser
        return Derived().draw(
            denoiser.spec.shape, range(count), denoiser.classes, self._device, run_seed=0
        )

    def flops(self) -> float:
        """Return the operations of one call for an image."""
        draws = self._draws(1)
        sigma = torch.ones(1, device=self._device)
        return sampling_flops(self._denoiser.module, draws.latents, sigma, draws.labels)

    def draw(self, case: _Case, module: nn.Module) -> tuple[int, float]:
        """Draw a batch; return the network's calls, and the seconds."""
        wait_for(self._device)
        begun = time.perf_counter()
        drawn = sample(
            module,
            self._draws(case.batch_size),
            schedule=replace(self._schedule, steps=case.steps),
            solver=self._solver,
        )
        return drawn.nfe, time.perf_counter() - begun  # samples end on the CPU: all is done

    def warm_up(self, case: _Case) -> None:
        """Draw a batch in as few steps as show what memory it needs."""
        short = _Case(min(case.steps, 2), case.batch_size)
        try:
            with PeakMemory(self._device) as peak:
                self.draw(short, self._denoiser.module)
            case.peak = peak.bytes
        except torch.OutOfMemoryError as error:
            case.note = str(error).partition("\n")[0]

    def time(self, case: _Case) -> None:
        """Draw a batch, and one of which the network's calls are timed."""
        if case.note:
            return
        case.nfe, seconds = self.draw(case, self._denoiser.module)
        case.seconds.append(seconds)
        phases = Phases(self._device)
        _, seconds = self.draw(case, _Clocked(self._denoiser.module, phases))
        case.clocked.append(seconds)
        case.network.append(phases.seconds["network"])


def measure_sampling(
    denoiser: Trained,
    schedule: Schedule,
    solver: Solver,
    steps: Sequence[int],
    batch_sizes: Sequence[int],
    rounds: int,
    device: torch.device,
    tell: Callable[[str], None],
) -> Sampling:
    """Draw samples of every number of steps in every batch size.

    Args:
        denoiser: on the device; that it is trained is not needed.
        schedule: noise levels, of any number of steps.
        solver: integrates over them.
        steps: to measure.
        batch_sizes: to measure.
        rounds: batches that are drawn of each; in turns, so that a busy moment hits all.
        device: where to compute.
        tell: is told what is measured next.
    """
    bench = _Bench(denoiser, schedule, solver, device)
    cases = [_Case(count, size) for count in steps for size in batch_sizes]
    flops = bench.flops()
    for case in cases:
        tell(f"{case.steps} steps, batch {case.batch_size}: warming up")
        bench.warm_up(case)
    for turn in range(rounds):
        for case in cases:
            tell(f"{case.steps} steps, batch {case.batch_size}: round {turn + 1} of {rounds}")
            bench.time(case)
    parameters = sum(p.numel() for p in denoiser.module.parameters())
    return Sampling(parameters, flops, tuple(_row(case, flops, device) for case in cases))


def _row(case: _Case, flops: float, device: torch.device) -> Row:
    if case.note:
        return Row(case.steps, case.batch_size, note=case.note)
    speed = case.batch_size / statistics.median(case.seconds)
    network = statistics.median(case.network)
    peak = peak_flops(device, "tf32")  # which torch allows convolutions unless told otherwise
    return Row(
        case.steps,
        case.batch_size,
        case.nfe,
        speed,
        network,
        max(0.0, statistics.median(case.clocked) - network),
        case.peak,
        flops * case.nfe * speed / peak if peak else None,
    )
