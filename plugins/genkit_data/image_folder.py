"""Images in a folder, or in one folder for each class."""

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
from genkit_data.cache import Decoding, cached
from genkit_data.folder import entries, existing_folder, version_of
from genkit_data.pictures import Shape, in_parts, opened, pixels, require_shape, shape_of


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Your own images: right in a folder without labels, or in one sub-folder for each class.

    Classes are numbered by the sorted names of their folders, and images are read in the order of
    their names. Grey images (8 bits, no transparency) keep their one channel; all others become
    RGB, without their transparency. All must have one size and one number of channels. Every file
    must be an image, save those whose name starts with a dot, which are passed over.
    """

    root: FilePath = setting(doc="folder of the images; ~ is your home")

    def spec(self) -> DataSpec:
        files, labels = _listed(existing_folder(self.root))
        shape = _common_shape(tuple(files), version_of(files))
        return DataSpec(shape, classes=labels[-1] + 1 if labels else 0)

    def item_count(self) -> int:
        return len(_listed(existing_folder(self.root))[0])

    def version(self) -> str:
        return version_of(_listed(existing_folder(self.root))[0])

    def load(self, inputs: Inputs) -> Batch:
        folder = existing_folder(self.root)
        files, labels = _listed(folder)
        return cached(folder, "image-folder", version_of(files), lambda: _decoding(files, labels))


def _decoding(files: Sequence[Path], labels: Sequence[int]) -> Decoding:
    shape = _common_shape(tuple(files), version_of(files))
    classes = torch.tensor(labels) if labels else None
    return Decoding((len(files), *shape), bool(labels), in_parts(_pixels(files, shape), classes))


def _pixels(files: Sequence[Path], shape: Shape) -> Iterator[Tensor]:
    for path in files:
        with opened(path, str(path)) as image:
            yield pixels(image, shape[0])


def _listed(root: Path) -> tuple[list[Path], list[int]]:
    """Return all files in order, and the class of each; no classes where all lie in the root."""
    inside = entries(root)
    folders = [path for path in inside if path.is_dir()]
    loose = [path for path in inside if not path.is_dir()]
    if folders and loose:
        raise DataError(
            f"{root}: holds both files ({loose[0].name}) and folders ({folders[0].name}); keep "
            "all images in it, or each in the folder of its class",
            Code.CONFLICT,
        )
    if loose:
        return loose, []
    if not folders:
        raise DataError(f"{root}: holds no image", Code.NOT_FOUND)
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = entries(folder)
        if not found:
            raise DataError(
                f"{folder}: holds no image; remove the folder or fill the class", Code.NOT_FOUND
            )
        if deeper := next((path for path in found if path.is_dir()), None):
            raise DataError(
                f"{deeper}: is a folder inside the folder of a class; move its images",
                Code.CONFLICT,
            )
        files += found
        labels += [label] * len(found)
    return files, labels


@lru_cache(maxsize=8)
def _common_shape(files: tuple[Path, ...], version: str) -> Shape:  # noqa: ARG001, part of the key
    """Return the shape ``(channels, height, width)`` of all images, reading their headers only.

    It is asked for many times while a recipe is checked, and read once for each version.
    """
    first = _shape(files[0])
    for path in files[1:]:
        require_shape(_shape(path), str(path), first, str(files[0]))
    return first


def _shape(path: Path) -> Shape:
    with opened(path, str(path)) as image:
        return shape_of(image, str(path))
