"""The page of a run: whole, in one file, the same for the same run, and for runs of any state."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import genkit
from genkit.errors import Code, UsageError
from genkit.parts.grid import grid
from genkit.parts.no_stages import NoStages
from genkit.plugin import Run, Samples, to_float
from genkit_report.blocks import Table
from genkit_report.charts import Line, line_chart
from genkit_report.page import render
from genkit_report.pictures import _data_of, compare_with_data, nearest
from genkit_report.report_command import report
from genkit_report.view import View
from raising import raises_code

RECIPE = """name = "digits"
data = { use = "digits" }

[[stage]]
id = "denoiser"
use = "train"
images = 512
batch_size = 64
pool_size = 64
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }
coupler = { use = "hungarian" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 16
start = "noise"
schedule = { use = "edm", steps = 3 }

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "frechet", extractor = { use = "pixels" } }, { use = "curvature", count = 4 }]

[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
count = 16
sets = 2
vary.schedule.steps = [2, 3]
metrics = [{ use = "frechet", extractor = { use = "pixels" } }]
"""
VOID = {"meta", "link", "img", "br", "use", "path", "rect"}


class Page(HTMLParser):
    """The tags of a page with their attributes; a tag that is not closed is an error."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "recipe.toml").write_text(RECIPE)
    return genkit.run_recipe(folder / "recipe.toml", out=folder / "digits").folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "digits")


def rendered(*folders):
    return render([View(Run.load(folder)) for folder in folders])


def test_a_page_is_one_file_without_requests(finished):
    text = rendered(finished)
    page = Page(text)
    links = [a[k] for _, a in page.tags for k in ("src", "href", "xlink:href") if k in a]
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not page.all("script")
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(text) < 5_000_000


def test_a_page_has_what_the_run_has(finished):
    page = Page(rendered(finished))
    text = " ".join(page.texts)
    for part in ("Samples", "Scores", "Curves of metrics", "Training", "Pairs", "Recipe"):
        assert part in page.texts
    (row,) = json.loads((finished / "results.json").read_text())["stages"]["scores"]["rows"]
    for name, value in row.items():
        assert name in text or name.endswith("nfe")
        assert f"{value:.4g}" in text
    assert RECIPE in page.texts


def test_pictures_and_charts_have_descriptions_and_data(finished):
    page = Page(rendered(finished))
    assert page.all("img")
    assert all(image["alt"] for image in page.all("img"))
    charts = [a for a in page.all("div") if a.get("class") == "chart"]
    assert charts
    assert all(chart["aria-label"] for chart in charts)
    assert len(page.all("details")) >= len(charts)
    assert [a for a in page.all("html") if a.get("lang") == "en"]


def test_samples_of_the_same_seeds_are_those_of_the_denoiser(finished):
    (path,) = finished.glob("*/denoiser.safetensors")
    denoiser = genkit.load_denoiser(path, "cpu")
    rows = [
        denoiser.sample(16, schedule={"use": "edm", "steps": n}, start="noise")
        for n in (3, 5, 9, 18)
    ]
    assert base64.b64encode(grid(torch.cat(rows), 16)).decode() in rendered(finished)


def test_few_samples_are_shown_with_as_many_images_of_the_data(run):
    path = run / "02-samples" / "samples.safetensors"
    samples = Samples.load(path)
    few = replace(samples, batch=samples.batch[:5])
    few.save(path)
    view = View(Run.load(run))
    picture, table = compare_with_data(view, few, "few")
    assert len(table.rows) == 5
    data = genkit.component("dataset", "digits").load(NoStages()).data
    rows = [data[:5], few.batch.data, data[[int(row[1]) for row in table.rows]]]
    assert picture.png == grid(torch.cat([to_float(row) for row in rows]), 5)


def test_samples_that_would_take_long_are_left_out(run):
    cost = run / "02-samples" / "cost.json"
    content = json.loads(cost.read_text())
    content["rows"][0]["seconds_per_image"] = 60.0
    cost.write_text(json.dumps(content))
    assert "samples with 3, 5, 9 and 18 steps are omitted" in rendered(run)


def test_a_run_has_one_page(finished):
    assert rendered(finished) == rendered(finished)


def test_runs_are_compared(finished, run):
    recipe = run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('"hungarian"', '"random"'))
    run = run.rename(run.parent / "other")
    text = " ".join(Page(rendered(finished, run)).texts)
    assert '-coupler = { use = "hungarian" }' in text
    assert '+coupler = { use = "random" }' in text
    assert "other, sweep" in text
    assert "other: scores: " in text  # the warning of a metric, with its run


def test_a_run_that_stopped_has_a_page(run):
    for stage in run.glob("0[34]-*"):
        shutil.rmtree(stage)
    for name in ("environment.json", "results.json"):
        (run / name).unlink()
    text = " ".join(Page(rendered(run)).texts)
    assert "2 of 4 stages" in text
    assert "environment.json" in text


def test_warnings_of_a_run_are_on_the_page(finished):
    """The metric warns of few samples."""
    rows = (finished / "03-scores" / "warnings.jsonl").read_text().splitlines()
    text = " ".join(Page(rendered(finished)).texts)
    assert rows
    for row in rows:
        assert text.count(f"scores: {json.loads(row)['warning']}") == 1


def test_a_damaged_file_is_named(run):
    (run / "03-scores" / "scores.json").write_text("{")
    text = " ".join(Page(rendered(run)).texts)
    assert "03-scores/scores.json" in text


def test_text_of_a_run_is_no_markup(run):
    (run / "recipe.toml").write_text("# <script>alert(1)</script>\n")
    page = Page(rendered(run))
    assert not page.all("script")
    assert "# <script>alert(1)</script>\n" in page.texts


def test_the_page_lies_in_the_run(run, tmp_path, monkeypatch):
    report([run])
    assert (run / "report.html").is_file()
    assert Run.load(run).state == "finished"
    report([run], tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == (run / "report.html").read_text()


def test_what_cannot_be_reported(tmp_path, run):
    with raises_code(UsageError, Code.WRONG_KIND):
        report([tmp_path])
    with raises_code(UsageError, Code.UNKNOWN_CHOICE):
        report([run], tmp_path / "page.txt")
    with raises_code(UsageError, Code.IO_ERROR, "absent"):
        report([run], tmp_path / "absent" / "page.html")
    with raises_code(UsageError, Code.DUPLICATE):
        report([run, run])


def test_the_nearest_items_are_those_of_numpy():
    g = torch.Generator().manual_seed(0)
    samples, data = torch.rand(5, 1, 3, 3, generator=g), torch.rand(9_000, 1, 3, 3, generator=g)
    distances, places = nearest(samples, data)
    a, b = samples.flatten(1).double().numpy(), data.flatten(1).double().numpy()
    each = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    np.testing.assert_array_equal(places, each.argmin(1))
    np.testing.assert_allclose(distances, each.min(1), rtol=1e-6)


def test_a_chart_has_the_numbers_that_it_draws():
    line = Line("loss", [1, 2, 3], [4.0, 5.0, 6.0], [0.5, 0.5, 0.25])
    chart = line_chart("Loss", [line], "images", "value")
    assert chart.table == Table(
        "Data",
        ("line", "images", "value"),
        [
            ("loss", "1", "4 ± 0.5"),
            ("loss", "2", "5 ± 0.5"),
            ("loss", "3", "6 ± 0.25"),
        ],
    )
    assert "currentColor" in chart.svg
    assert "<text" in chart.svg


def test_data_from_other_stages_is_a_problem_of_the_page():
    data = {"use": "real-and-fake", "real": {"use": "digits"}, "fakes": "samples"}
    stage = SimpleNamespace(settings={"data": data})
    run = SimpleNamespace(stages={"denoiser": stage}, recipe={})
    view = SimpleNamespace(run=run, problems=[])
    assert _data_of(view, SimpleNamespace(denoiser="denoiser")) is None
    (problem,) = view.problems
    assert '"samples"' in problem
