"""Maximum mean discrepancy: distances of two sets of features by the kernel of each pair."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit_metrics.library import torchmetrics_image
from genkit_metrics.neighbors import blocks, squared_distances

SUBSETS, SUBSET_SIZE = 100, 1000
"""Random subsets of the KID and items in each, as in its publication and in torchmetrics."""

BANDWIDTH, SCALE = 10.0, 1000.0
"""Standard deviation of CMMD's Gaussian kernel, and the factor of the published numbers."""


def polynomial_mmd(real: Tensor, fake: Tensor, generator: torch.Generator) -> tuple[float, float]:
    """Return mean and standard deviation over random subsets of the unbiased MMD^2 of the KID.

    The kernel is (x.y / F + 1)^3. It is evaluated in float64: in float32 the rounding of sums of a
    million kernel values is of the size of a good KID.

    Args:
        real: ``[N, F]`` features, at least 1,000.
        fake: ``[M, F]`` features, likewise.
        generator: generator on the CPU, which draws the subsets: for each first that of the real
            items.
    """
    mmd = torchmetrics_image("kid").poly_mmd
    values = torch.stack(
        [mmd(*(_subset(items, generator) for items in (real, fake))) for _ in range(SUBSETS)]
    )
    return float(values.mean()), float(values.std(correction=0))


def _subset(items: Tensor, generator: torch.Generator) -> Tensor:
    return items[torch.randperm(len(items), generator=generator)[:SUBSET_SIZE]].double()


def gaussian_mmd(real: Tensor, fake: Tensor, device: torch.device) -> float:
    """Return CMMD: MMD^2 of features of unit length with a Gaussian kernel, times 1,000.

    It is the biased estimator, which has the least variance: means over all pairs, those of an item
    with itself included.

    Args:
        real: ``[N, F]`` features, of any length.
        fake: ``[M, F]`` features, likewise.
        device: device of the computation.
    """
    within = sum(_mean_kernel(items, items, device) for items in (real, fake))
    return SCALE * (within - 2 * _mean_kernel(real, fake, device))


def _mean_kernel(first: Tensor, second: Tensor, device: torch.device) -> float:
    """Return the mean over all pairs of the kernel less 1.

    The kernel is between 0.98 and 1. The ones cancel in MMD^2, which is some 1e-4; without them no
    digits are lost.
    """
    total = 0.0
    for _, some in blocks(first, device):
        unit = F.normalize(some)
        for _, others in blocks(second, device):
            squared = squared_distances(unit, F.normalize(others))
            total += float(torch.expm1(squared.mul_(-0.5 / BANDWIDTH**2)).sum())
    return total / (len(first) * len(second))
