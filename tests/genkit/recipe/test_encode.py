from __future__ import annotations

import tomli_w

from genkit.errors import Code, PluginError
from genkit.interfaces import Component
from genkit.plugin.manager import Plugins
from genkit.plugin.registry import Registry
from genkit.recipe.decode import component
from genkit.recipe.encode import Value, resolved, table, values
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


def test_every_setting_has_its_default(plugins: Plugins, registry: Registry) -> None:
    found = values(load_recipe(Source.parse(RECIPE), plugins), registry)
    assert list(found) == ["", "denoiser", "samples", "more"]
    by_key = {value.key: value for settings in found.values() for value in settings}
    assert by_key["name"] == Value("name", "a", required=True)
    assert by_key["seed"] == Value("seed", 3, 0)
    assert by_key["data.folder"] == Value("data.folder", "here", "here")
    # The data of the recipe is one setting of a stage.
    assert by_key["denoiser.data"] == Value("denoiser.data", "toys", "toys")
    assert "denoiser.data.folder" not in by_key
    # Of a component, the defaults in the table of its slot come before those of its class.
    cost = "denoiser.paired.inner.cost"
    assert by_key[cost] == Value(cost, "squared", "squared")
    assert by_key["denoiser.paired.by"] == Value("denoiser.paired.by", ["a"], ["a"])
    # Of another component than the default, all settings have the defaults of its class.
    assert by_key["denoiser.coupler"] == Value("denoiser.coupler", "wrapped", "random")
    by = "denoiser.coupler.by"
    assert by_key[by] == Value(by, ["realness"], required=True)
    assert by_key["denoiser.extra"] == Value("denoiser.extra", None)
    assert by_key["denoiser.vary"].value == {"schedule": {"steps": [5, 7]}}
    assert by_key["samples.couplers.0"] == Value("samples.couplers.0", "random")
    assert by_key["samples.couplers.1.weight"] == Value("samples.couplers.1.weight", 2.0, 1)
    assert by_key["more.couplers"] == Value("more.couplers", [], [])
    differing = {key for key, value in by_key.items() if value.differs}
    assert differing == {
        "name",
        "seed",
        "data",
        "denoiser.coupler",
        "denoiser.coupler.by",
        "denoiser.images",
        "denoiser.rate",
        "denoiser.vary",
        "samples.denoiser",
        "samples.couplers.0",
        "samples.couplers.1",
        "samples.couplers.1.weight",
        "more.denoiser",
        "more.others",
    }


def test_data_that_a_stage_changes_is_listed(plugins: Plugins, registry: Registry) -> None:
    text = RECIPE.replace("images = 100", 'images = 100\ndata = { folder = "there" }')
    found = values(load_recipe(Source.parse(text), plugins), registry)["denoiser"]
    by_key = {value.key: value for value in found}
    assert by_key["denoiser.data.folder"] == Value("denoiser.data.folder", "there", "here")
    assert not by_key["denoiser.data"].differs
