"""What a raw network is conditioned on, the noise level and the class, as one vector."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit.errors import DataError
from genkit.types import DataSpec
from genkit_edm.initialization import xavier


class PositionalEmbedding(nn.Module):
    """Sines, then cosines, of ``c_noise`` at frequencies from 1 down to 1 / 10000.

    Source: DDPM, arXiv 2006.11239, after the Transformer, arXiv 1706.03762, section 3.5.

    Args:
        width: of the embedding; an odd one is rounded down.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = 2 * (width // 2)
        exponents = torch.linspace(0, 1, width // 2, dtype=torch.float64)
        self.register_buffer("frequencies", (10_000**-exponents).float(), persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return ``[B, width]`` for ``c_noise`` ``[B]``."""
        phase = c_noise.float()[:, None] * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class FourierEmbedding(nn.Module):
    """Sines, then cosines, of ``c_noise`` at 1/8 to 8 periods a unit, spaced geometrically.

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
        periods = torch.logspace(-3, 3, width // 2, base=2, dtype=torch.float64)
        self.register_buffer("frequencies", (2 * math.pi * periods).float(), persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return ``[B, width]`` for ``c_noise`` ``[B]``."""
        phase = c_noise.float()[:, None] * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class ClassEmbedding(nn.Module):
    """A linear map of the one-hot class, scaled so that its elements have unit mean square.

    Args:
        classes: number of classes.
        width: of the embedding.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.linear = xavier(nn.Linear(classes, width))

    def forward(self, labels: Tensor | None) -> Tensor:
        """Return ``[B, width]`` for labels ``[B]``.

        Raises:
            DataError: there are no labels.
        """
        if labels is None:
            raise DataError(
                f"a class-conditional network needs labels; give each item a class "
                f"from 0 to {self.classes - 1}"
            )
        weight = self.linear.weight
        one_hot = F.one_hot(labels, self.classes).to(weight.dtype)
        result: Tensor = self.linear(one_hot * math.sqrt(self.classes))
        return result


class Conditioning(nn.Module):
    """Two layers over the embedded noise level plus, where given, the embedded class.

    Source: EDM, arXiv 2206.00364, appendix F.2 (the mapping network of DDPM++).

    Args:
        noise: embeds ``c_noise`` ``[B]`` as ``[B, noise.width]``.
        classes: number of classes; 0 ignores labels.
        width: of the result.
    """

    def __init__(
        self, noise: PositionalEmbedding | FourierEmbedding, classes: int, width: int
    ) -> None:
        super().__init__()
        self.noise = noise
        self.label = ClassEmbedding(classes, noise.width) if classes else None
        self.first = xavier(nn.Linear(noise.width, width))
        self.second = xavier(nn.Linear(width, width))
        self.width = width

    def forward(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Return ``[B, width]``."""
        embedded = self.noise(c_noise)
        if self.label is not None:
            embedded = embedded + self.label(labels)
        return F.silu(self.second(F.silu(self.first(embedded))))


def classes_of(spec: DataSpec, class_conditional: bool) -> int:
    """Return how many classes a network is told apart; 0 for an unconditional one.

    Raises:
        DataError: a class-conditional network for data without labels.
    """
    if class_conditional and not spec.classes:
        raise DataError(
            "class_conditional = true, but the data has no labels; "
            "write class_conditional = false or choose a data set with labels"
        )
    return spec.classes if class_conditional else 0
