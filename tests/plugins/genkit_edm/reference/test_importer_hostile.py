"""2,000 hostile and mutated files: nothing in them is executed, and memory is bounded."""

from __future__ import annotations

import contextlib
import pickle
import resource
import sys
import tracemalloc

import pytest

from genkit.errors import DataError
from genkit_edm.reference.importer import EdmImporter
from genkit_edm.reference.snapshot import read_snapshot

pytestmark = pytest.mark.slow

RUNNING = ("exec", "compile")
"""Audit events of code that is made and run."""

REACHING = ("pickle.find_class", "import", "open", "os.", "subprocess.", "shutil.", "socket.")
"""Audit events of what reaches beyond the values in a file."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a module that shows when it is imported."""
    (tmp_path / "hostile_module.py").write_text("import os; os.mkdir('executed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_plain_unpickler_does_execute_them(edm_files, hostile, place):
    """The control: every payload is one."""
    for payload in hostile.payloads(place / "executed"):
        with contextlib.suppress(AttributeError, TypeError, FileExistsError):
            pickle.loads(edm_files.emitted(payload))  # noqa: S301
        assert (place / "executed").is_dir(), payload
        (place / "executed").rmdir()
    del sys.modules["hostile_module"]


def test_2000_hostile_files(hostile, place, watch):
    watch.events = RUNNING + REACHING
    files = hostile.files(place / "executed")
    path = place / "network-snapshot-000001.pkl"
    path.write_bytes(files.plain)
    read_snapshot(path)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counted = {}
    for kind, content in files.all():
        path.unlink()  # many file systems write out at once what takes the place of old content
        path.write_bytes(content)
        reason = watch.outcome(read_snapshot, path)
        refused, count = counted.get(kind, (0, 0))
        counted[kind] = (refused + bool(reason), count + 1)
        assert not reason or reason.startswith(str(path)), (kind, reason)
        assert watch.seen == []
        assert not (place / "executed").exists()
    assert sum(count for _, count in counted.values()) == 2000
    assert "hostile_module" not in sys.modules
    for kind in ("truncated", "with_payload", "bomb", "noise"):
        assert counted[kind][0] == counted[kind][1]
    refused = sum(refused for refused, _ in counted.values())
    assert 1200 < refused < 2000  # what is left are changes of weights, and of parts not looked at
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 100_000  # KiB


@pytest.mark.parametrize("kind", ["made_up", "made_up_edm2"])
def test_hostile_files_of_a_whole_network(edm_files, hostile, place, watch, kind):
    """Up to the network's weights: a part of the files, with all that the importer does."""
    watch.events = REACHING  # the annotations of settings are compiled
    files = hostile.files(place / "executed", getattr(edm_files, kind)())
    path = place / "network-snapshot-000001.pkl"
    path.write_bytes(files.plain)
    EdmImporter().read(path)
    for make in (
        files.flipped,
        files.with_opcodes,
        files.with_payload,
        files.with_nonsense,
    ):
        for _ in range(25):
            path.unlink()
            path.write_bytes(make())
            reason = watch.outcome(EdmImporter().read, path)
            assert not reason or reason.startswith(str(path))
            assert watch.seen == []
            assert not (place / "executed").exists()


def test_memory_is_bounded_by_the_file(hostile, place):
    files = hostile.files(place / "executed")
    path = place / "network-snapshot-000001.pkl"
    for make in (files.bomb, files.zipped, files.with_other_tensor):
        for _ in range(10):
            path.write_bytes(make())
            tracemalloc.start()
            with contextlib.suppress(DataError):
                read_snapshot(path)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 2**20 + 300 * path.stat().st_size
