from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a plugin's module and its distribution's metadata on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    # Not the variable of the folder, in which other libraries have their caches too.
    monkeypatch.setattr("genkit.plugin.probe.cache_folder", lambda: tmp_path / "cache")

    def make(distribution: str, code: str, *, plugin: str = "", value: str = "") -> None:
        module = f"toy_{distribution.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        )
        entry = f"{plugin or distribution} = {value or module}\n"
        (info / "entry_points.txt").write_text(f"[genkit.plugins]\n{entry}")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return make
