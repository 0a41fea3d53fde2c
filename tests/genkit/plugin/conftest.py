from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from misbehaving import write_plugin


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a plugin's module and its distribution's metadata on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    # Not the variable of the folder, in which other libraries have their caches too.
    monkeypatch.setattr("genkit.plugin.probe.cache_folder", lambda: tmp_path / "cache")

    def make(distribution: str, code: str, *, plugin: str = "", value: str = "") -> None:
        module = write_plugin(tmp_path, distribution, code, plugin=plugin, value=value)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return make
