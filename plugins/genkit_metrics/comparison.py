"""Draw a picture of samples next to their nearest real images."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

WIDTH = 96
"""Minimum width of an image in the picture, in pixels."""

GAP, TITLE = 8, 20
"""White space between images, and height of the title above each image, in pixels."""


def picture_of_nearest(samples: Tensor, nearest: Tensor, distances: Tensor) -> bytes:
    """Return a PNG with a row for each sample: the sample, then its nearest real images.

    Args:
        samples: samples, ``[N, C, H, W]`` uint8.
        nearest: K nearest real images of each sample, nearest first, ``[N, K, C, H, W]`` uint8.
        distances: distances in feature space, ``[N, K]``, which are printed above the images.
    """
    (count, beside), (height, width) = distances.shape, samples.shape[2:]
    scale = math.ceil(WIDTH / width)  # an integer, so that pixels are not interpolated
    across, down = width * scale + GAP, height * scale + TITLE + GAP
    canvas = Image.new("RGB", ((beside + 1) * across + GAP, count * down + GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for row in range(count):
        titles = ["sample", *(f"{distance:.3g}" for distance in distances[row].tolist())]
        images = (samples[row], *nearest[row])
        for column, (image, title) in enumerate(zip(images, titles, strict=True)):
            left, top = GAP + column * across, GAP + row * down
            pen.text((left, top), title, "black", font)
            # Images with three channels are shown in color, others by their first channel in gray.
            shown = image if len(image) == 3 else image[:1].expand(3, -1, -1)
            large = shown.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
            tile = Image.fromarray(large.permute(1, 2, 0).contiguous().numpy())
            canvas.paste(tile, (left, top + TITLE))
    content = io.BytesIO()
    canvas.save(content, format="png")
    return content.getvalue()
