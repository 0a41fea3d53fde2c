"""The memory of a container is its limit, not the memory of the machine."""

from __future__ import annotations

import os

import pytest

from genkit.parts import memory

MACHINE = 2**30


@pytest.mark.parametrize(
    ("content", "total"),
    [("max\n", MACHINE), ("1048576\n", 2**20), ("9223372036854771712\n", MACHINE), (None, MACHINE)],
)
def test_total_memory_is_the_limit_of_the_container(monkeypatch, tmp_path, content, total):
    if content is not None:
        (tmp_path / "limit").write_text(content)
    monkeypatch.setattr(os, "sysconf", lambda name: 2**15)  # pages, and bytes of a page
    monkeypatch.setattr(memory, "_LIMITS", (tmp_path / "none", tmp_path / "limit"))
    assert memory.total_memory() == total
