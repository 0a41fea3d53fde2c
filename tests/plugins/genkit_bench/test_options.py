from __future__ import annotations

import pytest

from genkit.errors import Code, UsageError
from genkit_bench.options import parse_shape, parse_sizes
from raising import raises_code


def test_sizes_come_in_order_and_once():
    assert parse_sizes("512, 256,512") == (256, 512)


@pytest.mark.parametrize(
    "text", ["", "0", "-4", "8.0", "1e3", "256,", "two", "٣", "9" * 10, "9" * 99999]
)
def test_what_is_no_size_is_refused(text):
    with raises_code(UsageError, Code.OUT_OF_RANGE, "--sizes") as error:
        parse_sizes(text)
    assert len(str(error.value)) < 200


def test_shapes():
    assert parse_shape("3,32,48") == (3, 32, 48)
    assert parse_shape("3072") == (3072,)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("32,32", Code.WRONG_LENGTH),
        ("1,2,3,4", Code.WRONG_LENGTH),
        ("3,0,3", Code.OUT_OF_RANGE),
    ],
)
def test_what_is_no_shape_is_refused(text, code):
    with raises_code(UsageError, code, "--shape"):
        parse_shape(text)
