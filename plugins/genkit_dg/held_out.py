"""Held-out pairs, on which a discriminator is judged after its training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Context, Dataset, Objective, Stage, Stages
from genkit.tensors import as_column
from genkit.train.pairing import PairStream
from genkit.types import Batch

BATCH = 512
"""Items of a call of a network."""


@runtime_checkable
class PairedTraining(Protocol):
    """A stage that trains a discriminator on pairs, such as ``train``."""

    data: Dataset
    objective: Objective
    pools_ahead: int

    def stream(self, context: Context, total: int) -> PairStream:
        """Return the pairs to train on."""
        ...


class Pairs(NamedTuple):
    """Items with the noise that was assigned to each.

    Attributes:
        batch: ``[N]`` items with ``realness`` and ``quantile``.
        noise: ``[N, *shape]`` unit noise.
    """

    batch: Batch
    noise: Tensor

    def of_source(self, source: int) -> Pairs:
        """Return the pairs of real items, 1, or of generated ones, 0."""
        kept = (realness_of(self.batch) == source).nonzero().flatten()
        return Pairs(self.batch[kept], self.noise[kept])

    def parts(self, device: torch.device) -> Iterator[tuple[Batch, Tensor]]:
        """Yield the pairs in parts of one call of a network, on a device."""
        for start in range(0, len(self.batch), BATCH):
            part = slice(start, start + BATCH)
            yield self.batch[part].to(device), self.noise[part].to(device)


def training_of(name: str, stage_of: Callable[[str], Stage | None]) -> PairedTraining | None:
    """Return the training behind a discriminator, or behind the stage that chose one of it.

    Args:
        name: id of the stage that writes the discriminator.
        stage_of: returns a stage by its id, or None.
    """
    stage = stage_of(name)
    if not isinstance(stage, PairedTraining):
        stage = stage_of(getattr(stage, "discriminator", name))
    return stage if isinstance(stage, PairedTraining) else None


def held_out_problems(name: str, stages: Stages) -> Iterator[Problem]:
    """Yield why a discriminator cannot be judged on held-out items."""
    training = training_of(name, stages.get)
    if training is None:
        yield Problem(
            ("discriminator",),
            "must be a stage that trains a discriminator, or that chooses one of its training, got "
            f'"{name}"',
            "name the stage of the training",
            Code.WRONG_REFERENCE,
        )
    elif training.data.held_out_part() is None:
        yield Problem(
            ("discriminator",),
            "must hold items out of its training, got all of them in it",
            'write data = { use = "real-and-fake", held_out = 0.1, ... } in its stage',
            Code.CONFLICT,
        )


def levels_of(training: PairedTraining, pairs: Pairs) -> Tensor:
    """Return the noise levels ``[N]`` float32 that the training would draw for pairs.

    Raises:
        DataError: its objective has none.
    """
    quantile = pairs.batch.quantile
    levels = None if quantile is None else training.objective.noise_levels(quantile)
    if levels is None:
        raise DataError("objective must have noise levels, got one without", Code.CONFLICT)
    return levels.float()


def held_out_pairs(training: PairedTraining, context: Context, count: int) -> Pairs:
    """Return held-out pairs, coupled as those of the training.

    Args:
        training: stage of the training.
        context: context of the running stage, which seeds noise and order.
        count: number of pairs; items are repeated, each time with other noise.

    Raises:
        DataError: no item is held out, or the data is damaged.
    """
    part = training.data.held_out_part()
    if part is None:
        raise DataError("data must hold items out of the training", Code.CONFLICT)
    judged = cast(PairedTraining, replace(cast(Any, training), data=part))
    stream = judged.stream(context, count)
    with closing(stream.batches(count, 0, training.pools_ahead)) as batches:
        batch, noise, _ = next(batches)
    return Pairs(batch, noise)


def logits_of(module: nn.Module, pairs: Pairs, sigma: Tensor, device: torch.device) -> Tensor:
    """Return log(d / (1 - d)) of noisy items, ``[N]`` float64 on the CPU.

    Args:
        module: discriminator, in eval mode, on the device.
        pairs: items with their noise.
        sigma: ``[N]`` float32 noise levels.
        device: device of the module.
    """
    found = []
    with torch.no_grad():
        for (batch, noise), level in zip(
            pairs.parts(device), torch.split(sigma, BATCH), strict=True
        ):
            there = level.to(device)
            x = batch.data + as_column(there, noise) * noise
            found.append(module(x, there, batch.labels).double().cpu())
    return torch.cat(found)


def realness_of(batch: Batch) -> Tensor:
    """Return which items are real: 1 for real and 0 for generated.

    Raises:
        DataError: there are none.
    """
    if batch.realness is None:
        raise DataError("data must have realness, got none", Code.MISSING_ATTRIBUTE)
    return batch.realness
