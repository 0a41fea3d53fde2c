"""Zip files written by ``torch.save``, which contain a pickle and a member for each storage."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import ClassVar

from genkit.errors import Code, DataError

_PROBLEMS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)
"""Exceptions of zipfile for files that are damaged, of another format or unsupported."""


class TorchZip:
    """Reads members by name. Nothing is extracted to disk, so names are never used as paths.

    Args:
        content: content of the file.
        what: name of the file in messages.

    Raises:
        DataError: the file is damaged, compressed or encrypted, or has duplicate members or
            members that are larger than the file.
    """

    BEGINNING: ClassVar[bytes] = b"PK\x03\x04"

    def __init__(self, content: bytes, what: str) -> None:
        self._what = what
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except _PROBLEMS as error:
            raise DataError(f"{what} is a damaged zip file: {error}", Code.UNREADABLE) from error
        members = self._zip.infolist()
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise DataError(
                f"{what} must not have duplicate members, got {_first_twice(names)!r} twice",
                Code.DUPLICATE,
            )
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise DataError(
                    f"{what}: {member.filename[:80]!r} is compressed or encrypted", Code.WRONG_TYPE
                )
        if sum(member.file_size for member in members) > len(content):
            raise DataError(
                f"{what} must not have members that are together larger than the file",
                Code.UNSAFE,
            )
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise DataError(
                f"{what} must have one member NAME/data.pkl, got {len(pickles)}",
                Code.WRONG_LENGTH,
            )
        self._folder = pickles[0].removesuffix("data.pkl")
        order = f"{self._folder}byteorder"
        if order in names and self._member(order) != b"little":
            raise DataError(
                f"{what} must be little-endian, got another byte order", Code.UNKNOWN_CHOICE
            )

    def pickle(self) -> bytes:
        """Return the content of the pickle."""
        return self._member(f"{self._folder}data.pkl")

    def storage(self, key: str) -> bytes:
        """Return the bytes of the storage with a key."""
        return self._member(f"{self._folder}data/{key}")

    def _member(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except KeyError as error:
            raise DataError(f"{self._what} has no member {name[:80]!r}", Code.NOT_FOUND) from error
        except _PROBLEMS as error:
            raise DataError(
                f"{self._what}: {name[:80]!r} is damaged: {error}", Code.UNREADABLE
            ) from error


def _first_twice(names: list[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name[:80]
        seen.add(name)
    return ""
