"""Declarations of a coupler, and statistics of its pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from genkit.artifacts.coupling import Coupling, CouplingStatistics
from genkit.errors import Code, DataError
from genkit.interfaces import AnyCoupler, Coupler
from genkit.parts.principal import Directions, rows
from genkit.tensors import require_finite, require_one_shape, require_same_length

DIRECTIONS = 64
"""Number of principal directions that are measured. With optimal pairs on CIFAR-10, the first 16
contain 97 % of the image variance that the noise predicts, and 64 contain 99.7 %. Starts at low
noise levels require the later directions."""

FEWEST_PAIRS = 256
"""Minimum number of pairs. With fewer, the standard error of a correlation, N^-1/2, is above 0.06.
On CIFAR-10 with sigma_max = 80, this is an error of over 1 % of the samples' standard deviation."""

MOST_PAIRS = 8192
"""Maximum number of pairs. The standard error of a correlation is then 0.011. On CIFAR-10 with
sigma_max = 80, this is 0.2 % of the samples' standard deviation, a tenth of the tolerance."""

MOST_VALUES = 2**25
"""Max number of image values (134 MB), unless a pool has more. Noise takes as much memory."""


def declarations_of(coupler: AnyCoupler) -> Coupling:
    """Return the declarations of a coupler."""
    return Coupling(
        bijective=isinstance(coupler, Coupler) and coupler.bijective,
        preserves_noise_marginal=coupler.preserves_noise_marginal,
        preserves_conditional_prior=tuple(sorted(coupler.preserves_conditional_prior)),
        independent=coupler.independent,
        preserves_score=coupler.preserves_score,
    )


def pairs_to_measure(shape: Sequence[int], pool_size: int, total: int) -> int:
    """Return the number of pairs to measure, which are the first ones of the training run.

    The error depends on the number of pairs and not on the number of pools, since images and noise
    of a pool are independent draws. A whole pool is always allowed, since training holds one in
    memory as well.

    Args:
        shape: shape of an image.
        pool_size: number of pairs that are coupled together.
        total: number of pairs in the training run.
    """
    within = max(FEWEST_PAIRS, pool_size, MOST_VALUES // math.prod(shape))
    return min(total, MOST_PAIRS, within)


def coupling_statistics(
    images: Tensor, noise: Tensor, pools: int, directions: Directions | None = None
) -> CouplingStatistics:
    """Measure second moments of the pairs along principal directions of the images.

    Sums are accumulated in float64, over blocks of bounded size.

    Args:
        images: ``[N, *shape]`` float images in [-1, 1].
        noise: ``[N, *shape]`` unit-variance noise; noise k is paired with image k.
        pools: number of pools from which the pairs were taken.
        directions: principal directions of the images; None to compute them.

    Raises:
        DataError: there are too few pairs, images and noise differ in number or shape, or a value
            is not finite.
    """
    if len(images) < FEWEST_PAIRS:
        raise DataError(
            f"statistics of a coupling require at least {FEWEST_PAIRS} pairs, got {len(images)} "
            f"in {pools} pools; use {-(-FEWEST_PAIRS * pools // max(1, len(images)))} pools or "
            "more of this size",
            Code.WRONG_LENGTH,
        )
    require_same_length(images, noise)
    require_one_shape(images, noise)
    require_finite(images, "image")
    require_finite(noise, "noise")
    flat, other = (values[:, None].flatten(1) for values in (images, noise))
    directions = directions or Directions.of(flat, DIRECTIONS)
    along = directions.project(flat)
    # ``project`` centers the images, so the mean of the noise cancels.
    covariances = (along * directions.project(other)).sum(0) / (len(flat) - 1)
    squares = products = 0.0
    for part, paired in zip(rows(flat), rows(other), strict=True):
        centered = part.double() - directions.mean
        squares += float(centered.square().sum())
        products += float((centered * paired.double()).sum())
    # |Cov(y, n)| <= s for noise of unit variance; a sample can exceed it by its sampling error.
    bound = directions.deviations
    return CouplingStatistics(
        pairs=len(flat),
        pools=pools,
        deviations=tuple(bound.tolist()),
        covariances=tuple(covariances.clamp(-bound, bound).tolist()),
        variance=squares / (len(flat) - 1),
        covariance=products / (len(flat) - 1) / flat.shape[1],
    )
