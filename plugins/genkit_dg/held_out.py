"""Pairs of held-out items and noise, for the evaluation of a discriminator."""

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
from genkit.train.replicas import ItemLosses
from genkit.types import Batch

BATCH = 512
"""Batch size of network calls; chosen, not tuned."""

LOSS_BATCH = 64
"""Batch size of the loss of an objective, which may store a graph of derivatives, as in training;
chosen, not tuned."""


@runtime_checkable
class PairedTraining(Protocol):
    """A stage that trains a discriminator on pairs, such as ``train``."""

    data: Dataset
    objective: Objective
    pools_ahead: int

    def stream(self, context: Context, total: int) -> PairStream:
        """Return a stream of the first ``total`` training pairs."""
        ...


class Pairs(NamedTuple):
    """Items with their assigned noise samples.

    Attributes:
        batch: ``[N]`` items with ``realness`` and ``quantile``.
        noise: ``[N, *shape]`` unit noise.
    """

    batch: Batch
    noise: Tensor

    def with_realness(self, realness: int) -> Pairs:
        """Return the pairs whose items are real (1) or generated (0)."""
        index = (require_realness(self.batch) == realness).nonzero().flatten()
        return Pairs(self.batch[index], self.noise[index])

    def parts(self, device: torch.device, size: int = BATCH) -> Iterator[tuple[Batch, Tensor]]:
        """Yield items and noise on a device, in batches of up to ``size`` items."""
        for start in range(0, len(self.batch), size):
            part = slice(start, start + size)
            yield self.batch[part].to(device), self.noise[part].to(device)


def find_training(name: str, stage_of: Callable[[str], Stage | None]) -> PairedTraining | None:
    """Return the stage that trained a discriminator; None if there is none.

    Args:
        name: id of the stage that writes the discriminator. The stage trains it, or chooses one
            among the snapshots of another stage.
        stage_of: function that returns the stage with an id, or None if there is none.
    """
    stage = stage_of(name)
    if not isinstance(stage, PairedTraining):
        stage = stage_of(getattr(stage, "discriminator", name))
    return stage if isinstance(stage, PairedTraining) else None


def check_held_out(name: str, stages: Stages) -> Iterator[Problem]:
    """Yield a problem if the discriminator cannot be evaluated on held-out items."""
    training = find_training(name, stages.get)
    if training is None:
        yield Problem(
            ("discriminator",),
            "must be a stage that trains a discriminator or chooses among its snapshots, got "
            f'"{name}"',
            "write the id of such a stage",
            Code.WRONG_REFERENCE,
        )
    elif training.data.held_out_part() is None:
        yield Problem(
            ("discriminator",),
            "must hold out items of its data, got a stage that trains on all items",
            'write data = { use = "real-and-fake", held_out = 0.1, ... } in that stage',
            Code.CONFLICT,
        )


def noise_levels_of(training: PairedTraining, pairs: Pairs) -> Tensor:
    """Return the noise levels ``[N]`` float32 at which the stage trains on the pairs.

    Raises:
        DataError: the objective has no noise levels.
    """
    quantile = pairs.batch.quantile
    levels = None if quantile is None else training.objective.noise_levels(quantile)
    if levels is None:
        raise DataError(
            "objective must have noise levels, got one without; write "
            'objective = { use = "discrimination" }',
            Code.CONFLICT,
        )
    return levels.float()


def draw_held_out_pairs(training: PairedTraining, context: Context, count: int) -> Pairs:
    """Return held-out pairs, coupled as in training.

    Args:
        training: stage that trained the discriminator.
        context: context of the running stage, from which the seeds of noise and order derive.
        count: number of pairs; if there are fewer items, they are repeated with new noise.

    Raises:
        DataError: no items are held out, or the data is corrupt.
    """
    part = training.data.held_out_part()
    if part is None:
        raise DataError(
            "data must hold out items, got none; write held_out = 0.1 in it", Code.CONFLICT
        )
    held_out = cast(PairedTraining, replace(cast(Any, training), data=part))
    stream = held_out.stream(context, count)
    with closing(stream.batches(count, 0, training.pools_ahead)) as batches:
        batch, noise, _ = next(batches)
    return Pairs(batch, noise)


def compute_logits(module: nn.Module, pairs: Pairs, sigma: Tensor, device: torch.device) -> Tensor:
    """Return log(d / (1 - d)) of noisy items, ``[N]`` float64 on the CPU.

    Args:
        module: discriminator, in eval mode, on the device.
        pairs: items with their noise samples.
        sigma: ``[N]`` float32 noise levels.
        device: device of the module.
    """
    logits = []
    with torch.no_grad():
        for (batch, noise), level in zip(
            pairs.parts(device), torch.split(sigma, BATCH), strict=True
        ):
            batch_sigma = level.to(device)
            x = batch.data + as_column(batch_sigma, noise) * noise
            logits.append(module(x, batch_sigma, batch.labels).double().cpu())
    return torch.cat(logits)


def compute_losses(
    losses_of: ItemLosses, pairs: Pairs, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Return the loss of each item, ``[N]`` float64 on the CPU.

    Args:
        losses_of: discriminator in eval mode, on the device, with its objective.
        pairs: items with their noise samples.
        generator: generator on the CPU, for random numbers of the objective.
        device: device of the discriminator.
    """
    parts = pairs.parts(device, LOSS_BATCH)
    losses = [losses_of(batch, noise, generator).detach() for batch, noise in parts]
    return torch.cat(losses).cpu().double()


def require_realness(batch: Batch) -> Tensor:
    """Return the realness ``[N]`` of the items: 1 for real and 0 for generated.

    Raises:
        DataError: the batch has no ``realness``.
    """
    if batch.realness is None:
        raise DataError(
            "data must state which items are real and which are generated, got no realness; write "
            'data = { use = "real-and-fake", ... }',
            Code.MISSING_ATTRIBUTE,
        )
    return batch.realness
