"""A distribution of a third party: it uses public imports alone, and can do what genkit's can.

The package is ``tests/third_party/genkit-outside``. Here it lies on the path with the metadata of
an installed distribution; ``tests/test_stranger.py`` installs it into an environment of its own.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import torch

import genkit
from genkit import tensors, testing
from genkit.artifacts import Samples
from genkit.artifacts.layout import stages_in
from genkit.plugin.manager import load_plugins
from genkit.recipe.decode import component
from genkit.types import DataSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

PACKAGE = Path(__file__).parent / "third_party" / "genkit-outside"

RECIPE = """name = "outside"
data = { use = "moons", items = 200 }
trackers = [{ use = "lines" }]

[[stage]]
id = "denoiser"
use = "train"
images = 4096
batch_size = 64
network = { use = "mlp", width = 16, blocks = 1 }
objective = { use = "denoising" }

[[stage]]
id = "weak"
use = "train"
images = 256
batch_size = 64
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }

[[stage]]
id = "student"
use = "distill"
teacher = "denoiser"
steps = 5

[[stage]]
id = "samples"
use = "sample"
denoiser = "student"
count = 32
schedule = { use = "edm", steps = 3 }
guidance = [{ use = "auto", weak = "weak", weight = 0.5 }]

[[stage]]
id = "copied"
use = "copy-samples"
samples = "samples"

[[stage]]
id = "drawn"
use = "euler-samples"
denoiser = "student"
count = 32
schedule = { use = "edm", steps = 3 }

[[stage]]
id = "copied-scores"
use = "evaluate"
samples = "copied"
metrics = [{ use = "frechet" }, { use = "curvature", count = 4 }]

[[stage]]
id = "drawn-scores"
use = "evaluate"
samples = "drawn"
metrics = [{ use = "frechet" }, { use = "curvature", count = 4 }]

[[stage]]
id = "steps"
use = "sweep"
samples = "drawn"
count = 16
vary.schedule.steps = [2, 3]
metrics = [{ use = "frechet" }]

[[stage]]
id = "weights"
use = "sweep"
samples = "samples"
count = 16
vary.guidance.0.weight = [0.0, 1.0]
metrics = [{ use = "frechet" }]
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory, installed):
    """The third-party distribution, installed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        installed(PACKAGE, tmp_path_factory.mktemp("site"), monkeypatch)
        yield load_plugins()


@pytest.fixture(scope="module")
def finished(outside, tmp_path_factory):
    """The folder of a finished run of the recipe, and its scores."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside.toml").write_text(RECIPE)
    result = genkit.run_recipe(folder / "outside.toml", out=folder / "run", device="cpu")
    return stages_in(result.folder), result


def test_it_imports_public_names_alone():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) == 7
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
    ours = {name for name in found if name.partition(".")[0].startswith("genkit")}
    assert {name for name in ours if not name.startswith("genkit_outside")} == {
        "genkit",
        "genkit.plugin",
    }


def test_it_is_listed_with_all_that_it_brings(outside):
    (status,) = [s for s in outside.loaded if s.owner.distribution == "genkit-outside"]
    assert not outside.failed
    assert {entry.kind for entry in status.entries} == {"stage", "guidance", "tracker", "importer"}
    assert status.commands == ("spread",)


def test_its_samples_are_drawn_evaluated_and_swept(finished):
    folders, result = finished
    for stage in ("copied", "drawn"):
        assert (folders[stage] / "samples.png").read_bytes().startswith(b"\x89PNG")
        (row,) = result.scores[f"{stage}-scores"]
        assert row["frechet_pixels"] > 0
        assert row["curvature"] > 0
    assert [row["schedule.steps"] for row in result.scores["steps"]] == [2, 3]
    whole, copied = (
        Samples.load(folders[stage] / "samples.safetensors") for stage in ("samples", "copied")
    )
    assert torch.equal(copied.batch.data, whole.batch.data[:16])


def test_its_guidance_guides(finished):
    folders, result = finished
    rows = result.scores["weights"]
    assert [row["guidance_nfe"] > 0 for row in rows] == [False, True]
    assert rows[0]["frechet_pixels"] != rows[1]["frechet_pixels"]
    guided = Samples.load(folders["samples"] / "samples.safetensors")
    assert guided.guidance_nfe == guided.nfe == 5


def test_its_tracker_receives_rows_scores_and_pictures(finished):
    _, result = finished
    file = result.folder / "trackers" / "lines" / "lines.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    seen = {(line[0], line[1]) for line in lines}
    assert {("row", "denoiser"), ("row", "student"), ("picture", "copied")} <= seen
    assert {("scores", "steps"), ("scores", "drawn-scores"), ("picture", "drawn")} <= seen
    assert [line[2]["step"] for line in lines if line[:2] == ["row", "student"]] == [1, 2, 3, 4, 5]


def test_its_denoiser_is_exported_and_sampled(finished, tmp_path, genkit_):
    folders, result = finished
    out = tmp_path / "student.safetensors"
    assert genkit_("export", result.folder, out, "--stage", "student")[0] == 0
    denoiser = genkit.load_denoiser(out, "cpu")
    assert denoiser.sample(3, start="noise").shape == (3, 2)
    teacher, student = (
        tensors.load(folders[s] / "denoiser.safetensors")[0] for s in ("denoiser", "student")
    )
    assert any(not torch.equal(student[name], teacher[name]) for name in teacher)


def test_its_importer_is_reachable(finished, tmp_path, genkit_):
    folders, _ = finished
    weights, _ = tensors.load(folders["student"] / "denoiser.safetensors")
    tensors.save(tmp_path / "bare.safetensors", weights, {})
    out = tmp_path / "imported.safetensors"
    code, said, told = genkit_("import", tmp_path / "bare.safetensors", out, "--as", "raw")
    assert code == 0, told
    assert "these weights are bare" in said
    assert tensors.load(out)[0].keys() == weights.keys()
    assert genkit_("import", folders["student"] / "samples.png", tmp_path / "no", "--as", "raw")[0]


def test_its_command_runs(finished, genkit_):
    _, result = finished
    code, out, _ = genkit_("spread", result.folder, "drawn")
    assert (code, bool(re.fullmatch(r"\d\.\d{3}\n", out))) == (0, True)
    code, out, told = genkit_("spread", result.folder, "scores")
    assert (code, out) == (2, "")
    assert "stage must have samples" in told


def test_a_finished_run_is_skipped(finished):
    folders, result = finished
    before = {name: place.stat().st_mtime_ns for name, place in folders.items()}
    genkit.run_recipe(result.folder / "recipe.toml", out=result.folder, device="cpu")
    assert {name: place.stat().st_mtime_ns for name, place in folders.items()} == before


STUDENT = 'use = "distill"\nteacher = "denoiser"'
GUIDED = '{ use = "auto", weak = "weak", weight = 0.5 }'
DRAWN = 'use = "euler-samples"\ndenoiser = "student"'
OTHER = """use = "train"
images = 256
data = { use = "digits" }"""

WRONG = {
    "a stage that writes something else": (
        DRAWN,
        'use = "euler-samples"\ndenoiser = "copied"',
        "wrong-reference",
    ),
    "no such stage": (GUIDED, '{ use = "auto", weak = "none" }', "unknown-stage"),
    "a reference that is missing": (GUIDED, '{ use = "auto" }', "missing-key"),
    "a weight below 0": (GUIDED, '{ use = "auto", weak = "weak", weight = -1.0 }', "out-of-range"),
    "a setting that is not there": (
        GUIDED,
        '{ use = "auto", weak = "weak", strength = 1.0 }',
        "unknown-key",
    ),
    "a weak denoiser of other data": (
        'id = "weak"\nuse = "train"\nimages = 256',
        f'id = "weak"\n{OTHER}',
        "conflict",
    ),
    "a forward reference": (STUDENT, 'use = "distill"\nteacher = "later"', "unknown-stage"),
    "a reference to itself": (STUDENT, 'use = "distill"\nteacher = "student"', "wrong-reference"),
    "a forward reference to a stage": (
        DRAWN,
        'use = "euler-samples"\ndenoiser = "drawn-scores"',
        "wrong-reference",
    ),
    "a circle": (
        STUDENT,
        'use = "distill"\nteacher = "second"\n\n[[stage]]\nid = "second"\nuse = "distill"\n'
        'teacher = "student"',
        "wrong-reference",
    ),
    "no steps": ("steps = 5", "steps = 0", "out-of-range"),
    "a sweep of samples that cannot be drawn again": (
        'samples = "drawn"\ncount = 16',
        'samples = "copied"\ncount = 16',
        "wrong-reference",
    ),
    "a varied setting that is not there": (
        "vary.schedule.steps",
        "vary.schedule.stops",
        "unknown-key",
    ),
    "an unknown tracker": ('{ use = "lines" }', '{ use = "line" }', "unknown-component"),
    "a tracker's setting of another type": (
        '{ use = "lines" }',
        '{ use = "lines", name = 3 }',
        "wrong-type",
    ),
}

RIGHT = {
    "as it is": ("steps = 5", "steps = 5"),
    "a weight of 0": (GUIDED, GUIDED.replace("0.5", "0.0")),
    "two guidances": (GUIDED, f'{GUIDED}, {{ use = "auto", weak = "denoiser", weight = 0.1 }}'),
    "a student as the weak denoiser": ('weak = "weak"', 'weak = "student"'),
    "samples of the teacher": (DRAWN, 'use = "euler-samples"\ndenoiser = "denoiser"'),
    "a copy of a drawn copy": (
        'use = "copy-samples"\nsamples = "samples"',
        (
            'use = "copy-samples"\nsamples = "samples"\n\n[[stage]]\nid = "again"\n'
            'use = "copy-samples"\nsamples = "copied"\ncount = 3'
        ),
    ),
    "no tracker": ('trackers = [{ use = "lines" }]', ""),
}


def changed(old, new, tmp_path):
    assert RECIPE.count(old) == 1, old
    file = tmp_path / "changed.toml"
    file.write_text(RECIPE.replace(old, new))
    return file


@pytest.mark.parametrize(("old", "new", "code"), WRONG.values(), ids=WRONG)
def test_validate_and_run_refuse_the_same(outside, tmp_path, genkit_, old, new, code):
    file = changed(old, new, tmp_path)
    out = tmp_path / "run"
    told = [
        genkit_("validate", file)[::2],
        genkit_("run", file, "--out", out, "--device", "cpu")[::2],
    ]
    assert [status for status, _ in told] == [2, 2], told
    assert all(f"[{code}]" in text for _, text in told), told
    assert not out.exists()


@pytest.mark.parametrize(("old", "new"), RIGHT.values(), ids=RIGHT)
def test_validate_and_run_accept_the_same(outside, tmp_path, genkit_, old, new):
    file = changed(old, new, tmp_path)
    assert genkit_("validate", file)[0] == 0
    out = tmp_path / "run"
    less = ("--set", "denoiser.images=128", "--set", "weak.images=64")
    assert genkit_("run", file, "--out", out, "--device", "cpu", *less)[0] == 0
    assert json.loads((out / "results.json").read_text())["stages"]["steps"]["rows"]


BROKEN = """
from dataclasses import dataclass
import torch
from genkit.plugin import Batch, Coupler, Pairs, Samples, Scores, Stage


class WritesScores(Stage):
    output = Samples

    def run(self, context):
        context.record.save(Scores([]))


class WritesNothing(Stage):
    output = Samples

    def run(self, context):
        pass


class NamesNoDenoiser(Stage):
    output = Samples

    def run(self, context):
        context.record.save(Samples(Batch(torch.zeros(4, 2)), nfe=1, denoiser="first"))


class Collapsed(Coupler):
    bijective = True

    def pair(self, batch, noise, generator):
        index = torch.arange(len(batch))
        index[3] = 2
        return Pairs(torch.arange(len(batch)), index)
"""

REGISTER = """
from genkit.plugin import hookimpl


@hookimpl
def genkit_register(registry):
    registry.add("stage", "writes-scores", "genkit_broken.parts:WritesScores")
    registry.add("stage", "writes-nothing", "genkit_broken.parts:WritesNothing")
    registry.add("stage", "names-no-denoiser", "genkit_broken.parts:NamesNoDenoiser")
    registry.add("coupler", "collapsed", "genkit_broken.parts:Collapsed")
"""


@pytest.fixture
def broken(tmp_path, monkeypatch, installed):
    """Install a distribution whose components do not do what they declare."""
    package = tmp_path / "genkit-broken"
    (package / "genkit_broken").mkdir(parents=True)
    text = (PACKAGE / "pyproject.toml").read_text().replace("outside", "broken")
    (package / "pyproject.toml").write_text(text)
    (package / "genkit_broken" / "__init__.py").write_text(REGISTER)
    (package / "genkit_broken" / "parts.py").write_text(BROKEN)
    installed(package, tmp_path / "site", monkeypatch)


@pytest.mark.parametrize(
    ("use", "named"),
    [
        ("writes-scores", ["(genkit-broken 1.5)", "Samples", "Scores"]),
        ("writes-nothing", ["(genkit-broken 1.5)", "Samples", "got none"]),
        ("names-no-denoiser", ["(genkit-broken 1.5)", "drawn_by", "'first'", "got None"]),
    ],
)
def test_a_stage_that_does_not_write_what_it_declares(broken, tmp_path, genkit_, use, named):
    file = tmp_path / "stage.toml"
    file.write_text(f'name = "stage"\n\n[[stage]]\nid = "first"\nuse = "{use}"\n')
    code, _, told = genkit_("run", file, "--out", tmp_path / "run", "--device", "cpu")
    assert (code, "Traceback" in told) == (2, False)
    assert all(name in told for name in ["stage first", *named]), told


def test_a_coupler_that_declares_a_bijection_and_returns_none(broken, tmp_path, genkit_):
    file = tmp_path / "coupler.toml"
    head = RECIPE[: RECIPE.index('[[stage]]\nid = "weak"')].replace("trackers", "# trackers")
    file.write_text(head + 'coupler = { use = "collapsed" }\n')
    code, _, told = genkit_("run", file, "--out", tmp_path / "run", "--device", "cpu")
    assert (code, "Traceback" in told) == (2, False)
    text = " ".join(told.split())
    assert 'coupler "collapsed" of plugin broken (genkit-broken 1.5)' in text
    assert "pool 0" in text
    assert "got noise 2 2 times" in text


# --- contract tests ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def earlier(outside):
    train = {"use": "train", "images": 64, "batch_size": 32, "objective": {"use": "denoising"}}
    train |= {"network": {"use": "mlp", "width": 8, "blocks": 1}}
    train |= {"data": {"use": "moons", "items": 60}}
    samples = {"use": "sample", "denoiser": "denoiser", "count": 8, "schedule": {"steps": 2}}
    samples["schedule"]["use"] = "edm"
    tables = {"denoiser": train, "samples": samples}
    return {i: component(outside.registry, "stage", table) for i, table in tables.items()}


def made(outside, kind, use, **settings):
    return component(outside.registry, kind, {"use": use, **settings})


def test_laws_of_all_its_components(outside):
    (status,) = [s for s in outside.loaded if s.owner.distribution == "genkit-outside"]
    for entry in status.entries:
        testing.check_component(outside.registry.load(entry))


@pytest.mark.parametrize(
    ("use", "settings"),
    [
        ("copy-samples", {"samples": "samples", "count": 3}),
        ("euler-samples", {"denoiser": "denoiser", "count": 3, "schedule": {"use": "edm"}}),
        ("distill", {"teacher": "denoiser", "steps": 4, "batch_size": 8}),
    ],
)
def test_laws_of_its_stages(outside, earlier, use, settings):
    testing.check_stage(made(outside, "stage", use, **settings), earlier)


def test_laws_of_its_guidance(outside, earlier):
    guidance = made(outside, "guidance", "auto", weak="denoiser")
    testing.check_guidance(guidance, DataSpec((2,)), earlier)


def test_laws_of_its_tracker(outside):
    testing.check_tracker(made(outside, "tracker", "lines"))


def test_laws_of_its_importer(outside, finished, tmp_path):
    folders, _ = finished
    weights, _ = tensors.load(folders["student"] / "denoiser.safetensors")
    tensors.save(tmp_path / "bare.safetensors", weights, {})
    testing.check_importer(made(outside, "importer", "raw"), tmp_path / "bare.safetensors")
