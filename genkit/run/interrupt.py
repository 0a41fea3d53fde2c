"""Stop a run on a signal: the first one asks it to save, the second one stops it at once."""

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

    A terminal that is closed sends SIGHUP. A process that ignores it, as ``nohup`` starts it,
    ignores it here too.

    Args:
        world: processes of the run, of which rank 0 answers to Ctrl-C.

    Yields:
        A function that says whether this process was asked to stop. Outside the main thread, where
        no handler can be set, it is always False.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    terminals = [output for output in _OUTPUTS if os.isatty(output)]

    def ask(number: int, _frame: FrameType | None) -> None:
        if number == _HANGUP:
            _discard(terminals)
            if asked.is_set():  # the system and the shell send one each
                return
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
    """Discard what is written to a terminal that is gone, where a write would raise an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in outputs:
        os.dup2(nowhere, output)
    os.close(nowhere)
