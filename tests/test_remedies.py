"""Mistakes that people make, each with its code, its place and what to write instead.

The place is file, line and key, or the argument of the command line. Of the remedy a test has the
key, the value or the command that it names; wording may change.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from genkit.artifacts import Record
from genkit.artifacts.layout import METRICS
from genkit.cli import main
from genkit.errors import Code, RecipeError, UsageError
from genkit.files import write_text
from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.run.folder import RunFolder
from raising import raises_code

pytestmark = pytest.mark.slow

RECIPE = """name = "points"
data = { use = "moons" }

[[stage]]
id = "denoiser"
use = "train"
images = 1000
batch_size = 64
pool_size = 64
network = { use = "mlp", width = 32 }
objective = { use = "denoising" }
coupler = { use = "random" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "curvature" }]
"""


LOADING = """name = "loading"

[[stage]]
id = "denoiser"
use = "load"
path = "net.safetensors"
"""


@pytest.fixture
def mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Validate a recipe; return its mistakes as ``genkit validate --json`` prints them."""
    monkeypatch.chdir(tmp_path)

    def found(text: str, *settings: str) -> list[dict[str, Any]]:
        (tmp_path / "points.toml").write_text(text)
        options = [part for setting in settings for part in ("--set", setting)]
        with pytest.raises(SystemExit) as stopped:
            main(["validate", "points.toml", "--json", *options])
        listed: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        assert stopped.value.code == (2 if listed else 0)
        return listed

    return found


def edited(old: str, new: str) -> str:
    """Return the recipe with some of its text replaced, once."""
    assert old in RECIPE
    return RECIPE.replace(old, new, 1)


FILE = {
    "one table for the stages": (
        edited("[[stage]]", "[stage]"),
        ("syntax", 4, "stage", "[[stage]]"),
    ),
    "an inline table over several lines": (
        edited('{ use = "mlp", width = 32 }', '{\n  use = "mlp",\n  width = 8,\n}'),
        ("syntax", 10, "denoiser.network", 'network = { use = "mlp", width = 8 }'),
    ),
    "a comma at the end of an inline table": (
        edited("32 }", "32, }"),
        ("syntax", 10, "denoiser.network", "comma"),
    ),
    "thousands with a suffix": (
        edited("1000", "2k"),
        ("syntax", 7, "denoiser.images", "2_000"),
    ),
    "an unquoted word": (
        edited('"sample"', "sample"),
        ("syntax", 16, "samples.use", '"sample"'),
    ),
    "a float for an integer": (
        edited("1000", "2e3"),
        ("wrong-type", 7, "denoiser.images", "2000"),
    ),
    "a number in quotes": (
        edited("1000", '"2_000"'),
        ("wrong-type", 7, "denoiser.images", "2000"),
    ),
    "a key of the recipe at the end of the file": (
        RECIPE + 'device = "cpu"\n',
        ("unknown-key", 24, "scores.device", 'device = "cpu" above the first [[stage]]'),
    ),
    "a list of stages that is misspelt": (
        RECIPE.replace("[[stage]]", "[[stages]]"),
        ("unknown-key", 4, "stages", "[[stage]]"),
    ),
    "the name of a score for its metric": (
        edited('"curvature"', '"fid"'),
        (
            "unknown-component",
            23,
            "scores.metrics.0.use",
            '{ use = "frechet", extractor = { use = "inception" } }',
        ),
    ),
    "a solver for a coupler": (
        edited('{ use = "random" }', '"heun"'),
        ("unknown-component", 12, "denoiser.coupler", "hungarian"),
    ),
    "one list of stages that is misspelt": (
        edited('[[stage]]\nid = "scores"', '[[stages]]\nid = "scores"'),
        ("unknown-key", 19, "stages", '"stage"'),
    ),
    "a value of an earlier version": (
        edited('"random" }', '"partitioned", by = ["source"] }'),
        ("unknown-choice", 12, "denoiser.coupler.by.0", '"realness"'),
    ),
    "a list for a component": (
        edited('{ use = "random" }', '["random"]'),
        ("not-a-component", 12, "denoiser.coupler", '{ use = "..." }'),
    ),
    "a later format": (
        "format = 2\n" + edited("images", "imagse"),
        ("unsupported-format", 1, "format", "reads format 2"),
    ),
    "an unknown format": (
        "format = 0\n" + RECIPE,
        ("unsupported-format", 1, "format", "write 1"),
    ),
    "a boolean of Python": (
        edited("64\npool", "True\npool"),
        ("syntax", 8, "denoiser.batch_size", "true"),
    ),
}
"""By name: the recipe; code, line and key of its mistake, and what the remedy names."""


@pytest.mark.parametrize("case", FILE)
def test_a_mistake_in_the_file(mistakes, case: str) -> None:
    text, (code, line, key, remedy) = FILE[case]
    (found,) = mistakes(text)
    place = (found["code"], found["file"], found["line"], found["key"])
    assert place == (code, "points.toml", line, key)
    assert remedy in found["suggestion"]


def test_a_path_that_is_nowhere_names_both_places(mistakes, tmp_path: Path, monkeypatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "pictures").mkdir()
    data = '{ use = "image-folder", root = "picturs" }'
    (tmp_path / "recipe.toml").write_text(edited('{ use = "moons" }', data))
    monkeypatch.chdir(elsewhere)
    with raises_code(
        RecipeError, Code.NOT_FOUND, "recipe.toml:2", tmp_path / "picturs", elsewhere / "picturs"
    ):
        load_recipe(read_source("../recipe.toml"), load_plugins())


def test_a_missing_file_of_a_network_names_both_places(tmp_path: Path, monkeypatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "recipe.toml").write_text(LOADING)
    monkeypatch.chdir(elsewhere)
    names = (tmp_path / "net.safetensors", elsewhere / "net.safetensors")
    with raises_code(RecipeError, Code.NOT_FOUND, "recipe.toml:6: denoiser.path", *names):
        load_recipe(read_source("../recipe.toml"), load_plugins())


COMMAND_LINE = {
    "a suffix": (
        ("denoiser.images=2k",),
        ("wrong-type", "denoiser.images=2k", "denoiser.images", "2_000"),
    ),
    "a key without its stage": (
        ("images=5",),
        ("unknown-key", "images=5", None, "denoiser.images=5"),
    ),
    "a key of two settings": (
        ("steps=3",),
        (
            "ambiguous",
            "steps=3",
            None,
            "samples.schedule.steps=3 or scores.metrics.0.schedule.steps=3",
        ),
    ),
    "a component that requires a setting": (
        ("data.use=image-folder",),
        ("missing-key", "data.use=image-folder", "data.root", "root ="),
    ),
    "a component that does not fit the data": (
        ("denoiser.images=2000", "denoiser.network=ddpmpp", "seed=1"),
        ("wrong-shape", "denoiser.network=ddpmpp", "denoiser.network", "images"),
    ),
    "a component that lacks a setting of the file": (
        ("denoiser.network.use=ddpmpp", "seed=1"),
        (
            "unknown-key",
            "denoiser.network.use=ddpmpp",
            "denoiser.network.width",
            "denoiser.network=ddpmpp",
        ),
    ),
    "an item of a list without items": (
        ("samples.guidance.0.weight=2",),
        ("wrong-type", "samples.guidance.0.weight=2", "samples.guidance", '[{ use = "..." }]'),
    ),
    "a number for a text": (
        ("name=5",),
        ("wrong-type", "name=5", "name", "--set 'name=\"5\"'"),
    ),
    "a stage without a key": (
        ("denoiser=random",),
        ("unknown-key", "denoiser=random", None, "denoiser.KEY=VALUE"),
    ),
    "two settings that contradict each other": (
        ("denoiser.batch_size=32", "denoiser.micro_batch=64", "denoiser.images=2000"),
        ("conflict", "denoiser.micro_batch=64", "denoiser.micro_batch", "32"),
    ),
    "a key below a number": (
        ("denoiser.images.x=3",),
        ("unknown-key", "denoiser.images.x=3", None, "without the name"),
    ),
    "a word for no value": (
        ("denoiser.micro_batch=none",),
        ("syntax", "denoiser.micro_batch=none", None, "remove the setting"),
    ),
    "a key below a setting that is no component": (
        ("samples.denoiser.x=1",),
        ("unknown-key", "samples.denoiser.x=1", "samples.denoiser.x", "denoiser=VALUE"),
    ),
    "a key of the recipe in a stage": (
        ("samples.seed=1",),
        ("unknown-key", "samples.seed=1", "samples.seed", "seed = 1 above the first [[stage]]"),
    ),
}
"""By name: what follows --set; code, the one that is wrong, its key, and the remedy."""


@pytest.mark.parametrize("case", COMMAND_LINE)
def test_a_mistake_after_set(mistakes, case: str) -> None:
    settings, (code, override, key, remedy) = COMMAND_LINE[case]
    (found,) = mistakes(RECIPE, *settings)
    place = (found["code"], found["file"], found["override"], found["key"])
    assert place == (code, None, override, key)
    assert remedy in (found["suggestion"] or found["message"])


def test_a_mistake_of_the_file_is_not_blamed_on_set(mistakes) -> None:
    (found,) = mistakes(edited("1000", "0"), "seed=1", "samples.count=9")
    assert (found["file"], found["line"], found["override"]) == ("points.toml", 7, None)


def test_what_checks_find_once_they_run_is_not_blamed_on_set(mistakes) -> None:
    text = edited('data = { use = "moons" }\n', "").replace("pool_size = 64", "micro_batch = 65")
    (found,) = mistakes(text, "data=moons", "seed=1")
    assert (found["code"], found["line"], found["override"]) == ("conflict", 8, None)
    # The network fits until the second setting.
    text = text.replace("65", "64")
    (found,) = mistakes(text, "data=moons", "denoiser.network=ddpmpp", "seed=1")
    assert (found["code"], found["override"]) == ("wrong-shape", "denoiser.network=ddpmpp")
    (found,) = mistakes(text, "data=moons", "denoiser.batch_size=32", "seed=1")
    assert (found["code"], found["override"]) == ("conflict", "denoiser.batch_size=32")


def test_a_stage_is_not_replaced_by_another(mistakes) -> None:
    found = mistakes(RECIPE, "denoiser.use=sample")
    assert found
    assert not [m for m in found if "denoiser=sample" in (m["suggestion"] or "")]


COMMANDS = {
    "a recipe for a network's file": (
        ("sample", "points.toml"),
        ("CHECKPOINT", "points.toml", "genkit run points.toml", "genkit export"),
    ),
    "a shipped recipe for a network's file": (
        ("sample", "edm_aot", "--out", "x"),
        ("CHECKPOINT", "edm_aot", "genkit run edm_aot", "genkit export"),
    ),
    "a run that is not there": (
        ("export", "nofolder"),
        ("RUN", "nofolder", "runs/points"),
    ),
    "a file for a run": (
        ("export", "points.toml", "x.safetensors"),
        ("RUN", "points.toml", "runs/points"),
    ),
    "one run twice in a report": (
        ("report", "runs/points", "runs/points"),
        ("RUN", "runs/points"),
    ),
    "a data set that cannot be downloaded": (
        ("data", "get", "mnist"),
        ("NAME", "mnist", "cifar10", "fashion-mnist"),
    ),
}
"""By name: the command, and what its message names: the argument, its value, what to write."""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command that must be refused, in a folder with a recipe and a run; return stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "points.toml").write_text(RECIPE)
    (tmp_path / "runs" / "points").mkdir(parents=True)
    write_text(tmp_path / "runs" / "points" / "state.json", '{"name": "points"}')

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        out, err = capsys.readouterr()
        assert (stopped.value.code, out) == (2, "")
        assert "Error: " in err
        assert "Traceback" not in err
        return err

    return refused


@pytest.mark.parametrize("case", COMMANDS)
def test_a_mistake_in_a_command(command, case: str) -> None:
    arguments, names = COMMANDS[case]
    err = command(*arguments)
    assert all(name in err for name in names), err


def test_a_second_run_in_a_folder_names_the_first(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "points")
    names = (tmp_path, f"process {os.getpid()}", socket.gethostname(), "--out")
    with (
        folder.locked(),
        raises_code(UsageError, Code.IN_USE, *names) as caught,
        folder.locked(),
    ):
        pass
    assert " since 20" in str(caught.value)
    assert not list(tmp_path.glob(".running*"))


def test_a_full_disk_names_the_file(command, tmp_path: Path, monkeypatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    err = command("run", "points.toml", "--device", "cpu", "--set", "denoiser.images=64")
    assert "runs/points/" in err
    assert "No space left on device" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_names_the_rows(tmp_path: Path) -> None:
    record = Record("denoiser", tmp_path, None)
    record.log({"loss": 1.0})
    (tmp_path / METRICS).unlink()
    (tmp_path / METRICS).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        record.log({"loss": 1.0})
    assert caught.value.filename == str(tmp_path / METRICS)
