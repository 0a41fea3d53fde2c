"""The run folder: whose it is, and which stage in it is finished."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch

from damage import change_state
from genkit.artifacts import checkpoint
from genkit.artifacts.checkpoint import FINGERPRINT
from genkit.artifacts.layout import CHECKPOINT, HOLDER, RESOLVED, STATE
from genkit.artifacts.state import read_state
from genkit.errors import Code, DataError, UsageError
from genkit.run.folder import RunFolder
from genkit.run.redo import Redo
from raising import raises_code


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run", "tiny")
    with folder.locked():
        yield folder


def test_a_stage_is_finished_once_it_is_marked_so(run):
    place = run.open_stage(1, "denoiser", "abc")
    assert place == run.root / "01-denoiser"
    assert not run.finished(1, "denoiser", "abc")
    run.mark(place, "abc", finished=True)
    assert run.finished(1, "denoiser", "abc")
    assert not run.finished(1, "denoiser", "abd")
    assert run.open_stage(1, "denoiser", "abc") == place  # opening it again keeps it finished
    assert run.finished(1, "denoiser", "abc")


def test_an_unfinished_stage_keeps_its_files(run):
    (run.open_stage(1, "denoiser", "abc") / "checkpoint").write_text("1")
    assert (run.open_stage(1, "denoiser", "abc") / "checkpoint").exists()


def test_a_changed_stage_is_set_aside_never_deleted(run):
    for fingerprint in ("abc", "abd", "abe"):
        (run.open_stage(1, "denoiser", fingerprint) / fingerprint).write_text("")
    assert [p.name for p in run.root.glob("01-denoiser/ab*")] == ["abe"]
    assert sorted(p.as_posix() for p in (run.root / "replaced").glob("*/ab*")) == [
        f"{run.root}/replaced/001-01-denoiser/abc",
        f"{run.root}/replaced/002-01-denoiser/abd",
    ]


def test_a_stage_is_found_under_its_old_number(run):
    run.mark(run.open_stage(1, "denoiser", "abc"), "abc", finished=True)
    assert run.finished(3, "denoiser", "abc")
    assert run.open_stage(3, "denoiser", "abc") == run.root / "03-denoiser"
    assert run.finished(3, "denoiser", "abc")
    assert not (run.root / "01-denoiser").exists()


def test_stages_that_trade_places_keep_their_own_folders(run):
    for number, stage in enumerate(("a", "b"), 1):
        run.mark(run.open_stage(number, stage, stage * 3), stage * 3, finished=True)
    for number, stage in enumerate(("b", "a"), 1):
        run.open_stage(number, stage, stage * 3)
        assert run.finished(number, stage, stage * 3)
    assert sorted(p.name for p in run.root.glob("[0-9]*")) == ["01-b", "02-a"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"'])
def test_a_damaged_state_is_an_unfinished_stage(run, content):
    place = run.open_stage(1, "denoiser", "abc")
    run.mark(place, "abc", finished=True)
    (place / STATE).write_text(content)
    assert not run.finished(1, "denoiser", "abc")
    run.open_stage(1, "denoiser", "abc")
    state = {"fingerprint": "abc", "finished": False, "files": {}}
    assert read_state(place / STATE) == state


def test_a_file_in_the_way_of_a_stage_is_named(run):
    (run.root / "01-denoiser").write_text("mine")
    with raises_code(UsageError, Code.OCCUPIED, "01-denoiser"):
        run.open_stage(1, "denoiser", "abc")


def test_a_damaged_state_of_the_run_is_told(run):
    (run.root / STATE).write_text("{")
    (run.root / "recipe.toml").write_text("")
    with raises_code(UsageError, Code.UNREADABLE, "state.json"):
        RunFolder(run.root, "tiny")


def test_a_run_without_its_state_is_recognized_by_its_recipe(run):
    (run.root / STATE).unlink()
    (run.root / "resolved.toml").write_text('name = "tiny"')
    RunFolder(run.root, "tiny")
    with raises_code(UsageError, Code.OCCUPIED, "tiny"):
        RunFolder(run.root, "other")
    (run.root / "resolved.toml").unlink()
    (run.root / "recipe.toml").write_text("")
    with raises_code(UsageError, Code.OCCUPIED):
        RunFolder(run.root, "tiny")


def test_what_was_set_aside_never_meets_a_taken_name(run):
    for number, fingerprint in enumerate(("a", "b", "c"), 1):
        run.open_stage(1, "denoiser", fingerprint)
        if number == 2:
            (run.root / "replaced" / "001-01-denoiser").rename(
                run.root / "replaced" / "007-01-denoiser"
            )
    names = sorted(p.name for p in (run.root / "replaced").iterdir())
    assert names == ["007-01-denoiser", "008-01-denoiser"]


def test_a_folder_of_hidden_files_alone_is_empty(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    with RunFolder(tmp_path, "tiny").locked():
        assert read_state(tmp_path / STATE) == {"name": "tiny"}


def test_looking_at_a_folder_makes_none(tmp_path):
    run = RunFolder(tmp_path / "run", "tiny")
    assert not run.finished(1, "denoiser", "abc")
    assert not run.root.exists()


def test_the_folder_is_free_again_after_an_error(tmp_path):
    run = RunFolder(tmp_path, "tiny")
    with pytest.raises(ZeroDivisionError), run.locked():
        raise ZeroDivisionError
    with run.locked(), raises_code(UsageError, Code.IN_USE), run.locked():
        pass


def test_a_run_ends_although_the_file_of_its_process_cannot_be_removed(tmp_path):
    run = RunFolder(tmp_path / "run", "tiny")

    def fail():
        (run.root / HOLDER).unlink()
        (run.root / HOLDER).mkdir()  # unlink raises
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), run.locked():
        fail()
    (run.root / HOLDER).rmdir()
    with run.locked():  # the lock was released
        pass


def test_a_run_that_starts_is_not_taken_for_a_killed_one(tmp_path, monkeypatch):
    run = RunFolder(tmp_path, "tiny")
    (tmp_path / HOLDER).write_text("{}")  # of a killed run
    found = []
    monkeypatch.setattr(
        "genkit.run.lock.write_json", lambda path, _: found.append((path.name, path.exists()))
    )
    with run.locked():
        assert found[0] == (HOLDER, False)


def test_a_result_with_one_changed_byte_is_not_finished(run):
    place = run.open_stage(1, "denoiser", "abc")
    (place / "scores.json").write_text("12")
    run.mark(place, "abc", finished=True)
    assert run.finished(1, "denoiser", "abc")
    (place / "scores.json").write_text("13")  # of the same size
    assert not run.finished(1, "denoiser", "abc")
    assert str(place / "scores.json") in run.damage(1, "denoiser")


@pytest.mark.parametrize("content", [None, "", "{"])
@pytest.mark.parametrize(("written", "kept"), [("abc", True), ("abd", False), (None, False)])
def test_the_checkpoint_identifies_the_settings_of_a_stage_without_a_state(
    run, content, written, kept
):
    place = run.open_stage(1, "denoiser", "abc")
    described = {} if written is None else {FINGERPRINT: written}
    checkpoint.save(place, {"x": torch.ones(1)}, {}, described)
    if content is None:
        (place / STATE).unlink()
    else:
        (place / STATE).write_text(content)
    assert run.change(1, "denoiser", "abc") != kept
    run.open_stage(1, "denoiser", "abc")
    assert (place / CHECKPOINT).exists() == kept


@pytest.mark.parametrize("content", ["", "{", "{}", "null"])
def test_the_name_of_a_run_is_recovered_from_its_resolved_recipe(tmp_path, content):
    with RunFolder(tmp_path, "tiny").locked():
        pass
    (tmp_path / STATE).write_text(content)
    with raises_code(UsageError, Code.UNREADABLE, STATE):
        RunFolder(tmp_path, "tiny")
    (tmp_path / RESOLVED).write_text('name = "tiny"')
    with RunFolder(tmp_path, "tiny").locked():
        pass
    assert read_state(tmp_path / STATE) == {"name": "tiny"}
    with raises_code(UsageError, Code.OCCUPIED, "tiny"):
        RunFolder(tmp_path, "other")


@pytest.mark.parametrize("name", ["tinz", 3, None])
@pytest.mark.parametrize("redo", [{}, {"pendinh": []}, {"pending": 3}, {"pending": [1]}, 7])
def test_a_damaged_name_and_a_damaged_request_are_recovered(tmp_path, name, redo):
    (tmp_path / STATE).write_text(json.dumps({"name": name, "redo": redo}))
    (tmp_path / RESOLVED).write_text('name = "tiny"')
    folder = RunFolder(tmp_path, "tiny")
    assert folder.redo == Redo()
    with folder.locked():
        assert read_state(tmp_path / STATE) == {"name": "tiny"}


def test_a_damaged_fingerprint_does_not_discard_a_stage(run):
    place = run.open_stage(1, "denoiser", "abc")
    checkpoint.save(place, {"x": torch.ones(1)}, {}, {FINGERPRINT: "abc"})
    run.mark(place, "abc", finished=True)
    change_state(place / STATE, fingerprint="abd")
    assert not run.change(1, "denoiser", "abc")
    assert run.change(1, "denoiser", "abe")


def test_a_result_that_cannot_be_read_is_damaged(run, monkeypatch):
    place = run.open_stage(1, "denoiser", "abc")
    (place / "scores.json").write_text("12")
    run.mark(place, "abc", finished=True)

    def fails(path):
        raise DataError(f"{path}: Input/output error", Code.IO_ERROR)

    monkeypatch.setattr("genkit.run.repair.file_digest", fails)
    assert "Input/output" in run.damage(1, "denoiser")


@pytest.mark.parametrize("target", ["absent", "01-denoiser"])
def test_a_link_in_place_of_a_stage_is_named(run, target):
    place = run.place(1, "denoiser")
    place.symlink_to(target)
    with raises_code(UsageError, Code.OCCUPIED, str(place)):
        run.open_stage(1, "denoiser", "abc")


def test_a_file_in_place_of_replaced_is_named_when_a_stage_is_moved(run):
    place = run.open_stage(1, "denoiser", "abc")
    run.mark(place, "abc", finished=True)
    (run.root / "replaced").write_text("")
    run.open_stage(1, "denoiser", "abc")
    with raises_code(UsageError, Code.OCCUPIED, "replaced"):
        run.open_stage(1, "denoiser", "abd")


def test_a_folder_in_place_of_the_lock_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()
    with raises_code(UsageError, Code.USAGE, ".lock"), RunFolder(tmp_path, "tiny").locked():
        pass


def test_a_hidden_file_is_no_result(run):
    place = run.open_stage(1, "denoiser", "abc")
    (place / ".DS_Store").write_text("1")
    run.mark(place, "abc", finished=True)
    (place / ".DS_Store").write_text("22")
    assert run.finished(1, "denoiser", "abc")


def test_a_state_that_cannot_be_read_is_not_a_damaged_state(run, monkeypatch):
    place = run.open_stage(1, "denoiser", "abc")
    run.mark(place, "abc", finished=True)

    def fails(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("genkit.artifacts.state.read_json_with_digest", fails)
    with pytest.raises(OSError, match="Input"):
        run.open_stage(1, "denoiser", "abc")


def test_a_folder_whose_name_is_not_utf8_is_refused(tmp_path):
    with raises_code(UsageError, Code.INVALID_NAME, "udce9"):
        RunFolder(tmp_path / os.fsdecode(b"\xe9"), "tiny")
