from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from genkit.types import Batch


def idx_bytes(
    shape: tuple[int, ...], content: bytes | None = None, magic: int | None = None
) -> bytes:
    """Return an unzipped IDX file, built by hand; by default of the bytes 0, 1, 2, ..."""
    if content is None:
        content = bytes(k % 256 for k in range(math.prod(shape)))
    if magic is None:
        magic = 0x0800 + len(shape)
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + content


@pytest.fixture
def write_idx() -> Callable[..., Path]:
    def write(path: Path, *args: object, **kwargs: object) -> Path:
        path.write_bytes(gzip.compress(idx_bytes(*args, **kwargs)))
        return path

    return write


@pytest.fixture
def inputs() -> SimpleNamespace:
    """What earlier stages left: nothing."""
    return SimpleNamespace()


@pytest.fixture
def with_samples() -> Callable[[Batch], SimpleNamespace]:
    """What earlier stages left: samples of the stage "fakes"."""
    return lambda batch: SimpleNamespace(samples={"fakes": batch}.__getitem__)
