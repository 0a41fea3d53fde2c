"""Items in a ``.npz`` archive of NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Dataset, Inputs
from genkit.items import as_classes, as_items, channels_last
from genkit.settings import FilePath, setting
from genkit.types import Batch, DataSpec
from genkit_data.cache import Decoding, load_or_decode
from genkit_data.folder import existing, version_of
from genkit_data.npz_arrays import Array, find
from genkit_data.zipped import open_zip

_IMAGES = ("images", "arr_0")
_LABELS = ("labels", "arr_1")


@dataclass(frozen=True, kw_only=True)
class NPZ(Dataset):
    """Images or vectors in a ``.npz`` file of NumPy.

    The array ``images`` (or ``arr_0``) has the shape ``[N, H, W, C]`` or ``[N, C, H, W]`` with 1 to
    4 channels, and contains bytes from 0 to 255 or floats from -1 to 1. For vectors, such as points
    in the plane, it has the shape ``[N, D]`` and contains floats; the noise levels of the defaults
    suit vectors of standard deviation 0.5. The array ``labels`` (or ``arr_1``) contains the class
    of each item. Pickled objects are never read.
    """

    path: FilePath = setting(doc="path of the .npz file; ~ is your home folder")
    labels: bool = setting(True, doc="read the class of each item from the array labels")

    def spec(self) -> DataSpec:
        path = existing(self.path)
        with open_zip(path) as archive:
            array = _items(path, archive)
            labels = self._classes(path, archive, array.shape[0])
        return DataSpec(_shape(array)[1:], 0 if labels is None else int(labels.max()) + 1)

    def item_count(self) -> int:
        path = existing(self.path)
        with open_zip(path) as archive:
            return _items(path, archive).shape[0]

    def version(self) -> str:
        return version_of([existing(self.path)])

    def load(self, inputs: Inputs) -> Batch:
        path = existing(self.path)
        with open_zip(path) as archive:
            array = _items(path, archive)
            if array.dtype != np.uint8:
                labels = self._classes(path, archive, array.shape[0])
                return Batch(as_items(array.read(), array.where), labels)

            def decode() -> Decoding:
                labels = self._classes(path, archive, array.shape[0])
                count, channels, height, width = _shape(array)
                return Decoding((count, channels, height, width), self.labels, read(labels))

            def read(labels: Tensor | None) -> Iterator[Batch]:
                yield Batch(as_items(array.read(), array.where), labels)

            name = f"{path.name}-labelled" if self.labels else path.name
            return load_or_decode(path.parent, name, self.version(), decode)

    def _classes(self, path: Path, archive: ZipFile, count: int) -> Tensor | None:
        """Return the class of each of ``count`` items; None if the setting ``labels`` is false."""
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
                f"{array.where} must be integers of shape ({count},), the classes of the items, "
                f"got {array.dtype} of shape {array.shape}",
                Code.WRONG_SHAPE,
            )
        return as_classes(array.read(), array.where)


def _items(path: Path, archive: ZipFile) -> Array:
    """Return the array of the items, whose shape and type are valid."""
    array = find(path, archive, _IMAGES)
    if array is None:
        raise DataError(
            f'{path}: must contain an array "{_IMAGES[0]}" or "{_IMAGES[1]}"', Code.NOT_FOUND
        )
    channels_last(array.shape, array.dtype, array.where)
    return array


def _shape(array: Array) -> tuple[int, ...]:
    """Return the shape of the items as ``(N, C, H, W)`` or ``(N, D)``."""
    if channels_last(array.shape, array.dtype, array.where):
        count, height, width, channels = array.shape
        return count, channels, height, width
    return array.shape
