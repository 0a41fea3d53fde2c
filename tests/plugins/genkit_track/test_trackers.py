"""What the trackers write is read by the readers of TensorBoard, of W&B and of CSV files."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import signal
import sys

import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.internal.datastore import DataStore

import genkit
from coarse import drawn_coarsely
from genkit.artifacts import Scores
from genkit.artifacts.record import read_rows
from genkit.errors import Code, RecipeError, UsageError
from genkit.interfaces import TrackedRun
from genkit_track.csv_file import Csv
from genkit_track.tensorboard import TensorBoard
from genkit_track.values import numbers
from genkit_track.wandb import WandB
from raising import raises_code

pytestmark = pytest.mark.usefixtures("coarse_pictures")

RECIPE = """
name = "tracked"
data = { use = "moons", items = 200 }
trackers = [{ use = "csv" }, { use = "tensorboard" }, { use = "wandb", mode = "offline" }]

[[stage]]
id = "denoiser"
use = "train"
images = 256
batch_size = 64
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }
coupler = { use = "partitioned", by = ["label"], inner = { use = "hungarian" } }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 16
schedule = { use = "edm", steps = 2 }

[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
count = 4
vary.schedule.steps = [2, 3]
metrics = [{ use = "truncation", count = 4, steps = [2], schedule = { use = "edm", steps = 3 } }]
"""


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A finished run that all three trackers followed."""
    place = tmp_path_factory.mktemp("tracked")
    (place / "recipe.toml").write_text(RECIPE)
    with drawn_coarsely():
        return genkit.run_recipe(place / "recipe.toml", out=place / "run", device="cpu")


def rows_of(folder, stage="01-denoiser"):
    return read_rows(folder / stage / "metrics.jsonl")


def png():
    content = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(content, "PNG")
    return content.getvalue()


def opened(tracker, folder):
    return tracker.open(TrackedRun("run", folder, {"name": "run"}))


# --- csv ------------------------------------------------------------------------------------


def lines_of(folder):
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def values_of(lines, stage, name):
    found = (line for line in lines if (line["stage"], line["name"]) == (stage, name))
    return [(line["kind"], line["images"], line["value"]) for line in found]


def test_a_csv_file_holds_every_row_and_score(tracked):
    lines = lines_of(tracked.folder / "trackers" / "csv")
    rows = rows_of(tracked.folder)
    assert values_of(lines, "denoiser", "loss") == [
        ("row", str(row["images"]), repr(row["loss"])) for row in rows if "loss" in row
    ]
    for name in ("cost_before", "cost_after", "reduction", "seconds_solving"):
        assert values_of(lines, "denoiser", name) == [
            ("row", str(row["images"]), repr(row[name])) for row in rows if "pool" in row
        ]
    assert values_of(lines, "denoiser", "parts/0") == [
        ("row", str(row["images"]), str(row["parts"][0])) for row in rows if "pool" in row
    ]
    assert values_of(lines, "sweep", "truncation_2") == [
        ("score", "", repr(row["truncation_2"])) for row in tracked.scores["sweep"]
    ]


def test_a_resumed_stage_is_in_the_csv_file_once(tmp_path):
    first = opened(Csv(), tmp_path)
    first.resume("denoiser", [])
    first.scores("other", Scores([{"nfe": 3}]))
    for images in (10, 20, 30):
        first.row("denoiser", {"images": images, "loss": images / 10})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("denoiser,row,3,40,lo")  # a kill cut the line off
    again = opened(Csv(), tmp_path)
    again.resume("denoiser", [{"images": 10, "loss": 1.0}])
    again.row("denoiser", {"images": 20, "loss": 2.5})
    lines = lines_of(tmp_path)
    assert values_of(lines, "denoiser", "loss") == [("row", "10", "1.0"), ("row", "20", "2.5")]
    assert [line["row"] for line in lines if line["stage"] == "denoiser"] == ["0", "1"]
    again.scores("other", Scores([{"nfe": 5}]))
    assert values_of(lines_of(tmp_path), "other", "nfe") == [("score", "", "5")]


def test_text_survives_a_csv_file(tmp_path):
    text = 'a, "b"\nc'
    for _ in range(2):
        tracker = opened(Csv(), tmp_path)
    tracker.row("stage", {"text": text})
    opened(Csv(), tmp_path)
    assert values_of(lines_of(tmp_path), "stage", "text") == [("row", "", text)]


# --- tensorboard ----------------------------------------------------------------------------


def events_of(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


def scalars(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_event_files_hold_loss_pools_scores_and_pictures(tracked):
    folder = tracked.folder / "trackers" / "tensorboard"
    events, rows = events_of(folder / "denoiser"), rows_of(tracked.folder)
    for tag in ("loss", "cost_after", "images_per_second"):
        expected = [(row["images"], pytest.approx(row[tag])) for row in rows if tag in row]
        assert scalars(events, tag) == expected
        assert expected
    pools = [row for row in rows if "pool" in row]
    assert scalars(events, "parts/2") == [(row["images"], row["parts"][2]) for row in pools]
    for tag in ("loss", "pairs"):
        (picture,) = events.Images(tag)
        assert picture.encoded_image_string == (
            (tracked.folder / "01-denoiser" / f"{tag}.png").read_bytes()
        )
        with Image.open(io.BytesIO(picture.encoded_image_string)) as image:
            assert (picture.width, picture.height) == image.size
    sweep = events_of(folder / "sweep")
    scores = tracked.scores["sweep"]
    assert scalars(sweep, "scores/truncation_2") == [
        (step, pytest.approx(row["truncation_2"])) for step, row in enumerate(scores)
    ]
    (table,) = sweep.Tensors("scores/text_summary")
    assert "| schedule.steps | nfe | guidance_nfe | truncation_2 |" in (
        table.tensor_proto.string_val[0].decode()
    )


def test_a_resumed_stage_is_shown_once(tmp_path):
    first = opened(TensorBoard(), tmp_path)
    first.resume("denoiser", [])
    for images in (10, 20, 30):
        first.row("denoiser", {"images": images, "loss": images / 10})
    again = opened(TensorBoard(), tmp_path)  # as after a kill: the first is not closed
    again.resume("denoiser", [{"images": 10, "loss": 1.0}])
    again.row("denoiser", {"images": 20, "loss": 2.5})
    again.close()
    assert len(list((tmp_path / "denoiser").iterdir())) == 2
    assert scalars(events_of(tmp_path / "denoiser"), "loss") == [(10, 1.0), (20, 2.5)]
    first.close()


def test_a_full_disk_is_raised_by_the_call(tmp_path):
    tracker = opened(TensorBoard(), tmp_path)
    tracker.row("denoiser", {"images": 1, "loss": 1.0})
    file = tracker._files["denoiser"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        file._records._writer, whole = full, file._records._writer
        with pytest.raises(OSError) as raised:  # noqa: PT011, its number is what matters
            tracker.row("denoiser", {"images": 2, "loss": 1.0})
        file._records._writer = whole
        assert raised.value.errno == errno.ENOSPC
        with pytest.raises(OSError) as raised:  # noqa: PT011
            full.close()
        assert raised.value.errno == errno.ENOSPC
    tracker.close()


# --- wandb ----------------------------------------------------------------------------------


def records_of(folder):
    """Return the records of the newest offline run in a folder."""
    wandb.teardown()  # waits for W&B's own process, which may write the file after the run's finish
    path = max(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    store, records = DataStore(), []
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        records.append(Record.FromString(data))
    store.close()
    return records, path.parent


def history(records):
    """Return what was logged, a table for each call."""
    return [
        {
            "/".join([item.key, *item.nested_key]).strip("/"): json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def test_an_offline_run_holds_loss_pools_scores_and_pictures(tracked):
    records, folder = records_of(tracked.folder / "trackers" / "wandb")
    logged, rows = history(records), rows_of(tracked.folder)
    for name in ("loss", "cost_after"):
        assert [
            (row["denoiser/images"], row[f"denoiser/{name}"])
            for row in logged
            if f"denoiser/{name}" in row and "denoiser/images" in row
        ] == [(row["images"], row[name]) for row in rows if name in row]
    metrics = [record.metric for record in records if record.HasField("metric")]
    assert ("denoiser/*", "denoiser/images") in [(m.glob_name, m.step_metric) for m in metrics]
    scores = [row["sweep/truncation_2"] for row in logged if "sweep/truncation_2" in row]
    assert scores == [row["truncation_2"] for row in tracked.scores["sweep"]]
    (run,) = [record.run for record in records if record.HasField("run")]
    assert (run.project, run.display_name, run.run_group) == ("genkit", "tracked", "tracked")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["stage"][0]["coupler"]["inner"]["use"] == "hungarian"
    files = [file.path for record in records for file in record.files.files]
    for stage, name in (("denoiser", "loss"), ("denoiser", "pairs"), ("samples", "samples")):
        (path,) = [file for file in files if file.startswith(f"media/images/{stage}/{name}_")]
        (original,) = tracked.folder.glob(f"*-{stage}/{name}.png")
        with Image.open(folder / "files" / path) as seen, Image.open(original) as drawn:
            assert seen.convert("RGB").tobytes() == drawn.convert("RGB").tobytes()
    (path,) = [file for file in files if file.startswith("media/table/sweep/scores_")]
    table = json.loads((folder / "files" / path).read_text())
    assert table["columns"] == list(tracked.scores["sweep"][0])
    assert table["data"] == [list(row.values()) for row in tracked.scores["sweep"]]


def test_the_mode_of_the_environment_holds_and_rows_of_an_earlier_call_come_first(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = opened(WandB(project="other"), tmp_path)
    tracker.resume("denoiser", [{"images": 10, "loss": 1.0}])
    tracker.row("denoiser", {"images": 20, "loss": 2.5})
    tracker.scores("scores", Scores([{"nfe": 3, "frechet": "inf"}]))
    tracker.picture("denoiser", "grid", png())
    tracker.close()
    records, _ = records_of(tmp_path)
    logged = [row for row in history(records) if "denoiser/loss" in row]
    assert [(row["denoiser/images"], row["denoiser/loss"]) for row in logged] == [
        (10, 1.0),
        (20, 2.5),
    ]
    (run,) = [record.run for record in records if record.HasField("run")]
    assert run.project == "other"


def test_without_a_key_nothing_is_asked_for(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with raises_code(UsageError, Code.USAGE, "WANDB_MODE=offline"):
        opened(WandB(mode="online"), tmp_path)
    assert not (tmp_path / "wandb").exists()


# --- all ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_a_mistake_of_the_recipe(tmp_path, monkeypatch, name):
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("genkit.parts.packages.find_spec", lambda module: None)
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("\ntrackers", "\n#"))
    with pytest.raises(RecipeError) as caught:
        genkit.run_recipe(tmp_path / "recipe.toml", out=tmp_path / "run", trackers=[name])
    (mistake,) = caught.value.mistakes
    assert (mistake.problem.code, mistake.key) == (Code.MISSING_PACKAGE, "trackers.0")
    assert f"pip install '{name}>=" in str(mistake)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_ends_with_what_one_that_never_stopped_has(tmp_path, tracked):
    (tmp_path / "recipe.toml").write_text(
        RECIPE.replace(', { use = "wandb", mode = "offline" }', "")
    )
    calls = []

    def stopping(self, done, total, *rest):
        calls.append(done)
        if done == 128 and calls.count(128) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genkit.run.progress.Progress.advance", stopping)
        with pytest.raises(genkit.errors.InterruptedRun):
            genkit.run_recipe(tmp_path / "recipe.toml", out=run, device="cpu")
    genkit.run_recipe(tmp_path / "recipe.toml", out=run, device="cpu")
    both = [folder / "trackers" for folder in (run, tracked.folder)]
    one, other = (lines_of(folder / "csv") for folder in both)
    names = ("denoiser", "loss"), ("denoiser", "cost_after"), ("sweep", "truncation_2")
    for stage, name in names:
        assert values_of(one, stage, name) == values_of(other, stage, name)
    one, other = (events_of(folder / "tensorboard" / "denoiser") for folder in both)
    for tag in ("loss", "cost_after"):
        assert scalars(one, tag) == scalars(other, tag)


def test_numbers_of_a_row():
    row = {"images": 3, "loss": 0.5, "parts": [1, 2.5], "row": {"nfe": 4}, "gap": None, "x": "y"}
    assert numbers(row) == {"loss": 0.5, "parts/0": 1, "parts/1": 2.5, "row/nfe": 4}
    assert math.isnan(numbers({"loss": math.nan})["loss"])
