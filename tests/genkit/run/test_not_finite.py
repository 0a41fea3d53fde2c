"""No stage and no command writes samples that are not finite; the message names their place."""

from __future__ import annotations

import re
import warnings

import pytest
import torch

from genkit.api import load_denoiser
from genkit.artifacts import DenoiserFile
from genkit.cli import main
from genkit.errors import Code, DataError
from raising import raises_code

CONDITIONAL = (
    "denoiser.network.class_conditional=true",
    "denoiser.network.label_dropout=0.1",
    "denoiser.accept_conditional_skew=true",
)
GUIDED = 'samples.guidance=[{ use = "classifier-free", weight = 1e38 }]'
PLACE = re.compile(r"step (\d), at noise level ([0-9.e+-]+)")


@pytest.fixture
def overflowing(trained, tmp_path):
    """The path of a denoiser with finite weights and outputs that are not."""
    (path,) = trained.glob("*/denoiser.safetensors")
    file = DenoiserFile.load(path)
    for weight in file.weights.values():
        if weight.is_floating_point():
            weight.fill_(1e30)
    file.save(tmp_path / "overflowing.safetensors")
    return tmp_path / "overflowing.safetensors"


def loading(text, path):
    """Return a recipe whose denoiser is loaded from a file instead of trained."""
    first, _, rest = text.partition("[[stage]]")
    samples = rest[rest.index("[[stage]]") :]
    return f'{first}[[stage]]\nid = "denoiser"\nuse = "load"\npath = "{path}"\n\n{samples}'


def test_the_stage_sample_names_step_and_level_and_writes_nothing(tiny, overflowing):
    with raises_code(DataError, Code.NOT_FINITE, "step 1", "80") as caught:
        tiny.run(loading(tiny.sample, overflowing))
    assert "weight" not in str(caught.value)
    assert list(tiny.folder.rglob("*samples*.safetensors")) == []
    assert list(tiny.folder.rglob("part-*")) == []


def test_the_stage_sample_names_the_weight_of_guidance(tiny):
    with raises_code(DataError, Code.NOT_FINITE, "weight = 1e+38") as caught:
        tiny.run(tiny.sample, *CONDITIONAL, GUIDED)
    assert PLACE.search(str(caught.value))
    assert list(tiny.folder.rglob("*samples*.safetensors")) == []


def test_a_sweep_names_the_weight_and_keeps_the_cells_before_it(tiny):
    sweep = (*CONDITIONAL, GUIDED.replace("1e38", "0.5"), "sweep.vary.guidance.weight=[0.5, 1e38]")
    with raises_code(DataError, Code.NOT_FINITE, "weight = 1e+38") as caught:
        tiny.run(tiny.sweep, *sweep, "sweep.vary.schedule.steps=[2]", "sweep.vary.schedule.rho=[7]")
    assert PLACE.search(str(caught.value))
    assert list(tiny.folder.glob("*sweep/scores.json")) == []
    (rows,) = tiny.folder.glob("*sweep/metrics.jsonl")
    assert len(rows.read_text().splitlines()) == 1


def test_samples_in_python_are_refused(overflowing):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with raises_code(DataError, Code.NOT_FINITE, "step 1", "80"):
            load_denoiser(overflowing, "cpu").sample(3)


def test_the_command_sample_writes_no_sample(overflowing, tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "out"), "--seeds", "0-3", "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main(["sample", str(overflowing), *arguments])
    assert stopped.value.code == 2
    assert PLACE.search(capsys.readouterr().err)
    assert list((tmp_path / "out").rglob("*.npy")) == []


def test_states_that_are_finite_in_float64_alone_are_refused(trained, monkeypatch):
    (path,) = trained.glob("*/denoiser.safetensors")
    denoiser = load_denoiser(path, "cpu")
    forward = denoiser.module.forward

    def large(x, sigma, labels=None):
        return forward(x, sigma, labels).double() * 0 + 1e300

    monkeypatch.setattr(denoiser.module, "forward", large)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with raises_code(DataError, Code.NOT_FINITE, "step 1"):
            denoiser.sample(3, dtype=torch.float64)
