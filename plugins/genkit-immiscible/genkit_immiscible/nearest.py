"""The nearest of k noises (Improved Immiscible Diffusion, arXiv 2505.18521)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.plugin import (
    Batch,
    Coupler,
    Pairs,
    require_finite,
    require_one_shape,
    require_same_length,
    setting,
)

BLOCK = 1024
"""Noises whose differences from their images are held at a time; those of one image at least."""


@dataclass(frozen=True, kw_only=True)
class Immiscible(Coupler):
    """The nearest of several noises that are drawn for each image; the others are thrown away.

    Time grows with the pool and not with its cube, and an image looks at no other. In return the
    noise is no longer N(0, I): it is shorter than it should be and leans towards the images, the
    more so the more candidates there are. The sampler still starts from N(0, I), so a recipe has
    to say that the skew is meant.
    """

    source = "Improved Immiscible Diffusion, arXiv 2505.18521, KNN; the idea: arXiv 2406.12303"

    candidates: int = setting(
        4,
        doc="noises drawn for each image (k); its authors take 4 for flow matching on CIFAR-10 and "
        "64 for Stable Diffusion, and 1 would be the coupler random",
        at_least=2,
    )

    @property
    def noises_per_image(self) -> int:
        return self.candidates

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        require_same_length(batch, noise, self.candidates)
        distance = distances(batch.data, noise, self.candidates)
        image = torch.arange(len(batch))
        return Pairs(image, image * self.candidates + distance.argmin(dim=1).cpu())


def distances(data: Tensor, noise: Tensor, candidates: int) -> Tensor:
    """Return the distance of every image to each of its own noises.

    Args:
        data: ``[N, *shape]`` images.
        noise: ``[N * candidates, *shape]``, those of image i from i * candidates on.
        candidates: noises for each image.

    Returns:
        ``[N, candidates]``, float64 for float64 inputs and float32 for all others.

    Raises:
        DataError: the items differ in shape, or an image, a noise, or a distance is not finite.
    """
    require_one_shape(data, noise)
    require_finite(data, "image")
    require_finite(noise, "noise")
    wide = torch.float64 if torch.float64 in (data.dtype, noise.dtype) else torch.float32
    x = data.reshape(len(data), 1, -1)
    y = noise.reshape(len(data), candidates, -1)
    images = max(1, BLOCK // candidates)
    # Summed over differences, not expanded into an inner product: no digits cancel.
    result = torch.cat(
        [
            torch.linalg.vector_norm(a.to(wide) - b.to(wide), dim=2)
            for a, b in zip(torch.split(x, images), torch.split(y, images), strict=True)
        ]
    )
    require_finite(result, "the distance to the noise of image")
    return result
