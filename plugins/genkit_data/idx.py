"""The gzipped IDX format of the MNIST data sets: a big-endian header followed by unsigned bytes.

The header is a magic number of four bytes (two zero bytes, 0x08 for unsigned bytes, the number of
dimensions), and four bytes for the size of each dimension.
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
    """Return the shape in the header of a gzipped IDX file, without reading its content.

    Raises:
        DataError: the file is missing, is not a gzip file, or is not an IDX file of bytes with this
            number of dimensions.
    """
    with _open(path) as file:
        return _shape(file, path, dimensions)


def read(path: Path, dimensions: int) -> Tensor:
    """Return the content of a gzipped IDX file as uint8.

    Raises:
        DataError: as for :func:`read_shape`, or the content does not have the size in the header.
    """
    with _open(path) as file:
        shape = _shape(file, path, dimensions)
        content = bytearray(file.read())
    size = math.prod(shape)
    if len(content) != size:
        raise DataError(
            f"{path}: must have the {size} bytes of its header "
            f"({' x '.join(map(str, shape))}), got {len(content)}; download the file again",
            Code.WRONG_LENGTH,
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


@contextmanager
def _open(path: Path) -> Iterator[gzip.GzipFile]:
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
            f"{path}: must start with {magic.hex()}, as IDX bytes of {dimensions} "
            f"dimension{'s' if dimensions > 1 else ''}, got {head[:4].hex()}",
            Code.WRONG_KIND,
        )
    if len(head) < size:
        raise DataError(
            f"{path}: must have an IDX header of {size} bytes, got {len(head)}; download the file "
            "again",
            Code.UNREADABLE,
        )
    shape = struct.unpack(f">{dimensions}I", head[4:])
    if 0 in shape:
        raise DataError(
            f"{path}: must have items, got the shape {' x '.join(map(str, shape))}",
            Code.WRONG_SHAPE,
        )
    return shape
