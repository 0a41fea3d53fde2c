"""Lock a run folder against other runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock

from genkit.artifacts.layout import HOLDER, LOCK
from genkit.artifacts.state import read_state
from genkit.errors import Code, UsageError
from genkit.files import write_json


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Create a run folder, and lock it inside the block.

    Raises:
        UsageError: another process is running in the folder, or the folder cannot be written.
    """
    # Commands that only read a run hold the lock for a moment.
    lock = filelock.FileLock(root / LOCK, timeout=0.2)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise UsageError(
            f"{root} is in use by a run{_holder(root)}; wait until it ends, or choose another "
            "--out",
            Code.IN_USE,
        ) from error
    except NotImplementedError as error:  # a file system without locks
        raise UsageError(
            f"{root} cannot be locked: {error}; choose another --out", Code.IO_ERROR
        ) from error
    except OSError as error:
        raise UsageError(
            f"{error.filename or root} cannot be written: {error.strerror}; correct this, or "
            "choose another --out"
        ) from error
    holder = root / HOLDER
    try:
        holder.unlink(missing_ok=True)  # the file of a killed run would be shown to other runs
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        who = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
        write_json(holder, who)
        yield
    finally:
        # The file is used only in messages. An error on removing it must not hide that of the run.
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def _holder(root: Path) -> str:
    """Return a description of the process that runs in a folder; empty if it is unknown."""
    holder: dict[str, Any] = {}
    with suppress(OSError):
        holder = read_state(root / HOLDER)
    if not {"process", "host", "since"} <= holder.keys():
        return ""
    return f" of process {holder['process']} on {holder['host']} since {holder['since']}"
