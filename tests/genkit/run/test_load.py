"""The load stage: a network from a file, wherever it came from."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from genkit import tensors
from genkit.errors import Code, DataError, RecipeError
from genkit.networks import load_network
from genkit.plugin.manager import load_plugins
from genkit.run.engine import fingerprints
from genkit_edm.mlp import Mlp
from genkit_stages.load import Load
from raising import raises_code

pytestmark = pytest.mark.slow

LOAD = """name = "loaded"
data = { use = "moons", items = 200 }

[[stage]]
id = "denoiser"
use = "load"
path = "FILE"
"""

SCORES = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "curvature", count = 4 }]
"""

SWEEP = """
[[stage]]
id = "sweep"
use = "sweep"
samples = "guided"
count = 8
vary.guidance.weight = [0.0, 2.0]
metrics = [{ use = "truncation", count = 4, steps = [2], schedule = { use = "edm", steps = 4 } }]
"""


def loading(tiny, path):
    """Return a recipe that loads a denoiser, samples it and scores the samples."""
    return LOAD.replace("FILE", str(path)) + tiny.samples + SCORES


def with_metadata(path, **changed):
    weights, metadata = tensors.load(path)
    tensors.save(path, weights, {**metadata, **changed})


def without_a_weight(path):
    weights, metadata = tensors.load(path)
    weights.popitem()
    tensors.save(path, weights, metadata)


def without_a_number(path):
    weights, metadata = tensors.load(path)
    next(iter(weights.values())).view(-1)[0] = torch.nan
    tensors.save(path, weights, metadata)


def with_one_changed_weight(path):
    weights, metadata = tensors.load(path)
    next(iter(weights.values())).view(-1)[0] += 1
    tensors.save(path, weights, metadata)


@pytest.fixture
def file(trained, tmp_path):
    """Return a copy of the denoiser that a run trained."""
    return shutil.copy(trained / "01-denoiser" / "denoiser.safetensors", tmp_path / "d.safetensors")


def test_a_loaded_denoiser_draws_the_samples_of_the_trained_one(tiny, trained, file):
    recipe = loading(tiny, file)
    results = tiny.run(recipe)[1]
    found, wanted = (
        tensors.load(next(folder.glob("*-samples/samples.safetensors")))[0]["samples"]
        for folder in (tiny.folder, trained)
    )
    assert bool((found == wanted).all())
    assert results["stages"]["scores"]["rows"][0]["curvature"] > 0


def test_a_loaded_denoiser_is_guided_and_swept(tiny, file):
    results = tiny.run(loading(tiny, file) + tiny.guided + SWEEP)[1]
    rows = results["stages"]["sweep"]["rows"]
    assert [row["guidance.weight"] for row in rows] == [0.0, 2.0]
    assert [row["guidance_nfe"] > 0 for row in rows] == [False, True]


def test_a_checkpoint_is_loaded_as_its_average(tiny, trained, file):
    checkpoint = trained / "01-denoiser" / "checkpoint.safetensors"
    tiny.run(loading(tiny, checkpoint))
    assert tensors.load(next(tiny.folder.glob("01-*/denoiser.safetensors")))[0].keys() == (
        tensors.load(file)[0].keys()
    )


def test_one_changed_weight_redoes_what_depends_on_the_file(tiny, file):
    recipe = loading(tiny, file)
    tiny.run(recipe)
    with_one_changed_weight(file)
    assert tiny.run(recipe)[0].ran == ["denoiser", "samples", "scores"]
    assert tiny.run(recipe)[0].ran == []


IMPORTED = """name = "imported"
data = { use = "digits" }

[[stage]]
id = "published"
use = "load"
path = "published.safetensors"

[[stage]]
id = "fakes"
use = "sample"
denoiser = "published"
count = 64
schedule = { use = "edm", steps = 2 }

[[stage]]
id = "discriminator"
use = "train"
images = 64
batch_size = 32
data = { use = "real-and-fake", fakes = "fakes" }
network = { use = "mlp-discriminator", width = 8 }
objective = { use = "discrimination" }
coupler = { use = "partitioned", by = ["realness"] }

[[stage]]
id = "guided"
use = "sample"
denoiser = "published"
count = 32
schedule = { use = "edm", steps = 3 }
guidance = [{ use = "discriminator", discriminator = "discriminator" }]

[[stage]]
id = "scores"
use = "evaluate"
samples = "guided"
metrics = [{ use = "frechet" }, { use = "curvature", count = 2 }]

[[stage]]
id = "own"
use = "train"
images = 64
batch_size = 32
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }

[[stage]]
id = "own-samples"
use = "sample"
denoiser = "own"
count = 8
schedule = { use = "edm", steps = 2 }
"""


def test_an_imported_snapshot_is_sampled_guided_and_evaluated(
    tiny, tmp_path, edm_files, genkit_, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    snapshot = tmp_path / "network-snapshot-200000.pkl"
    snapshot.write_bytes(edm_files.emitted(edm_files.snapshot(*edm_files.made_up())))
    published = tmp_path / "published.safetensors"
    assert genkit_("import", snapshot, published, "--as", "edm")[0] == 0

    results = tiny.run(IMPORTED)[1]
    (row,) = results["stages"]["scores"]["rows"]
    assert row["guidance_nfe"] > 0
    assert row["frechet_pixels"] > 0
    assert row["curvature"] > 0
    assert tiny.run(IMPORTED)[0].ran == []
    kept = {name: tiny.bytes_of(name) for name in ("discriminator.safetensors", "scores.json")}

    content = published.read_bytes()
    with_one_changed_weight(published)
    depending = ["published", "fakes", "discriminator", "guided", "scores"]
    assert tiny.run(IMPORTED)[0].ran == depending
    assert tiny.run(IMPORTED)[0].ran == []
    assert all(tiny.bytes_of(name) != before for name, before in kept.items())

    published.write_bytes(content)  # the results of the first file come back
    assert tiny.run(IMPORTED)[0].ran == []
    assert all(tiny.bytes_of(name) == before for name, before in kept.items())


def test_the_code_of_the_network_in_the_file_counts(tiny, file, monkeypatch, tmp_path):
    recipe = loading(tiny, file)
    before = fingerprints(tiny.load(recipe), tiny.plugins.registry)
    assert fingerprints(tiny.load(recipe), tiny.plugins.registry) == before
    module = importlib.import_module("genkit_edm.edm")
    edited = tmp_path / "edited.py"
    edited.write_text(Path(module.__file__).read_text() + "\n# edited\n")
    monkeypatch.setattr(module, "__file__", str(edited))
    after = fingerprints(tiny.load(recipe), tiny.plugins.registry)
    assert {stage for stage in before if before[stage] == after[stage]} == set()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), Code.NOT_FOUND),
        (lambda path: (path.unlink(), path.mkdir()), Code.UNREADABLE),
        (lambda path: with_metadata(path, kind="samples"), Code.WRONG_KIND),
        (lambda path: with_metadata(path, kind=["denoiser"]), Code.UNREADABLE),
        (lambda path: with_metadata(path, network='{"use": "nothing"}'), Code.UNKNOWN_COMPONENT),
        (lambda path: with_metadata(path, spec="[]"), Code.UNREADABLE),
        (lambda path: with_metadata(path, spec="[" * 99_999), Code.UNREADABLE),
        (without_a_number, Code.NOT_FINITE),
        (lambda path: without_a_weight(path), Code.CONFLICT),
        (lambda path: path.write_bytes(b""), Code.UNREADABLE),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), Code.UNREADABLE),
        (lambda path: tensors.save(path, tensors.load(path)[0], {}), Code.DATA),
        (
            lambda path: tensors.save(path, tensors.load(path)[0], {"kind": "denoiser"}),
            Code.DATA,
        ),
        (
            lambda path: tensors.save(
                path, tensors.load(path)[0], {**tensors.metadata(path), "images": "many"}
            ),
            Code.UNREADABLE,
        ),
    ],
)
def test_a_file_that_is_no_network_is_refused(tiny, file, damage, reason):
    damage(file)
    with raises_code(RecipeError, reason, "denoiser.path") as caught:
        tiny.load(loading(tiny, file))
    assert "recipe:7" in str(caught.value)  # the line of the path
    (line,) = caught.value.lines  # and nothing about stages that name it
    assert line.count(str(file)) <= 1


@pytest.mark.parametrize("kind", ["discriminator", "classifier", "samples", ""])
def test_a_forged_kind_is_refused(tiny, file, kind):
    with_metadata(file, kind=kind)
    with pytest.raises(RecipeError) as caught:
        tiny.load(LOAD.replace("FILE", str(file)))
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.key) == (7, "denoiser.path")


def test_a_network_of_another_kind_is_refused(tiny, file):
    tiny.run(loading(tiny, file) + tiny.guided + SWEEP)
    discriminator = next(tiny.folder.glob("*/discriminator.safetensors"))
    with raises_code(RecipeError, Code.WRONG_REFERENCE, "samples.denoiser", "discriminator"):
        tiny.load(loading(tiny, discriminator))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("~nobody-of-this-name/d.safetensors", Code.NOT_FOUND),
        ("d" * 300, Code.INVALID_NAME),
        ("", Code.UNREADABLE),
    ],
)
def test_a_path_that_cannot_be_is_refused(tiny, path, code):
    with raises_code(RecipeError, code, "recipe:7", "denoiser.path"):
        tiny.load(loading(tiny, path))


def test_a_file_that_changed_since_the_recipe_was_checked_is_not_loaded(tiny, file):
    class Changing(tiny.recorder):
        def begin(self, number, count, stage, use, resumed):
            with_one_changed_weight(file)

    with raises_code(DataError, Code.CHANGED):
        tiny.run(loading(tiny, file), progress=Changing())
    assert tiny.run(loading(tiny, file))[0].ran == ["denoiser", "samples", "scores"]


def test_a_description_of_a_huge_network_allocates_no_memory(tiny, file, monkeypatch):
    build = Mlp.build

    def watched(self, spec):
        assert torch.empty(()).device.type == "meta"
        return build(self, spec)

    network = json.loads(tensors.metadata(file)["network"])
    with_metadata(file, network=json.dumps({**network, "width": 60_000}))
    monkeypatch.setattr(Mlp, "build", watched)
    with raises_code(RecipeError, Code.CONFLICT, "denoiser.path"):
        tiny.load(loading(tiny, file))


def test_the_design_of_the_file_is_read_once(trained, monkeypatch):
    (path,) = trained.glob("*/denoiser.safetensors")
    stage, calls = Load(path=str(path)), []
    module = importlib.import_module("genkit_stages.load")
    for name in ("design_of", "load_network"):
        inner = getattr(module, name)
        counted = lambda *a, name=name, inner=inner: calls.append(name) or inner(*a)  # noqa: E731
        monkeypatch.setattr(module, name, counted)
    design = stage.design({})
    assert stage.design({}) is design
    assert calls == ["design_of"]  # the weights are read only if the digest is required
    assert not list(stage.check({}))
    assert design.digest == load_network(path, load_plugins().registry).digest
    assert calls == ["design_of", "load_network"]
