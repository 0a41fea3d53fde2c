"""Reads a pickle: opcode by opcode until it stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genkit.pickles.depth import is_deeper
from genkit.pickles.machine import Limits, Machine
from genkit.pickles.nodes import Global
from genkit.pickles.opcodes import OPCODES, STOP
from genkit.pickles.stream import Stream

_DEFAULT = Limits()


def read_pickle(
    data: bytes,
    *,
    what: str = "pickle",
    limits: Limits = _DEFAULT,
    expected: Callable[[Global], bool] | None = None,
) -> Any:
    """Return what a pickle holds, as plain values and notes.

    Tuples, lists, dictionaries, sets, strings, bytes and numbers are themselves; strings of Python
    2 are bytes. All else is a :class:`~genkit.pickles.Global`, a :class:`~genkit.pickles.Call` or a
    :class:`~genkit.pickles.Persistent`. Parts may be shared, and a container may hold itself.

    Args:
        data: the whole pickle, of any protocol.
        what: it is called in messages, such as its path.
        limits: what it may take.
        expected: whether a name may be asked for; left out, every one may, as it is only noted.

    Raises:
        DataError: it is damaged, ends early or late, takes more than it may, asks for a name that
            is not expected, or for the extension registry or buffers from outside; with the byte
            at which that shows.
    """
    tree, end = read_next(data, 0, what=what, limits=limits, expected=expected)
    if end != len(data):
        stream = Stream(data, end, what)
        raise stream.failure(f"the pickle has ended, and {len(data) - end} bytes follow")
    return tree


def read_next(
    data: bytes,
    start: int,
    *,
    what: str = "pickle",
    limits: Limits = _DEFAULT,
    expected: Callable[[Global], bool] | None = None,
) -> tuple[Any, int]:
    """Return what the pickle that begins at a byte holds, and where it ends.

    Like :func:`read_pickle`, for a pickle that others follow.
    """
    stream = Stream(data, start, what)
    machine = Machine(stream, limits, expected)
    for _ in range(limits.opcodes):
        opcode = stream.opcode()
        if opcode == STOP:
            return _finished(machine), stream.position
        if opcode not in OPCODES:
            raise stream.failure(f"0x{opcode:02x} is no opcode of a pickle")
        OPCODES[opcode](machine)
    raise stream.failure(f"the pickle has more than {limits.opcodes} opcodes")


def _finished(machine: Machine) -> Any:
    machine.stream.stop()
    tree = machine.pop()
    if is_deeper(tree, limit := machine.limits.depth):
        machine.fail(f"containers and calls lie more than {limit} deep inside one another")
    return tree
