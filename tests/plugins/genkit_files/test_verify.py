"""``genkit verify`` reports every damaged file of a run, and files that cannot be checked."""

from __future__ import annotations

import json
import os
import shutil
from zlib import crc32

import filelock
import pytest
import torch
from safetensors.torch import save_file

import genkit
from coarse import drawn_coarsely
from damage import change_state
from genkit.artifacts.layout import (
    CHECKPOINT,
    ENVIRONMENT,
    LOCK,
    METRICS,
    RECIPE,
    RESOLVED,
    RESULTS,
    STATE,
)
from genkit.errors import DamagedError
from genkit.tensors import save

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

SMALL = {"data.items": 200, "denoiser.images": 256, "denoiser.network.width": 8}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "run"
    settings = {**SMALL, "samples.count": 4, "scores.metrics": [{"use": "truncation", "count": 2}]}
    with drawn_coarsely():
        genkit.run_recipe("smoke", out=folder, settings=settings, device="cpu")
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def verify(genkit_):
    def call(path):
        code, printed, err = genkit_("verify", path, "--json")
        assert err == ""
        return code, {each["path"]: each["state"] for each in json.loads(printed)}

    return call


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_an_intact_run(verify, genkit_, run):
    code, states = verify(run)
    assert code == 0
    names = {path.rsplit("/", 1)[1] for path, state in states.items() if state == "intact"}
    wanted = {"denoiser.safetensors", CHECKPOINT, "samples.safetensors", "scores.json", RESULTS}
    assert names >= wanted
    assert names >= {METRICS, "cost.json", RECIPE, RESOLVED, ENVIRONMENT}
    assert set(states.values()) == {"intact"}
    code, printed, _ = genkit_("verify", run)
    assert (code, printed.splitlines()[-1]) == (0, f"{len(states)} files checked, 0 damaged")


def test_a_flip_anywhere_in_any_result_is_reported(verify, run):
    _, states = verify(run)
    for path in [type(run)(path) for path, state in states.items() if state == "intact"]:
        whole = path.read_bytes()
        flip(path, crc32(path.name.encode()) % len(whole))
        code, found = verify(run)
        assert (code, found[str(path)]) == (DamagedError.exit_code, "damaged")
        path.write_bytes(whole)


def test_a_missing_file_and_a_damaged_state(verify, genkit_, run):
    (run / "02-samples" / "samples.safetensors").unlink()
    (run / "01-denoiser" / STATE).write_text("{")
    code, found = verify(run)
    assert code == DamagedError.exit_code
    assert found[str(run / "02-samples" / "samples.safetensors")] == "damaged"
    assert found[str(run / "01-denoiser" / STATE)] == "damaged"
    assert "checkpoints" not in genkit_("verify", run)[1]
    flip(run / "01-denoiser" / CHECKPOINT, -1)
    assert "checkpoints" in genkit_("verify", run)[1]


def test_a_run_of_an_earlier_version(verify, run):
    for path in run.glob(f"*/{STATE}"):
        change_state(path, digests=None, logs=None)
    code, found = verify(run)
    assert code == 0
    assert found[str(run / "03-scores" / "scores.json")] == "unknown"
    assert found[str(run / "01-denoiser" / METRICS)] == "unknown"
    network = run / "01-denoiser" / "denoiser.safetensors"  # with a digest of its own
    assert found[str(network)] == "intact"
    flip(network, -1)
    assert verify(run)[1][str(network)] == "damaged"


def test_a_running_stage_is_not_checked(verify, run):
    path = run / "02-samples" / STATE
    change_state(path, finished=False)
    with filelock.FileLock(run / LOCK):
        code, found = verify(run)
    assert (code, found[str(run / "02-samples")]) == (0, "unknown")


def test_the_log_of_an_unfinished_stage_has_no_digest(verify, run):
    path = run / "01-denoiser" / METRICS
    change_state(path.with_name(STATE), finished=False, logs=None)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, '{"images": 1']))  # cut off by a kill
    code, found = verify(run)
    assert (code, found[str(path)]) == (0, "unknown")
    path.write_text("\n".join(["[1]", *lines]))
    code, found = verify(run)
    assert (code, found[str(path)]) == (DamagedError.exit_code, "damaged")


def test_results_that_a_state_does_not_contain_are_unknown(verify, run):
    place = run / "01-denoiser"
    change_state(place / STATE, files={}, digests={})
    code, found = verify(run)
    assert (code, found[str(place / "denoiser.safetensors")]) == (0, "unknown")


@pytest.mark.parametrize("kind", [None, "file", "link"])
def test_a_stage_without_its_folder(verify, run, kind):
    place = run / "03-scores"
    shutil.rmtree(place)
    if kind == "file":
        place.write_text("")
    elif kind == "link":
        place.symlink_to(place)
    code, found = verify(run)
    expected = (0, "unknown") if kind is None else (DamagedError.exit_code, "damaged")
    assert (code, found[str(place)]) == expected


def test_a_log_that_was_changed_after_its_stage(verify, run):
    path = run / "01-denoiser" / METRICS
    path.write_text(path.read_text().replace("loss", "lass", 1))
    code, found = verify(run)
    assert (code, found[str(path)]) == (DamagedError.exit_code, "damaged")
    path.unlink()  # which is allowed
    assert verify(run)[0] == 0


def test_a_state_that_lists_no_results(verify, run):
    path = run / "02-samples" / STATE
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": {}, "digests": {}}))
    code, found = verify(run)
    assert (code, found[str(path)]) == (DamagedError.exit_code, "damaged")


@pytest.mark.parametrize("name", [STATE, RESOLVED, RESULTS, "01-denoiser/metrics.jsonl", LOCK])
@pytest.mark.parametrize("kind", ["pipe", "folder", "nested"])
def test_something_else_in_place_of_a_file_of_a_run(genkit_, run, name, kind):
    path = run / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("[" * 100_000)
    expected = 0 if name == LOCK else DamagedError.exit_code
    assert genkit_("verify", run)[0] == expected
    assert genkit_("runs", run)[0] == 0
    assert genkit_("report", run, "--out", run.parent / "report.html")[0] == 0


@pytest.mark.parametrize("content", ["", "{}", None])
def test_the_results_of_a_run_are_those_of_its_stages(verify, run, content):
    path = run / RESULTS
    if content is None:
        results = json.loads(path.read_text())
        results["stages"]["scores"]["rows"][0]["nfe"] += 1
        content = json.dumps(results)
    path.write_text(content)
    assert verify(run)[1][str(path)] == "damaged"


@pytest.mark.parametrize("name", [STATE, RECIPE, RESOLVED, ENVIRONMENT])
def test_descriptions_of_a_run(verify, run, name):
    (run / name).write_text("{")
    code, found = verify(run)
    assert (code, found[str(run / name)]) == (DamagedError.exit_code, "damaged")
    assert found[str(run / "02-samples" / "samples.safetensors")] == "intact"


def test_replaced_stages(verify, run):
    (run / "replaced").mkdir()
    place = run / "replaced" / "001-02-samples"
    shutil.copytree(run / "02-samples", place)
    assert verify(run)[1][str(place / "samples.safetensors")] == "intact"
    flip(place / "samples.safetensors", -1)
    assert verify(run)[1][str(place / "samples.safetensors")] == "damaged"
    (place / STATE).write_text("{")  # genkit moves a stage with such a state there
    code, found = verify(run)
    assert (code, found[str(place / STATE)]) == (0, "unknown")


def test_a_file_that_is_being_written(verify, genkit_, run):
    path = run / "01-denoiser" / ".denoiser.safetensors.0a1b2c3d.tmp"
    path.write_bytes(b"half")
    code, found = verify(run)
    assert (code, found[str(path)]) == (0, "unknown")
    code, _, err = genkit_("verify", path)
    assert (code, "complete" in err) == (2, True)


def test_one_file(verify, genkit_, tmp_path):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    save(ours, {"x": torch.arange(9)}, {"a": "b"})
    save_file({"x": torch.arange(9)}, theirs)
    assert verify(ours) == (0, {str(ours): "intact"})
    assert verify(theirs) == (0, {str(theirs): "unknown"})
    flip(ours, -1)
    assert verify(ours) == (DamagedError.exit_code, {str(ours): "damaged"})
    (tmp_path / "x.json").write_text("{}")
    for wrong in (tmp_path, tmp_path / "nope", tmp_path / "x.json"):
        code, _, err = genkit_("verify", wrong)
        assert (code, "PATH must be" in err) == (2, True)
