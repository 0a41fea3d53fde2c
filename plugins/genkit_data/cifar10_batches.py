"""The two published versions of CIFAR-10: their files, and functions that read a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from genkit.errors import Code, DataError
from genkit.pickles import array, describe, read_pickle
from genkit.types import Batch, RemoteFile

SHAPE = (3, 32, 32)
CLASSES = 10
_PIXELS = 3 * 32 * 32


def read_binary(content: bytes, count: int, where: str) -> Batch:
    """Read a batch of the binary version.

    An image is one byte with its class, then 3,072 bytes: the red, the green and the blue channel.

    Args:
        content: content of the file.
        count: number of images of a batch.
        where: name of the file in error messages.

    Raises:
        DataError: the content does not have the size of ``count`` images, or a class is not from 0
            to 9.
    """
    if len(content) != count * (1 + _PIXELS):
        raise DataError(
            f"{where}: must have {count * (1 + _PIXELS):,} bytes, {1 + _PIXELS:,} for each of "
            f"{count:,} images, got {len(content):,}",
            Code.WRONG_LENGTH,
        )
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(count, 1 + _PIXELS)
    return _batch(records[:, 1:], records[:, 0].long(), where)


def read_python(content: bytes, count: int, where: str) -> Batch:
    """Read a batch of the Python version; the arguments are those of :func:`read_binary`.

    A batch is a pickled dictionary with an array ``data`` and a list ``labels``. The pickle is
    parsed as data: nothing in it is imported or called.

    Raises:
        DataError: the pickle is corrupt, or is not such a dictionary with ``count`` images.
    """
    tree = read_pickle(content, what=where)
    if not isinstance(tree, dict):
        raise DataError(f"{where}: must be a dictionary, got {describe(tree)}", Code.WRONG_KIND)
    # Python 2 wrote the names as bytes.
    parts = {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in tree.items()}
    if missing := next((name for name in ("data", "labels") if name not in parts), None):
        raise DataError(f'{where}: must contain "{missing}"', Code.NOT_FOUND)
    pixels, labels = array(parts["data"], what=where), parts["labels"]
    if pixels.dtype != np.uint8 or pixels.shape != (count, _PIXELS):
        raise DataError(
            f'{where}: "data" must be uint8 of shape ({count}, {_PIXELS}), got {pixels.dtype} of '
            f"shape {pixels.shape}",
            Code.WRONG_SHAPE,
        )
    bytes_only = isinstance(labels, list) and all(type(k) is int and 0 <= k < 256 for k in labels)
    if not bytes_only or len(labels) != count:
        raise DataError(
            f'{where}: "labels" must be a list of {count:,} classes, got {describe(labels)}',
            Code.WRONG_TYPE,
        )
    return _batch(torch.from_numpy(pixels), torch.tensor(labels), where)


def _batch(pixels: torch.Tensor, labels: torch.Tensor, where: str) -> Batch:
    invalid = labels >= CLASSES
    if bool(invalid.any()):
        index = int(invalid.nonzero()[0])
        raise DataError(
            f"{where}: the class of image {index} must be from 0 to 9, got {int(labels[index])}",
            Code.OUT_OF_RANGE,
        )
    return Batch(pixels.reshape(-1, *SHAPE), labels)


@dataclass(frozen=True)
class Version:
    """One version of the archive.

    Attributes:
        archive: file name of the archive.
        remote: address, size and checksum of the archive.
        folder: folder in the archive that contains the batches.
        batches: dict from each split to the names of its files, in order.
        images: number of images in each batch.
        read: function that decodes a batch: ``(content, images, where) -> Batch``.
        at_most: maximum size of a batch file, in bytes.
        digests: dict from the names of unpacked batch files to their published MD5 in hex.
    """

    archive: str
    remote: RemoteFile
    folder: str
    batches: Mapping[str, tuple[str, ...]]
    images: int
    read: Callable[[bytes, int, str], Batch]
    at_most: int
    digests: Mapping[str, str]


_SITE = "https://www.cs.toronto.edu/~kriz/"

BINARY = Version(
    archive="cifar-10-binary.tar.gz",
    remote=RemoteFile(
        f"{_SITE}cifar-10-binary.tar.gz", 170_052_171, "c32a1d4ab5d03f1284b67883e8d87530"
    ),
    folder="cifar-10-batches-bin",
    batches=MappingProxyType(
        {
            "train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
            "test": ("test_batch.bin",),
        }
    ),
    images=10_000,
    read=read_binary,
    at_most=30_730_000,
    digests=MappingProxyType({}),
)

PYTHON = Version(
    archive="cifar-10-python.tar.gz",
    remote=RemoteFile(
        f"{_SITE}cifar-10-python.tar.gz", 170_498_071, "c58f30108f718f92721af3b95e74349a"
    ),
    folder="cifar-10-batches-py",
    batches=MappingProxyType(
        {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
    ),
    images=10_000,
    read=read_python,
    at_most=32_000_000,
    digests=MappingProxyType(
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        }
    ),
)
VERSIONS = (BINARY, PYTHON)
