"""Files that are whole or absent."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genkit.errors import Code, DataError
from genkit.files import atomic_write, require_regular, write_bytes, write_json, write_text
from genkit.pickles import read_state_dict
from genkit.tensors import file_digest, load, metadata
from genkit_data.folder import existing
from genkit_edm.reference.snapshot import read_snapshot
from raising import raises_code


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
        seen.append((path.read_bytes(), len(list(tmp_path.glob(".f.*.tmp")))))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(path, b"new")
    # First the content, while the old file still stands; then the folder, after the rename.
    assert seen == [(b"old", 1), (b"new", 0)]


@pytest.mark.parametrize("number", [0, 1])
def test_an_error_of_a_sync_has_the_name_of_the_file_or_of_its_folder(
    tmp_path, monkeypatch, number
):
    path, left = tmp_path / "f", [number]

    def fsync(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EIO, "no disk")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="no disk") as caught:
        write_bytes(path, b"x")
    assert caught.value.filename == str([path, tmp_path][number])


WRITER = """
import sys, time
from pathlib import Path
from genkit.files import atomic_write

with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half of something longer")
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""


def test_what_a_kill_left_beside_is_removed_and_what_others_write_is_not(tmp_path):
    path = tmp_path / "f"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        assert [writer.stdout.readline() for writer in writers] == [b"half\n"] * 2
        write_bytes(path, b"whole")
        assert path.read_bytes() == b"whole"
        assert len(list(tmp_path.iterdir())) == 3
        writers[0].kill()
        writers[0].wait()
        write_bytes(path, b"whole")
        assert len(list(tmp_path.iterdir())) == 2
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    write_bytes(path, b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_files_of_other_names_are_left_alone(tmp_path):
    for name in (".ff.00.tmp", ".f[1].00.tmp", "f.00.tmp"):
        (tmp_path / name).write_bytes(b"")
    write_bytes(tmp_path / "f", b"whole")
    write_bytes(tmp_path / "f[1]", b"whole")
    assert {p.name for p in tmp_path.iterdir()} == {"f", "f[1]", ".ff.00.tmp", "f.00.tmp"}


def test_two_at_once_replace_each_other(tmp_path):
    path = tmp_path / "f"
    with atomic_write(path) as first:
        first.write(b"first")
        with atomic_write(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    real, raced = fcntl.flock, []

    def flock(file, operation):
        if not raced:
            raced.append(file.name)
            Path(file.name).unlink()
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    write_bytes(tmp_path / "f", b"whole")
    assert raced
    assert (tmp_path / "f").read_bytes() == b"whole"


def test_a_file_system_without_locks_keeps_what_may_be_written(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / ".f.00.tmp").write_bytes(b"half")
    write_bytes(tmp_path / "f", b"whole")
    assert {p.name for p in tmp_path.iterdir()} == {"f", ".f.00.tmp"}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_file_whose_read_may_never_end_is_not_read(tmp_path, make):
    path = tmp_path / "x"
    make(path)
    for read in (file_digest, load, metadata, read_state_dict, read_snapshot):
        with raises_code(DataError, Code.WRONG_KIND, path.name):
            read(path)
    with raises_code(DataError, Code.WRONG_KIND, path.name):
        existing(str(path))


def test_regular_files_folders_and_missing_paths_pass(tmp_path):
    write_bytes(tmp_path / "f", b"")
    for path in (tmp_path, tmp_path / "f", tmp_path / "missing"):
        require_regular(path)
