"""Layers that keep the magnitude of what flows through them (EDM2, arXiv 2312.02696, appendix B).

Unit variance in gives unit variance out, in expectation: no layer lets activations grow, and with
weights of a fixed norm none lets its own learning rate drift.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-4
"""Added to a root mean square that is divided by."""

SILU_RMS = 0.596
"""Root mean square of ``silu(x)`` for unit normal x (eq. 81)."""


def to_unit_rms(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Return ``x`` divided by its root mean square over ``dim``, computed in float32."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    rms = norm * math.sqrt(norm.numel() / x.numel())
    scaled: Tensor = x / (EPSILON + rms).to(x.dtype)
    return scaled


def mp_silu(x: Tensor) -> Tensor:
    """Return ``silu(x)``, scaled so that unit normal values keep their mean square (eq. 81)."""
    return F.silu(x) / SILU_RMS


def mp_sum(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return a sum of two uncorrelated branches of one magnitude, which keeps it (eq. 88).

    Args:
        a: the main branch.
        b: of the same shape.
        share: of ``b``, 0 to 1; ``a`` has the rest.
    """
    return torch.lerp(a, b, share) / math.hypot(1 - share, share)


def mp_cat(a: Tensor, b: Tensor) -> Tensor:
    """Return channels of two branches side by side, both contributing alike (eq. 103).

    Args:
        a: ``[B, C, H, W]``.
        b: ``[B, D, H, W]``; each of its values is scaled by as much more as it has fewer channels.
    """
    half = (a.shape[1] + b.shape[1]) / 2
    scaled = (x * math.sqrt(half / x.shape[1]) for x in (a, b))
    return torch.cat(tuple(scaled), dim=1)


class MPFourier(nn.Module):
    """Cosines of a number at random frequencies and phases: unit variance for any number (eq. 75).

    Args:
        width: number of features.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(width).mul_(2 * math.pi))
        self.register_buffer("phases", torch.rand(width).mul_(2 * math.pi))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, width]`` float32 for ``x`` ``[B]``."""
        angle = x.float()[:, None] * self.frequencies + self.phases
        return math.sqrt(2) * angle.cos()


def unit_weight(layer: nn.Linear | nn.Conv2d, gain: Tensor | float) -> Tensor:
    """Return the weight of a layer with which every output has unit variance (eq. 47 and 66).

    The parameter is normalised twice: where it is used, so that its gradient is orthogonal to it;
    and, in training mode, in place, so that what it gains in length with each step cannot slow down
    how fast it turns.

    Args:
        layer: whose weight is ``[outputs, inputs, *kernel]``.
        gain: scale of the outputs.
    """
    weight = layer.weight
    dim = tuple(range(1, weight.ndim))
    if layer.training:
        with torch.no_grad():
            weight.copy_(to_unit_rms(weight, dim))
    return to_unit_rms(weight, dim) * (gain / math.sqrt(weight[0].numel()))


class MPLinear(nn.Linear):
    """A fully connected layer without bias.

    Args:
        inputs: width of the input.
        outputs: width of the result.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weight from N(0, 1)."""
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Return ``[B, outputs]`` for ``[B, inputs]``."""
        return F.linear(x, unit_weight(self, gain).to(x.dtype))


class MPConv(nn.Conv2d):
    """A convolution without bias that keeps height and width.

    Args:
        channels_in: of the input.
        channels_out: of the result.
        kernel: odd width of the square kernel.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weight from N(0, 1)."""
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Return ``[B, channels_out, H, W]`` for ``[B, channels_in, H, W]``."""
        return F.conv2d(x, unit_weight(self, gain).to(x.dtype), padding=self.padding)


class CosineAttention(nn.Module):
    """Self-attention whose queries, keys and values have unit magnitude, added to its input.

    Args:
        channels: of input and result.
        heads: number of heads, which divides the channels.
        share: of the attention in the sum.
    """

    def __init__(self, channels: int, heads: int, share: float) -> None:
        super().__init__()
        self.heads = heads
        self.share = share
        self.qkv = MPConv(channels, 3 * channels, 1)
        self.proj = MPConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C, H, W]`` for ``[B, C, H, W]``."""
        # Fused attention wants the channels of a pixel side by side.
        pixels = self.qkv(x).flatten(2).transpose(1, 2).contiguous()
        parts = to_unit_rms(pixels.unflatten(2, (3, self.heads, -1)), -1)  # [B, HW, 3, heads, c]
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, HW, C]
        return mp_sum(x, self.proj(mixed.transpose(1, 2).reshape(x.shape)), self.share)
