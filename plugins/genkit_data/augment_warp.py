"""Affine maps of images that lose no detail: through twice the resolution, and back.

An image is padded by reflection with size - 1 pixels on each side, and is 0 beyond. The padded
image is interpolated to twice its resolution with the wavelet filter sym6, read where the map
points, and filtered back to single resolution. Both filterings are linear along an axis, so each is
one matrix, which includes the padding. The filter is orthogonal: going up and back down returns
the image, and a shift by whole pixels is exact.

EDM's reference implementation pads all images of a batch as far as the farthest-reaching one
requires, but never by more than size - 1 pixels. Here the padding is always the maximum, so that
the result for an image does not depend on the others. Both agree for a batch in which some image
requires the maximum on every side. In others the reference's padding is slightly short for strongly
shrunk images: pixels in [-1, 1] differ by up to 2e-4 at EDM's strengths
(``benchmarks/edm_parity``).
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
    of the image, x to the right and y down. Beyond its borders an image continues by one
    reflection, of size - 1 pixels, and is 0 from there on.

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
        read = F.grid_sample(fine, grid, padding_mode="zeros", align_corners=True)
        mapped.append(down_y @ (read @ down_x.T))
    return torch.cat(mapped)


def _grid(linear: Tensor, shift: Tensor, height: int, width: int) -> Tensor:
    """Return ``[N, ., ., 2]`` where to read; -1 and 1 are the first and last upsampled sample."""
    # The points that the filter going down needs: half a pixel apart, and some beyond the borders.
    x, y = (
        (torch.arange(2 * size + 2 * CENTRE).to(linear) - CENTRE - (size - 1)) / 2
        for size in (width, height)
    )
    # [N, 2, ., .]: what x and what y contribute to both coordinates.
    points = linear[:, :, :1, None] * x + linear[:, :, 1:, None] * y[:, None]
    points = points + shift[:, :, None, None]
    # A point p pixels off the centre is at sample 2 p + padded - 1 of 2 padded samples.
    padded = points.new_tensor([3 * width - 2, 3 * height - 2])[:, None, None]
    return ((4 * points - 1) / (2 * padded - 1)).movedim(1, -1)


def _upsampling(size: int) -> Tensor:
    """Return ``[2 (3 size - 2), size]``: from pixels to the padded image at twice the resolution.

    Sample 2 k is at pixel k of the padded image, which is pixel k - (size - 1) of the image.
    """
    padded = 3 * size - 2
    # The pixels that the padding shows: size - 1 to 0, up to size - 1, and down to 0 again.
    source = (size - 1 - (torch.arange(padded) - 2 * (size - 1)).abs()).abs()
    # Sample i contains padded pixel j with tap i - 2 j + CENTRE, and nothing from beyond.
    tap = torch.arange(2 * padded)[:, None] - 2 * torch.arange(padded) + CENTRE
    inside = (tap >= 0) & (tap < len(SYM6))
    weights = torch.tensor(SYM6, dtype=torch.float64)[tap.clamp(0, len(SYM6) - 1)] * inside
    matrix = torch.zeros(2 * padded, size, dtype=torch.float64)
    return matrix.index_add_(1, source, weights)


def _downsampling(size: int) -> Tensor:
    """Return ``[size, 2 size + 2 CENTRE]``: back to pixels, by the same filter."""
    pixel = torch.arange(size)[:, None]
    tap = torch.arange(len(SYM6))
    matrix = torch.zeros(size, 2 * size + 2 * CENTRE, dtype=torch.float64)
    weights = torch.tensor(SYM6, dtype=torch.float64).expand(size, -1)
    return matrix.scatter_(1, 2 * pixel + tap, weights)
