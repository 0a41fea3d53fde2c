"""What couplers are measured on: a data set, cut into pools of any size."""

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

_EMBEDDINGS = 16  # length of those that data without any is given


def load_items(registry: Registry, table: Mapping[str, Any], largest: int) -> Batch:
    """Return all items of a data set, given as a recipe's table.

    Raises:
        GenkitError: there is none of this name, a setting is wrong, it cannot be read, it needs
            what an earlier stage left, or pools of ``largest`` items do not fit into memory.
    """
    registry.find(["dataset"], str(table.get("use")))  # first of all, for its message is short
    dataset = component(registry, "dataset", table)
    if not isinstance(dataset, Dataset):
        raise UsageError(f"{quote(table)} is no data set", Code.WRONG_KIND)
    batch = dataset.load(NoStages(torch.device("cpu")))
    require_memory(max(largest, len(batch)), tuple(batch.data.shape[1:]))
    return batch.with_data(to_float(batch.data))


def completed(batch: Batch, seed: int) -> Batch:
    """Return the same items with labels, realness and embeddings made up where they have none.

    So a coupler that needs them can be measured on any data. Made-up labels are 10 random
    classes, realness are random halves, and an embedding is that of the item's class with noise.
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
        centres = torch.randn((int(labels.max()) + 1, _EMBEDDINGS), generator=draws)
        embeddings = centres[labels] + 0.5 * torch.randn((count, _EMBEDDINGS), generator=draws)
    return replace(batch, labels=labels, realness=realness, embeddings=embeddings)


@dataclass(frozen=True)
class Pools:
    """Pools of any size, each with its noise, drawn from a data set.

    Attributes:
        data: all items; :func:`completed` gives them what a coupler may require.
        seed: chooses items and noise.
        device: where pools are.
    """

    data: Batch
    seed: int
    device: torch.device

    def batch(self, size: int, index: int) -> Batch:
        """Return pool number ``index`` of a size; an item comes again when all were used."""
        order: list[Tensor] = []
        for epoch in range(math.ceil(size / len(self.data))):
            draws = generator(self.seed, "bench", "pool", size, index, epoch)
            order.append(torch.randperm(len(self.data), generator=draws))
        return self.data[torch.cat(order)[:size]].to(self.device)

    def noise(self, size: int, index: int, each: int = 1) -> Tensor:
        """Return ``[size * each, *shape]`` unit noise of the same pool."""
        draws = generator(self.seed, "bench", "noise", size, index, each)
        shape = (size * each, *self.data.data.shape[1:])
        return torch.randn(shape, generator=draws).to(self.device)
