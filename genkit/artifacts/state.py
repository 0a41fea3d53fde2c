"""Read the states of runs and stages, and compare files with what the states record of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from genkit.artifacts.layout import STATE, logs_in, results_in
from genkit.errors import DataError
from genkit.files import read_json_with_digest
from genkit.tensors import file_digest

FILES, DIGESTS, LOGS = "files", "digests", "logs"
"""Keys of a state: size of each result, SHA-256 of each result, and SHA-256 of each log."""

_MISSING = FileNotFoundError, IsADirectoryError, NotADirectoryError

_SMALL = 2**20
"""Bytes of a file whose digest takes about a millisecond."""


def read_state(path: Path) -> dict[str, Any]:
    """Return the JSON object in a state file; empty if the file is missing or damaged.

    Raises:
        OSError: the file may be intact, but cannot be read.
    """
    try:
        return read_json_with_digest(path)
    except (DataError, ValueError, *_MISSING):
        return {}


def record_of(folder: Path) -> dict[str, Any]:
    """Return the entries of the state of a finished stage that record its files."""
    sizes = results_in(folder)
    return {
        FILES: sizes,
        DIGESTS: {name: file_digest(folder / name) for name in sizes},
        LOGS: {path.name: file_digest(path) for path in logs_in(folder)},
    }


def small_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file of at most 1 MiB; None for a larger file."""
    return file_digest(path) if path.stat().st_size <= _SMALL else None


def damages(
    folder: Path,
    state: Mapping[str, Any],
    digest_of: Callable[[Path], str | None] = small_digest,
) -> Iterator[tuple[str, str]]:
    """Yield the name of each damaged result, and a description of the damage.

    Args:
        folder: folder of a finished stage, or of a run.
        state: content of its state file.
        digest_of: function that returns the SHA-256 of a file; None if only its size is compared.
            Files of earlier versions have no recorded digest, and only their sizes are compared.
    """
    files, digests = state.get(FILES), state.get(DIGESTS, {})
    if not isinstance(files, dict) or not isinstance(digests, dict):
        yield STATE, f"{folder / STATE} does not contain the sizes of files"
        return
    sizes = results_in(folder)
    for name, size in files.items():
        if name.startswith("."):  # recorded by earlier versions
            continue
        if sizes.get(name) != size:
            now = f"has {sizes[name]} bytes" if name in sizes else "is missing"
            if name not in sizes and os.path.lexists(folder / name):
                now = "is not a regular file"
            yield name, f"{folder / name} {now}, and was written with {size} bytes"
            continue
        try:
            if name in digests and digest_of(folder / name) not in (None, digests[name]):
                yield name, f"{folder / name} differs from what was written"
        except DataError as error:
            yield name, str(error)
        except FileNotFoundError:  # removed since the sizes were read
            yield name, f"{folder / name} is missing"


def changed_logs(folder: Path, state: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the logs of a finished stage that differ from what was written.

    Logs may be deleted. Those of earlier versions have no recorded digest.
    """
    digests = state.get(LOGS)
    for path in logs_in(folder):
        if isinstance(digests, dict) and path.name in digests:
            try:
                if file_digest(path) != digests[path.name]:
                    yield path
            except DataError:
                yield path
