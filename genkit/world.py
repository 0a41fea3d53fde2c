"""The processes of one run, as ``torchrun`` starts them: who this one is, and how they agree.

Every process does the same unless it asks here for its share. What a process shares with the
others goes over gloo, on the CPU; gradients take the fastest way that there is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        local_rank: of this process on its machine: the index of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return every ``size``-th item, from the rank on."""
        return items[self.rank :: self.size]

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def agree(self, value: T) -> T:
        """Return the value that the leading process has; a small object, such as a flag."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        return held[0]

    def group(self) -> dist.ProcessGroup | None:
        """Return a new group over gloo, for one thread's use; None where there is one process."""
        return cast(dist.ProcessGroup, dist.new_group(backend="gloo")) if self.size > 1 else None


ALONE = World()


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that ``torchrun`` started; one process is a world of its own."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
