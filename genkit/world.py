"""The processes of one run, as ``torchrun`` starts them: who this one is, and how they agree.

Every process does the same unless it asks here for its share. What a process shares with the
others goes over gloo, on the CPU; gradients take the fastest way that there is.

The methods that talk (:meth:`World.barrier`, ``agree``, ``lead``, ``any``, ``gather``) are called
by all processes in the same order, or they wait for each other for ever.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from genkit.errors import EndedElsewhere, GenkitError, InterruptedRun, UsageError

T = TypeVar("T")

_PATIENCE = timedelta(days=30)  # while one process works alone; one that dies is noticed at once


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        local_rank: of this process on its machine: the index of its GPU.
        talk: over which the processes agree, from their main threads; None for one process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    talk: dist.ProcessGroup | None = field(default=None, repr=False, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return every ``size``-th item, from the rank on."""
        return items[self.rank :: self.size]

    def turns(self, items: Sequence[T]) -> Iterator[T | None]:
        """Yield this process's share of the items, one a turn; None where others have one left.

        All processes have as many turns, so that they may talk in each.
        """
        for start in range(0, len(items), self.size):
            mine = start + self.rank
            yield items[mine] if mine < len(items) else None

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.talk:
            dist.barrier(self.talk)

    def agree(self, value: T) -> T:
        """Return the value that the leading process has; a small object, such as a flag."""
        if not self.talk:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, group=self.talk)
        return held[0]

    def lead(self, act: Callable[[], T]) -> T:
        """Let the leading process alone do something; return what it returned everywhere."""
        return self.agree(cast(T, act() if self.leads else None))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. Takes a fraction of a millisecond."""
        if not self.talk:
            return flag
        told = torch.tensor([flag], dtype=torch.uint8)
        dist.all_reduce(told, dist.ReduceOp.MAX, self.talk)
        return bool(told)

    def gather(self, value: T | None) -> list[T]:
        """Return what each process has, in the order of their ranks.

        With :meth:`turns`, that is the order of the items.

        Args:
            value: a tensor on the CPU, of any length, or an object; None is left out.
        """
        found: list[T | None] = [value] * self.size
        if self.talk:
            dist.all_gather_object(found, value, self.talk)
        return [v for v in found if v is not None]

    def group(self) -> dist.ProcessGroup | None:
        """Return a new group over gloo, for one thread's use; None where there is one process."""
        return _gloo() if self.talk else None


ALONE = World()


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that ``torchrun`` started; one process is a world of its own.

    Of an error that ends the run, one process tells: the first that has it. Of a stop that the
    user asked for, the leading one does.

    Raises:
        EndedElsewhere: instead of an error or a stop that another process tells of.
        UsageError: the environment speaks of other processes, and not of where they are.
        GenkitError: another process is gone, and did not say why.
    """
    told = os.environ.get("WORLD_SIZE", "1")
    if told == "1":
        yield ALONE
        return
    try:
        store, rank, size = next(rendezvous("env://"))
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE is {told}, but the other processes cannot be joined: {error}; "
            "start with torchrun, or unset WORLD_SIZE"
        ) from error
    on_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size
    )
    world = World(rank, size, int(os.environ.get("LOCAL_RANK", "0")), _gloo())
    try:
        yield world
        world.barrier()
    except (InterruptedRun, KeyboardInterrupt) as stop:
        if world.leads and _speaks(store):
            raise
        raise EndedElsewhere("stopped") from stop
    except Exception as error:
        if not _speaks(store):
            raise EndedElsewhere(str(error)) from error
        if isinstance(error, GenkitError):
            raise
        if re.search(r"gloo|NCCL|Connection (closed|reset)", str(error)):
            raise GenkitError(
                "another process of this run was killed or lost; run the same command to resume"
            ) from error
        traceback.print_exception(error)
        raise EndedElsewhere(str(error)) from error
    dist.destroy_process_group()


def _gloo() -> dist.ProcessGroup:
    return cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_PATIENCE))


def _speaks(store: Store) -> bool:
    """Whether this is the first process to ask; False also where the leading one is gone."""
    try:
        return bool(store.add("genkit/ended", 1) == 1)
    except RuntimeError:
        return False
