"""Check tensors, compute pairwise costs, convert images, and read and write safetensors files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from genkit.errors import Code, DamagedError, DataError
from genkit.files import require_regular, write_bytes

_METADATA = "genkit"
_RESTORE = "restore the file from a copy, or run the recipe that wrote it again"
DIGEST = "genkit.sha256"
"""Reserved key of the metadata with the digest of tensors and metadata."""

Cost = Literal["euclidean", "squared"]


def as_column(values: Tensor, like: Tensor) -> Tensor:
    """Return ``[B]`` values shaped ``[B, 1, ...]`` so that they broadcast over ``like``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def constant(values: Tensor) -> Tensor:
    """Copy a constant of a network, computed on the CPU, to the default device of torch.

    Arithmetic on the device "meta" would import the compiler of PyTorch, which takes seconds.
    """
    return values.to(torch.get_default_device())


def to_float(data: Tensor) -> Tensor:
    """Return uint8 images as float32 in [-1, 1]; images of other types are returned unchanged.

    Args:
        data: ``[N, *shape]`` images, uint8 from 0 to 255 or of any floating type.
    """
    return data.float().div_(127.5).sub_(1) if data.dtype == torch.uint8 else data


def to_uint8(data: Tensor) -> Tensor:
    """Return images as uint8 on the CPU, clipped to [-1, 1].

    Values are the integer part of ``127.5 x + 128``, computed in float64 for float64 images and in
    float32 for all others, as in EDM's image generation, so that equal samples give equal files.

    Args:
        data: images in [-1, 1] of any floating type, any shape.
    """
    wide = data if data.dtype == torch.float64 else data.float()
    return (wide * 127.5 + 128).clamp(0, 255).to("cpu", torch.uint8)


def as_stored(items: Tensor, what: str) -> Tensor:
    """Return images as uint8, clipped and rounded, and vectors as float32, on the CPU.

    Published scores are computed from 8-bit images. Samples are therefore stored in this form, and
    data is converted to it before the two are compared.

    Args:
        items: ``[N, C, H, W]`` images, uint8 or in [-1, 1]; or ``[N, D]`` vectors.
        what: name of an item in the message, such as ``"sample"``.

    Raises:
        DataError: an item is not finite; the message contains its index.
    """
    if not items.is_floating_point():
        return items.cpu()
    require_finite(items, what)
    return to_uint8(items) if items.ndim == 4 else items.cpu().float()


def stored_bytes(shape: Sequence[int]) -> int:
    """Return the bytes of a ``(C, H, W)`` or ``(D,)`` item in the form of :func:`as_stored`."""
    return math.prod(shape) * (1 if len(shape) == 3 else 4)  # uint8 or float32


def describe(values: object) -> str:
    """Return dtype, shape, device and range of int64 values of a tensor; the type of an object."""
    if not isinstance(values, Tensor):
        return type(values).__name__
    ends = f", from {values.min()} to {values.max()}" if values.dtype == torch.int64 else ""
    return f"{values.dtype} of shape {list(values.shape)} on {values.device.type}{ends}"


def require_finite(values: Tensor, what: str) -> None:
    """Raise DataError with the first index along dimension 0 at which a value is not finite.

    Args:
        values: ``[N, ...]`` values of any floating type.
        what: name of an item in the message, such as ``"image"``.
    """
    # A finite sum implies finite terms, and takes a tenth of the time of the exact check. Since a
    # sum of finite terms may overflow, the exact check follows if the sum is not finite.
    if bool(torch.isfinite(values.sum())):
        return
    rows = torch.isfinite(values[:, None].flatten(1)).all(dim=1)
    if not bool(rows.all()):
        index = int((~rows).nonzero()[0])
        bad = values[index].reshape(-1)
        value = float(bad[~torch.isfinite(bad)][0])
        raise DataError(f"{what} {index} of {len(values)} contains {value}", Code.NOT_FINITE)


def require_same_length(data: Sized, noise: Sized, noises_per_image: int = 1) -> None:
    """Raise DataError unless there are ``noises_per_image`` noise samples for each image."""
    count = len(data) * noises_per_image
    if len(noise) != count:
        raise DataError(
            f"noise must have {count} samples for {len(data)} images, got {len(noise)}; draw "
            f"{noises_per_image} for each image",
            Code.WRONG_LENGTH,
        )


def require_one_shape(data: Tensor, noise: Tensor) -> None:
    """Raise DataError unless images ``[N, *shape]`` and noise ``[M, *shape]`` agree in shape."""
    if data.shape[1:] != noise.shape[1:]:
        raise DataError(
            f"noise must have the shape of the images, {tuple(data.shape[1:])}, got "
            f"{tuple(noise.shape[1:])}; draw it with torch.randn(images.shape)",
            Code.WRONG_SHAPE,
        )


def pairwise_cost(data: Tensor, noise: Tensor, cost: Cost = "euclidean") -> Tensor:
    """Return the cost of every image-noise pair.

    Args:
        data: ``[N, *shape]`` images.
        noise: ``[M, *shape]`` unit-variance noise.
        cost: ``euclidean`` for the distance of flattened image and noise, ``squared`` for its
            square.

    Returns:
        ``[N, M]`` costs, float64 for float64 inputs and float32 for all others.

    Raises:
        DataError: images and noise differ in shape, or a value or a cost is not finite.
    """
    require_one_shape(data, noise)
    require_finite(data, "image")
    require_finite(noise, "noise")
    wide = torch.float64 if torch.float64 in (data.dtype, noise.dtype) else torch.float32
    x, y = data[:, None].flatten(1).to(wide), noise[:, None].flatten(1).to(wide)
    # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y takes one matrix product; rounding may make it negative.
    squared = x.square().sum(1)[:, None] + y.square().sum(1)[None, :] - 2 * (x @ y.T)
    result = squared.clamp_(min=0) if cost == "squared" else squared.clamp_(min=0).sqrt_()
    require_finite(result, "the cost of image")
    return result


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically. Equal content gives a byte-identical file.

    The metadata is one JSON object under the key ``genkit``, since safetensors writes several keys
    in random order. It contains a digest of tensors and metadata, which :func:`load` checks.

    Raises:
        DataError: the metadata has the reserved key ``genkit.sha256``.
    """
    if DIGEST in metadata:
        raise DataError(f"metadata must not have the key {DIGEST}; rename it", Code.INVALID_NAME)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {**metadata, DIGEST: content_digest(whole, metadata)}
    describe = {_METADATA: json.dumps(described, sort_keys=True)}
    write_bytes(path, safetensors.torch.save(whole, describe))


def load(path: Path, *, once: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, and the metadata that :func:`save` wrote to it.

    Args:
        path: path of the file.
        once: whether the digest is checked only once per process unless the file changes, for a
            large file that is read several times.

    Raises:
        DataError: the file is missing or not a safetensors file.
        DamagedError: the file does not have the content or the format that was written.
    """
    tensors, metadata = _read(path)
    written = metadata.pop(DIGEST, None)  # absent from files of earlier versions
    if written is None:
        return tensors, metadata
    about = path.stat()
    version = (path, about.st_mtime_ns, about.st_size, about.st_ino)
    if (_digest_once(*version) if once else content_digest(tensors, metadata)) != written:
        raise DamagedError(
            f"{path} must have the content that was written, got different content; {_RESTORE}"
        )
    return tensors, metadata


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with open_safetensors(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, _metadata_of(file)


@cache
def _digest_once(path: Path, *_: int) -> str:
    """Return the content digest of a file; time, size and inode are part of the key."""
    tensors, metadata = _read(path)
    metadata.pop(DIGEST)
    return content_digest(tensors, metadata)


def metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file as :func:`load` does, without its tensors.

    The digest is not checked, since it requires the tensors.
    """
    with open_safetensors(path) as file:
        return {key: value for key, value in _metadata_of(file).items() if key != DIGEST}


def has_digest(path: Path) -> bool:
    """Return whether a safetensors file contains a digest; files of earlier versions do not."""
    with open_safetensors(path) as file:
        return DIGEST in _metadata_of(file)


def _metadata_of(file: Any) -> dict[str, str]:
    table: dict[str, str] = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise ValueError("its metadata must be a table of strings")
    return table


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file; raises the errors of :func:`load`."""
    require_regular(path)
    try:
        path.open("rb").close()  # its OSError has the reason, such as a folder or a missing file
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (OSError, RecursionError, ValueError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        code = Code.NOT_FOUND if isinstance(error, FileNotFoundError) else Code.UNREADABLE
        kind, remedy = DataError, "write the path of a .safetensors file"
        if path.suffix == ".safetensors" and not isinstance(error, OSError):
            kind, remedy = DamagedError, _RESTORE
        text = f"{path}: cannot be read as safetensors: {reason}; {remedy}"
        raise kind(text, code) from error


def digest(values: Tensor) -> str:
    """Return the SHA-256 of dtype, shape and values of a tensor on the CPU, in hex."""
    sha256 = hashlib.sha256(f"{values.dtype} {list(values.shape)}".encode())
    # As bytes, since NumPy has no bfloat16.
    sha256.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def content_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of named tensors on the CPU and of their metadata, in hex."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # hashlib releases the GIL
        digests = pool.map(digest, tensors.values())
    return joint_digest(dict(zip(tensors, digests, strict=True)), metadata)


def joint_digest(digests: Mapping[str, str], metadata: Mapping[str, str]) -> str:
    """Return the content digest of tensors, given the :func:`digest` of each by its name."""
    described = json.dumps(dict(metadata), sort_keys=True)
    lines = [f"{json.dumps(name)} {digests[name]}" for name in sorted(digests)]
    return hashlib.sha256("\n".join([described, *lines]).encode()).hexdigest()


def network_digest(network: torch.nn.Module) -> str:
    """Return the SHA-256 of weights and preconditioner of a network.

    It is the same for a file that ``genkit export`` wrote, although the bytes of the file differ
    from those of the original.
    """
    sha256 = hashlib.sha256(repr(getattr(network, "preconditioner", None)).encode())
    for name, tensor in network.state_dict().items():
        sha256.update(f"{name} {digest(tensor.cpu())}".encode())
    return f"sha256:{sha256.hexdigest()}"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        DataError: the file cannot be read, or is not a regular file.
    """
    require_regular(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", Code.IO_ERROR) from error


def require_unchanged(path: Path, digest: str) -> None:
    """Raise DataError if a file changed since the recipe was checked.

    Args:
        path: path of the file.
        digest: SHA-256 of the file, in hex, computed when the recipe was checked.
    """
    if file_digest(path) != digest:
        raise DataError(
            f"{path}: changed since the recipe was checked; run the command again", Code.CHANGED
        )
