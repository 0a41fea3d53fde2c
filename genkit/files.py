"""Files that are whole or absent: written beside their place, synced, then renamed."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends without an error.

    A kill at any moment leaves the old file or the new one.
    """
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Like :func:`write_bytes`, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Like :func:`write_bytes`, as indented JSON; see :func:`json_text`."""
    write_text(path, json_text(content, indent=2) + "\n")


def json_text(content: Any, indent: int | None = None) -> str:
    """Return JSON. A setting of ``inf``, for which JSON has no number, becomes the string "inf".

    Raises:
        ValueError: a value is NaN or minus infinity.
    """
    return json.dumps(_with_inf_as_text(content), indent=indent, allow_nan=False)


def _with_inf_as_text(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _with_inf_as_text(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_with_inf_as_text(value) for value in content]
    return "inf" if content == math.inf else content


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, in hex: what data sets are published with."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
