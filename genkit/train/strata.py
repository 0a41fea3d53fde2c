"""The order of items in class-stratified pools."""

from __future__ import annotations

import torch
from torch import Tensor


def stratify(
    order: Tensor, labels: Tensor, images_per_class: int, generator: torch.Generator
) -> Tensor:
    """Return items in runs of one class, the runs in random order.

    Args:
        order: ``[N]`` int64 indices of items, shuffled.
        labels: ``[N]`` int64 class of each item.
        images_per_class: length of a run; the remainder of a class makes a shorter one.
        generator: generator on the CPU that shuffles the runs.
    """
    # Stable sorts keep the shuffled order inside each class, so the only new randomness is the
    # order of the runs. ``rank`` is the position of an item inside its class.
    by_class = order[labels[order].argsort(stable=True)]
    sizes = torch.bincount(labels)
    first = sizes.cumsum(0) - sizes
    rank = torch.arange(len(order)) - first[labels[by_class]]
    run = (rank % images_per_class == 0).cumsum(0) - 1
    place = torch.randperm(int(run[-1]) + 1, generator=generator)
    return by_class[place[run].argsort(stable=True)]
