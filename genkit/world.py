"""Join the processes of a run that ``torchrun`` starts, and define their collective operations.

Small objects are sent over gloo on the CPU; gradients use NCCL if it is available.

The methods ``barrier``, ``broadcast``, ``on_main``, ``any``, ``all_gather`` and ``new_group`` of
:class:`World` are collective: every rank must call them in the same order, or all ranks wait
forever.
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

# Ranks wait while rank 0 runs a stage. If a process ends, gloo ends the wait without this timeout.
_TIMEOUT = timedelta(days=30)


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: rank of this process, from 0.
        size: number of processes.
        local_rank: rank of this process on its machine, which is the index of its GPU.
        process_group: gloo group of the main threads; None for a single process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    process_group: dist.ProcessGroup | None = field(default=None, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Return every ``size``-th item, starting at the rank."""
        return items[self.rank :: self.size]

    def padded_shard(self, items: Sequence[T]) -> Iterator[T | None]:
        """Yield the items of :meth:`shard`, padded with None to the same length on all ranks."""
        for start in range(0, len(items), self.size):
            index = start + self.rank
            yield items[index] if index < len(items) else None

    def barrier(self) -> None:
        """Wait until every rank has called this."""
        if self.process_group:
            dist.barrier(self.process_group)

    def broadcast(self, value: T) -> T:
        """Return the value of rank 0, a small object such as a flag. Collective."""
        if not self.process_group:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.process_group)
        return values[0]

    def on_main(self, function: Callable[[], T]) -> T:
        """Call a function on rank 0 only, and return its result on every rank. Collective."""
        return self.broadcast(cast(T, function() if self.is_main else None))

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set on any rank. Collective; takes under 1 ms on one machine."""
        if not self.process_group:
            return flag
        maximum = torch.tensor([flag], dtype=torch.uint8)
        dist.all_reduce(maximum, dist.ReduceOp.MAX, self.process_group)
        return bool(maximum)

    def all_gather(self, value: T | None) -> list[T]:
        """Return the values of all ranks, in the order of the ranks. Collective.

        If each rank passes its item of :meth:`padded_shard`, the values are in the order of items.

        Args:
            value: tensor on the CPU, of any length, or an object; None values are left out of the
                result.
        """
        values: list[T | None] = [value] * self.size
        if self.process_group:
            dist.all_gather_object(values, value, self.process_group)
        return [v for v in values if v is not None]

    def new_group(self) -> dist.ProcessGroup | None:
        """Return a new gloo group for calls of another thread; None for one process. Collective."""
        return _gloo() if self.process_group else None


SINGLE_PROCESS = World()


@contextmanager
def join_processes() -> Iterator[World]:
    """Join the processes that ``torchrun`` started; without it, yield a world of one process.

    An error that ends the run is reported only by the rank that fails first. A stop that the user
    requested is reported by rank 0.

    Raises:
        EndedElsewhere: another rank reports the error or the stop.
        UsageError: ``WORLD_SIZE`` is set, and the other variables of ``torchrun`` are missing or
            invalid.
        GenkitError: another process ended without reporting an error, for example because it was
            killed.
    """
    size_text = os.environ.get("WORLD_SIZE", "1")
    if size_text == "1":
        yield SINGLE_PROCESS
        return
    try:
        store, rank, size = next(rendezvous("env://"))
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE is {size_text}, but the other processes cannot be joined: {error}; "
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
        if world.is_main and _reports_first(store):
            raise
        raise EndedElsewhere("stopped") from stop
    except Exception as error:
        if not _reports_first(store):
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
    return cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_TIMEOUT))


def _reports_first(store: Store) -> bool:
    """Return whether this rank is the first to call this; False if rank 0 ended."""
    try:
        return bool(store.add("genkit/ended", 1) == 1)
    except RuntimeError:
        return False
