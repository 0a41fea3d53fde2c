"""``genkit report``, ``runs`` and ``compare`` of runs with damaged files: named, never shown."""

from __future__ import annotations

import json
import shutil

import pytest

import genkit
from damage import change_state

pytestmark = pytest.mark.slow

SETTINGS = {"denoiser.images": 512, "denoiser.network.width": 8, "samples.count": 32}
SCORE = {"use": "frechet", "extractor": {"use": "pixels"}}
SCORES = "03-scores/scores.json"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    settings = {**SETTINGS, "scores.metrics": [SCORE]}
    return genkit.run_recipe("smoke", out=folder, settings=settings, device="cpu").folder


@pytest.fixture
def run(finished, tmp_path, coarse_pictures):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def report(genkit_, run):
    def text():
        out = run.parent / "report.html"
        assert genkit_("report", run, "--out", out)[0] == 0
        return out.read_text(encoding="utf-8")

    return text


@pytest.mark.parametrize("key", ["images", "loss", "cost_before", "images_per_second", "noises"])
@pytest.mark.parametrize("value", [None, "x", [], {}, float("nan")])
def test_a_damaged_row_of_a_log(run, report, key, value):
    path = run / "01-denoiser" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert any(key in row for row in rows)
    first = True
    for row in rows:
        if key in row and first:
            first = False
            del row[key]
            row |= {} if value is None else {key: value}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "01-denoiser/metrics.jsonl differs from what was written" in report()
    change_state(path.with_name("state.json"), logs=None)  # as of an earlier version
    named = key in ("images", "cost_before") or (key == "loss" and value is not None)
    assert ("are damaged and omitted" in report()) or not named


def test_a_damaged_row_of_a_stage_that_is_not_finished(run, report):
    path = run / "01-denoiser" / "metrics.jsonl"
    (run / "01-denoiser" / "state.json").unlink()
    path.write_text(path.read_text().replace('"images"', '"imagez"', 1))
    assert "are damaged and omitted" in report()


def test_a_changed_digit_of_a_score_is_not_shown(genkit_, run, report, finished):
    path = run / SCORES
    row = json.loads(path.read_text())["rows"][0]
    before = str(row["frechet_pixels"])
    shown = f"{row['frechet_pixels']:.4g}"
    assert shown in report()
    digit = "1" if before[0] != "1" else "2"
    path.write_text(path.read_text().replace(before, digit + before[1:]))
    page = report()
    assert f"{SCORES} differs from what was written" in page
    assert digit + shown[1:] not in page
    listed = json.loads(genkit_("runs", run, "--json")[1])[0]
    assert (listed["state"], listed["best"]) == ("damaged", None)
    code, _, err = genkit_("compare", run, finished)
    assert (code, "scores.json" in err) == (2, True), err


def test_a_changed_recipe_is_damage_of_the_run(genkit_, run, report, finished):
    path = run / "resolved.toml"
    path.write_text(path.read_text().replace("width = 8", "width = 9"))
    assert "resolved.toml has" in report() or "resolved.toml differs" in report()
    assert json.loads(genkit_("runs", run, "--json")[1])[0]["state"] == "damaged"
    for command in (("show", run), ("compare", run, finished)):
        code, _, err = genkit_(*command)
        assert (code, "resolved.toml" in err) == (0, True), err
