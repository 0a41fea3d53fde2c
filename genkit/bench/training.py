"""Measures the training of a recipe's stage, computed in several ways within one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch

from genkit.bench.contender import BenchContext, Contender, Feed, TimedStream
from genkit.bench.flops import peak_flops, training_flops
from genkit.bench.variants import PLAIN, variant_of
from genkit.errors import UsageError
from genkit.interfaces import Context
from genkit.random import seeded
from genkit.run.stages.train import Train
from genkit.train.ahead import core_for_pairing
from genkit.train.precision import Precision
from genkit.types import DataSpec

_ENDLESS = 10**15  # images of the stream; it ends when nobody asks for more


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        images: that each variant trains on while it is timed, in all rounds together.
        rounds: in which the variants take turns, so that a busy moment of the machine hits all.
    """

    images: int
    rounds: int


@dataclass(frozen=True)
class Row:
    """What was found of a variant.

    Attributes:
        variant: its name.
        precision: of its arithmetic.
        images_per_second: median over the rounds, waiting for pairs included.
        against_plain: median over the rounds of the ratio to the plain way in the same round.
        phases: seconds of each of :data:`~genkit.bench.contender.PHASES` in a step, the device
            waited for after each; median over the rounds.
        seconds_waited: for pairs, in a step.
        peak_bytes: memory that it needs at most; None where it cannot be measured.
        utilization: of the device's peak in this precision; None where that is not known.
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
    """What all variants have in common.

    Attributes:
        parameters: of the network.
        flops: of an image, forward and backward.
        batch_size: images of a step.
        pool_size: pairs that are coupled together.
        seconds_data: that reading, augmenting and drawing noise take for the images of a step,
            beside the training.
        seconds_coupling: that the coupler takes for them, likewise.
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
    stage: Train,
    names: Sequence[str],
    device: torch.device,
    effort: Effort,
    seed: int,
    tell: Callable[[str], None],
) -> Training:
    """Train a stage's network for a while in each of several ways.

    Args:
        stage: of a recipe.
        names: of the variants, see :func:`~genkit.bench.variants.variant_of`.
        device: where to compute.
        effort: how much is measured.
        seed: of weights, pairs and noise.
        tell: is told what is measured next.

    Raises:
        GenkitError: the stage needs what an earlier one left, or its data cannot be read.
    """
    context, spec = BenchContext(device, seed), stage.spec()
    tell("data")
    stream = TimedStream(**vars(stage.stream(cast(Context, context), _ENDLESS)))
    steps = max(1, round(effort.images / stage.batch_size / effort.rounds))
    feed = Feed(stream, stage.batch_size, stage.pools_ahead)
    contenders: list[Contender] = []
    notes: dict[str, str] = {}
    try:
        with seeded(seed, device), core_for_pairing():
            parameters, flops = _arithmetic(stage, context, spec, feed)
            for name in names:
                tell(f"{name}: warming up")
                try:
                    changed = _changed(stage, name)
                    contenders.append(Contender(changed, name, context, spec, feed))
                except (UsageError, torch.OutOfMemoryError) as error:
                    notes[name] = str(error).partition("\n")[0]
            for turn in range(effort.rounds):
                for contender in contenders:
                    tell(f"{contender.name}: round {turn + 1} of {effort.rounds}")
                    contender.run(feed, steps)
                    # At once, for a busy moment of the machine is to lengthen both alike.
                    contender.look_inside(feed, max(1, steps // effort.rounds))
    finally:
        feed.close()
    share = stage.batch_size / stage.pool
    known = {c.name: _row(c, contenders, stage.batch_size, flops, device) for c in contenders}
    return Training(
        parameters,
        flops,
        stage.batch_size,
        stage.pool,
        statistics.median(stream.seconds) * share,
        statistics.median(feed.solving) * share,
        tuple(known.get(name) or Row(name, note=notes[name]) for name in names),
    )


def _changed(stage: Train, name: str) -> Train:
    """Return the stage as a variant computes it."""
    chosen = variant_of(name)
    if chosen is None:
        return stage
    return replace(
        stage,
        precision=chosen.precision,
        channels_last=chosen.channels_last,
        compile=chosen.compiled,
    )


def _arithmetic(
    stage: Train, context: BenchContext, spec: DataSpec, feed: Feed
) -> tuple[int, float]:
    """Return the network's parameters, and the operations of an image."""
    model = stage.network.build(spec).to(context.device)
    batch, noise = feed.next()
    few = slice(0, 1)
    flops = training_flops(
        model, stage.objective, batch[few].to(context.device), noise[few].to(context.device)
    )
    return sum(p.numel() for p in model.parameters()), flops


def _row(
    contender: Contender,
    all_of_them: Sequence[Contender],
    batch_size: int,
    flops: float,
    device: torch.device,
) -> Row:
    plain = next((c for c in all_of_them if c.name == PLAIN), None)
    speed = batch_size / statistics.median(contender.seconds)
    peak = peak_flops(device, contender.precision)
    ratios = (
        [p / own for p, own in zip(plain.seconds, contender.seconds, strict=True)] if plain else []
    )
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
