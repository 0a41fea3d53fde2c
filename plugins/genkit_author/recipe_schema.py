"""JSON Schema (draft 7) of recipes: keys, components and ranges of all installed plugins.

A schema checks less than ``genkit validate``: whether references name earlier stages, paths exist
and shapes fit needs more than one value. Draft 7 is the latest that editors of TOML support.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from genkit.errors import PluginError
from genkit.field_types import (
    Choice,
    FieldType,
    Group,
    List,
    Number,
    Optional,
    Plain,
    Slot,
)
from genkit.fields import Field, fields_of
from genkit.plugin.kinds import KINDS
from genkit.plugin.registry import Entry, Registry, kinds_of
from genkit.recipe.head import FORMAT, Head
from genkit.recipe.recipe import MAX_STAGES
from genkit.settings import Setting

Schema = dict[str, Any]

_JSON_TYPES = {str: "string", bool: "boolean", Mapping: "object"}
_WITHOUT_USE = {"not": {"required": ["use"]}}
_ID = {
    "type": "string",
    "pattern": "^[a-z0-9][a-z0-9_-]{0,99}$",
    "description": "name of the stage, for references and --set",
}


def recipe_schema(registry: Registry, failed: list[str]) -> Schema:
    """Return the JSON Schema of recipes.

    Args:
        registry: registry with the components.
        failed: receives the reason for each component that cannot be loaded, which is left out.
    """
    builder = _Builder(registry, failed)
    definitions: Schema = {}
    for kind in KINDS:
        definitions |= builder.kind(kind)
    top = builder.properties(fields_of(Head))
    top["format"] = {"const": FORMAT, "description": "format of the recipe"}
    stages = {"$ref": "#/definitions/stage"}
    top["stage"] = {"type": "array", "items": stages, "minItems": 1, "maxItems": MAX_STAGES}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "recipe of genkit",
        **_table(top, [*_required(fields_of(Head)), "stage"]),
        "definitions": definitions,
    }


class _Builder:
    """Builds the definitions of a schema.

    Args:
        registry: registry with the components.
        failed: receives the reason for each component that cannot be loaded.
    """

    def __init__(self, registry: Registry, failed: list[str]) -> None:
        self._registry = registry
        self._failed = failed

    def kind(self, kind: str) -> Schema:
        """Return the definitions of a kind: one per component, and one of their union."""
        definitions: Schema = {}
        tables, names = [], []
        for entry in self._registry.entries(kind):
            try:
                cls = self._registry.load(entry)
                fields = fields_of(cls)
            except PluginError as error:
                self._failed.append(str(error))
                continue
            own: Schema = {"use": {"const": entry.name}}
            if kind == "stage":
                own["id"] = _ID
            elif not _required(fields):
                names.append(entry.name)
            summary = (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
            component = {**_table({**own, **self.properties(fields)}), "description": summary}
            definitions[_name_of(entry)] = component
            required = {"required": [*own, *_required(fields)]}
            tables.append({"allOf": [_reference(_name_of(entry)), required]})
        union = [{"enum": names}, *tables] if names else tables
        # A kind may have no component, such as dataset-coupler without plugins that bring one.
        return {**definitions, kind: {"anyOf": union} if union else False}

    def properties(self, fields: Sequence[Field]) -> Schema:
        """Return the schemas of settings by name, each with its meaning and default."""
        return {field.name: self._field(field) for field in fields}

    def _field(self, field: Field) -> Schema:
        made = self._type(field.type, field.setting)
        if "$ref" in made:  # draft 7 ignores the keys beside a reference
            made = {"allOf": [made]}
        made["description"] = field.setting.doc
        if isinstance(field.default, (bool, int, str)) or _is_finite(field.default):
            made["default"] = field.default
        elif field.setting.use is not None:
            made["default"] = dict(field.setting.use)
        return made

    def _type(self, kind: FieldType, setting: Setting) -> Schema:
        match kind:
            case Optional():
                return self._type(kind.inner, setting)
            case Number():
                return {"type": "integer" if kind.integer else "number", **_limits(setting)}
            case Choice():
                return {"enum": list(kind.values)}
            case Slot():
                return self._slot(kind, setting)
            case Group():
                inner = fields_of(kind.base)
                return _table(self.properties(inner), _required(inner))
            case List(any_length=True):
                return {"type": "array", "items": self._type(kind.inner[0], setting)}
            case List():
                items = [self._type(inner, setting) for inner in kind.inner]
                size = len(items)
                return {"type": "array", "items": items, "minItems": size, "maxItems": size}
            case Plain():
                return {"type": _JSON_TYPES[kind.cls]}
        raise TypeError(f"{type(kind).__name__} has no JSON Schema")

    def _slot(self, kind: Slot, setting: Setting) -> Schema:
        """Return the schema of a component, or of some settings of the default component."""
        kinds = kinds_of(kind.base)
        choices: list[Schema] = [_reference(name) for name in kinds]
        if setting.inherit:
            choices.append({"type": "object", **_WITHOUT_USE})
        elif setting.use is not None:
            default = _name_of(self._registry.find(kinds, setting.use["use"]))
            choices.append({"allOf": [_reference(default), _WITHOUT_USE]})
        return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _table(properties: Mapping[str, Any], required: list[str] | None = None) -> Schema:
    must = {"required": required} if required else {}
    return {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
        **must,
    }


def _limits(setting: Setting) -> Schema:
    limits = {
        "minimum": setting.at_least,
        "exclusiveMinimum": setting.above,
        "maximum": setting.at_most,
        "exclusiveMaximum": setting.below,
    }
    return {name: limit for name, limit in limits.items() if limit is not None}


def _required(fields: Sequence[Field]) -> list[str]:
    """Return the names of the settings that a recipe must have."""
    return [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING
        and field.setting.use is None
        and not field.setting.inherit
    ]


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _name_of(entry: Entry) -> str:
    return f"{entry.kind}:{entry.name}"


def _reference(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
