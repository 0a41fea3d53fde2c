"""What a recipe names on the disk: found, or missed with a near match."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from genkit.errors import Code, DataError
from genkit.files import expand_user, md5_of
from genkit.settings import near_match


def existing_folder(root: str, remedy: str = "") -> Path:
    """Return the folder at ``root``: relative to the current directory, ``~`` expanded.

    Args:
        root: of a recipe.
        remedy: what is advised where there is none.

    Raises:
        DataError: there is none; names the first part of the path that is missing and, where one
            beside it is spelled alike, that one.
    """
    folder = expand_user(root)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{root} is a file; write the folder that it lies in", Code.WRONG_KIND)
    missing, beside = _missing(folder)
    hint = near_match(missing.name, [path.name for path in beside if path.is_dir()])
    raise DataError(
        "; ".join(filter(None, (f"{root}: there is no folder {missing}", hint, remedy))),
        Code.NOT_FOUND,
    )


def how_to_fetch(name: str, root: str) -> str:
    """Return the advice to download a data set."""
    return f"download it: genkit data get {name} --root {shlex.quote(root)}"


def existing(path: str) -> Path:
    """Return the file or folder at ``path``, in the way of :func:`existing_folder`.

    Raises:
        DataError: there is none.
    """
    found = expand_user(path)
    if found.exists():
        return found
    missing, beside = _missing(found)
    hint = near_match(missing.name, [path.name for path in beside])
    raise DataError(
        f"{path}: there is no {missing}" + (f"; {hint}" if hint else ""), Code.NOT_FOUND
    )


def _missing(path: Path) -> tuple[Path, list[Path]]:
    """Return the first part of a path that is missing, and what lies beside it."""
    missing = path.absolute()
    while not missing.parent.is_dir():
        missing = missing.parent
    return missing, entries(missing.parent)


def version_of(files: Iterable[Path]) -> str:
    """Return a hash of the names, sizes and times of files: another where one was changed.

    Raises:
        DataError: a file is gone.
    """
    digest = hashlib.sha256()
    for path in files:
        found = _stat(path)
        digest.update(
            f"{path.parent.name}/{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode()
        )
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Return the size of a file in bytes.

    Raises:
        DataError: it is gone.
    """
    return _stat(path).st_size


def content_of(path: Path, at_most: int) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: it cannot be read, or has more than ``at_most`` bytes.
    """
    if (size := size_of(path)) > at_most:
        raise DataError(f"{path}: has {size:,} bytes where {at_most:,} are the most", Code.UNSAFE)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", Code.IO_ERROR) from error


def require_md5(path: Path, published: str) -> None:
    """Raise DataError where the MD5 of a file is not the one that was published."""
    try:
        found = md5_of(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", Code.IO_ERROR) from error
    if found != published:
        raise DataError(
            f"{path}: is damaged: its MD5 is {found}, the published one {published}; remove it and "
            "download it again",
            Code.UNREADABLE,
        )


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", Code.IO_ERROR) from error


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, hidden names left out, ordered by name on every system.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}", Code.IO_ERROR) from error
    return sorted(found, key=lambda path: path.name)
