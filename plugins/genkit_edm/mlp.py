"""A residual multilayer perceptron for small images and vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from genkit.settings import setting
from genkit.types import DataSpec
from genkit_edm.label_dropout import LabelDropout
from genkit_edm.unet.conditioning import (
    Conditioning,
    OctaveEmbedding,
    build_class_embedding,
)

CONDITION = 64
"""Width of the vector that encodes noise level and class; chosen, not tuned."""


@dataclass(frozen=True, kw_only=True)
class Mlp(LabelDropout):
    """Builds a residual multilayer perceptron, for vectors and small images."""

    width: int = setting(512, doc="width of the hidden layers", at_least=1)
    blocks: int = setting(
        3, doc="number of residual blocks of two layers", at_least=1, at_most=1_000
    )
    dropout: float = setting(
        0.0, doc="probability that an element is dropped in a block", at_least=0, below=1
    )

    def build_network(self, spec: DataSpec) -> nn.Module:
        """Return the network.

        Raises:
            DataError: the network requires labels, but the data has none.
        """
        classes = self.classes_of(spec)
        conditioning = Conditioning(
            OctaveEmbedding(CONDITION),
            CONDITION,
            build_class_embedding(classes, CONDITION, self.label_dropout),
        )
        return ResidualMlp(
            math.prod(spec.shape), conditioning, self.width, self.blocks, self.dropout
        )


class Block(nn.Module):
    """A residual block of two layers, with the conditioning vector added between them.

    Args:
        width: width of input and output.
        condition: width of the conditioning vector.
        dropout: probability that an element is dropped before the second layer.
    """

    def __init__(self, width: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.condition = nn.Linear(condition, width)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the features ``[B, width]``.

        Args:
            x: ``[B, width]`` features.
            condition: ``[B, condition]`` conditioning vectors.
        """
        h = F.silu(self.first(self.norm(x)) + self.condition(condition))
        branch: Tensor = self.second(self.dropout(h))
        return x + branch


class ResidualMlp(nn.Module):
    """A linear layer, residual blocks and another linear layer.

    Args:
        elements: number of values of one item.
        conditioning: embedding of noise level and class as one vector.
        width: width of the hidden layers.
        blocks: number of residual blocks.
        dropout: probability that an element is dropped in a block.
    """

    def __init__(
        self, elements: int, conditioning: Conditioning, width: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.conditioning = conditioning
        self.stem = nn.Linear(elements, width)
        self.blocks = nn.ModuleList(
            Block(width, conditioning.width, dropout) for _ in range(blocks)
        )
        self.out_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, elements)
        nn.init.zeros_(self.out.weight)  # so that the untrained denoiser returns c_skip x
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``F(x; c_noise)``, with the shape of ``x``.

        Args:
            x: ``[B, *shape]`` scaled noisy data.
            c_noise: ``[B]`` noise levels, encoded by the preconditioner.
            labels: ``[B]`` int64 classes, or None; ignored by an unconditional network.
        """
        condition = self.conditioning(c_noise, labels)
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, condition)
        result: Tensor = self.out(F.silu(self.out_norm(h)))
        return result.reshape(x.shape)
