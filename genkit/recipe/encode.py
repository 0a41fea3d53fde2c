"""Turns components back into tables: what a recipe would write, with every default filled in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genkit.interfaces import Component
from genkit.plugin.registry import Registry
from genkit.settings import annotations_of, setting_of

if TYPE_CHECKING:
    from genkit.recipe.recipe import Recipe


def table(registry: Registry, component: Component, *, result_only: bool = False) -> dict[str, Any]:
    """Return the table from which a component can be decoded again.

    Args:
        registry: tells the names of components.
        component: what is encoded, with everything in its slots.
        result_only: leave out what changes neither weights nor samples.

    Returns:
        ``use`` and every field, in plain values that TOML can hold; fields that are None are left
        out.

    Raises:
        PluginError: a component is not registered.
    """
    return {
        "use": registry.name_of(component),
        **_fields(registry, component, result_only=result_only),
    }


def resolved(recipe: Recipe, registry: Registry) -> dict[str, Any]:
    """Return a whole recipe with every default written out. It is the same recipe again."""
    top: dict[str, Any] = {"name": recipe.name, "seed": recipe.seed}
    if recipe.data is not None:
        top["data"] = table(registry, recipe.data)
    top |= {"device": recipe.device, "next": recipe.next}
    stages = [{"id": i, **table(registry, stage)} for i, stage in recipe.stages.items()]
    return {**top, "stage": stages}


def _fields(registry: Registry, settings: Any, *, result_only: bool) -> dict[str, Any]:
    annotations = annotations_of(type(settings))
    encoded = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is None or (result_only and not setting_of(field).affects_result):
            continue
        # An integer is accepted where a float is meant, and both must have one fingerprint.
        if annotations[field.name] in (float, float | None):
            value = float(value)
        encoded[field.name] = _plain(registry, value, result_only=result_only)
    return encoded


def _plain(registry: Registry, value: Any, *, result_only: bool) -> Any:
    if isinstance(value, Component):
        return table(registry, value, result_only=result_only)
    if dataclasses.is_dataclass(value):
        return _fields(registry, value, result_only=result_only)
    if isinstance(value, Mapping):
        return {k: _plain(registry, v, result_only=result_only) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(registry, v, result_only=result_only) for v in value]
    return value
