from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from genkit_bench import couplers as bench
from genkit_bench.candidates import all_candidates
from genkit_bench.couplers import Limits, Row, measure_couplers
from genkit_bench.measure import Solved, cost_at_random, solve_plainly

CPU = torch.device("cpu")


@pytest.fixture
def measured(registry, pools):
    """The rows of all strangers by coupler and pool, and what was told."""

    def measure(sizes, limits=Limits(2)):  # noqa: B008, frozen
        told = []
        rows = list(
            measure_couplers(all_candidates(registry, CPU), pools, sizes, limits, told.append)
        )
        return {(row.coupler, row.pool): row for row in rows}, told

    return measure


def test_there_is_a_row_for_every_coupler_and_size(measured, pools):
    rows, told = measured([4, 12])
    assert {name for name, size in rows if size == 12} == {
        "plain scipy, euclidean", "plain scipy, squared", "nearest", "picky", "reversed",
    }  # fmt: skip
    row = rows["reversed", 12]
    assert (row.cost, len(row.each), row.note) == ("squared", 2, "")
    assert min(row.each) <= row.seconds <= max(row.each)
    assert row.images_per_second == pytest.approx(12 / row.seconds)
    assert row.matrix_seconds > 0
    assert row.speed == pytest.approx(rows["plain scipy, squared", 12].seconds / row.seconds)
    assert "pool 12, 2 of 2: reversed" in told
    json.dumps([asdict(row) for row in rows.values()], allow_nan=False)


def test_gap_and_gain_are_against_the_optimum_of_the_same_pools(measured, pools):
    rows, _ = measured([12])
    row, plain = rows["reversed", 12], rows["plain scipy, squared", 12]
    assert (plain.gap, plain.gain, plain.speed) == (0, 1, 1)
    optimal = [solve_plainly(pools, "squared", 12, index).mean_cost for index in (0, 1)]
    random = [cost_at_random(pools, "squared", 12, index) for index in (0, 1)]
    paid = []
    for index in (0, 1):
        images, noise = pools.batch(12, index).data, pools.noise(12, index).flip(0)
        paid.append(float((images - noise).square().flatten(1).sum(1).mean()))
    gaps = [p / o - 1 for p, o in zip(paid, optimal, strict=True)]
    gains = [(r - p) / (r - o) for r, p, o in zip(random, paid, optimal, strict=True)]
    assert row.gap == pytest.approx(max(gaps), rel=1e-5)
    assert row.gain == pytest.approx(sum(gains) / 2, rel=1e-4, abs=1e-4)
    assert row.mean_cost == pytest.approx(sum(paid) / 2)
    assert row.random_cost == pytest.approx(sum(random) / 2)


def test_what_a_coupler_proves_is_kept(measured):
    rows, _ = measured([4])
    assert rows["reversed", 4].bound == 0.25
    assert rows["nearest", 4].bound is None


def test_one_that_chooses_among_more_than_the_pool_is_below_the_optimum(measured):
    rows, _ = measured([4])
    assert rows["nearest", 4].gap < 0


def test_a_coupler_that_fails_is_listed_and_ends_nothing(measured):
    rows, _ = measured([4, 12, 16])
    assert rows["picky", 4].seconds is not None
    note = "failed on a pool of 12: ZeroDivisionError: too many"
    assert (rows["picky", 12].seconds, rows["picky", 12].note) == (None, note)
    assert rows["picky", 16].note == note
    assert rows["reversed", 16].seconds is not None


def test_those_that_cannot_be_made_have_a_row_with_the_reason(measured):
    rows, _ = measured([4])
    reason = "denoiser: missing: the path of a denoiser file"
    assert rows["needy", 4] == Row(4, "needy", note=reason)


def test_no_reference_beyond_its_limit(measured):
    rows, _ = measured([4, 8, 12], Limits(1, reference=8))
    assert rows["plain scipy, squared", 8].seconds is not None
    assert rows["plain scipy, squared", 12].note == "not measured on pools larger than 8, its limit"
    row = rows["reversed", 12]
    assert (row.speed, row.gap, row.gain) == (None, None, None)
    assert row.seconds is not None


@pytest.fixture
def slow(monkeypatch):
    """Let calls seem to take the seconds of a function of the pool; returns how often each was."""
    calls = []

    def pretend(of_pool):
        def solve(pools, coupler, size, index, bound=None):
            calls.append(size)
            return Solved(of_pool(size), None, size, 1.0)

        monkeypatch.setattr(bench, "solve", solve)
        return calls

    return pretend


def test_a_coupler_that_is_expected_to_take_too_long_is_not_tried(registry, pools, slow):
    calls = slow(lambda size: (size / 4) ** 3)
    candidates = [one for one in all_candidates(registry, CPU) if one.name == "reversed"]
    rows = list(measure_couplers(candidates, pools, [4, 8, 16, 32], Limits(1, 70), str))
    found = {row.pool: row for row in rows if row.coupler == "reversed"}
    # 1, 8 and 64 seconds; twice the pool took 8 times as long, so 32 would take 512.
    assert found[16].seconds == 64
    assert found[32].note == "not measured: expected to take 512 s, but the limit is 70 s"
    assert found[32].pool not in calls[1:]  # the first warms up


def test_few_pools_where_one_takes_long(registry, pools, slow):
    slow(lambda size: 10.0)
    candidates = [one for one in all_candidates(registry, CPU) if one.name == "reversed"]
    rows = list(measure_couplers(candidates, pools, [8], Limits(9, 35), str))
    assert [len(row.each) for row in rows if row.coupler == "reversed"] == [3]


def test_a_large_cost_matrix_is_not_made_to_be_timed(measured, monkeypatch):
    monkeypatch.setattr(bench, "_MAX_MATRIX", 50)
    rows, _ = measured([7, 8], Limits(1))
    assert rows["reversed", 7].matrix_seconds is not None
    assert rows["reversed", 8].matrix_seconds is None


def test_an_interrupt_reaches_the_caller(registry, pools):
    def tell(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(measure_couplers(all_candidates(registry, CPU), pools, [4], Limits(1), tell))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu(registry, pools):
    there = replace(pools, device=torch.device("cuda"))
    candidates = all_candidates(registry, there.device)
    here = {r.coupler: r for r in measure_couplers(candidates, pools, [8], Limits(1), str)}
    for row in measure_couplers(candidates, there, [8], Limits(1), str):
        if row.seconds is not None:
            assert row.peak_bytes is not None
            assert row.mean_cost == pytest.approx(here[row.coupler].mean_cost, rel=1e-5)
