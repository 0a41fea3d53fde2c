"""Run folders as anything reads them, against runs of which parts are missing or changed."""

from __future__ import annotations

import json
import shutil

import filelock
import pytest

import genkit
from damage import change_state
from genkit.artifacts import DenoiserFile, Run, Samples, Scores
from genkit.artifacts.runs import Failure, is_run
from genkit.errors import Code, DataError, DivergedError, UsageError
from genkit.run.engine import stage_states
from genkit.run.folder import RunFolder
from raising import raises_code

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

SETTINGS = {
    "denoiser.images": 640,
    "denoiser.network.width": 8,
    "samples.count": 8,
    "scores.metrics": [{"use": "frechet"}],
}


FAILURE = {"stage": [], "message": 5, "code": {}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return genkit.run_recipe(
        "smoke", out=tmp_path_factory.mktemp("runs") / "smoke", settings=SETTINGS
    ).folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "smoke")


def states(folder):
    return {stage.id: stage.state for stage in Run.load(folder).stages.values()}


def unfinish(stage):
    change_state(stage / "state.json", finished=False, files={})


def test_a_finished_run_has_its_recipe_stages_and_scores(folder):
    run = Run.load(folder)
    assert (run.name, run.state) == ("smoke", "finished")
    assert list(run.stages) == ["denoiser", "samples", "scores"]
    assert run.stage("denoiser").settings["network"]["width"] == 8
    assert run.stage("denoiser").images == 640
    assert run.stage("samples").images is None
    results = json.loads((folder / "results.json").read_text())
    assert run.stage("scores").read(Scores).rows == results["stages"]["scores"]["rows"]
    assert [s.has(Samples) for s in run.stages.values()] == [False, True, False]


def test_a_failed_run_has_its_error_until_it_is_started_again(tmp_path):
    settings = {**SETTINGS, "denoiser.optimizer.learning_rate": 1e30}
    with raises_code(DivergedError, Code.DIVERGED) as raised:
        genkit.run_recipe("smoke", out=tmp_path / "smoke", settings=settings)
    run = Run.load(tmp_path / "smoke")
    assert run.failure == Failure("denoiser", str(raised.value), "diverged")
    assert str(run.failure).endswith(" [diverged]")
    genkit.run_recipe("smoke", out=tmp_path / "smoke", settings=SETTINGS)
    assert Run.load(tmp_path / "smoke").failure is None


def test_a_fault_that_is_no_mistake_of_a_user_is_recorded_too(tmp_path, monkeypatch):
    def broken(self, context):
        raise RuntimeError("no idea")

    monkeypatch.setattr("genkit_stages.train.Train.run", broken)
    with pytest.raises(RuntimeError):
        genkit.run_recipe("smoke", out=tmp_path / "smoke", settings=SETTINGS)
    failure = Run.load(tmp_path / "smoke").failure
    assert failure == Failure("denoiser", "RuntimeError: no idea")
    assert str(failure) == "RuntimeError: no idea"


@pytest.mark.parametrize("damaged", ["text", None, {"stage": "denoiser"}, {"text": "x"}, FAILURE])
def test_a_damaged_error_is_none(folder, damaged):
    (folder / "state.json").write_text(json.dumps({"name": "smoke", "failure": damaged}))
    assert Run.load(folder).failure is None


def test_reading_writes_nothing(folder):
    def files():  # old versions of filelock empty the lock, which is empty, once more
        return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock"}

    before = files()
    assert Run.load(folder).state == "finished"
    assert files() == before


def test_what_lies_behind_an_unfinished_stage_is_of_earlier_settings(folder):
    unfinish(folder / "02-samples")
    assert states(folder) == {
        "denoiser": "finished",
        "samples": "unfinished",
        "scores": "unfinished",
    }
    run = Run.load(folder)
    assert run.state == "unfinished"
    with raises_code(DataError, Code.NOT_FOUND, "scores", "unfinished"):
        run.stage("scores").read(Scores)


def test_a_stage_without_a_folder_has_not_begun(folder):
    shutil.rmtree(folder / "03-scores")
    run = Run.load(folder)
    assert (run.state, run.stage("scores").folder) == ("unfinished", None)


@pytest.mark.parametrize("change", ["gone", "cut"])
def test_a_finished_stage_with_other_files_is_damaged_and_no_other_is(folder, change):
    file = folder / "02-samples" / "samples.safetensors"
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    assert list(states(folder).values()) == ["finished", "damaged", "finished"]
    run = Run.load(folder)
    assert run.state == "damaged"
    assert str(file) in run.stage("samples").damage
    with raises_code(DataError, Code.NOT_FOUND, "samples", "damaged"):
        run.stage("samples").read(Samples)


def test_sizes_that_are_none_are_damage(folder):
    (folder / "03-scores" / "state.json").write_text('{"finished": true, "files": 3}')
    assert Run.load(folder).stage("scores").state == "damaged"


def test_a_run_is_running_while_its_lock_is_held(folder):
    with filelock.FileLock(folder / ".lock"):
        assert Run.load(folder).state == "running"
    assert Run.load(folder).state == "finished"


def test_a_look_at_a_run_keeps_no_other_out(folder):
    with RunFolder(folder, "smoke").locked():
        assert Run.load(folder).state == "running"
        with raises_code(UsageError, Code.IN_USE), RunFolder(folder, "smoke").locked():
            pass


def test_the_last_position_is_found_in_a_long_log_that_is_cut_off(folder):
    log = folder / "01-denoiser" / "metrics.jsonl"
    rows = "".join(f'{{"images": {k}, "loss": 1.0}}\n' for k in range(5000))
    log.write_text(rows + '{"pool": 3}\n{"images": 99')
    assert Run.load(folder).stage("denoiser").images == 4999
    log.write_text("")
    assert Run.load(folder).stage("denoiser").images is None


def test_a_stage_that_is_not_there_is_named_with_the_nearest(folder):
    with raises_code(UsageError, Code.UNKNOWN_STAGE, "sample", "samples"):
        Run.load(folder).stage("sample")
    with raises_code(DataError, Code.NOT_FOUND, "denoiser.safetensors"):
        Run.load(folder).stage("scores").read(DenoiserFile)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    assert not is_run(tmp_path)
    with raises_code(UsageError, Code.WRONG_KIND, tmp_path):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("resolved.toml", "name = "),
        ("resolved.toml", 'name = "smoke"'),
        ("resolved.toml", 'name = "smoke"\nstage = []'),
        ("resolved.toml", 'stage = [{ use = "train" }]'),
        ("resolved.toml", "stage = 3"),
        ("resolved.toml", None),
    ],
)
def test_a_run_without_recipe_or_state_is_damaged(folder, file, content):
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with raises_code(DataError, Code.UNREADABLE, folder / file) as raised:
        Run.load(folder)
    assert "Error" not in str(raised.value)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"name": 3}', None])
def test_a_run_with_a_damaged_state_has_the_name_of_its_recipe(folder, content):
    path = folder / "state.json"
    path.unlink() if content is None else path.write_text(content)
    assert Run.load(folder).name == "smoke"


def test_the_reader_and_the_engine_agree(folder):
    plugins, recipe = loaded(folder)
    assert stage_states(recipe, plugins, folder) == dict.fromkeys(states(folder), "finished")
    (folder / "02-samples" / "samples.safetensors").unlink()
    assert stage_states(recipe, plugins, folder)["samples"] == "resume"
    assert states(folder)["samples"] == "damaged"


def loaded(folder):
    from genkit.plugin.manager import load_plugins
    from genkit.recipe.recipe import load_recipe
    from genkit.recipe.source import read_source

    plugins = load_plugins()
    return plugins, load_recipe(read_source(folder / "resolved.toml"), plugins)
