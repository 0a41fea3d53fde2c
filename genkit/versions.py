"""Determine the versions of plugins, code and files on which results depend besides settings."""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genkit.interfaces import Component
from genkit.plugin.registry import Registry


def versions_of(components: Iterable[Component], registry: Registry) -> dict[str, Any]:
    """Return the versions on which the results of components depend, for JSON.

    Args:
        components: all components, see :func:`genkit.designs.components`.
        registry: registry with the names and versions of the plugins.

    Returns:
        Dict with ``plugins``, a list of plugins with their versions; ``code``, the result of
        :func:`code_of`; and ``files``, a list with the hash of the files that each component reads.
    """
    parts = list(components)
    targets = {f"{type(part).__module__}:{type(part).__qualname__}" for part in parts}
    return {
        "plugins": sorted({str(e.owner) for e in registry.entries() if e.target in targets}),
        "code": code_of(parts),
        "files": [part.version() for part in parts],
    }


def code_of(components: Iterable[Component]) -> dict[str, str]:
    """Return the SHA-256 of the modules that define components.

    The version of a plugin does not change during development. Its code is therefore hashed: the
    modules that define the components and their bases, and the modules of the same top-level
    package that these import, directly or indirectly, also inside functions. For genkit's own
    components, only the defining modules are hashed, since their imports include most of genkit;
    the version of genkit represents all other modules.

    A module is hashed as a whole, since any part of it can depend on another part through a
    registry, a computed name or code that runs on import.

    Returns:
        Map from the name of a module to its SHA-256 in hex, which is empty for a module without a
        readable file.
    """
    defining = {
        base.__module__
        for part in components
        for base in type(part).__mro__
        if _package(base.__module__) == _package(type(part).__module__)
    }
    digests: dict[str, str] = {}
    queue = set(defining)
    while queue:
        name = queue.pop()
        file = _file(name)
        source = _read(file)
        if source or name in defining:
            digests[name] = hashlib.sha256(source).hexdigest() if source else ""
        if file and _package(name) != "genkit":
            inside = name if file.name == "__init__.py" else name.rpartition(".")[0]
            queue |= {other for other in _imports(source, inside) if other not in digests}
    return digests


def _package(module: str) -> str:
    """Return the top-level package of a module."""
    return module.partition(".")[0]


def _file(module: str) -> Path | None:
    """Return the file of a module, without importing it; None if it is not found."""
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
        return Path(file) if file else None
    places = getattr(sys.modules.get(_package(module)), "__path__", ())
    paths = [Path(place, *module.split(".")[1:]) for place in places]
    files = [file for p in paths for file in (p.with_suffix(".py"), p / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


def _read(file: Path | None) -> bytes:
    try:
        return file.read_bytes() if file else b""
    except OSError:
        return b""


@functools.cache
def _imports(source: bytes, package: str) -> frozenset[str]:
    """Return the names that source code imports from its own top-level package.

    Args:
        source: source code.
        package: package of the module, for relative imports; empty for a top-level module.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # compiled code
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            start = parts[: len(parts) + 1 - node.level] if node.level else []
            origin = ".".join([*start, *filter(None, [node.module])])
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in names if _package(name) == _package(package))
