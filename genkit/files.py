"""Files that are whole or absent: written beside their place, synced, then renamed."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from genkit.errors import Code, DataError

if sys.platform != "win32":
    import fcntl


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends without an error.

    A kill at any moment leaves the old file or the new one. Of several processes that write at
    once, the last replaces the others. Temporary files of killed processes are removed.
    """
    _remove_leftovers(path)
    file = _temporary(path)
    beside = Path(file.name)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":  # renames no open file
                file.close()
            beside.replace(path)  # while it is locked
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _temporary(path: Path) -> BinaryIO:
    """Return a new file beside another, locked as long as it is open."""
    while True:
        file = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp").open("xb")
        _lock(file, wait=True)
        if Path(file.name).exists():
            return file
        file.close()  # another process removed it before it was locked


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of a file whose writers were killed: those that no one locks."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), leftover.open("r+b") as file:
            if _lock(file, wait=False):
                leftover.unlink()


def _lock(file: BinaryIO, wait: bool) -> bool:
    """Lock an open file; return whether it is locked, which some file systems do not support."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Like :func:`write_bytes`, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Like :func:`write_bytes`, as indented JSON. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def inf_as_text(setting: Any) -> Any:
    """Return a setting for JSON, which has no number for ``inf``: it becomes the string "inf"."""
    if isinstance(setting, Mapping):
        return {key: inf_as_text(value) for key, value in setting.items()}
    if isinstance(setting, (list, tuple)):
        return [inf_as_text(value) for value in setting]
    return "inf" if setting == math.inf else setting


def expand_user(path: str) -> Path:
    """Return the path that a setting names, ``~`` expanded.

    Raises:
        DataError: ``~`` is that of no user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {error}", Code.NOT_FOUND) from error


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, in hex: what data sets are published with."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


def cache_folder() -> Path | None:
    """Return the user's folder for files that can be made again; None for a user without one."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    usual = {"darwin": home / "Library/Caches", "win32": home / "AppData/Local"}
    base = Path(os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, home / ".cache"))
    return base / "genkit"


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
