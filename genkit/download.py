"""Files from the web: what is broken off goes on later, and nothing is put in place unverified.

A file grows under its name with ``.part`` behind it. It is renamed when it has its published size
and checksum.
"""

from __future__ import annotations

import http.client
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from genkit.errors import DataError
from genkit.files import md5_of
from genkit.types import RemoteFile

Report = Callable[[int], None]
"""Is told how many bytes of a file are there."""

_ATTEMPTS = 5  # in a row that bring nothing
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 2**18


class _TryAgainError(Exception):
    """The server asks to come back."""


_BROKEN = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    _TryAgainError,
)
"""What another attempt may mend."""


def missing(files: Mapping[str, RemoteFile], folder: Path) -> dict[str, RemoteFile]:
    """Return the files that a folder lacks; those that it has are verified.

    Raises:
        DataError: a file is there and is another, or the disk has too little room for the rest.
    """
    lacking: dict[str, RemoteFile] = {}
    for name, remote in files.items():
        path = folder / name
        if not path.exists():
            lacking[name] = remote
        elif path.stat().st_size != remote.size or md5_of(path) != remote.md5:
            raise DataError(f"{path}: is not the published file; move or remove it")
    needed = sum(remote.size - _size(_part(folder / name)) for name, remote in lacking.items())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder}: has {free:,} bytes free, and {needed:,} are needed")
    return lacking


def download(remote: RemoteFile, path: Path, report: Report, first_wait: float = 1.0) -> None:
    """Fetch a file, going on where an earlier call stopped.

    Args:
        remote: where it lies, and how it must be.
        path: where it is put; its folder exists.
        report: is told of progress.
        first_wait: seconds until the second attempt; each later wait is twice as long.

    Raises:
        DataError: the server refuses, the connection fails again and again, the disk is full, or
            the file is not the published one.
    """
    require_web(remote.url)
    part = _part(path)
    if _size(part) > remote.size:
        part.unlink()
    failures = 0
    while (had := _size(part)) < remote.size:
        try:
            _transfer(remote, part, report)
        except _BROKEN as error:
            failures = 1 if _size(part) > had else failures + 1
            if failures >= _ATTEMPTS:
                raise DataError(
                    f"{remote.url}: cannot be fetched: {_reason(error)}; the same command goes on "
                    f"from {_size(part):,} of {remote.size:,} bytes"
                ) from error
            time.sleep(first_wait * 2 ** (failures - 1))
        except OSError as error:  # of the disk
            raise DataError(f"{part}: {error.strerror}; what was fetched is kept") from error
    _put_in_place(remote, part, path)


def _transfer(remote: RemoteFile, part: Path, report: Report) -> None:
    """Append what is missing; begin anew where the server cannot send a range."""
    start = _size(part)
    headers = {"User-Agent": "genkit", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(remote.url, headers=headers)  # noqa: S310, of the web
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(remote, part, error) from error
    with answer:
        goes_on = start > 0 and answer.status == http.HTTPStatus.PARTIAL_CONTENT
        if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise DataError(f"{remote.url}: the server sends another range than it was asked for")
        have = start if goes_on else 0
        with part.open("ab" if goes_on else "wb") as file:
            while chunk := answer.read(_CHUNK):
                have += len(chunk)
                if have > remote.size:
                    break
                file.write(chunk)
                report(have)
    if have < remote.size:
        raise _TryAgainError(f"the connection ended after {have:,} of {remote.size:,} bytes")
    if have > remote.size:
        part.unlink()
        raise DataError(f"{remote.url}: is longer than the published {remote.size:,} bytes")


def _refusal(remote: RemoteFile, part: Path, error: urllib.error.HTTPError) -> Exception:
    """Return what an answer means that is none of success."""
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.unlink(missing_ok=True)
        return _TryAgainError("its file is shorter than what was fetched before")
    said = f"the server answers {error.code} {error.reason}"
    if error.code == http.HTTPStatus.TOO_MANY_REQUESTS or error.code >= 500:
        return _TryAgainError(said)
    return DataError(f"{remote.url}: {said}")


def _put_in_place(remote: RemoteFile, part: Path, path: Path) -> None:
    found = md5_of(part)
    if found != remote.md5:
        part.unlink()
        raise DataError(
            f"{remote.url}: what came has the MD5 {found}, the published file {remote.md5}; it was "
            "removed"
        )
    part.replace(path)


def require_web(url: str) -> None:
    """Raise DataError unless an address is one of the web."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # brackets that do not close
        is_web = False
    if not is_web:
        raise DataError(f"{url}: is no address of the web; write http://... or https://...")


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "")) or str(error) or type(error).__name__
