from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from genkit.settings import (
    near_match,
    quote,
    toml_key,
    toml_value,
)

HUGE = 16**5000 - 1


def test_near_match() -> None:
    assert near_match("hungarain", ["random", "hungarian"]) == 'did you mean "hungarian"?'
    assert near_match("x", ["random"]) == ""
    assert near_match(HUGE, ["random"]) == ""


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
    assert len(quote(value)) <= 60
    assert "\n" not in quote(value)


def test_long_values_are_cut() -> None:
    assert quote("x" * 10**6).endswith("...")
    assert quote([0] * 10**6).endswith("...")
