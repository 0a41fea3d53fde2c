"""A folder that a recipe names: found, or missed with a near match."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from genkit.errors import DataError
from genkit.settings import near_match


def existing_folder(root: str) -> Path:
    """Return the folder at ``root``: relative to the current directory, ``~`` expanded.

    Raises:
        DataError: there is none; names the first part of the path that is missing and, where one
            beside it is spelled alike, that one.
    """
    try:
        folder = Path(root).expanduser()
    except RuntimeError as error:
        raise DataError(f"{root}: {error}") from error
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{root} is a file; write the folder that it lies in")
    missing = folder.absolute()
    while not missing.parent.is_dir():
        missing = missing.parent
    beside = [path.name for path in entries(missing.parent) if path.is_dir()]
    hint = near_match(missing.name, beside)
    raise DataError(f"{root}: there is no folder {missing}" + (f"; {hint}" if hint else ""))


def version_of(files: Iterable[Path]) -> str:
    """Return a hash of the names, sizes and times of files: another where one was changed.

    Raises:
        DataError: a file is gone.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
        digest.update(
            f"{path.parent.name}/{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode()
        )
    return digest.hexdigest()


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, hidden names left out, ordered by name on every system.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    return sorted(found, key=lambda path: path.name)
