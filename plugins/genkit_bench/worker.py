"""Run function calls in a thread, so that the main thread can handle Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Run all calls in one thread, as training does with the calls of a coupler.

    Python handles signals only when a call of C code has returned, which may take minutes for a
    solver. The thread is a daemon, so that an abandoned call does not keep the process alive.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, name="bench", daemon=True).start()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the thread; return its result, or raise its exception."""
        future: Future[T] = Future()
        self._calls.put((future, function))
        return future.result()

    def _work(self) -> None:
        while True:
            future, function = self._calls.get()
            try:
                future.set_result(function())
            # Any exception is passed to the caller.
            except BaseException as error:  # noqa: BLE001
                future.set_exception(error)
