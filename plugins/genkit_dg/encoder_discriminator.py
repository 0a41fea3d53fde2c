"""Discriminators that train a head on the features of a frozen network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from genkit.artifacts import ClassifierRef, DenoiserRef
from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Discriminator, Inputs, Preconditioned, Stages, Trained
from genkit.parts.frozen import Frozen
from genkit.parts.vp_sde import VpSde
from genkit.settings import setting
from genkit.tensors import as_column
from genkit.types import DataSpec
from genkit_dg.adm_encoder import AdmEncoder
from genkit_dg.adm_layers import CHANNELS_PER_HEAD

Encode = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class EncoderFeatures(Frozen):
    """Compute features of noisy images with the encoder of a frozen denoiser."""

    module: Preconditioned

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """Return the features, ``[B, C, h, w]``."""
        c = self.module.preconditioner.coefficients(sigma)
        encode = cast(Encode, self.module.network.encode)
        return encode(as_column(c.c_in, x) * x, c.c_noise, labels)


class ClassifierMaps(Frozen):
    """Compute features of noisy images with a frozen classifier."""

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """Return the features, ``[B, C, h, w]``."""
        features: Tensor = self.module.feature_maps(x, sigma)  # type: ignore[operator]
        return features


class EncoderDiscriminator(nn.Module):
    """A discriminator that consists of a frozen network for features and a trained head.

    Call it as ``network(x [B, C, H, W], sigma [B], labels) -> logit [B]``. Features are recomputed
    in every call, because the noise of an image is different each time.

    Args:
        features: frozen network, called as ``features(x, sigma, labels) -> [B, C, h, w]``.
        head: trained network that maps features to one output.
    """

    def __init__(self, features: EncoderFeatures | ClassifierMaps, head: AdmEncoder) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return log(d / (1 - d)) of each image."""
        features = self.features(x, sigma, labels)
        logit: Tensor = self.head(features, VpSde().time(sigma), labels)
        return logit.squeeze(1)


@dataclass(frozen=True, kw_only=True)
class OnFeatures(Discriminator):
    """Base of discriminators that train an ADM encoder on the features of a frozen network."""

    channels: int = setting(128, doc="channels of the head, a multiple of 64", at_least=64)
    blocks: int = setting(2, doc="number of residual blocks of the head", at_least=1, at_most=256)
    dropout: float = setting(
        0.0, doc="probability that an element is dropped in the head", at_least=0, below=1
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.channels % CHANNELS_PER_HEAD:
            yield Problem(
                ("channels",),
                f"must be a multiple of {CHANNELS_PER_HEAD}, got {self.channels}",
                f"write {CHANNELS_PER_HEAD * round(self.channels / CHANNELS_PER_HEAD)}",
                Code.OUT_OF_RANGE,
            )

    @abstractmethod
    def frozen(self, inputs: Inputs) -> tuple[Trained, EncoderFeatures | ClassifierMaps]:
        """Return the network of an earlier stage, and the module that computes its features.

        Raises:
            DataError: the network has no features that the discriminator can use.
        """

    def bind(self, inputs: Inputs) -> BoundOnFeatures:
        return BoundOnFeatures(self, *self.frozen(inputs))


@dataclass(frozen=True)
class BoundOnFeatures:
    """A discriminator, bound to the frozen network that its head uses.

    Attributes:
        settings: settings of the discriminator.
        trained: network of an earlier stage.
        features: module that computes the features of this network.
    """

    settings: OnFeatures
    trained: Trained
    features: EncoderFeatures | ClassifierMaps

    def build(self, spec: DataSpec) -> EncoderDiscriminator:
        """Return the discriminator, see :meth:`Network.build`.

        Raises:
            DataError: the frozen network was trained on items of a different shape or number of
                classes.
        """
        settings, shape = self.settings, self.trained.spec.shape
        if spec.shape != shape or not spec.is_image:
            raise DataError(
                f"the data must have the shape {shape} of the frozen network's training images, "
                f"got {spec.shape}; choose other data or another network",
                Code.WRONG_SHAPE,
            )
        classes = settings.classes_of(spec)
        if self.trained.classes not in (0, classes):
            raise DataError(
                f"class_conditional must be true, with the {self.trained.classes} classes of the "
                f"frozen denoiser, got {classes or 'no'} classes; write class_conditional = true",
                Code.CONFLICT,
            )
        with torch.no_grad():
            weight = next(self.trained.module.parameters())
            x = torch.zeros(1, *shape, device=weight.device)
            labels = x.new_zeros(1, dtype=torch.int64) if self.trained.classes else None
            _, channels, height, width = self.features(x, x.new_ones(1), labels).shape
        head = AdmEncoder(
            (channels, height, width),
            channels=settings.channels,
            multipliers=(1,),
            blocks=settings.blocks,
            attention=(height,),
            outputs=1,
            classes=classes,
            dropout=settings.dropout,
        )
        return EncoderDiscriminator(self.features, head)


@dataclass(frozen=True, kw_only=True)
class DenoiserEncoder(OnFeatures):
    """Trains a head on the frozen encoder of the guided denoiser, without a download."""

    source = "Discriminator guidance, arXiv 2211.17091; denoiser features as in arXiv 2405.14867"

    denoiser: DenoiserRef = setting(doc="stage that trained the denoiser whose encoder is used")

    def frozen(self, inputs: Inputs) -> tuple[Trained, EncoderFeatures]:
        trained = inputs.network(self.denoiser)
        module = trained.module
        if not isinstance(module, Preconditioned) or not hasattr(module.network, "encode"):
            raise DataError(
                f"denoiser must be a network with an encoder, got {type(trained.settings).__name__}"
                '; choose a U-Net, or write network = { use = "scratch" }',
                Code.CONFLICT,
            )
        return trained, EncoderFeatures(module)


@dataclass(frozen=True, kw_only=True)
class AdmClassifierDiscriminator(OnFeatures):
    """Trains a head on a frozen classifier of noisy images, as in the paper.

    Convert the published file with ``genkit import --as adm-classifier``, and read it with the
    stage `load`.
    """

    source = "Discriminator guidance, arXiv 2211.17091, section 3 and appendix"

    classifier: ClassifierRef = setting(doc="stage that loads or trains the classifier")

    def frozen(self, inputs: Inputs) -> tuple[Trained, ClassifierMaps]:
        trained = inputs.network(self.classifier)
        if not hasattr(trained.module, "feature_maps"):
            raise DataError(
                "classifier must be a classifier of noisy images with feature maps, got "
                f"{type(trained.settings).__name__}; load a file imported --as adm-classifier",
                Code.CONFLICT,
            )
        return trained, ClassifierMaps(trained.module)
