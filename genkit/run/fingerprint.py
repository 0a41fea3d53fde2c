"""Whether a finished stage is still what the recipe asks for."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from genkit.interfaces import Component, Dataset, Stage
from genkit.plugin.registry import Registry
from genkit.recipe.encode import table
from genkit.settings import Ref, annotations_of


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
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Component):
                yield from components(part)


def references(component: Component) -> Iterator[str]:
    """Yield the ids of the earlier stages that a component names, at any depth."""
    for part in components(component):
        for name, annotation in annotations_of(type(part)).items():
            yield from _named(annotation, getattr(part, name))


def reference_fields(component: Component) -> list[str]:
    """Return the names of a component's own settings that may name earlier stages."""
    return [name for name, found in annotations_of(type(component)).items() if _refers(found)]


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


def _refers(annotation: Any) -> bool:
    """Whether values of an annotation may name a stage: alone, optionally, or in a tuple."""
    return any(isinstance(arg, Ref) or _refers(arg) for arg in get_args(annotation))


def _named(annotation: Any, value: Any) -> Iterator[str]:
    """Yield the ids of stages that a value of an annotation names."""
    args = get_args(annotation)
    if get_origin(annotation) is Annotated:
        if any(isinstance(mark, Ref) for mark in args) and isinstance(value, str):
            yield value
        else:
            yield from _named(args[0], value)
    elif get_origin(annotation) in (Union, UnionType):
        for option in args:
            yield from _named(option, value)
    elif get_origin(annotation) is tuple and isinstance(value, tuple):
        kinds = itertools.repeat(args[0]) if args[-1] is Ellipsis else args
        for kind, item in zip(kinds, value, strict=False):
            yield from _named(kind, item)
