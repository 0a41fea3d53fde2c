"""What the commands share: the console that they print to, and names that they check."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from genkit.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 10_000  # columns of what is no terminal: lines there are not wrapped


def console() -> Console:
    """Return a console on stdout; where that is no terminal, nothing is wrapped."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDE)


def say(to: Console, text: str) -> None:
    """Print text as it is, lines unbroken."""
    to.print(text, markup=False, highlight=False, soft_wrap=True)


def check_device(device: str | None) -> None:
    """Raise UsageError unless a device could have this name; needs no torch."""
    if device is not None and not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?|mps", device):
        raise UsageError(f'no device is called "{device}"; write auto, cpu, cuda, cuda:N or mps')
