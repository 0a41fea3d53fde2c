from __future__ import annotations

import tomllib
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from genkit.errors import Key
from genkit.recipe.locate import key_lines, long_key

TEXT = '''# a comment = 1
name = "x # y" # [not]
a.b . "c d" = 1

'lit.eral' = \'\'\'
[no]
'x' = 1\'\'\'
multi = """
k = 1 \\""" [[stage]]
"""""
list = [ # comment ]
  1, [2,
  3], { x = 1, y.z = [4] },
]
empty = []
none = {}
when = 1979-05-27 07:32:00.5
[table . "q\\u0041"]
k = 1.5
[[stage]]
id = "a"
net = { use = "b", deep = { x = [ { y = 1 } ] } }
[[stage]]
id = "b"
[stage.net]
use = "b"
[[stage.net.items]]
v = 1
[[stage.net.items]]
v = 2
'''


def paths(value: Any, key: Key = ()) -> set[Key]:
    found = {key} if key else set()
    if isinstance(value, dict):
        for k, v in value.items():
            found |= paths(v, (*key, k))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            found |= paths(v, (*key, i))
    return found


def test_every_path_is_found() -> None:
    assert set(key_lines(TEXT)) == paths(tomllib.loads(TEXT))


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("name",), 2),
        (("a", "b"), 3),
        (("a", "b", "c d"), 3),
        (("lit.eral",), 5),
        (("multi",), 8),
        (("list",), 11),
        (("list", 0), 12),
        (("list", 1, 1), 13),
        (("list", 2, "y", "z", 0), 13),
        (("when",), 17),
        (("table", "qA"), 18),
        (("table", "qA", "k"), 19),
        (("stage",), 20),
        (("stage", 0), 20),
        (("stage", 0, "net", "deep", "x", 0, "y"), 22),
        (("stage", 1), 23),
        (("stage", 1, "net", "use"), 26),
        (("stage", 1, "net", "items", 1, "v"), 30),
    ],
)
def test_lines(key: Key, line: int) -> None:
    assert key_lines(TEXT)[key] == line
    assert key_lines(TEXT.replace("\n", "\r\n"))[key] == line


texts = st.text(st.sampled_from("ab\"'\\#[]{}=,.\n é"), max_size=8)
values = st.recursive(
    st.one_of(st.integers(-9, 9), st.booleans(), st.floats(allow_nan=False), texts, st.dates()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(texts, values, max_size=4), st.booleans())
def test_agrees_with_tomllib(table: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(table, multiline_strings=multiline)
    assert set(key_lines(text)) == paths(tomllib.loads(text))


@given(st.text(st.sampled_from("ab\"'\\#[]{}=,.\n "), max_size=60))
def test_any_text_is_scanned(text: str) -> None:
    long_key(text, 1)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(key_lines(text)) == paths(table)


def test_long_key() -> None:
    assert long_key("a.b.c = 1\nd . 'e'.\"f\" .g = 1", 3) == 2
    assert long_key('a.b = 1.5 # a.b.c.d\nb = "a.b.c.d.e.f"\n[x.y]\nz = 1', 2) == 0
