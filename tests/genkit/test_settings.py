from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genkit.errors import SettingError
from genkit.interfaces import Component
from genkit.settings import (
    DenoiserRef,
    Setting,
    describe_type,
    near_match,
    setting,
    setting_of,
    shown,
    toml_key,
    toml_value,
    value_problems,
)

HUGE = 16**5000 - 1


@dataclass(frozen=True, kw_only=True)
class Part(Component):
    """A part of the tests."""

    rho: float = setting(7.0, doc="exponent", above=0)
    names: tuple[str, ...] = setting((), doc="names")
    table: Mapping[str, Any] = setting({}, doc="anything")


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 3),
        (float, 3),
        (float, 2.5),
        (str, "a"),
        (bool, True),
        (int | None, None),
        (int | str, "a"),
        (Literal["a", 1], 1),
        (tuple[int, ...], [1, 2]),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...] | None, None),
        (DenoiserRef, "denoiser"),
        (Annotated[int, "note"], 1),
        (Mapping[str, Any], {"a": 1}),
        (dict[str, int], {}),
        (Any, object()),
    ],
)
def test_values_that_fit(annotation: Any, value: object) -> None:
    assert list(value_problems(annotation, value, Setting())) == []


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (int, 3.0, "3.0 is not an integer"),
        (int, True, "true is not an integer"),
        (int, "3", '"3" is not an integer'),
        (float, "3", '"3" is not a number'),
        (float, True, "true is not a number"),
        (float, math.nan, "nan is not finite"),
        (float, -math.inf, "-inf is not finite"),
        (int, 2**63, "9223372036854775808 does not fit into 64 bits"),
        (float, 10**400, "an integer of 1329 bits"),
        (str, 3, "3 is not a string"),
        (bool, 1, "1 is not true or false"),
        (int, None, "None is not an integer"),
        (int | str, 1.5, "1.5 is none of an integer or a string"),
        (int | None, 1.5, "1.5 is not an integer"),
        (Literal["a", 1], True, 'true is none of "a", 1'),
        (Literal["heun"], "huen", '"huen" is none of "heun"'),
        (tuple[int, ...], 3, "3 is not a list"),
        (tuple[int, ...], [1, "a"], '"a" is not an integer'),
        (tuple[int, int], [1], "1 items where 2 are needed"),
        (Mapping[str, Any], 3, "3 is not a table"),
        (Part, 3, "3 is not a part"),
    ],
)
def test_values_that_do_not_fit(annotation: Any, value: object, reason: str) -> None:
    (problem,) = value_problems(annotation, value, Setting())
    assert reason in problem.reason


@pytest.mark.parametrize("annotation", [int, float, str, bool, Literal["a"], Part])
def test_an_integer_too_large_to_print(annotation: Any) -> None:
    (problem,) = value_problems(annotation, HUGE, Setting())
    assert "an integer of 20000 bits" in problem.reason


@pytest.mark.parametrize(
    ("described", "inside", "outside"),
    [
        (Setting(at_least=1), 1, 0),
        (Setting(above=1), 2, 1),
        (Setting(at_most=1), 1, 2),
        (Setting(below=1), 0, 1),
    ],
)
def test_ranges(described: Setting, inside: int, outside: int) -> None:
    assert not list(value_problems(int, inside, described))
    (problem,) = value_problems(int, outside, described)
    assert problem.hint == f"write a value {described.bounds}"
    (problem,) = value_problems(tuple[int, ...], [inside, outside], described)
    assert problem.key == (1,)


def test_construction_in_python_is_checked_too() -> None:
    with pytest.raises(SettingError, match=r"Part\.rho: 0 is out of range") as caught:
        Part(rho=0, names=("a", 3))  # type: ignore[arg-type]
    assert [p.key for p in caught.value.problems] == [("rho",), ("names", 1)]


def test_declaring() -> None:
    fields = Part.__dataclass_fields__
    assert setting_of(fields["rho"]).doc == "exponent"
    assert Part().table == {}


def test_near_match() -> None:
    assert near_match("hungarain", ["random", "hungarian"]) == 'did you mean "hungarian"?'
    assert near_match("x", ["random"]) == ""
    assert near_match(HUGE, ["random"]) == ""


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "an integer or nothing"),
        (DenoiserRef, "the id of a stage that leaves denoiser"),
        (tuple[float, ...], "a list of a number"),
        (tuple[float, float], "2 values"),
        (Literal["a", "b"], '"a" or "b"'),
        (Mapping[str, Any], "a table"),
        (Part, "a part"),
    ],
)
def test_types_in_words(annotation: Any, words: str) -> None:
    assert describe_type(annotation) == words


plain = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_toml_value_is_toml(value: object) -> None:
    assert tomllib.loads(f"v = {toml_value(value)}") == {"v": value}


@given(st.text())
def test_toml_key_is_toml(key: str) -> None:
    assert tomllib.loads(f"{toml_key(key)} = 1") == {key: 1}


@given(plain)
def test_what_is_shown_is_short_and_on_one_line(value: object) -> None:
    assert len(shown(value)) <= 60
    assert "\n" not in shown(value)


def test_long_values_are_cut() -> None:
    assert shown("x" * 10**6).endswith("...")
    assert shown([0] * 10**6).endswith("...")
