"""Prefetch items in threads, in order and with bounded memory."""

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


def prefetch(
    indices: Iterable[int],
    prepare: Callable[[int], P],
    finish: Callable[[int, Future[P]], R],
    ahead: int,
    together: bool = False,
    waiting: deque[Future[R]] | None = None,
) -> Generator[Future[R]]:
    """Yield the future of ``finish(index, prepared)`` for each index, in order.

    Args:
        indices: indices of the items.
        prepare: expensive part, which runs in a pool of threads.
        finish: part that runs in one thread, item by item in order, so that it may make collective
            calls.
        ahead: number of items in preparation or in the queue besides the last one yielded, at
            least 1.
        together: whether ``finish`` makes collective calls. Items that were started are then
            completed even if the caller stops early: otherwise other ranks would wait forever.
        waiting: filled with the futures that are not yet yielded. No item is started before the
            next one is requested.
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
        # Do not wait: the second Ctrl-C must stop the run at once.
        preparing.shutdown(wait=False, cancel_futures=not together)
        finishing.shutdown(wait=False, cancel_futures=not together)


@contextmanager
def reserve_core() -> Iterator[None]:
    """Leave one core to the coupler where torch would use all: oversubscription slows both down."""
    threads = torch.get_num_threads()
    if threads > 1 and threads >= (os.cpu_count() or 1):
        torch.set_num_threads(threads - 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
