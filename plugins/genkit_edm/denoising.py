"""EDM's denoising loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from genkit.interfaces import Denoiser, NoiseDistribution, Objective, Preconditioner
from genkit.settings import setting
from genkit.tensors import as_column
from genkit.types import Batch


@dataclass(frozen=True, kw_only=True)
class Denoising(Objective):
    """Computes the weighted squared error of the denoised image, averaged over its elements."""

    source = "EDM, arXiv 2206.00364, eq. 2 and table 1"
    trains = Denoiser
    estimates_mean = True
    renamed = MappingProxyType({"sigma_distribution": 'noise_distribution = { use = "..." }'})

    noise_distribution: NoiseDistribution = setting(
        doc="distribution of noise levels in training", use={"use": "log-normal"}
    )

    def loss(
        self,
        model: nn.Module,
        batch: Batch,
        noise: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        preconditioner = cast(Preconditioner, model.preconditioner)
        sigma = self.noise_distribution.levels(batch)
        x = batch.data + as_column(sigma, noise) * noise
        # Not every network takes augment_labels, so without augmentation it is not passed.
        augment_args = () if batch.augment_labels is None else (batch.augment_labels,)
        error: Tensor = model(x, sigma, batch.labels, *augment_args) - batch.data
        return preconditioner.weight(sigma) * error.float().square().flatten(1).mean(1)

    def noise_levels(self, quantile: Tensor) -> Tensor:
        return self.noise_distribution.quantile(quantile)

    def terms(self, shape: tuple[int, ...]) -> int:
        """Return the number of elements, because EDM and EDM2 sum the error over elements."""
        return math.prod(shape)
