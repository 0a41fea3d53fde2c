"""Image files and ``dataset.json``, in a zip archive or a folder, as EDM's tools write them."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from zipfile import ZipFile

import torch
from PIL import Image
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Dataset, Inputs
from genkit.settings import FilePath, quote, setting
from genkit.types import Batch, DataSpec
from genkit_data.cache import Decoding, cached
from genkit_data.classes import require_classes
from genkit_data.folder import content_of, existing, version_of
from genkit_data.pictures import SUFFIXES, Shape, in_parts, opened, pixels, require_shape, shape_of
from genkit_data.zipped import opened_zip

_LABELS = "dataset.json"
_LARGEST = 2**30  # bytes of dataset.json or of an image


@dataclass(frozen=True, kw_only=True)
class EDMZip(Dataset):
    """Images as EDM's ``dataset_tool.py`` writes them: a zip archive or a folder.

    Images lie in it under any names, in sub-folders or not, and are read in the order of their
    names. Each is 8-bit grey or RGB, and all have one size. ``dataset.json`` gives the class of
    each: ``{"labels": [["00000/img00000000.png", 6], ...]}``.
    """

    source = "EDM, arXiv 2206.00364, appendix F.1"

    path: FilePath = setting(doc="the zip archive or folder; ~ is your home")
    labels: bool = setting(True, doc="read the class of each image from dataset.json")

    def spec(self) -> DataSpec:
        path = existing(self.path)
        return _outline(path, self.labels, _version(path))[0]

    def item_count(self) -> int:
        path = existing(self.path)
        return _outline(path, self.labels, _version(path))[1]

    def version(self) -> str:
        return _version(existing(self.path))

    def load(self, inputs: Inputs) -> Batch:
        path = existing(self.path)
        beside, name = (path, "edm") if path.is_dir() else (path.parent, path.name)
        name = f"{name}-labelled" if self.labels else name
        return cached(beside, name, _version(path), lambda: self._decoding(path))

    def _decoding(self, path: Path) -> Decoding:
        with _opened(path) as files:
            labels = _classes(files) if self.labels else None
            shape = _shape(files, files.images[0])
            count = len(files.images)
        return Decoding((count, *shape), self.labels, _parts(path, shape, labels))


@lru_cache(maxsize=8)
def _outline(
    path: Path,
    labelled: bool,
    version: str,  # noqa: ARG001, part of the key
) -> tuple[DataSpec, int]:
    """Return shape, classes and number of the images, read once for each version.

    They are asked for many times while a recipe is checked.
    """
    with _opened(path) as files:
        labels = _classes(files) if labelled else None
        shape, count = _shape(files, files.images[0]), len(files.images)
    return DataSpec(shape, 0 if labels is None else int(labels.max()) + 1), count


@dataclass(frozen=True)
class _Files(ABC):
    """The files of a data set, by their names inside it.

    Attributes:
        path: of the archive or folder.
        names: of all files, with ``/`` between folders.
    """

    path: Path
    names: tuple[str, ...]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of a file."""

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The names of the images, in order."""
        found = sorted(n for n in self.names if f".{n.rpartition('.')[2].lower()}" in SUFFIXES)
        if not found:
            raise DataError(
                f"{self.path}: holds no image ({', '.join(sorted(SUFFIXES))})", Code.NOT_FOUND
            )
        return tuple(found)

    def where(self, name: str) -> str:
        """Return the name of a file for messages."""
        return f"{self.path}: {name}"


@dataclass(frozen=True)
class _Folder(_Files):
    def read(self, name: str) -> bytes:
        return content_of(self.path / name, _LARGEST)


@dataclass(frozen=True)
class _Zip(_Files):
    archive: ZipFile

    def read(self, name: str) -> bytes:
        member = self.archive.getinfo(name)
        if member.file_size > _LARGEST:
            raise DataError(f"{self.where(name)} has {member.file_size:,} bytes", Code.UNSAFE)
        return self.archive.read(member)


@contextmanager
def _opened(path: Path) -> Iterator[_Files]:
    if path.is_dir():
        yield _Folder(path, _listed(path))
        return
    with opened_zip(path) as archive:
        names = tuple(member.filename for member in archive.infolist() if not member.is_dir())
        yield _Zip(path, names, archive)


def _listed(folder: Path) -> tuple[str, ...]:
    """Return the files in a folder and those below it, hidden ones left out."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    hidden = [any(part.startswith(".") for part in path.parts) for path in found]
    return tuple(p.as_posix() for p, hides in zip(found, hidden, strict=True) if not hides)


def _version(path: Path) -> str:
    if path.is_dir():
        return version_of(path / name for name in sorted(_listed(path)))
    return version_of([path])


def _classes(files: _Files) -> Tensor:
    """Return the class of each image, ``[N]`` int64."""
    where = files.where(_LABELS)
    if _LABELS not in files.names:
        raise DataError(f"{files.path}: holds no {_LABELS}; write labels = false", Code.NOT_FOUND)
    try:
        listed = json.loads(files.read(_LABELS))["labels"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f'{where} is no table with "labels": {error}', Code.UNREADABLE) from error
    if not listed:
        raise DataError(f"{where} has no labels; write labels = false", Code.MISSING_ATTRIBUTE)
    classes: dict[str, int] = {}
    for entry in listed if isinstance(listed, list) else [listed]:
        match entry:
            case [str(name), int(label)] if not isinstance(label, bool) and abs(label) < 2**63:
                pass
            case _:
                raise DataError(
                    f'{where}: {quote(entry)} is no ["name of an image", class]; where labels '
                    "are no classes, write labels = false",
                    Code.WRONG_TYPE,
                )
        if name in classes:
            raise DataError(f"{where}: {name} has two labels", Code.DUPLICATE)
        classes[name] = label
    images = set(files.images)
    if missing := sorted(images - classes.keys()):
        raise DataError(
            f"{where}: {missing[0]} has no label, as {len(missing):,} of the images",
            Code.MISSING_ATTRIBUTE,
        )
    if lost := sorted(classes.keys() - images):
        raise DataError(f"{where}: there is no image {lost[0]}, but a label for it", Code.NOT_FOUND)
    found = torch.tensor([classes[name] for name in files.images])
    require_classes(found, where)
    return found


def _parts(path: Path, shape: Shape, labels: Tensor | None) -> Iterator[Batch]:
    with _opened(path) as files:
        yield from in_parts(_pixels(files, shape), labels)


def _pixels(files: _Files, shape: Shape) -> Iterator[Tensor]:
    first = files.where(files.images[0])
    for name in files.images:
        with opened(io.BytesIO(files.read(name)), files.where(name)) as image:
            require_shape(_strict(image, files.where(name)), files.where(name), shape, first)
            yield pixels(image, shape[0])


def _shape(files: _Files, name: str) -> Shape:
    with opened(io.BytesIO(files.read(name)), files.where(name)) as image:
        return _strict(image, files.where(name))


def _strict(image: Image.Image, where: str) -> Shape:
    shape = shape_of(image, where)
    if image.mode not in ("L", "RGB"):
        raise DataError(
            f"{where}: is of mode {image.mode}; write 8-bit grey (L) or RGB images",
            Code.WRONG_SHAPE,
        )
    return shape
