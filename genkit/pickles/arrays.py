"""Read arrays from pickles of numpy, without calling numpy's constructors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genkit.errors import Code, DataError
from genkit.pickles.records import Call, Global, describe

_MODULES = {f"numpy.{c}.{m}" for c in ("core", "_core") for m in ("multiarray", "numeric")}
_TYPES = {"b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"}
_EMPTY_BYTES = (Global("builtins", "bytes"), Global("__builtin__", "bytes"))
_MAX_DIMENSIONS = 32


def array(record: Any, *, what: str = "pickle") -> NDArray[Any]:
    """Return a copy of an array, or a 0-d array for a scalar.

    Args:
        record: record of a call of a numpy function, from the content of a pickle.
        what: name of the pickle in messages.

    Raises:
        DataError: the record is not of an array, or its dtype, shape and bytes are inconsistent.
    """
    shape: Any = ()
    order: Any = "C"
    if _is_call(record, "scalar", 2):
        kind, content = record.args
    elif _is_call(record, "_frombuffer", 4):  # protocol 5
        content, kind, shape, order = record.args
    elif _is_call(record, "_reconstruct", 3) and _length(record.state) == 5:
        _, shape, kind, is_fortran, content = record.state
        order = "F" if is_fortran else "C"
    else:
        raise DataError(f"{what} must be a numpy array, got {describe(record)}", Code.WRONG_KIND)
    dtype, raw = _dtype(kind, what), _bytes(content, what)
    plain = _length(shape) <= _MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in shape)
    # numpy rejects even an array without elements if its other dimensions are too large.
    if not plain or math.prod(n or 1 for n in shape) >= 2**48:
        raise DataError(
            f"{what}: the shape of an array must be a tuple of at most {_MAX_DIMENSIONS} "
            f"nonnegative integers with a product below 2^48, got {describe(shape)}",
            Code.OUT_OF_RANGE,
        )
    if len(raw) != (expected := math.prod(shape) * dtype.itemsize):
        raise DataError(
            f"{what}: an array of shape {shape} and type {dtype} must have {expected} bytes, "
            f"got {len(raw)}",
            Code.WRONG_LENGTH,
        )
    fortran = _text(order) == "F"
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C").copy()


def _is_call(record: Any, name: str, count: int) -> bool:
    return (
        isinstance(record, Call)
        and isinstance(record.function, Global)
        and record.function.module in _MODULES
        and (record.function.name, len(record.args)) == (name, count)
    )


def _length(value: Any) -> float:
    """Return the length of a tuple, and infinity for other values."""
    return len(value) if isinstance(value, tuple) else math.inf


def _dtype(record: Any, what: str) -> np.dtype[Any]:
    is_dtype = isinstance(record, Call) and record.function == Global("numpy", "dtype")
    name = _text(record.args[0]) if is_dtype and record.args else ""
    if name not in _TYPES:
        raise DataError(
            f"{what}: the dtype of an array must be {', '.join(sorted(_TYPES))}, got "
            f"{name or describe(record)}",
            Code.WRONG_TYPE,
        )
    # The state is (version, byte order, ...); the byte order of one-byte types is "|".
    order = _text(record.state[1]) if 1 < _length(record.state) < math.inf else "|"
    if order not in ("<", ">", "|", "="):
        raise DataError(
            f"{what}: the byte order of an array must be <, >, | or =, got {order!r}",
            Code.UNKNOWN_CHOICE,
        )
    return np.dtype(name).newbyteorder("<" if order == "=" else order)  # type: ignore[arg-type]


def _text(value: Any) -> str:
    """Return a short string, which Python 2 wrote as bytes; empty for another type."""
    text = value[:16].decode("latin-1") if isinstance(value, bytes) else value
    return text[:16] if isinstance(text, str) else ""


def _bytes(value: Any, what: str) -> bytes:
    """Return bytes. Python 3 writes them in protocol 2 as a call that encodes a string."""
    if isinstance(value, Call) and value.function in _EMPTY_BYTES and not value.args:
        return b""
    encoded = isinstance(value, Call) and value.function == Global("_codecs", "encode")
    if encoded and value.args[1:] == ("latin1",) and isinstance(text := value.args[0], str):
        value = text.encode("latin-1") if max(text, default="") <= "\xff" else text
    if not isinstance(value, (bytes, bytearray)):
        raise DataError(
            f"{what}: the content of an array must be bytes, got {describe(value)}",
            Code.UNREADABLE,
        )
    return bytes(value)
