"""What a person sees while a run goes on, all of it on stderr: results alone go to stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Clock = Callable[[], float]
"""Returns seconds since any fixed moment."""

_PERIOD = 10.0  # seconds, the least time between two plain lines
_LIVE_PERIOD = 0.1  # seconds, the least time between two states of the live line
_BAR = 20  # columns of the live line's bar
_BAR_FROM = 110  # columns of a terminal that has room for it


class Progress(Protocol):
    """Is told how a run goes on. A context manager, so that a terminal is always restored."""

    def begin(self, number: int, count: int, stage: str, use: str) -> None:
        """Stage ``number`` of ``count`` starts or goes on: its id and what it uses."""
        ...

    def skip(self, number: int, count: int, stage: str) -> None:
        """Stage ``number`` of ``count`` was finished by an earlier call."""
        ...

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        """Report where the stage is.

        Args:
            done: units finished, those of earlier calls included.
            total: units of the whole stage.
            unit: ``images``, ``samples`` or ``cells``.
            loss: recent mean loss, where there is one.
            step: of the optimizer, where there is one.
        """
        ...

    def end(self) -> None:
        """Finish the stage."""
        ...

    def note(self, text: str) -> None:
        """Tell something worth knowing."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


def choose_progress() -> Progress:
    """Return a live line where stderr is a terminal, and plain lines where it is not."""
    console = Console(stderr=True)
    return LiveProgress(console) if console.is_terminal else PlainProgress(sys.stderr)


class SilentProgress(Progress):
    """Says nothing; for calls from Python."""

    def begin(self, number: int, count: int, stage: str, use: str) -> None:
        """Say nothing."""

    def skip(self, number: int, count: int, stage: str) -> None:
        """Say nothing."""

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        """Say nothing."""

    def end(self) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


class Meter:
    """Speed and remaining time of one stage, from what this call did alone.

    A resumed stage starts with units that an earlier call finished, so speed counts from the first
    report on.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun = clock()
        self._first: tuple[float, int] | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began."""
        return self._clock() - self._begun

    def speed(self, done: int) -> float | None:
        """Return units a second, None as long as nothing is known."""
        now = self._clock()
        if self._first is None:
            self._first = (now, done)
        then, before = self._first
        return (done - before) / (now - then) if now > then and done > before else None


class PlainProgress(Progress):
    """Plain lines for logs: the begin and the end of a stage, and a line every ten seconds.

    Args:
        stream: where to write.
        clock: seconds.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._stage = ""
        self._meter = Meter(clock)
        self._said = clock()

    def begin(self, number: int, count: int, stage: str, use: str) -> None:
        self._stage = f"[{number}/{count}] {stage}"
        self._meter, self._said = Meter(self._clock), self._clock()
        self.note(f"{self._stage} ({use}): started")

    def skip(self, number: int, count: int, stage: str) -> None:
        self.note(f"[{number}/{count}] {stage}: finished before")

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        speed = self._meter.speed(done)
        if self._clock() - self._said < _PERIOD:
            return
        self._said = self._clock()
        share = [f"{100 * done / total:.0f} %"] if total else []
        parts = [
            f"{done:,} of {total:,} {unit}",
            *share,
            *_facts(done, total, unit, speed, loss, step),
        ]
        self.note(f"{self._stage}: {', '.join(parts)}")

    def end(self) -> None:
        self.note(_closing(self._stage, self._meter.elapsed))

    def note(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


class LiveProgress(Progress):
    """A live line for the running stage, above it a line for each finished one.

    Args:
        console: on stderr.
        clock: seconds.
    """

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        # Redrawn by ``advance`` and not by a thread: nothing runs beside the training loop.
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False
        )
        self._stage = ""
        self._meter = Meter(clock)
        self._drawn = clock()

    def begin(self, number: int, count: int, stage: str, use: str) -> None:
        self._stage = f"[{number}/{count}] {stage}"
        self._meter = Meter(self._clock)
        self._draw(Text(f"{self._stage} ({use})"))

    def skip(self, number: int, count: int, stage: str) -> None:
        self.note(f"[{number}/{count}] {stage}: finished before")

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        speed = self._meter.speed(done)
        if self._clock() - self._drawn < _LIVE_PERIOD and done < total:
            return
        facts = [f"{done:,}/{total:,}", *_facts(done, total, unit, speed, loss, step)]
        text = Text("  ".join([self._stage, *facts]), no_wrap=True, overflow="ellipsis")
        if self._console.width < _BAR_FROM:
            self._draw(text)
            return
        line = Table.grid(padding=(0, 1))
        line.add_row(ProgressBar(total=max(1, total), completed=done, width=_BAR), text)
        self._draw(line)

    def end(self) -> None:
        self.note(_closing(self._stage, self._meter.elapsed))
        self._draw(Text(""))

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def _draw(self, line: Text | Table) -> None:
        self._drawn = self._clock()
        self._live.update(line, refresh=True)


def _facts(
    done: int, total: int, unit: str, speed: float | None, loss: float | None, step: int | None
) -> list[str]:
    """Return step, speed, loss and remaining time, as far as they are known."""
    facts = [] if step is None else [f"step {step:,}"]
    if speed is not None:
        facts.append(f"{_rate(speed)} {unit}/s")
    if loss is not None:
        facts.append(f"loss {loss:.4g}")
    if speed is not None:
        facts.append(f"{duration(max(0, total - done) / speed)} left")
    return facts


def _closing(stage: str, seconds: float) -> str:
    return f"{stage}: done in {duration(seconds)}"


def _rate(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"


def duration(seconds: float) -> str:
    """Return seconds as ``0:42``, ``12:05`` or ``3:12:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
