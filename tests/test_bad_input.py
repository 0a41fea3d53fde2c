"""Whatever is wrong with a recipe or its data is told at once, and nothing is written.

Every case goes through the command line: exit code 2, the place, the key, the reason and what to
write instead.
"""

from __future__ import annotations

import os
import re

import pytest
from PIL import Image

from genkit.cli import main

pytestmark = pytest.mark.slow

GOOD = """name = "bad"
data = { use = "moons" }

[[stage]]
id = "denoiser"
use = "train"
images = 1000
batch_size = 64
pool_size = 64
network = { use = "mlp" }
objective = { use = "denoising" }
coupler = { use = "random" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
schedule = { use = "edm", steps = 5 }

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "curvature" }]
"""

DISCRIMINATOR = """
[[stage]]
id = "discriminator"
use = "train"
images = 1000
data = { use = "real-and-fake", fakes = "samples" }
network = { use = "mlp-discriminator" }
objective = { use = "discrimination" }
coupler = { use = "hungarian" }
"""


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run a recipe that must be refused; return the lines of the message."""
    monkeypatch.chdir(tmp_path)

    def call(recipe="bad.toml", *arguments):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stopped:
            main(["run", str(recipe), "--device", "cpu", *arguments])
        out, err = capsys.readouterr()
        err = re.sub(r"^.*: checking the recipe\n", "", err)
        assert stopped.value.code == 2
        assert out == ""
        assert err.startswith("Error: ")
        assert "Traceback" not in err
        assert sorted(tmp_path.rglob("*")) == before
        return err.splitlines()

    return call


@pytest.fixture
def mistakes(refused, tmp_path):
    """Write a recipe that must be refused; return its mistakes as (line, key, reason, code)."""

    def call(text):
        (tmp_path / "bad.toml").write_text(text)
        head, *lines = refused()
        count = re.fullmatch(r"Error: (\d+) mistakes? in the recipe:", head)
        pattern = r"  bad\.toml:(\d+): ([^:]+): (.+) \[([a-z-]+)\]"
        found = [re.fullmatch(pattern, line) for line in lines]
        assert count is not None
        assert int(count[1]) == len(found)
        return [(int(match[1]), match[2], match[3], match[4]) for match in found]

    return call


def edited(*changes, text=GOOD):
    """Return the recipe with some of its text replaced."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


ONE = {
    "unknown key": (
        ("pool_size", "pool_sice"),
        (9, "denoiser.pool_sice", "unknown-key", 'did you mean "pool_size"?'),
    ),
    "unknown key of a component": (
        ("steps = 5", "stepz = 5"),
        (18, "samples.schedule.stepz", "unknown-key", 'did you mean "steps"?'),
    ),
    "unknown component": (
        ('use = "mlp"', 'use = "mpl"'),
        (10, "denoiser.network.use", "unknown-component", 'did you mean "mlp"?'),
    ),
    "unknown stage": (
        ('use = "evaluate"', 'use = "evalute"'),
        (22, "scores.use", "unknown-component", 'did you mean "evaluate"?'),
    ),
    "unknown reference": (
        ('samples = "samples"', 'samples = "sample"'),
        (23, "scores.samples", "unknown-stage", 'did you mean "samples"?'),
    ),
    "reference to a stage of another kind": (
        ('samples = "samples"', 'samples = "denoiser"'),
        (23, "scores.samples", "wrong-reference", "suitable: samples"),
    ),
    "reference to a stage below": (
        ('denoiser = "denoiser"', 'denoiser = "scores"'),
        (17, "samples.denoiser", "wrong-reference", "scores"),
    ),
    "text for a number": (
        ("images = 1000", 'images = "1000"'),
        (7, "denoiser.images", "wrong-type", '"1000"'),
    ),
    "fraction for an integer": (
        ("images = 1000", "images = 1000.5"),
        (7, "denoiser.images", "wrong-type", "1000.5"),
    ),
    "number for a component": (
        ('{ use = "mlp" }', "3"),
        (10, "denoiser.network", "not-a-component", 'write { use = "..." }'),
    ),
    "one thing for a list": (
        ('[{ use = "curvature" }]', '{ use = "curvature" }'),
        (24, "scores.metrics", "wrong-type", 'write [{ use = "curvature" }]'),
    ),
    "number for a list of components": (
        ('[{ use = "curvature" }]', "0.5"),
        (24, "scores.metrics", "wrong-type", 'write [{ use = "..." }]'),
    ),
    "more of a class than the pool": (
        ("pool_size = 64", "images_per_class = 65"),
        (9, "denoiser.images_per_class", "conflict", "write at most 64"),
    ),
    "micro-batch larger than the batch": (
        ("pool_size = 64", "micro_batch = 65"),
        (9, "denoiser.micro_batch", "conflict", "write at most 64"),
    ),
    "out of range": (
        ("steps = 5", "steps = 0"),
        (18, "samples.schedule.steps", "out-of-range", "at least 1, got 0"),
    ),
    "not finite": (
        ("pool_size = 64", "optimizer.learning_rate = inf"),
        (9, "denoiser.optimizer.learning_rate", "out-of-range", "got inf"),
    ),
    "setting of an earlier version": (
        ("pool_size = 64", "learning_rate = 0.01"),
        (9, "denoiser.learning_rate", "renamed-key", "write optimizer = { use"),
    ),
    "two settings that contradict each other": (
        ("steps = 5", "sigma_min = 90"),
        (18, "samples.schedule.sigma_min", "conflict", "sigma_max = 80"),
    ),
    "path that is undefined for the range": (
        ("steps = 5 }", 'steps = 5, sigma_min = 0.5 }\nsolver = { use = "heun", path = "vp" }'),
        (19, "samples.solver", "conflict", "at most 0.093"),
    ),
    "missing setting": (
        ("images = 1000\n", ""),
        (4, "denoiser.images", "missing-key", "write images = "),
    ),
    "missing folder": (
        ('use = "moons"', 'use = "image-folder", root = "picturs"'),
        (2, "data", "not-found", 'did you mean "pictures"?'),
    ),
    "labels asked of data without labels": (
        ('data = { use = "moons" }', 'data = { use = "swiss-roll" }'),
        (10, "denoiser.network", "missing-attribute", "class_conditional = false"),
        ('{ use = "mlp" }', '{ use = "mlp", class_conditional = true }'),
    ),
    "pairs by label on data without labels": (
        ('data = { use = "moons" }', 'data = { use = "swiss-roll" }'),
        (12, "denoiser.coupler", "missing-attribute", "labels"),
        ('{ use = "random" }', '{ use = "partitioned", by = ["label"] }'),
    ),
    "label-blind coupler": (
        ('{ use = "random" }', '{ use = "hungarian" }'),
        (12, "denoiser.coupler", "skewed-noise", 'by = ["label"]'),
        ('{ use = "mlp" }', '{ use = "mlp", class_conditional = true }'),
    ),
    "wrong objective": (
        ('use = "denoising"', 'use = "discrimination"'),
        (11, "denoiser.objective", "conflict", "discriminator"),
    ),
    "classifier of points": (
        ('{ use = "mlp" }', '{ use = "cnn-classifier" }'),
        (10, "denoiser.network", "wrong-shape", "images"),
        ('use = "denoising"', 'use = "classification"'),
        (GOOD[GOOD.index('[[stage]]\nid = "samples"') :], ""),
    ),
    "name that is no folder": (
        ('name = "bad"', 'name = "../bad"'),
        (1, "name", "invalid-name", '"../bad"'),
    ),
    "id of two stages": (
        ('id = "scores"', 'id = "samples"'),
        (21, "samples.id", "duplicate", '"samples"'),
    ),
}
"""For each: what is replaced, and line, key, code and a name or a figure of the mistake."""


TOLD_TWICE = {"wrong objective"}
"""Mistakes that are seen from two sides."""


@pytest.mark.parametrize("case", ONE)
def test_a_mistake_is_located_and_explained(mistakes, tmp_path, case):
    first, (line, key, code, told), *more = ONE[case]
    (tmp_path / "pictures").mkdir()
    found = mistakes(edited(first, *more))
    assert any(
        (at, named) == (line, code) and where.startswith(key) and told in said
        for at, where, said, named in found
    ), found
    assert len(found) == (2 if case in TOLD_TWICE else 1), found


def test_a_source_blind_coupler_of_a_discriminator(mistakes):
    ((line, key, said, code),) = mistakes(GOOD + DISCRIMINATOR)
    assert (line, key, code) == (33, "discriminator.coupler", "skewed-noise")
    assert 'by = ["realness"]' in said


def test_a_network_that_reports_a_mistake_is_not_built(mistakes):
    text = (GOOD + DISCRIMINATOR).replace("moons", "digits").replace("hungarian", "random")
    text = text.replace('"mlp-discriminator"', '"scratch", multipliers = []')
    ((_, key, _, code),) = mistakes(text)
    assert (key, code) == ("discriminator.network.multipliers", "wrong-length")


def test_the_remedy_for_a_missing_condition_keeps_the_others(mistakes, tmp_path):
    text = GOOD + DISCRIMINATOR
    for before, after in (
        ('"mlp" }', '"mlp", class_conditional = true }'),
        ('"samples" }', '"samples", labels = true }'),
        ('"mlp-discriminator" }', '"mlp-discriminator", class_conditional = true }'),
        ('{ use = "hungarian" }', '{ use = "partitioned", by = ["label"] }'),
    ):
        text = text.replace(before, after)
    ((_, key, said, code),) = mistakes(text)
    assert (key, code) == ("discriminator.coupler", "skewed-noise")
    remedy = re.search(r"by = \[.+?\]", said)[0]
    (tmp_path / "bad.toml").write_text(text.replace('by = ["label"]', remedy))
    with pytest.raises(SystemExit) as ended:
        main(["validate", "bad.toml"])
    assert ended.value.code in (None, 0)


def test_all_mistakes_of_a_file_are_told_at_once(mistakes):
    text = edited(
        ('name = "bad"', "name = 7\nsead = 1"),
        ("images = 1000", "images = true"),
        ("batch_size = 64", "batch_size = 0"),
        ("pool_size = 64", "pool = 64"),
        ('use = "mlp"', 'use = "mlp", width = "wide", blocks = 0'),
        ('use = "denoising"', 'use = "denoise"'),
        ('use = "random"', 'use = "randon"'),
        ("steps = 5", 'rho = -1, solver = "heun"'),
        ("curvature", "curvatur"),
    )
    found = mistakes(text)
    assert [key for _, key, *_ in found] == [
        "name",
        "sead",
        "denoiser.images",
        "denoiser.batch_size",
        "denoiser.pool",
        *(f"denoiser.network.{key}" for key in ("width", "blocks")),
        "denoiser.objective.use",
        "denoiser.coupler.use",
        *(f"samples.schedule.{key}" for key in ("rho", "solver")),
        "scores.metrics.0.use",
    ]
    lines = [line for line, *_ in found]
    assert lines == sorted(lines)
    assert sum("did you mean" in said for _, _, said, _ in found) >= 4


def test_a_network_that_could_not_be_built_is_refused_before_it_is_built(mistakes):
    (mistake,) = mistakes(edited(('use = "mlp"', 'use = "mlp", blocks = 1_000_000_000')))
    assert (mistake[1], mistake[3]) == ("denoiser.network.blocks", "out-of-range")


# --- the file itself ------------------------------------------------------------------------


def test_not_toml(refused, tmp_path):
    (tmp_path / "bad.toml").write_text(edited(('"moons"', "moons")))
    (_, line) = refused()
    assert re.fullmatch(r"  bad\.toml:2:\d+: .*strings need quotes.* \[syntax\]", line)


def test_not_utf8(refused, tmp_path):
    (tmp_path / "bad.toml").write_bytes(b'name = "bad"\n# caf\xe9\n' + GOOD.encode())
    (line,) = refused()
    assert line.startswith("Error: bad.toml:2: byte 0xe9 at offset 18 is not UTF-8")


def test_100_megabytes(refused, tmp_path):
    (tmp_path / "bad.toml").touch()
    os.truncate(tmp_path / "bad.toml", 100_000_000)
    (line,) = refused()
    assert "has 100,000,000 bytes; a recipe has at most 250,000 bytes" in line


def test_a_folder(refused, tmp_path):
    (tmp_path / "bad.toml").mkdir()
    (line,) = refused()
    assert line == "Error: recipe bad.toml is a folder; name a file in it"


def test_no_file(refused, tmp_path):
    (tmp_path / "good.toml").write_text(GOOD)
    first, *shipped = refused("god.toml")
    assert 'did you mean "good.toml"?' in first
    assert any("edm_aot_dg" in line for line in shipped)


def test_an_override_is_checked_like_the_file(refused, tmp_path):
    (tmp_path / "bad.toml").write_text(GOOD)
    head, *lines = refused("bad.toml", "--set", "samplse.count=3", "--set", "seed=x")
    assert head == "Error: 2 mistakes in the recipe:"
    assert lines[0].startswith("  --set seed=x: seed: ")
    assert lines[0].endswith("[wrong-type]")
    assert lines[1].startswith("  --set samplse.count=3: ")
    assert lines[1].endswith('did you mean "samples"? [unknown-key]')
    (head, line) = refused("bad.toml", "--set", "denoiser.micro_batch=500")
    assert line.startswith("  --set denoiser.micro_batch=500: denoiser.micro_batch: ")
    assert line.endswith("[conflict]")


# --- the data -------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """A folder of four images, in a class each two."""
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 99).save(path)
    return tmp_path / "pictures"


OF_PICTURES = edited(('use = "moons"', 'use = "image-folder", root = "pictures"'))


def test_images_of_differing_size(mistakes, pictures):
    Image.new("L", (8, 9)).save(pictures / "b/4.png")
    ((line, key, said, code),) = mistakes(OF_PICTURES)
    assert (line, key, code) == (2, "data", "wrong-shape")
    assert all(name in said for name in ("pictures/b/4.png", "8x9", "pictures/a/1.png", "8x8"))


def test_grey_images_among_coloured_ones(mistakes, pictures):
    Image.new("RGB", (8, 8)).save(pictures / "b/4.png")
    ((_, _, said, code),) = mistakes(OF_PICTURES)
    assert code == "wrong-shape"
    assert "pictures/b/4.png" in said


def test_an_unreadable_image(mistakes, pictures):
    (pictures / "a/2.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    ((_, key, said, code),) = mistakes(OF_PICTURES)
    assert (key, code) == ("data", "unreadable")
    assert "pictures/a/2.png" in said


def test_a_file_in_the_place_of_a_folder(mistakes, tmp_path):
    (tmp_path / "pictures").write_text("")
    ((_, _, said, code),) = mistakes(OF_PICTURES)
    assert code == "wrong-kind"
    assert "pictures" in said


def test_an_empty_folder(mistakes, tmp_path):
    (tmp_path / "pictures").mkdir()
    assert mistakes(OF_PICTURES)[0][3] == "not-found"


def test_missing_files_of_fashion_mnist(mistakes, tmp_path):
    (tmp_path / "idx").mkdir()
    found = mistakes(edited(('use = "moons"', 'use = "fashion-mnist", root = "idx"')))
    assert found[0][1].startswith("data")
    assert "ubyte" in found[0][2]
