from __future__ import annotations

import errno
import os
import shutil

import pytest
import torch

import genkit
from coarse import drawn_coarsely
from genkit.api import load_denoiser
from genkit.networks import load_network
from genkit.plugin.manager import load_plugins
from genkit.recipe.encode import table
from genkit.types import DataSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

SMALL = {"data.items": 200, "denoiser.images": 256, "denoiser.network.width": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    settings = {**SMALL, "samples.count": 4, "scores.metrics": [{"use": "truncation", "count": 2}]}
    with drawn_coarsely():
        genkit.run_recipe("smoke", out=folder, settings=settings, device="cpu")
    return folder


def test_the_file_samples_as_the_run_does(genkit_, run, tmp_path):
    out = tmp_path / "d.safetensors"
    code, printed, err = genkit_("export", run, out)
    assert (code, err) == (0, "")
    assert printed == (
        f"{out}: the denoiser of {run / '01-denoiser'}, trained for 256 images\n"
        f"Draw samples with: genkit sample {out} --out DIR\n"
    )
    trained = load_denoiser(run / "01-denoiser" / "denoiser.safetensors", "cpu")
    assert torch.equal(load_denoiser(out, "cpu").sample(3), trained.sample(3))


def test_mistakes(genkit_, run, tmp_path):
    out = tmp_path / "d.safetensors"
    said = [
        (("export", tmp_path / "nope", out), "nope, which does not exist"),
        (("export", tmp_path, out), "must contain a denoiser"),
        (("export", run, out, "--stage", "denoise"), 'did you mean "denoiser"'),
        (("export", run, tmp_path / "no" / "d.safetensors"), "create "),
        (("export", run, run / "01-denoiser" / "denoiser.safetensors"), "must be a new file"),
        (("export", run, tmp_path / "d.png"), "write d.safetensors"),
    ]
    for arguments, message in said:
        code, printed, err = genkit_(*arguments)
        assert (code, printed) == (2, "")
        assert message in err
    assert not out.exists()


def test_a_full_disk_leaves_nothing(genkit_, run, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "d.safetensors"
    monkeypatch.setattr(os, "fsync", full)
    code, printed, err = genkit_("export", run, out)
    assert (code, printed) == (2, "")
    assert f"{out}: No space left on device; resolve this" in err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    long = tmp_path / ("x" * 300)
    assert f"Error: {long}: File name too long" in genkit_("export", run, long)[2]


def test_an_unfinished_training_gives_its_average_so_far(genkit_, run, tmp_path):
    place = tmp_path / "run" / "01-denoiser"
    place.mkdir(parents=True)
    shutil.copy(run / "01-denoiser" / "checkpoint.safetensors", place)
    code, printed, err = genkit_("export", tmp_path / "run", tmp_path / "d.safetensors")
    assert (code, err) == (0, "")
    assert "trained for 256 images" in printed
    whole = load_denoiser(run / "01-denoiser" / "denoiser.safetensors", "cpu")
    assert torch.equal(load_denoiser(tmp_path / "d.safetensors", "cpu").sample(3), whole.sample(3))


def test_an_average_of_another_length(genkit_, run, tmp_path):
    out = tmp_path / "d.safetensors"
    code, _, err = genkit_("export", run, out, "--ema-length", "0.1")
    assert code == 2
    assert "lengths = [0.05, 0.1]" in err
    settings = {**SMALL, "denoiser.average": {"use": "power-ema", "snapshot_images": 32}}
    few = {"denoiser.batch_size": 16, "samples.count": 4, "scores.metrics": [{"use": "curvature"}]}
    averaged = tmp_path / "run"
    genkit.run_recipe("smoke", out=averaged, settings={**settings, **few}, device="cpu")
    assert genkit_("export", averaged, out, "--ema-length", "0.1")[0] == 0
    first = load_denoiser(out, "cpu").sample(2)
    assert genkit_("export", averaged, tmp_path / "e.safetensors", "--ema-length", "0.2")[0] == 0
    assert not torch.equal(load_denoiser(tmp_path / "e.safetensors", "cpu").sample(2), first)
    assert (
        "length" in genkit_("export", averaged, tmp_path / "f.safetensors", "--ema-length", "7")[2]
    )
    assert not (tmp_path / "f.safetensors").exists()


@pytest.fixture(scope="module")
def several(run):
    """Return the run with a discriminator, a classifier and a checkpoint of another one beside."""
    for number, kind in enumerate(("discriminator", "classifier"), 4):
        network = genkit.component(kind, NETWORKS[kind])
        spec = DataSpec(*SPECS[kind])
        folder = run / f"{number:02d}-{kind}"
        folder.mkdir()
        weights = network.build(spec).state_dict()
        settings = table(load_plugins().registry, network)
        network.output(settings, spec, weights, 7).save(folder / f"{kind}.safetensors")
    return run


NETWORKS = {"discriminator": "mlp-discriminator", "classifier": "cnn-classifier"}
SPECS = {"discriminator": ((2,),), "classifier": ((1, 8, 8), 3)}


@pytest.mark.parametrize("kind", NETWORKS)
def test_any_other_network_is_written_if_its_stage_is_named(genkit_, several, tmp_path, kind):
    out = tmp_path / "network.safetensors"
    code, printed, err = genkit_("export", several, out, "--stage", kind)
    assert (code, err) == (0, "")
    assert printed.startswith(f"{out}: the {kind} of ")
    assert "genkit sample" not in printed
    loaded = load_network(out, load_plugins().registry)
    assert loaded.settings == genkit.component(kind, NETWORKS[kind])


def test_without_a_stage_the_denoiser_is_meant(genkit_, several, tmp_path):
    out = tmp_path / "network.safetensors"
    assert genkit_("export", several, out)[0] == 0
    assert load_denoiser(out, "cpu").spec.shape == (2,)
