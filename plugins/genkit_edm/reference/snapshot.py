"""Safe reading of network snapshots and training states of EDM and EDM2."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genkit.errors import Code, DataError
from genkit.files import require_regular
from genkit.pickles import Global, TensorReader, TorchZip, read_pickle
from genkit_edm.reference.arguments import EDM2
from genkit_edm.reference.torch_module import iterate_tensors, mapping, parse_module, read_arguments

_EDM_NAME = re.compile(r"(?:network-snapshot|training-state)-(\d{1,12})")
_EDM2_NAME = re.compile(r"-(\d{7,12})(?:-(\d\.\d{1,9}))?\.pkl$")
_PACKAGES = frozenset({"collections", "dnnlib", "numpy", "torch", "torch_utils", "training"})
_NAMES = frozenset(
    {Global(module, name) for module in ("builtins", "__builtin__") for name in ("set", "bytes")}
    | {Global("_codecs", "encode")}
)


def is_expected(name: Global) -> bool:
    """Return whether a pickle of EDM may contain this name. The named object is never imported."""
    return name.module.partition(".")[0] in _PACKAGES or name in _NAMES


@dataclass(frozen=True)
class Snapshot:
    """A denoiser of the reference.

    Attributes:
        precond: class of its preconditioning.
        arguments: arguments of the constructor of that class.
        weights: parameters and buffers in float32, keyed by name in the state dictionary.
        averaged: whether the weights are averaged; False for a training state.
        encoder: class that converts between images and the generated data; empty if none.
        images: number of training images in the file's name; 0 if the name contains none.
        ema_length: relative length of the average in the file's name; None if it contains none.
    """

    precond: str
    arguments: Mapping[str, Any]
    weights: Mapping[str, NDArray[np.float32]]
    averaged: bool
    encoder: str
    images: int
    ema_length: float | None


def read_snapshot(path: Path) -> Snapshot:
    """Read ``network-snapshot-*.pkl`` or ``training-state-*.pt`` without executing code in it.

    Raises:
        DataError: the file is missing, corrupt, inconsistent or not a snapshot.
    """
    require_regular(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}", Code.IO_ERROR
        ) from error
    max_bytes = 2 * len(content)
    if content.startswith(TorchZip.BEGINNING):
        archive = TorchZip(content, str(path))
        return _snapshot(path, archive.pickle(), TensorReader(archive.storage, max_bytes))
    return _snapshot(path, content, TensorReader(_no_storage, max_bytes))


def _no_storage(key: str) -> bytes:
    raise DataError(
        f"storage {key[:40]!r} must be in the pickle, got a reference to a missing file",
        Code.UNREADABLE,
    )


def _snapshot(path: Path, content: bytes, reader: TensorReader) -> Snapshot:
    try:
        whole = read_pickle(content, what=str(path), expected=is_expected)
    except DataError as error:
        raise DataError(
            f"{error}; write the path of a snapshot of EDM or EDM2, or download the file again",
            error.code,
        ) from error
    parts = mapping(whole) if _is_mapping(whole) else {}
    if not {"ema", "net"} & parts.keys():
        raise DataError(
            f"{path} must be a network snapshot or a training state of EDM or EDM2; write the path "
            "of such a file",
            Code.WRONG_KIND,
        )
    averaged = "ema" in parts
    if not averaged and _is_mapping(parts["net"]):
        raise DataError(
            f"{path} must describe its network, got only weights, as in EDM2's training states; "
            "import a network-snapshot-*.pkl of the same training run",
            Code.WRONG_KIND,
        )
    try:
        module = parse_module(parts["ema" if averaged else "net"])
        arguments = read_arguments(module)
        nodes = list(iterate_tensors(module))
        encoder = parts.get("encoder")
        encoder_class = "" if encoder is None else parse_module(encoder).class_name
    except DataError as error:
        raise DataError(f"{path}: {error}", error.code) from error
    weights: dict[str, NDArray[np.float32]] = {}
    for name, node in nodes:
        try:
            weights[name] = _float32(reader.read(node))
        except DataError as error:
            raise DataError(f"{path}: {name}: {error}", error.code) from error
    images, ema_length = _training_time(path.name, module.class_name)
    return Snapshot(
        module.class_name, arguments, weights, averaged, encoder_class, images, ema_length
    )


def _is_mapping(node: Any) -> bool:
    try:
        mapping(node)
    except DataError:
        return False
    return True


def _training_time(name: str, precond: str) -> tuple[int, float | None]:
    """Return the number of training images and the relative EMA length in a file name."""
    if precond != EDM2:
        match = _EDM_NAME.search(name)
        return (1000 * int(match[1]) if match else 0), None
    match = _EDM2_NAME.search(name)
    if not match:
        return 0, None
    # The name contains the number of images in thousands, rounded down. Snapshots are usually
    # written at multiples of 1024 images; at most one of these rounds to the number in the name.
    thousands = int(match[1])
    images = 1024 * math.ceil(1000 * thousands / 1024)
    if images >= 1000 * (thousands + 1):
        images = 1000 * thousands
    return images, float(match[2]) if match[2] else None


def _float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Convert values to float32, or raise DataError if any would be rounded."""
    with np.errstate(over="ignore"):
        result = values.astype(np.float32)
    if values.dtype == np.float64 and not np.array_equal(result, values, equal_nan=True):
        raise DataError(
            "must have values that float32 represents exactly, got other float64 values",
            Code.OUT_OF_RANGE,
        )
    return result
