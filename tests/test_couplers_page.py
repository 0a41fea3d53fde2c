"""The page of measured couplers is written from whatever was measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from genkit.plugin.manager import load_plugins
from genkit_bench.candidates import chosen_candidates
from genkit_bench.couplers import Limits, Row, measure_couplers
from genkit_bench.pools import Pools, complete
from genkit_bench.synthetic import synthetic
from genkit_bench.tables import couplers_report

ROOT = Path(__file__).parents[1]
MADE = {"command": "python benchmarks/couplers.py speed", "commit": "abc"}
WHERE = {
    "device": "cpu",
    "hardware": "a processor",
    "cores": 2,
    "threads": 1,
    "python": "3.11",
    "packages": {"torch": "2"},
}


@pytest.fixture
def write(monkeypatch, tmp_path):
    """Write parts, then the page of them in a folder of its own; returns the page."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import couplers_growth
    import couplers_page

    monkeypatch.setattr(couplers_page, "RESULTS", tmp_path)
    monkeypatch.setattr(couplers_page, "PAGE", tmp_path / "couplers.md")
    monkeypatch.setattr(couplers_growth, "PICTURE", tmp_path / "images" / "growth.png")

    def page(**parts):
        (tmp_path / "couplers").mkdir()
        for name, part in parts.items():
            of_their_own = name in ("torchcfm", "digits")
            place = f"couplers_{name}.json" if of_their_own else f"couplers/{name}.json"
            (tmp_path / place).write_text(json.dumps(part))
        couplers_page.write_page(None)
        return (tmp_path / "couplers.md").read_text()

    return page


def rows(*made):
    return {
        **MADE,
        "data": {"name": "images", "items": 9, "shape": [3], "classes": 2},
        "seed": 0,
        "limits": asdict(Limits()),
        "environment": WHERE,
        "rows": [asdict(r) for r in made],
    }


def row(coupler, pool, seconds, gap=0.0, gain=1.0, speed=1.0):
    return Row(
        pool=pool,
        coupler=coupler,
        cost="euclidean",
        seconds=seconds,
        speed=speed,
        gap=gap,
        gain=gain,
        peak_bytes=2**20,
        mean_cost=2.0,
        random_cost=3.0,
    )


def test_the_speed_of_exact_pairs(write):
    part = rows(
        row("plain scipy", 512, 1.0),
        row("hungarian", 512, 0.2, speed=5.0),
        row("plain scipy", 1024, 2.0),
        row("hungarian", 1024, 1.0, speed=2.0),
        row("plain scipy", 2048, 9.0),
        row("hungarian", 2048, 1.0, gap=2e-6, speed=9.0),
        row("plain scipy", 64, 9.0),
        row("hungarian", 64, 9.0),
    )
    page = write(speed=part, speed_cuda=part)
    assert "| euclidean | 512 | 1 s | 200 ms | 5.0 | 0 | 1 MiB |" in page
    assert "| euclidean | 1,024 | 2 s | 1 s | 2.0 | 0 | 1 MiB |" in page
    assert "| euclidean | 2,048 | 9 s | 1 s | 9.0 | 2e-06 | 1 MiB |" in page
    assert "| euclidean | 64 | 9 s | 9 s | 1.0 | 0 | 1 MiB |" in page
    assert "| euclidean | 2,048 | 9 s | 1 s | 9.0 | 2e-06 |\n" in page  # on a GPU
    assert "Against torchcfm" not in page
    assert page.count(f"- Command: `{MADE['command']}`") == 2


def test_growth_has_a_picture_and_the_exponents(write, tmp_path):
    made = [
        row(name, size, (size / 1024) ** power)
        for name, power in (("cubic", 3), ("linear", 1))
        for size in (256, 1024, 2048)
    ]
    slow = Row(2048, "slow", "euclidean", note="not measured: it would take about 9 s")
    page = write(growth=rows(*made, slow, Row(4096, "slow", "euclidean", note=slow.note)))
    assert "| cubic | 15.6 ms | 1 s | 8 s | 3.00 |" in page
    assert "| linear | 250 ms | 1 s | 2 s | 1.00 |" in page
    assert "- slow, pools of 2,048 and more: not measured: it would take about 9 s" in page
    assert (tmp_path / "images" / "growth.png").stat().st_size > 10_000


def test_the_gain_of_sinkhorn_and_its_memory(write):
    part = rows(row("plain scipy", 4096, 9.0), row("sinkhorn", 4096, 1.0, gain=0.991))
    alone = {
        "coupler": "sinkhorn",
        "pool": 16_384,
        "seconds": 20.0,
        "mean_cost": 2.9,
        "random_cost": 3.0,
        "bound": None,
        "process_bytes": 5 * 2**30,
    }
    rounded = {**alone, "coupler": "rounded", "mean_cost": 2.8, "bound": 0.04, "process_bytes": 1}
    page = write(sinkhorn={**part, "alone": [alone, rounded]})
    assert "| sinkhorn | 4,096 | 1 s | 99.10 % |" in page
    assert "| sinkhorn | 16,384 | 20 s | 3.33 % | 32.50 % | 5,120 MiB |" in page
    assert "| rounded | 16,384 | 20 s | 6.67 % | 65.00 % | 0 MiB |" in page


def test_the_share_of_waiting(write):
    part = {
        **MADE,
        "recipe": "edm-aot",
        "coupler": "hungarian",
        "pool": 512,
        "pools": 100,
        "images": 51_200,
        "seconds_training": 100.0,
        "seconds_waited": 2.0,
        "share": 0.02,
        "seed": 0,
        "environment": WHERE,
    }
    on_gpu = {**part, "environment": {**WHERE, "device": "cuda:0"}}
    page = write(waiting=part, waiting_cuda=on_gpu)
    assert page.count("| edm-aot | hungarian | 512 | 100 | 100 s | 2.0 s | 2.0 % |") == 2


def test_the_parts_of_other_scripts(write):
    method = {
        "label": "torchcfm exact",
        "seconds": 0.5,
        "size": 256,
        "dropped_images": 64,
        "dropped_noises": 128,
        "fell_back": False,
        "stopped": True,
    }
    verdict = {
        "size": 256,
        "torchcfm": "torchcfm exact",
        "genkit": "genkit hungarian",
        "speedup": 12.34,
        "cost_ratio": 1.0,
        "faster": True,
        "equal_or_lower_cost": True,
        "each_once": True,
    }
    torchcfm = {
        **MADE,
        "environment": WHERE,
        "data": "images",
        "dimensions": 3072,
        "seed": 0,
        "repeats": 5,
        "rows": [method],
        "verdicts": [verdict, {**verdict, "genkit": "slow", "speedup": 0.5, "faster": False}],
    }
    scores = {"curvature": 8.0, "frechet_9": 30.0, "frechet_13": 2.0, "reduction": 0.1}
    arm = {
        "name": "hungarian-512",
        "coupler": {"use": "hungarian"},
        "pool": 512,
        "medians": scores,
        "by_seed": [scores, {**scores, "curvature": 9.0}],
    }
    digits = {**MADE, **WHERE, "samples": 8192, "images": 600, "seeds": [0, 1], "arms": [arm]}
    page = write(torchcfm=torchcfm, digits=digits)
    assert "| genkit hungarian | torchcfm exact | 12.3 | 1.000000 |" in page
    assert "| slow | torchcfm exact | 0.5 | 1.000000 |" in page
    assert "| torchcfm exact | 500 ms | 25% | 50% | not optimal: 256 |" in page
    assert "| hungarian | 512 | 10.0% | 8.00 (8.00 to 9.00) |" in page
    assert "seeds 0, 1" in page


def test_what_the_bench_reports_is_what_the_page_reads(write):
    plugins = load_plugins()
    pools = Pools(complete(synthetic((3, 4, 4), 2, 64, 0), 0), 0, torch.device("cpu"))
    tables = [{"use": "hungarian", "cost": cost} for cost in ("euclidean", "squared")]
    candidates = chosen_candidates(plugins.registry, tables, pools.device)
    limits = Limits(1)
    found = list(measure_couplers(candidates, pools, [8, 512], limits, str))
    part = {**MADE, **couplers_report(found, pools, limits, plugins, "images")}
    page = write(speed=json.loads(json.dumps(part)))
    assert page.count("| euclidean |") == page.count("| squared |") == 2
