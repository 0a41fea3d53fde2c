"""Show the progress of a run on stderr; only results are printed to stdout."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from genkit.run.estimate import Estimate
from genkit.terminal import fit

_LINE_PERIOD = 10.0  # min seconds between two lines of a stage
_BAR_PERIOD = 0.1  # min seconds between two updates of a bar
_BAR_FROM = 80  # min width of a terminal in which a bar is shown
_BAR_SHARE = 8  # width of the terminal divided by the width of the bar


class Progress:
    """Base class of progress displays. It shows nothing, and is used for calls from Python.

    It is a context manager, so that the terminal is always restored.
    """

    def plan(self, work: Sequence[float]) -> None:
        """Set the work of all stages before a run.

        Args:
            work: work of each stage in order, see :meth:`genkit.interfaces.Stage.work`.
        """

    def begin(self, number: int, count: int, stage: str, use: str, resumed: bool = False) -> None:
        """Start a stage.

        Args:
            number: position of the stage, from 1.
            count: number of stages.
            stage: id of the stage.
            use: name of its component.
            resumed: whether an earlier call began the stage; the first report is then the position
                at which it resumes.
        """

    def skip(self, number: int, count: int, stage: str) -> None:
        """Report that stage ``number`` of ``count`` was finished by an earlier call."""

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        """Report the position in the stage.

        Args:
            done: finished units, including those of earlier calls.
            total: number of units of the whole stage.
            unit: name of the units in the plural, such as ``images``, ``samples`` or ``cells``.
            loss: recent mean loss; None if there is none.
            step: step of the optimizer; None if there is none.
        """

    def end(self) -> None:
        """Finish the stage."""

    def note(self, text: str) -> None:
        """Show a line."""

    def warn(self, text: str) -> None:
        """Show a warning; the base class logs it."""
        logging.getLogger("genkit").warning(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class Display(Progress):
    """Display with a bar for the running stage in a terminal, and a line every 10 s elsewhere.

    A finished stage is shown as one line. In a narrow terminal, only the most important numbers are
    shown.

    Args:
        console: console on stderr.
        clock: function that returns seconds since a fixed moment.
    """

    _task: Task
    _stage = ""
    _number = 0
    _resumed = False  # whether the next report is the first of a resumed stage
    _estimate = Estimate(())

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._shown = clock()
        self._bar = console.width // _BAR_SHARE if console.width >= _BAR_FROM else 0
        bar = [BarColumn(self._bar)] if self._bar else []
        text = Column(no_wrap=True, overflow="ellipsis")
        self._bars = Bars(
            *bar,
            TextColumn("{task.description}", markup=False, table_column=text),
            console=console,
            # ``advance`` draws the bar, so that no thread runs in parallel to the training loop.
            auto_refresh=False,
            # The speed is the mean over the last 1,000 reports, however long ago they were.
            speed_estimate_period=math.inf,
            transient=True,
            redirect_stdout=False,
            get_time=clock,
            disable=not console.is_terminal,
        )

    def plan(self, work: Sequence[float]) -> None:
        self._estimate = Estimate(work)

    def begin(self, number: int, count: int, stage: str, use: str, resumed: bool = False) -> None:
        self._number = number
        self._stage, self._shown = f"[{number}/{count}] {stage}", self._clock()
        # rich measures the speed from the first increase on. After -1, the first report is an
        # increase even if it is 0, so that the progress of an earlier call is not counted.
        self._bars.add_task(f"{self._stage} ({use})", total=None, completed=-1)
        self._task = self._bars.tasks[-1]
        self._resumed = resumed
        if self._bars.disable:
            self.note(f"{self._stage} ({use}): started")
        else:
            self._bars.refresh()

    def skip(self, number: int, count: int, stage: str) -> None:
        self.note(f"[{number}/{count}] {stage}: finished before")

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        self._bars.update(self._task.id, completed=done, total=total)
        if self._resumed:
            self.note(f"{self._stage}: resumed at {done:,} of {total:,} {unit}")
            self._resumed = False
        now, lines = self._clock(), self._bars.disable
        period = _LINE_PERIOD if lines else _BAR_PERIOD
        if now - self._shown < period and (lines or done < total):  # a bar must show its end
            return
        self._shown = now
        speed, left = self._task.speed, self._task.time_remaining
        shown = f"{speed or 0:,.0f}" if (speed or 0) >= 10 else f"{speed or 0:.2g}"
        share = done / total if total else 1.0
        between = "/" if not lines else " of "
        # In the order of display, each with its priority in a narrow terminal.
        facts = [
            (5, f"{done:,}{between}{total:,}{f' {unit}' if lines else ''}"),
            (0, f"{self._task.percentage:.0f} %" if total else ""),
            (6, "" if step is None else f"step {step:,}"),
            (4, "" if speed is None else f"{shown} {unit}/s"),
            (3, "" if loss is None else f"loss {loss:.4g}"),
            (2, "" if left is None else f"{duration(left)} left"),
            (1, self._of_the_run(share, left, total / (speed or math.inf))),
        ]
        facts = [(rank, fact) for rank, fact in facts if fact]
        if lines:
            self.note(f"{self._stage}: {', '.join(fact for _, fact in facts)}")
        else:
            text = "  ".join([self._stage, *self._fitting(facts)])
            self._bars.update(self._task.id, description=text, refresh=True)

    def _of_the_run(self, share: float, left: float | None, whole: float) -> str:
        """Return the percentage and the remaining time of the whole run; empty if unknown."""
        if (percent := self._estimate.percent(self._number, share)) is None:
            return ""
        rest = None if left is None else self._estimate.left(self._number, left, whole)
        return f"run {percent:.0f} %" + ("" if rest is None else f", {duration(rest)} left")

    def _fitting(self, facts: Sequence[tuple[int, str]]) -> list[str]:
        """Return the facts of highest priority that fit into a line of the terminal."""
        room = self._console.width - len(self._stage) - (self._bar and self._bar + 1)
        kept = set()
        for rank, fact in sorted(facts):
            if (room := room - len(fact) - 2) < 0:
                break
            kept.add(rank)
        return [fact for rank, fact in facts if rank in kept]

    def end(self) -> None:
        self._bars.remove_task(self._task.id)
        self._bars.refresh()
        self.note(f"{self._stage}: done in {duration(self._task.elapsed or 0)}")

    def note(self, text: str) -> None:
        self._console.out(fit(text, self._console.file), highlight=False)

    def warn(self, text: str) -> None:
        self.note(f"Warning: {text}")

    def __enter__(self) -> Self:
        if not self._bars.disable:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._bars.disable:
            self._bars.stop()


def choose_progress() -> Progress:
    """Return a display on stderr."""
    return Display(Console(stderr=True))


def duration(seconds: float) -> str:
    """Return seconds as ``0:42``, ``12:05`` or ``3:12:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
