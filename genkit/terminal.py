"""Print to the terminal, check arguments of commands, and join the processes of ``torchrun``."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, ParamSpec, TypeVar

from genkit.errors import Code, GenkitError, InterruptedRun, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from genkit.world import World

P = ParamSpec("P")
T = TypeVar("T")

_WIDE = 10_000  # width of an output that is not a terminal, where lines are not wrapped


def console() -> Console:
    """Return a console on stdout, which wraps lines only in a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDE)


def say(to: Console, text: str, style: str = "") -> None:
    """Print text without markup, broken only at spaces, so that paths and names stay whole."""
    to.print(fit(text, to.file), style=style, markup=False, highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    print(fit(f"Warning: {text}", sys.stderr), file=sys.stderr)  # noqa: T201


def fit(text: str, stream: IO[str]) -> str:
    """Return text with lines wrapped at spaces if a stream is a terminal.

    A word that is longer than a line is not broken, since the user may have to copy it.
    """
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    lines = []
    for line in text.split("\n"):
        wrapper.subsequent_indent = " " * (len(line) - len(line.lstrip()) + 2)
        lines.append(wrapper.fill(line))
    return "\n".join(lines)


def show_progress(items: Sequence[T], doing: str) -> Iterable[T]:
    """Return the items, with a progress bar of the iteration if stderr is a terminal.

    Args:
        items: items to iterate over.
        doing: description of the work, such as ``"sampling"``.
    """
    from rich.console import Console
    from rich.progress import track

    to = Console(stderr=True)
    return track(items, doing, console=to, transient=True) if to.is_terminal else items


def check_device(device: str | None) -> None:
    """Raise UsageError unless a string is a valid name of a device, without importing torch."""
    if device is not None and not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?|mps", device):
        raise UsageError(f'no device is called "{device}"; write auto, cpu, cuda, cuda:N or mps')


@contextmanager
def writable(option: str, path: Path) -> Iterator[None]:
    """Convert an OSError in a block to an error with the option that names the file.

    Args:
        option: option of the command line or argument in Python, such as ``--out``.
        path: file that the block writes.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        remedy = "write another name"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space, or write a path on another disk"
        raise UsageError(
            f"{option} must be a writable file, got {path}: {error.strerror}; {remedy}",
            Code.IO_ERROR,
        ) from error


def json_mistakes(command: Callable[P, T]) -> Callable[P, T]:
    """Return a command that prints its mistakes as JSON on stdout if ``as_json`` is true.

    The output is an object with the key ``mistakes``, as that of ``genkit run --json``. The error
    is raised again, so that its message is printed on stderr.
    """

    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except GenkitError as error:
            if kwargs.get("as_json"):
                mistakes = [mistake.as_json() for mistake in error.mistakes]
                print(json.dumps({"mistakes": mistakes}, indent=2))  # noqa: T201
            raise

    return call


def several() -> bool:
    """Return whether ``torchrun`` started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


@contextmanager
def processes() -> Iterator[World | None]:
    """Join the processes that ``torchrun`` started; without it, yield None and do not import torch.

    Raises:
        InterruptedRun: the user pressed Ctrl-C, and the command stopped at once.
    """
    try:
        if not several():
            yield None
            return

        from genkit.world import join_processes

        with join_processes() as world:
            yield world
    except KeyboardInterrupt as stop:  # which typer would handle, and then wait for threads
        raise InterruptedRun("stopped at once; earlier checkpoints are kept") from stop
