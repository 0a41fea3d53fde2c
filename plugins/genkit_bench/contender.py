"""A variant of a train stage whose steps can be timed, and the batches on which it trains."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from genkit.interfaces import Context, Objective
from genkit.parts.no_stages import NoStages
from genkit.parts.precision import multiplying_in
from genkit.random import derive_seed
from genkit.train.pairing import PairStream
from genkit.train.trainer import Trainer
from genkit.types import Batch, DataSpec
from genkit.world import SINGLE_PROCESS, World
from genkit_bench.meters import PeakMemory, Phases, wait_for
from genkit_bench.plain import PlainTrainer
from genkit_bench.stages import TrainStage, with_settings
from genkit_bench.variants import PLAIN

PHASES = ("forward", "backward", "optimizer", "EMA")
"""Names of the phases of a step, in order."""

_WARM_UP = 2  # number of steps before timing, in which kernels are selected and compiled


@dataclass(frozen=True)
class BenchContext(NoStages):
    """The part of :class:`genkit.interfaces.Context` that is used to build networks and pairs.

    Attributes:
        root: seed from which all other seeds are derived.
        world: processes that train together.
    """

    root: int = 0
    world: World = SINGLE_PROCESS

    def seed(self, *purpose: str | int) -> int:
        return derive_seed(self.root, "bench", *purpose)

    def generator(self, *purpose: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed(*purpose))


class Feed:
    """Batches of a stream of pairs, and the times of its pools.

    Args:
        stream: stream of pairs.
        batch_size: number of images of a batch.
        ahead: number of pools that are coupled in advance.
    """

    def __init__(self, stream: PairStream, batch_size: int, ahead: int) -> None:
        self._batches = stream.batches(batch_size, ahead=ahead)
        self.waited = 0.0
        self.solving: list[float] = []

    def next(self) -> tuple[Batch, Tensor]:
        batch, noise, reports = next(self._batches)
        self.waited += sum(pool.seconds_waited for pool in reports)
        self.solving += [pool.seconds_solving for pool in reports]
        return batch, noise

    def close(self) -> None:
        self._batches.close()


class TimedObjective(Objective):
    """An objective whose calls are timed as the phase ``forward``.

    Args:
        inner: objective to time.
        phases: timer of the phases.
    """

    inner: Objective
    phases: Phases

    def __init__(self, inner: Objective, phases: Phases) -> None:
        vars(self).update(inner=inner, phases=phases)  # components are frozen

    def terms(self, shape: tuple[int, ...]) -> int:
        return self.inner.terms(shape)

    def loss(
        self, model: nn.Module, batch: Batch, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        with self.phases.phase("forward"):
            return self.inner.loss(model, batch, noise, generator)


class Contender:
    """A variant of a train stage, which is warmed up when it is created.

    Args:
        stage: train stage with the settings of the variant.
        name: name of the variant.
        context: context of the stage.
        spec: specification of the data.
        feed: batches for the warm-up.
    """

    def __init__(
        self, stage: TrainStage, name: str, context: BenchContext, spec: DataSpec, feed: Feed
    ) -> None:
        self.name = name
        self.precision = stage.precision
        self.seconds: list[float] = []
        self.waited = 0.0
        self.steps = 0
        self._device = context.device
        self._phases = Phases(context.device)
        self._breakdowns: list[dict[str, float]] = []
        stage = with_settings(stage, {"objective": TimedObjective(stage.objective, self._phases)})
        with PeakMemory(context.device) as peak, multiplying_in(self.precision):
            trainer = stage.trainer(cast(Context, context), spec)
            self.trainer: Trainer | PlainTrainer = (
                PlainTrainer(stage, trainer.model, spec.shape, context.device)
                if name == PLAIN
                else trainer
            )
            del trainer
            for _ in range(_WARM_UP):
                self.trainer.step(*feed.next())
            wait_for(context.device)
        self.peak = peak.bytes

    def run(self, feed: Feed, steps: int) -> None:
        """Train for a number of steps, and measure their total time."""
        before = feed.waited
        with multiplying_in(self.precision):
            wait_for(self._device)
            start = time.perf_counter()
            for _ in range(steps):
                self.trainer.step(*feed.next())
            wait_for(self._device)
        self.seconds.append((time.perf_counter() - start) / steps)
        self.waited += feed.waited - before
        self.steps += steps

    def run_phases(self, feed: Feed, steps: int) -> None:
        """Train for a number of steps, and measure the time of each phase.

        Time that belongs to no other phase is counted as the backward pass.
        """
        phases = self._phases
        with multiplying_in(self.precision), phases.counting(), _time_optimizers(phases):
            for _ in range(steps):
                batch, noise = feed.next()
                with phases.phase("step"):
                    self.trainer.step(batch, noise)
                    phases.end("EMA")
        seconds = {name: phases.seconds[name] / steps for name in ("step", *PHASES)}
        step = seconds.pop("step")
        backward = max(0.0, step - sum(seconds.values()))
        self._breakdowns.append({**seconds, "backward": backward})

    @property
    def phases(self) -> dict[str, float]:
        """Dict from phase to its seconds in a step, median over the rounds."""
        return {
            name: statistics.median(seconds[name] for seconds in self._breakdowns)
            for name in PHASES
        }


@contextmanager
def _time_optimizers(phases: Phases) -> Iterator[None]:
    """Time optimizer steps in a ``with`` block, and the update of the weight average after each."""

    def before(*_: object) -> None:
        phases.begin("optimizer")

    def after(*_: object) -> None:
        phases.end("optimizer")
        phases.begin("EMA")

    handles = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
