"""Functions of a script that observe training runs."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch

import genkit
from genkit.artifacts import Run
from genkit.artifacts.layout import CHECKPOINT
from genkit.errors import Code, DataError, InterruptedRun, UsageError
from genkit.types import Measurement
from raising import raises_code

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

RECIPE = {
    "name": "watched",
    "data": {"use": "moons", "items": 200},
    "stage": [
        {
            "id": "denoiser",
            "use": "train",
            "images": 320,
            "batch_size": 64,
            "network": {"use": "mlp", "width": 8, "dropout": 0.2},
            "objective": "denoising",
            "coupler": "hungarian",
        },
        {"id": "samples", "use": "sample", "denoiser": "denoiser", "count": 4},
    ],
}
FILES = ("01-denoiser/denoiser.safetensors", "02-samples/samples.safetensors")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without functions."""
    folder = tmp_path_factory.mktemp("functions") / "plain"
    return genkit.run_recipe(RECIPE, out=folder, device="cpu").folder


@pytest.fixture
def run(tmp_path):
    """Run the recipe with functions."""

    def run(*functions, images=128):
        return genkit.run_recipe(
            RECIPE,
            out=tmp_path / "run",
            device="cpu",
            callbacks=functions,
            callback_images=images and np.int64(images),
        ).folder

    return run


def rows(folder):
    lines = (folder / "01-denoiser" / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "callback" in row]


def test_a_function_observes_the_training_and_changes_no_bit(run, plain):
    seen = []

    def show(training):
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002
        samples = genkit.Denoiser(training.averaged).sample(3, schedule={"steps": 2})
        training.network.module.requires_grad_(True).train()
        seen.append((training.images, training.total, training.network.stage, len(samples)))

    folder = run(show)
    ends = [(images, 320, "denoiser", 3) for images in (128, 256, 320)]
    assert seen == ends
    assert rows(folder) == []
    for name in (*FILES, "recipe.toml", "resolved.toml", f"01-denoiser/{CHECKPOINT}"):
        assert (folder / name).read_bytes() == (plain / name).read_bytes(), name


def test_scores_of_functions_are_rows(run):
    def spread(training):
        return {"spread": torch.tensor(0.5) * training.images}

    class Twice:
        def __call__(self, training):
            return Measurement({"twice": 2.0 * training.images}, warnings=["few samples"])

    assert rows(run(spread, Twice(), images=320)) == [
        {"images": 320, "callback": "spread", "spread": 160.0},
        {"images": 320, "callback": "Twice", "twice": 640.0},
    ]


def test_functions_are_called_a_hundred_times_by_default(run):
    seen = []
    run(lambda training: seen.append(training.images), images=None)
    assert seen == [64, 128, 192, 256, 320]  # each batch spans several of the 100 calls


@pytest.mark.parametrize("at", [128, 320])
def test_a_function_that_raises_is_named_and_called_again_on_resume(run, plain, at):
    def before(training):
        return {"before": training.images}

    def fail(training):
        if training.images == at:
            raise KeyError("no such key")

    with raises_code(UsageError, Code.CALLBACK, "denoiser", "fail", "KeyError", at) as caught:
        run(before, fail, images=64)
    assert isinstance(caught.value.__cause__, KeyError)
    with raises_code(UsageError, Code.CALLBACK, at):  # at the same images, before the next batch
        run(before, fail, images=64)

    def corrected(training):
        return {"corrected": training.images}

    folder = run(before, corrected, images=64)
    assert [(row["callback"], row["images"]) for row in rows(folder)] == [
        (name, images)
        for images in range(64, 321, 64)
        for name in ("before", "corrected")
        if name == "before" or images >= at
    ]
    for name in FILES:
        assert (folder / name).read_bytes() == (plain / name).read_bytes(), name


def test_a_function_stops_the_run(run, tmp_path, plain):
    def stop(training):
        raise InterruptedRun("good enough")

    def after(training):
        return {"after": training.images}

    for _ in (128, 256, 320):  # the call that stops the run is not repeated
        with raises_code(InterruptedRun, Code.INTERRUPTED, "denoiser", "good enough"):
            run(stop, after)
        assert Run.load(tmp_path / "run").stage("denoiser").state == "unfinished"
    folder = run(stop, after)
    assert [row["images"] for row in rows(folder)] == [128, 256, 320]
    assert (folder / FILES[0]).read_bytes() == (plain / FILES[0]).read_bytes()


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_and_exit_in_a_function_stop_the_run_like_any_other_stop(run, tmp_path, plain, end):
    def leave(training):
        if training.images == 128:
            raise end

    with raises_code(InterruptedRun, Code.INTERRUPTED, "denoiser", "leave", end.__name__, 128):
        run(leave)
    assert Run.load(tmp_path / "run").stage("denoiser").images == 128
    assert (run(leave) / FILES[0]).read_bytes() == (plain / FILES[0]).read_bytes()


def test_a_second_ctrl_c_in_a_function_stops_at_once(run):
    def leave(training):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(leave, lambda training: pytest.fail("called after the stop"))


def test_samples_that_are_not_finite_are_a_warning(run, caplog):
    def diverge(training):
        raise DataError("sample 0 is not finite", Code.NOT_FINITE)

    assert [row["warning"] for row in rows(run(diverge))] == ["sample 0 is not finite"] * 3


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (3, Code.INVALID_RESULT),
        ({"loss": 1.0}, Code.INVALID_RESULT),
        ({"mine": "high"}, Code.INVALID_RESULT),
        (Measurement({}, pictures={"Mine.png": b""}), Code.INVALID_RESULT),
    ],
)
def test_an_invalid_result_is_refused_with_the_name(run, result, code):
    def wrong(training):
        return result

    with raises_code(DataError, code, "wrong"):
        run(wrong)


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ({"callbacks": [3]}, Code.WRONG_TYPE, ("callbacks", 3)),
        ({"callbacks": print}, Code.WRONG_TYPE, ("callbacks", "print")),
        ({"callbacks": [print], "callback_images": 0}, Code.OUT_OF_RANGE, ("callback_images", 0)),
        ({"callback_images": True}, Code.OUT_OF_RANGE, ("callback_images", True)),
        ({"callback_images": 0.5}, Code.OUT_OF_RANGE, ("callback_images", 0.5)),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, code, parts):
    with raises_code(UsageError, code, *parts):
        genkit.run_recipe(RECIPE, out=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()
