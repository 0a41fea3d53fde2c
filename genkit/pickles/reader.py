"""Read a pickle with the standard library's unpickler, without imports and without calls.

A pickle is a program for a stack machine. Most opcodes create plain values. The others import
names, call them and change the results; here they create records instead.

The base class is the unpickler that is written in Python. A subclass of the one in C can replace
only ``find_class`` and ``persistent_load``. Then records would have to be classes, extension codes
would be looked up in a registry of the process, tuples of any depth would be hashed, and a pickle
of ten bytes could reserve a memo of 64 GB.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pickle import _Unpickler
from typing import Any, ClassVar

from genkit.errors import Code, DataError
from genkit.pickles.records import Call, Global, Persistent, describe

_MAX_INTEGER_BITS = 2048  # far below the 4300 digits above which Python refuses to print one
_DEFAULT: dict[int, Any] = _Unpickler.dispatch
# Extension codes and external buffers have a meaning only in the process that wrote the pickle.
# LONG4 is for integers of more than 255 bytes, NEWOBJ_EX for keyword arguments; no supported file
# contains either.
_REFUSED = pickle.EXT1 + pickle.EXT2 + pickle.EXT4 + pickle.NEXT_BUFFER + pickle.READONLY_BUFFER
_REFUSED += pickle.LONG4 + pickle.NEWOBJ_EX
# From opcode to the values that it hashes: a slice of the stack, which for all but SETITEM contains
# only the values above the last mark.
_HASHED = {
    pickle.SETITEM: slice(-2, -1),
    pickle.SETITEMS: slice(0, None, 2),
    pickle.DICT: slice(0, None, 2),
    pickle.ADDITEMS: slice(0, None),
    pickle.FROZENSET: slice(0, None),
}
_INVALID = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    Warning,  # for an invalid escape, where warnings are errors
    struct.error,
)
"""Exceptions that the standard library raises for an invalid pickle."""


def read_pickle(
    data: bytes | io.BytesIO,
    *,
    what: str = "pickle",
    expected: Callable[[Global], bool] | None = None,
) -> Any:
    """Return the content of a pickle as plain values and records.

    Tuples, lists, dictionaries, sets, strings, bytes and numbers are returned as such, and strings
    of Python 2 as bytes. Everything else is a :class:`~genkit.pickles.Global`, a
    :class:`~genkit.pickles.Call` or a :class:`~genkit.pickles.Persistent`. Objects may be shared, a
    container may contain itself, and the depth is not limited. Memory is proportional to the length
    of the pickle, up to 300 bytes per byte.

    Args:
        data: pickle of protocol 0 to 5, or a file at the start of one; the file's position is then
            moved to the end of the pickle.
        what: name of the pickle in messages, such as its path.
        expected: function that returns whether a name may occur in the pickle; None to accept
            every name.

    Raises:
        DataError: the pickle is damaged, contains a name that ``expected`` rejects, or refers to
            the extension registry or to external buffers.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return _Reader(file, what, expected).load()
    except _INVALID as error:
        is_reason = isinstance(error, pickle.UnpicklingError)
        reason = str(error) if is_reason else f"{type(error).__name__}: {error}"
        raise DataError(
            f"{what}: the pickle is invalid or truncated: {reason[:300]}", Code.UNREADABLE
        ) from error


def _bounded_integer(opcode: int) -> Callable[[_Reader], None]:
    def load(reader: _Reader) -> None:
        _DEFAULT[opcode](reader)
        if (bits := reader.stack[-1].bit_length()) > _MAX_INTEGER_BITS:
            raise pickle.UnpicklingError(f"an integer has {bits} bits")

    return load


def _without_tuples(opcode: int, keys: slice) -> Callable[[_Reader], None]:
    """Return the default function of an opcode, preceded by a check that it hashes no tuple.

    The hash of a deep tuple exhausts the C stack. The hash of a tuple that contains another tuple
    twice, which again contains another tuple twice, and so on, takes exponential time.
    """

    def load(reader: _Reader) -> None:
        if any(isinstance(key, tuple) for key in reader.stack[keys]):
            raise pickle.UnpicklingError("a tuple must not be a dictionary key or in a set")
        _DEFAULT[opcode](reader)

    return load


class _Reader(_Unpickler):
    """Unpickler that creates records where the default one imports or calls.

    Args:
        file: file at the start of the pickle.
        what: name of the pickle in messages.
        expected: function that returns whether a name may occur; None to accept every name.
    """

    stack: list[Any]

    def __init__(
        self, file: io.BytesIO, what: str, expected: Callable[[Global], bool] | None
    ) -> None:
        super().__init__(file, encoding="bytes")
        self._what, self._expected = what, expected

    def find_class(self, module: str, name: str) -> Global:
        record = Global(module, name)
        if self._expected is not None and not self._expected(record):
            raise DataError(
                f"{self._what}: the pickle contains code, which genkit does not run: it imports "
                f"{str(record)[:200]}, which such a file must not contain",
                Code.UNSAFE,
            )
        return record

    def persistent_load(self, pid: Any) -> Persistent:
        return Persistent(pid)

    def _instantiate(self, function: Any, args: list[Any] | tuple[Any, ...]) -> None:
        if not isinstance(function, (Global, Call, Persistent)):
            raise pickle.UnpicklingError(f"{describe(function)} cannot be called")
        self.stack.append(Call(function, tuple(args)))

    def _load_call(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(args, tuple):  # copies of a shared list, one per call, would be too large
            raise pickle.UnpicklingError(f"arguments must be a tuple, got {describe(args)}")
        self._instantiate(function, args)

    def _load_build(self) -> None:
        state, call = self.stack.pop(), self.stack[-1]
        if not isinstance(call, Call) or call.state is not None:
            raise pickle.UnpicklingError(f"the state of {describe(call)} cannot be set")
        call.state = state

    def _load_bytearray8(self) -> None:
        # The default allocates the announced number of bytes before it reads them.
        _DEFAULT[pickle.BINBYTES8[0]](self)
        self.stack[-1] = bytearray(self.stack[-1])

    dispatch: ClassVar[dict[int, Any]] = {
        **{opcode: load for opcode, load in _DEFAULT.items() if opcode not in _REFUSED},
        **{opcode[0]: _without_tuples(opcode[0], keys) for opcode, keys in _HASHED.items()},
        **{opcode: _bounded_integer(opcode) for opcode in pickle.INT + pickle.LONG},
        **dict.fromkeys(pickle.REDUCE + pickle.NEWOBJ, _load_call),
        pickle.BUILD[0]: _load_build,
        pickle.BYTEARRAY8[0]: _load_bytearray8,
    }
