"""``genkit runs``: what each run has reached, and folders that are none or are damaged."""

from __future__ import annotations

import json
import os
import shutil

import filelock
import pytest

from damage import change_state
from genkit_compare.listing import age_text, entries, table


def listed(genkit_, *arguments):
    code, out, err = genkit_("runs", *arguments, "--json")
    assert (code, err) == (0, "")
    return {entry["folder"]: entry for entry in json.loads(out)}


def unfinish(stage):
    change_state(stage / "state.json", finished=False)


def test_the_table_has_every_run_with_its_best_score(genkit_, runs):
    code, out, _ = genkit_("runs")
    assert code == 0
    lines = out.splitlines()
    assert len([line for line in lines if "finished" in line]) == 2
    best = min(
        row["frechet"] if "frechet" in row else row["frechet_pixels"]
        for path in (runs / "edm").glob("*/scores.json")
        for row in json.loads(path.read_text())["rows"]
    )
    entry = listed(genkit_)["runs/edm"]
    assert entry["best"]["value"] == best
    assert f"{best:.4g}" in out
    assert (entry["recipe"], entry["stages"], entry["finished"]) == ("edm", 4, 4)
    assert abs(entry["changed"] - (runs / "edm" / "results.json").stat().st_mtime) < 1


def test_an_unfinished_run_has_its_stage_and_its_images(genkit_, runs):
    unfinish(runs / "edm" / "01-denoiser")
    log = runs / "edm" / "01-denoiser" / "metrics.jsonl"
    log.write_text('{"images": 128, "loss": 1.0}\n{"images": 19')
    entry = listed(genkit_)["runs/edm"]
    assert (entry["state"], entry["finished"], entry["best"]) == ("unfinished", 0, None)
    assert (entry["stage"], entry["images"], entry["total"]) == ("denoiser", 128, 640)
    assert "1 of 4: denoiser, 128 of 640 images" in genkit_("runs")[1]


def test_a_failed_run_has_its_error(genkit_, runs):
    unfinish(runs / "edm" / "02-samples")
    failure = {"stage": "samples", "message": "stage samples: no samples", "code": "data"}
    (runs / "edm" / "state.json").write_text(json.dumps({"name": "edm", "failure": failure}))
    entry = listed(genkit_)["runs/edm"]
    assert (entry["state"], entry["error"]) == ("unfinished", "stage samples: no samples [data]")
    assert "edm: stage samples: no samples [data]" in genkit_("runs")[1]


def test_a_stop_by_the_user_is_no_error(genkit_, runs):
    unfinish(runs / "edm" / "02-samples")
    failure = {"stage": "samples", "message": "stopped in stage samples", "code": "interrupted"}
    (runs / "edm" / "state.json").write_text(json.dumps({"name": "edm", "failure": failure}))
    entry = listed(genkit_)["runs/edm"]
    assert (entry["state"], entry["error"]) == ("unfinished", "")


def test_a_running_run_is_one_whose_lock_is_held(genkit_, runs):
    unfinish(runs / "edm" / "02-samples")
    with filelock.FileLock(runs / "edm" / ".lock"):
        found = listed(genkit_)
    assert {name: entry["state"] for name, entry in found.items()} == {
        "runs/edm": "running",
        "runs/edm-aot": "finished",
    }
    assert found["runs/edm"]["stage"] == "samples"
    assert found["runs/edm"]["images"] is None


def test_a_run_that_has_just_begun_is_running(genkit_, runs):
    (runs / "edm" / "resolved.toml").unlink()
    with filelock.FileLock(runs / "edm" / ".lock"):
        assert listed(genkit_)["runs/edm"]["state"] == "running"
    assert listed(genkit_)["runs/edm"]["state"] == "damaged"


def test_what_is_no_run_is_skipped_and_what_is_unreadable_is_listed_with_the_reason(genkit_, runs):
    (runs / "notes").mkdir()
    (runs / "notes.txt").touch()
    shutil.copytree(runs / "edm", runs / "cut")
    (runs / "cut" / "resolved.toml").write_text("name =")
    (runs / "edm-aot" / "04-sweep" / "scores.json").unlink()
    found = listed(genkit_)
    assert list(found) == ["runs/cut", "runs/edm", "runs/edm-aot"]
    assert found["runs/cut"]["state"] == found["runs/edm-aot"]["state"] == "damaged"
    assert "resolved.toml" in found["runs/cut"]["reason"]
    assert "scores.json" in found["runs/edm-aot"]["reason"]
    assert "resolved.toml" in genkit_("runs")[1]


def test_scores_of_the_right_size_that_are_damaged_are_a_reason(genkit_, runs):
    file = runs / "edm" / "03-scores" / "scores.json"
    file.write_bytes(b"x" * file.stat().st_size)
    entry = listed(genkit_)["runs/edm"]
    assert entry["state"] == "damaged"
    assert "scores.json" in entry["reason"]


def test_a_run_itself_is_listed_alone(genkit_, runs):
    assert list(listed(genkit_, "runs/edm")) == ["runs/edm"]


def test_the_best_of_a_score_that_should_be_high_is_the_highest(make, tmp_path):
    rows = [make.row(precision=value) for value in (0.2, 0.8, 0.5)]
    make.run("runs/a", (rows, {"precision": {"better": "higher"}}))
    make.run("runs/b", (rows, {"precision": {"better": "lower"}}))
    found = entries(tmp_path / "runs")
    assert [entry.best.value for entry in found] == [0.8, 0.2]


def test_a_score_of_which_neither_is_better_is_passed_over(make, tmp_path):
    rows = [make.row(spread=value, fid=2 * value) for value in (0.2, 0.8)]
    make.run("runs/a", (rows, {"spread": {}, "fid": {"better": "lower"}}))
    make.run("runs/b", ([make.row(spread=0.9)], {"spread": {}}))
    a, b = entries(tmp_path / "runs")
    assert (a.best.score, a.best.value, b.best) == ("fid", 0.4, None)


def test_a_run_without_scores_has_no_best(make, tmp_path):
    make.run("runs/a")
    (entry,) = entries(tmp_path / "runs")
    assert (entry.state, entry.best) == ("finished", None)
    assert len(table([entry])) == 2  # head and row


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0.5, "0 s"), (59, "59 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")],
)
def test_an_age_is_told_in_its_largest_unit(seconds, text):
    assert age_text(seconds) == text


def test_a_folder_without_runs_says_so(genkit_, tmp_path):
    code, out, _ = genkit_("runs", tmp_path)
    assert (code, out) == (0, f"{tmp_path} contains no runs.\n")


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_folder_that_is_none_is_refused(genkit_, tmp_path, name):
    (tmp_path / "file").touch()
    code, out, err = genkit_("runs", tmp_path / name)
    assert (code, out) == (2, "")
    assert err.startswith("Error: FOLDER must be a folder")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_run_of_another_user_is_listed_with_the_reason(genkit_, runs):
    (runs / "edm").chmod(0)
    try:
        assert "Permission denied" in listed(genkit_)["runs/edm"]["reason"]
    finally:
        (runs / "edm").chmod(0o755)
