"""Calls beside the main thread, which stays free to hear Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """One thread that makes every call, as the trainer's pairing does.

    A solver written in C hears no signal until it returns, which may take minutes. The thread is a
    daemon: a call that nobody waits for any more does not keep the process alive.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, name="bench", daemon=True).start()

    def call(self, function: Callable[[], T]) -> T:
        """Return what a function returns, or raise what it raises."""
        future: Future[T] = Future()
        self._calls.put((future, function))
        return future.result()

    def _work(self) -> None:
        while True:
            future, function = self._calls.get()
            try:
                future.set_result(function())
            # Whatever it is, the caller is told.
            except BaseException as error:  # noqa: BLE001
                future.set_exception(error)
