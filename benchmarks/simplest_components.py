"""Construct each registered component with the fewest settings, for `reliability_recipes.py` and the tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from genkit.artifacts import Artifact
from genkit.errors import GenkitError
from genkit.field_types import (
    Choice,
    FieldType,
    FilePathType,
    Group,
    List,
    Number,
    Plain,
    Reference,
    Slot,
)
from genkit.fields import Field, fields_of
from genkit.interfaces import Component, Network, Stages
from genkit.plugin.manager import Plugins
from genkit.plugin.registry import Entry, Registry, kinds_of
from genkit.recipe.decode import component
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source

RECIPE = """
name = "stages"
data = { use = "digits" }

[[stage]]
id = "denoiser"
use = "train"
images = 64
network = { use = "ddpmpp", channels = 64, blocks = 1 }
objective = { use = "denoising" }
average = { use = "power-ema", snapshot_images = 32 }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"

[[stage]]
id = "discriminator"
use = "train"
images = 64
data = { use = "real-and-fake", fakes = "samples", held_out = 0.1 }
network = { use = "scratch" }
objective = { use = "discrimination" }
average = { use = "ema", snapshot_images = 32 }

[[stage]]
id = "classifier"
use = "train"
images = 64
network = { use = "noisy-classifier", channels = 64, blocks = 1, multipliers = [1], attention = [8] }
objective = { use = "classification" }

[[stage]]
id = "weight"
use = "fit-weight"
discriminator = "discriminator"
denoiser = "denoiser"

[[stage]]
id = "levels"
use = "fit-schedule"
denoiser = "denoiser"

[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
vary.schedule.steps = [5, 7]
metrics = [{ use = "frechet", extractor = { use = "pixels" } }]
"""
"""Stages to which components refer, with an artifact of each type."""


FILE = "edm.safetensors"
"""File of a network in the folder of `reliability_recipes.files_of_recipes`."""

SMALL = {"channels": 64, "blocks": 1}
"""Settings of a network that is built in a moment, where it has them."""


class Simplest:
    """Constructs components.

    Args:
        plugins: plugins with the components.

    Attributes:
        stages: stages to which components refer, by id.
    """

    def __init__(self, plugins: Plugins) -> None:
        self._registry: Registry = plugins.registry
        self.stages: Stages = load_recipe(Source.parse(RECIPE), plugins).stages

    def component(self, entry: Entry) -> Component:
        """Return a component with a value for each setting without a default.

        Raises:
            GenkitError: such a value is not valid.
        """
        try:
            return component(self._registry, entry.kind, self._table(entry))
        except GenkitError:  # the default component of a setting may require settings
            return component(self._registry, entry.kind, self._table(entry, defaults=False))

    def _table(self, entry: Entry, defaults: bool = True) -> dict[str, Any]:
        cls = self._registry.load(entry)
        fields = fields_of(cls)
        given = {
            field.name: self._value(field.type) for field in fields if _is_required(field, defaults)
        }
        small = {
            f.name: SMALL[f.name] for f in fields if f.name in SMALL and issubclass(cls, Network)
        }
        return {"use": entry.name, **given, **small}

    def _value(self, kind: FieldType) -> Any:
        match kind:
            case Reference(artifact=artifact):
                return self._stage(artifact)
            case Slot(base=base):
                return self._part(base)
            case Group(base=base):
                required = (field for field in fields_of(base) if _is_required(field))
                return {field.name: self._value(field.type) for field in required}
            case List(inner=inner, any_length=any_length):
                return [] if any_length else [self._value(item) for item in inner]
            case Choice(values=values):
                return values[0]
            case Number(setting=setting):
                return max(1, int(setting.at_least or 0))
            case FilePathType():
                return FILE
            case Plain(cls=cls):
                return "x" if cls is str else cls is bool or {"schedule": {"steps": [2, 3]}}
        raise TypeError(f"settings of the type {kind} must have a value here; add one")

    def _stage(self, artifact: type[Artifact]) -> str:
        found = (i for i, s in self.stages.items() if s.output and issubclass(s.output, artifact))
        return next(found, "missing")

    def _part(self, base: type[Any]) -> dict[str, Any]:
        """Return the table of the first component of a kind that can be constructed."""
        entries = [entry for kind in kinds_of(base) for entry in self._registry.entries(kind)]
        for entry in sorted(entries, key=lambda e: len(fields_of(self._registry.load(e)))):
            try:
                self.component(entry)
            except GenkitError:
                continue
            return self._table(entry)
        raise LookupError(f"no {base.__name__} can be constructed; give one of them its settings")


def _is_required(field: Field, defaults: bool = True) -> bool:
    return field.default is dataclasses.MISSING and not (defaults and field.setting.use)
