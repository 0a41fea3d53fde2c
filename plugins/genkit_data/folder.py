"""Find the files and folders of a recipe, and suggest similar names for missing ones."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from genkit.errors import Code, DataError
from genkit.files import expand_user, md5_of, require_regular
from genkit.settings import near_match


def existing_folder(root: str, remedy: str = "") -> Path:
    """Return the folder at ``root``, relative to the current directory, with ``~`` expanded.

    Args:
        root: path in a recipe.
        remedy: advice in the error if the folder does not exist.

    Raises:
        DataError: the folder does not exist; the error contains the first missing part of the path,
            and an existing folder with a similar name.
    """
    folder = expand_user(root)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(
            f"{root}: must be a folder, got a file; write the folder of the file", Code.WRONG_KIND
        )
    missing, siblings = _first_missing(folder)
    hint = near_match(missing.name, [path.name for path in siblings if path.is_dir()])
    raise DataError(
        "; ".join(filter(None, (f"{root}: folder {missing} does not exist", hint, remedy))),
        Code.NOT_FOUND,
    )


def how_to_fetch(name: str, root: str) -> str:
    """Return the advice to download a data set, with the command."""
    return f"download it: genkit data get {name} --root {shlex.quote(root)}"


def existing(path: str) -> Path:
    """Return the file or folder at ``path``, expanded as in :func:`existing_folder`.

    Raises:
        DataError: the path does not exist, or is a pipe, a device or a socket.
    """
    place = expand_user(path)
    require_regular(place)
    if place.exists():
        return place
    missing, siblings = _first_missing(place)
    hint = near_match(missing.name, [sibling.name for sibling in siblings])
    raise DataError(
        f"{path}: {missing} does not exist" + (f"; {hint}" if hint else ""), Code.NOT_FOUND
    )


def _first_missing(path: Path) -> tuple[Path, list[Path]]:
    """Return the first missing part of a path, and the existing entries of its parent folder."""
    missing = path.absolute()
    while not missing.parent.is_dir():
        missing = missing.parent
    return missing, entries(missing.parent)


def version_of(files: Iterable[Path]) -> str:
    """Return a hash of the names, sizes and modification times of files.

    Raises:
        DataError: a file does not exist.
    """
    digest = hashlib.sha256()
    for path in files:
        stat = _stat(path)
        digest.update(
            f"{path.parent.name}/{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode()
        )
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Return the size of a file in bytes.

    Raises:
        DataError: the file does not exist.
    """
    return _stat(path).st_size


def content_of(path: Path, at_most: int) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: the file cannot be read, or has more than ``at_most`` bytes.
    """
    if (size := size_of(path)) > at_most:
        raise DataError(f"{path}: must have at most {at_most:,} bytes, got {size:,}", Code.UNSAFE)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", Code.IO_ERROR) from error


def require_md5(path: Path, published: str) -> None:
    """Raise DataError unless a file has the published MD5."""
    try:
        digest = md5_of(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", Code.IO_ERROR) from error
    if digest != published:
        raise DataError(
            f"{path}: must have the published MD5 {published}, got {digest}; delete it and "
            "download it again",
            Code.UNREADABLE,
        )


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", Code.IO_ERROR) from error


def entries(folder: Path) -> list[Path]:
    """Return the entries of a folder, without hidden ones, sorted by name on every system.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}", Code.IO_ERROR) from error
    return sorted(paths, key=lambda path: path.name)
