"""Measure the speed of variants of a train stage within one run."""

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
from genkit_bench.stages import TrainStage, with_settings
from genkit_bench.variants import PLAIN, settings_of

_ENDLESS = 10**15  # length of the stream in images, which is never reached
_POOLS_READ = 3  # number of pools whose reading is timed; chosen, not tuned


@dataclass(frozen=True)
class Effort:
    """Extent of a measurement.

    Attributes:
        images: number of images per variant in all rounds together.
        rounds: number of rounds; a round measures all variants, so that other load on the machine
            affects all variants equally.
    """

    images: int
    rounds: int


@dataclass(frozen=True)
class Row:
    """Measurements of a variant.

    Attributes:
        variant: name of the variant.
        precision: precision of the variant's arithmetic.
        images_per_second: images per second, including waiting for pairs; median over the rounds.
        against_plain: ratio of images per second to the plain variant in the same round; median
            over the rounds.
        phases: dict from each of :data:`~genkit_bench.contender.PHASES` to its seconds in a step,
            with a synchronization after each phase; median over the rounds.
        seconds_waited: seconds of waiting for pairs per step.
        peak_bytes: peak memory; None if it cannot be measured.
        utilization: operations per second as a share of the device's peak in this precision; None
            if the peak is unknown.
        note: reason why the variant was not measured; empty if it was.
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
    """Results of a measurement of training.

    Attributes:
        parameters: number of parameters of the network.
        flops: number of operations per image, forward and backward.
        batch_size: batch size of a step.
        pool_size: number of images coupled together.
        seconds_data: seconds per step for reading, augmentation and noise, measured alone.
        seconds_coupling: seconds per step in the coupler, measured during training.
        rows: one row for each variant.
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
    report: Callable[[str], None],
) -> Training:
    """Measure the speed of variants of a train stage.

    Args:
        stage: train stage of a recipe.
        names: names of the variants, see :func:`~genkit_bench.variants.settings_of`.
        device: device on which to train.
        effort: extent of the measurement.
        seed: seed of weights, pairs and noise.
        report: function that is called with a description of the next measurement.

    Raises:
        GenkitError: the stage requires the output of an earlier stage, or its data cannot be read.
    """
    context, spec = BenchContext(device, root=seed), stage.spec()
    report("data")
    stream = stage.stream(cast(Context, context), _ENDLESS)
    seconds_data = statistics.median(_time(stream.inputs, k) for k in range(_POOLS_READ))
    steps = max(1, round(effort.images / stage.batch_size / effort.rounds))
    feed = Feed(stream, stage.batch_size, stage.pools_ahead)
    contenders: dict[str, Contender] = {}
    notes: dict[str, str] = {}
    try:
        with seeded(seed, device), reserve_core():
            parameters, flops = _count_arithmetic(stage, context, spec, feed)
            for name in names:
                report(f"{name}: warming up")
                try:
                    variant = with_settings(stage, settings_of(name))
                    contenders[name] = Contender(variant, name, context, spec, feed)
                except (UsageError, torch.OutOfMemoryError) as error:
                    notes[name] = str(error).partition("\n")[0]
            for turn in range(effort.rounds):
                for contender in contenders.values():
                    report(f"{contender.name}: round {turn + 1} of {effort.rounds}")
                    contender.run(feed, steps)
                    # Immediately afterwards, so that other load affects both measurements equally.
                    contender.run_phases(feed, max(1, steps // effort.rounds))
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


def _time(function: Callable[[int], object], index: int) -> float:
    start = time.perf_counter()
    function(index)
    return time.perf_counter() - start


def _count_arithmetic(
    stage: TrainStage, context: BenchContext, spec: DataSpec, feed: Feed
) -> tuple[int, float]:
    """Return the number of parameters of the network, and the number of operations per image."""
    model = stage.network.build(spec).to(context.device)
    batch, noise = feed.next()
    item = slice(0, 1)
    flops = training_flops(
        model, stage.objective, batch[item].to(context.device), noise[item].to(context.device)
    )
    return sum(p.numel() for p in model.parameters()), flops


def _row(
    contender: Contender,
    plain: Contender | None,
    batch_size: int,
    flops: float,
    device: torch.device,
) -> Row:
    """Return the row of a variant, with the ratio to the plain variant if the latter exists."""
    speed = batch_size / statistics.median(contender.seconds)
    peak = peak_flops(device, contender.precision)
    seconds = zip(plain.seconds, contender.seconds, strict=True) if plain else ()
    ratios = [other / own for other, own in seconds]
    return Row(
        contender.name,
        contender.precision,
        speed,
        statistics.median(ratios) if ratios else None,
        contender.phases,
        contender.waited / contender.steps,
        contender.peak,
        flops * speed / peak if peak else None,
    )
