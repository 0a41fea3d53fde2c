"""The digests in the states of runs and stages, against files that are changed afterwards."""

from __future__ import annotations

import json
import os

import pytest

from genkit.artifacts.layout import METRICS, STATE
from genkit.artifacts.state import changed_logs, damages, read_state, record_of, small_digest
from genkit.files import write_json_with_digest
from genkit.tensors import file_digest

LARGE = 2**20 + 1


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "scores.json").write_text("12")
    (tmp_path / "network.safetensors").write_bytes(bytes(LARGE))
    (tmp_path / METRICS).write_text("{}\n")
    write_json_with_digest(tmp_path / STATE, {"finished": True, **record_of(tmp_path)})
    return tmp_path


def damaged(stage, *digest_of):
    return dict(damages(stage, read_state(stage / STATE), *digest_of))


def test_a_state_is_read_as_it_was_written(stage):
    state = read_state(stage / STATE)
    assert state["files"] == {"network.safetensors": LARGE, "scores.json": 2}
    assert (state["finished"], list(state["logs"])) == (True, [METRICS])
    assert damaged(stage, file_digest) == {}


@pytest.mark.parametrize("key", ["finished", "files", "digests", "logs"])
def test_a_changed_state_is_empty(stage, key):
    content = json.loads((stage / STATE).read_text())
    (stage / STATE).write_text(json.dumps({**content, key: {}}))
    assert read_state(stage / STATE) == {}


def test_a_state_of_an_earlier_version_has_no_digest(stage):
    (stage / STATE).write_text('{"finished": true}')
    assert read_state(stage / STATE) == {"finished": True}


@pytest.mark.parametrize("content", ["", "[]", "3", "[" * 100_000, b"\xff"])
def test_anything_else_is_empty(stage, content):
    (stage / STATE).write_bytes(content.encode() if isinstance(content, str) else content)
    assert read_state(stage / STATE) == {}


def test_a_pipe_is_not_read(stage):
    (stage / STATE).unlink()
    os.mkfifo(stage / STATE)
    assert read_state(stage / STATE) == {}


def test_a_changed_byte_of_a_small_file_is_found_without_reading_large_ones(stage):
    (stage / "scores.json").write_text("13")
    (stage / "network.safetensors").write_bytes(b"1" + bytes(LARGE - 1))
    assert small_digest(stage / "network.safetensors") is None
    assert list(damaged(stage)) == ["scores.json"]
    assert sorted(damaged(stage, file_digest)) == ["network.safetensors", "scores.json"]


def test_a_log_may_be_deleted_but_not_changed(stage):
    state = read_state(stage / STATE)
    assert list(changed_logs(stage, state)) == []
    (stage / METRICS).write_text("[]\n")
    assert list(changed_logs(stage, state)) == [stage / METRICS]
    assert damaged(stage, file_digest) == {}  # so the stage does not run again
    (stage / METRICS).unlink()
    assert list(changed_logs(stage, state)) == []
