"""Order of the items in class-stratified pools."""

from __future__ import annotations

import torch
from torch import Tensor


def stratify(
    order: Tensor, labels: Tensor, images_per_class: int, generator: torch.Generator
) -> Tensor:
    """Reorder items into runs of one class each, in random order of the runs.

    Args:
        order: ``[N]`` int64 indices of items, shuffled.
        labels: ``[N]`` int64 class of each item.
        images_per_class: length of a run; the last run of a class may be shorter.
        generator: generator on the CPU, with which the runs are shuffled.

    Returns:
        ``[N]`` int64 indices of items.
    """
    # Stable sorts keep the shuffled order within a class, so the order of the runs is the only
    # additional randomness. ``rank`` is the position of an item within its class.
    by_class = order[labels[order].argsort(stable=True)]
    sizes = torch.bincount(labels)
    first = sizes.cumsum(0) - sizes
    rank = torch.arange(len(order)) - first[labels[by_class]]
    run = (rank % images_per_class == 0).cumsum(0) - 1
    place = torch.randperm(int(run[-1]) + 1, generator=generator)
    return by_class[place[run].argsort(stable=True)]
