"""Inject faults into the file operations of this process: errors of the disk, and kills.

Every file that genkit writes goes through Python's ``open`` and functions of ``os``. They are
replaced inside of a block, and number the operations below a folder. Data is written to the real
files, so that a fault in a write leaves half of its bytes.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

EVERY = ("open", "write", "fsync", "mkdir", "rename", "unlink")
"""Kinds of operations; ``open`` only for writing."""

FAILS = {
    errno.ENOSPC: ("open", "write", "fsync", "mkdir"),
    errno.EACCES: ("open", "mkdir", "rename", "unlink"),
    errno.EROFS: EVERY,
    errno.EIO: EVERY,
}
"""Operations that fail with an error. A full disk renames, and an open file remains writable."""


class Operation(NamedTuple):
    """An operation on a file: its kind and the path relative to the folder."""

    kind: str
    path: str


@dataclass
class Disk:
    """Numbers the file operations below a folder, and fails at one of them.

    Args:
        folder: folder of the operations; those elsewhere are neither counted nor failed.
        at: number of the operation that fails, from 0; None to only record the operations.
        error: ``errno`` of the failure; None to kill the process.
        lasting: whether all later operations fail, too, as on a disk that stays full.
        kinds: kinds of operations that are counted and fail; by default those of the error.
        only: part of the paths that are counted; after a lasting failure, all paths fail.

    Attributes:
        operations: operations so far.
    """

    folder: Path
    at: int | None = None
    error: int | None = None
    lasting: bool = True
    kinds: Collection[str] = ()
    only: str = ""
    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        self.kinds = self.kinds or (EVERY if self.error is None else FAILS[self.error])
        self._struck = False
        self._lock = threading.Lock()  # trackers write in other threads
        self._real_open = io.open

    @contextlib.contextmanager
    def injected(self) -> Iterator[Disk]:
        """Replace the functions of Python inside of the block."""
        with contextlib.ExitStack() as stack:
            for module in (io, builtins):
                stack.enter_context(mock.patch.object(module, "open", self._open))
            for name, kind in {
                "fsync": "fsync",
                "mkdir": "mkdir",
                "rename": "rename",
                "replace": "rename",
                "unlink": "unlink",
                "remove": "unlink",
            }.items():
                stack.enter_context(
                    mock.patch.object(os, name, self._counted(kind, getattr(os, name)))
                )
            stack.enter_context(mock.patch.object(os, "open", self._opened(os.open)))
            yield self

    def strikes(self, kind: str, path: Any) -> bool:
        """Count an operation, and return whether it fails."""
        if kind not in self.kinds or (inside := self._inside(path)) is None:
            return False
        with self._lock:
            if self.only in inside:
                strikes = len(self.operations) == self.at
                self.operations.append(Operation(kind, inside))
            else:
                strikes = False
            self._struck |= strikes
            return strikes or (self._struck and self.lasting)

    def fail(self, path: Any) -> None:
        """Raise the error, or kill the process."""
        if self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.error, os.strerror(self.error or 0), path)

    def _inside(self, path: Any) -> str | None:
        try:
            if isinstance(path, int):
                path = Path(f"/proc/self/fd/{path}").readlink()
            whole = Path(os.fsdecode(path)).absolute()
            return whole.relative_to(self.folder).as_posix()
        except (OSError, TypeError, ValueError):
            return None

    def _open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+") or self._inside(file) is None:
            return self._real_open(file, mode, *arguments, **options)
        if self.strikes("open", file):
            self.fail(file)
        raw = _File(self, os.fspath(file), mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        # The remaining arguments are those of text: buffering comes first.
        return io.TextIOWrapper(buffered, *arguments[1:], **options)

    def _opened(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and self.strikes("open", path):
                self.fail(path)
            return real(path, flags, *arguments, **options)

        return call

    def _counted(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if self.strikes(kind, path):
                self.fail(None if kind == "fsync" else path)
            return real(path, *arguments, **options)

        return call


class _File(io.FileIO):
    """A file of which a write may fail after half of its bytes, as on a full disk."""

    def __init__(self, disk: Disk, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self._disk = disk
        self._cut = False

    def write(self, data: Any) -> int:
        if not self._disk.strikes("write", self.name):
            return super().write(data)
        view = memoryview(data).cast("B")
        if self._cut or self._disk.error not in (None, errno.ENOSPC):
            self._disk.fail(None)
        self._cut = True
        written = super().write(view[: len(view) // 2])
        if self._disk.error is None or not written:
            self._disk.fail(None)
        return written  # the next write of the remaining bytes fails
