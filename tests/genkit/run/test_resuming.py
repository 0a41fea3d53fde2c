"""Runs that are stopped and resumed, and finished runs whose files the user changes."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import pytest
import torch

import genkit.run.engine
from genkit.errors import (
    Code,
    DamagedError,
    InterruptedRun,
)
from genkit.latents import Derived
from genkit.tensors import save
from genkit_stages.sample import Sample
from raising import raises_code

pytestmark = pytest.mark.slow


# --- stopping and resuming -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "total", "files"), [("samples", 24, "part-cpu-*"), ("sweep", 4, "metrics.jsonl")]
)
def test_draws_of_another_device_are_not_continued(tiny, monkeypatch, stage, total, files):
    monkeypatch.setattr(Derived, "depends_on_device", True)
    asked = tiny.interrupting(lambda done, of: of == total and 0 < done < of)
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
    asked = tiny.interrupting(lambda done, of: of == total and 0 < done < of)
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
    asked = tiny.interrupting(lambda done, total: (done, total) == (16, 24))
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
    asked = tiny.interrupting(lambda done, total: (done, total) == (2, 4))
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


# --- what the user did to the folder ---------------------------------------------------------


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
