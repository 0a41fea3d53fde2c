"""Every opcode of the protocols 0 to 5, and what it does."""

from __future__ import annotations

import struct
from collections.abc import Callable

from genkit.pickles.machine import Machine
from genkit.pickles.nodes import Persistent


def _extension(machine: Machine) -> None:
    machine.fail("the extension registry is asked for, which is another for each program")


def _buffer(machine: Machine) -> None:
    machine.fail("a buffer from outside the pickle is asked for")


STOP = ord(".")

OPCODES: dict[int, Callable[[Machine], None]] = {
    0x80: Machine.protocol,
    0x95: lambda m: m.stream.enter_frame(),
    ord("("): Machine.mark,
    ord("0"): Machine.drop,
    ord("1"): lambda m: m.to_mark().clear(),
    ord("2"): lambda m: m.push(m.top()),
    # the memo
    ord("p"): lambda m: m.store(m.stream.decimal()),
    ord("q"): lambda m: m.store(m.stream.number(1)),
    ord("r"): lambda m: m.store(m.stream.number(4)),
    0x94: lambda m: m.store(len(m.memo)),
    ord("g"): lambda m: m.fetch(m.stream.decimal()),
    ord("h"): lambda m: m.fetch(m.stream.number(1)),
    ord("j"): lambda m: m.fetch(m.stream.number(4)),
    # plain values
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("I"): Machine.push_int_or_bool,
    ord("L"): Machine.push_int_line,
    ord("J"): lambda m: m.push(m.stream.number(4, signed=True)),
    ord("K"): lambda m: m.push(m.stream.number(1)),
    ord("M"): lambda m: m.push(m.stream.number(2)),
    0x8A: lambda m: m.push_integer(m.stream.number(1)),
    0x8B: lambda m: m.push_integer(m.stream.number(4)),
    ord("F"): Machine.push_float_line,
    ord("G"): lambda m: m.push(struct.unpack(">d", m.stream.take(8))[0]),
    ord("S"): Machine.push_quoted,
    ord("T"): lambda m: m.push(m.stream.counted(4)),
    ord("U"): lambda m: m.push(m.stream.counted(1)),
    ord("B"): lambda m: m.push(m.stream.counted(4)),
    ord("C"): lambda m: m.push(m.stream.counted(1)),
    0x8E: lambda m: m.push(m.stream.counted(8)),
    0x96: lambda m: m.push(bytearray(m.stream.counted(8))),
    ord("V"): lambda m: m.push_text(m.stream.line(), "raw-unicode-escape"),
    ord("X"): lambda m: m.push_text(m.stream.counted(4)),
    0x8C: lambda m: m.push_text(m.stream.counted(1)),
    0x8D: lambda m: m.push_text(m.stream.counted(8)),
    # containers
    ord("]"): lambda m: m.push([]),
    ord("l"): lambda m: m.push(m.to_mark()),
    ord("a"): Machine.append_one,
    ord("e"): lambda m: m.append(m.to_mark()),
    ord(")"): lambda m: m.push(()),
    0x85: lambda m: m.push_tuple(1),
    0x86: lambda m: m.push_tuple(2),
    0x87: lambda m: m.push_tuple(3),
    ord("t"): lambda m: m.push(tuple(m.to_mark())),
    ord("}"): lambda m: m.push({}),
    ord("d"): Machine.push_dict,
    ord("s"): Machine.set_item,
    ord("u"): lambda m: m.set_items(m.to_mark()),
    0x8F: lambda m: m.push(set()),
    0x90: Machine.add,
    0x91: lambda m: m.push(frozenset(m.hashable(m.to_mark()))),
    # what Python would import, call or look up
    ord("c"): lambda m: m.push(m.global_lines()),
    0x93: Machine.push_global,
    ord("R"): Machine.reduce,
    ord("i"): lambda m: m.push_call(m.global_lines(), tuple(m.to_mark()), {}),
    ord("o"): Machine.call_from_mark,
    0x81: Machine.reduce,
    0x92: Machine.reduce_with_keywords,
    ord("b"): Machine.build,
    ord("P"): lambda m: m.push(Persistent(m.decoded(m.stream.line()))),
    ord("Q"): lambda m: m.push(Persistent(m.pop())),
    # what is refused
    0x82: _extension,
    0x83: _extension,
    0x84: _extension,
    0x97: _buffer,
    0x98: _buffer,
}
