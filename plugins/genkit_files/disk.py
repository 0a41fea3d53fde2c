"""Report errors of the file system as usage errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genkit.errors import UsageError


@contextmanager
def user_errors(out: Path) -> Iterator[None]:
    """Convert an ``OSError`` in a ``with`` block to an error with the file and a remedy.

    Args:
        out: output file or folder, which the error contains if the ``OSError`` has no file name.

    Raises:
        UsageError: the operating system reports an error, such as a full disk, a folder that is
            not writable, or a name that is too long.
        PluginError: the ``OSError`` was raised by code of a plugin.
    """
    try:
        yield
    except OSError as error:
        from genkit.blame import plugin_error_of

        raise plugin_error_of(error) or UsageError(
            f"{error.filename or out}: {error.strerror or error}; resolve this, and run the same "
            "command again"
        ) from error


def require_new(out: Path) -> None:
    """Raise UsageError unless ``out`` is a new .safetensors file in an existing folder."""
    if out.exists():
        raise UsageError(f"OUT must be a new file, got {out}; move it away, or write another name")
    if not out.parent.is_dir():
        raise UsageError(
            f"OUT must be in an existing folder, got {out}; create {out.parent}, or write a "
            "different path"
        )
    if out.suffix != ".safetensors":
        name = out.with_suffix(".safetensors").name
        raise UsageError(f"OUT must end in .safetensors, got {out}; write {name}")
