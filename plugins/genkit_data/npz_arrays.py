"""Arrays in a ``.npz`` file of NumPy: judged by their headers, and never unpickled."""

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
    """One array of an archive.

    Attributes:
        path: of the archive.
        archive: opened.
        name: of the array.
    """

    path: Path
    archive: ZipFile
    name: str

    @cached_property
    def where(self) -> str:
        """Its name for messages."""
        return f'{self.path}: array "{self.name}"'

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """As its header says."""
        return self._header[0]

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """As its header says."""
        return self._header[1]

    def read(self) -> NDArray[Any]:
        """Return its content.

        Raises:
            DataError: it holds objects, is damaged, or does not fit into memory.
        """
        with self._opened() as file:
            try:
                content: NDArray[Any] = npy.read_array(file, allow_pickle=False)
            except (ValueError, MemoryError) as error:
                raise DataError(f"{self.where} cannot be read: {error}", Code.UNREADABLE) from error
        return content

    @cached_property
    def _header(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with self._opened() as file:
            try:
                version = npy.read_magic(file)
                readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                if version not in readers:
                    raise ValueError(f"its format is {version}")  # noqa: TRY301
                shape, _, dtype = readers[version](file)
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"{self.where} has no sound header: {error}", Code.UNREADABLE
                ) from error
            start = file.tell()
        if dtype.hasobject:
            raise DataError(f"{self.where} holds Python objects, which are never read", Code.UNSAFE)
        promised = math.prod(shape) * dtype.itemsize
        if (has := self._size - start) != promised:
            raise DataError(
                f"{self.where} has {has:,} bytes where its header promises {promised:,} "
                f"({' x '.join(map(str, shape))} of {dtype})",
                Code.WRONG_LENGTH,
            )
        return shape, dtype

    @property
    def _size(self) -> int:
        return self.archive.getinfo(f"{self.name}.npy").file_size

    def _opened(self) -> IO[bytes]:
        return self.archive.open(f"{self.name}.npy")


def find(path: Path, archive: ZipFile, names: Sequence[str]) -> Array | None:
    """Return the first array of one of these names, or None."""
    present = set(archive.namelist())
    return next((Array(path, archive, name) for name in names if f"{name}.npy" in present), None)
