"""Image files: opened, judged by their header, and turned into bytes."""

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
"""Of the files that are taken for images where others may lie beside them."""

Shape = tuple[int, int, int]
_PART = 64  # images that are decoded before they are handed on


@contextmanager
def opened(file: Path | BinaryIO, where: str) -> Iterator[Image.Image]:
    """Open an image; pixels are read at their first use, inside the block.

    Args:
        file: the image.
        where: names it in messages.

    Raises:
        DataError: it is missing, damaged or no image.
    """
    try:
        with Image.open(file) as image:
            yield image
    # Decoders raise all of these for broken files, SyntaxError among them.
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        # The library's own words would tell where in memory the file lies.
        reason = "its format is unknown" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"{where}: cannot be read as an image: {reason}", Code.UNREADABLE
        ) from error


def shape_of(image: Image.Image, where: str) -> Shape:
    """Return ``(channels, height, width)``: 1 channel for grey, 3 for all else.

    Raises:
        DataError: it has more than 8 bits a channel.
    """
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits: a conversion would clip them
        raise DataError(
            f"{where}: has more than 8 bits a channel (mode {image.mode})", Code.WRONG_TYPE
        )
    return (1 if image.mode == "L" else 3, image.height, image.width)


def require_shape(shape: Shape, where: str, first: Shape, first_where: str) -> None:
    """Raise DataError where an image differs from the first one."""
    if shape != first:
        raise DataError(
            f"{where} is {_in_words(shape)}, but {first_where} is {_in_words(first)}; all images "
            "must have one size, and all be grey or all in colour",
            Code.WRONG_SHAPE,
        )


def pixels(image: Image.Image, channels: int) -> Tensor:
    """Return ``[channels, height, width]`` uint8, grey or RGB."""
    values = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(values).reshape(image.height, image.width, channels).movedim(2, 0)


def in_parts(images: Iterable[Tensor], labels: Tensor | None) -> Iterator[Batch]:
    """Yield images in batches.

    Args:
        images: N of ``[C, H, W]``.
        labels: ``[N]`` or None.
    """
    rest = iter(images)
    for start in itertools.count(0, _PART):
        if not (part := list(itertools.islice(rest, _PART))):
            return
        held = None if labels is None else labels[start : start + len(part)]
        yield Batch(torch.stack(part), held)


def _in_words(shape: Shape) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels in {'grey' if channels == 1 else 'colour'}"
