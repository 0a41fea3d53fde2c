"""A real run of a few steps, whose pairs are audited."""

from __future__ import annotations

import shutil

import pytest

import genkit
from coarse import drawn_coarsely

RECIPE = """name = "audited"
data = { use = "moons", items = 500 }

[[stage]]
id = "denoiser"
use = "train"
images = 640
batch_size = 64
pool_size = 128
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }
coupler = { use = "hungarian" }

[[stage]]
id = "fakes"
use = "sample"
denoiser = "denoiser"
count = 300
schedule = { use = "edm", steps = 3 }

[[stage]]
id = "discriminator"
use = "train"
images = 320
batch_size = 64
data = { use = "real-and-fake", fakes = "fakes" }
network = { use = "mlp-discriminator", width = 8, blocks = 1 }
objective = { use = "discrimination" }
coupler = { use = "partitioned", by = ["realness"] }
"""


@pytest.fixture(scope="session")
def audited(tmp_path_factory):
    """The folder with ``recipe.toml`` and the finished ``run``."""
    folder = tmp_path_factory.mktemp("audited")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    with drawn_coarsely():
        genkit.run_recipe(folder / "recipe.toml", out=folder / "run", device="cpu")
    return folder


@pytest.fixture
def workplace(audited, tmp_path, monkeypatch):
    """A copy of it, which is the current folder."""
    monkeypatch.chdir(shutil.copytree(audited, tmp_path / "here"))
    return tmp_path / "here"
