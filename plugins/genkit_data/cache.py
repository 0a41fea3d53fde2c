"""Cache decoded images as bytes in a memory-mapped file.

The first use decodes the images and writes the file; later uses map the file. Pages of a mapped
file are read on access, and all processes of a machine share them. Writing to an item changes the
copy of this process, never the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from genkit import tensors
from genkit.errors import DataError
from genkit.files import atomic_write, cache_folder
from genkit.types import Batch

FOLDER = ".genkit"
_FORMAT = "2"  # format of the file; files with a different format are rewritten


@dataclass(frozen=True)
class Decoding:
    """Decoded images of a data set.

    Attributes:
        shape: shape ``(N, C, H, W)`` of all images together.
        labels: whether the images have labels.
        parts: iterator over batches of uint8 images, in order, with N images in total.
    """

    shape: tuple[int, int, int, int]
    labels: bool
    parts: Iterator[Batch]


def load_or_decode(folder: Path, name: str, version: str, decode: Callable[[], Decoding]) -> Batch:
    """Load decoded images from the cache, or decode and cache them.

    The cache is the folder ``.genkit`` in the folder of the data, or the user's cache folder if the
    former is not writable. If neither is writable, the images are only kept in memory.

    Args:
        folder: folder of the data.
        name: name of the decoded data, unique in the folder.
        version: version of the decoded images; a cached file with a different one is rewritten.
        decode: function that starts decoding.

    Returns:
        All images, uint8, and their labels.

    Raises:
        DataError: the data cannot be decoded.
    """
    full_version = f"{_FORMAT} {version}"
    for cache in _cache_folders(folder):
        try:
            return _map_or_write(cache / f"{name}.safetensors", full_version, decode)
        except (OSError, NotImplementedError):  # not writable, disk full, or no file locks
            continue
    return Batch.joined(list(decode().parts))


def _cache_folders(folder: Path) -> Iterator[Path]:
    """Yield the cache folder in the folder of the data, then the one in the user's cache folder."""
    yield folder / FOLDER
    if user_cache := cache_folder():
        yield user_cache / hashlib.sha256(bytes(folder.resolve())).hexdigest()[:16]


def _map_or_write(path: Path, version: str, decode: Callable[[], Decoding]) -> Batch:
    batch = _map(path, version)
    if batch is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            # Another process may have written the file before the lock was acquired.
            if (batch := _map(path, version)) is None:
                _write(path, version, decode())
                batch = _map(path, version)
    if batch is None:
        raise OSError(f"{path} cannot be read back")
    return batch


def _map(path: Path, version: str) -> Batch | None:
    """Map a file; return None if it is missing, is corrupt or has a different version."""
    try:
        stored, metadata = tensors.load(path, once=True)
    except DataError:
        return None
    images, labels = stored.get("images"), stored.get("labels")
    if metadata.get("version") != version or images is None or images.dtype != torch.uint8:
        return None
    return Batch(images, labels)


def _write(path: Path, version: str, decoding: Decoding) -> None:
    """Write a safetensors file batch by batch, so that the images need not fit into memory."""
    count, size = decoding.shape[0], math.prod(decoding.shape)
    before = 8 * count if decoding.labels else 0  # labels first, for the 8-byte alignment of int64
    entries = {"images": _entry("U8", decoding.shape, before, before + size)}
    if decoding.labels:
        entries["labels"] = _entry("I64", (count,), 0, before)
    described = {"version": version}
    with atomic_write(path) as file:
        file.write(_header(entries, described, "0" * 64))  # replaced when the digest is known
        start = file.tell()
        file.write(bytes(before))
        digest = hashlib.sha256(f"{torch.uint8} {list(decoding.shape)}".encode())
        labels = []
        for part in decoding.parts:
            pixels = part.data.contiguous().numpy().data
            digest.update(pixels)
            file.write(pixels)
            if part.labels is not None:
                labels.append(part.labels)
        digests = {"images": digest.hexdigest()}
        if labels:
            file.seek(start)
            file.write(torch.cat(labels).numpy().tobytes())
            digests["labels"] = tensors.digest(torch.cat(labels))
        file.seek(0)
        file.write(_header(entries, described, tensors.joint_digest(digests, described)))


def _header(entries: Mapping[str, object], metadata: Mapping[str, str], digest: str) -> bytes:
    """Return the length and the header of a safetensors file, which ends at a multiple of 8."""
    described = json.dumps({**metadata, tensors.DIGEST: digest})
    header = json.dumps({"__metadata__": {"genkit": described}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def _entry(dtype: str, shape: tuple[int, ...], start: int, stop: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
