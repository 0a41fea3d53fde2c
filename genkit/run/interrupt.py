"""Stop a run on a signal: the first one requests that it saves, the second stops it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from genkit.world import SINGLE_PROCESS, World

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_OUTPUTS = (1, 2)


@contextlib.contextmanager
def stop_on_signal(world: World = SINGLE_PROCESS) -> Iterator[Callable[[], bool]]:
    """Turn SIGINT, SIGTERM and SIGHUP into a flag for the block.

    Closing a terminal sends SIGHUP. A process that ignores SIGHUP, as under ``nohup``, still
    ignores it.

    Args:
        world: processes of the run; rank 0 prints a message.

    Yields:
        Function that returns whether this process received a signal. Outside the main thread, where
        no handler can be set, it returns False.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    terminals = [output for output in _OUTPUTS if os.isatty(output)]

    def ask(number: int, _frame: FrameType | None) -> None:
        if number == _HANGUP:
            _discard(terminals)
            if asked.is_set():  # both the system and the shell send one
                return
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        # torchrun ends remaining processes by SIGTERM, after the reason was already reported.
        if not world.is_main or (world.size > 1 and number == signal.SIGTERM):
            return
        once_more = (
            b"" if world.size > 1 else b"; once more stops at once"
        )  # torchrun passes on one
        # Directly to the descriptor, since the handler may interrupt a write of the progress line.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping and saving" + once_more + b"\n")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        numbers.append(_HANGUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _discard(outputs: list[int]) -> None:
    """Discard output to terminals that are closed, where a write would raise an error."""
    for output in outputs:
        # A closed terminal is none any more. One that still works got no SIGHUP of its own: the
        # signal was sent by ``kill``.
        if not os.isatty(output):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, output)
            os.close(nowhere)
