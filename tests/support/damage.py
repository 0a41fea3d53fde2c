"""Damage the content of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genkit.artifacts.state import read_state
from genkit.files import write_json_with_digest


def damaged(content: bytes, how: str, position: int, bit: int = 0) -> bytes:
    """Return content with a flipped bit at a position, cut off there, or empty.

    Args:
        content: content of at least one byte.
        how: ``flip``, ``cut`` or ``empty``.
        position: any integer, of which the remainder for the length of the content is used.
        bit: bit to flip, 0 to 7.
    """
    if how == "flip":
        flipped = bytearray(content)
        flipped[position % len(content)] ^= 1 << bit
        return bytes(flipped)
    return content[: position % len(content)] if how == "cut" else b""


def change_state(path: Path, **entries: Any) -> None:
    """Change entries of a state file, which remains valid; None removes an entry."""
    state = {**read_state(path), **entries}
    write_json_with_digest(path, {key: value for key, value in state.items() if value is not None})
