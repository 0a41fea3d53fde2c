"""The processes that ``torchrun`` starts, as commands join them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from genkit.errors import InterruptedRun

if TYPE_CHECKING:
    from genkit.world import World


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

        from genkit.world import joined_world

        with joined_world() as world:
            yield world
    except KeyboardInterrupt as stop:  # which typer would answer, and then wait for threads
        raise InterruptedRun("stopped at once, with what was saved before") from stop
