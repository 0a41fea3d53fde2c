"""The stack machine, which notes down what Python's would import and call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from genkit.pickles.nodes import Call, Global, Persistent, described
from genkit.pickles.stream import Stream

_PROTOCOLS = range(6)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[\\'\"abfnrtv]|[0-7]{1,3}|)")
_ESCAPED = dict(zip(b"\\'\"abfnrtv", b"\\'\"\a\b\f\n\r\t\v", strict=True))


@dataclass(frozen=True)
class Limits:
    """What a pickle may take.

    Memory is bounded by them and by the length of the pickle: an opcode leaves at most one entry on
    the stack, in the memo or in a container, and bytes are taken from the pickle once.

    Attributes:
        opcodes: number of them.
        depth: of containers and calls inside one another.
        text: bytes of all strings together.
        integer: bytes of one integer.
    """

    opcodes: int = 1_000_000
    depth: int = 200
    text: int = 16 * 2**20
    integer: int = 128


class Machine:
    """A stack, a memo, and what the opcodes do with them."""

    def __init__(
        self, stream: Stream, limits: Limits, expected: Callable[[Global], bool] | None
    ) -> None:
        self.stream = stream
        self.limits = limits
        self.expected = expected
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.text = 0

    def fail(self, reason: str) -> NoReturn:
        raise self.stream.failure(reason)

    # --- the stack ---

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            self.fail("a value is taken from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            self.fail("a value is wanted, and the stack is empty")
        return self.stack[-1]

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        if not self.below:
            self.fail("a mark is wanted, and there is none")
        values, self.stack = self.stack, self.below.pop()
        return values

    def drop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()

    def protocol(self) -> None:
        if (number := self.stream.number(1)) not in _PROTOCOLS:
            self.fail(f"protocol {number} is unknown; 0 to {_PROTOCOLS[-1]} are read")

    # --- the memo ---

    def store(self, index: int) -> None:
        self.memo[index] = self.top()

    def fetch(self, index: int) -> None:
        if index not in self.memo:
            self.fail(f"place {index} of the memo is empty")
        self.push(self.memo[index])

    # --- plain values ---

    def push_integer(self, count: int) -> None:
        if count > self.limits.integer:
            self.fail(f"an integer of {count} bytes; at most {self.limits.integer} are read")
        self.push(self.stream.number(count, signed=True) if count else 0)

    def push_int_line(self) -> None:
        self.push(self.stream.decimal())

    def push_int_or_bool(self) -> None:
        line = self.stream.line()
        # Protocol 0 writes True as 01 and False as 00, which no integer is written as.
        self.push(line == b"01" if line in (b"00", b"01") else self.stream.integer(line))

    def push_float_line(self) -> None:
        line = self.stream.line()
        try:
            self.push(float(line))
        except ValueError:
            self.fail(f"{line[:40]!r} is no number")

    def push_text(self, encoded: bytes, encoding: str = "utf-8") -> None:
        self.push(self.decoded(encoded, encoding))

    def decoded(self, encoded: bytes, encoding: str = "utf-8") -> str:
        self.text += len(encoded)
        if self.text > self.limits.text:
            self.fail(f"the strings have more than {self.limits.text} bytes together")
        try:
            # Python writes lone surrogates, as in names of files, this way.
            return encoded.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
        except UnicodeDecodeError as error:
            self.fail(f"a string is not {encoding}: {error.reason}")

    def push_quoted(self) -> None:
        """Python 2 wrote a string in protocol 0 as its source code has it."""
        line = self.stream.line()
        quoted = len(line) >= 2 and line[:1] == line[-1:] and line[:1] in (b"'", b'"')
        if not quoted or line[:1] in _ESCAPE.sub(b"", inside := line[1:-1]):
            self.fail(f"{line[:40]!r} is no string in quotes")
        self.push(_ESCAPE.sub(self.unescaped, inside))

    def unescaped(self, found: re.Match[bytes]) -> bytes:
        code = found[1]
        if not code:
            self.fail("a string has an escape that Python does not write")
        if code[:1] == b"x":
            return bytes([int(code[1:], 16)])
        if code[:1].isdigit():
            return bytes([int(code, 8) & 0xFF])
        return bytes([_ESCAPED[code[0]]])

    # --- containers ---

    def push_dict(self) -> None:
        self.push(dict(self.pairs(self.to_mark())))

    def pairs(self, values: list[Any]) -> Iterator[tuple[Any, Any]]:
        if len(values) % 2:
            self.fail("a key has no value")
        yield from zip(self.hashable(values[::2]), values[1::2], strict=True)

    def hashable(self, keys: Iterable[Any]) -> list[Any]:
        """Return the keys; what could be deep, or made to collide, is none."""
        listed = list(keys)
        for key in listed:
            small = isinstance(key, int) and key.bit_length() < 64
            if not (small or key is None or isinstance(key, (str, bytes, float, Global))):
                self.fail(f"{described(key)} is no key that is read")
        return listed

    def append(self, values: list[Any]) -> None:
        holder = self.top()
        if not isinstance(holder, (list, Call)):
            self.fail(f"{described(holder)} cannot be appended to")
        (holder.elements if isinstance(holder, Call) else holder).extend(values)

    def set_items(self, values: list[Any]) -> None:
        holder = self.top()
        if not isinstance(holder, (dict, Call)):
            self.fail(f"{described(holder)} has no items to set")
        (holder.items if isinstance(holder, Call) else holder).update(self.pairs(values))

    def add(self) -> None:
        values = self.hashable(self.to_mark())
        holder = self.top()
        if not isinstance(holder, set):
            self.fail(f"{described(holder)} cannot be added to")
        holder.update(values)

    def append_one(self) -> None:
        self.append([self.pop()])

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def push_tuple(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    # --- what Python would import, call or look up ---

    def named(self, module: str, name: str) -> Global:
        found = Global(module, name)
        if self.expected is not None and not self.expected(found):
            self.fail(f"it asks for {str(found)[:200]}, which has no place in such a file")
        return found

    def global_lines(self) -> Global:
        return self.named(self.decoded(self.stream.line()), self.decoded(self.stream.line()))

    def push_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(module, str) and isinstance(name, str)):
            self.fail(f"{described(module)} and {described(name)} name nothing")
        self.push(self.named(module, name))

    def push_call(self, function: Any, args: Any, keywords: Any) -> None:
        if not isinstance(function, (Global, Call, Persistent)):
            self.fail(f"{described(function)} is called")
        if not isinstance(args, tuple):
            self.fail(f"the arguments of a call are {described(args)}, and not a tuple")
        if not isinstance(keywords, dict):
            self.fail(f"the keywords of a call are {described(keywords)}, and not a dictionary")
        self.push(Call(function, args, keywords))

    def reduce(self) -> None:
        args, function = self.pop(), self.pop()
        self.push_call(function, args, {})

    def reduce_with_keywords(self) -> None:
        keywords, args, function = self.pop(), self.pop(), self.pop()
        self.push_call(function, args, keywords)

    def call_from_mark(self) -> None:
        values = self.to_mark()
        if not values:
            self.fail("an object has no class")
        self.push_call(values[0], tuple(values[1:]), {})

    def build(self) -> None:
        state = self.pop()
        holder = self.top()
        if not isinstance(holder, Call):
            self.fail(f"{described(holder)} cannot be given a state")
        if holder.state is not None:
            self.fail("an object is given a state twice")
        holder.state = state
