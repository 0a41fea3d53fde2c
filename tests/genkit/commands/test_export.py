from __future__ import annotations

import pytest
import torch

import genkit
from genkit.api import load_denoiser

SMALL = {"data.items": 200, "denoiser.images": 64, "denoiser.network.width": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    settings = {**SMALL, "samples.count": 4, "scores.metrics": [{"use": "truncation", "count": 2}]}
    genkit.run_recipe("smoke", out=folder, settings=settings, device="cpu")
    return folder


def test_the_file_samples_as_the_run_does(genkit_, run, tmp_path):
    out = tmp_path / "d.safetensors"
    code, printed, err = genkit_("export", run, out)
    assert (code, err) == (0, "")
    assert printed == f"{out}: the denoiser of {run / '01-denoiser'}, trained for 64 images\n"
    trained = load_denoiser(run / "01-denoiser" / "denoiser.safetensors", "cpu")
    assert torch.equal(load_denoiser(out, "cpu").sample(3), trained.sample(3))


def test_mistakes(genkit_, run, tmp_path):
    out = tmp_path / "d.safetensors"
    said = [
        (("export", tmp_path, out), "no training of a denoiser is finished in it"),
        (("export", run, out, "--stage", "denoise"), 'did you mean "denoiser"'),
        (("export", run, tmp_path / "no" / "d"), "is no folder"),
        (("export", run, run / "results.json"), "exists; move it away"),
    ]
    for arguments, message in said:
        code, printed, err = genkit_(*arguments)
        assert (code, printed) == (2, "")
        assert message in err
    assert not out.exists()
