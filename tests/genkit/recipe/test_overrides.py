from __future__ import annotations

import copy
from typing import Any

import pytest

from genkit.errors import Code
from genkit.recipe.overrides import apply_overrides, split_override

TABLE: dict[str, Any] = {
    "name": "x",
    "data": {"use": "digits"},
    "stage": [
        {"id": "denoiser", "use": "train", "coupler": {"use": "wrapped", "by": ["label"]}},
        {"id": "samples", "use": "sample", "guidance": [{"use": "d", "weight": 1.0}]},
        "not a table",
        {"use": "train"},
    ],
}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("denoiser.pool_size=1024", ("stage", 0, "pool_size"), 1024),
        (" denoiser . pool_size = 1024 ", ("stage", 0, "pool_size"), 1024),
        ("samples.guidance.0.weight=2.5", ("stage", 1, "guidance", 0, "weight"), 2.5),
        ("seed=1", ("seed",), 1),
        ('name="a=b"', ("name",), "a=b"),
        ('data.use="moons"', ("data", "use"), "moons"),
        ('denoiser.coupler={use="greedy"}', ("stage", 0, "coupler"), {"use": "greedy"}),
        ("denoiser.made.below=3", ("stage", 0, "made", "below"), 3),
        ('denoiser."odd=key"=true', ("stage", 0, "odd=key"), True),
        ("denoiser.list=[1,\n2]", ("stage", 0, "list"), [1, 2]),
        ("samples.guidance.0=1", ("stage", 1, "guidance", 0), 1),
        ("name=abc", ("name",), "abc"),
        ("data=moons", ("data",), "moons"),
        ("data.root=~/my pictures/a.zip", ("data", "root"), "~/my pictures/a.zip"),
        ("device=cuda:1", ("device",), "cuda:1"),
        ("denoiser.list=[a b, 1, true]", ("stage", 0, "list"), ["a b", 1, True]),
        (
            "data={ use = moons, noise = 0.1 }",
            ("data",),
            {"use": "moons", "noise": 0.1},
        ),
        ("samples.guidance.0.use=dg", ("stage", 1, "guidance", 0, "use"), "dg"),
    ],
)
def test_sets_a_value(text: str, key: tuple[str | int, ...], value: object) -> None:
    before = copy.deepcopy(TABLE)
    changed, made, mistakes = apply_overrides(TABLE, [text])
    assert not mistakes
    assert made[0].key == key
    found: Any = changed
    for part in key:
        found = found[part]
    assert found == value
    assert before == TABLE


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("seed", Code.SYNTAX, "write --set KEY=VALUE"),
        ("seed=", Code.SYNTAX, "write --set KEY=VALUE"),
        ("=1", Code.SYNTAX, "write names with dots between"),
        ("a b=1", Code.SYNTAX, "write names with dots between"),
        ('name="abc', Code.SYNTAX, "a string needs quotes: --set 'name=\"abc\"'"),
        ("name=[a, b", Code.SYNTAX, ""),
        ("seed=1\nname=2", Code.SYNTAX, ""),
        ("seed=" + "[" * 3000, Code.SYNTAX, ""),
        ("a" + ".a" * 3000 + "=1", Code.SYNTAX, "write names with dots between"),
        ("denoise.x=1", Code.UNKNOWN_KEY, 'did you mean "denoiser"?'),
        ("sead=1", Code.UNKNOWN_KEY, 'did you mean "seed"?'),
        ("stage.0.x=1", Code.UNKNOWN_KEY, "write ID.KEY=VALUE"),
        ("denoiser=1", Code.UNKNOWN_KEY, "write denoiser.KEY=VALUE"),
        ("name.x=1", Code.UNKNOWN_KEY, ""),
        ("samples.guidance.1.weight=1", Code.UNKNOWN_KEY, "the last is 0"),
        ("samples.guidance.weight=1", Code.UNKNOWN_KEY, "write 0.weight"),
    ],
)
def test_mistakes(text: str, code: Code, hint: str) -> None:
    changed, made, (mistake,) = apply_overrides(TABLE, [text])
    assert changed == TABLE
    assert not made
    assert (mistake.problem.code, mistake.override) == (code, text)
    assert mistake.problem.hint.startswith(hint)
    assert str(mistake).startswith("--set ")
    assert "\n" not in str(mistake)
    assert len(str(mistake)) < 250


def test_a_name_in_the_place_of_a_component_becomes_its_table() -> None:
    changed, _, _ = apply_overrides(TABLE, ["denoiser.coupler=greedy", "denoiser.coupler.weight=2"])
    assert changed["stage"][0]["coupler"] == {"use": "greedy", "weight": 2}


def test_a_stage_may_have_the_name_of_a_retired_key() -> None:
    table = {"stage": [{"id": "next"}]}
    assert apply_overrides(table, ["next.images=3"])[0] == {"stage": [{"id": "next", "images": 3}]}
    assert apply_overrides({}, ["next=3"])[0] == {"next": 3}


def test_key_and_value_are_split_outside_of_quotes() -> None:
    assert split_override(' a."b=c" = x=y ') == ('a."b=c"', "x=y")
    assert split_override("a=") == split_override("a") == ("", "")


def test_the_last_one_holds() -> None:
    changed, made, _ = apply_overrides(TABLE, ["seed=1", "seed=2"])
    assert changed["seed"] == 2
    assert len(made) == 2


def test_a_table_without_stages_can_be_changed() -> None:
    assert apply_overrides({"stage": 3}, ["x.y=1"])[2]
    assert apply_overrides({}, ["seed=1"])[0] == {"seed": 1}
