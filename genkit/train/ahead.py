"""Work that runs ahead of its consumer: several items at a time, in order, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

P = TypeVar("P")
R = TypeVar("R")


def run_ahead(
    indices: Iterable[int],
    prepare: Callable[[int], P],
    finish: Callable[[int, Future[P]], R],
    ahead: int,
    together: bool = False,
    waiting: deque[Future[R]] | None = None,
) -> Generator[Future[R]]:
    """Yield the future of ``finish(index, prepared)`` for each index, in order.

    Args:
        indices: of the items.
        prepare: the heavy part. Runs in threads, for several items at a time where there are
            cores for it.
        finish: runs in one thread, item after item in order, so that it may talk to other
            processes.
        ahead: items that are worked on or wait beside the one that was yielded last, at least 1.
        together: ``finish`` waits for other processes, which wait for this one in turn. So what
            was begun is ended even where the caller stops early: all stop behind the same item.
        waiting: filled with the futures that are not yet yielded. No item is begun until the next
            one is asked for.
    """
    free = max(1, (os.cpu_count() or 1) - 1)
    preparing = ThreadPoolExecutor(min(ahead, free), thread_name_prefix="pairing")
    finishing = ThreadPoolExecutor(1, thread_name_prefix="finishing")
    waiting = deque() if waiting is None else waiting
    try:
        for index in indices:
            waiting.append(finishing.submit(finish, index, preparing.submit(prepare, index)))
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        waiting.clear()
        # Not waited for: who asks for a stop twice means at once.
        preparing.shutdown(wait=False, cancel_futures=not together)
        finishing.shutdown(wait=False, cancel_futures=not together)


@contextmanager
def core_for_pairing() -> Iterator[None]:
    """Leave one core to the coupler where torch would take all: sharing one slows down both."""
    threads = torch.get_num_threads()
    if threads > 1 and threads >= (os.cpu_count() or 1):
        torch.set_num_threads(threads - 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
