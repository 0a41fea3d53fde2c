"""Affine maps of images at twice their resolution, which preserve detail.

An image is padded by reflection with size - 1 pixels on each side, and with 0 beyond. The padded
image is upsampled to twice its resolution with the wavelet filter sym6, sampled at the mapped
positions, and downsampled to the original resolution. Upsampling and downsampling are linear along
an axis, so each is a product with a matrix, which includes the padding. The filter is orthogonal:
upsampling followed by downsampling returns the image, and a shift by whole pixels is exact.

EDM's reference implementation pads all images of a batch as far as one of them requires, at most
size - 1 pixels. Here the padding is always the maximum, so that the result for an image does not
depend on the other images. The results are equal if an image of the batch requires the maximum on
every side. Otherwise the reference's padding is too small for strongly shrunk images: pixels in
[-1, 1] differ by up to 2e-4 at EDM's default strengths (``benchmarks/edm_parity``).
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
"""Index of the filter tap at the position of the pixel."""

CHUNK = 2**16
"""Maximum number of pixels that are mapped at a time, which limits memory; chosen, not tuned."""


def warp(images: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    """Map images: output pixel ``p`` is the input at position ``linear @ p + shift``.

    Positions are in pixels from the center of the image, x to the right and y down. Images are
    padded by one reflection, of size - 1 pixels, and with 0 beyond.

    Args:
        images: images of a floating-point type, ``[N, C, H, W]``.
        linear: matrix of each image, ``[N, 2, 2]``, with the type and device of the images.
        shift: shift of each image in pixels, ``[N, 2]``, with the type and device of the images.

    Returns:
        Mapped images, ``[N, C, H, W]``.
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
    """Return the grid ``[N, rows, columns, 2]`` for ``grid_sample`` with aligned corners."""
    # Points that the downsampling filter uses: half a pixel apart, some outside of the image.
    x, y = (
        (torch.arange(2 * size + 2 * CENTER).to(linear) - CENTER - (size - 1)) / 2
        for size in (width, height)
    )
    # Sum of the contributions of x and y to both coordinates, [N, 2, rows, columns].
    points = linear[:, :, :1, None] * x + linear[:, :, 1:, None] * y[:, None]
    points = points + shift[:, :, None, None]
    # An upsampled axis has 2 * padded samples. The position p, in pixels from the center, has
    # the index 2 * p + padded - 1.
    padded = points.new_tensor([3 * width - 2, 3 * height - 2])[:, None, None]
    return ((4 * points - 1) / (2 * padded - 1)).movedim(1, -1)


def _upsampling(size: int) -> Tensor:
    """Return the matrix ``[2 (3 size - 2), size]`` that pads and upsamples an axis.

    Row 2 k of the matrix is at pixel k of the padded axis, which is pixel k - (size - 1) of the
    original axis.
    """
    padded = 3 * size - 2
    # Source pixels of the padded axis: size - 1, ..., 0, ..., size - 1, ..., 0.
    source = (size - 1 - (torch.arange(padded) - 2 * (size - 1)).abs()).abs()
    # The weight of padded pixel j in sample i is filter tap i - 2 j + CENTER; beyond it is 0.
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
