"""Draw samples: a grid of images, or a scatter plot of points."""

from __future__ import annotations

import io
import math

import torch
from PIL import Image
from torch import Tensor

from genkit.parts.figure import PALETTE, figure_with_axes, png_of, set_title
from genkit.tensors import as_stored, require_finite

MOST_IMAGES = 100
_LEAST_WIDTH = 600  # pixels
_GAP = 2  # pixels of white between images


def grid(data: Tensor, columns: int = 0) -> bytes:
    """Return a PNG of samples.

    Args:
        data: ``[N, C, H, W]`` images, uint8 or in [-1, 1], or ``[N, D]`` vectors. The first 100
            images are shown: in color if they have three channels, otherwise their first channel
            in gray. Vectors are shown as a scatter plot of their first two dimensions, or as a
            histogram if D is 1.
        columns: number of images in a row; 0 for a square.

    Raises:
        DataError: a value is not finite; the message contains the index of the sample.
    """
    if data.ndim == 4:
        return _images(as_stored(data[:MOST_IMAGES], "sample"), columns)
    require_finite(data, "sample")
    return _points(data.reshape(len(data), -1))


def _images(images: Tensor, columns: int) -> bytes:
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = math.ceil(max(1, _LEAST_WIDTH / (columns * width)))  # without interpolation
    shown = images if channels == 3 else images[:, :1].expand(-1, 3, -1, -1)
    large = shown.repeat_interleave(scale, 2).repeat_interleave(scale, 3).permute(0, 2, 3, 1)
    down, across = height * scale + _GAP, width * scale + _GAP
    canvas = torch.full((rows * down - _GAP, columns * across - _GAP, 3), 255, dtype=torch.uint8)
    for k, image in enumerate(large):
        top, left = k // columns * down, k % columns * across
        canvas[top : top + height * scale, left : left + width * scale] = image
    content = io.BytesIO()
    Image.fromarray(canvas.numpy()).save(content, format="png", optimize=True)
    return content.getvalue()


def _points(points: Tensor) -> bytes:
    count, dimensions = points.shape
    values = points.double().cpu().numpy()
    figure, (axes,) = figure_with_axes()
    what = f"{count:,} samples"
    if dimensions == 1:
        axes.hist(values[:, 0], bins=min(100, max(10, count // 20)), color=PALETTE[0])
        axes.set_xlabel("value")
        axes.set_ylabel("number of samples")
        set_title(axes, what)
    else:
        figure.set_size_inches(6, 6)
        size = min(20.0, max(2.0, 8000 / count))
        axes.scatter(values[:, 0], values[:, 1], s=size, color=PALETTE[0], alpha=0.6, linewidths=0)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("first dimension")
        axes.set_ylabel("second dimension")
        set_title(axes, what if dimensions == 2 else f"{what}, first 2 of {dimensions} dimensions")
    return png_of(figure)
