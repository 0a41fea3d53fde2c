"""Download files with pooch.

A file has a temporary name until its checksum is verified. An interrupted download is deleted, and
the next one starts from the beginning, since pooch cannot resume a partial file.
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

_RETRIES = 3  # retries after a broken connection or a wrong checksum; chosen, not tuned
_TIMEOUT = 30.0  # maximum seconds without a received byte; chosen, not tuned
_CHUNK = 2**18  # number of bytes between two progress reports


def find_missing(files: Mapping[str, RemoteFile], folder: Path) -> dict[str, RemoteFile]:
    """Verify the published files that exist in a folder, and return the missing ones.

    Args:
        files: dict from file name to address, size and checksum.
        folder: existing folder.

    Raises:
        DataError: an existing file differs from the published one, or the disk has too little free
            space for the missing files.
    """
    missing: dict[str, RemoteFile] = {}
    for name, remote in files.items():
        path = folder / name
        if not path.exists():
            missing[name] = remote
        elif path.stat().st_size != remote.size or md5_of(path) != remote.md5:
            raise DataError(
                f"{path}: must be the published file, got a different one; move or delete it",
                Code.OCCUPIED,
            )
    required, free = sum(r.size for r in missing.values()), shutil.disk_usage(folder).free
    if required > free:
        raise DataError(
            f"{folder}: must have {required:,} bytes of free space, got {free:,}; delete files, or "
            "write a folder on a different disk",
            Code.IO_ERROR,
        )
    return missing


def download(name: str, remote: RemoteFile, folder: Path, report: Report) -> None:
    """Download a file and verify its checksum.

    Args:
        name: name of the file in the folder.
        remote: address and checksum of the file.
        folder: existing folder.
        report: function that is called with the number of bytes received so far.

    Raises:
        DataError: the server is unreachable or reports an error, the checksum differs from the
            published one, or the disk is full.
    """
    require_web(remote.url)

    def transfer(url: str, file: str, _: pooch.Pooch) -> None:
        headers = {"User-Agent": "genkit", "Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as response:
            response.raise_for_status()
            with Path(file).open("wb") as out:
                for chunk in response.iter_content(_CHUNK):
                    out.write(chunk)
                    report(out.tell())

    pooch.get_logger().setLevel("WARNING")
    digests = {name: f"md5:{remote.md5}"}
    files = pooch.create(
        folder, base_url="", registry=digests, urls={name: remote.url}, retry_if_failed=_RETRIES
    )
    again = "run the same command again"
    try:
        files.fetch(name, downloader=transfer)
        (folder / name).chmod(0o644)  # pooch's temporary file is readable only by its owner
    except requests.HTTPError as error:
        reason = str(error).partition(" for url")[0]
        raise DataError(f"{remote.url}: the server reports {reason}", Code.DOWNLOAD) from error
    except requests.RequestException as error:
        raise DataError(
            f"{remote.url}: cannot be downloaded: {error}; {again}", Code.DOWNLOAD
        ) from error
    except ValueError as error:  # wrong checksum
        raise DataError(f"{remote.url}: {error}", Code.DOWNLOAD) from error
    except OSError as error:
        raise DataError(
            f"{folder / name}: {error.strerror or error}; {again}", Code.IO_ERROR
        ) from error


def require_web(url: str) -> None:
    """Raise DataError unless an address starts with http:// or https://."""
    if not url.startswith(("http://", "https://")):
        raise DataError(
            f"{url}: must be a web address; write http://... or https://...", Code.INVALID_NAME
        )
