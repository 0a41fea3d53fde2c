"""The IDX format of the MNIST family: a big-endian header, then unsigned bytes, gzipped.

The header is a magic number (two zero bytes, 0x08 for unsigned bytes, the number of dimensions)
and the size of each dimension, every number of four bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from genkit.errors import Code, DataError


def read_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """Return the shape in the header of a gzipped IDX file, reading nothing behind it.

    Raises:
        DataError: the file is missing, not gzip, or not IDX bytes of this many dimensions.
    """
    with _opened(path) as file:
        return _shape(file, path, dimensions)


def read(path: Path, dimensions: int) -> Tensor:
    """Return the content of a gzipped IDX file, uint8.

    Raises:
        DataError: as for :func:`read_shape`, or the file is shorter or longer than its header says.
    """
    with _opened(path) as file:
        shape = _shape(file, path, dimensions)
        content = bytearray(file.read())
    size = math.prod(shape)
    if len(content) != size:
        raise DataError(
            f"{path}: holds {len(content)} bytes where its header promises {size} "
            f"({' x '.join(map(str, shape))}); fetch the file again",
            Code.WRONG_LENGTH,
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


@contextmanager
def _opened(path: Path) -> Iterator[gzip.GzipFile]:
    try:
        with gzip.open(path, "rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as gzip: {error}", Code.UNREADABLE) from error


def _shape(file: gzip.GzipFile, path: Path, dimensions: int) -> tuple[int, ...]:
    magic, size = struct.pack(">I", 0x0800 + dimensions), 4 * (1 + dimensions)
    head = file.read(size)
    if not magic.startswith(head[:4]):
        raise DataError(
            f"{path}: starts with bytes {head[:4].hex()}, but IDX bytes of {dimensions} "
            f"dimension{'s' if dimensions > 1 else ''} start with {magic.hex()}",
            Code.WRONG_KIND,
        )
    if len(head) < size:
        raise DataError(
            f"{path}: ends after {len(head)} of the {size} bytes of its IDX header", Code.UNREADABLE
        )
    shape = struct.unpack(f">{dimensions}I", head[4:])
    if 0 in shape:
        raise DataError(f"{path}: is empty ({' x '.join(map(str, shape))})", Code.WRONG_SHAPE)
    return shape
