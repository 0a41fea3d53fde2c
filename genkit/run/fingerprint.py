"""Whether a finished stage is still what the recipe asks for."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from genkit.errors import UsageError
from genkit.field_types import Reference, Slot
from genkit.fields import leaves_of
from genkit.interfaces import Component, Dataset, Stage
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
        # Of these alone: another component may have a setting of the name `version`.
        "files": [p.version() for p in components(stage) if isinstance(p, (Dataset, Stage))],
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


def code_of(component: Component) -> dict[str, str]:
    """Return the SHA-256 of the modules that define a component and those that it holds, by name.

    A plugin under development keeps its version while its code changes. Bases of a component are
    included if they are in its package; other modules that it imports are not.
    """
    modules = {
        base.__module__
        for part in components(component)
        for base in type(part).__mro__
        if base.__module__.partition(".")[0] == type(part).__module__.partition(".")[0]
    }
    return {name: _source_digest(name) for name in sorted(modules)}


def _source_digest(module: str) -> str:
    """Return the SHA-256 of a module's file in hex; empty where there is none to be read."""
    file = getattr(sys.modules.get(module), "__file__", None)
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    except OSError:
        return ""


def components(component: Component) -> Iterator[Component]:
    """Yield a component and all that its settings hold."""
    yield component
    for leaf, value in leaves_of(component):
        if isinstance(leaf, Slot):
            yield from components(value)


def references(component: Component) -> Iterator[str]:
    """Yield the ids of the earlier stages that a component names, at any depth."""
    for part in components(component):
        yield from (value for leaf, value in leaves_of(part) if isinstance(leaf, Reference))


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
