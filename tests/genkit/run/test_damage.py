"""Damaged files of a run: each is redone or recovered with the same bytes, or has no effect."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path
from unittest import mock
from zlib import crc32

import pytest

from damage import change_state, damaged
from genkit.artifacts.layout import CHECKPOINT, ENVIRONMENT, RESOLVED, STATE
from genkit.artifacts.state import read_state
from genkit.errors import DataError, GenkitError, InterruptedRun
from genkit.run import engine

pytestmark = pytest.mark.slow

RESULTS = ("denoiser.safetensors", "samples.safetensors")


@pytest.fixture
def finished(tiny, trained):
    shutil.copytree(trained, tiny.folder)
    return tiny


@pytest.mark.parametrize("name", RESULTS)
def test_a_damaged_result_is_redone_with_a_note(finished, name):
    (path,) = finished.folder.glob(f"*/{name}")
    content = path.read_bytes()
    path.write_bytes(damaged(content, "flip", -1))
    notes, progress = [], finished.recorder()
    progress.note = notes.append
    finished.run(finished.sample, progress=progress)
    stage = path.parent.name[3:]
    assert progress.ran == [stage]
    assert [stage in note and name in note for note in notes] == [True]
    assert path.read_bytes() == content


@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_no_damage_of_a_finished_run_changes_a_result(finished, how):
    whole = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    results = {path: content for path, content in whole.items() if path.name in RESULTS}
    for path, content in whole.items():
        if not content:
            continue
        path.write_bytes(damaged(content, how, crc32(path.name.encode())))
        finished.run(finished.sample)
        assert {p: p.read_bytes() for p in results} == results, path
        for other, before in whole.items():
            other.parent.mkdir(exist_ok=True)
            other.write_bytes(before)


SNAPSHOTS = 'denoiser.average={ use = "power-ema", snapshot_images = 64, lengths = [0.1] }'


@pytest.mark.parametrize("kill", [False, True])
def test_a_damaged_result_from_before_the_last_checkpoint_is_written_again(tiny, kill):
    tiny.run(tiny.train, SNAPSHOTS)
    first, *_ = sorted(tiny.folder.glob("*/ema-*.safetensors"))
    content = first.read_bytes()
    first.write_bytes(damaged(content, "flip", -1))
    if kill:  # before the stage is finished
        killed = mock.patch.object(engine, "restart", side_effect=ZeroDivisionError)
        with killed, pytest.raises(ZeroDivisionError):
            tiny.run(tiny.train, SNAPSHOTS)
    notes, progress = [], tiny.recorder()
    progress.note = notes.append
    tiny.run(tiny.train, SNAPSHOTS, progress=progress)
    assert first.read_bytes() == content
    assert any(first.name in note and "beginning" in note for note in notes)
    progress, _ = tiny.run(tiny.train, SNAPSHOTS)
    assert progress.ran == []


def test_a_picture_that_no_callback_draws_any_more_starts_no_second_training(tiny):
    preview = 'denoiser.callbacks=[{ use = "preview", every = 64 }]'
    tiny.run(tiny.train, preview)
    for picture in tiny.folder.glob("*/*.png"):
        picture.unlink()
    notes, progress = [], tiny.recorder()
    progress.note = notes.append
    tiny.run(tiny.train, progress=progress)
    assert not any("beginning" in note for note in notes)


def test_a_state_that_refers_to_other_folders_removes_nothing_there(finished, tmp_path):
    (tmp_path / "mine").write_text("kept")
    state = finished.folder / "01-denoiser" / STATE
    files = read_state(state)["files"]
    change_state(state, files={**files, str(tmp_path / "mine"): 1, "../../mine": 1})
    finished.run(finished.sample)
    assert (tmp_path / "mine").read_text() == "kept"


@pytest.mark.parametrize("unreadable", ["denoiser.safetensors", "samples.safetensors"])
def test_a_file_that_cannot_be_read_is_not_removed(finished, unreadable, monkeypatch):
    (path,) = finished.folder.glob(f"*/{unreadable}")
    inode, opened = path.stat().st_ino, Path.open

    def fails(self, *arguments, **options):
        if self == path:
            raise OSError(errno.EIO, "Input/output error")
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(DataError):
        finished.run(finished.sample)
    monkeypatch.undo()
    assert path.stat().st_ino == inode


def stop_after(tiny, items, *settings):
    def stop(done, total):
        if done == items:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRun):
        tiny.run(
            tiny.train, "denoiser.checkpoint_seconds=0.001", *settings, progress=tiny.recorder(stop)
        )


def test_no_damage_of_an_unfinished_run_changes_a_result(tiny, tmp_path):
    tiny.run(tiny.train, "denoiser.checkpoint_seconds=0.001", folder=tmp_path / "whole")
    wanted = tiny.bytes_of("denoiser.safetensors", tmp_path / "whole")
    stop_after(tiny, 128)
    stopped = shutil.copytree(tiny.folder, tmp_path / "stopped")
    names = [path.relative_to(stopped) for path in stopped.rglob("*") if path.is_file()]
    assert {CHECKPOINT, "checkpoint-1.safetensors", STATE} <= {path.name for path in names}
    for name in names:
        for how in ("flip", "cut", "empty"):
            shutil.rmtree(tiny.folder)
            shutil.copytree(stopped, tiny.folder)
            path = tiny.folder / name
            if not (content := path.read_bytes()):
                continue
            path.write_bytes(damaged(content, how, crc32(str(name).encode())))
            tiny.run(tiny.train, "denoiser.checkpoint_seconds=0.001")
            assert tiny.bytes_of("denoiser.safetensors") == wanted, (name, how)


def test_a_snapshot_that_is_damaged_before_the_stage_is_finished_is_written_again(tiny):
    stop_after(tiny, 128, SNAPSHOTS)
    first, *_ = sorted(tiny.folder.glob("*/ema-*.safetensors"))
    content = first.read_bytes()
    first.write_bytes(damaged(content, "flip", -1))
    tiny.run(tiny.train, SNAPSHOTS)
    assert first.read_bytes() == content


def test_a_checkpoint_of_other_settings_is_not_restored_without_a_state(tiny, tmp_path):
    tiny.run(tiny.train, "denoiser.optimizer.learning_rate=0.01", folder=tmp_path / "whole")
    stop_after(tiny, 128)
    (tiny.folder / "01-denoiser" / STATE).write_text("")
    tiny.run(tiny.train, "denoiser.optimizer.learning_rate=0.01")
    name = "denoiser.safetensors"
    assert tiny.bytes_of(name) == tiny.bytes_of(name, tmp_path / "whole")
    assert list((tiny.folder / "replaced").glob(f"*/{CHECKPOINT}"))


def test_without_a_valid_checkpoint_the_run_stops_with_exit_code_4(tiny):
    stop_after(tiny, 128)
    for path in tiny.folder.glob("*/checkpoint*.safetensors"):
        path.write_bytes(damaged(path.read_bytes(), "flip", -1))
    with pytest.raises(GenkitError) as caught:
        tiny.run(tiny.train)
    assert caught.value.exit_code == 4


def test_a_changed_recipe_of_a_finished_run_is_written_again(finished):
    path = finished.folder / RESOLVED
    content = path.read_text()
    path.write_text(content.replace("width = ", "width = 9"))
    notes, progress = [], finished.recorder()
    progress.note = notes.append
    finished.run(finished.sample, progress=progress)
    assert (progress.ran, path.read_text()) == ([], content)
    assert [RESOLVED in note for note in notes] == [True]
    finished.run(finished.sample, progress=progress)
    assert len(notes) == 1


def test_a_changed_environment_of_a_finished_run_is_named_and_not_replaced(finished):
    path = finished.folder / ENVIRONMENT
    path.write_text("{}")
    notes, progress = [], finished.recorder()
    progress.note = notes.append
    finished.run(finished.sample, progress=progress)
    assert ([ENVIRONMENT in note for note in notes], path.read_text()) == ([True], "{}")


@pytest.mark.parametrize("state", ["", "{}", None])
def test_without_a_state_and_a_valid_checkpoint_the_run_stops_with_exit_code_4(tiny, state):
    stop_after(tiny, 128)
    path = tiny.folder / "01-denoiser" / STATE
    path.unlink() if state is None else path.write_text(state)
    checkpoints = list(tiny.folder.glob("*/checkpoint*.safetensors"))
    for path in checkpoints:
        path.write_bytes(b"")
    with pytest.raises(GenkitError) as caught:
        tiny.run(tiny.train)
    assert caught.value.exit_code == 4
    for path in checkpoints:
        assert str(path) in str(caught.value)
        path.unlink()
    tiny.run(tiny.train)  # which the message suggests


def test_a_checkpoint_that_cannot_be_read_is_not_replaced_by_the_one_before(tiny, monkeypatch):
    stop_after(tiny, 128)
    path = tiny.folder / "01-denoiser" / CHECKPOINT
    content, opened = path.read_bytes(), Path.open

    def fails(self, *arguments, **options):
        if self == path:
            raise OSError(errno.EIO, "Input/output error")
        return opened(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fails)
        with pytest.raises(GenkitError, match="Input/output") as caught:
            tiny.run(tiny.train)
    assert (caught.value.exit_code, path.read_bytes() == content) == (2, True)


@pytest.mark.parametrize("name", [CHECKPOINT, "metrics.jsonl"])
def test_a_folder_in_place_of_a_file_is_no_traceback(tiny, name):
    stop_after(tiny, 128)
    path = tiny.folder / "01-denoiser" / name
    path.unlink()
    path.mkdir()
    with pytest.raises(GenkitError) as caught:
        tiny.run(tiny.train)
    assert name in str(caught.value)
    path.rmdir()
    tiny.run(tiny.train)


def test_a_damaged_state_of_a_finished_run_is_written_again_with_a_note(finished):
    path = finished.folder / STATE
    path.write_bytes(damaged(path.read_bytes(), "flip", 20))
    notes, progress = [], finished.recorder()
    progress.note = notes.append
    finished.run(finished.sample, progress=progress)
    assert (progress.ran, [STATE in note for note in notes]) == ([], [True])
    assert RESOLVED in read_state(path)["digests"]
