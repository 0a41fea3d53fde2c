"""Magnitude-preserving layers (EDM2, arXiv 2312.02696, appendix B).

Inputs of unit variance lead to outputs of unit variance, in expectation: activations do not grow.
Weights have a fixed norm, so the effective learning rate does not drift.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-4
"""Number added to root mean squares in denominators, as in EDM2."""

SILU_RMS = 0.596
"""Root mean square of ``silu(x)`` for unit normal x (eq. 81)."""


def to_unit_rms(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Return ``x`` divided by its root mean square over ``dim``, computed in float32."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    rms = norm * math.sqrt(norm.numel() / x.numel())
    scaled: Tensor = x / (EPSILON + rms).to(x.dtype)
    return scaled


def mp_silu(x: Tensor) -> Tensor:
    """Return ``silu(x)``, scaled to unit mean square for unit normal x (eq. 81)."""
    return F.silu(x) / SILU_RMS


def mp_sum(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return the magnitude-preserving sum of two uncorrelated branches (eq. 88).

    Args:
        a: main branch.
        b: other branch, of the same shape and magnitude.
        share: weight of ``b``, 0 to 1; ``a`` has weight ``1 - share``.
    """
    return torch.lerp(a, b, share) / math.hypot(1 - share, share)


def mp_cat(a: Tensor, b: Tensor) -> Tensor:
    """Concatenate the channels of two branches with equal total contribution (eq. 103).

    Args:
        a: ``[B, C, H, W]`` first branch.
        b: ``[B, D, H, W]`` second branch. The branch with fewer channels is scaled up.
    """
    half = (a.shape[1] + b.shape[1]) / 2
    scaled = (x * math.sqrt(half / x.shape[1]) for x in (a, b))
    return torch.cat(tuple(scaled), dim=1)


class MPFourier(nn.Module):
    """Embeds a number as cosines of random frequency and phase, of unit variance (eq. 75).

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
        """Return the features ``[B, width]``, float32, of ``x`` ``[B]``."""
        angle = x.float()[:, None] * self.frequencies + self.phases
        return math.sqrt(2) * angle.cos()


def normalize_weight(layer: nn.Linear | nn.Conv2d, gain: Tensor | float) -> Tensor:
    """Return the weight of a layer, scaled so that outputs have unit variance (eq. 47 and 66).

    The parameter is normalized twice. Normalization at each use makes the gradient orthogonal to
    the parameter. Each step then increases the norm of the parameter, so that later steps would
    change its direction less. So in training mode the parameter is also normalized in place.

    Args:
        layer: layer with a weight ``[outputs, inputs, *kernel]``.
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
        outputs: width of the output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weight from N(0, 1)."""
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Return outputs ``[B, outputs]`` for inputs ``[B, inputs]``."""
        return F.linear(x, normalize_weight(self, gain).to(x.dtype))


class MPConv(nn.Conv2d):
    """A convolution without bias that keeps height and width.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        kernel: odd width of the square kernel.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weight from N(0, 1)."""
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Return features ``[B, channels_out, H, W]`` for features ``[B, channels_in, H, W]``."""
        return F.conv2d(x, normalize_weight(self, gain).to(x.dtype), padding=self.padding)


class CosineAttention(nn.Module):
    """Self-attention with queries, keys and values of unit magnitude, and a residual connection.

    Args:
        channels: channels of input and output.
        heads: number of heads, a divisor of ``channels``.
        share: weight of the attention in the sum with the input, 0 to 1.
    """

    def __init__(self, channels: int, heads: int, share: float) -> None:
        super().__init__()
        self.heads = heads
        self.share = share
        self.qkv = MPConv(channels, 3 * channels, 1)
        self.proj = MPConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of ``x``, ``[B, C, H, W]``."""
        # Fused attention requires the channels of a pixel to be contiguous in memory.
        pixels = self.qkv(x).flatten(2).transpose(1, 2).contiguous()
        parts = to_unit_rms(pixels.unflatten(2, (3, self.heads, -1)), -1)  # [B, HW, 3, heads, c]
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, HW, C]
        return mp_sum(x, self.proj(mixed.transpose(1, 2).reshape(x.shape)), self.share)
