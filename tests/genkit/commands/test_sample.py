from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genkit.api import load_denoiser
from genkit.commands.sample import parse_seeds
from genkit.errors import UsageError
from genkit.interfaces import Network
from genkit.plugin.manager import load_plugins
from genkit.random import seeded
from genkit.recipe.decode import component
from genkit.recipe.encode import table
from genkit.train.checkpoint import description, save_network
from genkit.types import DataSpec


def save(path: Path, spec: DataSpec, **settings) -> Path:
    """Write a denoiser with random weights."""
    registry = load_plugins().registry
    network = component(registry, "denoiser", settings)
    assert isinstance(network, Network)
    with seeded(0):
        weights = network.build(spec).state_dict()
    save_network(path, weights, description("denoiser", table(registry, network), spec), 5)
    return path


@pytest.fixture
def images(tmp_path):
    small = {"channels": 4, "channel_mult": (1,), "blocks": 1, "attention": ()}
    spec = DataSpec((3, 4, 4), classes=3)
    return save(tmp_path / "d.safetensors", spec, use="ddpmpp", class_conditional=True, **small)


@pytest.fixture
def points(tmp_path):
    return save(tmp_path / "p.safetensors", DataSpec((2,)), use="mlp", width=8)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_seed_gives_the_image_that_python_draws(genkit_, images, tmp_path):
    out = tmp_path / "out"
    arguments = ("--steps", 3, "--rho", 90, "--seeds", "7,0-2", "--device", "cpu", "--out", out)
    code, printed, err = genkit_("sample", images, *arguments)
    assert (code, err) == (0, "")
    assert printed == f"4 samples in {out}, of which 4 are new\n"
    named = {"000000.png", "000001.png", "000002.png", "000007.png", "grid.png", "sampling.json"}
    assert set(files(out)) == named
    drawn = load_denoiser(images, "cpu").sample([7], schedule={"steps": 3, "rho": 90.0})[0]
    with Image.open(out / "000007.png") as image:
        pixels = torch.from_numpy(np.array(image)).movedim(-1, 0)
    assert torch.equal(pixels, ((drawn + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))


def test_a_sample_does_not_depend_on_its_company(genkit_, images, tmp_path):
    common = ("--steps", 2, "--device", "cpu")
    genkit_("sample", images, "--seeds", "0-5", "--out", tmp_path / "a", *common)
    genkit_("sample", images, "--seeds", "5,3", "--batch-size", 1, "--out", tmp_path / "b", *common)
    one, other = files(tmp_path / "a"), files(tmp_path / "b")
    assert one["000003.png"] == other["000003.png"]
    assert one["000005.png"] == other["000005.png"]


def test_the_same_command_goes_on_and_draws_nothing_twice(genkit_, images, tmp_path):
    out = tmp_path / "out"
    common = ("--steps", 2, "--device", "cpu", "--out", out)
    genkit_("sample", images, "--seeds", "0-3", *common)
    whole = files(out)
    (out / "000002.png").unlink()
    (out / "000001.png").write_bytes(whole["000003.png"])  # would be made anew if it were drawn
    code, printed, _ = genkit_("sample", images, "--seeds", "0-3", *common)
    assert (code, printed) == (0, f"4 samples in {out}, of which 1 are new\n")
    assert files(out)["000002.png"] == whole["000002.png"]
    assert files(out)["000001.png"] == whole["000003.png"]


def test_one_class(genkit_, images, tmp_path):
    out = tmp_path / "out"
    common = ("--steps", 2, "--device", "cpu", "--seeds", "0-1", "--out", out)
    assert genkit_("sample", images, "--class", 2, *common)[0] == 0
    assert json.loads((out / "sampling.json").read_text())["class"] == 2


def test_vectors_are_written_as_arrays(genkit_, points, tmp_path):
    out = tmp_path / "out"
    genkit_(
        "sample", points, "--seeds", "0-2", "--solver", "euler", "--device", "cpu", "--out", out
    )
    drawn = load_denoiser(points, "cpu").sample(3, solver={"use": "euler"})
    assert np.array_equal(np.load(out / "000002.npy"), drawn[2].numpy())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds", "9-2"), "ends before it begins; write 2-9"),
        (("--seeds", "a"), '"a" is no range of seeds; write 0-63'),
        (("--seeds", "0-99999999"), "more than 10,000,000 samples"),
        (("--steps", "0"), "steps: 0 is out of range"),
        (("--rho", "-1"), "rho: -1.0 is out of range"),
        (("--rho", "nan"), "rho: nan"),
        (("--schedule", '{ use = "edm", sigma_min = 90.0 }'), "not below sigma_max = 80"),
        (("--schedule", "edn"), 'did you mean "edm"'),
        (("--class", "3"), "--class 3: the denoiser has no such class; write 0 to 2"),
        (("--device", "gpu"), 'no device is called "gpu"'),
    ],
)
def test_mistakes(genkit_, images, tmp_path, arguments, said):
    code, printed, err = genkit_("sample", images, "--out", tmp_path / "out", *arguments)
    assert (code, printed) == (2, "")
    assert said in err
    assert not (tmp_path / "out").exists()


def test_what_is_no_checkpoint(genkit_, tmp_path):
    (tmp_path / "x").write_bytes(b"no")
    for name in ("absent", "x"):
        code, _, err = genkit_("sample", tmp_path / name, "--out", tmp_path / "out")
        assert code == 2
        assert "cannot be read as safetensors" in err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(genkit_, images, tmp_path):
    out = tmp_path / "out"
    common = ("--seeds", "0", "--device", "cpu", "--out", out)
    genkit_("sample", images, "--steps", 2, *common)
    before = files(out)
    code, _, err = genkit_("sample", images, "--steps", 3, *common)
    assert code == 2
    assert "holds samples of another schedule; choose another --out" in err
    assert files(out) == before
    (out / "sampling.json").unlink()
    assert "holds something else" in genkit_("sample", images, "--steps", 2, *common)[2]
    assert "is a file" in genkit_("sample", images, "--out", images)[2]


def test_seeds_come_once_and_in_their_order():
    assert parse_seeds("5, 7,6-8") == [5, 7, 6, 8]
    with pytest.raises(UsageError, match="no range"):
        parse_seeds("1-2-3")
