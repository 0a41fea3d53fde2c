"""What a raw network is conditioned on, the noise level and more, as one vector."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit.errors import Code, DataError
from genkit.tensors import constant
from genkit_edm.unet.family import XAVIER, Initialization, xavier


def waves(phase: Tensor) -> Tensor:
    """Return sines, then cosines, ``[B, 2 n]``, of phases ``[B, n]``."""
    return torch.cat([phase.sin(), phase.cos()], dim=1)


class PositionalEmbedding(nn.Module):
    """Waves of ``c_noise`` at frequencies from 1 down to 1 / 10000.

    Source: DDPM, arXiv 2006.11239, after the Transformer, arXiv 1706.03762, section 3.5.

    Args:
        width: of the embedding; an odd one is rounded down.
        endpoint: 1 / 10000 is the last frequency; else the one that would follow it.
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
        """Return ``[B, width]`` for ``c_noise`` ``[B]``."""
        return waves(c_noise.float()[:, None] * self.frequencies)


class FourierEmbedding(nn.Module):
    """Waves of ``c_noise`` at random frequencies, which are part of the weights but not trained.

    Source: Song et al., arXiv 2011.13456, appendix H, after arXiv 2006.10739.

    Args:
        width: of the embedding; an odd one is rounded down.
        scale: standard deviation of the frequencies, in periods a unit.
    """

    freqs: Tensor

    def __init__(self, width: int, scale: float = 16.0) -> None:
        super().__init__()
        self.width = 2 * (width // 2)
        self.register_buffer("freqs", torch.randn(width // 2).mul_(scale))

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return ``[B, width]`` for ``c_noise`` ``[B]``."""
        return waves(c_noise.float()[:, None] * (2 * math.pi * self.freqs))


class OctaveEmbedding(nn.Module):
    """Waves of ``c_noise`` at 1/8 to 8 periods a unit, spaced geometrically.

    EDM's ``c_noise = log(sigma) / 4`` spans about 3 units, in which the positional embedding is
    little more than a straight line; these frequencies resolve it.

    Source: Fourier features, arXiv 2006.10739, section 5.

    Args:
        width: of the embedding; an odd one is rounded down.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = 2 * (width // 2)
        periods = torch.logspace(-3, 3, width // 2, base=2, dtype=torch.float64, device="cpu")
        frequencies = constant((2 * math.pi * periods).float())
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return ``[B, width]`` for ``c_noise`` ``[B]``."""
        return waves(c_noise.float()[:, None] * self.frequencies)


NoiseEmbedding = PositionalEmbedding | FourierEmbedding | OctaveEmbedding


class ClassEmbedding(nn.Module):
    """A linear map of the class.

    Args:
        linear: from the weights of the classes to the embedding.
        scale: factor of the weights.
        dropout: probability that an item's class is hidden in training, which makes the network
            one that can also be asked without a class.
    """

    def __init__(self, linear: nn.Linear, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.dropout = dropout

    def forward(self, labels: Tensor | None, items: int) -> Tensor:
        """Return the embedding, ``[B, width]``.

        Args:
            labels: ``[B]`` int64 classes, or ``[B, classes]`` float weights of them, or None for
                no class.
            items: B.

        Raises:
            DataError: there are no labels and the network never saw items without; or weights of
                another number of classes.
        """
        weights = self._weights(labels, items)
        if self.training and self.dropout:
            seen = torch.rand(items, 1, device=weights.device) >= self.dropout
            weights = weights * seen
        result: Tensor = self.linear(weights * self.scale)
        return result

    def _weights(self, labels: Tensor | None, items: int) -> Tensor:
        classes, like = self.linear.in_features, self.linear.weight
        if labels is None:
            if not self.dropout:
                raise DataError(
                    f"a class-conditional network needs labels; give each item a class "
                    f"from 0 to {classes - 1}",
                    Code.MISSING_ATTRIBUTE,
                )
            return like.new_zeros(items, classes)
        if not labels.is_floating_point():
            return F.one_hot(labels, classes).to(like.dtype)
        if labels.shape != (items, classes):
            raise DataError(
                f"class weights of shape {list(labels.shape)} where {[items, classes]} is needed; "
                f"give each item a class as an integer, or a weight for each class",
                Code.WRONG_SHAPE,
            )
        return labels.to(like.dtype)


class Conditioning(nn.Module):
    """Two layers over the embedded noise level and what else is known of an item.

    They compute in float32 under autocast too: they cost next to nothing, and the 8 bits of
    bfloat16 would blur the noise level.

    Source: EDM, arXiv 2206.00364, appendix F.2 (the mapping networks).

    Args:
        noise: embeds ``c_noise`` ``[B]`` as ``[B, noise.width]``.
        width: of the result.
        label: embeds the class; None ignores labels.
        late_label: add the class after the second layer; else to the embedded noise level.
        augment: maps augmentation labels ``[B, A]``; None for a network that is never given any.
        initialization: of the two layers.
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
        """Return ``[B, width]`` float32.

        Args:
            c_noise: ``[B]`` noise levels, as the preconditioner passes them.
            labels: ``[B]`` int64 classes, ``[B, classes]`` float weights, or None.
            augment_labels: ``[B, A]`` how the items were augmented; None for items as they are.

        Raises:
            DataError: labels do not fit the network, or it takes no augmentation labels.
        """
        with torch.autocast(c_noise.device.type, enabled=False):
            return self._wide(c_noise, labels, augment_labels)

    def _wide(
        self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None
    ) -> Tensor:
        known = self.noise(c_noise)
        label = None if self.label is None else self.label(labels, len(c_noise))
        if label is not None and not self.late_label:
            known = known + label
        if augment_labels is not None:
            if self.augment is None:
                raise DataError(
                    "this network was built for data that is not augmented, and cannot be told "
                    "how it was; leave augment_labels out",
                    Code.CONFLICT,
                )
            known = known + self.augment(augment_labels)
        hidden = self.second(F.silu(self.first(known)))
        if label is not None and self.late_label:
            hidden = hidden + label
        return F.silu(hidden)


def scaled_class_embedding(classes: int, width: int, dropout: float = 0.0) -> ClassEmbedding | None:
    """Return the class embedding of DDPM++; None for no classes.

    The weights are scaled so that their elements have unit mean square.
    """
    if not classes:
        return None
    return ClassEmbedding(xavier(nn.Linear(classes, width)), math.sqrt(classes), dropout)
