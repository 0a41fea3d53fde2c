"""Errors of the file system, reported as errors of the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genkit.errors import UsageError


@contextmanager
def user_errors(out: Path) -> Iterator[None]:
    """Convert an ``OSError`` inside the block to an error that states the file and the remedy.

    Args:
        out: output, named where the error has no file name.

    Raises:
        UsageError: the disk is full, a folder is not writable, or a name is too long.
        PluginError: code of a plugin raised the error.
    """
    try:
        yield
    except OSError as error:
        from genkit.blame import plugin_error_of

        raise plugin_error_of(error) or UsageError(
            f"{error.filename or out}: {error.strerror or error}; correct this, and run the same "
            "command again"
        ) from error


def require_new(out: Path) -> None:
    """Raise UsageError unless a .safetensors file of this name can be created."""
    if out.exists():
        raise UsageError(f"OUT must be a new file, got {out}; move it away, or write another name")
    if not out.parent.is_dir():
        raise UsageError(
            f"OUT must be in an existing folder, got {out}; create {out.parent}, or write another"
        )
    if out.suffix != ".safetensors":
        name = out.with_suffix(".safetensors").name
        raise UsageError(f"OUT must end in .safetensors, got {out}; write {name}")
