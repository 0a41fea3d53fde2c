"""Two real runs of a few steps, and folders with the files of runs that never ran."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import tomli_w

import genkit
from coarse import drawn_coarsely
from genkit.artifacts.layout import results_in

RECIPE = """name = "edm"
data = { use = "moons", items = 200 }

[[stage]]
id = "denoiser"
use = "train"
images = 640
batch_size = 64
pool_size = 64
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }
coupler = { use = "random" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 16
schedule = { use = "edm", steps = 3 }

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "frechet" }]

[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
count = 12
vary.schedule.steps = [2, 3, 4]
metrics = [{ use = "frechet" }]
"""

TABLE = {"use": "train", "images": 100, "network": {"use": "mlp", "width": 8}}


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """The folder of two finished runs, ``edm`` and ``edm-aot``."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "recipe.toml").write_text(RECIPE)
    settings = {"name": "edm-aot", "denoiser.coupler": {"use": "hungarian"}}
    with drawn_coarsely():
        for name, changed in (("edm", {}), ("edm-aot", settings)):
            genkit.run_recipe(folder / "recipe.toml", out=folder / "runs" / name, settings=changed)
    return folder / "runs"


@pytest.fixture
def runs(real, tmp_path, monkeypatch):
    """A copy of the runs, ``runs/edm`` and ``runs/edm-aot``, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(real, tmp_path / "runs")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def made(folder, scores=None, *, stage="scores", table=None, cost=None, **recipe):
    """Write the files of a finished run that trains and scores.

    Args:
        folder: folder of the run.
        scores: rows and facts; None for a run that has none.
        stage: id of the stage that scores.
        table: changes of the table of the first stage.
        cost: rows of ``cost.json``.
        **recipe: keys at the top of the recipe.
    """
    stages = [{"id": "denoiser", **TABLE, **(table or {})}]
    write(folder / "state.json", {"name": folder.name})
    write(folder / "01-denoiser" / "state.json", {"finished": True, "files": {}})
    if scores is not None:
        rows, facts = scores
        stages.append({"id": stage, "use": "evaluate", "samples": "denoiser"})
        place = folder / f"02-{stage}"
        write(place / "scores.json", {"rows": rows, "facts": facts, "curves": {}})
        if cost is not None:
            write(place / "cost.json", {"rows": cost})
        write(place / "state.json", {"finished": True, "files": results_in(place)})
    resolved = {"name": folder.name, "seed": 0, **recipe, "stage": stages}
    (folder / "resolved.toml").write_text(tomli_w.dumps(resolved))
    return folder


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Writes runs in the current folder: ``make.run("a", ...)``; ``make.row``, ``make.cost``."""
    monkeypatch.chdir(tmp_path)

    def row(nfe=9, **columns):
        return {"nfe": nfe, "guidance_nfe": 0, **columns}

    def cost(**changed):
        return {
            "settings": {},
            "images": 16,
            "calls": {"denoiser": 9},
            "nfe_equivalents": 9.0,
            "gflop_per_image": 18.0,
            "gflop_per_call": 2.0,
            "seconds_per_image": 0.25,
            "images_timed": 16,
            "device": "cpu",
            "threads": 1,
            "processes": 1,
            "batch_size": 8,
            "notes": [],
            **changed,
        }

    return SimpleNamespace(
        run=lambda name, *args, **kwargs: made(tmp_path / name, *args, **kwargs),
        row=row,
        cost=cost,
    )
