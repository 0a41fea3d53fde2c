from __future__ import annotations

import gzip

import pytest
import torch

from genkit.errors import Code, DataError
from genkit_data import idx
from raising import raises_code


def test_content_in_row_major_order(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", (2, 3, 4))
    assert idx.read_shape(path, 3) == (2, 3, 4)
    assert torch.equal(idx.read(path, 3), torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4))


def test_sizes_are_big_endian(tmp_path, write_idx):
    assert idx.read_shape(write_idx(tmp_path / "a.gz", (258,)), 1) == (258,)


def test_the_header_alone_is_read_for_the_shape(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", (60_000, 28, 28), content=b"")
    assert idx.read_shape(path, 3) == (60_000, 28, 28)


@pytest.mark.parametrize(("content", "found"), [(b"abc", 3), (b"abcde", 5)])
def test_wrong_length(tmp_path, write_idx, content, found):
    path = write_idx(tmp_path / "a.gz", (4,), content=content)
    with raises_code(DataError, Code.WRONG_LENGTH, "a.gz", f"got {found}", "4 bytes"):
        idx.read(path, 1)


def test_wrong_number_of_dimensions(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", (4,))
    with raises_code(DataError, Code.WRONG_KIND, "00000801", "00000803"):
        idx.read_shape(path, 3)


def test_other_element_type(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", (4,), magic=0x0D01)
    with raises_code(DataError, Code.WRONG_KIND, "00000d01", "00000801"):
        idx.read_shape(path, 1)


@pytest.mark.parametrize("head", [b"", b"\0\0\x08", b"\0\0\x08\x03\0\0"])
def test_short_header(tmp_path, head):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(head))
    with raises_code(DataError, Code.UNREADABLE, "a.gz", len(head), "16 bytes"):
        idx.read_shape(path, 3)


def test_empty_dimension(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", (0, 28, 28))
    with raises_code(DataError, Code.WRONG_SHAPE, "0 x 28 x 28"):
        idx.read_shape(path, 3)


def test_not_gzip(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(b"<html>not found</html>")
    with raises_code(DataError, Code.UNREADABLE, "a.gz"):
        idx.read_shape(path, 3)


def test_truncated_gzip(tmp_path, write_idx):
    path = write_idx(
        tmp_path / "a.gz", (100,), content=torch.randperm(100).to(torch.uint8).numpy().tobytes()
    )
    path.write_bytes(path.read_bytes()[:-20])
    with raises_code(DataError, Code.UNREADABLE, "a.gz"):
        idx.read(path, 1)


def test_damaged_stream(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", (100,))
    broken = bytearray(path.read_bytes())
    broken[20:30] = b"\xff" * 10
    path.write_bytes(broken)
    with raises_code(DataError, Code.UNREADABLE, "a.gz"):
        idx.read(path, 1)


def test_missing(tmp_path):
    with raises_code(DataError, Code.UNREADABLE, "a.gz"):
        idx.read(tmp_path / "a.gz", 1)
