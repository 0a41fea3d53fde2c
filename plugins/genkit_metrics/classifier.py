"""A small convolutional classifier, whose features are used to compare images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Classifier, Stages
from genkit.settings import setting
from genkit.types import DataSpec


class SmallCnn(nn.Module):
    """Convolutional network that returns logits ``[B, classes]`` of images ``[B, C, H, W]``.

    Args:
        image_channels: number of image channels, C.
        channels: number of channels of the first layer; other convolutions have twice as many.
        features: number of activations before the last layer, F.
        classes: number of classes.
    """

    def __init__(self, image_channels: int, channels: int, features: int, classes: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.body = nn.Sequential(
            nn.Conv2d(image_channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, wide, 3, padding=1, stride=2),
            nn.SiLU(),
            nn.Conv2d(wide, wide, 3, padding=1, stride=2),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * wide, features),
            nn.SiLU(),
        )
        self.head = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the activations before the last layer, ``[B, F]``."""
        result: Tensor = self.body(x)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``[B, classes]``."""
        logits: Tensor = self.head(self.features(x))
        return logits


@dataclass(frozen=True, kw_only=True)
class CnnClassifier(Classifier):
    """A small convolutional classifier for images of at least 8x8 pixels."""

    source = "a plain network of genkit; scores record the hash of its weights"

    channels: int = setting(32, doc="number of channels of the first layer", at_least=1)
    features: int = setting(64, doc="number of activations before the last layer", at_least=1)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.class_conditional:
            yield Problem(
                ("class_conditional",),
                "must be false for a classifier, which predicts the class, got true",
                "remove class_conditional",
            )

    def build(self, spec: DataSpec) -> SmallCnn:
        if not spec.is_image:
            raise DataError(
                f"cnn-classifier requires images [channels, height, width], got items of shape "
                f'{spec.shape}; compare vectors with extractor = {{ use = "pixels" }}',
                Code.WRONG_SHAPE,
            )
        if not spec.classes:
            raise DataError(
                "cnn-classifier requires labels, but the data has none; use labeled data, or "
                'extractor = { use = "pixels" }',
                Code.MISSING_ATTRIBUTE,
            )
        return SmallCnn(spec.shape[0], self.channels, self.features, spec.classes)
