"""``genkit new plugin``: each kind gives a package whose tests pass and that recipes can use."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import genkit
from genkit.errors import Code, UsageError
from genkit.plugin.kinds import KINDS
from genkit.plugin.manager import load_plugins
from genkit_author.examples import read_examples
from genkit_author.new_plugin import check_kind, check_name, package_files, write_package
from raising import raises_code

pytestmark = pytest.mark.slow

USED = {
    "coupler": "denoiser.coupler={}",
    "preconditioner": "denoiser.network.preconditioner={}",
    "noise-distribution": "denoiser.objective.noise_distribution={}",
    "optimizer": "denoiser.optimizer={}",
    "average": "denoiser.average={}",
    "callback": 'denoiser.callbacks=[{{use="{}", every=64}}]',
    "schedule": "samples.schedule={}",
    "solver": "samples.solver={}",
    "latents": "samples.latents={}",
    "metric": 'scores.metrics=["{}"]',
}
"""Kinds that one recipe uses, each with its setting."""


@pytest.fixture(scope="module")
def examples():
    return read_examples()


@pytest.fixture(scope="module")
def written(tmp_path_factory, examples, installed):
    """The folder with a package ``genkit-my-KIND`` of every kind, all on the path."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for kind in KINDS:
            package = folder / f"genkit-my-{kind}"
            write_package(package, package_files(kind, f"my-{kind}", examples))
            installed(package, folder / "site" / kind, monkeypatch)
        yield folder


def passed(folder: Path, kinds: list[str]) -> int:
    """Return the number of tests of packages that pass, in a process of its own."""
    tests = [str(folder / f"genkit-my-{kind}" / "tests") for kind in kinds]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return int(done.stdout.splitlines()[-1].split()[0])


def test_tests_of_all_packages_pass(written):
    assert passed(written, list(KINDS)) == len(KINDS)


@pytest.mark.usefixtures("coarse_pictures")
def test_packages_are_loaded_and_used_in_a_recipe(written, tmp_path):
    names = {s.owner.distribution for s in load_plugins().loaded}
    assert {f"genkit-my-{kind}" for kind in KINDS} <= names
    settings = {"denoiser.images": 256, "samples.count": 8}
    for kind, change in USED.items():
        key, _, value = change.format(f"my-{kind}").partition("=")
        settings[key] = tomllib.loads(f"x = {value}")["x"] if value[0] == "[" else value
    result = genkit.run_recipe("smoke", out=tmp_path / "run", settings=settings)
    (row,) = result.scores["scores"]
    assert "my-metric" in row
    resolved = (tmp_path / "run" / "resolved.toml").read_text(encoding="utf-8")
    assert all(f'use = "my-{kind}"' in resolved for kind in USED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_about_its_component_alone(examples, kind):
    files = package_files(kind, "own-part", examples)
    example = examples.example(kind)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["entry-points"]["genkit.plugins"] == {"own-part": "genkit_own_part"}
    assert set(files) == {
        "pyproject.toml",
        "README.md",
        "genkit_own_part/__init__.py",
        f"genkit_own_part/{kind.replace('-', '_')}.py",
        "tests/test_own_part.py",
    }
    code = files[f"genkit_own_part/{kind.replace('-', '_')}.py"]
    assert "class OwnPart(" in code
    assert f"class {example.cls}(" not in code
    assert f'"{example.name}"' not in files["README.md"]
    assert "own-part" in files["README.md"].partition("```\n\n")[2]  # in a recipe or a command


@pytest.mark.parametrize(
    ("kind", "name", "cls"),
    [
        ("coupler", "coupler", "CouplerCoupler"),
        ("coupler", "pairs", "PairsCoupler"),
        ("schedule", "none", "NoneSchedule"),
        ("solver", "exception", "ExceptionSolver"),
        ("solver", "my-2nd", "My2nd"),
    ],
)
def test_a_class_shadows_no_other_name(examples, kind, name, cls):
    files = package_files(kind, name, examples)
    assert f"class {cls}(" in "".join(files.values())
    for path, text in files.items():
        if path.endswith(".py"):
            compile(text, path, "exec")


@pytest.mark.parametrize(
    "name", ["", "Mine", "my_part", "2d", "a--b", "-a", "a b", "../a", "a" * 61]
)
def test_a_name_of_other_characters_is_refused(name):
    with raises_code(UsageError, Code.INVALID_NAME):
        check_name("coupler", name, load_plugins().registry)


def test_a_name_that_is_taken_is_refused():
    registry = load_plugins().registry
    with raises_code(UsageError, Code.DUPLICATE, "aot"):
        check_name("coupler", "hungarian", registry)
    with raises_code(UsageError, Code.DUPLICATE, "genkit_data"):
        check_name("dataset", "data", registry)
    check_name("solver", "hungarian", registry)  # of another kind
    with raises_code(UsageError, Code.DUPLICATE, "genkit-diffusion"):
        check_name("coupler", "diffusion", registry)  # would replace genkit itself


def test_the_nearest_kind_is_suggested():
    with raises_code(UsageError, Code.UNKNOWN_CHOICE, "noise-distribution"):
        check_kind("noise-distributoin")
    with raises_code(UsageError, Code.UNKNOWN_CHOICE, *KINDS):
        check_kind("x")


def test_a_folder_is_not_written_twice(genkit_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = genkit_("new", "plugin", "solver", "mine")
    assert code == 0
    assert "genkit-mine" in out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert genkit_("new", "plugin", "coupler", "mine")[0] == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with raises_code(UsageError, Code.OCCUPIED):
        write_package(tmp_path / "genkit-mine", {})


def test_a_folder_that_cannot_be_written_is_refused(genkit_, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = genkit_("new", "plugin", "solver", "mine", "--out", tmp_path / "file" / "mine")
    assert code == 2
    assert "--out" in err
    assert genkit_("new", "plugin", "solvr", "mine", "--out", tmp_path / "mine")[0] == 2
    assert not (tmp_path / "mine").exists()


def test_a_full_disk_leaves_no_part_of_a_package(genkit_, tmp_path, monkeypatch):
    write = Path.write_text

    def full(path, *args, **kwargs):
        if path.name == "README.md":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    code, _, err = genkit_("new", "plugin", "solver", "mine", "--out", tmp_path / "mine")
    assert code == 2
    assert "free some space" in err
    assert not (tmp_path / "mine").exists()


def test_the_score_of_a_metric_has_the_name_of_the_plugin(examples):
    files = package_files("metric", "sharpness", examples)
    assert 'scores = ("sharpness",)' in files["genkit_sharpness/metric.py"]


def test_a_page_that_is_missing_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("genkit_author.examples.__file__", str(tmp_path / "a" / "b" / "c.py"))
    with raises_code(UsageError, Code.NOT_FOUND):
        read_examples()
