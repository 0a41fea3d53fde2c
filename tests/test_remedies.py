"""Mistakes that people make, each with its code, its place and what to write instead.

The place is file, line and key, or the argument of the command line. Of the remedy a test has the
key, the value or the command that it names; wording may change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genkit.cli import main

RECIPE = """name = "points"
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

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "curvature" }]
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
        edited('{ use = "mlp" }', '{\n  use = "mlp",\n  width = 8,\n}'),
        ("syntax", 10, "denoiser.network", 'network = { use = "mlp", width = 8 }'),
    ),
    "a comma at the end of an inline table": (
        edited('"mlp" }', '"mlp", }'),
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
