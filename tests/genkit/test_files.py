"""Files that are whole or absent."""

from __future__ import annotations

import json
import os

import pytest

from genkit.files import write_bytes, write_json, write_text


def test_content_replaces_content(tmp_path):
    path = tmp_path / "f"
    write_bytes(path, b"first, and longer")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "f", "Å = 80\n")
    assert (tmp_path / "f").read_bytes() == "Å = 80\n".encode()


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "f", {"a": [1, 2.5, None], "b": "Å"})
    assert json.loads((tmp_path / "f").read_text()) == {"a": [1, 2.5, None], "b": "Å"}


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_json_that_no_reader_takes_is_not_written(tmp_path, value):
    write_json(tmp_path / "f", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "f", {"a": value})
    assert json.loads((tmp_path / "f").read_text()) == {"a": 1}


def test_the_new_file_is_on_disk_before_it_takes_the_place_of_the_old(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_bytes(path, b"old")
    seen = []
    real = os.fsync

    def fsync(handle):
        seen.append((path.read_bytes(), (tmp_path / ".f.tmp").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(path, b"new")
    # First the content, while the old file still stands; then the folder, after the rename.
    assert seen == [(b"old", True), (b"new", False)]


def test_what_a_kill_left_beside_is_written_over(tmp_path):
    (tmp_path / ".f.tmp").write_bytes(b"half of something longer")
    write_bytes(tmp_path / "f", b"whole")
    assert (tmp_path / "f").read_bytes() == b"whole"
    assert not (tmp_path / ".f.tmp").exists()
