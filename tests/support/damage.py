"""Damage the content of files."""

from __future__ import annotations


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
