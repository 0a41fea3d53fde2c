"""Decoded images, kept as bytes in a file that is mapped into memory.

The first start decodes and writes the file, later ones map it. A mapped file is read when its
items are used, and all processes of a machine share one copy. Writing to an item changes it in
this process alone, never in the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from filelock import FileLock

from genkit import tensors
from genkit.errors import DataError
from genkit.files import atomic_write, cache_folder
from genkit.types import Batch

FOLDER = ".genkit"
_FORMAT = "1"  # of the file; another makes every kept one anew


@dataclass(frozen=True)
class Decoding:
    """What a data set decodes to.

    Attributes:
        shape: ``(N, C, H, W)`` of all images.
        labels: whether they have labels.
        parts: batches of uint8 images, N in all and in order; read once.
    """

    shape: tuple[int, int, int, int]
    labels: bool
    parts: Iterator[Batch]


def cached(beside: Path, name: str, version: str, decode: Callable[[], Decoding]) -> Batch:
    """Return decoded images: those that were kept, or else decode and keep them.

    They are kept in the folder ``.genkit`` beside the data; where that cannot be written, in the
    user's folder for caches; and where neither can, in memory.

    Args:
        beside: folder of the data.
        name: of the decoded data, unique in the folder.
        version: differs where the decoded images do.
        decode: begins to decode.

    Raises:
        DataError: the data cannot be decoded.
    """
    about = f"{_FORMAT} {version}"
    for place in _places(beside):
        try:
            return _kept(place / f"{name}.safetensors", about, decode)
        except (OSError, NotImplementedError):  # not writable, full, or without locks
            continue
    return _joined(decode())


def _places(beside: Path) -> Iterator[Path]:
    """Yield the folder beside the data, and that in the user's cache which stands for it."""
    yield beside / FOLDER
    if folder := cache_folder():
        yield folder / hashlib.sha256(bytes(beside.resolve())).hexdigest()[:16]


def _kept(path: Path, version: str, decode: Callable[[], Decoding]) -> Batch:
    found = _mapped(path, version)
    if found is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            # Another process may have made it meanwhile.
            if (found := _mapped(path, version)) is None:
                _write(path, version, decode())
                found = _mapped(path, version)
    if found is None:
        raise OSError(f"{path} cannot be read back")
    return found


def _mapped(path: Path, version: str) -> Batch | None:
    """Return what a file keeps; None where it is missing, damaged or of another version."""
    try:
        stored, about = tensors.load(path)
    except DataError:
        return None
    images, labels = stored.get("images"), stored.get("labels")
    if about.get("version") != version or images is None or images.dtype != torch.uint8:
        return None
    return Batch(images, labels)


def _write(path: Path, version: str, decoding: Decoding) -> None:
    """Write a safetensors file part by part, so that the images need not fit into memory."""
    count, size = decoding.shape[0], math.prod(decoding.shape)
    before = 8 * count if decoding.labels else 0  # labels first: they must lie at multiples of 8
    entries = {"images": _entry("U8", decoding.shape, before, before + size)}
    if decoding.labels:
        entries["labels"] = _entry("I64", (count,), 0, before)
    metadata = {"__metadata__": {"genkit": json.dumps({"version": version})}}
    header = json.dumps(metadata | entries).encode()
    header += b" " * (-len(header) % 8)
    with atomic_write(path) as file:
        file.write(struct.pack("<Q", len(header)) + header)
        start = file.tell()
        file.write(bytes(before))
        labels = _write_images(file, decoding)
        if labels:
            file.seek(start)
            file.write(torch.cat(labels).numpy().tobytes())


def _write_images(file: BinaryIO, decoding: Decoding) -> list[torch.Tensor]:
    """Write the images of each part, and return its labels."""
    labels = []
    for part in decoding.parts:
        file.write(part.data.contiguous().numpy().data)
        if part.labels is not None:
            labels.append(part.labels)
    return labels


def _entry(dtype: str, shape: tuple[int, ...], start: int, stop: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def _joined(decoding: Decoding) -> Batch:
    return Batch.joined(list(decoding.parts))
