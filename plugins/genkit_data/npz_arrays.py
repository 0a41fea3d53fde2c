"""Arrays in a ``.npz`` file of NumPy. Their headers are checked, and they are never unpickled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from genkit.errors import Code, DataError


@dataclass(frozen=True)
class Array:
    """An array in an archive.

    Attributes:
        path: path of the archive.
        archive: opened archive.
        name: name of the array.
    """

    path: Path
    archive: ZipFile
    name: str

    @cached_property
    def where(self) -> str:
        """Name of the archive and the array for error messages."""
        return f'{self.path}: array "{self.name}"'

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, from its header."""
        return self._header[0]

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array, from its header."""
        return self._header[1]

    def read(self) -> NDArray[Any]:
        """Return the content of the array.

        Raises:
            DataError: the array contains objects, is corrupt, or does not fit into memory.
        """
        with self._open() as file:
            try:
                content: NDArray[Any] = npy.read_array(file, allow_pickle=False)
            except (ValueError, MemoryError) as error:
                raise DataError(f"{self.where} cannot be read: {error}", Code.UNREADABLE) from error
        return content

    @cached_property
    def _header(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with self._open() as file:
            try:
                version = npy.read_magic(file)
                readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                if version not in readers:
                    raise ValueError(f"unknown format {version}")  # noqa: TRY301
                shape, _, dtype = readers[version](file)
                # NumPy accepts these; the product of two negative lengths is positive.
                if any(isinstance(length, bool) or length < 0 for length in shape):
                    raise ValueError(f"the lengths {shape} are not at least 0")  # noqa: TRY301
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"{self.where} must have a valid header: {error}", Code.UNREADABLE
                ) from error
            start = file.tell()
        if dtype.hasobject:
            raise DataError(
                f"{self.where} must contain numbers, got Python objects, which are never read",
                Code.UNSAFE,
            )
        size = math.prod(shape) * dtype.itemsize
        if (stored := self._size - start) != size:
            raise DataError(
                f"{self.where} must have the {size:,} bytes of its header "
                f"({' x '.join(map(str, shape))} of {dtype}), got {stored:,}",
                Code.WRONG_LENGTH,
            )
        return shape, dtype

    @property
    def _size(self) -> int:
        return self.archive.getinfo(f"{self.name}.npy").file_size

    def _open(self) -> IO[bytes]:
        return self.archive.open(f"{self.name}.npy")


def find(path: Path, archive: ZipFile, names: Sequence[str]) -> Array | None:
    """Return the array with the first of these names that exists; None if none exists."""
    present = set(archive.namelist())
    return next((Array(path, archive, name) for name in names if f"{name}.npy" in present), None)
