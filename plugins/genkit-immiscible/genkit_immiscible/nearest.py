"""The nearest of k noise samples (Improved Immiscible Diffusion, arXiv 2505.18521)."""

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
"""Maximum number of noise samples whose differences from images are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class Immiscible(Coupler):
    """Draws several noise samples for each image, keeps the nearest and discards the others.

    Images are independent of each other, and time grows linearly with the pool size. The kept noise
    is not N(0, I): it has a smaller norm and is biased towards the images. Both effects increase
    with the number of candidates. Because sampling starts from N(0, I), a recipe must set
    ``accept_skewed_noise``.
    """

    source = "Improved Immiscible Diffusion (KNN), arXiv 2505.18521, which follows arXiv 2406.12303"

    candidates: int = setting(
        4,
        doc="number of noise samples per image (k); the paper uses 4 for flow matching on CIFAR-10 "
        "and 64 for Stable Diffusion",
        at_least=2,
        at_most=10_000,
    )

    @property
    def noises_per_image(self) -> int:
        return self.candidates

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        require_same_length(batch, noise, self.candidates)
        distance = compute_distances(batch.data, noise, self.candidates)
        image = torch.arange(len(batch))
        return Pairs(image, image * self.candidates + distance.argmin(dim=1).cpu())


def compute_distances(data: Tensor, noise: Tensor, candidates: int) -> Tensor:
    """Return the distance of every image to each of its noise samples.

    Args:
        data: ``[N, *shape]`` images.
        noise: ``[N * candidates, *shape]`` noise samples; those of an image are consecutive.
        candidates: number of noise samples per image.

    Returns:
        ``[N, candidates]`` Euclidean distances, float64 for float64 inputs, else float32.

    Raises:
        DataError: the items differ in shape, or an image, a noise sample or a distance is not
            finite.
    """
    require_one_shape(data, noise)
    require_finite(data, "image")
    require_finite(noise, "noise")
    wide = torch.float64 if torch.float64 in (data.dtype, noise.dtype) else torch.float32
    x = data.reshape(len(data), 1, -1)
    y = noise.reshape(len(data), candidates, -1)
    images = max(1, BLOCK // candidates)
    # From differences; with inner products, digits would be lost by cancellation.
    result = torch.cat(
        [
            torch.linalg.vector_norm(a.to(wide) - b.to(wide), dim=2)
            for a, b in zip(torch.split(x, images), torch.split(y, images), strict=True)
        ]
    )
    require_finite(result, "the distance to the noise of image")
    return result
