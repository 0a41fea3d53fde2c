"""What processes share with each other."""

from __future__ import annotations

import pytest

from genkit.errors import Code, UsageError
from genkit.world import ALONE, World, joined_world
from raising import raises_code

TALK = """
import json
import torch
from genkit.world import joined_world

with joined_world() as world:
    led = []
    gathered = world.gather(torch.arange(world.rank + 1))
    turns = []
    for item in world.turns([10, 20, 30, 40]):
        turns += world.gather(None if item is None else -item)
    found = {
        "rank": world.rank,
        "size": world.size,
        "local_rank": world.local_rank,
        "leads": world.leads,
        "agreed": world.agree(f"of {world.rank}"),
        "led": world.lead(lambda: led.append(world.rank) or len(led)),
        "acted": led,
        "any": [world.any(False), world.any(world.rank == 2), world.any(True)],
        "gathered": [values.tolist() for values in gathered],
        "skipping": world.gather(None if world.rank == 1 else world.rank),
        "share": list(world.share(range(7))),
        "turns": turns,
    }
    world.barrier()
    summed = torch.tensor([world.rank + 1.0])
    torch.distributed.all_reduce(summed, group=world.group())
    print(json.dumps({**found, "summed": float(summed)}))
"""


def test_three_processes_talk(processes):
    found = processes(TALK, 3)
    for rank, one in enumerate(found):
        assert one == {
            "rank": rank,
            "size": 3,
            "local_rank": rank % 2,
            "leads": rank == 0,
            "agreed": "of 0",
            "led": 1,
            "acted": [0] if rank == 0 else [],
            "any": [False, True, True],
            "gathered": [[0], [0, 1], [0, 1, 2]],
            "skipping": [0, 2],
            "share": list(range(rank, 7, 3)),
            "turns": [-10, -20, -30, -40],
            "summed": 6.0,
        }


def test_one_process_agrees_with_itself(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined_world() as world:
        assert world is ALONE
    assert world.leads
    assert world.agree("this") == "this"
    assert world.lead(lambda: 7) == 7
    assert [world.any(flag) for flag in (False, True)] == [False, True]
    assert world.gather(3) == [3]
    assert world.gather(None) == []
    assert list(world.turns([1, 2, 3])) == [1, 2, 3]
    assert world.share([1, 2, 3]) == [1, 2, 3]
    assert world.group() is None
    world.barrier()


@pytest.mark.parametrize("size", ["2", "many"])
def test_a_world_without_a_way_to_the_others_is_refused(monkeypatch, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        raises_code(UsageError, Code.USAGE, f"WORLD_SIZE is {size}"),
        joined_world(),
    ):
        pass


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6])
def test_all_processes_have_as_many_turns_and_each_item_once(count):
    items = list(range(count))
    turns = [list(World(rank, 5).turns(items)) for rank in range(5)]
    assert [len(own) for own in turns] == [-(-count // 5)] * 5
    in_order = [item for turn in zip(*turns, strict=True) for item in turn]
    assert [item for item in in_order if item is not None] == items
