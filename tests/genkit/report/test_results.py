from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from genkit.artifacts import SamplingCost, SamplingCosts
from genkit.artifacts.scores import settings_of
from genkit.parts.figure import number
from genkit.report.results import gather, print_results


@pytest.fixture
def folder(tmp_path):
    samples, scores = tmp_path / "01-samples", tmp_path / "02-scores"
    samples.mkdir()
    scores.mkdir()
    (samples / "samples.png").write_bytes(b"")
    (samples / "samples.safetensors").write_bytes(b"")
    (scores / "curvature.png").write_bytes(b"")
    rows = [
        {"schedule.rho": 7.0, "nfe": 13, "guidance_nfe": 0, "frechet": 0.4381234},
        {"schedule.rho": 90.0, "nfe": 13, "guidance_nfe": 7, "frechet": 1812.25},
    ]
    content = {
        "rows": rows,
        "facts": {"frechet": {"extractor": "classifier [sha256:ab]"}},
        "curves": {},
    }
    (scores / "scores.json").write_text(json.dumps(content))
    return tmp_path


def gathered(folder):
    stages = {"samples": folder / "01-samples", "scores": folder / "02-scores"}
    return gather(folder, stages)


def test_scores_and_pictures_of_all_stages_are_gathered(folder):
    results = gathered(folder)
    assert list(results["stages"]) == ["scores"]
    assert results["stages"]["scores"]["rows"][0]["frechet"] == 0.4381234
    assert results["stages"]["scores"]["facts"]["frechet"] == {
        "extractor": "classifier [sha256:ab]"
    }
    assert results["pictures"] == ["01-samples/samples.png", "02-scores/curvature.png"]
    assert json.loads(json.dumps(results)) == results


def printed(folder, width=10_000):
    stream = io.StringIO()
    print_results(Console(file=stream, width=width), gathered(folder), folder)
    return stream.getvalue()


def test_the_report_shows_scores_and_pictures(folder):
    text = printed(folder)
    lines = [line.split() for line in text.splitlines()]
    assert ["Scores", "of", "scores"] in lines
    assert ["schedule.rho", "nfe", "guidance_nfe", "frechet"] in lines
    assert ["7", "13", "0", "0.4381"] in lines
    assert ["90", "13", "7", "1812"] in lines
    assert "frechet: extractor classifier [sha256:ab]" in text
    assert f"  {folder}/01-samples/samples.png\n" in text
    assert text.endswith(f"Everything is in {folder}\n")


def cost(**others):
    known = {
        "images": 100,
        "calls": {"denoiser": 13},
        "nfe_equivalents": 13.0,
        "gflop_per_image": 2.5,
        "gflop_per_call": 0.2,
        "seconds_per_image": 0.125,
        "images_timed": 100,
        "device": "cpu, x86",
        "threads": 1,
        "processes": 1,
        "batch_size": 64,
    }
    return SamplingCost(**{**known, **others})


def test_costs_are_beside_the_scores(folder):
    rows = [cost(), cost(nfe_equivalents=20.5, images_timed=60, processes=2, notes=("as it is",))]
    SamplingCosts(rows).save(folder / "02-scores" / "cost.json")
    assert "cost" not in json.dumps(gathered(folder))
    text = printed(folder)
    lines = [line.split() for line in text.splitlines()]
    names = ["schedule.rho", "nfe", "guidance_nfe", "equivalents", "GFLOP/image", "s/image"]
    assert [*names, "frechet"] in lines
    assert ["7", "13", "0", "13", "2.5", "0.125", "0.4381"] in lines
    assert ["90", "13", "7", "20.5", "2.5", "0.125", "1812"] in lines
    assert "s/image: cpu, x86, 1 thread, batches of 64\n" in text
    assert "2 processes, batches of 64, over 60 of 100 samples\n" in text
    assert text.count("cost: as it is") == 1
    SamplingCosts([cost(batch_size=None, threads=2)] * 2).save(folder / "02-scores" / "cost.json")
    assert "s/image: cpu, x86, 2 threads\n" in printed(folder)


def test_costs_have_a_table_of_their_own_in_a_narrow_terminal(folder):
    SamplingCosts([cost(), cost()]).save(folder / "02-scores" / "cost.json")
    lines = [line.split() for line in printed(folder, width=65).splitlines()]
    assert ["90", "13", "7", "1812"] in lines
    assert ["90", "13", "2.5", "0.125"] in lines


SEVERAL = {
    f"{name}_of_a_metric{end}": value
    for name in ("first", "second", "third", "fourth")
    for end, value in (("", 1.8234), ("_std", 0.0316), ("_min", 1.79))
}


def scored(folder, *rows):
    content = {"rows": [{**row, "nfe": 13, **SEVERAL} for row in rows], "facts": {}, "curves": {}}
    (folder / "02-scores" / "scores.json").write_text(json.dumps(content))


def test_a_mean_has_its_deviation_beside_it_and_the_minimum_is_in_files(folder):
    scored(folder, {})
    text = printed(folder)
    assert text.count("1.823 ± 0.032") == 4
    assert "_std" not in text
    assert "_min" not in text
    assert gathered(folder)["stages"]["scores"]["rows"][0]["fourth_of_a_metric_min"] == 1.79


def test_scores_of_one_row_are_below_each_other_in_a_narrow_terminal(folder):
    scored(folder, {})
    SamplingCosts([cost()]).save(folder / "02-scores" / "cost.json")
    lines = [line.split() for line in printed(folder, width=60).splitlines()]
    assert ["nfe", "13"] in lines
    assert ["fourth_of_a_metric", "1.823", "±", "0.032"] in lines
    assert ["GFLOP/image", "2.5"] in lines


def test_many_scores_are_divided_and_each_part_has_the_settings(folder):
    scored(folder, {"schedule.rho": 7}, {"schedule.rho": 90})
    text = printed(folder, width=40)
    assert max(map(len, text.partition("Pictures")[0].splitlines())) <= 40
    rows = [line.split() for line in text.splitlines() if line.startswith(("7", "90"))]
    assert [row[0] for row in rows] == ["7", "90"] * (len(rows) // 2)
    assert sum(row.count("1.823") for row in rows) == 8


def test_a_cost_that_is_unknown_is_left_out(folder):
    nothing = {"nfe_equivalents": None, "gflop_per_image": None, "seconds_per_image": None}
    rows = [cost(**nothing), cost(**{**nothing, "gflop_per_image": 3.5}, batch_size=None)]
    SamplingCosts(rows).save(folder / "02-scores" / "cost.json")
    lines = [line.split() for line in printed(folder).splitlines()]
    assert ["schedule.rho", "nfe", "guidance_nfe", "GFLOP/image", "frechet"] in lines
    assert ["7", "13", "0", "0.4381"] in lines
    assert ["90", "13", "7", "3.5", "1812"] in lines


def test_costs_of_other_rows_are_not_shown(folder):
    SamplingCosts([cost()]).save(folder / "02-scores" / "cost.json")
    assert "equivalents" not in printed(folder)


def test_paths_are_whole_in_a_narrow_terminal(folder):
    assert f"  {folder}/01-samples/samples.png\n" in printed(folder, width=20)


def test_the_settings_are_the_columns_before_the_counts():
    rows = [
        {"seed": 1, "schedule.rho": 7, "nfe": 3, "truncation.5": 2.0},
        {"x": 1, "guidance_nfe": 0, "nfe": 3},
    ]
    assert settings_of(rows) == ["seed", "schedule.rho", "x"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (13, "13"),
        (7.0, "7"),
        (0.43812, "0.4381"),
        (1.5e-7, "1.5e-07"),
        ("a", "a"),
        (-2.0, "-2"),
    ],
)
def test_cells_are_short_and_exact_where_they_can_be(value, text):
    assert number(value) == text
