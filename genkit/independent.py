"""Define the independent coupling of EDM, in which images and noise are drawn independently."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.interfaces import Coupler
from genkit.tensors import require_finite, require_same_length
from genkit.types import Batch, Pairs


@dataclass(frozen=True, kw_only=True)
class Random(Coupler):
    """Assign noise sample k to image k; both are drawn independently."""

    source = "EDM, arXiv 2206.00364, section 5"
    bijective = True
    independent = True

    @property
    def preserves_conditional_prior(self) -> frozenset[str]:
        return frozenset({"labels", "realness", "embeddings"})

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        require_finite(batch.data, "image")
        require_finite(noise, "noise")
        require_same_length(batch, noise)
        index = torch.arange(len(batch))
        return Pairs(index, index)
