"""Ctrl-C asks a run to save and stop; a second one stops it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from genkit.world import SINGLE_PROCESS, World


@contextlib.contextmanager
def stop_on_signal(world: World = SINGLE_PROCESS) -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag for the block.

    Args:
        world: the leading process of which answers to Ctrl-C.

    Yields:
        A function that says whether this process was asked to stop. Outside the main thread, where
        no handler can be set, it is always False.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        # torchrun ends what is left of a run by SIGTERM; why it does so was said already.
        if not world.is_main or (world.size > 1 and number == signal.SIGTERM):
            return
        once_more = (
            b"" if world.size > 1 else b"; once more stops at once"
        )  # torchrun passes on one
        # Straight to the descriptor: the handler may interrupt a write of the progress line.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping and saving" + once_more + b"\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
