"""The harness of benchmarks/reliability: its faults are those of a disk, and it detects losses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from disk import Disk
from genkit.files import write_bytes

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("error", "kept"), [(errno.ENOSPC, b"12"), (errno.EIO, b"")])
def test_a_full_disk_accepts_half_of_a_write(tmp_path, error, kept):
    path = tmp_path / "f"
    with (
        Disk(tmp_path, 1, error).injected(),
        pytest.raises(OSError) as caught,  # noqa: PT011  (the number of the error follows)
        path.open("wb") as file,
    ):
        file.write(b"1234")
    assert caught.value.errno == error
    assert path.read_bytes() == kept


def test_every_operation_of_a_save_is_counted_and_may_fail(tmp_path):
    kinds = ["open", "write", "fsync", "rename", "fsync"]
    with Disk(tmp_path).injected() as disk:
        write_bytes(tmp_path / "f", b"1234")
    assert [operation.kind for operation in disk.operations] == kinds
    for at in range(len(kinds)):
        write_bytes(tmp_path / "f", b"old")
        failing = Disk(tmp_path, at, errno.EIO, lasting=False).injected()
        with failing, pytest.raises(OSError) as caught:  # noqa: PT011
            write_bytes(tmp_path / "f", b"1234")
        assert Path(caught.value.filename) in (tmp_path / "f", tmp_path)
        assert (tmp_path / "f").read_bytes() == (b"old" if at < 4 else b"1234")
        assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_kills_lose_nothing_and_a_writer_in_place_is_detected():
    path = os.pathsep.join([str(ROOT / "tests/support"), str(ROOT / "benchmarks"), *sys.path])
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks/reliability", "--share", "0.04", "--only", "kills"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("as required") == 2
