"""The bytes of a pickle, taken in order and never beyond an end."""

from __future__ import annotations

import re

from genkit.errors import DataError

_NUMBER = re.compile(rb"-?[0-9]{1,400}L?")


class Stream:
    """A place in the bytes.

    Args:
        data: that hold a pickle.
        start: where it begins.
        what: it is called in messages.

    Attributes:
        at: where the opcode begins that is being carried out.
        position: of the next byte.
    """

    def __init__(self, data: bytes, start: int, what: str) -> None:
        self._data = data
        self._what = what
        self._frame: int | None = None  # where the frame ends that the place lies in
        self.at = self.position = start

    def failure(self, reason: str) -> DataError:
        """Return the error that tells what is wrong, and where."""
        return DataError(f"{self._what}: byte {self.at}: {reason}")

    def opcode(self) -> int:
        """Go on to the next opcode."""
        if self.position == self._frame:
            self._frame = None
        self.at = self.position
        return self.take(1)[0]

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        left = len(self._data) - self.position
        if count > left:
            raise self.failure(f"{count} bytes are announced, and {left} are left")
        self._inside_frame(count)
        taken = self._data[self.position : self.position + count]
        self.position += count
        return taken

    def number(self, size: int, *, signed: bool = False) -> int:
        """Return a little-endian integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def counted(self, size: int) -> bytes:
        """Return bytes that come after their number, which has ``size`` bytes."""
        return self.take(self.number(size))

    def line(self) -> bytes:
        """Return the bytes before the next newline, and go past it."""
        end = self._data.find(b"\n", self.position)
        if end < 0:
            raise self.failure("a line has no end")
        return self.take(end + 1 - self.position)[:-1]

    def decimal(self) -> int:
        """Return the integer that is written out in the next line."""
        return self.integer(self.line())

    def integer(self, line: bytes) -> int:
        """Return the integer that is written out in a line; an L ends a long one."""
        if not _NUMBER.fullmatch(line):
            raise self.failure(f"{line[:40]!r} is no integer of at most 400 digits")
        return int(line.rstrip(b"L"))

    def enter_frame(self) -> None:
        """Begin a frame, whose length comes next."""
        if self._frame is not None:
            raise self.failure("a frame begins inside a frame")
        length = self.number(8)
        left = len(self._data) - self.position
        if length > left:
            raise self.failure(f"a frame of {length} bytes is announced, and {left} are left")
        self._frame = self.position + length

    def stop(self) -> None:
        """End the pickle here."""
        if self._frame not in (None, self.position):
            raise self.failure("the pickle stops inside a frame")

    def _inside_frame(self, count: int) -> None:
        if self._frame is not None and self.position + count > self._frame:
            raise self.failure("what is read reaches over the end of its frame")
