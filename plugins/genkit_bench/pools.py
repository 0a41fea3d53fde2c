"""Draw pools of any size from a data set, on which couplers are measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genkit.errors import Code, UsageError
from genkit.interfaces import Dataset
from genkit.parts.no_stages import NoStages
from genkit.plugin.registry import Registry
from genkit.random import generator
from genkit.recipe.decode import component
from genkit.settings import quote
from genkit.tensors import to_float
from genkit.types import Batch
from genkit_bench.synthetic import require_memory

_EMBEDDINGS = 16  # length of random embeddings; chosen, not tuned


def load_items(registry: Registry, table: Mapping[str, Any], largest: int) -> Batch:
    """Load all items of a data set.

    Args:
        registry: registry of the data sets.
        table: table of the data set, as in a recipe.
        largest: maximum pool size.

    Raises:
        GenkitError: the name is unknown, a setting is invalid, the data cannot be read or requires
            an earlier stage, or pools of ``largest`` items do not fit into memory.
    """
    # The name is checked before the settings, since this error is shorter.
    registry.find(["dataset"], str(table.get("use")))
    dataset = component(registry, "dataset", table)
    if not isinstance(dataset, Dataset):
        raise UsageError(f"--data must be a data set, got {quote(table)}", Code.WRONG_KIND)
    batch = dataset.load(NoStages(torch.device("cpu")))
    require_memory(max(largest, len(batch)), tuple(batch.data.shape[1:]))
    return batch.with_data(to_float(batch.data))


def complete(batch: Batch, seed: int) -> Batch:
    """Add random labels, realness and embeddings to items that have none.

    Thus every coupler can be measured on any data. Labels are random among 10 classes, an item is
    real with probability 1/2, and an embedding is a random vector of the class plus noise.
    """
    count = len(batch)
    labels = batch.labels
    if labels is None:
        labels = torch.randint(10, (count,), generator=generator(seed, "bench", "no labels"))
    realness = batch.realness
    if realness is None:
        realness = torch.randint(2, (count,), generator=generator(seed, "bench", "realness"))
    embeddings = batch.embeddings
    if embeddings is None:
        draws = generator(seed, "bench", "embeddings")
        means = torch.randn((int(labels.max()) + 1, _EMBEDDINGS), generator=draws)
        embeddings = means[labels] + 0.5 * torch.randn((count, _EMBEDDINGS), generator=draws)
    return replace(batch, labels=labels, realness=realness, embeddings=embeddings)


@dataclass(frozen=True)
class Pools:
    """Pools of any size from a data set, with noise samples.

    Attributes:
        data: all items, with the attributes that :func:`complete` adds.
        seed: seed with which items and noise are drawn.
        device: device of the pools.
    """

    data: Batch
    seed: int
    device: torch.device

    def batch(self, size: int, index: int) -> Batch:
        """Return pool ``index`` of a size; items are repeated if the pool exceeds the data."""
        order: list[Tensor] = []
        for epoch in range(math.ceil(size / len(self.data))):
            draws = generator(self.seed, "bench", "pool", size, index, epoch)
            order.append(torch.randperm(len(self.data), generator=draws))
        return self.data[torch.cat(order)[:size]].to(self.device)

    def noise(self, size: int, index: int, each: int = 1) -> Tensor:
        """Return the noise of this pool from N(0, I), ``[size * each, *shape]``."""
        draws = generator(self.seed, "bench", "noise", size, index, each)
        shape = (size * each, *self.data.data.shape[1:])
        return torch.randn(shape, generator=draws).to(self.device)
