from __future__ import annotations

import pytest

from genkit.errors import UsageError
from genkit_bench.options import parse_shape, parse_sizes


def test_sizes_come_in_order_and_once():
    assert parse_sizes("512, 256,512") == (256, 512)


@pytest.mark.parametrize(
    "text", ["", "0", "-4", "8.0", "1e3", "256,", "two", "٣", "9" * 10, "9" * 99999]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match=r"--sizes.*is no whole number") as error:
        parse_sizes(text)
    assert len(str(error.value)) < 200


def test_shapes():
    assert parse_shape("3,32,48") == (3, 32, 48)
    assert parse_shape("3072") == (3072,)


@pytest.mark.parametrize("text", ["32,32", "1,2,3,4", "3,0,3"])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(UsageError, match=r"--shape.*3,32,32"):
        parse_shape(text)
