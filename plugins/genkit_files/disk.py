"""What the system says of a disk, told as what the user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genkit.errors import UsageError


@contextmanager
def mendable(out: Path) -> Iterator[None]:
    """Turn an error of the system inside the block into one that tells the user what to mend.

    Args:
        out: what is written, named where the system names nothing.

    Raises:
        UsageError: the disk is full, a folder cannot be written, a name is too long.
        PluginError: a plugin's code raised it.
    """
    try:
        yield
    except OSError as error:
        from genkit.blame import plugin_error_of

        raise plugin_error_of(error) or UsageError(
            f"{error.filename or out}: {error.strerror or error}; when that is mended, give the "
            "same command again"
        ) from error


def require_new(out: Path) -> None:
    """Raise UsageError where a file is there already, has no folder, or another ending."""
    if out.exists():
        raise UsageError(f"{out} exists; move it away, or write another name")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is no folder; make it first")
    if out.suffix != ".safetensors":
        named = out.with_suffix(".safetensors").name
        raise UsageError(f"{out} would hold safetensors; write {named}")
