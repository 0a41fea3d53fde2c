"""The ADM classifier of noisy images, whose features a discriminator can use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Classifier, Stages
from genkit.parts.vp_sde import VpSde, vp_mean
from genkit.settings import setting
from genkit.tensors import as_column
from genkit.types import DataSpec
from genkit_dg.adm_encoder import AdmEncoder


class NoisyClassifier(nn.Module):
    """A classifier of noisy images, at the times of the linear VP schedule.

    Call it as ``classifier(x [B, C, H, W]) -> logits [B, classes]``, with clean images.

    Args:
        encoder: encoder with one output per class.
    """

    def __init__(self, encoder: AdmEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def feature_maps(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return feature maps ``[B, F, h, w]`` of noisy images.

        Args:
            x: ``[B, C, H, W]`` noisy images.
            sigma: ``[B]`` noise levels.
        """
        return self.encoder.features(as_column(vp_mean(sigma), x) * x, VpSde().time(sigma))

    def features(self, x: Tensor) -> Tensor:
        """Return the mean features of clean images, ``[B, F]``."""
        return self.feature_maps(x, x.new_zeros(len(x))).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of clean images."""
        return self.encoder(x, x.new_zeros(len(x)))  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class AdmClassifier(Classifier):
    """Builds the ADM encoder with attention pooling, as in the published ImageNet classifiers.

    Times are those of the linear schedule, as in the published classifiers of all image sizes
    except 64x64.
    """

    source = "Dhariwal and Nichol, arXiv 2105.05233, section 4 and appendix H"

    channels: int = setting(128, doc="channels of the first level, a multiple of 64", at_least=64)
    multipliers: tuple[int, ...] = setting(
        (1, 2, 4), doc="channels of each level, in units of `channels`", at_least=1
    )
    blocks: int = setting(4, doc="number of residual blocks per level", at_least=1, at_most=256)
    attention: tuple[int, ...] = setting(
        (32, 16, 8), doc="heights of the feature maps that have self-attention", at_least=1
    )
    dropout: float = setting(
        0.0, doc="probability that an element is dropped in a block", at_least=0, below=1
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if not self.multipliers:
            yield Problem(
                ("multipliers",),
                "must have at least one level, got none",
                "write [1, 2, 4]",
                Code.WRONG_LENGTH,
            )
        if self.class_conditional:
            yield Problem(
                ("class_conditional",),
                "must be false for a classifier, got true",
                "remove it",
                Code.CONFLICT,
            )

    def build(self, spec: DataSpec) -> NoisyClassifier:
        """Return the classifier.

        Raises:
            DataError: the data does not consist of labeled images, or their size cannot be halved
                for each level.
        """
        if not spec.is_image or not spec.classes:
            raise DataError(
                f"the data of noisy-classifier must be labeled images, got items of shape "
                f"{spec.shape} with {spec.classes} classes; choose other data",
                Code.WRONG_SHAPE,
            )
        channels, height, width = spec.shape
        encoder = AdmEncoder(
            (channels, height, width),
            channels=self.channels,
            multipliers=self.multipliers,
            blocks=self.blocks,
            attention=self.attention,
            outputs=spec.classes,
            dropout=self.dropout,
        )
        return NoisyClassifier(encoder)
