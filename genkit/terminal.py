"""What commands share: the console, names that they check, and the processes of ``torchrun``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from genkit.errors import InterruptedRun, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from genkit.world import World

T = TypeVar("T")

_WIDE = 10_000  # columns of what is no terminal: lines there are not wrapped


def console() -> Console:
    """Return a console on stdout; where that is no terminal, nothing is wrapped."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDE)


def say(to: Console, text: str) -> None:
    """Print text as it is, lines unbroken."""
    to.print(text, markup=False, highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    from rich.console import Console

    say(Console(stderr=True), f"Warning: {text}")


def tracked(items: Sequence[T], doing: str) -> Iterable[T]:
    """Return the items; their iteration is shown on stderr where that is a terminal.

    Args:
        items: items to iterate over.
        doing: what is done with them, such as ``"sampling"``.
    """
    from rich.console import Console
    from rich.progress import track

    to = Console(stderr=True)
    return track(items, doing, console=to, transient=True) if to.is_terminal else items


def check_device(device: str | None) -> None:
    """Raise UsageError unless a device could have this name; needs no torch."""
    if device is not None and not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?|mps", device):
        raise UsageError(f'no device is called "{device}"; write auto, cpu, cuda, cuda:N or mps')


def several() -> bool:
    """Whether ``torchrun`` started this process beside others."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


@contextmanager
def processes() -> Iterator[World | None]:
    """Join the processes that ``torchrun`` started; without them torch is not imported for it.

    Raises:
        InterruptedRun: the user stopped the command at once.
    """
    try:
        if not several():
            yield None
            return

        from genkit.world import join_processes

        with join_processes() as world:
            yield world
    except KeyboardInterrupt as stop:  # which typer would answer, and then wait for threads
        raise InterruptedRun("stopped at once, with what was saved before") from stop
