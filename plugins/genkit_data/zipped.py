"""Open zip archives after their list of members has been checked."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genkit.errors import Code, DataError

# Limits against zip bombs; chosen, not tuned. Photographs compress by a small factor,
# even as raw arrays.
_MAX_RATIO = 100
_ALLOWED_BYTES = 64 * 2**20  # unpacked size up to which any ratio is allowed


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive in a ``with`` block.

    Raises:
        DataError: the archive is corrupt, which may be detected only when it is read; a member is
            a link, is a duplicate, is encrypted or has a path outside of the archive; or the
            archive may be a zip bomb.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _require_safe(path, archive)
            yield archive
    # zipfile raises any of these for corrupt archives.
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


def _require_safe(path: Path, archive: zipfile.ZipFile) -> None:
    seen: set[str] = set()
    total = 0
    for member in archive.infolist():
        # The name in the file: zipfile truncates `filename` at a zero byte.
        name = member.orig_filename
        reason = ""
        if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
            reason = "has a path outside the archive"
        elif stat.S_ISLNK(member.external_attr >> 16):
            reason = "is a link"
        elif member.filename in seen:
            reason = "is duplicate"
        elif member.flag_bits & 1:
            reason = "is encrypted"
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            reason = "is neither stored nor deflated"
        if reason:
            raise DataError(f'{path}: member "{name}" {reason}', Code.UNSAFE)
        seen.add(member.filename)
        total += member.file_size
    packed = path.stat().st_size
    if total > max(_ALLOWED_BYTES, _MAX_RATIO * packed):
        raise DataError(
            f"{path}: must unpack to at most {_MAX_RATIO} times its {packed:,} bytes, got "
            f"{total:,}; images do not compress so much",
            Code.UNSAFE,
        )
