"""Read members of a gzipped tar archive without unpacking the archive to disk."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from genkit.errors import Code, DataError


def read_members(path: Path, names: Collection[str], at_most: int) -> dict[str, bytes]:
    """Return a dict from the name of each member to its content.

    Args:
        path: path of the archive.
        names: names of the members, such as ``cifar-10-batches-bin/test_batch.bin``.
        at_most: maximum size of a member in bytes.

    Raises:
        DataError: the archive is corrupt; a member with one of these names is missing, duplicate or
            too large; or any member of the archive is not a plain file or folder, or has a path
            outside of the archive.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                _require_safe(path, member)
                file = archive.extractfile(member)
                if member.name not in names or file is None:
                    continue
                if member.name in contents:
                    raise DataError(
                        f"{path}: must contain {member.name} once, got it twice", Code.DUPLICATE
                    )
                if member.size > at_most:
                    raise DataError(
                        f"{path}: {member.name} must have at most {at_most:,} bytes, got "
                        f"{member.size:,}",
                        Code.UNSAFE,
                    )
                contents[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as .tar.gz: {error}", Code.UNREADABLE) from error
    if missing := sorted(set(names) - contents.keys()):
        raise DataError(
            f"{path}: must contain {missing[0]}, which is missing; download the archive again",
            Code.NOT_FOUND,
        )
    return contents


def _require_safe(path: Path, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name:
        raise DataError(
            f'{path}: member "{member.name}" has a path outside the archive', Code.UNSAFE
        )
    if not (member.isfile() or member.isdir()):
        raise DataError(
            f'{path}: member "{member.name}" must be a file, got a link or a device', Code.UNSAFE
        )
