"""Draw samples: a grid of images, or a scatter plot of points."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genkit.parts.figure import PALETTE, figure_with_axes, png_of, set_title
from genkit.tensors import as_stored, require_finite

MOST_IMAGES = 100
_LEAST_WIDTH = 600  # pixels
_GAP = 2  # pixels of white between images
_BETWEEN, _ABOVE, _FONT = 24, 28, 18  # pixels between grids, height and font size of their titles


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
        return _png(_canvas(as_stored(data[:MOST_IMAGES], "sample"), columns))
    return titled_grids({f"{len(data):,} samples": data})


def titled_grids(parts: Mapping[str, Tensor]) -> bytes:
    """Return a PNG with several sets of samples beside each other, each with its title.

    Args:
        parts: map from title to samples, as for :func:`grid`. Vectors are drawn in one plot, with
            the titles as a legend, the last set on top.

    Raises:
        DataError: a value is not finite; the message contains the index of the sample.
    """
    if any(data.ndim != 4 for data in parts.values()):
        for data in parts.values():
            require_finite(data, "sample")
        return _points({title: data.reshape(len(data), -1) for title, data in parts.items()})
    font = ImageFont.load_default(_FONT)
    pictures = [
        (title, _canvas(as_stored(data[:MOST_IMAGES], "sample"))) for title, data in parts.items()
    ]
    widths = [max(p.width, math.ceil(font.getlength(title))) for title, p in pictures]
    size = sum(widths) + _BETWEEN * (len(parts) - 1), max(p.height for _, p in pictures) + _ABOVE
    joined = Image.new("RGB", size, "white")
    pen, left = ImageDraw.Draw(joined), 0
    for (title, picture), width in zip(pictures, widths, strict=True):
        pen.text((left, 2), title, "black", font)
        joined.paste(picture, (left, _ABOVE))
        left += width + _BETWEEN
    return _png(joined)


def _canvas(images: Tensor, columns: int = 0) -> Image.Image:
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
    return Image.fromarray(canvas.numpy())


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    # Without optimize, which takes several times as long and saves few bytes.
    picture.save(content, format="png")
    return content.getvalue()


def _points(parts: Mapping[str, Tensor]) -> bytes:
    """Return a plot of sets of vectors: the last set in color, the others in gray below it."""
    figure, (axes,) = figure_with_axes()
    dimensions = min(points.shape[1] for points in parts.values())
    colors = [*["#a8a8a8"] * (len(parts) - 1), PALETTE[0]]
    for (title, points), color in zip(parts.items(), colors, strict=True):
        values, count = points.double().cpu().numpy(), len(points)
        if dimensions == 1:
            bins, density = min(100, max(10, count // 20)), len(parts) > 1
            axes.hist(values[:, 0], bins, density=density, color=color, alpha=0.8, label=title)
            continue
        size = min(20.0, max(2.0, 8000 / count))
        x, y = values[:, 0], values[:, 1]
        axes.scatter(x, y, s=size, color=color, alpha=0.6, linewidths=0, label=title)
    what = list(parts)[-1]
    if dimensions == 1:
        axes.set_xlabel("value")
        axes.set_ylabel("density" if len(parts) > 1 else "number of samples")
    else:
        figure.set_size_inches(6, 6)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("first dimension")
        axes.set_ylabel("second dimension")
        what += "" if dimensions == 2 else f", first 2 of {dimensions} dimensions"
    set_title(axes, what)
    if len(parts) > 1:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, markerscale=3)
    return png_of(figure)
