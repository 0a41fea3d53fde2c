"""Write the files that describe how the results of a run were computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tomli_w
import torch

from genkit.artifacts.layout import ENVIRONMENT, RECIPE, RESOLVED
from genkit.files import json_text
from genkit.machine import environment
from genkit.plugin.manager import Plugins
from genkit.plugin.registry import Registry
from genkit.recipe.encode import resolved
from genkit.recipe.recipe import Recipe
from genkit.run.folder import RunFolder


def describe(
    run: RunFolder,
    recipe: Recipe,
    plugins: Plugins,
    device: torch.device,
    devices: list[dict[str, str]],
) -> None:
    """Write the recipe as it was given, the recipe with all values, and the environment.

    Args:
        run: folder of the run.
        recipe: recipe without mistakes.
        plugins: plugins with the components.
        device: device of this process.
        devices: hardware of each process.
    """
    content: dict[str, Any] = {"set": list(recipe.overrides), **environment(device, plugins)}
    content |= {"processes": len(devices), "devices": devices}
    run.describe({**_recipes(recipe, plugins.registry), ENVIRONMENT: json_text(content)})


def restore_description(
    run: RunFolder, recipe: Recipe, registry: Registry, note: Callable[[str], None]
) -> None:
    """Write damaged recipes of a finished run again.

    The run has the results of the given recipe, since all fingerprints are equal. The environment
    in which they were computed is not known to the present process.
    """
    damages, texts = run.damages(), _recipes(recipe, registry)
    if run.is_damaged:  # the digests of the recipes are lost
        run.describe(texts)
    for name, damage in damages.items():
        remedy = "it is written again" if name in texts else "--redo of a stage writes it again"
        note(f"{damage}; {remedy}")
    if again := {name: text for name, text in texts.items() if name in damages}:
        run.describe(again)


def _recipes(recipe: Recipe, registry: Registry) -> dict[str, str]:
    return {RECIPE: recipe.source.text, RESOLVED: tomli_w.dumps(resolved(recipe, registry))}
