"""What the commands share: the console that they print to, and names that they check."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from genkit.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

_WIDE = 10_000  # columns of what is no terminal: lines there are not wrapped


def console() -> Console:
    """Return a console on stdout; where that is no terminal, nothing is wrapped."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDE)


def say(to: Console, text: str) -> None:
    """Print text as it is, lines unbroken."""
    to.print(text, markup=False, highlight=False, soft_wrap=True)


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
