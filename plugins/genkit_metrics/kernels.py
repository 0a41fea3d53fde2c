"""Maximum mean discrepancy (MMD) of two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit_metrics.library import torchmetrics_image
from genkit_metrics.neighbors import blocks, squared_distances

SUBSETS, SUBSET_SIZE = 100, 1000
"""Number of random subsets of the KID and number of items in each, as published."""

BANDWIDTH, SCALE = 10.0, 1000.0
"""Standard deviation of CMMD's Gaussian kernel, and factor of the published scores."""


def polynomial_mmd(real: Tensor, fake: Tensor, generator: torch.Generator) -> tuple[float, float]:
    """Return the KID: mean and standard deviation of the unbiased MMD^2 over random subsets.

    The kernel is (x.y / F + 1)^3. It is computed in float64: in float32, the rounding error of a
    sum of a million kernel values is as large as a good KID.

    Args:
        real: features of at least 1,000 real items, ``[N, F]``.
        fake: features of at least 1,000 samples, ``[M, F]``.
        generator: CPU generator of the subsets; it draws a real subset, then a subset of samples.
    """
    mmd = torchmetrics_image("kid").poly_mmd
    values = torch.stack(
        [mmd(*(_subset(items, generator) for items in (real, fake))) for _ in range(SUBSETS)]
    )
    return float(values.mean()), float(values.std(correction=0))


def _subset(items: Tensor, generator: torch.Generator) -> Tensor:
    return items[torch.randperm(len(items), generator=generator)[:SUBSET_SIZE]].double()


def gaussian_mmd(real: Tensor, fake: Tensor, device: torch.device) -> float:
    """Return CMMD: 1,000 times the MMD^2 of features of unit length with a Gaussian kernel.

    This is the biased estimator: means include the pairs of an item with itself.

    Args:
        real: features of real items, ``[N, F]``; they are scaled to unit length.
        fake: features of samples, ``[M, F]``; they are scaled to unit length.
        device: device of the computation.
    """
    within = sum(_mean_kernel(items, items, device) for items in (real, fake))
    return SCALE * (within - 2 * _mean_kernel(real, fake, device))


def _mean_kernel(first: Tensor, second: Tensor, device: torch.device) -> float:
    """Return the mean of the kernel, minus 1, over all pairs of one item from each set.

    The kernel is from 0.98 to 1, and MMD^2 is about 1e-4. Subtracting 1, which cancels in MMD^2,
    avoids a loss of precision.
    """
    total = 0.0
    for _, block in blocks(first, device):
        unit = F.normalize(block)
        for _, others in blocks(second, device):
            squared = squared_distances(unit, F.normalize(others))
            total += float(torch.expm1(squared.mul_(-0.5 / BANDWIDTH**2)).sum())
    return total / (len(first) * len(second))
