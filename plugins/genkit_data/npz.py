"""Images in a ``.npz`` archive of NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Dataset, Inputs
from genkit.settings import FilePath, setting
from genkit.tensors import require_finite
from genkit.types import Batch, DataSpec
from genkit_data.cache import Decoding, load_or_decode
from genkit_data.classes import require_classes
from genkit_data.folder import existing, version_of
from genkit_data.npz_arrays import Array, find
from genkit_data.zipped import open_zip

_IMAGES = ("images", "arr_0")
_LABELS = ("labels", "arr_1")
_MAX_CHANNELS = 4  # an axis of at most this size is the channels, not height or width


@dataclass(frozen=True, kw_only=True)
class NPZ(Dataset):
    """Images in a ``.npz`` file of NumPy.

    The array ``images`` (or ``arr_0``) has the shape ``[N, H, W, C]`` or ``[N, C, H, W]`` with 1 to
    4 channels, and contains bytes from 0 to 255 or floats from -1 to 1. The array ``labels`` (or
    ``arr_1``) contains the class of each image. Pickled objects are never read.
    """

    path: FilePath = setting(doc="path of the .npz file; ~ is your home folder")
    labels: bool = setting(True, doc="read the class of each image from the array labels")

    def spec(self) -> DataSpec:
        path = existing(self.path)
        with open_zip(path) as archive:
            images = _images(path, archive)
            labels = self._classes(path, archive, len(images))
        return DataSpec(images.shape[1:], 0 if labels is None else int(labels.max()) + 1)

    def item_count(self) -> int:
        path = existing(self.path)
        with open_zip(path) as archive:
            return len(_images(path, archive))

    def version(self) -> str:
        return version_of([existing(self.path)])

    def load(self, inputs: Inputs) -> Batch:
        path = existing(self.path)
        with open_zip(path) as archive:
            images = _images(path, archive)
            if images.array.dtype != np.uint8:
                return Batch(images.floats(), self._classes(path, archive, len(images)))

            def decode() -> Decoding:
                labels = self._classes(path, archive, len(images))
                return Decoding(images.shape, self.labels, images.bytes(labels))

            name = f"{path.name}-labelled" if self.labels else path.name
            return load_or_decode(path.parent, name, self.version(), decode)

    def _classes(self, path: Path, archive: ZipFile, count: int) -> Tensor | None:
        """Return the class of each of ``count`` images; None if the setting ``labels`` is false."""
        if not self.labels:
            return None
        array = find(path, archive, _LABELS)
        if array is None:
            raise DataError(
                f'{path}: must contain an array "{_LABELS[0]}" or "{_LABELS[1]}"; add it, or write '
                "labels = false",
                Code.NOT_FOUND,
            )
        if array.dtype.kind not in "iu" or array.shape != (count,):
            raise DataError(
                f"{array.where} must be integers of shape ({count},), the classes of the images, "
                f"got {array.dtype} of shape {array.shape}",
                Code.WRONG_SHAPE,
            )
        classes = torch.from_numpy(array.read().astype(np.int64))
        require_classes(classes, array.where)
        return classes


@dataclass(frozen=True)
class _Images:
    """The array of the images.

    Attributes:
        array: array in the archive.
        channels_last: whether the shape of the array is ``[N, H, W, C]``.
    """

    array: Array
    channels_last: bool

    def __len__(self) -> int:
        return self.array.shape[0]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(N, C, H, W)``."""
        count, *sides = self.array.shape
        first, second, third = (sides[2], *sides[:2]) if self.channels_last else sides
        return count, first, second, third

    def bytes(self, labels: Tensor | None) -> Iterator[Batch]:
        """Yield one batch with all images as uint8; the array is read on iteration."""
        yield Batch(self._read(np.uint8), labels)

    def floats(self) -> Tensor:
        """Return all images as float32 in [-1, 1]."""
        with np.errstate(over="ignore"):  # overflow to inf is reported by require_finite
            values = self._read(np.float32)
        require_finite(values, f"{self.array.where}: image")
        outside = values.flatten(1).abs().amax(1) > 1
        if bool(outside.any()):
            index = int(outside.nonzero()[0])
            raise DataError(
                f"{self.array.where}: floats must be from -1 to 1, got image {index} with "
                f"{float(values[index].min()):g} to {float(values[index].max()):g}; write bytes "
                "from 0 to 255, or scale the floats",
                Code.OUT_OF_RANGE,
            )
        return values.contiguous()

    def _read(self, dtype: type[np.generic]) -> Tensor:
        values = torch.from_numpy(np.ascontiguousarray(self.array.read(), dtype))
        return values.movedim(-1, 1) if self.channels_last else values


def _images(path: Path, archive: ZipFile) -> _Images:
    array = find(path, archive, _IMAGES)
    if array is None:
        raise DataError(
            f'{path}: must contain an array "{_IMAGES[0]}" or "{_IMAGES[1]}"', Code.NOT_FOUND
        )
    shape = array.shape
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise DataError(
            f"{array.where} must be uint8 from 0 to 255 or floats from -1 to 1, got {array.dtype}",
            Code.WRONG_TYPE,
        )
    if len(shape) != 4 or 0 in shape:
        raise DataError(
            f"{array.where} must have the shape [N, H, W, C] or [N, C, H, W], got {shape}",
            Code.WRONG_SHAPE,
        )
    first, last = shape[1] <= _MAX_CHANNELS, shape[3] <= _MAX_CHANNELS
    if first == last:
        raise DataError(
            f"{array.where} must have 1 to {_MAX_CHANNELS} channels either first or last, got the "
            f"shape {shape}",
            Code.WRONG_SHAPE,
        )
    return _Images(array, channels_last=last)
