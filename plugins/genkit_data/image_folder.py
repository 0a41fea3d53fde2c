"""Images in a folder, or in one folder for each class."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from genkit.errors import DataError
from genkit.interfaces import Dataset, Inputs
from genkit.settings import setting
from genkit.types import Batch, DataSpec
from genkit_data.folder import entries, existing_folder, version_of


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Your own images: right in a folder without labels, or in one sub-folder for each class.

    Classes are numbered by the sorted names of their folders, and images are read in the order of
    their names. Grey images (8 bits, no transparency) keep their one channel; all others become
    RGB, without their transparency. All must have one size and one number of channels. Every file
    must be an image, save those whose name starts with a dot, which are passed over.
    """

    root: str = setting(
        doc="folder of the images, relative to the current directory; ~ is your home"
    )

    def spec(self) -> DataSpec:
        files, labels = _listed(existing_folder(self.root))
        return DataSpec(_common_shape(files), classes=labels[-1] + 1 if labels else 0)

    def version(self) -> str:
        return version_of(_listed(existing_folder(self.root))[0])

    def load(self, inputs: Inputs) -> Batch:
        files, labels = _listed(existing_folder(self.root))
        channels, height, width = _common_shape(files)
        pixels = torch.empty(len(files), channels, height, width, dtype=torch.uint8)
        for target, path in zip(pixels, files, strict=True):
            with _opened(path) as image:
                values = np.array(image.convert("L" if channels == 1 else "RGB"))
            target.copy_(torch.from_numpy(values).reshape(height, width, channels).movedim(2, 0))
        return Batch(pixels.float().div_(127.5).sub_(1), torch.tensor(labels) if labels else None)


def _listed(root: Path) -> tuple[list[Path], list[int]]:
    """Return all files in order, and the class of each; no classes where all lie in the root."""
    inside = entries(root)
    folders = [path for path in inside if path.is_dir()]
    loose = [path for path in inside if not path.is_dir()]
    if folders and loose:
        raise DataError(
            f"{root}: holds both files ({loose[0].name}) and folders ({folders[0].name}); keep "
            "all images in it, or each in the folder of its class"
        )
    if loose:
        return loose, []
    if not folders:
        raise DataError(f"{root}: holds no image")
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = entries(folder)
        if not found:
            raise DataError(f"{folder}: holds no image; remove the folder or fill the class")
        if deeper := next((path for path in found if path.is_dir()), None):
            raise DataError(f"{deeper}: is a folder inside the folder of a class; move its images")
        files += found
        labels += [label] * len(found)
    return files, labels


def _common_shape(files: Sequence[Path]) -> tuple[int, int, int]:
    """Return the shape ``(channels, height, width)`` of all images, reading their headers only."""
    first = _shape(files[0])
    for path in files[1:]:
        if (shape := _shape(path)) != first:
            raise DataError(
                f"{path} is {_in_words(shape)}, but {files[0]} is {_in_words(first)}; all images "
                "must have one size, and all be grey or all in colour"
            )
    return first


def _shape(path: Path) -> tuple[int, int, int]:
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):  # 16 or 32 bits: a conversion would clip them
            raise DataError(f"{path}: has more than 8 bits a channel (mode {image.mode})")
        return (1 if image.mode == "L" else 3, image.height, image.width)


def _in_words(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels in {'grey' if channels == 1 else 'colour'}"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; pixels are read at their first use, inside the block."""
    try:
        with Image.open(path) as image:
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
        raise DataError(f"{path}: cannot be read as an image: {error}") from error
