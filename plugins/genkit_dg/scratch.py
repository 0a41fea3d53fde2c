"""A convolutional discriminator that is trained from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Discriminator, Stages
from genkit.parts.vp_sde import vp_mean
from genkit.settings import setting
from genkit.tensors import as_column
from genkit.types import DataSpec
from genkit_dg.condition import Condition


class ConvEncoder(nn.Module):
    """A convolutional encoder with one output, from the mean of the features over all pixels.

    Call it as ``network(x [B, C, H, W], sigma [B], labels) -> logit [B]``.

    Args:
        image_channels: channels C of the images.
        widths: channels at each resolution; each resolution is half the previous one.
        blocks: number of residual blocks per resolution.
        dropout: probability that an activation is dropped in training.
        classes: number of classes; 0 for an unconditional discriminator.
    """

    def __init__(
        self,
        image_channels: int,
        widths: tuple[int, ...],
        blocks: int,
        dropout: float,
        classes: int,
    ) -> None:
        super().__init__()
        embedding = 4 * widths[0]
        self.condition = Condition(embedding, classes)
        self.enter = nn.Conv2d(image_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            for index in range(blocks):
                halve = level > 0 and index == 0
                self.blocks.append(_Block(before, width, embedding, dropout, halve))
                before = width
        # No normalization at the end: it would remove amplitudes, which differ for real and fake.
        self.head = nn.Linear(before, 1)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return log(d / (1 - d)) of each image."""
        condition = self.condition(sigma, labels)
        hidden = self.enter(as_column(vp_mean(sigma), x) * x)
        for block in self.blocks:
            hidden = block(hidden, condition)
        logit: Tensor = self.head(F.silu(hidden).mean(dim=(2, 3)))
        return logit.squeeze(1)


class _Block(nn.Module):
    def __init__(
        self, before: int, after: int, embedding: int, dropout: float, halve: bool
    ) -> None:
        super().__init__()
        self.halve = halve
        self.first = nn.Sequential(_norm(before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.shift = nn.Linear(embedding, after)
        self.second = nn.Sequential(
            _norm(after), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(after, after, 3, padding=1)
        )
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        if self.halve:
            hidden = F.avg_pool2d(hidden, 2)
        shifted = self.first(hidden) + self.shift(condition)[:, :, None, None]
        result: Tensor = self.skip(hidden) + self.second(shifted)
        return result


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)


@dataclass(frozen=True, kw_only=True)
class ScratchDiscriminator(Discriminator):
    """Builds a small residual convolutional discriminator, for images."""

    source = "Discriminator guidance, arXiv 2211.17091, with another network"

    channels: int = setting(32, doc="channels at full resolution", at_least=1)
    multipliers: tuple[int, ...] = setting(
        (1, 2, 2), doc="channels at each resolution, in units of `channels`", at_least=1
    )
    blocks: int = setting(
        1, doc="number of residual blocks per resolution", at_least=1, at_most=1_000
    )
    dropout: float = setting(
        0.1,
        doc="probability that an activation is dropped in training; raise it for few real images",
        at_least=0.0,
        below=1.0,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if not self.multipliers:
            yield Problem(
                ("multipliers",),
                "must have at least one resolution, got none",
                "write [1, 2, 2]",
                Code.WRONG_LENGTH,
            )

    def build(self, spec: DataSpec) -> ConvEncoder:
        smallest = 2 ** (len(self.multipliers) - 1)
        if not spec.is_image or min(spec.shape[1:]) < smallest:
            raise DataError(
                f"data for scratch with {len(self.multipliers)} resolutions must be images of at "
                f"least {smallest}x{smallest}, got items of shape {spec.shape}; "
                'write fewer multipliers or use "mlp-discriminator"',
                Code.WRONG_SHAPE,
            )
        widths = tuple(self.channels * m for m in self.multipliers)
        return ConvEncoder(spec.shape[0], widths, self.blocks, self.dropout, self.classes_of(spec))
