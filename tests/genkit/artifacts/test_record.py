"""The record: rows, pictures, the artifact and checkpoints of a running stage."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from genkit import tensors
from genkit.artifacts import (
    Artifact,
    DenoiserFile,
    NetworkFile,
    Record,
    Samples,
    Scores,
    checkpoint,
)
from genkit.artifacts.layout import CHECKPOINT, METRICS, checkpoint_name, results_in
from genkit.artifacts.record import read_rows
from genkit.errors import Code, DamagedError, DataError, PluginError
from genkit.files import write_text
from genkit.types import Batch, Curve
from raising import raises_code

SAMPLES = Samples(Batch(torch.zeros(2, 3), labels=torch.tensor([0, 1])), 7, 4, "denoiser")
SCORES = Scores(
    [{"nfe": 3, "guidance_nfe": 0, "frechet": 1.5}],
    {"frechet": {"extractor": "pixels"}},
    {
        "curve": Curve((1.0, 2.0), (3.0, 4.0), "x", "y", log_x=True),
        "band": Curve((1.0, 2.0), (3.0, 4.0), "x", "y", spread=(0.5, 0.25)),
    },
)


@dataclass
class Watcher:
    """An observer that keeps what it is passed."""

    seen: list

    def resume(self, stage, rows):
        self.seen += [("resumed", row) for row in rows]

    def row(self, stage, row):
        self.seen.append((stage, row))

    def scores(self, stage, scores):
        self.seen.append((stage, scores))

    def picture(self, stage, name, png):
        self.seen.append((stage, name, png))


@pytest.fixture
def seen():
    return []


@pytest.fixture
def record(tmp_path, seen):
    return Record(
        "draw",
        tmp_path,
        Samples,
        observers=[Watcher(seen)],
        draw=lambda artifact: {"grid": artifact.name.encode()},
    )


def test_rows_come_back(tmp_path, record, seen):
    for images in (1, 2, 3):
        record.log({"images": images, "text": "a\u2028b\n"})
    assert read_rows(tmp_path / "metrics.jsonl") == record.rows
    assert [row["images"] for row in record.rows] == [1, 2, 3]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 3
    assert seen == [("draw", row) for row in record.rows]


def test_no_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize("length", range(1, 14))
def test_a_torn_last_line_is_left_out(tmp_path, length):
    path = tmp_path / "rows.jsonl"
    whole = json.dumps({"images": 10}) + "\n"
    path.write_text(whole + json.dumps({"images": 20})[:length])
    assert read_rows(path) == [{"images": 10}]


@pytest.mark.parametrize("line", [b"[1, 2]", b'"x"', b"\xff\xfe"])
def test_a_line_that_is_no_row_is_left_out(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"images": 10}\n' + line + b"\n")
    assert read_rows(path) == [{"images": 10}]


def test_rows_behind_the_checkpoint_are_dropped(tmp_path, record, seen):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"images": 10}\n{"images": 20}\n{"ima')
    assert record.resume(lambda row: row["images"] <= 10) == [{"images": 10}]
    record.log({"images": 15})
    assert read_rows(path) == record.rows == [{"images": 10}, {"images": 15}]
    assert seen == [("resumed", {"images": 10}), ("draw", {"images": 15})]


def test_rows_of_an_earlier_call_are_dropped_by_a_stage_that_does_not_resume(tmp_path, record):
    (tmp_path / "metrics.jsonl").write_text('{"images": 10}\n')
    record.log({"images": 5})
    assert read_rows(tmp_path / "metrics.jsonl") == [{"images": 5}]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused(record, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.log({"loss": value})


def test_an_artifact_is_written_and_drawn(tmp_path, record, seen):
    assert not record.saved
    record.save(SAMPLES)
    assert record.saved
    read = Samples.load(tmp_path / "samples.safetensors")
    assert torch.equal(read.batch.data, SAMPLES.batch.data)
    assert torch.equal(read.batch.labels, SAMPLES.batch.labels)
    assert (read.nfe, read.guidance_nfe, read.denoiser) == (7, 4, "denoiser")
    assert (tmp_path / "grid.png").read_bytes() == b"samples"
    assert seen == [("draw", "grid", b"samples")]


@pytest.mark.parametrize("declared", [Samples, None])
def test_an_artifact_that_is_not_declared_is_refused(tmp_path, declared):
    record = Record("draw", tmp_path, declared)
    with raises_code(PluginError, Code.PLUGIN, "Scores"):
        record.save(SCORES)
    assert not record.saved
    assert list(tmp_path.iterdir()) == []


def test_any_stage_may_have_scores(tmp_path, record, seen):
    record.scores(SCORES)
    assert Scores.load(tmp_path / "scores.json") == SCORES
    written = json.loads((tmp_path / "scores.json").read_text())["curves"]
    assert "spread" not in written["curve"]  # files without bands are those of earlier versions
    assert written["band"]["spread"] == [0.5, 0.25]
    assert seen[0] == ("draw", SCORES)
    assert not record.saved  # of the artifact nothing is known yet


def test_other_ranks_write_nothing(tmp_path, seen):
    record = Record("draw", tmp_path, Samples, is_main=False, observers=[Watcher(seen)])
    record.log({"images": 1})
    record.picture("x", b"png")
    record.checkpoint({}, {"steps": 1})
    record.save(SAMPLES)
    assert list(tmp_path.iterdir()) == seen == []


def test_the_newest_checkpoint_is_restored_and_one_before_it_kept(tmp_path, record):
    assert record.restore() is None
    for steps in (1, 2, 3):
        record.checkpoint({"x": torch.full((2,), float(steps))}, {"steps": steps})
    found = record.restore()
    assert found.numbers == {"steps": 3}
    assert found.tensors["x"].tolist() == [3.0, 3.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-1.safetensors",
        "checkpoint.safetensors",
    ]
    assert results_in(tmp_path) == {}


def test_a_damaged_checkpoint_falls_back_to_the_one_before_it(tmp_path, record):
    for steps in (1, 2):
        record.checkpoint({"x": torch.ones(1)}, {"steps": steps})
    (tmp_path / checkpoint_name(0)).write_bytes(b"damaged")
    assert record.restore().numbers == {"steps": 1}
    (tmp_path / checkpoint_name(0)).unlink()  # a kill between the renames of a save
    assert record.restore().numbers == {"steps": 1}
    (tmp_path / checkpoint_name(1)).write_bytes(b"damaged")
    with raises_code(DamagedError, Code.UNREADABLE, "checkpoint-1.safetensors"):
        record.restore()


@pytest.mark.parametrize("damage", ["cut", "flip", "no numbers"])
def test_a_damaged_checkpoint_does_not_replace_the_sound_one_before_it(tmp_path, record, damage):
    for steps in (1, 2):
        record.checkpoint({"x": torch.ones(9)}, {"steps": steps})
    newest = tmp_path / checkpoint_name(0)
    if damage == "cut":
        newest.write_bytes(newest.read_bytes()[:-4])
    elif damage == "flip":  # the header remains valid
        newest.write_bytes(newest.read_bytes()[:-1] + b"\xff")
    else:
        tensors.save(newest, {"x": torch.ones(9)}, {})
    assert record.restore().numbers == {"steps": 1}
    record.checkpoint({"x": torch.ones(9)}, {"steps": 3})
    assert record.restore().numbers == {"steps": 3}
    newest.write_bytes(b"")
    assert record.restore().numbers == {"steps": 1}


def test_the_newest_checkpoint_stays_until_the_next_one_is_written(tmp_path, record, monkeypatch):
    record.checkpoint({}, {"steps": 1})

    def full(path, content):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(tensors, "write_bytes", full)
        with pytest.raises(OSError, match="no space"):
            record.checkpoint({}, {"steps": 2})
    assert (tmp_path / checkpoint_name(0)).exists()
    assert record.restore().numbers == {"steps": 1}


def of_curve(**values):
    curve = {"x": [1.0, 2.0], "y": [1.0, 2.0], "x_label": "x", "y_label": "y", **values}
    return json.dumps({"rows": [], "facts": {}, "curves": {"c": curve}})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"rows": 3, "facts": {}, "curves": {}}',
        of_curve(x=3),
        of_curve(y=[1.0]),
        of_curve(spread=[1.0]),
        of_curve(other=1),
    ],
)
def test_damaged_scores_are_refused(tmp_path, content):
    write_text(tmp_path / "scores.json", content)
    with raises_code(DataError, Code.UNREADABLE, "scores.json"):
        Scores.load(tmp_path / "scores.json")


@pytest.mark.parametrize(
    ("damage", "code"), [("nfe", Code.DATA), ("samples", Code.DATA), ("all", Code.UNREADABLE)]
)
def test_damaged_samples_are_refused(tmp_path, damage, code):
    path = tmp_path / "samples.safetensors"
    named, metadata = {"samples": torch.zeros(1, 2)}, {"nfe": "3", "guidance_nfe": "0"}
    named.pop(damage, None)
    metadata.pop(damage, None)
    tensors.save(path, named, metadata)
    if damage == "all":
        path.write_bytes(b"damaged")
    with raises_code(DataError, code, "samples.safetensors"):
        Samples.load(path)


def test_a_plugin_brings_its_own_artifact(tmp_path):
    class Note(Artifact):
        name = "note"
        suffix = ".txt"

        def save(self, path):
            write_text(path, "x")

        @classmethod
        def load(cls, path):
            return cls()

    Record("write", tmp_path, Note).save(Note())
    assert (tmp_path / "note.txt").read_text() == "x"


@dataclass(frozen=True)
class Drawn(Samples):
    """Samples with a name of their own."""

    name = "drawn"


def test_a_subclass_of_the_declared_artifact_is_written_where_readers_look(tmp_path):
    Record("draw", tmp_path, Samples).save(Drawn(SAMPLES.batch, 7))
    assert Samples.load(tmp_path / Samples.filename()).nfe == 7


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *[("state", ".json"), ("metrics", ".jsonl"), ("rows", ".jsonl"), ("scores", ".json")],
        *[("checkpoint", ".safetensors"), ("checkpoint-1", ".safetensors")],
        *[("../escape", ".txt"), (".hidden", ".txt"), ("Upper", ".txt"), ("", ".txt"), ("x", "")],
    ],
)
def test_a_file_name_that_is_reserved_or_invalid_is_refused(tmp_path, name, suffix):
    named = type("Named", (Artifact,), {"name": name, "suffix": suffix})
    with raises_code(PluginError, Code.INVALID_NAME, "Named"):
        Record("write", tmp_path, named)


@pytest.mark.parametrize("declared", [NetworkFile, Artifact, str, "samples"])
def test_an_output_that_has_no_file_is_refused(tmp_path, declared):
    with raises_code(PluginError, Code.PLUGIN, "output"):
        Record("write", tmp_path, declared)


def test_a_damaged_line_of_the_log_is_the_only_one_lost(tmp_path):
    path = tmp_path / METRICS
    path.write_text('{"images": 1}\n{"images": \n{"imagez": 3}\n{"images": 4}\n{"ima')
    record = Record("denoiser", tmp_path, DenoiserFile)
    assert record.resume(lambda row: row["images"] > 0) == [{"images": 1}, {"images": 4}]


def test_a_checkpoint_contains_the_fingerprint_of_its_stage(tmp_path):
    Record("denoiser", tmp_path, DenoiserFile, fingerprint="abc").checkpoint({}, {"steps": 1})
    assert checkpoint.fingerprint(tmp_path) == "abc"
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    assert checkpoint.fingerprint(tmp_path) is None


def test_a_picture_has_a_caption_with_its_name(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (300, 40)).save(content, format="png")
    png = content.getvalue()
    captions = []
    for caption in ("", "run edm, stage draw, seed 0"):
        record = Record("draw", tmp_path, Samples, caption=caption)
        for name in ("loss", "lost"):
            record.picture(name, png)
            captions.append((tmp_path / f"{name}.png").read_bytes())
    assert captions[:2] == [png, png]
    assert len({png, *captions}) == 3


def test_a_picture_that_is_kept_is_not_replaced(record, tmp_path):
    for images in (8, 16):
        record.picture("preview", b"%d" % images, keep=images)
    record.picture("preview", b"last")
    kept = sorted((tmp_path / "during-training").iterdir())
    assert [path.read_bytes() for path in kept] == [b"8", b"16"]
    assert (tmp_path / "preview.png").read_bytes() == b"last"
    assert "during-training" not in results_in(tmp_path)
