from __future__ import annotations

import tomli_w

from genkit.errors import Code, PluginError
from genkit.interfaces import Component
from genkit.plugin.manager import Plugins
from genkit.plugin.registry import Registry
from genkit.recipe.decode import component
from genkit.recipe.encode import resolved, table
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source
from raising import raises_code

RECIPE = """\
name = "a"
seed = 3
data = { use = "toys" }
[[stage]]
id = "denoiser"
use = "train"
images = 100
rate = 1
vary.schedule.steps = [5, 7]
coupler = { use = "wrapped", by = ["realness"] }
[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
couplers = [{ use = "random" }, { use = "greedy", weight = 2 }]
[[stage]]
id = "more"
use = "sample"
denoiser = "denoiser"
others = ["samples"]
"""


def test_every_default_is_written(registry: Registry) -> None:
    made = component(registry, "coupler", {"use": "wrapped", "by": ["a"]})
    assert table(registry, made) == {
        "use": "wrapped",
        "by": ["a"],
        "inner": {"use": "greedy", "cost": "euclidean", "weight": 1.0, "every": 10},
    }


def test_result_only_leaves_out_what_changes_nothing(registry: Registry) -> None:
    made = component(registry, "coupler", {"use": "wrapped", "by": ["a"]})
    assert "every" not in table(registry, made, result_only=True)["inner"]


def test_a_default_and_the_same_value_written_are_encoded_alike(registry: Registry) -> None:
    default = table(registry, component(registry, "coupler", {"use": "greedy"}))
    for weight in (1, 1.0):
        written = component(registry, "coupler", {"use": "greedy", "weight": weight})
        assert str(table(registry, written)) == str(default)


def test_a_resolved_recipe_is_the_same_recipe(plugins: Plugins) -> None:
    recipe = load_recipe(Source.parse(RECIPE), plugins)
    text = tomli_w.dumps(resolved(recipe, plugins.registry))
    again = load_recipe(Source.parse(text), plugins)
    assert again == recipe
    assert resolved(again, plugins.registry) == resolved(recipe, plugins.registry)


def test_overrides_are_part_of_the_resolved_recipe(plugins: Plugins) -> None:
    recipe = load_recipe(Source.parse(RECIPE), plugins, ["seed=9"])
    assert resolved(recipe, plugins.registry)["seed"] == 9


def test_a_strange_component_has_no_name(registry: Registry) -> None:
    class Strange(Component):
        pass

    with raises_code(PluginError, Code.UNKNOWN_COMPONENT, "Strange"):
        table(registry, Strange())
