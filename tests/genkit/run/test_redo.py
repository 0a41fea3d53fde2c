"""Stages that run again although nothing changed, also where the run is killed on the way."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest

import genkit
from genkit.errors import Code, UsageError
from genkit.run.engine import execute, stage_states
from genkit.run.redo import Redo
from raising import raises_code

pytestmark = pytest.mark.slow

BESIDE = """
[[stage]]
id = "beside"
use = "sample"
denoiser = "denoiser"
count = 8
schedule = { use = "edm", steps = 2 }
"""

SCORES = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "truncation", count = 4, steps = [2], schedule = { use = "edm", steps = 4 } }]
"""


class Killed(BaseException):
    """Stands for a process that ends at once."""


@pytest.fixture
def text(tiny):
    return tiny.train + BESIDE + tiny.samples + SCORES


def run(tiny, text, *redo, folder=None, overrides=()):
    """Return the stages that ran."""
    progress = tiny.recorder()
    recipe = tiny.load(text, *overrides)
    execute(recipe, tiny.plugins, folder or tiny.folder, "cpu", progress, redo=redo)
    return progress.ran


def mark(folder):
    """Put a mark into every finished stage, by which its results are known as the earlier ones."""
    for place in folder.glob("[0-9]*"):
        (place / "earlier").touch()


def earlier(folder):
    """Return the ids of the stages whose folders hold earlier results."""
    return {path.parent.name[3:] for path in folder.glob("[0-9]*/earlier")}


def results(folder):
    named = ("denoiser.safetensors", "samples.safetensors", "scores.json")
    return {p.relative_to(folder): p.read_bytes() for n in named for p in folder.glob(f"0*/{n}")}


def pending(folder):
    return json.loads((folder / "state.json").read_text()).get("redo", {}).get("pending", [])


def test_a_stage_and_all_that_depend_on_it_run_again(tiny, text):
    run(tiny, text)
    before = results(tiny.folder)
    mark(tiny.folder)
    assert run(tiny, text, "samples") == ["samples", "scores"]
    assert results(tiny.folder) == before
    assert earlier(tiny.folder) == {"denoiser", "beside"}
    set_aside = sorted(path.parent.name for path in tiny.folder.glob("replaced/*/earlier"))
    assert set_aside == ["001-04-scores.redone", "002-03-samples.redone"]
    assert pending(tiny.folder) == []
    assert run(tiny, text) == []
    assert run(tiny, text, "beside", "scores") == ["beside", "scores"]


def test_a_stage_runs_again_from_python(tmp_path):
    small = {"denoiser.images": 64, "denoiser.network.width": 8, "samples.count": 4}
    small |= {"denoiser.batch_size": 64, "scores.metrics": [{"use": "truncation", "count": 4}]}
    for redo in ([], ["scores"]):
        genkit.run_recipe("smoke", out=tmp_path / "run", settings=small, redo=redo)
    (set_aside,) = (tmp_path / "run" / "replaced").iterdir()
    assert set_aside.name == "001-03-scores.redone"


def test_what_was_redone_does_not_come_back(tiny, text):
    run(tiny, text)
    mark(tiny.folder)
    run(tiny, text, "beside")
    run(tiny, text, overrides=["beside.count=4"])
    assert run(tiny, text) == []  # comes back from replaced/, and is the later one
    assert "beside" not in earlier(tiny.folder)


def test_a_pending_stage_does_not_come_back_with_other_settings(tiny, text, monkeypatch):
    other = ["beside.count=4"]
    run(tiny, text, overrides=other)
    mark(tiny.folder)
    run(tiny, text)
    monkeypatch.setattr("genkit_stages.sample.Sample.run", killed)
    with pytest.raises(Killed):
        run(tiny, text, "beside")
    monkeypatch.undo()
    assert run(tiny, text, overrides=other) == ["beside"]
    assert "beside" not in earlier(tiny.folder)


def killed(*_):
    raise Killed


def test_a_stage_whose_folder_has_an_old_number_is_set_aside(tiny, text):
    run(tiny, text)
    mark(tiny.folder)
    shorter = tiny.train + tiny.samples  # the samples move from 03 to 02
    assert run(tiny, shorter, "samples") == ["samples"]
    assert earlier(tiny.folder) == {"denoiser", "beside", "scores"}
    # The stage that was left out of the recipe is not pending forever.
    assert pending(tiny.folder) == []


def test_an_unknown_stage_is_refused_before_anything_is_touched(tiny, text):
    with raises_code(UsageError, Code.USAGE, "redo", '"sample"', '"samples"'):
        run(tiny, text, "beside", "sample")
    assert not tiny.folder.exists()
    with raises_code(UsageError, Code.USAGE, "redo"):
        stage_states(tiny.load(text), tiny.plugins, tiny.folder, ["nothing"])


def test_what_would_run_again_is_known_beforehand(tiny, text):
    def states(*redo):
        return stage_states(tiny.load(text), tiny.plugins, tiny.folder, redo)

    new = {"denoiser": "new", "beside": "new"}
    assert states("samples") == {**new, "samples": "redo", "scores": "redo"}
    run(tiny, text)
    mark(tiny.folder)
    kept = {"denoiser": "finished", "beside": "finished"}
    assert states("samples") == {**kept, "samples": "redo", "scores": "redo"}
    assert len(earlier(tiny.folder)) == 4


def test_a_second_request_joins_one_that_was_killed(tiny, text, monkeypatch):
    run(tiny, text)
    mark(tiny.folder)
    monkeypatch.setattr("genkit_stages.evaluate.Evaluate.run", killed)
    with pytest.raises(Killed):
        run(tiny, text, "samples")
    monkeypatch.undo()
    assert stage_states(tiny.load(text), tiny.plugins, tiny.folder)["scores"] == "redo"
    assert run(tiny, text, "beside") == ["beside", "scores"]
    assert earlier(tiny.folder) == {"denoiser"}


def test_a_request_is_resumed_where_nothing_new_is_requested():
    begun = Redo(["b"], ["c"], True)
    assert begun.including([], []) is begun
    assert begun.including(["b"], ["b", "c"]) is begun
    assert begun.including(["a"], ["a", "c"]) == Redo(["a", "b"], ["a", "c"], False)


class KillAt:
    """Kills the process before its n-th write, rename or new folder."""

    def __init__(self, monkeypatch, n):
        self.left = n
        for name in ("rename", "replace", "mkdir"):
            monkeypatch.setattr(Path, name, self.counting(getattr(Path, name)))

    def counting(self, call):
        def counted(*args, **kwargs):
            if self.left == 0:
                raise Killed
            self.left -= 1
            return call(*args, **kwargs)

        return counted


@pytest.mark.slow
@pytest.mark.parametrize("again", [(), ("samples",)], ids=["plain command", "same command"])
def test_a_kill_at_any_moment_ends_in_the_same_bytes(tiny, text, tmp_path, monkeypatch, again):
    run(tiny, text)
    before = results(tiny.folder)
    mark(tiny.folder)
    kills = 0
    for n in itertools.count():
        folder = tmp_path / f"killed-{n}"
        shutil.copytree(tiny.folder, folder)
        with monkeypatch.context() as patched:
            KillAt(patched, n)
            try:
                run(tiny, text, "samples", folder=folder)
            except Killed:
                kills += 1
            else:
                break
        left = pending(folder)
        ran = run(tiny, text, *again, folder=folder)
        if left or again:  # a kill before the request is written leaves everything as it was
            assert earlier(folder) == {"denoiser", "beside"}, n
            assert pending(folder) == []
        if left:
            assert set(ran) <= set(left), n  # what was finished is not begun again
        assert results(folder) == before, n
        shutil.rmtree(folder)
    assert kills > 20
