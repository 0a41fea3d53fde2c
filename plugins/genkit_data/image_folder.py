"""Images in one folder, or in a subfolder for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Dataset, Inputs
from genkit.settings import FilePath, setting
from genkit.types import Batch, DataSpec
from genkit_data.cache import Decoding, load_or_decode
from genkit_data.folder import entries, existing_folder, version_of
from genkit_data.pictures import (
    Shape,
    make_batches,
    open_image,
    pixels,
    require_shape,
    shape_of,
)


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Your own images: in one folder without labels, or in a subfolder for each class.

    Classes are numbered in the order of the names of their subfolders, and images are read in the
    order of their names. Gray images (8 bits, no transparency) have one channel; all other images
    are converted to RGB without transparency. All images must have the same size and number of
    channels. Every file must be an image; files whose names start with a dot are ignored.
    """

    root: FilePath = setting(doc="folder of the images; ~ is your home folder")

    def spec(self) -> DataSpec:
        files, labels = _list(existing_folder(self.root))
        shape = _common_shape(tuple(files), version_of(files))
        return DataSpec(shape, classes=labels[-1] + 1 if labels else 0)

    def item_count(self) -> int:
        return len(_list(existing_folder(self.root))[0])

    def version(self) -> str:
        return version_of(_list(existing_folder(self.root))[0])

    def load(self, inputs: Inputs) -> Batch:
        folder = existing_folder(self.root)
        files, labels = _list(folder)
        version = version_of(files)
        return load_or_decode(folder, "image-folder", version, lambda: _decode(files, labels))


def _decode(files: Sequence[Path], labels: Sequence[int]) -> Decoding:
    shape = _common_shape(tuple(files), version_of(files))
    classes = torch.tensor(labels) if labels else None
    parts = make_batches(_pixels(files, shape), classes)
    return Decoding((len(files), *shape), bool(labels), parts)


def _pixels(files: Sequence[Path], shape: Shape) -> Iterator[Tensor]:
    for path in files:
        with open_image(path, str(path)) as image:
            yield pixels(image, shape[0])


def _list(root: Path) -> tuple[list[Path], list[int]]:
    """Return all files in order, and the class of each; no classes if there are no subfolders."""
    inside = entries(root)
    folders = [path for path in inside if path.is_dir()]
    top_files = [path for path in inside if not path.is_dir()]
    if folders and top_files:
        raise DataError(
            f"{root}: must contain either files or folders, got both ({top_files[0].name} and "
            f"{folders[0].name}); move all images into this folder, or each into the subfolder of "
            "its class",
            Code.CONFLICT,
        )
    if top_files:
        return top_files, []
    if not folders:
        raise DataError(f"{root}: must contain images, got none", Code.NOT_FOUND)
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        images = entries(folder)
        if not images:
            raise DataError(
                f"{folder}: must contain images, got none; delete the folder or add images",
                Code.NOT_FOUND,
            )
        if nested := next((path for path in images if path.is_dir()), None):
            raise DataError(
                f"{nested}: must be an image, got a folder inside the folder of a class; move its "
                "images to the folder of the class",
                Code.CONFLICT,
            )
        files += images
        labels += [label] * len(images)
    return files, labels


@lru_cache(maxsize=8)
def _common_shape(files: tuple[Path, ...], version: str) -> Shape:  # noqa: ARG001, part of the key
    """Return the shape ``(channels, height, width)`` that all images have in their headers.

    The shape is cached for each version of the files, since checking a recipe requires it many
    times.
    """
    first = _shape(files[0])
    for path in files[1:]:
        require_shape(_shape(path), str(path), first, str(files[0]))
    return first


def _shape(path: Path) -> Shape:
    with open_image(path, str(path)) as image:
        return shape_of(image, str(path))
