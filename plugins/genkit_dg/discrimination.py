"""The objective that trains a discriminator to distinguish noisy real from generated items."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genkit.errors import Code, DataError
from genkit.interfaces import Discriminator, NoiseDistribution, Objective
from genkit.settings import setting
from genkit.tensors import as_column
from genkit.types import Batch


@dataclass(frozen=True, kw_only=True)
class Discrimination(Objective):
    """Computes the binary cross-entropy of noisy real and generated items.

    The loss of an item is a single term, as published, so Adam's epsilon is not scaled. The default
    noise distribution is the published one: uniform in log sigma, from 0.001 to 152.
    """

    source = "Discriminator guidance, arXiv 2211.17091, section 3"
    trains = Discriminator
    conditions = requires = frozenset({"realness"})
    renamed = MappingProxyType({"sigma_distribution": 'noise_distribution = { use = "..." }'})

    noise_distribution: NoiseDistribution = setting(
        doc="distribution of noise levels in training", use={"use": "dg-importance"}
    )

    def loss(
        self,
        model: nn.Module,
        batch: Batch,
        noise: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        if batch.realness is None:
            raise DataError(
                "data must state which items are real and which are generated, got no realness; "
                'write data = { use = "real-and-fake", fakes = "<id of a sample stage>" }',
                Code.MISSING_ATTRIBUTE,
            )
        sigma = self.noise_distribution.levels(batch)
        logit = model(batch.data + as_column(sigma, noise) * noise, sigma, batch.labels).float()
        return F.binary_cross_entropy_with_logits(logit, batch.realness.float(), reduction="none")

    def noise_levels(self, quantile: Tensor) -> Tensor:
        return self.noise_distribution.quantile(quantile)
