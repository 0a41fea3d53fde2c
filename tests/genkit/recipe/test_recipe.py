from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from genkit.errors import RecipeError
from genkit.plugin.manager import Plugins
from genkit.plugin.registry import Owner
from genkit.recipe.recipe import Recipe, load_recipe
from genkit.recipe.source import Source

GOOD = """\
name = "good"
data = { use = "toys" }

[[stage]]
id = "denoiser"
use = "train"
images = 100
coupler = { use = "wrapped", by = ["source"] }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
couplers = [{ use = "random" }, { use = "greedy", weight = 2 }]
"""


@pytest.fixture
def mistakes(plugins: Plugins) -> Callable[..., list[str]]:
    def found(text: str, *overrides: str) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load_recipe(Source.parse(text, "f"), plugins, overrides)
        return list(caught.value.lines)

    return found


def load(plugins: Plugins, text: str, *overrides: str) -> Recipe:
    return load_recipe(Source.parse(text, "f"), plugins, overrides)


def test_decodes(plugins: Plugins) -> None:
    recipe = load(plugins, GOOD)
    assert (recipe.name, recipe.seed, recipe.device, recipe.next) == ("good", 0, "auto", "")
    assert list(recipe.stages) == ["denoiser", "samples"]
    train, sample = recipe.stages.values()
    assert train.data is recipe.data
    assert train.coupler.by == ("source",)
    assert type(train.coupler.inner).__name__ == "Greedy"
    assert train.ema.half_life == 500
    assert [type(c).__name__ for c in sample.couplers] == ["Random", "Greedy"]
    assert type(sample.couplers[1].weight) is float
    assert recipe.source.text == GOOD
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.seed = 1


def test_overrides_are_applied_and_recorded(plugins: Plugins) -> None:
    recipe = load(plugins, GOOD, "denoiser.ema.half_life=7", 'name="other"')
    assert recipe.stages["denoiser"].ema.half_life == 7
    assert recipe.name == "other"
    assert recipe.overrides == ("denoiser.ema.half_life=7", 'name="other"')
    assert recipe.source.text == GOOD


CASES = [
    # top level
    ('name = "good"', "", "f:1: name: missing: name of the run's folder"),
    ('name = "good"', 'name = "../a"', 'f:1: name: "../a" cannot name a folder'),
    ('name = "good"', 'name = ".."', "cannot name a folder"),
    ('name = "good"', 'name = "a\\nb"', r'f:1: name: "a\nb" cannot name a folder'),
    ('name = "good"', "name = 3", 'f:1: name: 3 is not a string; write "3"'),
    ('name = "good"', 'name = "a"\nseed = -1', "f:2: seed: -1 is out of range; write a value at l"),
    ('name = "good"', 'name = "a"\nseed = 1.5', "f:2: seed: 1.5 is not an integer"),
    ('name = "good"', 'name = "a"\nseed = true', "f:2: seed: true is not an integer"),
    ('name = "good"', 'name = "a"\nseed = 0x' + "f" * 5000, "f:2: seed: "),
    ('name = "good"', 'name = "a"\ndevice = "gpu"', 'f:2: device: "gpu" is no device; write auto'),
    ('name = "good"', 'name = "a"\nsead = 1', 'f:2: sead: unknown setting; did you mean "seed"?'),
    ('name = "good"', 'name = "a"\n"o d" = 1', 'f:2: "o d": unknown setting'),
    ('data = { use = "toys" }', "", "f:4: denoiser.data: missing: the data; write data ="),
    ('data = { use = "toys" }', 'data = "toys"', 'f:2: data: "toys" is not a dataset; write { use'),
    (
        'data = { use = "toys" }',
        'data = { use = "tois" }',
        'f:2: data.use: no dataset is called "t',
    ),
    (
        'data = { use = "toys" }',
        'data = { use = "toys", fakes = "samples" }',
        "f:2: data.fakes: st",
    ),
    (
        'data = { use = "toys" }',
        'data = { use = "toys", folder = "nowhere" }',
        "f:2: data: folder n",
    ),
    ('use = "toys"', 'use = "toys", folder = "odd"', "f:2: data.folder: is odd"),
    # stages
    ('id = "denoiser"', "", "f:4: stage.0.id: missing"),
    ('id = "denoiser"', "id = 3", "f:5: stage.0.id: 3 cannot be an id"),
    ('id = "denoiser"', 'id = "A b"', 'f:5: "A b".id: "A b" cannot be an id'),
    ('id = "denoiser"', 'id = "seed"', 'f:5: seed.id: "seed" is a key of the recipe'),
    ('id = "samples"', 'id = "denoiser"', 'f:11: denoiser.id: "denoiser" is the id of a stage ab'),
    ('use = "train"', "", "f:4: denoiser.use: missing: it names the stage"),
    ('use = "train"', "use = 3", "f:6: denoiser.use: 3 is not a string"),
    (
        'use = "train"',
        'use = "trian"',
        'f:6: denoiser.use: no stage is called "trian"; did you mea',
    ),
    ('use = "train"', 'use = "absent"', 'f:6: denoiser.use: stage "absent" (genkit_no_such_modu'),
    ('use = "train"', 'use = "broken"', "has an annotation that cannot be read: name 'Nowhere' is"),
    # settings
    (
        "images = 100",
        "",
        "f:4: denoiser.images: missing: how many images; write images = ..., an in",
    ),
    ("images = 100", "image = 100", 'f:7: denoiser.image: unknown setting; did you mean "images"?'),
    ("images = 100", 'images = "100"', 'f:7: denoiser.images: "100" is not an integer'),
    (
        "images = 100",
        "images = 0",
        "f:7: denoiser.images: 0 is out of range; write a value at leas",
    ),
    ("images = 100", "images = 99999999999999999999", "does not fit into 64 bits"),
    ("images = 100", "images = 1\nrate = nan", "f:8: denoiser.rate: nan is not finite"),
    ("images = 100", "images = 1\nvary = 1", "f:8: denoiser.vary: 1 is not a table"),
    ("images = 100", "images = 1\nema = 1", "f:8: denoiser.ema: 1 is not a table"),
    ("images = 100", "images = 1\nema.half_life = 0", "f:8: denoiser.ema.half_life: 0 is out of"),
    ("images = 100", "images = 1\nema.x = 0", "f:8: denoiser.ema.x: unknown setting"),
    # slots
    (', by = ["source"]', "", 'f:8: denoiser.coupler.by: missing: attributes; write by = ["..."]'),
    ('by = ["source"]', 'by = "source"', 'f:8: denoiser.coupler.by: "source" is not a list; wri'),
    ('by = ["source"]', "by = [1]", "f:8: denoiser.coupler.by.0: 1 is not a string"),
    ('couplers = [{ use = "random" }', "couplers = [{}", "samples.couplers.0.use: missing"),
    ('by = ["source"]', 'by = [], inner = "greedy"', '"greedy" is not a coupler; write { use = "g'),
    ('by = ["source"]', "by = [], inner = 3", '3 is not a coupler; write { use = "..." }'),
    ('by = ["source"]', 'by = [], inner = {use="toys"}', 'no coupler is called "toys"'),
    ('by = ["source"]', 'by = ["a", "a"]', "f:8: denoiser.coupler.by: an attribute is named twice"),
    ("weight = 2", "weight = 0", "f:14: samples.couplers.1.weight: 0 is out of range; write a val"),
    ("weight = 2", 'cost = "euclid"', '"euclid" is none of "euclidean", "squared"; did you mean'),
    ("couplers = [", "span = [1.0]\ncouplers = [", "samples.span: 1 items where 2 are needed"),
    # references
    ('denoiser = "denoiser"', "", "f:10: samples.denoiser: missing"),
    ('denoiser = "denoiser"', "denoiser = 3", "f:13: samples.denoiser: 3 is not a string"),
    ('denoiser = "denoiser"', 'denoiser = "denoise"', "f:13: samples.denoiser: there is no stage"),
    ('denoiser = "denoiser"', 'denoiser = "samples"', '"samples" is this stage itself'),
    (
        "couplers = [",
        'others = ["denoiser"]\ncouplers = [',
        'f:14: samples.others.0: stage "denoiser" leaves denoiser; a stage above that leaves s',
    ),
    # checks
    ("images = 100", "images = 1\npool_size = 3", "f:8: denoiser.pool_size: 3 is less than a bat"),
    ("images = 100", "images = 1\nbatch_size = 9", "f:4: denoiser.pool_size: 8 is less than a bat"),
    ("images = 100", "images = 13", "f:13: samples.denoiser: was trained on 13 images"),
]


@pytest.mark.parametrize(("old", "new", "message"), CASES)
def test_one_mistake_is_one_line(
    mistakes: Callable[..., list[str]], old: str, new: str, message: str
) -> None:
    found = mistakes(GOOD.replace(old, new, 1))
    assert len([line for line in found if message in line]) == 1, found
    assert all("\n" not in line for line in found)
    # A renamed setting is missing as well, and a renamed stage missed by what refers to it.
    assert len(found) == 1 or (len(found) == 2 and old.startswith(("id", "images")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"', "f:1: stage: missing: a recipe has at least one stage"),
        ('name = "a"\nstage = []', "f:2: stage: missing"),
        ('name = "a"\n[stage]\nid = "b"', "f:2: stage: is not a list of tables; write [[stage]]"),
        ('name = "a"\nstage = [1]', "f:2: stage.0: 1 is not a stage"),
        ('name = "a"\n' + "[[stage]]\n" * 100, "f:2: stage: 100 stages; a recipe has at most 99"),
    ],
)
def test_no_stages(mistakes: Callable[..., list[str]], text: str, message: str) -> None:
    (line,) = mistakes(text)
    assert line.startswith(message)


def test_a_stage_below_is_named_as_such(mistakes: Callable[..., list[str]]) -> None:
    first, second = GOOD.index("[[stage]]"), GOOD.rindex("[[stage]]")
    (line,) = mistakes(GOOD[:first] + GOOD[second:] + GOOD[first:second])
    assert line == (
        'f:7: samples.denoiser: stage "denoiser" must stand above the stage that needs it'
    )


def test_all_mistakes_at_once_by_line(mistakes: Callable[..., list[str]]) -> None:
    text = GOOD
    for old, new in [
        ('name = "good"', "name = 1"),
        ("images = 100", "images = -1"),
        ('by = ["source"]', "by = 1, inner = 2"),
        ("weight = 2", "weight = []"),
        ('denoiser = "denoiser"', 'denoiser = "x"'),
    ]:
        text = text.replace(old, new)
    found = mistakes(text, "sead=1", "samples.span=[1]")
    places = [line.split(": ")[0] for line in found]
    assert places == [
        *("f:1", "f:7", "f:8", "f:8", "f:13", "f:14"),
        "--set samples.span=[1]",
        "--set sead=1",
    ]


def test_an_overridden_value_is_located_at_the_override(
    mistakes: Callable[..., list[str]],
) -> None:
    (line,) = mistakes(GOOD, "denoiser.coupler={use='wrapped', by=[1]}")
    assert line == (
        "--set denoiser.coupler={use='wrapped', by=[1]}: denoiser.coupler.by.0: "
        '1 is not a string; write "1"'
    )
    (line,) = mistakes(GOOD, "samples.couplers.1.weight=0")
    assert line.startswith("--set samples.couplers.1.weight=0: samples.couplers.1.weight: 0 is out")


def test_checks_wait_for_the_stages_they_refer_to(mistakes: Callable[..., list[str]]) -> None:
    # The check of "samples" looks at the stage "denoiser", which is not there.
    (line,) = mistakes(GOOD.replace("images = 100", "images = -1"))
    assert "denoiser.images" in line


def test_checks_of_independent_parts_still_run(mistakes: Callable[..., list[str]]) -> None:
    text = GOOD.replace("images = 100", "images = 1\npool_size = 1").replace("weight = 2", "w = 2")
    assert len(mistakes(text)) == 2


def test_unreadable_data_is_told_once(mistakes: Callable[..., list[str]]) -> None:
    text = GOOD.replace('use = "toys"', 'use = "toys", folder = "nowhere"')
    assert mistakes(text) == ["f:2: data: folder nowhere is missing"]


def test_the_number_of_mistakes_is_bounded(mistakes: Callable[..., list[str]]) -> None:
    found = mistakes("".join(f"a{i} = 1\n" for i in range(5000)))
    assert len(found) == 201
    assert "there may be more" in found[-1]


def test_a_failed_plugin_is_named_where_a_component_is_missing(
    plugins: Plugins, mistakes: Callable[..., list[str]]
) -> None:
    plugins.registry.note_absent(Owner("aot", "box", "1"), "ImportError: no scipy")
    (line,) = mistakes(GOOD.replace('"wrapped"', '"hungarian"'))
    assert "plugin aot (box 1) failed to load: ImportError: no scipy" in line
