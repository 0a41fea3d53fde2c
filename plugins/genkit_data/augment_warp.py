"""Affine maps of images at twice the resolution, which preserve detail.

An image is padded by reflection with size - 1 pixels on each side, and with 0 beyond. The padded
image is interpolated to twice its resolution with the wavelet filter sym6, sampled at the mapped
positions, and filtered back to the original resolution. Both filters are linear along an axis, so
each is one matrix, which includes the padding. The filter is orthogonal: upsampling followed by
downsampling returns the image, and a shift by whole pixels is exact.

EDM's reference implementation pads all images of a batch as far as one of them requires, at most
size - 1 pixels. Here the padding is always the maximum, so that the result for an image does not
depend on the others. Both agree if some image requires the maximum on every side. Otherwise the
reference's padding is slightly short for strongly shrunk images: pixels in [-1, 1] differ by up to
2e-4 at EDM's strengths (``benchmarks/edm_parity``).
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

CENTER = 5
"""Index of the filter's tap at the position of the pixel itself."""

CHUNK = 2**16
"""Number of pixels mapped at a time, which limits the memory; chosen, not tuned."""


def warp(images: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    """Return images whose pixel at ``p`` is that at ``linear p + shift`` of the given images.

    Positions are in pixels from the center of the image, x to the right and y down. Images are
    padded by one reflection, of size - 1 pixels, and with 0 beyond.

    Args:
        images: images of a floating type, ``[N, C, H, W]``.
        linear: matrices of the same type and device, ``[N, 2, 2]``.
        shift: vectors of the same type and device, ``[N, 2]``.
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
        sampled = F.grid_sample(fine, grid, padding_mode="zeros", align_corners=True)
        mapped.append(down_y @ (sampled @ down_x.T))
    return torch.cat(mapped)


def _grid(linear: Tensor, shift: Tensor, height: int, width: int) -> Tensor:
    """Return the sampling grid ``[N, ., ., 2]``, with -1 and 1 for the first and last sample."""
    # The points that the downsampling filter uses: half a pixel apart, some beyond the borders.
    x, y = (
        (torch.arange(2 * size + 2 * CENTER).to(linear) - CENTER - (size - 1)) / 2
        for size in (width, height)
    )
    # The contributions of x and y to both coordinates, [N, 2, ., .].
    points = linear[:, :, :1, None] * x + linear[:, :, 1:, None] * y[:, None]
    points = points + shift[:, :, None, None]
    # A point p pixels from the center is at sample 2 p + padded - 1 of 2 padded samples.
    padded = points.new_tensor([3 * width - 2, 3 * height - 2])[:, None, None]
    return ((4 * points - 1) / (2 * padded - 1)).movedim(1, -1)


def _upsampling(size: int) -> Tensor:
    """Return the matrix ``[2 (3 size - 2), size]`` that pads and upsamples an axis.

    Sample 2 k is at pixel k of the padded image, which is pixel k - (size - 1) of the image.
    """
    padded = 3 * size - 2
    # Pixels of the padded axis: size - 1 to 0, up to size - 1, and down to 0 again.
    source = (size - 1 - (torch.arange(padded) - 2 * (size - 1)).abs()).abs()
    # Tap i - 2 j + CENTER weights padded pixel j in sample i; pixels beyond are 0.
    tap = torch.arange(2 * padded)[:, None] - 2 * torch.arange(padded) + CENTER
    inside = (tap >= 0) & (tap < len(SYM6))
    weights = torch.tensor(SYM6, dtype=torch.float64)[tap.clamp(0, len(SYM6) - 1)] * inside
    matrix = torch.zeros(2 * padded, size, dtype=torch.float64)
    return matrix.index_add_(1, source, weights)


def _downsampling(size: int) -> Tensor:
    """Return the matrix ``[size, 2 size + 2 CENTER]`` that downsamples with the same filter."""
    pixel = torch.arange(size)[:, None]
    tap = torch.arange(len(SYM6))
    matrix = torch.zeros(size, 2 * size + 2 * CENTER, dtype=torch.float64)
    weights = torch.tensor(SYM6, dtype=torch.float64).expand(size, -1)
    return matrix.scatter_(1, 2 * pixel + tap, weights)
