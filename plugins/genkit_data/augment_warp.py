"""Affine maps of images that lose no detail: through twice the resolution, and back.

An image continues beyond its borders by reflection, and so repeats itself with a period of
2 (size - 1) pixels. One period is interpolated to twice its resolution with the wavelet filter
sym6, read where the map points, and filtered back to single resolution. Both filterings are
linear along an axis, so each is one matrix. The filter is orthogonal: going up and back down
returns the image, and a shift by whole pixels is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Low-pass filter of Daubechies' least asymmetric wavelet with six vanishing moments."""

CENTRE = 5
"""The tap of the filter that meets a pixel's own place."""

CHUNK = 2**16
"""Pixels that are mapped at a time: the memory stays small, and near the processor."""


def warp(images: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    """Return images in which each pixel is read from where its map points.

    The pixel at ``p`` is read at ``linear p + shift``. Both are counted in pixels from the centre
    of the image, x to the right and y down.

    Args:
        images: ``[N, C, H, W]``, float.
        linear: ``[N, 2, 2]`` of the same type and device.
        shift: ``[N, 2]`` likewise.
    """
    height, width = images.shape[2:]
    up_x, up_y = (_upsampling(size).to(images) for size in (width, height))
    down_x, down_y = (_downsampling(size).to(images) for size in (width, height))
    count = max(1, CHUNK // (height * width))
    mapped = []
    for part, matrix, offset in zip(
        *(torch.split(values, count) for values in (images, linear, shift)), strict=True
    ):
        fine = up_y @ (part @ up_x.T)
        grid = _grid(matrix, offset, height, width)
        read = F.grid_sample(fine, grid, mode="bilinear", align_corners=True)
        mapped.append(down_y @ (read @ down_x.T))
    return torch.cat(mapped)


def _grid(linear: Tensor, shift: Tensor, height: int, width: int) -> Tensor:
    """Return ``[N, ., ., 2]`` where to read; -1 and 1 are a period's first and last sample."""
    # The points that the filter going down needs: half a pixel apart, and some beyond the borders.
    x, y = (
        (torch.arange(2 * size + 2 * CENTRE).to(linear) - CENTRE - (size - 1)) / 2
        for size in (width, height)
    )
    # [N, 2, ., .]: what x and what y contribute to both coordinates.
    points = linear[:, :, :1, None] * x + linear[:, :, 1:, None] * y[:, None]
    points = points + shift[:, :, None, None]
    # From pixels off the centre to pixels, in units of half a period.
    last = points.new_tensor([max(width - 1, 1), max(height - 1, 1)])[:, None, None]
    return ((points / last + 0.5).remainder(2) - 1).movedim(1, -1)


def _upsampling(size: int) -> Tensor:
    """Return ``[period + 1, size]``: from pixels to one period at twice the resolution.

    The first sample is repeated as the last, so that whatever lies between two can be read.
    """
    half = max(size - 1, 1)  # of the period, in pixels
    fine = torch.arange(4 * half + 1)[:, None]
    tap = torch.arange(len(SYM6))
    # Sample i holds pixel j with tap i - 2 j + CENTRE.
    twice = fine + CENTRE - tap
    pixel = (size - 1 - (size - 1 - (twice // 2) % (2 * half)).abs()).clamp(min=0)
    weights = torch.tensor(SYM6, dtype=torch.float64) * (twice % 2 == 0)
    matrix = torch.zeros(len(fine), size, dtype=torch.float64)
    return matrix.scatter_add_(1, pixel, weights)


def _downsampling(size: int) -> Tensor:
    """Return ``[size, 2 size + 2 CENTRE]``: back to pixels, by the same filter."""
    pixel = torch.arange(size)[:, None]
    tap = torch.arange(len(SYM6))
    matrix = torch.zeros(size, 2 * size + 2 * CENTRE, dtype=torch.float64)
    weights = torch.tensor(SYM6, dtype=torch.float64).expand(size, -1)
    return matrix.scatter_(1, 2 * pixel + tap, weights)
