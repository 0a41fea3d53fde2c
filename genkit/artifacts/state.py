"""Read the states of runs and stages, and compare files with what the states record of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from genkit.artifacts.layout import STATE, logs_in, results_in
from genkit.errors import DataError
from genkit.files import read_json_with_digest
from genkit.tensors import file_digest

FILES, DIGESTS, LOGS = "files", "digests", "logs"
"""Keys of a state: size of each result, SHA-256 of each result, and SHA-256 of each log."""

_SMALL = 2**20
"""Bytes of a file whose digest takes about a millisecond."""


def read_state(path: Path) -> dict[str, Any]:
    """Return the JSON object in a state file; empty if the file is missing or damaged."""
    try:
        return read_json_with_digest(path)
    except (DataError, OSError, ValueError):
        return {}


def record_of(folder: Path, names: Collection[str] | None = None) -> dict[str, Any]:
    """Return the entries of a state that record files.

    Args:
        folder: folder of a stage or of a run.
        names: names of the results; None for all results.
    """
    sizes = results_in(folder)
    sizes = {name: sizes[name] for name in (sizes if names is None else names)}
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
        if sizes.get(name) != size:
            now = f"has {sizes[name]} bytes" if name in sizes else "is missing"
            if name not in sizes and os.path.lexists(folder / name):
                now = "is no regular file"
            yield name, f"{folder / name} {now}, and was written with {size} bytes"
            continue
        try:
            if name in digests and digest_of(folder / name) not in (None, digests[name]):
                yield name, f"{folder / name} differs from what was written"
        except DataError as error:
            yield name, str(error)


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
