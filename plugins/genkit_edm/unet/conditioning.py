"""Embedding of a raw network's conditions: noise level, class and augmentation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit.errors import Code, DataError
from genkit.tensors import constant
from genkit_edm.unet.family import XAVIER, Initialization, init_xavier


def embed_phases(phase: Tensor) -> Tensor:
    """Return sines, then cosines, ``[B, 2 n]``, of phases ``[B, n]``."""
    return torch.cat([phase.sin(), phase.cos()], dim=1)


class PositionalEmbedding(nn.Module):
    """Embeds ``c_noise`` as sines and cosines at frequencies from 1 down to 1 / 10000.

    Source: DDPM, arXiv 2006.11239, which follows the Transformer, arXiv 1706.03762, section 3.5.

    Args:
        width: width of the embedding; odd values are rounded down.
        endpoint: whether 1 / 10000 is the last frequency; otherwise the frequencies end one step
            before it.
    """

    frequencies: Tensor

    def __init__(self, width: int, *, endpoint: bool) -> None:
        super().__init__()
        count = width // 2
        self.width = 2 * count
        places = torch.arange(count, dtype=torch.float32, device="cpu")
        exponents = places / max(count - endpoint, 1)
        self.register_buffer("frequencies", constant((1 / 10_000) ** exponents), persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return the embedding ``[B, width]`` of ``c_noise`` ``[B]``."""
        return embed_phases(c_noise.float()[:, None] * self.frequencies)


class FourierEmbedding(nn.Module):
    """Embeds ``c_noise`` as sines and cosines at random frequencies, saved but not trained.

    Source: Song et al., arXiv 2011.13456, appendix H, which follows arXiv 2006.10739.

    Args:
        width: width of the embedding; odd values are rounded down.
        scale: standard deviation of the frequencies, in periods per unit.
    """

    freqs: Tensor

    def __init__(self, width: int, scale: float = 16.0) -> None:
        super().__init__()
        self.width = 2 * (width // 2)
        self.register_buffer("freqs", torch.randn(width // 2).mul_(scale))

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return the embedding ``[B, width]`` of ``c_noise`` ``[B]``."""
        return embed_phases(c_noise.float()[:, None] * (2 * math.pi * self.freqs))


class OctaveEmbedding(nn.Module):
    """Embeds ``c_noise`` as sines and cosines of 1/8 to 8 periods per unit, spaced geometrically.

    EDM's ``c_noise = log(sigma) / 4`` spans about 3 units, over which the positional embedding is
    nearly linear. These frequencies distinguish the noise levels; their range is chosen, not tuned.

    Source: Fourier features, arXiv 2006.10739, section 5.

    Args:
        width: width of the embedding; odd values are rounded down.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = 2 * (width // 2)
        periods = torch.logspace(-3, 3, width // 2, base=2, dtype=torch.float64, device="cpu")
        frequencies = constant((2 * math.pi * periods).float())
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return the embedding ``[B, width]`` of ``c_noise`` ``[B]``."""
        return embed_phases(c_noise.float()[:, None] * self.frequencies)


NoiseEmbedding = PositionalEmbedding | FourierEmbedding | OctaveEmbedding


class ClassEmbedding(nn.Module):
    """Embeds the class by a linear map.

    Args:
        linear: linear map from class weights to the embedding.
        scale: factor of the class weights.
        dropout: probability that an item's label is dropped in training; if it is above 0, the
            network can also be called without labels.
    """

    def __init__(self, linear: nn.Linear, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.dropout = dropout

    def forward(self, labels: Tensor | None, items: int) -> Tensor:
        """Return the embedding, ``[B, width]``.

        Args:
            labels: ``[B]`` int64 classes, or ``[B, classes]`` float class weights; None for an
                unconditional call.
            items: batch size B.

        Raises:
            DataError: labels are None, but the network was trained without label dropout; or the
                class weights have a different number of classes.
        """
        weights = self._weights(labels, items)
        if self.training and self.dropout:
            mask = torch.rand(items, 1, device=weights.device) >= self.dropout
            weights = weights * mask
        result: Tensor = self.linear(weights * self.scale)
        return result

    def _weights(self, labels: Tensor | None, items: int) -> Tensor:
        classes, like = self.linear.in_features, self.linear.weight
        if labels is None:
            if not self.dropout:
                raise DataError(
                    f"labels are required by this class-conditional network, got None; pass a "
                    f"class from 0 to {classes - 1} for each item",
                    Code.MISSING_ATTRIBUTE,
                )
            return like.new_zeros(items, classes)
        if not labels.is_floating_point():
            return F.one_hot(labels, classes).to(like.dtype)
        if labels.shape != (items, classes):
            raise DataError(
                f"labels must be class weights of shape {[items, classes]}, got "
                f"{list(labels.shape)}; pass an integer class or a weight per class for each item",
                Code.WRONG_SHAPE,
            )
        return labels.to(like.dtype)


class Conditioning(nn.Module):
    """Embeds noise level, class and augmentation as one vector, with a network of two layers.

    It computes in float32 even under autocast, at a negligible cost, because the 8 significant bits
    of bfloat16 are too few to distinguish neighboring noise levels.

    Source: EDM, arXiv 2206.00364, appendix F.2 (the mapping networks).

    Args:
        noise: embedding of ``c_noise`` ``[B]`` as ``[B, noise.width]``.
        width: width of the vector.
        label: embedding of the class; if None, labels are ignored.
        late_label: whether the class is added after the second layer, instead of to the embedded
            noise level.
        augment: linear map of augmentation labels ``[B, A]``; None if the network takes none.
        initialization: initialization of the two layers.
    """

    def __init__(
        self,
        noise: NoiseEmbedding,
        width: int,
        label: ClassEmbedding | None = None,
        *,
        late_label: bool = False,
        augment: nn.Linear | None = None,
        initialization: Initialization = XAVIER,
    ) -> None:
        super().__init__()
        self.noise = noise
        self.label = label
        self.late_label = late_label
        self.augment = augment
        self.first = initialization.usual(nn.Linear(noise.width, width))
        self.second = initialization.usual(nn.Linear(width, width))
        self.width = width

    def forward(
        self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Return the conditioning vectors, ``[B, width]`` float32.

        Args:
            c_noise: ``[B]`` noise levels as encoded by the preconditioner.
            labels: ``[B]`` int64 classes, ``[B, classes]`` float weights, or None.
            augment_labels: ``[B, A]`` augmentation of the items; None if they are not augmented.

        Raises:
            DataError: the labels do not fit the network; or augmentation labels are passed, but the
                network takes none.
        """
        with torch.autocast(c_noise.device.type, enabled=False):
            return self._embed(c_noise, labels, augment_labels)

    def _embed(
        self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None
    ) -> Tensor:
        inputs = self.noise(c_noise)
        label = None if self.label is None else self.label(labels, len(c_noise))
        if label is not None and not self.late_label:
            inputs = inputs + label
        if augment_labels is not None:
            if self.augment is None:
                raise DataError(
                    "augment_labels must be None for a network that was built for data without "
                    "augmentation; do not pass them",
                    Code.CONFLICT,
                )
            inputs = inputs + self.augment(augment_labels)
        hidden = self.second(F.silu(self.first(inputs)))
        if label is not None and self.late_label:
            hidden = hidden + label
        return F.silu(hidden)


def build_class_embedding(classes: int, width: int, dropout: float = 0.0) -> ClassEmbedding | None:
    """Return the class embedding of DDPM++; None if there are no classes.

    The class weights are scaled to unit mean square.
    """
    if not classes:
        return None
    return ClassEmbedding(init_xavier(nn.Linear(classes, width)), math.sqrt(classes), dropout)
