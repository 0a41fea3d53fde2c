from __future__ import annotations

import copy
from typing import Any

import pytest

from genkit.recipe.overrides import apply_overrides

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
        ("denoiser.ema.half_life=3", ("stage", 0, "ema", "half_life"), 3),
        ('denoiser."odd=key"=true', ("stage", 0, "odd=key"), True),
        ("denoiser.list=[1,\n2]", ("stage", 0, "list"), [1, 2]),
        ("samples.guidance.0=1", ("stage", 1, "guidance", 0), 1),
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
    ("text", "message"),
    [
        ("seed", "there is no =; write --set KEY=VALUE"),
        ("seed=", "there is no value"),
        ("=1", '"" is not a key'),
        ("a b=1", '"a b" is not a key'),
        ("name=abc", '"abc" is not a TOML value; a string needs quotes: --set \'name="abc"\''),
        ("seed=1\nname=2", "is not a TOML value"),
        ("seed=" + "[" * 3000, "is not a TOML value"),
        ("a" + ".a" * 3000 + "=1", "is not a key"),
        ("denoise.x=1", 'there is no stage or setting "denoise"; did you mean "denoiser"?'),
        ("sead=1", 'did you mean "seed"?'),
        ("stage.0.x=1", "stages are named by id"),
        ("denoiser=1", "this would replace the whole stage; write denoiser.KEY=VALUE"),
        ("name.x=1", '"x" has no "x": it is not a table'),
        ("samples.guidance.1.weight=1", 'the list has no item "1"; the last is 0'),
        ("samples.guidance.weight=1", 'the list has no item "weight"'),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    changed, made, mistakes = apply_overrides(TABLE, [text])
    assert changed == TABLE
    assert not made
    assert len(mistakes) == 1
    assert mistakes[0].startswith("--set ")
    assert message in mistakes[0]
    assert "\n" not in mistakes[0]
    assert len(mistakes[0]) < 250


def test_the_last_one_holds() -> None:
    changed, made, _ = apply_overrides(TABLE, ["seed=1", "seed=2"])
    assert changed["seed"] == 2
    assert len(made) == 2


def test_a_table_without_stages_can_be_changed() -> None:
    assert apply_overrides({"stage": 3}, ["x.y=1"])[2]
    assert apply_overrides({}, ["seed=1"])[0] == {"seed": 1}
