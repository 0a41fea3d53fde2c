"""``genkit run --json`` and ``genkit run --dry-run``: one JSON object on stdout for programs."""

from __future__ import annotations

import json
import sys

import pytest

from genkit.errors import Code
from genkit_data.points import Moons

pytestmark = pytest.mark.slow

TINY = (
    *("--set", "denoiser.images=128", "--set", "samples.count=8", "--device", "cpu"),
    *("--set", 'scores.metrics=[{use="curvature", count=4}]'),
)


@pytest.fixture
def json_of(genkit_, tmp_path, monkeypatch):
    """Runs a command in a folder of its own; returns exit code, JSON and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("genkit.run.forecast.MOST_SECONDS", 0.01)

    def call(*arguments):
        code, out, err = genkit_("run", *arguments, "--json")
        return code, json.loads(out), err

    return call


@pytest.mark.usefixtures("coarse_pictures")
def test_a_run_and_its_plan(json_of, tmp_path):
    code, planned, _ = json_of("smoke", *TINY, "--dry-run")
    assert code == 0
    assert not list(tmp_path.iterdir())
    assert [stage["state"] for stage in planned["stages"]] == ["new"] * 3
    assert planned["device"] == "cpu"
    assert planned["stages"][0]["parameters"] == 92418
    assert planned["stages"][0]["seconds"] is None
    assert planned["available"]["disk"] > 0
    keys = [value["key"] for value in planned["settings"]]
    assert "denoiser.images" in keys
    assert "samples.solver" not in keys  # as by default

    code, result, err = json_of("smoke", *TINY)
    assert code == 0
    assert result["folder"] == "runs/smoke"
    assert result["stages"][0] == {
        "id": "denoiser",
        "use": "train",
        "state": "finished",
        "folder": "runs/smoke/01-denoiser",
    }
    assert result["scores"]["scores"][0]["curvature"] > 0
    assert "02-samples/samples.png" in result["pictures"]
    assert "report.html" in err  # what plugins print after a run is on stderr

    _, planned, _ = json_of("smoke", *TINY, "--dry-run", "--measure", "--set", "samples.count=9")
    assert [stage["state"] for stage in planned["stages"]] == ["finished", "changed", "changed"]
    assert planned["stages"][0]["seconds"] > 0


def test_mistakes_are_in_the_json(json_of):
    code, content, err = json_of("smoke", "--set", "samples.count=0")
    assert code == 2
    assert [mistake["code"] for mistake in content["mistakes"]] == [Code.OUT_OF_RANGE]
    assert content["mistakes"][0]["key"] == "samples.count"
    assert "samples.count" in err


@pytest.mark.usefixtures("coarse_pictures")
def test_stages_of_a_run_that_failed_have_their_states(json_of):
    infinite = ("--set", "denoiser.optimizer.learning_rate=1e30", "--set", "denoiser.images=512")
    code, content, _ = json_of("smoke", *TINY, *infinite)
    assert code == 3
    assert [mistake["code"] for mistake in content["mistakes"]] == [Code.DIVERGED]
    assert [stage["state"] for stage in content["stages"]] == ["resume", "new", "new"]
    assert "scores" not in content


def test_a_folder_of_another_run_is_named(json_of, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").touch()
    code, content, _ = json_of("smoke", *TINY, "--out", "here")
    assert code == 2
    assert [mistake["code"] for mistake in content["mistakes"]] == [Code.OCCUPIED]
    assert "stages" not in content


@pytest.mark.parametrize("arguments", [("--measure",), ("--device", "abacus")])
def test_invalid_options_are_in_the_json(genkit_, json_of, arguments):
    code, out, err = genkit_("run", "smoke", *arguments)
    assert (code, out) == (2, "")
    assert arguments[-1] in err
    code, content, _ = json_of("smoke", *arguments)
    assert (code, len(content["mistakes"])) == (2, 1)


@pytest.mark.usefixtures("coarse_pictures")
@pytest.mark.parametrize("more", [("--dry-run",), ()])
def test_what_components_print_is_on_stderr(json_of, monkeypatch, more):
    spec = Moons.spec

    def print_and_return(dataset):
        sys.stdout.write("of a component\n")
        return spec(dataset)

    monkeypatch.setattr(Moons, "spec", print_and_return)
    code, content, err = json_of("smoke", *TINY, *more)
    assert (code, content["name"], "of a component" in err) == (0, "smoke", True)
