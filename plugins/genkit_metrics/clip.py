"""Features of CLIP, with which CMMD is defined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from genkit_metrics.vision_transformers import EXTRA, Preprocessed, VisionTransformer, load_model

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of each channel of CLIP's training images."""


class UnitEmbedding(nn.Module):
    """Module that returns the image embedding of a CLIP model, scaled to length 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings ``[B, F]``."""
        return F.normalize(self.model(images).image_embeds.float(), dim=1)


@dataclass(frozen=True, kw_only=True)
class Clip(VisionTransformer):
    """The image embedding of CLIP, scaled to length 1.

    The published CMMD uses openai/clip-vit-large-patch14-336. Images are resized to the input size
    of the model (336x336 for the published one) by bicubic interpolation with antialiasing, and
    normalized as in CLIP's training. Requires the extra ``transformers``.
    """

    source = "Radford et al., arXiv 2103.00020; in a metric: Jayasumana et al., arXiv 2401.09603"
    label = "clip"
    frechet = "fd_clip"
    model_types = ("clip", "clip_vision_model")

    def network(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
        transformers = import_module(EXTRA)
        vision = config["vision_config"] if config["model_type"] == "clip" else config
        parts = ("vision_model.", "visual_projection.")  # without the text encoder
        image_weights = {name: tensor for name, tensor in weights.items() if name.startswith(parts)}
        kind, settings = transformers.CLIPVisionModelWithProjection, transformers.CLIPVisionConfig
        model = load_model(kind, settings, vision, image_weights)
        return Preprocessed(UnitEmbedding(model), model.config.image_size, MEAN, STD)
