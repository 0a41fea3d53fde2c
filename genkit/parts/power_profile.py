"""Profiles of power-function averages: exponents, updates and integrals of products.

Source: EDM2, arXiv 2312.02696, section 3 and appendix C.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genkit.errors import Code, DataError

MIN_LENGTH = 1e-6
"""Minimum relative length, far below one update; the square of a much smaller number is 0."""

MAX_LENGTH = 12**-0.5
"""Relative length of the uniform average, gamma = 0."""


def exponent(length: float) -> float:
    """Return the exponent gamma of the power function with a given relative length.

    Args:
        length: standard deviation of the profile divided by the number of images, from
            ``MIN_LENGTH`` to ``MAX_LENGTH``.

    Raises:
        DataError: the length is out of this range.
    """
    if not MIN_LENGTH <= length <= MAX_LENGTH:
        raise DataError(
            f"the relative length of an average must be from {MIN_LENGTH:g} to {MAX_LENGTH:.4f}, "
            f"got {length}; write, for example, 0.1",
            Code.OUT_OF_RANGE,
        )
    # (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = length^2 is a cubic equation for gamma. Only its
    # largest root is not negative.
    inverse = length**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(roots.real.max()))


def decay(gamma: float, images: int, batch_size: int) -> float:
    """Return the weight of the previous average in an update, in [0, 1).

    Args:
        gamma: exponent of the average.
        images: number of images before this batch; for 0 the average equals the weights.
        batch_size: number of images in this batch.
    """
    old: float = (images / (images + batch_size)) ** (gamma + 1)
    return old


def overlap(
    images: ArrayLike, exponents: ArrayLike, other_images: ArrayLike, other_exponents: ArrayLike
) -> NDArray[np.float64]:
    """Return the integral over training of the product of two profiles; arguments are broadcast.

    Args:
        images: numbers of images at which the first averages end.
        exponents: gamma of the first averages.
        other_images: numbers of images at which the second averages end.
        other_exponents: gamma of the second averages.
    """
    t, u, gamma, delta = (
        np.asarray(a, dtype=np.float64) for a in (images, other_images, exponents, other_exponents)
    )
    # Up to the earlier end, both profiles are powers of tau; after it, one of them is 0.
    earlier, later = np.minimum(t, u), np.maximum(t, u)
    of_later = np.where(t < u, delta, gamma)
    scale = (gamma + 1) * (delta + 1) / ((gamma + delta + 1) * later)
    product: NDArray[np.float64] = scale * (earlier / later) ** of_later
    return product
