"""Arrays that numpy pickled, made from their bytes alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genkit.errors import DataError
from genkit.pickles.nodes import Call, Global, described

_MODULES = frozenset(
    f"numpy.{core}.{module}" for core in ("core", "_core") for module in ("multiarray", "numeric")
)
_TYPES = frozenset({"b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"})
_EMPTY = (Global("builtins", "bytes"), Global("__builtin__", "bytes"))
_MOST_DIMENSIONS = 32


def array(node: Any, *, what: str = "pickle") -> NDArray[Any]:
    """Return the array that a note of numpy's stands for, as a copy of its own.

    Args:
        node: what :func:`~genkit.pickles.read_pickle` returned for an array or a scalar of numpy's,
            a scalar giving an array without dimensions.
        what: the pickle is called in messages.

    Raises:
        DataError: it is no such note, or its type, shape and bytes do not fit one another.
    """
    if _calls(node, "scalar") and len(node.args) == 2:
        kind, content = node.args
        return _filled((), _dtype(kind, what), _bytes(content, what), "C", what)
    if _calls(node, "_frombuffer") and len(node.args) == 4:  # protocol 5
        content, kind, shape, order = node.args
        checked = _bytes(content, what)
        return _filled(_shape(shape, what), _dtype(kind, what), checked, _text(order), what)
    if not (_calls(node, "_reconstruct") and isinstance(node.state, tuple)):
        raise DataError(f"{what}: {described(node)} is no numpy array")
    if len(node.state) != 5:
        raise DataError(f"{what}: a numpy array has {len(node.state)} parts, and not 5")
    _, shape, kind, is_fortran, content = node.state
    dtype, order = _dtype(kind, what), "F" if is_fortran else "C"
    return _filled(_shape(shape, what), dtype, _bytes(content, what), order, what)


def _calls(node: Any, name: str) -> bool:
    return (
        isinstance(node, Call)
        and isinstance(node.function, Global)
        and node.function.module in _MODULES
        and node.function.name == name
    )


def _filled(
    shape: tuple[int, ...], dtype: np.dtype[Any], content: bytes, order: str, what: str
) -> NDArray[Any]:
    wanted = math.prod(shape) * dtype.itemsize
    if len(content) != wanted:
        raise DataError(
            f"{what}: an array of shape {shape} and type {dtype} needs {wanted} bytes, "
            f"and has {len(content)}"
        )
    flat = np.frombuffer(content, dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C").copy()


def _shape(shape: Any, what: str) -> tuple[int, ...]:
    plain = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    # Also an array without elements is refused by numpy where its other dimensions are too large.
    if not plain or len(shape) > _MOST_DIMENSIONS or math.prod(n or 1 for n in shape) >= 2**48:
        raise DataError(f"{what}: {described(shape)} is no shape of an array")
    checked: tuple[int, ...] = shape
    return checked


def _dtype(node: Any, what: str) -> np.dtype[Any]:
    known = isinstance(node, Call) and node.function == Global("numpy", "dtype") and node.args
    name = _text(node.args[0]) if known else ""
    if name not in _TYPES:
        raise DataError(f"{what}: {name or described(node)} is no type of numbers that is read")
    # The state is (version, byte order, ...); one-byte types have | for their order.
    order = _text(node.state[1]) if isinstance(node.state, tuple) and len(node.state) > 1 else "|"
    if order not in ("<", ">", "|", "="):
        raise DataError(f"{what}: {order!r} is no byte order of an array")
    return np.dtype(name).newbyteorder("<" if order == "=" else order)  # type: ignore[arg-type]


def _text(value: Any) -> str:
    """Return a name; Python 2 wrote it as bytes."""
    if isinstance(value, bytes):
        return value[:16].decode("latin-1")
    return value[:16] if isinstance(value, str) else ""


def _bytes(value: Any, what: str) -> bytes:
    """Return bytes; Python 3 writes them in protocol 2 as a call that makes them from text."""
    encoded = isinstance(value, Call) and value.function == Global("_codecs", "encode")
    if encoded and len(value.args) == 2 and value.args[1] == "latin1":
        text = value.args[0]
        if isinstance(text, str) and (not text or max(text) <= "\xff"):
            return text.encode("latin-1")
    empty = isinstance(value, Call) and value.function in _EMPTY and not value.args
    if empty:
        return b""
    if not isinstance(value, (bytes, bytearray)):
        raise DataError(f"{what}: {described(value)} is no content of an array")
    return bytes(value)
