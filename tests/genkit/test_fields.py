"""Field types: what is parsed from annotations, and what each type does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from genkit.artifacts import DenoiserRef, SamplesRef
from genkit.errors import Code, PluginError, SettingError
from genkit.field_types import FieldType, Reference, Slot
from genkit.fields import Settings, fields_of, leaves_of
from genkit.interfaces import AnyCoupler, Component, Network
from genkit.plugin.kinds import KINDS
from genkit.plugin.registry import base_of, kinds_of
from genkit.settings import setting
from raising import raises_code

HUGE = 16**5000 - 1


@dataclass(frozen=True, kw_only=True)
class Part(Component):
    """A part of the tests."""

    rho: float = setting(7, doc="exponent", above=0)
    names: tuple[str, ...] = setting((), doc="names")
    table: Mapping[str, Any] = setting({}, doc="anything")


@dataclass(frozen=True, kw_only=True)
class Holder(Component):
    """Holds parts and names stages in every way that annotations allow."""

    one: DenoiserRef = setting("a", doc="a stage")
    optional: DenoiserRef | None = setting(None, doc="a stage")
    several: tuple[SamplesRef, ...] = setting((), doc="stages")
    pair: tuple[DenoiserRef, int] = setting(("b", 1), doc="a stage and a number")
    nested: tuple[tuple[DenoiserRef, ...], ...] | None = setting(None, doc="stages")
    part: Part | None = setting(None, doc="a part")
    parts: tuple[Part, ...] = setting((), doc="parts")
    plain: str = setting("z", doc="no stage")


def parsed(annotation: Any, **described: Any) -> FieldType:
    """Return the type of a field with an annotation."""
    field = ("value", annotation, setting(doc="a value", **described))
    made = dataclasses.make_dataclass("Made", [field], bases=(Settings,), frozen=True)
    return fields_of(made)[0].type


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 3),
        (float, 3),
        (float, 2.5),
        (str, "a"),
        (bool, True),
        (int | None, None),
        (Literal["a", 1], 1),
        (tuple[int, ...], [1, 2]),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...] | None, None),
        (DenoiserRef, "denoiser"),
        (Annotated[int, "note"], 1),
        (Mapping[str, Any], {"a": 1}),
        (Part, Part()),
    ],
)
def test_values_that_fit(annotation: Any, value: object) -> None:
    assert list(parsed(annotation).problems(value)) == []


@pytest.mark.parametrize(
    ("annotation", "value", "code"),
    [
        (int, 3.0, Code.WRONG_TYPE),
        (int, True, Code.WRONG_TYPE),
        (int, "3", Code.WRONG_TYPE),
        (float, "3", Code.WRONG_TYPE),
        (float, True, Code.WRONG_TYPE),
        (float, math.nan, Code.OUT_OF_RANGE),
        (float, -math.inf, Code.OUT_OF_RANGE),
        (float, math.inf, Code.OUT_OF_RANGE),
        (int, 2**63, Code.OUT_OF_RANGE),
        (float, 10**400, Code.OUT_OF_RANGE),
        (str, 3, Code.WRONG_TYPE),
        (bool, 1, Code.WRONG_TYPE),
        (int, None, Code.WRONG_TYPE),
        (int | None, 1.5, Code.WRONG_TYPE),
        (Literal["a", 1], True, Code.UNKNOWN_CHOICE),
        (Literal["heun"], "huen", Code.UNKNOWN_CHOICE),
        (tuple[int, ...], 3, Code.WRONG_TYPE),
        (tuple[int, ...], [1, "a"], Code.WRONG_TYPE),
        (tuple[int, int], [1], Code.WRONG_LENGTH),
        (Mapping[str, Any], 3, Code.WRONG_TYPE),
        (Part, 3, Code.NOT_A_COMPONENT),
        (DenoiserRef | None, 3, Code.WRONG_TYPE),
    ],
)
def test_values_that_do_not_fit(annotation: Any, value: object, code: Code) -> None:
    (problem,) = parsed(annotation).problems(value)
    assert problem.code == code


@pytest.mark.parametrize("annotation", [int, float, str, bool, Literal["a"], Part])
def test_an_integer_too_large_to_print(annotation: Any) -> None:
    (problem,) = parsed(annotation).problems(HUGE)
    assert "an integer of 20000 bits" in problem.reason


@pytest.mark.parametrize(
    ("bound", "inside", "outside"),
    [({"at_least": 1}, 1, 0), ({"above": 1}, 2, 1), ({"at_most": 1}, 1, 2), ({"below": 1}, 0, 1)],
)
def test_ranges(bound: dict[str, float], inside: int, outside: int) -> None:
    assert not list(parsed(int, **bound).problems(inside))
    ((word, limit),) = bound.items()
    (problem,) = parsed(int, **bound).problems(outside)
    assert problem.code == Code.OUT_OF_RANGE
    assert f"{word.replace('_', ' ')} {limit}" in problem.reason
    (problem,) = parsed(tuple[int, ...], **bound).problems([inside, outside])
    assert problem.key == (1,)


def test_inf_where_it_is_allowed() -> None:
    assert not list(parsed(float, infinite=True).problems(math.inf))
    assert list(parsed(float, infinite=True).problems(-math.inf))


@pytest.mark.parametrize(
    "annotation",
    [
        *(set[int], list[int], dict[str, int], Any, object, complex, type),
        *(int | str, int | str | None, tuple[set[int], ...], set[int] | None),
    ],
)
def test_a_type_that_no_recipe_can_write_is_an_error(annotation: Any) -> None:
    with raises_code(PluginError, Code.PLUGIN, "Made.value") as caught:
        parsed(annotation)
    assert caught.value.code == Code.PLUGIN


@dataclass(frozen=True, kw_only=True)
class Unwritable(Component):
    """Has a field that no recipe can write."""

    what: list[int] = setting((), doc="numbers")


def test_construction_in_python_names_class_and_field_of_such_a_type() -> None:
    with raises_code(PluginError, Code.PLUGIN, "Unwritable.what"):
        Unwritable()


def test_construction_in_python_is_checked_too() -> None:
    with pytest.raises(SettingError) as caught:
        Part(rho=0, names=("a", 3))  # type: ignore[arg-type]
    assert [(p.key, p.code) for p in caught.value.problems] == [
        (("rho",), Code.OUT_OF_RANGE),
        (("names", 1), Code.WRONG_TYPE),
    ]


def test_construction_in_python_gives_the_types_of_the_fields() -> None:
    made = Part(names=["a"])  # type: ignore[arg-type]
    assert made == Part(rho=7.0, names=("a",))
    assert type(Part().rho) is float
    assert type(made.names) is tuple


def test_fields() -> None:
    rho, names, table = fields_of(Part)
    assert (rho.name, rho.default, rho.setting.doc) == ("rho", 7, "exponent")
    assert (names.default, table.default) == ((), {})
    assert fields_of(Part) is fields_of(Part)


@pytest.mark.parametrize(
    ("annotation", "words", "example"),
    [
        (int | None, "an integer or nothing", "..., an integer"),
        (DenoiserRef, "the id of a stage with output denoiser", '"..."'),
        (tuple[float, ...], "a list, each item a number", "[..., a number]"),
        (tuple[str, str], "2 values", '["...", "..."]'),
        (Literal["a", "b"], '"a" or "b"', '..., "a" or "b"'),
        (Mapping[str, Any], "a table", "..., a table"),
        (Part, "part", '{ use = "..." }'),
        (
            tuple[Part, ...] | None,
            "a list, each item a component of kind part or nothing",
            '[{ use = "..." }]',
        ),
    ],
)
def test_types_in_words(annotation: Any, words: str, example: str) -> None:
    assert parsed(annotation).words() == words
    assert parsed(annotation).example() == example


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_is_called_after_its_kind(kind: str) -> None:
    assert Slot(base_of(kind)).words() == kind


@pytest.mark.parametrize("base", [Network, AnyCoupler])
def test_a_slot_of_several_kinds_is_called_after_all(base: type) -> None:
    assert Slot(base).words() == " or ".join(kinds_of(base))


@pytest.mark.parametrize(
    ("home", "other", "words"),
    [
        ("one.a", "one.a", "sub"),
        ("one.a", "one.b", "sub"),
        ("one.a", "two.a", "base"),
        ("one", "two", "base"),
    ],
)
def test_several_kinds_are_in_one_package(home: str, other: str, words: str) -> None:
    base = type("Base", (Component,), {"__module__": home})
    _sub = type("Sub", (base,), {"__module__": other})  # kept by a name: a base keeps none alive
    assert Slot(base).words() == words


def test_components_and_references_inside_values() -> None:
    first, second = Part(), Part(rho=2)
    made = Holder(
        optional="c", several=("d", "e"), nested=(("f",), ("g", "h")), part=first, parts=(second,)
    )
    slots = {key: value for key, kind, value in leaves_of(made) if isinstance(kind, Slot)}
    assert slots == {("part",): first, ("parts", 0): second}
    assert [v for _, t, v in leaves_of(made) if isinstance(t, Reference)] == list("acdebfgh")
    assert [v for _, t, v in leaves_of(Holder()) if isinstance(t, Reference)] == ["a", "b"]


def test_a_setting_cannot_hide_a_method() -> None:
    hiding = dataclasses.make_dataclass(
        "Hiding", [("version", str, setting("1", doc="version"))], bases=(Component,), frozen=True
    )
    with raises_code(PluginError, Code.PLUGIN, "Hiding.version"):
        hiding()
