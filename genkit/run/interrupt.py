"""Stop a run on a signal: save and stop after the first signal, stop at once after the second."""

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
    """Set a flag on SIGINT, SIGTERM and SIGHUP inside the block.

    SIGHUP is sent when the terminal is closed. A process that ignores SIGHUP, as under ``nohup``,
    still ignores it.

    Args:
        world: processes of the run; rank 0 prints a message.

    Yields:
        Function that returns whether this process received a signal. Outside the main thread, where
        no handler can be set, it always returns False.

    Raises:
        KeyboardInterrupt: the process received a second signal.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    terminals = [output for output in _OUTPUTS if os.isatty(output)]

    def request(number: int, _frame: FrameType | None) -> None:
        if number == _HANGUP:
            _discard(terminals)
            if requested.is_set():  # both the system and the shell send SIGHUP
                return
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()
        # torchrun sends SIGTERM to the remaining processes after the reason was reported.
        if not world.is_main or (world.size > 1 and number == signal.SIGTERM):
            return
        # torchrun forwards only one signal to its processes.
        once_more = b"" if world.size > 1 else b"; press Ctrl-C again to stop at once"
        # Written to the descriptor, since the handler may interrupt a write of the progress line.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping and saving" + once_more + b"\n")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        numbers.append(_HANGUP)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _discard(outputs: list[int]) -> None:
    """Discard output to closed terminals, since a write would raise an error."""
    for output in outputs:
        # isatty is False for a closed terminal. It is True if SIGHUP was sent by ``kill``.
        if not os.isatty(output):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, output)
            os.close(nowhere)
