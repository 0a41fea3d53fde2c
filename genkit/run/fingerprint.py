"""Whether a finished stage is still what the recipe asks for."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from genkit.designs import components, references
from genkit.errors import UsageError
from genkit.interfaces import Component, Stage
from genkit.plugin.registry import Registry
from genkit.recipe.encode import table
from genkit.settings import near_match, shown


def fingerprint(
    stage_id: str, stage: Stage, seed: int, registry: Registry, upstream: Mapping[str, str]
) -> str:
    """Return a hash of all that a stage's result depends on, in hex.

    Args:
        stage_id: all its randomness is derived from it and the seed.
        stage: with all its settings.
        seed: of the run.
        registry: registry with the names and versions of the plugins that bring its components.
        upstream: fingerprints of the earlier stages.
    """
    content = {
        "id": stage_id,
        "stage": table(registry, stage, result_only=True),
        "seed": seed,
        "plugins": owners_of(stage, registry),
        "code": code_of(stage),
        "files": files_of(stage),
        "upstream": {name: upstream[name] for name in sorted(set(references(stage)))},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def owners_of(component: Component, registry: Registry) -> list[str]:
    """Return the plugins, with their versions, that bring a component and those that it holds."""
    owners = {
        str(entry.owner)
        for part in components(component)
        for entry in registry.entries()
        if entry.target == f"{type(part).__module__}:{type(part).__qualname__}"
    }
    return sorted(owners)


def files_of(component: Component) -> list[str]:
    """Return the hashes of the files that a component and those that it holds read, in order."""
    return [part.version() for part in components(component)]


def code_of(component: Component) -> dict[str, str]:
    """Return the SHA-256 of the modules that a component and those that it holds consist of.

    A plugin under development keeps its version while its code changes. So the modules count that
    define the components and their bases, and those of the same top-level package that these
    import, directly or not, also inside functions. Of genkit itself, whose stages import most of
    it, the defining modules count; its version stands for the others.

    Returns:
        The digest in hex by the module's name; empty where there is no file to be read.
    """
    defining = {
        base.__module__
        for part in components(component)
        for base in type(part).__mro__
        if _package(base.__module__) == _package(type(part).__module__)
    }
    found: dict[str, str] = {}
    waiting = set(defining)
    while waiting:
        name = waiting.pop()
        file = _file(name)
        source = _read(file)
        if source or name in defining:
            found[name] = hashlib.sha256(source).hexdigest() if source else ""
        if file and _package(name) != "genkit":
            inside = name if file.name == "__init__.py" else name.rpartition(".")[0]
            waiting |= {other for other in _imports(source, inside) if other not in found}
    return found


def _package(module: str) -> str:
    """Return the top-level package of a module."""
    return module.partition(".")[0]


def _file(module: str) -> Path | None:
    """Return the file of a module, which need not be imported yet."""
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
    """Return the names within its top-level package that code imports, modules or not.

    Args:
        source: source code.
        package: package from which its relative imports start; empty for a module in none.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # compiled code
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            start = parts[: len(parts) + 1 - node.level] if node.level else []
            origin = ".".join([*start, *filter(None, [node.module])])
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if _package(name) == _package(package))


def reachable(stage: str, stages: Mapping[str, Stage]) -> frozenset[str]:
    """Return the ids of the stages that a stage names, and of those that these name, and so on.

    The fingerprint of the stage depends on these and on no others.
    """
    found: set[str] = set()
    waiting = [stage]
    while waiting:
        new = set(references(stages[waiting.pop()])) - found
        found |= new
        waiting += new
    return frozenset(found)


def dependents(requested: Collection[str], stages: Mapping[str, Stage]) -> list[str]:
    """Return the ids of stages and of all that refer to them, directly or not, in their order.

    Raises:
        UsageError: there is no stage of an id.
    """
    for stage in requested:
        if stage not in stages:
            hint = near_match(stage, stages) or f"stages: {', '.join(stages)}"
            raise UsageError(f"redo must be the id of a stage, got {shown(stage)}; {hint}")
    return [i for i in stages if not ({i} | reachable(i, stages)).isdisjoint(requested)]
