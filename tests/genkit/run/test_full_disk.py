"""A disk that is full or cannot be written: one message, exit code 2, and nothing is lost."""

from __future__ import annotations

import errno
import json

import pytest

from disk import Disk
from genkit.artifacts.layout import results_in, stage_folders

EVALUATE = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "truncation", count = 4, steps = [2], schedule = { use = "edm", steps = 3 } }]
"""

FILES = (
    "run/.lock",
    "run/..running.json",
    "run/.state.json",
    "run/.recipe.toml",
    "run/.resolved.toml",
    "run/.environment.json",
    "run/01-denoiser",
    "01-denoiser/.state.json",
    "01-denoiser/metrics.jsonl",
    "checkpoint",
    "loss.png",
    ".denoiser.safetensors",
    "part-",
    ".samples.safetensors",
    "samples.png",
    "02-samples/.state.json",
    ".scores.json",
    "cost.json",
    "run/.results.json",
)
"""Parts of the paths of the files that a run writes, about in this order."""


def contents(run):
    return {
        (folder.name, name): (folder / name).read_bytes()
        for _, folder in stage_folders(run)
        for name in results_in(folder)
    }


@pytest.fixture
def command(tiny, tmp_path, monkeypatch):
    """Arguments of a run in the folder ``run``, without a report."""
    monkeypatch.setenv("GENKIT_DISABLE_PLUGINS", "report")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tiny.sample + EVALUATE)
    return "run", recipe, "--out", tiny.folder, "--device", "cpu"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES])
def test_each_failure_is_a_message_and_the_last_run_ends_with_the_same_bytes(
    tiny, tmp_path, genkit_, command, error
):
    tiny.run(tiny.sample + EVALUATE, folder=tmp_path / "whole")
    failed = set()
    for name in FILES:
        disk = Disk(tmp_path, 0, error, only=name)
        with disk.injected():
            code, _, err = genkit_(*command)
        if disk.operations:
            failed.add(name)
            assert (code, err.count("Error: ")) == (2, 1), (name, err)
            assert str(tiny.folder) in err.partition("Error: ")[2], err
    assert failed == {*FILES}
    assert genkit_(*command)[0] == 0
    assert contents(tiny.folder) == contents(tmp_path / "whole")


def test_a_finished_run_that_cannot_be_written_is_shown(trained, genkit_, tmp_path):
    def call(*arguments):
        with Disk(trained, 0, errno.EROFS).injected():
            return genkit_(*arguments)

    code, out, _ = call("runs", trained, "--json")
    assert (code, json.loads(out)[0]["state"]) == (0, "finished")
    for command in ("verify", "show"):
        assert call(command, trained)[0] == 0
    page = tmp_path / "page.html"
    assert call("report", trained, "--out", page)[0] == 0
    assert page.exists()
    code, _, err = call("report", trained)
    assert (code, "--out" in err, str(trained) in err) == (2, True, True)


def test_a_plot_that_a_disk_did_not_keep_is_drawn_by_the_next_run(tiny, tmp_path, genkit_, command):
    with Disk(tmp_path, 0, errno.EIO, lasting=False, only="loss.png").injected():
        code, _, err = genkit_(*command)
    assert (code, "loss.png" in err) == (2, True)
    assert genkit_(*command)[0] == 0
    assert list(tiny.folder.glob("*/loss.png"))
