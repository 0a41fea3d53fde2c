"""Network snapshots and training states of EDM's reference implementation, read as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genkit.errors import DataError
from genkit.pickles import read_pickle
from genkit_edm.torch_module import constructor, module_of, tensors_of
from genkit_edm.torch_storage import TensorReader, is_expected
from genkit_edm.torch_zip import TorchZip

_IMAGES = re.compile(r"(?:network-snapshot|training-state)-(\d{1,12})")


@dataclass(frozen=True)
class Snapshot:
    """A denoiser of the reference, under its names.

    Attributes:
        precond: class of its preconditioning.
        arguments: of the constructor of that class.
        weights: parameters and buffers in float32, by their names in a state dictionary.
        averaged: False for a training state, which holds the weights that are being trained.
        images: it was trained for, as the file's name tells; 0 where it does not.
    """

    precond: str
    arguments: Mapping[str, Any]
    weights: Mapping[str, NDArray[np.float32]]
    averaged: bool
    images: int


def read_snapshot(path: Path) -> Snapshot:
    """Read ``network-snapshot-*.pkl`` or ``training-state-*.pt``; nothing in them is executed.

    Raises:
        DataError: the file is missing, damaged, holds something else or contradicts itself.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    most = 2 * len(content)
    if content.startswith(TorchZip.BEGINNING):
        stored = TorchZip(content, str(path))
        return _snapshot(path, stored.pickle(), TensorReader(stored.storage, most))
    return _snapshot(path, content, TensorReader(_nothing_outside, most))


def _nothing_outside(key: str) -> bytes:
    raise DataError(f"storage {key[:40]!r} lies outside the pickle, and there is no file beside it")


def _snapshot(path: Path, content: bytes, reader: TensorReader) -> Snapshot:
    try:
        whole = read_pickle(content, what=str(path), expected=is_expected)
    except DataError as error:
        raise DataError(
            f"{error}; no snapshot of EDM's, or one that is damaged or cut off"
        ) from error
    if not isinstance(whole, dict) or not {"ema", "net"} & whole.keys():
        raise DataError(f"{path} holds no network snapshot and no training state of EDM's")
    averaged = "ema" in whole
    try:
        module = module_of(whole["ema" if averaged else "net"])
        arguments = constructor(module)
        nodes = list(tensors_of(module))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    weights: dict[str, NDArray[np.float32]] = {}
    for name, node in nodes:
        try:
            weights[name] = _float32(reader.read(node))
        except DataError as error:
            raise DataError(f"{path}: {name}: {error}") from error
    found = _IMAGES.search(path.name)
    images = 1000 * int(found[1]) if found else 0
    return Snapshot(module.class_name, arguments, weights, averaged, images)


def _float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the same values in float32; nothing is rounded."""
    with np.errstate(over="ignore"):
        result = values.astype(np.float32)
    if values.dtype == np.float64 and not np.array_equal(result, values, equal_nan=True):
        raise DataError("its float64 values do not fit into float32, and are not rounded")
    return result
