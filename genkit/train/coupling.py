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
"""Directions that are measured. With exact pairs on CIFAR-10, 16 hold 97 % of what the noise
predicts of the images and 64 hold 99.7 %; starts at low noise levels reach the later ones."""

FEWEST_PAIRS = 256
"""With fewer, the standard error of a correlation, N^-1/2, is above 0.06: more than 1 % of the
spread of samples that start at 80 times the unit of CIFAR-10's images."""

MOST_PAIRS = 8192
"""With so many the standard error of a correlation is 0.011. On CIFAR-10 that is 0.2 % of the
spread of samples that start at 80, a tenth of the tolerance of a safe start."""

MOST_VALUES = 2**25
"""Values of the images that are held where one pool has fewer, 134 MB; as many of the noise."""


def declared(coupler: AnyCoupler) -> Coupling:
    """Return the declarations of a coupler."""
    return Coupling(
        bijective=isinstance(coupler, Coupler) and coupler.bijective,
        preserves_noise_marginal=coupler.preserves_noise_marginal,
        preserves_conditional_prior=tuple(sorted(coupler.preserves_conditional_prior)),
        independent=coupler.independent,
        preserves_score=coupler.preserves_score,
    )


def pairs_to_measure(shape: Sequence[int], pool_size: int, total: int) -> int:
    """Return how many of the first pairs of a training are measured.

    The number of pairs determines the error, and not that of pools: images and noise of a pool are
    drawn independently of each other. A whole pool is held in memory by the training as well.

    Args:
        shape: shape of an image.
        pool_size: pairs that are coupled together.
        total: pairs of the training.
    """
    within = max(FEWEST_PAIRS, pool_size, MOST_VALUES // math.prod(shape))
    return min(total, MOST_PAIRS, within)


def coupling_statistics(
    images: Tensor, noise: Tensor, pools: int, directions: Directions | None = None
) -> CouplingStatistics:
    """Measure second moments of pairs along principal directions of their images.

    Sums are in float64, over blocks of bounded size.

    Args:
        images: ``[N, *shape]`` float images in [-1, 1].
        noise: ``[N, *shape]`` unit-variance noise; noise k is paired with image k.
        pools: number of pools that the pairs were taken from.
        directions: principal directions of the images; computed where it is None.

    Raises:
        DataError: there are too few pairs, the two differ in number or shape, or an image or a
            noise is not finite.
    """
    if len(images) < FEWEST_PAIRS:
        raise DataError(
            f"statistics of a coupling require at least {FEWEST_PAIRS} pairs, got {len(images)} "
            f"in {pools} pools; take {-(-FEWEST_PAIRS * pools // max(1, len(images)))} pools or "
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
    # Images less their mean: that of the noise takes no part.
    covariances = (along * directions.project(other)).sum(0) / (len(flat) - 1)
    squares = products = 0.0
    for part, paired in zip(rows(flat), rows(other), strict=True):
        centered = part.double() - directions.mean
        squares += float(centered.square().sum())
        products += float((centered * paired.double()).sum())
    # No noise of unit variance covaries more; that of a sample may by its sampling error.
    bound = directions.deviations
    return CouplingStatistics(
        pairs=len(flat),
        pools=pools,
        deviations=tuple(bound.tolist()),
        covariances=tuple(covariances.clamp(-bound, bound).tolist()),
        variance=squares / (len(flat) - 1),
        covariance=products / (len(flat) - 1) / flat.shape[1],
    )
