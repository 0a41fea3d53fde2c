"""Files from the web, by pooch: a file has its final name when its checksum is that published.

Until then it has a temporary name in the same folder. A download that ends early leaves nothing,
and the next one starts anew: pooch does not resume a partial file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pooch
import requests

from genkit.errors import Code, DataError
from genkit.files import md5_of
from genkit.types import RemoteFile

Report = Callable[[int], None]

_RETRIES = 3  # of a file whose connection broke or whose checksum is wrong
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 2**18


def missing(files: Mapping[str, RemoteFile], folder: Path) -> dict[str, RemoteFile]:
    """Return the files that a folder lacks; those that it has are verified.

    Raises:
        DataError: a file of the name differs, or the disk has too little room for the rest.
    """
    lacking: dict[str, RemoteFile] = {}
    for name, remote in files.items():
        path = folder / name
        if not path.exists():
            lacking[name] = remote
        elif path.stat().st_size != remote.size or md5_of(path) != remote.md5:
            raise DataError(f"{path}: is not the published file; move or remove it", Code.OCCUPIED)
    needed, free = sum(r.size for r in lacking.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder}: has {free:,} bytes free, and {needed:,} are needed", Code.IO_ERROR
        )
    return lacking


def download(name: str, remote: RemoteFile, folder: Path, report: Report) -> None:
    """Fetch a file and verify its checksum.

    Args:
        name: name of the file in the folder.
        remote: address and checksum.
        folder: an existing folder.
        report: called with the bytes that are there.

    Raises:
        DataError: the server refuses or cannot be reached, the file is not the published one, or
            the disk is full.
    """
    require_web(remote.url)

    def transfer(url: str, file: str, _: pooch.Pooch) -> None:
        asked = {"User-Agent": "genkit", "Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=_TIMEOUT, headers=asked) as answer:
            answer.raise_for_status()
            with Path(file).open("wb") as out:
                for chunk in answer.iter_content(_CHUNK):
                    out.write(chunk)
                    report(out.tell())

    pooch.get_logger().setLevel("WARNING")
    known = {name: f"md5:{remote.md5}"}
    files = pooch.create(
        folder, base_url="", registry=known, urls={name: remote.url}, retry_if_failed=_RETRIES
    )
    again = "give the same command again"
    try:
        files.fetch(name, downloader=transfer)
        (folder / name).chmod(0o644)  # a temporary file is readable by its owner alone
    except requests.HTTPError as error:
        said = str(error).partition(" for url")[0]
        raise DataError(f"{remote.url}: the server answers {said}", Code.DOWNLOAD) from error
    except requests.RequestException as error:
        raise DataError(
            f"{remote.url}: cannot be fetched: {error}; {again}", Code.DOWNLOAD
        ) from error
    except ValueError as error:  # of the checksum
        raise DataError(f"{remote.url}: {error}", Code.DOWNLOAD) from error
    except OSError as error:
        raise DataError(
            f"{folder / name}: {error.strerror or error}; {again}", Code.IO_ERROR
        ) from error


def require_web(url: str) -> None:
    """Raise DataError unless an address is one of the web."""
    if not url.startswith(("http://", "https://")):
        raise DataError(
            f"{url}: is no address of the web; write http://... or https://...", Code.INVALID_NAME
        )
