"""Import plugins in processes of their own, see :mod:`genkit.plugin.probe`."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from json import dumps  # by name, since a plugin may replace it
from pathlib import Path
from typing import Never

from genkit.plugin.hookspec import GROUP
from genkit.plugin.loading import register
from genkit.plugin.process_state import ProcessState
from genkit.plugin.registry import Owner, in_words, place_of

BEGIN = "begin "
"""Output of a process before the import; the rest of the line is the time limit in seconds."""

SOUND_EXIT = 86
"""Exit code of a process in which nothing else ended it. Arbitrary: not 0, which a plugin that ends
the process is likely to use."""

_MAX_WAIT = 6.0
"""Max factor of the time limit. Chosen, not tuned: on two cores with seven other processes, the
factor is 4 to 8."""

_MOST_NAMES = 3  # in a reason


@dataclass(frozen=True)
class Verdict:
    """Result of probing a plugin.

    Attributes:
        reason: fault of the plugin; empty if it may be imported.
        seconds: time in seconds of import and hooks; None if it was not measured.
    """

    reason: str = ""
    seconds: float | None = None


def serve(jobs: Sequence[Sequence[str]], seconds: float, started: float, forks: bool) -> None:
    """Probe each plugin in a fork of this process, or a single plugin in this process.

    The exit code of a fork is written to a file named like the output, with the suffix ``.code``.

    Args:
        jobs: for each plugin, the output file, the fields of its :class:`Owner`, and the value of
            its entry point.
        seconds: time limit on an idle machine.
        started: time at which this process was started, in seconds since the epoch.
        forks: whether to fork this process, which is not possible on Windows. The forks are killed
            when stdin is closed.
    """
    # A busy machine is no fault of a plugin. The ratio of elapsed time to CPU time of this process
    # is used for the plugins, too.
    wait = (time.time() - started) / max(time.process_time(), 0.01)
    limit = seconds * min(max(wait, 1.0), _MAX_WAIT)
    ProcessState()  # imports the modules that are compared, once for all forks
    if not forks:
        _probe(jobs[0], limit)
    server = os.getpid()
    outputs: dict[int, str] = {}
    for job in jobs:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)  # a signal to the process group does not reach other plugins
            _end_with(server)
            _probe(job, limit)
        outputs[child] = job[0]
    _wait(outputs)


def _wait(outputs: dict[int, str]) -> None:
    """Wait for the forks, and write their exit codes; kill the others when stdin is closed.

    The process that started this one closes stdin after the time limit, or by its own end.
    """
    while outputs and not select.select([0], [], [], 0.01)[0]:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            continue
        _kill(child)
        code = os.waitstatus_to_exitcode(status)
        Path(f"{outputs.pop(child)}.code").write_text(str(code), encoding="utf-8")
    for child in outputs:
        _kill(child)


def _end_with(parent: int) -> None:
    """Let this process be killed when its parent ends, for example because a plugin kills it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it has ended before
            os.kill(os.getpid(), signal.SIGKILL)


def _kill(child: int) -> None:
    """Kill the process group of a fork: the fork and the processes that its plugin started."""
    with suppress(OSError):  # the fork has ended, and was alone
        os.killpg(child, signal.SIGKILL)


def _probe(job: Sequence[str], seconds: float) -> Never:
    """Import a plugin, call its hooks, and write the verdict to a file as JSON.

    If the time limit is exceeded or the process crashes, tracebacks of all threads are written. The
    limit also holds while the process ends, since threads and exit handlers may prevent that.
    """
    output, plugin, distribution, version, value = job
    owner, point = Owner(plugin, distribution, version), metadata.EntryPoint(plugin, value, GROUP)
    answer = Path(output).open("a", encoding="utf-8")  # noqa: SIM115  (open until the end)
    os.dup2(answer.fileno(), 1)  # shows whether anything is written without sys.stdout
    os.dup2(os.open(output, os.O_RDONLY), 0)  # shows by its position whether stdin is read
    reason = ""
    with redirect_stdout(sys.stderr):  # as in a command
        state = ProcessState()
        answer.write(f"{BEGIN}{seconds:.1f}\n")
        answer.flush()
        faulthandler.enable(answer)
        # Implemented in C: it also ends a process whose Python code is blocked.
        faulthandler.dump_traceback_later(seconds, exit=True, file=answer)
        start = time.perf_counter()
        try:
            # An error is no fault: a command catches it, and its cause may be temporary.
            with suppress(Exception, SystemExit):
                register(owner, point)
        except BaseException as error:  # noqa: BLE001
            reason = f"{in_words(error)}{place_of(error)}"
        took, names = time.perf_counter() - start, state.changes()
    if names and not reason:
        rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        reason = (
            f"must not change the process on import, but changed {', '.join(names[:_MOST_NAMES])}"
            f"{rest}; undo the change, or make it in a component or a command"
        )
    answer.write(f"\n{dumps(asdict(Verdict(reason, took)))}\n")
    answer.flush()
    raise SystemExit(SOUND_EXIT)  # threads and exit handlers of the plugin are a part of the test
