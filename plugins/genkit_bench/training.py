"""Measures the training of a recipe's stage, computed in several ways within one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch

from genkit.errors import UsageError
from genkit.interfaces import Context
from genkit.parts.precision import Precision
from genkit.random import seeded
from genkit.train.ahead import reserve_core
from genkit.types import DataSpec
from genkit_bench.contender import BenchContext, Contender, Feed
from genkit_bench.flops import peak_flops, training_flops
from genkit_bench.stages import TrainStage, changed
from genkit_bench.variants import PLAIN, settings_of

_ENDLESS = 10**15  # images of the stream; it ends when nobody asks for more
_POOLS_READ = 3  # pools whose reading is timed


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        images: images that each variant is timed with, in all rounds together.
        rounds: rounds in which the variants take turns, so that a busy moment of the machine hits
            all of them.
    """

    images: int
    rounds: int


@dataclass(frozen=True)
class Row:
    """The figures of a variant.

    Attributes:
        variant: its name.
        precision: precision of its arithmetic.
        images_per_second: median over the rounds, waiting for pairs included.
        against_plain: median over the rounds of the ratio to the plain way in the same round.
        phases: seconds of each of :data:`~genkit_bench.contender.PHASES` in a step, the device
            waited for after each; median over the rounds.
        seconds_waited: seconds that a step waited for pairs.
        peak_bytes: most memory that it needs; None where it cannot be measured.
        utilization: share of the device's peak in this precision; None where that is not known.
        note: why it was not measured.
    """

    variant: str
    precision: Precision | None = None
    images_per_second: float | None = None
    against_plain: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    seconds_waited: float | None = None
    peak_bytes: int | None = None
    utilization: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Training:
    """The figures that all variants have in common.

    Attributes:
        parameters: number of parameters of the network.
        flops: operations of an image, forward and backward.
        batch_size: images of a step.
        pool_size: pairs that are coupled together.
        seconds_data: seconds for reading, augmenting and drawing noise, for the images of a step;
            measured alone.
        seconds_coupling: seconds of the coupler for them, beside the training.
        rows: one for each variant.
    """

    parameters: int
    flops: float
    batch_size: int
    pool_size: int
    seconds_data: float
    seconds_coupling: float
    rows: tuple[Row, ...]


def measure_training(
    stage: TrainStage,
    names: Sequence[str],
    device: torch.device,
    effort: Effort,
    seed: int,
    tell: Callable[[str], None],
) -> Training:
    """Train a stage's network for a while in each of several ways.

    Args:
        stage: stage of a recipe.
        names: names of the variants, see :func:`~genkit_bench.variants.settings_of`.
        device: where to compute.
        effort: how much is measured.
        seed: seed of weights, pairs and noise.
        tell: is called with what is measured next.

    Raises:
        GenkitError: the stage needs the output of an earlier one, or its data cannot be read.
    """
    context, spec = BenchContext(device, root=seed), stage.spec()
    tell("data")
    stream = stage.stream(cast(Context, context), _ENDLESS)
    seconds_data = statistics.median(_timed(stream.inputs, k) for k in range(_POOLS_READ))
    steps = max(1, round(effort.images / stage.batch_size / effort.rounds))
    feed = Feed(stream, stage.batch_size, stage.pools_ahead)
    contenders: dict[str, Contender] = {}
    notes: dict[str, str] = {}
    try:
        with seeded(seed, device), reserve_core():
            parameters, flops = _arithmetic(stage, context, spec, feed)
            for name in names:
                tell(f"{name}: warming up")
                try:
                    one = Contender(changed(stage, settings_of(name)), name, context, spec, feed)
                    contenders[name] = one
                except (UsageError, torch.OutOfMemoryError) as error:
                    notes[name] = str(error).partition("\n")[0]
            for turn in range(effort.rounds):
                for contender in contenders.values():
                    tell(f"{contender.name}: round {turn + 1} of {effort.rounds}")
                    contender.run(feed, steps)
                    # At once, for a busy moment of the machine is to lengthen both alike.
                    contender.look_inside(feed, max(1, steps // effort.rounds))
    finally:
        feed.close()
    share, plain = stage.batch_size / stage.pool, contenders.get(PLAIN)
    return Training(
        parameters,
        flops,
        stage.batch_size,
        stage.pool,
        seconds_data * share,
        statistics.median(feed.solving) * share,
        tuple(
            _row(contenders[name], plain, stage.batch_size, flops, device)
            if name in contenders
            else Row(name, note=notes[name])
            for name in names
        ),
    )


def _timed(function: Callable[[int], object], index: int) -> float:
    begun = time.perf_counter()
    function(index)
    return time.perf_counter() - begun


def _arithmetic(
    stage: TrainStage, context: BenchContext, spec: DataSpec, feed: Feed
) -> tuple[int, float]:
    """Return the number of the network's parameters, and the operations of an image."""
    model = stage.network.build(spec).to(context.device)
    batch, noise = feed.next()
    few = slice(0, 1)
    flops = training_flops(
        model, stage.objective, batch[few].to(context.device), noise[few].to(context.device)
    )
    return sum(p.numel() for p in model.parameters()), flops


def _row(
    one: Contender, plain: Contender | None, batch_size: int, flops: float, device: torch.device
) -> Row:
    """Return the figures, beside those of the plain way where it was measured."""
    speed = batch_size / statistics.median(one.seconds)
    peak = peak_flops(device, one.precision)
    seconds = zip(plain.seconds, one.seconds, strict=True) if plain else ()
    ratios = [other / own for other, own in seconds]
    return Row(
        one.name,
        one.precision,
        speed,
        statistics.median(ratios) if ratios else None,
        one.phases,
        one.waited / one.steps,
        one.peak,
        flops * speed / peak if peak else None,
    )
