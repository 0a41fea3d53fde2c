"""Members of a gzipped tar archive, read in place: nothing is unpacked to the disk."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from genkit.errors import Code, DataError


def read_members(path: Path, wanted: Collection[str], at_most: int) -> dict[str, bytes]:
    """Return the content of the wanted members, by name.

    Args:
        path: of the archive.
        wanted: names of members, such as ``cifar-10-batches-bin/test_batch.bin``.
        at_most: bytes that a wanted member may have.

    Raises:
        DataError: the archive is damaged, a wanted member is missing, there twice or too large, or
            any member is no plain file or folder or would lie outside the archive's own folder.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                _require_harmless(path, member)
                file = archive.extractfile(member)
                if member.name not in wanted or file is None:
                    continue
                if member.name in found:
                    raise DataError(f"{path}: holds {member.name} twice", Code.DUPLICATE)
                if member.size > at_most:
                    raise DataError(
                        f"{path}: {member.name} has {member.size:,} bytes where {at_most:,} are "
                        "the most",
                        Code.UNSAFE,
                    )
                found[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as .tar.gz: {error}", Code.UNREADABLE) from error
    if missing := sorted(set(wanted) - found.keys()):
        raise DataError(f"{path}: holds no {missing[0]}", Code.NOT_FOUND)
    return found


def _require_harmless(path: Path, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name:
        raise DataError(
            f'{path}: member "{member.name}" would lie outside the archive', Code.UNSAFE
        )
    if not (member.isfile() or member.isdir()):
        raise DataError(
            f'{path}: member "{member.name}" is a link or a device, not a file', Code.UNSAFE
        )
