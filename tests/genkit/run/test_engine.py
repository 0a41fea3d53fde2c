"""The engine: what runs, what is skipped, what is written, and what is said when it stops."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from contextlib import contextmanager
from importlib.metadata import version

import filelock
import numpy as np
import pytest
import torch

import genkit.run.engine
from genkit.errors import (
    Code,
    DamagedError,
    DataError,
    DivergedError,
    InterruptedRun,
    RecipeError,
    UsageError,
)
from genkit.latents import Derived
from genkit.machine import resolve_device
from genkit.recipe.encode import resolved
from genkit.run.engine import stage_states
from genkit.tensors import load, save
from genkit.types import Curve, Measurement
from genkit.world import World
from genkit_stages.sample import Sample
from genkit_stages.train import Train
from raising import raises_code

pytestmark = pytest.mark.slow

# --- what is redone -------------------------------------------------------------------------


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
        tiny.run(tiny.train, "denoiser.batch_size=16", progress=interrupting(tiny))
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
        tiny.run(tiny.sample, progress=interrupting(tiny))
    assert states() == ["resume", "new"]
    assert states("denoiser.images=128") == ["changed", "new"]
    tiny.run(tiny.sample)
    assert states() == ["finished", "finished"]
    assert states("samples.count=5") == ["finished", "changed"]
    tiny.run(tiny.sample, "samples.count=5")
    assert states() == ["finished", "restored"]


# --- what is written ------------------------------------------------------------------------


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


# --- what is refused ------------------------------------------------------------------------


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


# --- what goes wrong on the way -------------------------------------------------------------


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


# --- stopping and going on ------------------------------------------------------------------


def interrupting(tiny, when=lambda done, total: 0 < done < total):
    """Return a progress that sends SIGINT to this process once, as Ctrl-C does."""
    sent = []

    def at_advance(done, total):
        if when(done, total) and not sent:
            sent.append(done)
            os.kill(os.getpid(), signal.SIGINT)

    return tiny.recorder(at_advance)


@pytest.mark.parametrize(
    ("stage", "total", "files"), [("samples", 24, "part-cpu-*"), ("sweep", 4, "metrics.jsonl")]
)
def test_draws_of_another_device_are_not_continued(tiny, monkeypatch, stage, total, files):
    monkeypatch.setattr(Derived, "depends_on_device", True)
    asked = interrupting(tiny, lambda done, of: of == total and 0 < done < of)
    with raises_code(InterruptedRun, Code.INTERRUPTED, f"stage {stage}"):
        tiny.run(tiny.sweep, progress=asked)
    left = list(tiny.folder.glob(f"*-{stage}/{files}"))
    for path in left:
        if path.suffix == ".jsonl":
            path.write_text(path.read_text().replace('"cpu"', '"cuda"'))
        path.rename(path.with_name(path.name.replace("cpu", "cuda")))
    reached = []
    progress = tiny.recorder(lambda done, of: of == total and reached.append(done))
    tiny.run(tiny.sweep, progress=progress)
    assert left
    assert min(reached) == 0  # from the beginning
    assert not list(tiny.folder.glob(f"*-{stage}/part-*"))


@pytest.fixture
def uninterrupted(tiny):
    folder = tiny.folder.with_name("uninterrupted")
    tiny.run(tiny.sample, folder=folder)
    return folder


@pytest.mark.parametrize(("stage", "total"), [("denoiser", 256), ("samples", 24)])
def test_an_interrupt_saves_and_the_run_goes_on_to_the_same_bytes(
    tiny, uninterrupted, stage, total
):
    asked = interrupting(tiny, lambda done, of: of == total and 0 < done < of)
    with raises_code(InterruptedRun, Code.INTERRUPTED, f"stage {stage}", total):
        tiny.run(tiny.sample, progress=asked)
    assert asked.ran[-1] == stage
    reached = []
    tiny.run(tiny.sample, progress=tiny.recorder(lambda done, of: reached.append((done, of))))
    first = next(done for done, of in reached if of == total)
    assert first > 0  # it went on rather than began again
    for name in ("denoiser.safetensors", "samples.safetensors"):
        assert tiny.bytes_of(name) == tiny.bytes_of(name, uninterrupted)


def test_samples_that_are_drawn_are_not_drawn_again(tiny, monkeypatch):
    asked = interrupting(tiny, lambda done, total: (done, total) == (16, 24))
    with pytest.raises(InterruptedRun):
        tiny.run(tiny.sample, progress=asked)
    drawn = []
    real = Sample._draw

    def draw(self, context, seeds, *arguments):
        drawn.append(seeds)
        return real(self, context, seeds, *arguments)

    monkeypatch.setattr(Sample, "_draw", draw)
    tiny.run(tiny.sample)
    assert drawn == [range(1), range(16, 24)]  # the first one to count its arithmetic


def test_a_sweep_goes_on_cell_by_cell(tiny):
    asked = interrupting(tiny, lambda done, total: (done, total) == (2, 4))
    with raises_code(InterruptedRun, Code.INTERRUPTED, "stage sweep", "2", "4"):
        tiny.run(tiny.sweep, progress=asked)
    cells = tiny.folder / "03-sweep" / "metrics.jsonl"
    kept = cells.read_text()
    cells.write_text(kept + '{"row": {"sched')  # a kill cut the third one off
    reached = []
    tiny.run(tiny.sweep, progress=tiny.recorder(lambda done, _: reached.append(done)))
    assert reached == [2, 3, 4]
    assert cells.read_text().startswith(kept)
    alone = tiny.folder.with_name("alone")
    tiny.run(tiny.sweep, folder=alone)
    assert tiny.bytes_of("scores.json") == tiny.bytes_of("scores.json", alone)


def test_a_stop_between_stages_begins_no_other(tiny, monkeypatch):
    @contextmanager
    def stopped(world):
        yield lambda: True

    monkeypatch.setattr(genkit.run.engine, "stop_on_signal", stopped)
    with raises_code(InterruptedRun, Code.INTERRUPTED, "stage denoiser"):
        tiny.run(tiny.train)


def test_training_goes_on_from_a_kill_after_its_last_checkpoint(tiny, monkeypatch):
    """All images are trained, and only the network's own file is missing."""

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("genkit.artifacts.DenoiserFile.save", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny.run(tiny.train)
    tiny.run(tiny.train)
    alone = tiny.folder.with_name("alone")
    tiny.run(tiny.train, folder=alone)
    assert tiny.bytes_of("denoiser.safetensors") == tiny.bytes_of("denoiser.safetensors", alone)


# --- scores ---------------------------------------------------------------------------------

SCORES = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "curvature", count = 4 }]
"""


def test_two_scores_of_one_name_are_refused(tiny):
    metric = '{ use = "curvature", count = 4 }'
    other = '{ use = "curvature", count = 5 }'  # another metric, with a score of the same name
    text = tiny.sample + SCORES.replace(metric, f"{metric}, {other}")
    with raises_code(RecipeError, Code.DUPLICATE, "scores.metrics.1"):
        tiny.load(text)


def test_scores_that_were_not_declared_are_refused(tiny, monkeypatch):
    monkeypatch.setattr("genkit_metrics.curvature.Curvature.scores", ())
    with raises_code(DataError, Code.INVALID_RESULT, "stage scores", "curvature"):
        tiny.run(tiny.sample + SCORES)


NAMED = "stage scores", 'metric "curvature"', "genkit-diffusion"


@pytest.mark.parametrize("argument", ["samples", "reference"])
def test_a_metric_that_changes_what_later_metrics_see_is_refused(tiny, monkeypatch, argument):
    def measure(self, subject, context):
        getattr(subject, argument).data[:2].mul_(2)  # a view
        return Measurement({"curvature": 1.0})

    monkeypatch.setattr("genkit_metrics.curvature.Curvature.measure", measure)
    with raises_code(DataError, Code.CHANGED, *NAMED, argument):
        tiny.run(tiny.sample + SCORES)


def measuring(monkeypatch, found):
    monkeypatch.setattr("genkit_metrics.curvature.Curvature.measure", lambda *arguments: found)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, ("Measurement", None)),
        (Measurement(1.0), ("Measurement",)),
        (Measurement({"curvature": float("nan")}), ('score "curvature"', "nan")),
        (Measurement({"curvature": float("inf")}), ('score "curvature"', "inf")),
        (Measurement({"curvature": None}), ('score "curvature"', None)),
        (Measurement({"curvature": torch.ones(2)}), ('score "curvature"',)),
        (Measurement({"curvature": 1.0}, facts={"n": torch.ones(1)}), ("facts",)),
        (Measurement({"other": 1.0}), ("curvature", "other")),
        (
            Measurement({"curvature": 1.0}, {"c": Curve((1.0,), (1.0, 2.0), "x", "y")}),
            ('curve "c"',),
        ),
        (
            Measurement({"curvature": 1.0}, {"c": Curve((1.0,), (math.nan,), "x", "y")}),
            ("curves",),
        ),
    ],
)
def test_an_invalid_result_of_a_metric_is_refused(tiny, monkeypatch, found, reason):
    measuring(monkeypatch, found)
    code = Code.NOT_FINITE if {"nan", "inf"} & set(reason) else Code.INVALID_RESULT
    with raises_code(DataError, code, *NAMED, *reason):
        tiny.run(tiny.sample + SCORES)
    assert not list(tiny.folder.rglob("scores.json"))


@pytest.mark.parametrize("one", [np.float32(1), torch.ones(()), 1])
def test_a_score_becomes_a_float(tiny, monkeypatch, one):
    measuring(monkeypatch, Measurement({"curvature": one}))
    tiny.run(tiny.sample + SCORES)
    (row,) = json.loads(tiny.bytes_of("scores.json"))["rows"]
    assert isinstance(row["curvature"], float)


# --- what the user did to the folder --------------------------------------------------------


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_a_finished_stage_that_lost_a_file_is_made_again(tiny, damage):
    tiny.run(tiny.sample)
    before = tiny.bytes_of("samples.safetensors")
    (path,) = tiny.folder.glob("*/samples.safetensors")
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(before[:100])
    noted, _ = tiny.run(tiny.sample)
    assert (noted.skipped, noted.ran) == (["denoiser"], ["samples"])
    assert tiny.bytes_of("samples.safetensors") == before


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "metrics.jsonl"])
def test_a_checkpoint_or_a_log_may_be_deleted_when_its_stage_is_finished(tiny, name):
    tiny.run(tiny.train)
    (path,) = tiny.folder.glob(f"*/{name}")
    path.unlink()
    assert tiny.run(tiny.train)[0].skipped == ["denoiser"]


def test_a_log_that_grows_is_no_other_result(tiny):
    tiny.run(tiny.train)
    (log,) = tiny.folder.glob("*/metrics.jsonl")
    log.write_text(log.read_text() + '{"note": "looked at"}\n')
    assert tiny.run(tiny.train)[0].skipped == ["denoiser"]


def test_settings_that_come_back_bring_their_results_back(tiny):
    tiny.run(tiny.train)
    before = tiny.bytes_of("denoiser.safetensors")
    tiny.run(tiny.train, "denoiser.images=128")
    noted, _ = tiny.run(tiny.train)
    assert noted.skipped == ["denoiser"]
    assert tiny.bytes_of("denoiser.safetensors") == before


def test_setting_a_stage_aside_is_told(tiny):
    tiny.run(tiny.train)
    told = []
    progress = tiny.recorder()
    progress.note = told.append
    tiny.run(tiny.train, "denoiser.images=128", progress=progress)
    assert told == ["denoiser: settings or code changed; the earlier result is kept in replaced/"]


def test_showing_finished_results_writes_nothing_down(tiny):
    tiny.run(tiny.train)
    path = tiny.folder / "environment.json"
    path.write_text("as it was")
    tiny.run(tiny.train, "denoiser.checkpoint_seconds=1.0")
    assert path.read_text() == "as it was"


@pytest.mark.parametrize("content", [b"cut", None])
def test_a_damaged_checkpoint_says_what_to_delete(tiny, content):
    def stop(done, total):
        if done == 64:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRun):
        tiny.run(tiny.train, progress=tiny.recorder(stop))
    (path,) = tiny.folder.glob("*/checkpoint.safetensors")
    if content is None:
        save(path, {"x": torch.ones(1)}, {})
    else:
        path.write_bytes(content)
    with raises_code(DamagedError, Code.UNREADABLE, "checkpoint.safetensors"):
        tiny.run(tiny.train)


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


@pytest.mark.parametrize(
    ("first", "told"), [(True, "0 of 8 trajectories"), (False, "1 of 2 metrics")]
)
def test_a_stop_is_heard_inside_a_metric_and_between_two(tiny, monkeypatch, first, told):
    metrics = ", ".join(
        f'{{ use = "{name}", count = 8, {more}schedule = {{ use = "edm", steps = 4 }} }}'
        for name, more in (("curvature", ""), ("truncation", "steps = [2], "))
    )
    text = tiny.sample + (
        '\n[[stage]]\nid = "scores"\nuse = "evaluate"\nsamples = "samples"\n'
        f"metrics = [{metrics}]\n"
    )
    from genkit_metrics.curvature import Curvature

    measured = Curvature.measure

    def measure(self, subject, context):
        if first:
            os.kill(os.getpid(), signal.SIGINT)
        found = measured(self, subject, context)
        os.kill(os.getpid(), signal.SIGINT)
        return found

    monkeypatch.setattr(Curvature, "measure", measure)
    with raises_code(InterruptedRun, Code.INTERRUPTED, "stage scores", told):
        tiny.run(text)


def test_other_data_behind_the_same_settings_redoes_the_stage(tiny, monkeypatch):
    from genkit_data.points import Moons

    tiny.run(tiny.train)
    monkeypatch.setattr(Moons, "version", lambda self: "other")
    assert tiny.run(tiny.train)[0].ran == ["denoiser"]


def test_a_row_of_another_program_does_not_end_a_resume(tiny):
    def stop(done, total):
        if done == 64:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRun):
        tiny.run(tiny.train, progress=tiny.recorder(stop))
    (path,) = tiny.folder.glob("*/metrics.jsonl")
    path.write_text(path.read_text() + '{"a": 1}\n')
    assert tiny.run(tiny.train)[0].ran == ["denoiser"]
    assert '"a"' not in path.read_text()
