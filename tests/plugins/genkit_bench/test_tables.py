from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import torch
from rich.console import Console

from genkit.plugin.manager import Plugins
from genkit_bench.couplers import Limits, Row
from genkit_bench.tables import (
    COUPLERS,
    couplers_report,
    gap_text,
    memory_text,
    notes,
    table,
    time_text,
)

PLAIN = Row(
    pool=256,
    coupler="plain scipy",
    cost="euclidean",
    matrix_seconds=0.001,
    seconds=0.02,
    speed=1.0,
    gap=0.0,
    gain=1.0,
    peak_bytes=2**20,
    images_per_second=12800.0,
)
FAST = replace(
    PLAIN, coupler="fast", seconds=0.002, speed=10.0, gap=0.0123, gain=0.9, peak_bytes=None
)
LIMIT = "not measured beyond its limit, a pool of 256"
ROWS = [
    Row(256, "needy", note="potential: missing"),
    PLAIN,
    FAST,
    Row(512, "plain scipy", "euclidean", note=LIMIT),
    Row(512, "fast", "euclidean", seconds=1.5, bound=1e-6, images_per_second=341.3),
    Row(1024, "plain scipy", "euclidean", note=LIMIT),
]


def lines_of(renderable):
    stream = io.StringIO()
    Console(file=stream, width=10_000).print(renderable)
    return [line.strip() for line in stream.getvalue().splitlines()]


def test_the_table_has_what_was_measured():
    head, _, *lines = lines_of(table(ROWS, COUPLERS, section=lambda row: row.pool))
    assert head.split("  ")[0] == "coupler"
    assert all(column in head for column in COUPLERS)
    plain = ["plain scipy", "256", "1 ms", "20 ms", "1x", "0", "100.0%", "1 MiB", "12,800"]
    assert re.split(r" {2,}", lines[0]) == plain
    fast = ["fast", "256", "1 ms", "2 ms", "10x", "0.012", "90.0%", "12,800"]
    assert re.split(r" {2,}", lines[1]) == fast
    assert lines[2] == ""
    assert lines[3].split() == ["fast", "512", "1.5", "s", "<=", "1e-06", "341"]
    assert len(lines) == 4


def test_what_was_not_measured_is_told_once_with_its_sizes():
    assert notes(ROWS) == [
        "needy, pool 256: potential: missing",
        "plain scipy, pool 512, 1,024: not measured beyond its limit, a pool of 256",
    ]


def test_json_holds_everything(pools):
    found = couplers_report(ROWS, pools, Limits(), Plugins(None, (), ()), "synthetic")
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["data"] == {"name": "synthetic", "items": 64, "shape": [3, 4, 6], "classes": 3}
    assert again["limits"] == {"repeats": 3, "seconds": 120.0, "reference": 4096}
    assert again["seed"] == 0
    assert again["environment"]["threads"] == torch.get_num_threads()
    assert again["environment"]["device"] == "cpu"
    assert again["rows"][2]["gain"] == 0.9
    assert again["rows"][0]["note"] == "potential: missing"


def test_numbers_are_read_easily():
    assert [gap_text(value) for value in (0.0, -1e-15, 1.234e-7, -0.05)] == [
        "0",
        "0",
        "1.2e-07",
        "-0.05",
    ]
    times = [time_text(value) for value in (1e-4, 0.25, 0.9996, 12.345)]
    assert times == ["0.1 ms", "250 ms", "1 s", "12.3 s"]
    assert memory_text(5 * 2**30) == "5,120 MiB"
