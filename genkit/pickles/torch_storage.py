"""Read tensors from pickles of torch, without torch.

A pickled tensor is a call of ``_rebuild_tensor_v2`` with a storage, an offset, a shape and strides.
In a plain pickle the storage is a call of ``_load_from_bytes`` whose argument is a whole file of
``torch.save`` in the format before PyTorch 1.6. In a zip file of ``torch.save`` the storage is a
member of the zip file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genkit.errors import Code, DataError
from genkit.pickles.reader import read_pickle
from genkit.pickles.records import Call, Global, Persistent, describe

Values = NDArray[Any]

_MOST = 2**48  # number of elements that no memory holds; below it, numpy's sizes do not overflow
_MAGIC = 0x1950A86A20F9469CFC6C
_FORMAT = 1001
_TYPES: dict[Global, np.dtype[Any]] = {
    Global("torch", "HalfStorage"): np.dtype("<f2"),
    Global("torch", "FloatStorage"): np.dtype("<f4"),
    Global("torch", "DoubleStorage"): np.dtype("<f8"),
}
_PARAMETER = Global("torch._utils", "_rebuild_parameter")
_TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
_NESTED = Global("torch.storage", "_load_from_bytes")


def is_torch(name: Global) -> bool:
    """Return whether a pickled state dictionary may contain a name."""
    return name.module.partition(".")[0] in ("collections", "torch")


class TensorReader:
    """Converts the tensors of a pickle to arrays.

    Args:
        outside: function from the key of a storage outside of the pickle to its bytes.
        most_bytes: max size of all arrays together in bytes, since tensors may share a storage.
    """

    def __init__(self, outside: Callable[[str], bytes], most_bytes: int) -> None:
        self._outside = outside
        self._left = most_bytes
        self._known: dict[int | str, Values] = {}

    def read(self, node: Any) -> Values:
        """Return a tensor or parameter as a contiguous array of float16, float32 or float64.

        Raises:
            DataError: the node is not a tensor, or its dtype, shape, strides, offset and storage
                are inconsistent.
        """
        if _is_call(node, _PARAMETER, 3):
            node = node.args[0]
        if not (_is_call(node, _TENSOR, 6) or _is_call(node, _TENSOR, 7)):
            raise DataError(f"a tensor is required, got {describe(node)}", Code.WRONG_KIND)
        storage, offset, shape, strides = node.args[:4]
        return self._part(self._storage(storage), offset, shape, strides)

    def _part(self, storage: Values, offset: Any, shape: Any, strides: Any) -> Values:
        """Return the elements at an offset with a shape and strides, all inside of the storage.

        Each element may be used only once: with strides of 0, a small file would contain a huge
        tensor.
        """
        sizes, steps = _lengths(shape, "shape"), _lengths(strides, "strides")
        (start,) = _lengths((offset,), "offset")
        if len(sizes) != len(steps):
            raise DataError(
                f"shape {shape} and strides {strides} differ in length", Code.WRONG_LENGTH
            )
        count = math.prod(sizes)
        last = start + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True))
        if count and last >= len(storage):
            raise DataError(
                f"offset {offset}, shape {shape} and strides {strides} reach element {last} of a "
                f"storage of {len(storage)}",
                Code.OUT_OF_RANGE,
            )
        extent = 1
        for step, n in sorted((step, n) for step, n in zip(steps, sizes, strict=True) if n > 1):
            if count and step < extent:
                raise DataError(
                    f"shape {shape} with strides {strides} uses an element twice", Code.DUPLICATE
                )
            extent = step * (n - 1) + extent
        width = storage.itemsize
        self._left -= count * width
        if self._left < 0:
            raise DataError(
                "the tensors must not be together much larger than the file whose storages they "
                "share",
                Code.UNSAFE,
            )
        if math.prod(n or 1 for n in sizes) >= _MOST:  # numpy rejects it even without elements
            raise DataError(f"shape {shape} must have fewer than 2^48 elements", Code.UNSAFE)
        if not count:
            return np.empty(sizes, storage.dtype)
        by_bytes = tuple(step * width if n > 1 else 0 for step, n in zip(steps, sizes, strict=True))
        view = np.lib.stride_tricks.as_strided(storage[start:], sizes, by_bytes, writeable=False)
        return view.copy(order="C")

    def _storage(self, node: Any) -> Values:
        if _is_call(node, _NESTED, 1) and isinstance(content := node.args[0], bytes):
            if id(content) not in self._known:
                self._known[id(content)] = _nested(content)
            return self._known[id(content)]
        if not isinstance(node, Persistent):
            raise DataError(
                f"a storage of a tensor is required, got {describe(node)}", Code.WRONG_KIND
            )
        dtype, key, count = _storage_id(node.id)
        if key not in self._known:
            self._known[key] = _values(self._outside(key), 0, dtype, count)
        if len(values := self._known[key]) != count or values.dtype != dtype:
            raise DataError(f"storage {key} must have one length and dtype, got two", Code.CONFLICT)
        return values


def _nested(content: bytes) -> Values:
    """Return the storage in a ``torch.save`` file of the format before PyTorch 1.6."""
    what, file = "a storage inside the pickle", io.BytesIO(content)
    magic, number, system, storage, keys = (
        read_pickle(file, what=what, expected=is_torch) for _ in range(5)
    )
    if (magic, number) != (_MAGIC, _FORMAT):
        raise DataError(f"{what} must be a torch.save file of format {_FORMAT}", Code.WRONG_KIND)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise DataError(
            f"{what} must be little-endian, got another byte order", Code.UNKNOWN_CHOICE
        )
    if not isinstance(storage, Persistent):
        raise DataError(f"{what} contains {describe(storage)}", Code.WRONG_TYPE)
    dtype, key, count = _storage_id(storage.id)
    if keys != [key]:
        raise DataError(f"{what} does not contain the storage that it describes", Code.NOT_FOUND)
    length = file.read(8)
    if len(length) < 8 or int.from_bytes(length, "little", signed=True) != count:
        raise DataError(f"{what} must have {count} elements, got another number", Code.CONFLICT)
    return _values(content, file.tell(), dtype, count)


def _storage_id(pid: Any) -> tuple[np.dtype[Any], str, int]:
    """Return dtype, key and number of elements from torch's persistent id of a storage."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
        raise DataError(
            f"the persistent id of a storage is required, got {describe(pid)}", Code.WRONG_KIND
        )
    kind, key, location, count = pid[1:5]
    dtype = _TYPES.get(kind) if isinstance(kind, Global) else None
    if dtype is None:
        supported = ", ".join(name.name for name in _TYPES)
        raise DataError(
            f"the type of a storage must be one of {supported}, got {describe(kind)}; convert the "
            "tensors to float32",
            Code.UNKNOWN_CHOICE,
        )
    if not (isinstance(key, str) and isinstance(location, str)):
        raise DataError("the key and location of a storage must be strings", Code.INVALID_NAME)
    if pid[5:] not in ((), (None,)):
        raise DataError("a storage must not be a view of another storage", Code.UNSAFE)
    (length,) = _lengths((count,), "length of a storage")
    return dtype, key, length


def _values(content: bytes, start: int, dtype: np.dtype[Any], count: int) -> Values:
    if len(content) - start != (wanted := count * dtype.itemsize):
        raise DataError(
            f"a storage of {count} {dtype} values must have {wanted} bytes, got "
            f"{len(content) - start}",
            Code.WRONG_LENGTH,
        )
    return np.frombuffer(content, dtype, count, start)


def _lengths(values: Any, what: str) -> tuple[int, ...]:
    plain = isinstance(values, tuple) and all(type(n) is int and 0 <= n < _MOST for n in values)
    if not plain or len(values) > 32:
        raise DataError(
            f"{what} must be at most 32 integers from 0 to 2^48 - 1, got {describe(values)}",
            Code.WRONG_TYPE,
        )
    return tuple(values)


def _is_call(node: Any, function: Global, arguments: int) -> bool:
    return isinstance(node, Call) and node.function == function and len(node.args) == arguments
