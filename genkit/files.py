"""Write files atomically: write, sync and rename a temporary file in the same folder."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import secrets
import stat
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from genkit.errors import Code, DataError

if sys.platform != "win32":
    import fcntl

_TEMPORARY = ".tmp"
_DIGEST = "sha256"


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces ``path`` when the block ends without an error.

    If the process is killed at any moment, either the old or the new file exists. If several
    processes write at once, the last one wins. Temporary files of killed processes are removed.
    """
    _remove_leftovers(path)
    with named_errors(path):
        file = _temporary(path)
    beside = Path(file.name)
    try:
        with named_errors(path), file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":  # which cannot rename an open file
                file.close()
            beside.replace(path)  # while it is locked, so that no other process removes it
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Set the file name of an OSError that has none, or that has the name of a temporary file.

    For example, the error of a write to a full disk has no file name.
    """
    try:
        yield
    except OSError as error:
        nameless = error.filename is None or str(error.filename).endswith(_TEMPORARY)
        if nameless and error.errno is not None:  # otherwise the name would replace the message
            error.filename = str(path)
            del error.filename2  # of a rename; None would be printed
        raise


def _temporary(path: Path) -> BinaryIO:
    """Return a new temporary file in the folder of ``path``, locked as long as it is open."""
    while True:
        file = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}").open("xb")
        _lock(file, wait=True)
        if Path(file.name).exists():
            return file
        file.close()  # removed by another process before it was locked


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of ``path`` that no process locks, since their writers were killed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{_TEMPORARY}"):
        with suppress(OSError), leftover.open("r+b") as file:
            if _lock(file, wait=False):
                leftover.unlink()


def _lock(file: BinaryIO, wait: bool) -> bool:
    """Lock an open file, and return whether it is locked; some file systems have no locks."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to a file, atomically."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write text to a file in UTF-8, atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dict to a file as indented JSON, atomically.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    write_text(path, json_text(content))


def json_text(content: Mapping[str, Any]) -> str:
    """Return a dict as indented JSON; raise ValueError if a number is NaN or infinite."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def write_json_with_digest(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dict as JSON, atomically, with the SHA-256 of its other entries as ``sha256``."""
    write_json(path, {**content, _DIGEST: _json_digest(content)})


def read_json_with_digest(path: Path) -> dict[str, Any]:
    """Return the dict in a file of :func:`write_json_with_digest`, without its digest.

    Files of earlier versions have no digest, and are not compared with one.

    Raises:
        DataError: the path is a pipe, a device or a socket.
        OSError: the file cannot be read.
        ValueError: the file is not a JSON object, or not the one that was written.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004
    written = content.pop(_DIGEST, None)
    if written not in (None, _json_digest(content)):
        raise ValueError("its content is not the one that was written")
    return content


def _json_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_text(path: Path) -> str:
    """Return the text of a file, in which bytes that are not UTF-8 are replaced.

    Raises:
        DataError: the path is a pipe, a device or a socket.
        OSError: the file cannot be read.
    """
    require_regular(path)
    return path.read_text(encoding="utf-8", errors="replace")


def read_json(path: Path) -> Any:
    """Return the value in a file of JSON.

    Raises:
        DataError: the path is a pipe, a device or a socket.
        OSError: the file cannot be read.
        ValueError: the file is not JSON in UTF-8.
    """
    require_regular(path)
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str | bytes) -> Any:
    """Return the value of JSON; raise ValueError if it is invalid, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table in a file of TOML.

    Raises:
        DataError: the path is a pipe, a device or a socket.
        OSError: the file cannot be read.
        ValueError: the file is not TOML in UTF-8, or nested too deeply.
    """
    require_regular(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def inf_as_text(setting: Any) -> Any:
    """Return a setting for JSON, with the string "inf" for infinity, which JSON lacks."""
    if isinstance(setting, Mapping):
        return {key: inf_as_text(value) for key, value in setting.items()}
    if isinstance(setting, (list, tuple)):
        return [inf_as_text(value) for value in setting]
    return "inf" if setting == math.inf else setting


def expand_user(path: str) -> Path:
    """Return the path of a setting, with ``~`` expanded.

    Raises:
        DataError: the user after ``~`` does not exist.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {error}", Code.NOT_FOUND) from error


def require_regular(path: Path) -> None:
    """Raise DataError if a path is a pipe, a device or a socket, whose read may never end.

    Regular files, folders and paths that do not exist pass; their readers report errors.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise DataError(
            f"{path} must be a regular file, got {kinds.get(stat.S_IFMT(mode), 'a device')}; copy "
            "its content to a file",
            Code.WRONG_KIND,
        )


def md5_of(path: Path) -> str:
    """Return the MD5 of a file in hex, for comparison with that of a published data set."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


def cache_folder() -> Path | None:
    """Return genkit's folder in the user's cache folder; None if the user has no home folder."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    usual = {"darwin": home / "Library/Caches", "win32": home / "AppData/Local"}
    base = Path(os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, home / ".cache"))
    return base / "genkit"


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename in it is durable; does nothing where this is not possible."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with named_errors(folder):
            os.fsync(handle)
    finally:
        os.close(handle)
