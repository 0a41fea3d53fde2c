"""The table of noise levels of improved DDPM (arXiv 2102.09672), as EDM writes it.

EDM, arXiv 2206.00364, table 1: with a(j) = sin^2(pi/2 j / (m (c_2 + 1))), u_m = 0 and
u_{j-1}^2 + 1 = (u_j^2 + 1) / max(a(j-1) / a(j), c_1). The product telescopes into a sum of
logarithms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def iddpm_levels(c_1: float = 0.001, c_2: float = 0.008, m: int = 1000) -> Tensor:
    """Return the ``[m]`` noise levels u_{m-1} to u_0, increasing, in float64 on the CPU.

    Args:
        c_1: minimum ratio of neighbouring a(j); bounds the highest level.
        c_2: offset of the cosine; bounds the lowest levels.
        m: number of levels.
    """
    # The reference evaluates a(j) and its ratios in float32, in this order, and the rest of its
    # sampler's table in float64. With a(j) in float64 samples would differ by up to 3e-6.
    j = torch.arange(m, -1, -1, dtype=torch.float32, device="cpu")
    a = (math.pi / 2 * j / m / (c_2 + 1)).sin().square()
    ratio = (a[1:] / a[:-1]).clamp(min=c_1).double()
    return torch.expm1(-ratio.log().cumsum(0)).sqrt()


def nearest(sigma: Tensor, levels: Tensor) -> Tensor:
    """Return the index of the level nearest to each noise level, of the shape of ``sigma``.

    Args:
        sigma: noise levels of any shape.
        levels: ``[m]`` increasing, of the same type and device.
    """
    return torch.bucketize(sigma.contiguous(), (levels[1:] + levels[:-1]) / 2)
