"""Each law is broken here once, by a component that is sound but for that."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import genkit
from genkit.plugin import (
    Artifact,
    Batch,
    BoundTracker,
    DataSpec,
    DenoiserFile,
    Design,
    InterruptedRun,
    Problem,
    Samples,
    SamplingStage,
    Stage,
    Tracker,
)
from genkit.testing import check_stage, check_tracker
from raising import breaks

pytestmark = pytest.mark.slow

COUNTER = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Steps(SamplingStage):
    """Sound: normal samples, drawn one at a time."""

    shared = True
    count: int = 4

    def draw(self, context):
        data = torch.cat([self.one(context, k) for k in range(self.count)])
        return Samples(Batch(data), nfe=0)

    def one(self, context, index):
        return torch.randn((1, 2), generator=context.generator(index))

    def run(self, context):
        found = context.record.restore()
        data = list(found.tensors["data"].split(1)) if found else []
        while len(data) < self.count:
            if context.stop_requested():
                self.stop(context, data)
            data.append(self.one(context, len(data)))
            self.keep(context, data)
        self.save(context, Samples(Batch(torch.cat(data)), nfe=0))

    def keep(self, context, data):
        context.record.checkpoint({"data": torch.cat(data)}, {})
        context.advance(len(data), self.count, "samples")

    def stop(self, context, data):
        raise InterruptedRun(f"{len(data)} samples")

    def save(self, context, samples):
        context.record.save(samples)


class SavesNothing(Steps):
    def save(self, context, samples):
        return


class WritesBeside(Steps):
    def save(self, context, samples):
        (context.folder.parent / "notes.txt").write_text("beside")
        super().save(context, samples)


class WritesToTheCurrentDirectory(Steps):
    def save(self, context, samples):
        Path("notes.txt").write_text("here")
        super().save(context, samples)


class GlobalDraws(Steps):
    def one(self, context, index):
        return super().one(context, index) + torch.rand(1)


class OtherEachTime(Steps):
    def one(self, context, index):
        return super().one(context, index) + next(COUNTER)


class NamesItsFolder(Steps):
    def save(self, context, samples):
        (context.folder / "notes.txt").write_text(context.folder.name)
        super().save(context, samples)


class GoesOn(Steps):
    def stop(self, context, data):
        return


class ForgetsOnAStop(Steps):
    def stop(self, context, data):
        context.record.checkpoint({"data": torch.zeros(max(1, len(data)), 2)}, {})
        super().stop(context, data)


class AddsToAFile(Steps):
    def keep(self, context, data):
        with (context.folder / "notes.txt").open("a") as file:
            file.write(f"{len(data)}\n")
        context.advance(len(data), self.count, "samples")
        context.record.checkpoint({"data": torch.cat(data)}, {})


class SavesOnEveryRank(Steps):
    def save(self, context, samples):
        samples.save(context.folder / samples.filename())
        super().save(context, samples)


class NamesADenoiser(Steps):
    def drawn_by(self, earlier):
        return "denoiser"


class DrawsOthers(Steps):
    def draw(self, context):
        drawn = super().draw(context)
        return Samples(drawn.batch.with_data(-drawn.batch.data), nfe=0)


class Refuses(Steps):
    def check(self, earlier):
        yield Problem(("count",), "is not liked")


class WritesInCheck(Steps):
    def check(self, earlier):
        Path("checked.txt").touch()
        return iter(())


@dataclass(frozen=True)
class Lossy(Artifact):
    """Loses what it holds when it is saved again."""

    name = "lossy"
    suffix = ".json"
    value: int = 0

    def save(self, path):
        path.write_text(json.dumps(self.value))

    @classmethod
    def load(cls, path):
        return cls(json.loads(path.read_text()) // 2)


class WritesLossy(Stage):
    output = Lossy

    def run(self, context):
        context.record.save(Lossy(5))


class WritesADenoiser(Stage):
    """Sound: a denoiser that was not trained."""

    output = DenoiserFile
    settings = genkit.component("denoiser", "mlp", width=8, blocks=1)
    spec = DataSpec((2,))

    def design(self, earlier):
        return Design(self.settings, self.spec)

    def run(self, context):
        torch_state = torch.get_rng_state()
        torch.manual_seed(0)
        weights = self.settings.build(self.spec).state_dict()
        torch.set_rng_state(torch_state)
        table = context.describe(self.settings)
        context.record.save(DenoiserFile(table=table, spec=self.spec, weights=weights))


class NoDesign(WritesADenoiser):
    def design(self, earlier):
        return None


class OtherDesign(WritesADenoiser):
    def design(self, earlier):
        return Design(self.settings, DataSpec((3,)))


STAGES = [
    (SavesNothing, "saves-artifact"),
    (WritesBeside, "own-folder; notes"),
    (WritesToTheCurrentDirectory, "own-folder; notes"),
    (WritesInCheck, "own-folder; checked"),
    (GlobalDraws, "own-generator"),
    (OtherEachTime, "draws-what-it-writes"),
    (NamesItsFolder, "same-bytes; after a second run"),
    (GoesOn, "stops"),
    (ForgetsOnAStop, "same-bytes; after a stop"),
    (AddsToAFile, "same-bytes; after a kill"),
    (SavesOnEveryRank, "rank-0-writes"),
    (NamesADenoiser, "drawn-by"),
    (DrawsOthers, "draws-what-it-writes"),
    (Refuses, "accepts-what-runs"),
    (WritesLossy, "artifact-bytes"),
    (NoDesign, "design"),
    (OtherDesign, "design"),
]


@pytest.mark.parametrize(("broken", "law"), STAGES, ids=[cls.__name__ for cls, _ in STAGES])
def test_stages(broken, law, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with breaks(law):
        check_stage(broken())


@pytest.mark.parametrize("sound", [Steps, WritesADenoiser])
def test_sound_stages(sound):
    check_stage(sound())


class Lines(BoundTracker):
    """Sound: a line for each call."""

    def __init__(self, run):
        run.folder.mkdir(parents=True, exist_ok=True)
        self.file = run.folder / "lines.txt"

    def write(self, text):
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")

    def row(self, stage, row):
        self.write(f"{stage} {json.dumps(row)}")

    def scores(self, stage, scores):
        self.write(f"{stage} {len(scores.rows)} rows")

    def picture(self, stage, name, png):
        self.write(f"{stage} {name} {len(png)} bytes")


class Writes(Tracker):
    bound = Lines

    def open(self, run):
        return self.bound(run)


class NotBound(Tracker):
    def open(self, run):
        return self


class NumbersAlone(Lines):
    def row(self, stage, row):
        super().row(stage, {name: float(value) for name, value in row.items()})


class ChangesRows(Lines):
    def row(self, stage, row):
        row["stage"] = stage
        super().row(stage, row)


class Beside(Lines):
    def close(self):
        (self.file.parents[1] / "index.txt").write_text("beside")


class Thinned(Lines):
    def row(self, stage, row):
        if torch.rand(1) < 2:
            super().row(stage, row)


TRACKERS = [
    (NumbersAlone, "tracker-takes; a new run"),
    (ChangesRows, "leaves-inputs"),
    (Beside, "own-folder"),
    (Thinned, "own-generator"),
]


@pytest.mark.parametrize(("bound", "law"), TRACKERS, ids=[cls.__name__ for cls, _ in TRACKERS])
def test_trackers(bound, law):
    with breaks(law):
        check_tracker(type("Broken", (Writes,), {"bound": bound})())


def test_a_tracker_that_starts_anew():
    class Emptied(Lines):
        def __init__(self, run):
            super().__init__(run)
            self.file.unlink(missing_ok=True)
            self.left = 1 if (run.folder / "again").exists() else 3
            (run.folder / "again").touch()

        def row(self, stage, row):
            self.left -= 1
            if self.left >= 0:
                super().row(stage, row)

    broken = type("Broken", (Writes,), {"bound": Emptied})
    with breaks("keeps-rows"):
        check_tracker(broken())


def test_a_tracker_that_opens_nothing():
    with breaks("bound-tracker"):
        check_tracker(NotBound())


def test_a_sound_tracker():
    check_tracker(Writes())
