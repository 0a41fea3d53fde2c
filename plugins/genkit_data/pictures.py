"""Open image files, check their headers, and decode them to uint8 tensors."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.types import Batch

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""Suffixes of the files that are images, in folders that may contain other files."""

Shape = tuple[int, int, int]
_BATCH = 64  # number of images decoded at a time; chosen, not tuned


@contextmanager
def open_image(file: Path | BinaryIO, where: str) -> Iterator[Image.Image]:
    """Open an image in a ``with`` block; its pixels are decoded on first use in the block.

    Args:
        file: image file.
        where: name of the image in error messages.

    Raises:
        DataError: the file is missing, is corrupt or is not an image.
    """
    try:
        with Image.open(file) as image:
            yield image
    # Pillow's decoders raise any of these for corrupt files, even SyntaxError.
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        # The library's message would contain a memory address.
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"{where}: cannot be read as an image: {reason}", Code.UNREADABLE
        ) from error


def shape_of(image: Image.Image, where: str) -> Shape:
    """Return ``(channels, height, width)``: 1 channel for gray images, 3 for all other images.

    Raises:
        DataError: the image has more than 8 bits per channel.
    """
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits, which a conversion would clip
        raise DataError(
            f"{where}: must have 8 bits per channel, got mode {image.mode}", Code.WRONG_TYPE
        )
    return (1 if image.mode == "L" else 3, image.height, image.width)


def require_shape(shape: Shape, where: str, first: Shape, first_where: str) -> None:
    """Raise DataError unless an image has the shape of the first image.

    Args:
        shape: shape of the image, ``(channels, height, width)``.
        where: name of the image in the error.
        first: shape of the first image.
        first_where: name of the first image in the error.
    """
    if shape != first:
        raise DataError(
            f"{where}: must have {_in_words(first)} like {first_where}, got {_in_words(shape)}; "
            "resize or convert the images",
            Code.WRONG_SHAPE,
        )


def pixels(image: Image.Image, channels: int) -> Tensor:
    """Return the gray or RGB pixels of an image, ``[channels, height, width]`` uint8."""
    values = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(values).reshape(image.height, image.width, channels).movedim(2, 0)


def make_batches(images: Iterable[Tensor], labels: Tensor | None) -> Iterator[Batch]:
    """Yield images in batches.

    Args:
        images: N images ``[C, H, W]``.
        labels: class indices ``[N]``, or None.
    """
    rest = iter(images)
    for start in itertools.count(0, _BATCH):
        if not (batch := list(itertools.islice(rest, _BATCH))):
            return
        batch_labels = None if labels is None else labels[start : start + len(batch)]
        yield Batch(torch.stack(batch), batch_labels)


def _in_words(shape: Shape) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels in {'gray' if channels == 1 else 'color'}"
