"""Data sets in the format of EDM's ``dataset_tool.py``: image files and ``dataset.json``."""

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

import numpy as np
from PIL import Image
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Dataset, Inputs
from genkit.items import as_classes
from genkit.settings import FilePath, quote, setting
from genkit.types import Batch, DataSpec
from genkit_data.cache import Decoding, load_or_decode
from genkit_data.folder import content_of, existing, version_of
from genkit_data.pictures import (
    SUFFIXES,
    Shape,
    make_batches,
    open_image,
    pixels,
    require_shape,
    shape_of,
)
from genkit_data.zipped import open_zip

_LABELS = "dataset.json"
_MAX_BYTES = 2**30  # maximum size of dataset.json and of an image; chosen, not tuned


@dataclass(frozen=True, kw_only=True)
class EDMZip(Dataset):
    """Images in the format of EDM's ``dataset_tool.py``: a zip archive or a folder.

    Images may have any names and may be in subfolders. They are read in the order of their names.
    All must be 8-bit gray or RGB images of the same size. ``dataset.json`` contains the class of
    each image: ``{"labels": [["00000/img00000000.png", 6], ...]}``.
    """

    source = "EDM, arXiv 2206.00364, appendix F.1"

    path: FilePath = setting(doc="path of the zip archive or folder; ~ is your home folder")
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
        folder, name = (path, "edm") if path.is_dir() else (path.parent, path.name)
        name = f"{name}-labelled" if self.labels else name
        return load_or_decode(folder, name, _version(path), lambda: self._decode(path))

    def _decode(self, path: Path) -> Decoding:
        with _open(path) as files:
            labels = _classes(files) if self.labels else None
            shape = _shape(files, files.images[0])
            count = len(files.images)
        return Decoding((count, *shape), self.labels, _parts(path, shape, labels))


@lru_cache(maxsize=8)
def _outline(
    path: Path,
    labelled: bool,
    version: str,  # noqa: ARG001, part of the cache key
) -> tuple[DataSpec, int]:
    """Return the specification and the number of the images.

    They are cached for each version of the files, since checking a recipe requires them many times.
    """
    with _open(path) as files:
        labels = _classes(files) if labelled else None
        shape, count = _shape(files, files.images[0]), len(files.images)
    return DataSpec(shape, 0 if labels is None else int(labels.max()) + 1), count


@dataclass(frozen=True)
class _Files(ABC):
    """The files of a data set.

    Attributes:
        path: path of the archive or folder.
        names: paths of all files inside, separated by ``/``.
    """

    path: Path
    names: tuple[str, ...]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of a file."""

    @cached_property
    def images(self) -> tuple[str, ...]:
        """Names of the images, in order."""
        images = sorted(n for n in self.names if f".{n.rpartition('.')[2].lower()}" in SUFFIXES)
        if not images:
            raise DataError(
                f"{self.path}: must contain images ({', '.join(sorted(SUFFIXES))}), got none",
                Code.NOT_FOUND,
            )
        return tuple(images)

    def where(self, name: str) -> str:
        """Return the name of a file for error messages."""
        return f"{self.path}: {name}"


@dataclass(frozen=True)
class _Folder(_Files):
    def read(self, name: str) -> bytes:
        return content_of(self.path / name, _MAX_BYTES)


@dataclass(frozen=True)
class _Zip(_Files):
    archive: ZipFile

    def read(self, name: str) -> bytes:
        member = self.archive.getinfo(name)
        if member.file_size > _MAX_BYTES:
            raise DataError(
                f"{self.where(name)} must have at most {_MAX_BYTES:,} bytes, got "
                f"{member.file_size:,}",
                Code.UNSAFE,
            )
        return self.archive.read(member)


@contextmanager
def _open(path: Path) -> Iterator[_Files]:
    if path.is_dir():
        yield _Folder(path, _list(path))
        return
    with open_zip(path) as archive:
        names = tuple(member.filename for member in archive.infolist() if not member.is_dir())
        yield _Zip(path, names, archive)


def _list(folder: Path) -> tuple[str, ...]:
    """List the files in a folder and its subfolders, except hidden ones.

    Raises:
        DataError: a file or a folder cannot be read.
    """
    try:
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed: {error.strerror}; make it readable", Code.IO_ERROR
        ) from error
    return tuple(
        file.as_posix() for file in files if not any(part.startswith(".") for part in file.parts)
    )


def _version(path: Path) -> str:
    if path.is_dir():
        return version_of(path / name for name in sorted(_list(path)))
    return version_of([path])


def _classes(files: _Files) -> Tensor:
    """Return the class of each image in ``dataset.json``, ``[N]`` int64."""
    where = files.where(_LABELS)
    if _LABELS not in files.names:
        raise DataError(
            f"{files.path}: must contain {_LABELS}; add it, or write labels = false",
            Code.NOT_FOUND,
        )
    try:
        listed = json.loads(files.read(_LABELS))["labels"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f'{where} must be a JSON object with "labels": {error}', Code.UNREADABLE
        ) from error
    if not listed:
        raise DataError(
            f"{where} must have labels, got none; write labels = false", Code.MISSING_ATTRIBUTE
        )
    classes: dict[str, int] = {}
    for entry in listed if isinstance(listed, list) else [listed]:
        match entry:
            case [str(name), int(label)] if not isinstance(label, bool) and abs(label) < 2**63:
                pass
            case _:
                raise DataError(
                    f'{where}: entries must be ["name of an image", class], got {quote(entry)}; '
                    "if the labels are not classes, write labels = false",
                    Code.WRONG_TYPE,
                )
        if name in classes:
            raise DataError(f"{where}: {name} must have one label, got two", Code.DUPLICATE)
        classes[name] = label
    images = set(files.images)
    if missing := sorted(images - classes.keys()):
        raise DataError(
            f"{where}: all images must have a label, got {len(missing):,} images without one, such "
            f"as {missing[0]}",
            Code.MISSING_ATTRIBUTE,
        )
    if absent := sorted(classes.keys() - images):
        raise DataError(
            f"{where}: labels must be for existing images, got a label for {absent[0]}",
            Code.NOT_FOUND,
        )
    return as_classes(np.array([classes[name] for name in files.images]), where)


def _parts(path: Path, shape: Shape, labels: Tensor | None) -> Iterator[Batch]:
    with _open(path) as files:
        yield from make_batches(_pixels(files, shape), labels)


def _pixels(files: _Files, shape: Shape) -> Iterator[Tensor]:
    first = files.where(files.images[0])
    for name in files.images:
        with open_image(io.BytesIO(files.read(name)), files.where(name)) as image:
            require_shape(_shape_of(image, files.where(name)), files.where(name), shape, first)
            yield pixels(image, shape[0])


def _shape(files: _Files, name: str) -> Shape:
    with open_image(io.BytesIO(files.read(name)), files.where(name)) as image:
        return _shape_of(image, files.where(name))


def _shape_of(image: Image.Image, where: str) -> Shape:
    """Return the shape of an image; raise DataError unless it is 8-bit gray or RGB, as in EDM."""
    shape = shape_of(image, where)
    if image.mode not in ("L", "RGB"):
        raise DataError(
            f"{where}: must be an 8-bit gray (L) or RGB image, got mode {image.mode}; convert it",
            Code.WRONG_SHAPE,
        )
    return shape
