"""A zip archive, of which nothing is read before its list of members has been judged."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genkit.errors import Code, DataError

_RATIO = 100  # photographs, also as plain arrays, are compressed a few times at most
_SMALL = 64 * 2**20  # bytes that may come of any archive


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive.

    Raises:
        DataError: it is damaged, at once or while it is read; or a member is a link, is there
            twice, would lie outside the archive, is encrypted, or is compressed as only bombs are.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _require_harmless(path, archive)
            yield archive
    # zipfile raises all of these for damaged archives.
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        zlib.error,
        struct.error,
        NotImplementedError,
        UnicodeDecodeError,
    ) as error:
        raise DataError(
            f"{path}: cannot be read as a zip archive: {error}", Code.UNREADABLE
        ) from error


def _require_harmless(path: Path, archive: zipfile.ZipFile) -> None:
    seen: set[str] = set()
    total = 0
    for member in archive.infolist():
        # The name as it is in the file: zipfile cuts it at a zero byte.
        name = member.orig_filename
        reason = ""
        if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
            reason = "would lie outside the archive"
        elif stat.S_ISLNK(member.external_attr >> 16):
            reason = "is a link"
        elif member.filename in seen:
            reason = "is there twice"
        elif member.flag_bits & 1:
            reason = "is encrypted"
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            reason = "is neither stored nor deflated"
        if reason:
            raise DataError(f'{path}: member "{name}" {reason}', Code.UNSAFE)
        seen.add(member.filename)
        total += member.file_size
    packed = path.stat().st_size
    if total > max(_SMALL, _RATIO * packed):
        raise DataError(
            f"{path}: its {packed:,} bytes would unpack to {total:,}, more than {_RATIO} times as "
            "many; that is no archive of photographs",
            Code.UNSAFE,
        )
