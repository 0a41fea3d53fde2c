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
        prepare: expensive function, called in a pool of threads.
        finish: function called in a single thread, item by item in order, so that it may make
            collective calls.
        ahead: number of items that are started but not yet yielded, at least 1.
        together: whether ``finish`` makes collective calls. All started items are then completed
            even if the caller stops early, since other ranks would otherwise wait forever.
        waiting: queue that is filled with the futures that are not yet yielded. Items are started
            only when the caller requests the next future.
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
        # Without waiting for threads: the second Ctrl-C must stop the run at once.
        preparing.shutdown(wait=False, cancel_futures=not together)
        finishing.shutdown(wait=False, cancel_futures=not together)


@contextmanager
def reserve_core() -> Iterator[None]:
    """Reserve one core for the coupler if torch would use all; oversubscription slows both down."""
    threads = torch.get_num_threads()
    if threads > 1 and threads >= (os.cpu_count() or 1):
        torch.set_num_threads(threads - 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
