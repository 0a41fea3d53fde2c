"""The scripts of `benchmarks` take hours; the names that they import are checked at once."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))
SHIPPED = {"genkit", *(path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py"))}


def is_there(module: str, name: str) -> bool:
    if hasattr(importlib.import_module(module), name):
        return True
    return importlib.util.find_spec(f"{module}.{name}") is not None


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_what_a_script_imports_is_there(script: Path) -> None:
    found = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in SHIPPED
        for alias in node.names
    ]
    assert [f"{module}.{name}" for module, name in found if not is_there(module, name)] == []
