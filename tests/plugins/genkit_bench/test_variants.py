from __future__ import annotations

import pytest

from genkit.errors import Code, UsageError
from genkit_bench.variants import default_variants, parse_variants, settings_of
from raising import raises_code


def test_names_are_combinations():
    exact = {"precision": "float32", "channels_last": False, "compile": False}
    assert settings_of("plain") == settings_of("float32") == exact
    assert settings_of("channels-last") == {**exact, "channels_last": True}
    assert settings_of("bfloat16+channels-last+compiled") == {
        "precision": "bfloat16",
        "channels_last": True,
        "compile": True,
    }
    assert settings_of("recipe") == {}


def test_lists_keep_their_order_and_name_each_once():
    assert parse_variants("tf32, plain,tf32") == ("tf32", "plain")


@pytest.mark.parametrize("on_gpu", [False, True])
def test_the_usual_ones_are_known(on_gpu):
    names = default_variants(on_gpu)
    assert parse_variants(",".join(names)) == names
    assert names[0] == "plain"
    assert ("tf32" in names) == on_gpu


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plain,bflaot16", (Code.UNKNOWN_CHOICE, '"bflaot16"', '"bfloat16"')),
        ("plain+compiled", (Code.UNKNOWN_CHOICE, '"plain"')),
        ("", (Code.UNKNOWN_CHOICE, '""')),
        ("float32+tf32", (Code.DUPLICATE, '"float32+tf32"')),
        ("compiled+compiled", (Code.DUPLICATE, '"compiled+compiled"')),
    ],
)
def test_mistakes(text, message):
    with raises_code(UsageError, *message):
        parse_variants(text)
