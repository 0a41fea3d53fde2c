"""What processes share with each other."""

from __future__ import annotations

import pytest

from genkit.errors import Code, UsageError
from genkit.world import SINGLE_PROCESS, World, join_processes
from raising import raises_code

SCRIPT = """
import json
import torch
from genkit.world import join_processes

with join_processes() as world:
    led = []
    gathered = world.all_gather(torch.arange(world.rank + 1))
    padded = []
    for item in world.padded_shard([10, 20, 30, 40]):
        padded += world.all_gather(None if item is None else -item)
    found = {
        "rank": world.rank,
        "size": world.size,
        "local_rank": world.local_rank,
        "is_main": world.is_main,
        "broadcast": world.broadcast(f"of {world.rank}"),
        "on_main": world.on_main(lambda: led.append(world.rank) or len(led)),
        "acted": led,
        "any": [world.any(False), world.any(world.rank == 2), world.any(True)],
        "gathered": [values.tolist() for values in gathered],
        "skipping": world.all_gather(None if world.rank == 1 else world.rank),
        "share": list(world.shard(range(7))),
        "padded": padded,
    }
    world.barrier()
    summed = torch.tensor([world.rank + 1.0])
    torch.distributed.all_reduce(summed, group=world.new_group())
    print(json.dumps({**found, "summed": float(summed)}))
"""


def test_collective_calls_of_three_processes(processes):
    found = processes(SCRIPT, 3)
    for rank, one in enumerate(found):
        assert one == {
            "rank": rank,
            "size": 3,
            "local_rank": rank % 2,
            "is_main": rank == 0,
            "broadcast": "of 0",
            "on_main": 1,
            "acted": [0] if rank == 0 else [],
            "any": [False, True, True],
            "gathered": [[0], [0, 1], [0, 1, 2]],
            "skipping": [0, 2],
            "share": list(range(rank, 7, 3)),
            "padded": [-10, -20, -30, -40],
            "summed": 6.0,
        }


def test_one_process_agrees_with_itself(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with join_processes() as world:
        assert world is SINGLE_PROCESS
    assert world.is_main
    assert world.broadcast("this") == "this"
    assert world.on_main(lambda: 7) == 7
    assert [world.any(flag) for flag in (False, True)] == [False, True]
    assert world.all_gather(3) == [3]
    assert world.all_gather(None) == []
    assert list(world.padded_shard([1, 2, 3])) == [1, 2, 3]
    assert world.shard([1, 2, 3]) == [1, 2, 3]
    assert world.new_group() is None
    world.barrier()


@pytest.mark.parametrize("size", ["2", "many"])
def test_a_world_without_a_way_to_the_others_is_refused(monkeypatch, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        raises_code(UsageError, Code.USAGE, f"WORLD_SIZE is {size}"),
        join_processes(),
    ):
        pass


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6])
def test_padded_shards_have_one_length_and_each_item_once(count):
    items = list(range(count))
    turns = [list(World(rank, 5).padded_shard(items)) for rank in range(5)]
    assert [len(own) for own in turns] == [-(-count // 5)] * 5
    in_order = [item for turn in zip(*turns, strict=True) for item in turn]
    assert [item for item in in_order if item is not None] == items
