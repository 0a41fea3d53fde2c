"""A variant of a training, ready to be timed, and the pairs that it is fed with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from genkit.bench.alone import NoStages
from genkit.bench.memory import PeakMemory
from genkit.bench.phases import Phases, wait_for
from genkit.bench.plain import PlainTrainer
from genkit.bench.variants import PLAIN
from genkit.interfaces import Context
from genkit.random import derive_seed
from genkit.run.stages.train import Train
from genkit.train.pairing import PairStream
from genkit.train.precision import multiplying_in
from genkit.train.trainer import Trainer
from genkit.types import Batch, DataSpec
from genkit.world import ALONE, World

PHASES = ("forward", "backward", "optimizer", "EMA")
"""Of a step, in their order."""

_WARM_UP = 2  # steps before anything is timed: kernels are chosen, and the network is compiled


class BenchContext(NoStages):
    """As much of :class:`genkit.interfaces.Context` as building and pairing ask for."""

    world: World = ALONE

    def __init__(self, device: torch.device, seed: int) -> None:
        super().__init__(device)
        self._seed = seed

    def seed(self, *purpose: str | int) -> int:
        return derive_seed(self._seed, "bench", *purpose)

    def generator(self, *purpose: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed(*purpose))


@dataclass(frozen=True)
class TimedStream(PairStream):
    """A stream that notes what it takes to read, augment and draw noise for a pool."""

    seconds: list[float] = field(default_factory=list)

    def inputs(self, index: int) -> tuple[Batch, Tensor]:
        begun = time.perf_counter()
        found = super().inputs(index)
        self.seconds.append(time.perf_counter() - begun)
        return found


class Feed:
    """Batches, and what was told of the pools that they came from.

    Args:
        stream: of pairs.
        batch_size: images of a batch.
        ahead: pools that are coupled ahead.
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


class Contender:
    """A variant that is ready to be timed.

    Args:
        stage: with the variant's settings.
        name: of the variant.
        context: of the bench.
        spec: of the data.
        feed: batches for the warm-up.
    """

    def __init__(
        self, stage: Train, name: str, context: BenchContext, spec: DataSpec, feed: Feed
    ) -> None:
        self.name = name
        self.precision = stage.precision
        self._device = context.device
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
        self.seconds: list[float] = []
        self.waited = 0.0
        self.steps = 0
        self._looks: list[dict[str, float]] = []

    def run(self, feed: Feed, steps: int) -> None:
        """Train for some steps, timed as a whole."""
        before = feed.waited
        with multiplying_in(self.precision):
            wait_for(self._device)
            begun = time.perf_counter()
            for _ in range(steps):
                self.trainer.step(*feed.next())
            wait_for(self._device)
        self.seconds.append((time.perf_counter() - begun) / steps)
        self.waited += feed.waited - before
        self.steps += steps

    def look_inside(self, feed: Feed, steps: int) -> None:
        """Train for some steps, each phase timed by itself; what is no other is the backward."""
        phases = Phases(self._device)
        with multiplying_in(self.precision), _watched(self.trainer, phases):
            for _ in range(steps):
                batch, noise = feed.next()
                with phases.phase("step"):
                    self.trainer.step(batch, noise)
        spent = {name: phases.seconds[name] / steps for name in ("step", *PHASES)}
        rest = spent.pop("step")
        self._looks.append({**spent, "backward": max(0.0, rest - sum(spent.values()))})

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of each phase in a step: median over the rounds."""
        return {name: statistics.median(look[name] for look in self._looks) for name in PHASES}


@contextmanager
def _watched(trainer: Trainer | PlainTrainer, phases: Phases) -> Iterator[None]:
    """Time the parts of a trainer's step inside the block."""
    parts: list[tuple[Any, str, str]] = [
        (trainer, "_summed", "forward"),
        (trainer, "_update", "optimizer"),
        (trainer.average, "update", "EMA"),
    ]
    for owner, name, phase in parts:
        setattr(owner, name, phases.timed(phase, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, _ in parts:
            delattr(owner, name)  # what the class has shows again
