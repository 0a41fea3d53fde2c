"""Damaged files of a run: each is redone or recovered with the same bytes, or has no effect."""

from __future__ import annotations

import os
import shutil
import signal
from zlib import crc32

import pytest

from genkit.artifacts.layout import CHECKPOINT, STATE
from genkit.errors import GenkitError, InterruptedRun

RESULTS = ("denoiser.safetensors", "samples.safetensors")


@pytest.fixture
def finished(tiny, trained):
    shutil.copytree(trained, tiny.folder)
    return tiny


def damaged(content, how, position):
    """Return content with a flipped bit at a position, cut off there, or empty."""
    if how == "flip":
        flipped = bytearray(content)
        flipped[position % len(content)] ^= 1
        return bytes(flipped)
    return content[: position % len(content)] if how == "cut" else b""


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


def stop_after(tiny, items):
    def stop(done, total):
        if done == items:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRun):
        tiny.run(tiny.train, "denoiser.checkpoint_seconds=0.001", progress=tiny.recorder(stop))


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
