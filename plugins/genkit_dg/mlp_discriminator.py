"""A residual MLP discriminator for vectors and small images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from genkit.interfaces import Discriminator
from genkit.parts.vp_sde import vp_mean
from genkit.settings import setting
from genkit.tensors import as_column
from genkit.types import DataSpec
from genkit_dg.condition import Condition


class ResidualMlp(nn.Module):
    """A residual MLP, called as ``network(x [B, *shape], sigma [B], labels) -> logit [B]``."""

    def __init__(
        self, dimensions: int, width: int, blocks: int, dropout: float, classes: int
    ) -> None:
        super().__init__()
        self.condition = Condition(width, classes)
        self.enter = nn.Linear(dimensions, width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return log(d / (1 - d)) of each item."""
        condition = self.condition(sigma, labels)
        hidden = self.enter((as_column(vp_mean(sigma), x) * x).flatten(1))
        for block in self.blocks:
            hidden = block(hidden, condition)
        logit: Tensor = self.leave(hidden)
        return logit.squeeze(1)


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.shift = nn.Linear(width, width)
        self.second = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width))

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        branch: Tensor = self.second(self.first(self.norm(hidden)) + self.shift(condition))
        return hidden + branch


@dataclass(frozen=True, kw_only=True)
class MlpDiscriminator(Discriminator):
    """Builds a residual MLP discriminator, for vectors and images of a few hundred pixels."""

    source = "Discriminator guidance, arXiv 2211.17091, with another network"

    width: int = setting(256, doc="width of the hidden layers", at_least=1)
    blocks: int = setting(3, doc="number of residual blocks", at_least=1, at_most=256)
    dropout: float = setting(
        0.1,
        doc="probability that a unit is dropped in training; raise it for few real items",
        at_least=0.0,
        below=1.0,
    )

    def build(self, spec: DataSpec) -> ResidualMlp:
        return ResidualMlp(
            math.prod(spec.shape), self.width, self.blocks, self.dropout, self.classes_of(spec)
        )
