"""Pools shared out among processes: the same stream, each pool solved once."""

from __future__ import annotations

import pytest
import torch

from genkit.errors import Code, DataError
from genkit.train.distributed import LOCAL, Solution
from genkit.types import Pairs
from raising import raises_code

RANK = """
import hashlib, json
from dataclasses import dataclass

import torch

from genkit.errors import DataError, GenkitError
from genkit.interfaces import Coupler
from genkit.random import generator
from genkit.train.distributed import LOCAL, RankExchange
from genkit.train.pairing import PairStream
from genkit.types import Batch, Pairs
from genkit.world import join_processes

(kind,) = arguments
solved = []


@dataclass(frozen=True, kw_only=True)
class Shuffle(Coupler):
    def pair(self, batch, noise, generator):
        solved.append(len(solved))
        if kind == "failing" and len(solved) == 2:
            raise DataError("no pairs today")
        order = torch.randperm(len(batch), generator=generator)
        if kind == "bijective":
            parts = 3, len(batch) - 3
            return Pairs(torch.arange(len(batch)), order, gap=0.5, parts=parts, entropy=0.25)
        return Pairs(order, order.flip(0))


data = Batch(torch.arange(100.0)[:, None], torch.arange(100))
shuffle, seeds = Shuffle(), lambda *purpose: generator(0, *purpose)
stream = PairStream(data, shuffle, shuffle, None, 16, 150, seeds)
digest, reports, told = hashlib.sha256(), [], ""
with join_processes() as world:
    exchange = RankExchange(world.new_group()) if world.size > 1 else LOCAL
    try:
        for batch, noise, found in stream.batches(12, exchange=exchange):
            for tensor in (batch.data, batch.labels, batch.quantile, noise):
                digest.update(tensor.numpy().tobytes())
            reports += [(r.pool, r.cost_after, r.gap, r.parts, r.entropy) for r in found]
    except GenkitError as error:
        told = str(error)
print(json.dumps([digest.hexdigest(), reports, len(solved), told]))
"""


@pytest.mark.parametrize("kind", ["bijective", "choosing"])
def test_two_processes_see_the_stream_of_one_and_share_the_work(processes, kind):
    ((digest, reports, solves, _),) = processes(RANK, 1, kind)
    assert solves == len(reports) == 10
    for found in processes(RANK, 2, kind):
        assert found[:2] == [digest, reports]
        assert found[2] == 5


def test_an_error_in_one_process_is_told_in_all(processes):
    first, second = processes(RANK, 2, "failing")
    # Each rank fails at its second pool; the first of these is pool 2, of rank 0.
    assert first[3] == second[3] == "pool 2: no pairs today"


def test_a_process_alone_solves_every_pool():
    solved = Solution(Pairs(torch.arange(2), torch.arange(2)), 0.1)
    assert all(LOCAL.solves(index) for index in range(5))
    assert LOCAL.share(3, solved) is solved
    with raises_code(DataError, Code.DATA, "broken"):
        LOCAL.share(3, DataError("broken"))
