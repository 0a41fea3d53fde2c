"""Whether a finished stage is still what the recipe asks for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, get_args, get_origin

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
        registry: for the names and versions of the plugins that bring its components.
        upstream: fingerprints of the earlier stages.
    """
    owners = {
        str(entry.owner)
        for part in components(stage)
        for entry in registry.entries()
        if entry.target == f"{type(part).__module__}:{type(part).__qualname__}"
    }
    content = {
        "id": stage_id,
        "stage": table(registry, stage, result_only=True),
        "seed": seed,
        "plugins": sorted(owners),
        "data": [part.version() for part in components(stage) if isinstance(part, Dataset)],
        "upstream": {name: upstream[name] for name in sorted(set(references(stage)))},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
        for name in reference_fields(part):
            yield getattr(part, name)


def reference_fields(component: Component) -> list[str]:
    """Return the names of a component's own settings that name earlier stages."""
    return [
        name
        for name, annotation in annotations_of(type(component)).items()
        if get_origin(annotation) is Annotated
        and any(isinstance(mark, Ref) for mark in get_args(annotation))
    ]
