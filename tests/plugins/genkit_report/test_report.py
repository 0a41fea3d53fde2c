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
from damage import change_state
from genkit.artifacts.state import record_of
from genkit.errors import Code, UsageError
from genkit.parts.grid import grid
from genkit.parts.no_stages import NoStages
from genkit.plugin import Run, Samples, State, to_float
from genkit_report.page import render
from genkit_report.pictures import compare_with_data, data_of, nearest
from genkit_report.report_command import report
from genkit_report.sections import _gaussian, _shape
from genkit_report.trajectories import _curvature, _shown
from genkit_report.view import View
from raising import raises_code

pytestmark = pytest.mark.slow

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
def run(finished, tmp_path, coarse_pictures):
    return shutil.copytree(finished, tmp_path / "digits")


def rendered(*folders):
    return render([View.load(folder) for folder in folders])


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


@pytest.mark.parametrize(
    "changed", [{"seconds_per_image": 60.0}, {"device": "cuda:0, NVIDIA H100"}]
)
def test_samples_that_would_take_long_or_an_unknown_time_are_left_out(run, changed):
    cost = run / "02-samples" / "cost.json"
    content = json.loads(cost.read_text())
    content["rows"][0] |= changed
    cost.write_text(json.dumps(content))
    text = rendered(run)
    assert "samples with 3, 5, 9 and 18 steps are omitted" in text
    assert "trajectories are omitted" in text


def test_scores_are_shown_with_those_of_real_data(finished):
    scores = json.loads((finished / "03-scores" / "scores.json").read_text())
    floor = scores["facts"]["frechet_pixels"]["measured.floor"]
    page = Page(rendered(finished))
    (sentence,) = (text for text in page.texts if text.startswith("Stage scores at"))
    assert f"(real data: {float(floor):.4g})" in sentence
    assert "16 against 1781" in page.texts
    assert any(text.startswith("real data, 8 against 1789") for text in page.texts)  # the chart


def test_too_few_real_items_are_named(run):
    path = run / "03-scores" / "scores.json"
    scores = json.loads(path.read_text())
    facts = scores["facts"]["frechet_pixels"]
    facts |= {"samples": "1000", "measured.floor": "none"}
    path.write_text(json.dumps(scores))
    change_state(path.with_name("state.json"), **record_of(path.parent))
    (reason,) = (text for text in Page(rendered(run)).texts if text.startswith("not measured: "))
    assert "2,000" in reason
    assert "1,797" in reason


def alerts(page):
    return [attrs for attrs in page.all("p") if attrs.get("role") == "alert"]


def test_the_error_of_a_failed_run_is_on_its_page(finished, run):
    assert not alerts(Page(rendered(finished)))
    shutil.rmtree(run / "04-sweep")
    page = Page(rendered(run))
    assert len(alerts(page)) == 1
    assert "The run did not finish, and no error was recorded." in page.texts
    failure = {"stage": "sweep", "message": "stage sweep: no <samples>; draw some", "code": "data"}
    (run / "state.json").write_text(json.dumps({"name": "digits", "failure": failure}))
    page = Page(rendered(run))
    assert len(alerts(page)) == 1
    assert "Error: stage sweep: no <samples>; draw some [data]" in page.texts


@pytest.mark.parametrize("content", ["{", None])
def test_a_damaged_state_of_the_run_is_a_warning(run, content):
    (run / "state.json").unlink()
    if content is not None:
        (run / "state.json").write_text(content)
    assert any("state.json" in text for text in Page(rendered(run)).texts)


def test_stages_with_equal_settings_may_differ(finished, run):
    def noted():
        return any("different noise" in text for text in Page(rendered(run)).texts)

    assert noted()
    shutil.rmtree(run / "04-sweep")
    assert not noted()


def test_a_warning_of_several_stages_is_shown_once(run):
    for stage in ("01-denoiser", "02-samples"):
        with (run / stage / "warnings.jsonl").open("a") as file:
            file.write(json.dumps({"warning": "few images"}) + "\n")
    assert Page(rendered(run)).texts.count("denoiser, samples: few images") == 1


def test_trajectories_are_shown_with_their_curvature(finished, run):
    title = "digits, denoiser: curvature of 32 trajectories"
    page = Page(rendered(finished))
    (caption,) = (text for text in page.texts if "4 trajectories, two rows each" in text)
    assert caption.count(", ") > 10  # the noise levels of the columns
    assert title not in page.texts  # the metric has measured it
    path = run / "03-scores" / "scores.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "curves": {}}))
    assert title in Page(rendered(run)).texts


def test_trajectories_in_the_plane_are_paths():
    line = [State(torch.tensor([[3.0, 4.0]]) * s, s, torch.zeros(1, 2)) for s in (2.0, 1.0)]
    states = [*line, State(torch.zeros(1, 2), 0.0, None)]
    view = SimpleNamespace(run=SimpleNamespace(stages={}, recipe={}), problems=[])
    (chart,) = _shown(view, SimpleNamespace(denoiser=None), states, "moons")
    assert chart.table.rows == [("0", "2, 2.667", "0, 0")]
    assert "32" not in chart.description
    assert {row[2] for row in _curvature([*states], "moons").table.rows} == {"0 ± 0"}


def test_previews_are_shown_in_the_order_of_training(run):
    folder = run / "01-denoiser" / "during-training"
    folder.mkdir()
    for name in ("averaged-0000000256", "averaged-0000000064", "raw-0000000064"):
        (folder / f"preview-{name}.png").write_bytes(b"png")
    texts = [text for text in Page(rendered(run)).texts if text.startswith("after ")]
    assert texts[-2:] == ["after 64 images", "after 256 images"]


def test_a_discriminator_has_its_accuracy_and_calibration(run):
    (run / "01-denoiser" / "discriminator.safetensors").touch()
    assert any("are not measured" in text for text in Page(rendered(run)).texts)
    judged = {"cross_entropy": 0.6, "accuracy": 0.75, "calibration_error": 0.125}
    rows = [{"images": 64, **judged}, {"images": 128, **judged, "accuracy": 0.8125}]
    rows += [{"sigma": 0.5, **judged}, {"sigma": 2.0, **judged, "accuracy": 0.25}]
    rows += [{"chosen": 128, "reason": "lowest"}]
    with (run / "01-denoiser" / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    texts = Page(rendered(run)).texts
    title = "digits, denoiser: {} on held-out items by noise level"
    assert title.format("accuracy") in texts
    assert title.format("calibration error") in texts
    assert "0.8125" in texts
    assert not any("are not measured" in text for text in texts)


def test_a_discriminator_that_is_chosen_by_a_loss_has_no_accuracy(run):
    (run / "02-samples" / "discriminator.safetensors").touch()
    rows = [{"images": 64, "loss": 0.5, "standard_error": 0.1}]
    rows += [{"sigma": level, "loss": 0.25, "standard_error": 0.1} for level in (0.5, 2.0)]
    rows += [{"chosen": 64, "chosen_by": "loss", "reason": "lowest"}]
    (run / "02-samples" / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    texts = Page(rendered(run)).texts
    assert "digits, samples: loss on held-out items by noise level" in texts
    assert not any("are not measured" in text or "omitted" in text for text in texts)


def test_a_run_has_one_page(finished):
    page = rendered(finished)
    assert page == rendered(finished)
    text = " ".join(Page(page).texts)
    assert "512 training images in " in text
    assert "48 samples in " in text  # 16, and 16 for each of two combinations


def test_samples_without_a_measured_time_are_not_timed(run):
    for path in run.glob("*/cost.json"):
        path.write_text(
            re.sub('"seconds_per_image": [^,]*', '"seconds_per_image": null', path.read_text())
        )
    assert " samples in " not in " ".join(Page(rendered(run)).texts)


def test_runs_are_compared(finished, run):
    recipe = run / "resolved.toml"  # the values that ran, as --set changes them
    recipe.write_text(recipe.read_text().replace('"hungarian"', '"random"'))
    run = run.rename(run.parent / "other")
    text = " ".join(Page(rendered(finished, run)).texts)
    assert '-use = "hungarian"' in text
    assert '+use = "random"' in text
    assert "other, sweep" in text
    for name in ("digits", "other"):
        assert f"real data, 8 against 1789, {name}, sweep" in text  # equal numbers of items
    assert "other: scores: " in text  # the warning of a metric, with its run


def test_runs_of_the_same_name_are_labeled_with_their_paths(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other" / "digits")
    report([run, other], tmp_path / "both.html")
    (title,) = re.findall("<h1>(.*)</h1>", (tmp_path / "both.html").read_text())
    assert title == f"{run} and {other}"


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


@pytest.mark.parametrize("content", ["name = ", 'name = "smoke"', None])
def test_a_run_without_its_recipe_has_a_page(run, content):
    path = run / "resolved.toml"
    path.unlink() if content is None else path.write_text(content)
    report([run])
    text = " ".join(Page((run / "report.html").read_text(encoding="utf-8")).texts)
    assert "resolved.toml must be a recipe" in text
    assert "frechet_pixels" in text  # of the scores, which are not damaged


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


@pytest.mark.parametrize(
    ("count", "mean", "shape", "verdict"),
    [
        (7, 0.2, (64,), "too few pools for a test"),
        (8, 0.2, (64,), "not N(0, I)"),
        (8, 0.2, None, "not tested, because no checkpoint contains the shape of an image"),
        (8, 0.04, (64,), "consistent with N(0, I)"),
        (8, 0.04, (64, 64), "not N(0, I)"),  # the mean of 64 times as many values is more certain
        (0, 0.0, (64,), "not measured"),
    ],
)
def test_the_noise_has_the_verdict_of_the_training(count, mean, shape, verdict):
    row = {"noise_mean": mean, "noise_variance": 1.0, "noise_worst": 2.0, "noises": 64, "pairs": 64}
    assert _gaussian([row] * count, shape).endswith(verdict)


def test_the_shape_of_an_image_is_that_of_the_checkpoint_or_of_the_network(run):
    stage = Run.load(run).stage("denoiser")
    assert _shape(stage) == (1, 8, 8)
    for path in stage.folder.glob("checkpoint*"):
        path.unlink()
    assert _shape(stage) == (1, 8, 8)
    (stage.folder / "denoiser.safetensors").unlink()
    assert _shape(stage) is None


def test_data_from_other_stages_is_a_problem_of_the_page():
    data = {"use": "real-and-fake", "real": {"use": "digits"}, "fakes": "samples"}
    stage = SimpleNamespace(settings={"data": data})
    run = SimpleNamespace(stages={"denoiser": stage}, recipe={})
    view = SimpleNamespace(run=run, problems=[])
    assert data_of(view, SimpleNamespace(denoiser="denoiser")) is None
    (problem,) = view.problems
    assert '"samples"' in problem
