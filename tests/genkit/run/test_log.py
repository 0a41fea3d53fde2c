"""Logs of rows: a killed run loses at most the line that it was writing."""

from __future__ import annotations

import json

import pytest

from genkit.run.log import RowLog, read_rows


def test_rows_come_back(tmp_path):
    path = tmp_path / "rows.jsonl"
    log = RowLog(path, [])
    for images in (1, 2, 3):
        log.add({"images": images, "text": "a\u2028b\n"})
    assert read_rows(path) == log.rows
    assert [row["images"] for row in log.rows] == [1, 2, 3]
    assert path.read_text().count("\n") == 3


def test_no_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize("length", range(1, 14))
def test_a_torn_last_line_is_left_out(tmp_path, length):
    path = tmp_path / "rows.jsonl"
    whole = json.dumps({"images": 10}) + "\n"
    path.write_text(whole + json.dumps({"images": 20})[:length])
    assert read_rows(path) == [{"images": 10}]


def test_rows_that_are_kept_replace_what_was_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"images": 10}\n{"images": 20}\n{"ima')
    log = RowLog(path, [{"images": 10}])
    log.add({"images": 15})
    assert read_rows(path) == [{"images": 10}, {"images": 15}]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        RowLog(tmp_path / "rows.jsonl", []).add({"loss": value})


@pytest.mark.parametrize("line", [b"[1, 2]", b'"x"', b"\xff\xfe"])
def test_a_line_that_is_no_row_is_left_out(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"images": 10}\n' + line + b"\n")
    assert read_rows(path) == [{"images": 10}]
