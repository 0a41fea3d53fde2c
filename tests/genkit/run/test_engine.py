"""The engine: what runs, what is skipped, what is written, and what is said when it stops."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import filelock
import pytest
import torch

from genkit.errors import (
    Code,
    DataError,
    DivergedError,
    InterruptedRun,
    RecipeError,
    UsageError,
)
from genkit.machine import resolve_device
from genkit.recipe.encode import resolved
from genkit.run.engine import stage_states
from genkit.tensors import load
from genkit.world import World
from genkit_stages.train import Train
from raising import raises_code

pytestmark = pytest.mark.slow


# --- what is redone --------------------------------------------------------------------------


def test_stage_states_are_skipped(tiny):
    first, found = tiny.run(tiny.sample)
    assert first.ran == ["denoiser", "samples"]
    before = tiny.bytes_of("samples.safetensors")
    second, again = tiny.run(tiny.sample)
    assert (second.ran, second.skipped) == ([], ["denoiser", "samples"])
    assert again == found
    assert tiny.bytes_of("samples.safetensors") == before


def test_a_changed_setting_redoes_the_stage_and_everything_below(tiny):
    tiny.run(tiny.sample)
    before = tiny.bytes_of("denoiser.safetensors")
    noted, _ = tiny.run(tiny.sample, "denoiser.images=128")
    assert noted.ran == ["denoiser", "samples"]
    assert tiny.bytes_of("denoiser.safetensors") != before
    replaced = sorted(p.name for p in (tiny.folder / "replaced").iterdir())
    assert replaced == ["001-01-denoiser", "002-02-samples"]
    old = tiny.folder / "replaced" / "001-01-denoiser" / "denoiser.safetensors"
    assert old.read_bytes() == before


def test_a_changed_stage_leaves_what_is_above_and_beside(tiny):
    tiny.run(tiny.sample)
    noted, _ = tiny.run(tiny.sample, "samples.schedule.steps=2")
    assert (noted.skipped, noted.ran) == (["denoiser"], ["samples"])


def test_a_setting_without_effect_on_the_result_redoes_nothing(tiny):
    tiny.run(tiny.train)
    noted, _ = tiny.run(tiny.train, "denoiser.checkpoint_seconds=0.5")
    assert noted.skipped == ["denoiser"]


def test_a_default_that_is_written_out_redoes_nothing(tiny):
    tiny.run(tiny.train)
    noted, _ = tiny.run(tiny.train, "denoiser.optimizer.learning_rate=0.001", "seed=0")
    assert noted.skipped == ["denoiser"]


def test_an_inserted_stage_renumbers_the_others_without_redoing_them(tiny):
    tiny.run(tiny.sample)
    head, marker, sampling = tiny.sample.rpartition("\n[[stage]]")
    more = sampling.replace('"samples"', '"more"').replace("count = 24", "count = 2")
    noted, _ = tiny.run(head + marker + more + marker + sampling)
    assert noted.ran == ["more"]
    assert sorted(p.name for p in tiny.folder.glob("[0-9]*")) == [
        "01-denoiser",
        "02-more",
        "03-samples",
    ]


def test_an_unfinished_stage_goes_on_with_other_settings_only_anew(tiny):
    with pytest.raises(InterruptedRun):
        tiny.run(tiny.train, "denoiser.batch_size=16", progress=tiny.interrupting())
    tiny.run(tiny.train)
    alone = tiny.folder.with_name("alone")
    tiny.run(tiny.train, folder=alone)
    assert tiny.bytes_of("denoiser.safetensors") == tiny.bytes_of("denoiser.safetensors", alone)


def test_what_a_run_would_skip_is_known_beforehand(tiny):
    def states(*changes):
        return list(
            stage_states(tiny.load(tiny.sample, *changes), tiny.plugins, tiny.folder).values()
        )

    assert states() == ["new", "new"]
    assert not tiny.folder.exists()
    with pytest.raises(InterruptedRun):
        tiny.run(tiny.sample, progress=tiny.interrupting())
    assert states() == ["resume", "new"]
    assert states("denoiser.images=128") == ["changed", "new"]
    tiny.run(tiny.sample)
    assert states() == ["finished", "finished"]
    assert states("samples.count=5") == ["finished", "changed"]
    tiny.run(tiny.sample, "samples.count=5")
    assert states() == ["finished", "restored"]


def test_other_data_behind_the_same_settings_redoes_the_stage(tiny, monkeypatch):
    from genkit_data.points import Moons

    tiny.run(tiny.train)
    monkeypatch.setattr(Moons, "version", lambda self: "other")
    assert tiny.run(tiny.train)[0].ran == ["denoiser"]


# --- what is written -------------------------------------------------------------------------


def test_the_run_folder(tiny, plugins):
    _, results = tiny.run(tiny.sweep, "seed=3")
    folder = tiny.folder
    assert (folder / "recipe.toml").read_text() == tiny.sweep
    text = (folder / "resolved.toml").read_text()
    again = tiny.load(text)
    assert again == tiny.load(tiny.sweep, "seed=3")
    assert resolved(again, plugins.registry)["stage"][0]["optimizer"]["learning_rate"] == 1e-3
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["set"] == ["seed=3"]
    assert environment["device"] == "cpu"
    assert environment["packages"]["torch"] == version("torch")
    assert environment["command"] == sys.argv
    assert any(plugin.startswith("plugin edm") for plugin in environment["plugins"])
    assert json.loads((folder / "results.json").read_text()) == results
    assert results["name"] == "tiny"
    assert {"01-denoiser/loss.png", "02-samples/samples.png"} < set(results["pictures"])
    assert all((folder / picture).is_file() for picture in results["pictures"])
    rows = results["stages"]["sweep"]["rows"]
    assert [(r["schedule.steps"], r["schedule.rho"], r["nfe"]) for r in rows] == [
        (2, 7.0, 3),
        (2, 20.0, 3),
        (3, 7.0, 5),
        (3, 20.0, 5),
    ]
    named, _ = load(folder / "02-samples" / "samples.safetensors")
    assert named["samples"].shape == (24, 2)
    assert named["samples"].dtype == torch.float32
    assert not list(folder.glob("02-samples/part-*"))


def test_pictures_have_their_run_stage_and_seed(tiny, monkeypatch):
    captions = []
    monkeypatch.setattr(
        "genkit.artifacts.record.captioned", lambda png, text: captions.append(text) or png
    )
    tiny.run(tiny.sample, "seed=3")
    assert "loss: run tiny, stage denoiser, seed 3" in captions
    assert "samples: run tiny, stage samples, seed 3" in captions


def test_the_training_log_ends_with_the_last_image(tiny):
    tiny.run(tiny.train)
    rows = [row for row in tiny.metrics() if "loss" in row]
    assert [row["images"] for row in rows] == [64, 128, 192, 256]
    assert all(row["loss"] > 0 and row["images_per_second"] > 0 for row in rows)


def test_samples_do_not_depend_on_how_many_are_drawn(tiny):
    tiny.run(tiny.sample)
    first, _ = load(tiny.folder / "02-samples" / "samples.safetensors")
    tiny.run(tiny.sample, "samples.count=16")
    fewer, _ = load(tiny.folder / "02-samples" / "samples.safetensors")
    assert torch.equal(fewer["samples"], first["samples"][:16])


# --- what is refused -------------------------------------------------------------------------


def test_another_recipes_folder_is_refused(tiny):
    tiny.run(tiny.train)
    with raises_code(UsageError, Code.OCCUPIED, '"tiny"'):
        tiny.run(tiny.train, 'name="other"')


def test_a_foreign_folder_is_refused_and_left_alone(tiny):
    tiny.folder.mkdir()
    (tiny.folder / "thesis.tex").write_text("years of work")
    with raises_code(UsageError, Code.OCCUPIED, tiny.folder):
        tiny.run(tiny.train)
    assert [p.name for p in tiny.folder.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_refused(tiny):
    tiny.folder.write_text("")
    with raises_code(UsageError, Code.OCCUPIED, tiny.folder):
        tiny.run(tiny.train)


def test_two_runs_in_one_folder_are_refused(tiny):
    tiny.folder.mkdir()
    with (
        filelock.FileLock(tiny.folder / ".lock"),
        raises_code(UsageError, Code.IN_USE, tiny.folder),
    ):
        tiny.run(tiny.train)
    tiny.run(tiny.train)  # the lock is free again, and the folder is a run's own


@pytest.mark.parametrize(
    ("place", "code"),
    [("/proc/genkit", Code.USAGE), ("a-file/run", Code.USAGE), ("x" * 300, Code.IO_ERROR)],
)
def test_a_place_that_cannot_be_written_is_refused(tiny, tmp_path, place, code):
    (tmp_path / "a-file").write_text("")
    with raises_code(UsageError, code, tmp_path / place):
        tiny.run(tiny.train, folder=tmp_path / place)


@pytest.mark.parametrize("device", ["cuda:77", "mps", "nonsense", "meta"])
def test_a_device_that_is_absent_is_refused_before_anything_is_written(tiny, device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    with raises_code(UsageError, Code.NO_DEVICE, f'"{device}"'):
        tiny.run(tiny.train, device=device)
    assert not tiny.folder.exists()


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_of_a_machine_has_a_gpu_of_its_own(two_gpus, name):
    found = [resolve_device(name, World(rank, 4, rank % 2)) for rank in range(4)]
    assert [str(device) for device in found] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert resolve_device("cpu", World(3, 4, 3)) == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "world", "message"),
    [
        ("cuda", World(2, 3, 2), ("local rank 2", "--nproc-per-node=2")),
        ("auto", World(2, 3, 2), ("local rank 2", "--nproc-per-node=2")),
        ("cuda:1", World(0, 2, 0), ("2 processes", '"cuda:1"')),
    ],
)
def test_processes_that_would_share_a_gpu_are_refused(two_gpus, name, world, message):
    with raises_code(UsageError, Code.NO_DEVICE, *message):
        resolve_device(name, world)


def test_the_device_of_the_call_goes_before_the_recipes(tiny):
    with raises_code(UsageError, Code.NO_DEVICE, '"cuda:77"'):
        tiny.run(tiny.train, 'device="cuda:77"', device=None)
    tiny.run(tiny.train, 'device="cuda:77"', device="cpu")


def test_samples_of_another_shape_are_refused_before_training(tiny):
    text = tiny.sample + (
        '\n[[stage]]\nid = "scores"\nuse = "evaluate"\nsamples = "samples"\n'
        'data = { use = "digits" }\nmetrics = [{ use = "frechet" }]\n'
    )
    with raises_code(RecipeError, Code.CONFLICT, "scores.data", "(1, 8, 8)"):
        tiny.load(text)


def test_a_typo_hides_no_other_mistake_of_its_stage(tiny):
    with pytest.raises(RecipeError) as caught:
        tiny.load(tiny.train, "denoiser.micro_batch=-5", "denoiser.imges=3")
    assert len(caught.value.lines) == 2


def test_a_near_match_is_found_where_the_stage_itself_has_a_mistake(tiny):
    with raises_code(RecipeError, Code.UNKNOWN_STAGE, "sweep.samples", '"samples"'):
        tiny.load(tiny.sweep, "samples.count=-1", 'sweep.samples="sample"')


# --- what goes wrong on the way --------------------------------------------------------------


def test_an_error_names_its_stage_and_keeps_what_is_finished(tiny, monkeypatch):
    def fail(self, *arguments):
        raise DataError("the images are gone")

    with monkeypatch.context() as patched:
        patched.setattr("genkit_stages.sample.Sample._draw", fail)
        with raises_code(DataError, Code.DATA, "stage samples"):
            tiny.run(tiny.sample)
    noted, _ = tiny.run(tiny.sample)
    assert (noted.skipped, noted.ran) == (["denoiser"], ["samples"])


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(tiny):
    settings = ("denoiser.optimizer.learning_rate=1e30", "denoiser.checkpoint_seconds=0")
    with raises_code(DivergedError, Code.DIVERGED, "stage denoiser", "optimizer.learning_rate"):
        tiny.run(tiny.train, *settings)
    kept, _ = load(tiny.folder / "01-denoiser" / "checkpoint.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())
    assert not list(tiny.folder.rglob("denoiser.safetensors"))


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (
            OSError(28, "No space left on device", "x"),
            (Code.IO_ERROR, "x: No space left on device"),
        ),
        (MemoryError(), (Code.OUT_OF_MEMORY,)),
        (torch.OutOfMemoryError("CUDA"), (Code.OUT_OF_MEMORY,)),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), (Code.OUT_OF_MEMORY,)),
    ],
)
def test_a_full_disk_and_a_full_memory_are_told_in_words(tiny, monkeypatch, raised, message):
    def run(self, context):
        raise raised

    monkeypatch.setattr(Train, "run", run)
    with raises_code(UsageError, message[0], "stage denoiser", *message[1:]):
        tiny.run(tiny.train)


def test_other_faults_of_a_stage_keep_their_traceback(tiny, monkeypatch):
    def run(self, context):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Train, "run", run)
    with pytest.raises(RuntimeError, match="a bug"):
        tiny.run(tiny.train)
