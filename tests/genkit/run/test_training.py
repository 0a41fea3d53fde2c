"""The loop of the train stage: what it writes, when it stops, what it refuses."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import dataclass, fields, replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from genkit.errors import Code, DivergedError, InterruptedRun, RecipeError, UsageError
from genkit.interfaces import Augmentation, Denoiser
from genkit.parts.power_averages import snapshots_in
from genkit.recipe.source import parse_toml
from genkit.settings import toml_value
from genkit.tensors import load
from genkit.train.trainer import Trainer
from genkit.world import World
from genkit_edm.edm import EdmPreconditioner
from genkit_stages import train, training
from genkit_stages.train import Train
from raising import raises_code

pytestmark = pytest.mark.slow


@dataclass(frozen=True, kw_only=True)
class Told(Augmentation):
    """Tells the network that it did nothing."""

    @property
    def augment_labels(self):
        return 2

    def augment(self, batch, generator):
        return replace(batch, augment_labels=torch.zeros(len(batch), 2))


def stage(tiny, *overrides):
    return tiny.load(tiny.train, *overrides).stages["denoiser"]


def test_more_processes_than_images_are_refused_before_anything_else(tiny):
    context = SimpleNamespace(world=World(3, 65))
    with raises_code(UsageError, Code.USAGE, "batch_size", "64", "65"):
        stage(tiny).run(context)


def test_an_augmentation_that_the_denoiser_cannot_be_told_of_is_refused(tiny):
    (problem,) = replace(stage(tiny), augmentation=Told()).check({})
    assert problem.key == ("augmentation",)
    assert "takes augment_labels, got Mlp" in problem.reason
    assert problem.hint


def test_a_denoiser_that_takes_augment_labels_is_built_for_them(tiny):
    built = []

    @dataclass(frozen=True, kw_only=True)
    class Takes(Denoiser):
        takes_augment_labels = True

        def build_network(self, spec):
            built.append(spec.augment_labels)
            return torch.nn.Identity()

    takes = Takes(preconditioner=stage(tiny).network.preconditioner)
    told = replace(stage(tiny), network=takes, augmentation=Told())
    assert not list(told.check({}))
    assert built == [told.spec().augment_labels] == [2]
    assert stage(tiny).spec().augment_labels == 0


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ("[0.9]", (Code.OUT_OF_RANGE, "average.lengths.0", 0.9)),
        ("[0.1, 0.1]", (Code.DUPLICATE, "average.lengths.1", 0.1)),
    ],
)
def test_lengths_that_no_average_has_are_refused(tiny, lengths, told):
    with raises_code(RecipeError, *told):
        stage(tiny, f'denoiser.average={{ use = "power-ema", lengths = {lengths} }}')


GUESSED = ("lr", "adam_betas", "weight_decay", "ema_rampup")  # keys of other projects


@pytest.mark.parametrize("old", [*GUESSED, *(key for key in Train.renamed if key not in GUESSED)])
def test_the_error_for_an_old_key_names_a_new_one_that_is_a_setting(tiny, old):
    new = Train.renamed[old]
    with raises_code(RecipeError, Code.RENAMED_KEY, f"denoiser.{old}") as error:
        stage(tiny, f"denoiser.{old}=1")
    (slot, table), *_ = parse_toml(new.replace("...", "1"), "").items()
    assert f"denoiser.{slot}=" in str(error.value)
    if not isinstance(table, dict):  # a setting of the stage
        assert slot in {f.name for f in fields(Train)}
        return
    (key,) = table.keys() - {"use"}
    entry = tiny.plugins.registry.find([slot], table["use"])
    assert key in {f.name for f in fields(tiny.plugins.registry.load(entry))}


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"use": "adam", "learning_rate_ramp": 9, "learning_rate_decay": 8}, "learning_rate_decay"),
        ({"use": "adamw", "weight_decay": 20, "learning_rate": 0.1}, "weight_decay"),
    ],
)
def test_an_optimizer_checks_its_settings_together(tiny, table, key):
    with raises_code(RecipeError, Code.CONFLICT, f"denoiser.optimizer.{key}"):
        stage(tiny, f"denoiser.optimizer={toml_value(table)}")


def test_snapshots_of_averages_are_written_on_the_way_and_at_the_end(tiny):
    average = 'denoiser.average={ use = "power-ema", snapshot_images = 100 }'
    tiny.run(tiny.train, average, "denoiser.images=288")
    found = [(s.images, s.length) for s in snapshots_in(tiny.folder / "01-denoiser")]
    # Batches of 64: 128 is the first past 100, 256 that past 200, and 288 the end.
    assert found == [(n, length) for n in (128, 256, 288) for length in (0.05, 0.1)]


def test_a_stopped_run_goes_on_with_its_averages(tiny, tmp_path):
    def stop(done, total):
        if done == 128:
            os.kill(os.getpid(), signal.SIGINT)

    settings = ('denoiser.average={ use = "power-ema", lengths = [0.1] }',)
    with pytest.raises(InterruptedRun):
        tiny.run(tiny.train, *settings, progress=tiny.recorder(stop))
    tiny.run(tiny.train, *settings)
    tiny.run(tiny.train, *settings, folder=tmp_path / "whole")
    name = "ema-0.1-00000000256.safetensors"
    assert tiny.bytes_of(name) == tiny.bytes_of(name, tmp_path / "whole")


def test_a_first_loss_that_is_not_finite_is_not_the_fault_of_the_learning_rate(tiny, monkeypatch):
    monkeypatch.setattr(EdmPreconditioner, "weight", lambda self, sigma: sigma * math.inf)
    with pytest.raises(DivergedError) as told:
        tiny.run(tiny.train)
    assert "at 0 images" in str(told.value)
    assert "learning_rate" not in str(told.value)


def test_training_that_diverges_says_where_and_what_to_try(tiny):
    settings = ("denoiser.optimizer.learning_rate=1e30", "denoiser.checkpoint_seconds=0")
    with pytest.raises(DivergedError) as told:
        tiny.run(tiny.train, *settings)
    assert "images: the last good checkpoint is kept; " in str(told.value)
    assert "optimizer.learning_rate below 1e+30" in str(told.value)
    tensors, _ = load(tiny.folder / "01-denoiser" / "checkpoint.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_rows_hold_the_mean_loss_of_their_steps(tiny, monkeypatch):
    losses = []
    step = Trainer.step

    def noted(self, batch, noise):
        losses.append(float(step(self, batch, noise)))

    monkeypatch.setattr(Trainer, "step", noted)
    monkeypatch.setattr("genkit_stages.training._READ_SECONDS", 0.0)
    settings = ("denoiser.images=20000", "denoiser.batch_size=50", "denoiser.pool_size=20000")
    tiny.run(tiny.train, *settings)
    rows = [row for row in tiny.metrics() if "loss" in row]
    assert len(losses) == 400
    assert [row["images"] for row in rows[:2]] == [100, 200]
    for index, row in enumerate(rows):
        expected = sum(losses[2 * index : 2 * index + 2]) / 2
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_read_rarely(tiny, monkeypatch):
    read = []
    mean_loss = Trainer.mean_loss

    def noted(self):
        read.append(self.steps)
        return mean_loss(self)

    monkeypatch.setattr(Trainer, "mean_loss", noted)
    monkeypatch.setattr("genkit_stages.training._READ_SECONDS", 1e9)
    settings = ("denoiser.images=6400", "denoiser.batch_size=16", "denoiser.pool_size=6400")
    tiny.run(tiny.train, *settings)
    assert read == list(range(2, 401, 2))  # a row every 200th of the way


def test_tf32_trains_on_a_cpu_as_float32_does(tiny, tmp_path):
    other = tmp_path / "tf32"
    tiny.run(tiny.train)
    tiny.run(tiny.train, 'denoiser.precision="tf32"', folder=other)
    one, two = (tiny.bytes_of("denoiser.safetensors", f) for f in (tiny.folder, other))
    assert one == two


def test_the_loss_is_drawn_while_a_training_runs(tiny, monkeypatch):
    monkeypatch.setattr(training, "_FIRST_PLOTS", 0.0)
    pictures = []

    def at_advance(done, total):
        drawn = list(tiny.folder.glob("01-denoiser/loss.png"))
        pictures.append((done < total, bool(drawn)))

    _, _ = tiny.run(tiny.train, "denoiser.checkpoint_seconds=0", progress=tiny.recorder(at_advance))
    assert (True, True) in pictures


def test_drawing_takes_a_hundredth_of_the_time_of_a_training(tiny, monkeypatch):
    """A drawing that takes two seconds is not repeated within 200, except at the end."""
    monkeypatch.setattr(training, "_FIRST_PLOTS", 0.0)
    monkeypatch.setattr(training.Loop, "_draw", lambda loop, final=False: drawn.append(loop) or 2.0)
    drawn = []
    tiny.run(tiny.train, "denoiser.checkpoint_seconds=0")
    assert len(drawn) == 2


@pytest.mark.parametrize(("error", "log_is_named"), [(ZeroDivisionError, False), (KeyError, True)])
def test_a_plot_that_cannot_be_drawn_is_a_warning(tiny, monkeypatch, error, log_is_named):
    """Within a training and at its end, where the trained network is still to be saved."""

    def fail(*arguments):
        calls.append(arguments)
        raise error

    calls, warnings = [], []
    monkeypatch.setattr(training, "_FIRST_PLOTS", 0.0)
    monkeypatch.setattr(train, "draw_training", fail)
    recorder = tiny.recorder()
    recorder.warn = warnings.append
    tiny.run(tiny.train, "denoiser.checkpoint_seconds=0", progress=recorder)
    assert len(calls) > 1
    named = [warning for warning in warnings if error.__name__ in warning]
    assert named
    assert ("metrics.jsonl may be damaged" in named[0]) is log_is_named


def test_all_ranks_know_the_seconds_of_a_drawing(monkeypatch):
    """Rank 1 draws nothing, and decides by the clock of rank 0."""
    times = iter([10.0, 13.0])
    world = SimpleNamespace(is_main=False, broadcast=lambda _: next(times))
    loop = SimpleNamespace(context=SimpleNamespace(world=world))
    loop._clock = partial(training.Loop._clock, loop)
    assert training.Loop._draw(loop) == 3.0
