"""Features of DINOv2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit_metrics.vision_transformers import EXTRA, Preprocessed, VisionTransformer, load_model

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of each channel of ImageNet."""


class ClassToken(nn.Module):
    """Module that returns the class token of a DINOv2 model after the last layer norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the class tokens ``[B, F]``."""
        token: Tensor = self.model(images).last_hidden_state[:, 0]
        return token


@dataclass(frozen=True, kw_only=True)
class Dinov2(VisionTransformer):
    """The class token of DINOv2; published distances use ViT-L/14, facebook/dinov2-large.

    Images are resized to 224x224 by bicubic interpolation with antialiasing, and normalized like
    ImageNet images. The position embeddings, which were trained at 518x518, are resized as in the
    authors' code. Requires the extra ``transformers``.
    """

    source = "Oquab et al., arXiv 2304.07193; in a metric: Stein et al., arXiv 2306.04675"
    label = "dinov2"
    frechet = "fd_dinov2"
    model_types = ("dinov2",)

    def network(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
        transformers = import_module(EXTRA)
        model = load_model(transformers.Dinov2Model, transformers.Dinov2Config, config, weights)
        table = model.embeddings.position_embeddings
        model.embeddings.position_embeddings = nn.Parameter(
            resize_positions(table.data, SIZE // model.config.patch_size)
        )
        return Preprocessed(ClassToken(model), SIZE, MEAN, STD)


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """Resize position embeddings for a different number of patches.

    The code of DINOv2's authors scales by ``(grid + 0.1) / before``, other implementations by
    ``grid / before``. Published features use ``(grid + 0.1) / before``.

    Args:
        table: position embeddings, ``[1, 1 + before^2, F]``, starting with the class token's.
        grid: new number of patches along each side.

    Returns:
        Position embeddings, ``[1, 1 + grid^2, F]``.
    """
    before = round((table.shape[1] - 1) ** 0.5)
    if before == grid:
        return table
    patches = table[:, 1:].reshape(1, before, before, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(patches, scale_factor=(grid + 0.1) / before, mode="bicubic")
    return torch.cat([table[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
