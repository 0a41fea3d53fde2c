from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from genkit.artifacts import NetworkFile
from genkit.errors import Code, Mistake, RecipeError
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
coupler = { use = "wrapped", by = ["realness"] }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
couplers = [{ use = "random" }, { use = "greedy", weight = 2 }]
"""


Mistakes = Callable[..., list[Mistake]]


@pytest.fixture
def mistakes(plugins: Plugins) -> Mistakes:
    def found(text: str, *overrides: str) -> list[Mistake]:
        with pytest.raises(RecipeError) as caught:
            load_recipe(Source.parse(text, "f"), plugins, overrides)
        return list(caught.value.mistakes)

    return found


def load(plugins: Plugins, text: str, *overrides: str) -> Recipe:
    return load_recipe(Source.parse(text, "f"), plugins, overrides)


def test_decodes(plugins: Plugins) -> None:
    recipe = load(plugins, GOOD)
    assert (recipe.name, recipe.seed, recipe.device) == ("good", 0, "auto")
    assert list(recipe.stages) == ["denoiser", "samples"]
    train, sample = recipe.stages.values()
    assert train.data is recipe.data
    assert train.coupler.by == ("realness",)
    assert type(train.coupler.inner).__name__ == "Greedy"
    assert train.pool_size == 8
    assert [type(c).__name__ for c in sample.couplers] == ["Random", "Greedy"]
    assert type(sample.couplers[1].weight) is float
    assert recipe.source.text == GOOD
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.seed = 1


def test_overrides_are_applied_and_recorded(plugins: Plugins) -> None:
    recipe = load(plugins, GOOD, "denoiser.pool_size=7", 'name="other"')
    assert recipe.stages["denoiser"].pool_size == 7
    assert recipe.name == "other"
    assert recipe.overrides == ("denoiser.pool_size=7", 'name="other"')
    assert recipe.source.text == GOOD


def test_a_name_is_short_for_a_table_wherever_a_component_is_meant(plugins: Plugins) -> None:
    short = GOOD.replace('{ use = "toys" }', '"toys"').replace('{ use = "random" }', '"random"')
    assert short != GOOD
    assert load(plugins, short) == load(plugins, GOOD)
    merged = load(plugins, short, "data.folder=there", "samples.couplers.0=greedy")
    assert merged.data.folder == "there"
    assert type(merged.stages["samples"].couplers[0]).__name__ == "Greedy"


@pytest.mark.parametrize("text", [GOOD, GOOD.replace('{ use = "toys" }', '"toys"')])
def test_a_setting_of_an_inherited_component_is_merged_with_it(plugins: Plugins, text: str) -> None:
    recipe = load(plugins, text, "denoiser.data.folder=there")
    assert recipe.data.folder == "here"
    assert recipe.stages["denoiser"].data.folder == "there"


@pytest.mark.parametrize("inner", ['"toys"', '{ use = "toys", parts = ["all"] }'])
def test_a_setting_inside_an_inherited_component_is_merged_with_it(
    plugins: Plugins, inner: str
) -> None:
    text = GOOD.replace('{ use = "toys" }', f'{{ use = "toys", inner = {inner} }}')
    recipe = load(plugins, text, "denoiser.data.inner.folder=there")
    changed = recipe.stages["denoiser"].data.inner
    assert (changed.folder, changed.parts) == ("there", recipe.data.inner.parts)


@pytest.mark.parametrize("overrides", [(), ("format=1",)])
def test_a_recipe_may_state_its_format(plugins: Plugins, overrides: tuple[str, ...]) -> None:
    assert load(plugins, "format = 1\n" + GOOD, *overrides) == load(plugins, GOOD)


CASES = [
    ('name = "good"', "", [(1, "name", "missing-key")]),
    ('name = "good"', 'name = "../a"', [(1, "name", "invalid-name")]),
    ('name = "good"', 'name = ".."', [(1, "name", "invalid-name")]),
    ('name = "good"', 'name = "a\\nb"', [(1, "name", "invalid-name")]),
    ('name = "good"', "name = 3", [(1, "name", "wrong-type")]),
    ('name = "good"', 'name = "a"\nseed = -1', [(2, "seed", "out-of-range")]),
    ('name = "good"', 'name = "a"\nseed = 1.5', [(2, "seed", "wrong-type")]),
    ('name = "good"', 'name = "a"\nseed = true', [(2, "seed", "wrong-type")]),
    ('name = "good"', 'name = "a"\nseed = 0x' + "f" * 5000, [(2, "seed", "out-of-range")]),
    ('name = "good"', 'name = "a"\ndevice = "gpu"', [(2, "device", "unknown-choice")]),
    ('name = "good"', 'name = "a"\nsead = 1', [(2, "sead", "unknown-key")]),
    ('name = "good"', 'name = "a"\nnext = "genkit run b"', [(2, "next", "renamed-key")]),
    ('name = "good"', 'name = "a"\n"o d" = 1', [(2, '"o d"', "unknown-key")]),
    ('data = { use = "toys" }', "", [(4, "denoiser.data", "missing-key")]),
    ('data = { use = "toys" }', "data = 3", [(2, "data", "not-a-component")]),
    ('data = { use = "toys" }', 'data = "tois"', [(2, "data", "unknown-component")]),
    ('data = { use = "toys" }', 'data = { use = "tois" }', [(2, "data.use", "unknown-component")]),
    (
        'data = { use = "toys" }',
        'data = { use = "toys", fakes = "samples" }',
        [(2, "data.fakes", "wrong-reference")],
    ),
    (
        'data = { use = "toys" }',
        'data = { use = "toys", folder = "nowhere" }',
        [(2, "data", "data")],
    ),
    ('use = "toys"', 'use = "toys", folder = "odd"', [(2, "data.folder", "conflict")]),
    (
        'id = "denoiser"',
        "",
        [(4, "stage.0.id", "missing-key"), (13, "samples.denoiser", "unknown-stage")],
    ),
    (
        'id = "denoiser"',
        "id = 3",
        [(5, "stage.0.id", "invalid-name"), (13, "samples.denoiser", "unknown-stage")],
    ),
    (
        'id = "denoiser"',
        'id = "A b"',
        [(5, '"A b".id', "invalid-name"), (13, "samples.denoiser", "unknown-stage")],
    ),
    (
        'id = "denoiser"',
        'id = "seed"',
        [(5, "seed.id", "invalid-name"), (13, "samples.denoiser", "unknown-stage")],
    ),
    ('id = "samples"', 'id = "denoiser"', [(11, "denoiser.id", "duplicate")]),
    ('use = "train"', "", [(4, "denoiser.use", "missing-key")]),
    ('use = "train"', "use = 3", [(6, "denoiser.use", "wrong-type")]),
    ('use = "train"', 'use = "trian"', [(6, "denoiser.use", "unknown-component")]),
    ('use = "train"', 'use = "absent"', [(6, "denoiser.use", "plugin")]),
    ('use = "train"', 'use = "unwritable"', [(6, "denoiser.use", "plugin")]),
    ('use = "train"', 'use = "broken"', [(6, "denoiser.use", "plugin")]),
    ("images = 100", "", [(4, "denoiser.images", "missing-key")]),
    (
        "images = 100",
        "image = 100",
        [(4, "denoiser.images", "missing-key"), (7, "denoiser.image", "unknown-key")],
    ),
    ("images = 100", 'images = "100"', [(7, "denoiser.images", "wrong-type")]),
    ("images = 100", "images = 0", [(7, "denoiser.images", "out-of-range")]),
    ("images = 100", "images = 99999999999999999999", [(7, "denoiser.images", "out-of-range")]),
    ("images = 100", "images = 1\nrate = nan", [(8, "denoiser.rate", "out-of-range")]),
    ("images = 100", "images = 1\nvary = 1", [(8, "denoiser.vary", "wrong-type")]),
    (', by = ["realness"]', "", [(8, "denoiser.coupler.by", "missing-key")]),
    ('by = ["realness"]', 'by = "realness"', [(8, "denoiser.coupler.by", "wrong-type")]),
    ('by = ["realness"]', "by = [1]", [(8, "denoiser.coupler.by.0", "wrong-type")]),
    (
        'couplers = [{ use = "random" }',
        "couplers = [{}",
        [(14, "samples.couplers.0.use", "missing-key")],
    ),
    (
        'by = ["realness"]',
        'by = [], inner = "greedi"',
        [(8, "denoiser.coupler.inner", "unknown-component")],
    ),
    ('by = ["realness"]', "by = [], inner = 3", [(8, "denoiser.coupler.inner", "not-a-component")]),
    (
        'by = ["realness"]',
        'by = [], inner = {use="toys"}',
        [(8, "denoiser.coupler.inner.use", "unknown-component")],
    ),
    ('by = ["realness"]', 'by = ["a", "a"]', [(8, "denoiser.coupler.by", "conflict")]),
    ("weight = 2", "weight = 0", [(14, "samples.couplers.1.weight", "out-of-range")]),
    ("weight = 2", 'metric = "euclidean"', [(14, "samples.couplers.1.metric", "renamed-key")]),
    ("weight = 2", 'cost = "euclid"', [(14, "samples.couplers.1.cost", "unknown-choice")]),
    ("couplers = [", "span = [1.0]\ncouplers = [", [(14, "samples.span", "wrong-length")]),
    ('denoiser = "denoiser"', "", [(10, "samples.denoiser", "missing-key")]),
    ('denoiser = "denoiser"', "denoiser = 3", [(13, "samples.denoiser", "wrong-type")]),
    ('denoiser = "denoiser"', 'denoiser = "denoise"', [(13, "samples.denoiser", "unknown-stage")]),
    (
        'denoiser = "denoiser"',
        'denoiser = "samples"',
        [(13, "samples.denoiser", "wrong-reference")],
    ),
    (
        "couplers = [",
        'others = ["denoiser"]\ncouplers = [',
        [(14, "samples.others.0", "wrong-reference")],
    ),
    ("images = 100", "images = 1\npool_size = 3", [(8, "denoiser.pool_size", "conflict")]),
    ("images = 100", "images = 1\nbatch_size = 9", [(4, "denoiser.pool_size", "conflict")]),
    ("images = 100", "images = 13", [(13, "samples.denoiser", "conflict")]),
]


@pytest.mark.parametrize(("old", "new", "expected"), CASES)
def test_a_mistake_has_a_place_a_key_and_a_code(
    mistakes: Mistakes, old: str, new: str, expected: list[tuple[int, str, str]]
) -> None:
    found = mistakes(GOOD.replace(old, new, 1))
    assert [(m.line, m.key, m.problem.code) for m in found] == expected
    assert all(m.file == "f" and "\n" not in str(m) for m in found)


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ('name = "good"', "name = 3", 'write "3"'),
        ('name = "good"', 'name = "a"\nsead = 1', 'did you mean "seed"?'),
        ('name = "good"', 'name = "a"\nnext = "b"', "write what to run next in a comment"),
        ('data = { use = "toys" }', "", 'write data = { use = "..." }, here or at the top of the'),
        ('data = { use = "toys" }', "data = 3", 'write { use = "..." }'),
        ("images = 100", "", "write images = ..., an integer at least 1"),
        (', by = ["realness"]', "", 'write by = ["..."]'),
        ('by = ["realness"]', 'by = "realness"', 'write ["realness"]'),
        (
            'couplers = [{ use = "random" }',
            "couplers = [{}",
            'write use = "..." with one of: greedy',
        ),
        ("weight = 2", 'metric = "euclidean"', "write cost"),
        ("weight = 2", 'cost = "euclid"', 'did you mean "euclidean"?'),
        ('denoiser = "denoiser"', 'denoiser = "denoise"', 'did you mean "denoiser"?'),
        ('denoiser = "denoiser"', 'denoiser = "samples"', "suitable: denoiser"),
    ],
)
def test_a_hint_says_what_to_write(mistakes: Mistakes, old: str, new: str, hint: str) -> None:
    (found,) = mistakes(GOOD.replace(old, new, 1))
    assert found.problem.hint.startswith(hint)


def test_a_type_that_cannot_be_written_is_named_with_class_and_field(mistakes: Mistakes) -> None:
    (found,) = mistakes(GOOD.replace('use = "train"', 'use = "unwritable"'))
    assert "Unwritable.what" in found.problem.reason
    assert "set[int]" in found.problem.reason


@pytest.mark.parametrize(
    ("text", "line", "key", "code"),
    [
        ('name = "a"', 1, "stage", Code.MISSING_KEY),
        ('name = "a"\nstage = []', 2, "stage", Code.MISSING_KEY),
        ('name = "a"\n[stage]\nid = "b"', 2, "stage", Code.WRONG_TYPE),
        ('name = "a"\nstage = [1]', 2, "stage.0", Code.NOT_A_COMPONENT),
        ('name = "a"\n' + "[[stage]]\n" * 100, 2, "stage", Code.WRONG_LENGTH),
    ],
)
def test_no_stages(mistakes: Mistakes, text: str, line: int, key: str, code: Code) -> None:
    (found,) = mistakes(text)
    assert (found.line, found.key, found.problem.code) == (line, key, code)


def test_a_reference_to_a_stage_below(mistakes: Mistakes) -> None:
    first, second = GOOD.index("[[stage]]"), GOOD.rindex("[[stage]]")
    (found,) = mistakes(GOOD[:first] + GOOD[second:] + GOOD[first:second])
    assert (found.line, found.key) == (7, "samples.denoiser")
    assert found.problem.code == Code.WRONG_REFERENCE
    assert found.problem.hint == "move that stage above this one"


CIRCLE = """\
name = "circle"
[[stage]]
id = "a"
use = "sample"
denoiser = "a"
others = ["b"]
[[stage]]
id = "b"
use = "sample"
denoiser = "c"
others = ["a"]
"""


def test_references_in_a_circle(mistakes: Mistakes) -> None:
    found = [(m.line, m.key, m.problem.code) for m in mistakes(CIRCLE)]
    assert found == [
        (5, "a.denoiser", Code.WRONG_REFERENCE),
        (6, "a.others.0", Code.WRONG_REFERENCE),
        (10, "b.denoiser", Code.UNKNOWN_STAGE),
    ]


def test_all_mistakes_at_once_by_line(mistakes: Mistakes) -> None:
    text = GOOD
    for old, new in [
        ('name = "good"', "name = 1"),
        ("images = 100", "images = -1"),
        ('by = ["realness"]', "by = 1, inner = 2"),
        ("weight = 2", "weight = []"),
        ('denoiser = "denoiser"', 'denoiser = "x"'),
    ]:
        text = text.replace(old, new)
    found = mistakes(text, "sead=1", "samples.span=[1]")
    assert [m.override or m.line for m in found] == [
        *(1, 7, 8, 8, 13, 14),
        "samples.span=[1]",
        "sead=1",
    ]


def test_an_overridden_value_is_located_at_the_override(mistakes: Mistakes) -> None:
    override = "denoiser.coupler={use='wrapped', by=[1]}"
    (found,) = mistakes(GOOD, override)
    assert (found.override, found.file, found.line) == (override, "", None)
    assert (found.key, found.problem.code) == ("denoiser.coupler.by.0", Code.WRONG_TYPE)
    assert str(found).startswith(f"--set {override}: denoiser.coupler.by.0: ")
    (found,) = mistakes(GOOD, "next='b'")
    assert (found.override, found.problem.code) == ("next='b'", Code.RENAMED_KEY)
    (found,) = mistakes(GOOD, "samples.couplers.1.weight=0")
    assert (found.key, found.problem.code) == ("samples.couplers.1.weight", Code.OUT_OF_RANGE)


def test_checks_run_once_nothing_is_wrong_with_the_declarations(mistakes: Mistakes) -> None:
    unchecked = GOOD.replace("images = 100", "images = 1\npool_size = 1")
    (found,) = mistakes(unchecked)
    assert found.key == "denoiser.pool_size"
    (found,) = mistakes(unchecked.replace("weight = 2", "w = 2"))
    assert found.problem.code == Code.UNKNOWN_KEY


def test_unreadable_data_is_told_once(mistakes: Mistakes) -> None:
    text = GOOD.replace('use = "toys"', 'use = "toys", folder = "nowhere"')
    (found,) = mistakes(text)
    assert (found.line, found.key, found.problem.code) == (2, "data", Code.DATA)


def test_the_number_of_mistakes_is_bounded(mistakes: Mistakes) -> None:
    found = mistakes("".join(f"a{i} = 1\n" for i in range(5000)))
    assert len(found) == 201
    assert found[-1].problem.code == Code.TOO_MANY


def test_a_failed_plugin_is_named_where_a_component_is_missing(
    plugins: Plugins, mistakes: Mistakes
) -> None:
    plugins.registry.note_absent(Owner("aot", "box", "1"), "failed to load: no scipy")
    (found,) = mistakes(GOOD.replace('"wrapped"', '"hungarian"'))
    assert found.problem.code == Code.UNKNOWN_COMPONENT
    assert "plugin aot (box 1) failed to load: no scipy" in found.problem.reason


def test_a_stage_whose_output_has_no_file_is_refused(
    plugins: Plugins, mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = plugins.registry.load(plugins.registry.find(["stage"], "train"))
    monkeypatch.setattr(train, "output", NetworkFile)
    (found,) = mistakes(GOOD)
    assert (found.key, found.problem.code) == ("denoiser.use", Code.PLUGIN)
    assert "got NetworkFile" in found.problem.reason
