from __future__ import annotations

import gzip
import hashlib
import io
import math
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genkit.artifacts import Samples
from genkit.types import Batch, RemoteFile
from genkit_data.cifar10 import CIFAR10
from genkit_data.cifar10_batches import BINARY, PYTHON, Version, read_binary


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
    return lambda batch: SimpleNamespace(
        read=lambda stage, artifact: {("fakes", Samples): Samples(batch, nfe=1)}[stage, artifact]
    )


def py2(text: bytes) -> bytes:
    """Return a short string as Python 2 pickled it."""
    return b"U" + bytes([len(text)]) + text


def python_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """Return a batch in the opcodes of the official Python version: protocol 2, by Python 2."""
    content = pixels.tobytes()
    shape = b"".join(b"M" + struct.pack("<H", side) for side in pixels.shape)
    return b"".join(
        [
            b"\x80\x02}q\x01(",
            py2(b"batch_label") + py2(b"training batch 1 of 5"),
            py2(b"labels") + b"](" + b"".join(b"K" + bytes([k]) for k in labels) + b"e",
            py2(b"data") + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85",
            py2(b"b") + b"\x87R(K\x01" + shape + b"\x86",
            b"cnumpy\ndtype\n" + py2(b"u1") + b"K\x00K\x01\x87R(K\x03" + py2(b"|"),
            b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            b"T" + struct.pack("<i", len(content)) + content + b"tb",
            py2(b"filenames") + b"](" + b"".join(py2(b"a.png") for _ in labels) + b"eu.",
        ]
    )


def binary_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    return np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1).tobytes()


def tar_gz(path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    """Write an archive; a member is given by its name or by all that a tar file says of it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


class SmallCIFAR10:
    """CIFAR-10 with 3 images a batch, in both versions, in a folder."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        draws = np.random.default_rng(0)
        self.root, self._monkeypatch = root, monkeypatch
        self.pixels = draws.integers(0, 256, (18, 3072), dtype=np.uint8)
        self.labels = draws.integers(0, 10, 18).tolist()
        self.publish()

    def members(self, version: Version) -> list[tuple[str, bytes]]:
        """Return the batches of a version, not in their order."""
        encode = binary_batch if version.read is read_binary else python_batch
        names = [*version.batches["train"], *version.batches["test"]]
        parts = [slice(3 * k, 3 * k + 3) for k in range(6)]
        batches = [
            (f"{version.folder}/{name}", encode(self.pixels[part], self.labels[part]))
            for name, part in zip(names, parts, strict=True)
        ]
        return [(f"{version.folder}/readme.html", b"read me"), *batches[2:], *batches[:2]]

    def write(self, version: Version, members: list[Any] | None = None) -> Path:
        """Write the archive of a version, by default a sound one, and publish it."""
        path = tar_gz(self.root / version.archive, members or self.members(version))
        self.publish()
        return path

    def unpack(self, version: Version) -> Path:
        for name, content in self.members(version):
            path = self.root / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return self.root / version.folder

    def publish(self) -> None:
        """Take size and checksum of what lies in the folder for the published ones."""
        small = []
        for version in (BINARY, PYTHON):
            path = self.root / version.archive
            content = path.read_bytes() if path.exists() else b""
            digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
            remote = RemoteFile(version.remote.url, len(content), digest)
            small.append(replace(version, remote=remote, images=3, digests={}, at_most=20_000))
        self._monkeypatch.setattr(CIFAR10, "versions", tuple(small))


@pytest.fixture
def small_cifar10(tmp_path, monkeypatch) -> SmallCIFAR10:
    return SmallCIFAR10(tmp_path, monkeypatch)
