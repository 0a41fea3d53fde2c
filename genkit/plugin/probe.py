"""Probe third-party plugins in other processes, so that a faulty plugin cannot damage a command.

Errors of a plugin are caught where it is loaded. Other faults cannot be caught there: a plugin ends
the process on import, does not return, keeps the process alive, or changes the state of the
process. Each plugin is therefore imported in a new process first, and its hooks are called there. A
plugin with such a fault is not loaded.

The verdict is stored in genkit's folder in the user's cache folder. It is valid until the plugin or
the installed packages change. Without a usable cache, each command probes again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from genkit.files import cache_folder, write_json
from genkit.plugin import probe_process, process_state
from genkit.plugin.hookspec import OURS
from genkit.plugin.probe_process import BEGIN, SOUND_EXIT, Verdict
from genkit.plugin.registry import Owner

PROBE_SECONDS = 5.0
"""Time limit in seconds of import and hooks on an idle machine. Chosen, not tuned: they take 0.1 s,
or 3 s if they import PyTorch, and the first command after an installation must take less than 10 s
even if a plugin hangs."""

_START_SECONDS = 60.0
"""Max seconds to start Python and to import genkit, which is no fault of the plugin."""
_GRACE_SECONDS = 2.0
"""Seconds after the time limit at which a process that has not ended itself is killed."""
_FORKS = hasattr(os, "fork")
_PACKAGES = (".dist-info", ".egg-info")
_RULES = Path(probe_process.__file__), Path(process_state.__file__)
_PROBING = "GENKIT_PROBING"
"""Environment variable that is set in the processes that probe."""

Candidate = tuple[Owner, metadata.EntryPoint]


def probe(
    candidates: Sequence[Candidate], seconds: float | None = None
) -> dict[Candidate, Verdict]:
    """Return the verdicts on third-party plugins.

    There is no verdict on a plugin that is already imported, or whose process cannot be started. An
    error that the caller can catch is not a fault, since its cause may be temporary. In a process
    that probes a plugin, the other plugins must not be loaded.

    Args:
        candidates: plugins with their entry points.
        seconds: time limit of new probes of all plugins. None to return stored verdicts, and to
            probe the other plugins with the default time limit.
    """
    if _PROBING in os.environ:
        return dict.fromkeys(candidates, Verdict("is not loaded while a plugin is probed"))
    fresh = seconds is not None
    candidates = [c for c in candidates if fresh or _module(c[1]) not in sys.modules]
    digests = {candidate: _digest(*candidate) for candidate in candidates}
    verdicts = {} if fresh else _recall(digests)
    if len(verdicts) == len(digests):
        return verdicts
    with _one_process():
        verdicts = {} if fresh else _recall(digests)  # of the process that had the lock
        missing = tuple(item for item in digests.items() if item[0] not in verdicts)
        # Without a usable cache, the function remembers the verdicts for the next call.
        probe_all = _probe_all.__wrapped__ if fresh else _probe_all
        found = probe_all(missing, seconds or PROBE_SECONDS) if missing else {}
        _store(found, digests)
    return verdicts | found


@contextmanager
def _one_process() -> Iterator[None]:
    """Hold a lock, so that other processes of the same run use the verdicts of this one.

    If the folder is not writable, or the lock is held too long, the processes run concurrently.
    """
    from filelock import FileLock

    lock = FileLock(_folder() / "lock", timeout=_START_SECONDS)
    with suppress(OSError, NotImplementedError):
        _folder().mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _folder() -> Path:
    """Return the folder of the verdicts; without a home folder, one that cannot be created."""
    return (cache_folder() or Path(os.devnull)) / "plugins"


def _file(owner: Owner, point: metadata.EntryPoint) -> Path:
    """Return the file of the verdict on a plugin, which depends on the place of installation."""
    facts = [sys.prefix, _place(point), owner.distribution, owner.plugin, point.value]
    return _folder() / f"{_hash(facts)[:32]}.json"


def _recall(digests: dict[Candidate, str]) -> dict[Candidate, Verdict]:
    """Return the stored verdicts, without those that are corrupt or out of date."""
    found: dict[Candidate, Verdict] = {}
    for candidate, digest in digests.items():
        with suppress(OSError, ValueError, RecursionError):
            match json.loads(_file(*candidate).read_bytes()):
                case {"digest": str(of), "reason": str(reason), "seconds": float() | None as took}:
                    if of == digest:
                        found[candidate] = Verdict(reason, took)
    return found


def _store(verdicts: dict[Candidate, Verdict], digests: dict[Candidate, str]) -> None:
    for candidate, verdict in verdicts.items():
        with suppress(OSError):
            write_json(_file(*candidate), {"digest": digests[candidate], **asdict(verdict)})


def _digest(owner: Owner, point: metadata.EntryPoint) -> str:
    """Return a hash of everything on which the verdict on a plugin depends.

    ``RECORD`` contains the hashes of all installed files, but not those of the source files of an
    editable installation. Their times and sizes are therefore added. The names and versions of the
    packages in the same folder are added too, since the fault may be in one of them.
    """
    facts: list[object] = [sys.version, owner.version]
    with suppress(OSError, ValueError, ImportError):  # a damaged installation
        facts.append(metadata.version(OURS))
        facts += sorted(p.name for p in Path(_place(point)).iterdir() if p.suffix in _PACKAGES)
        for file in (*_sources(_module(point)), *_RULES):
            status = file.stat()
            facts += [str(file), status.st_mtime_ns, status.st_size]
        facts.append(point.dist.read_text("RECORD") if point.dist else None)
    return _hash(facts)


def _hash(facts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _place(point: metadata.EntryPoint) -> str:
    """Return the folder in which the distribution of an entry point is installed."""
    return str(point.dist.locate_file("")) if point.dist else ""


def _module(point: metadata.EntryPoint) -> str:
    """Return the module of an entry point, whose value may be malformed."""
    return re.split(r"[:\[\s]", point.value.strip())[0]


def _sources(module: str) -> list[Path]:
    """Return the Python files of a module's top-level package, without importing it.

    For a namespace package, these are the files of the part that contains the module.
    """
    name, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(name)
        while spec and spec.origin is None and rest:
            name = f"{name}.{rest.pop(0)}"
            spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    except (ImportError, AttributeError, ValueError):  # a damaged installation
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)] if spec.has_location and spec.origin else []
    return sorted(f for place in spec.submodule_search_locations for f in Path(place).rglob("*.py"))


@functools.lru_cache(maxsize=1)
def _probe_all(
    missing: tuple[tuple[Candidate, str], ...], seconds: float
) -> dict[Candidate, Verdict]:
    """Probe plugins concurrently, each in its own process; the verdicts depend on the digests.

    There is no verdict on a plugin whose process could not be started.
    """
    verdicts: dict[Candidate, Verdict] = {}
    with (
        suppress(OSError),  # no memory, too many processes, no temporary folder
        tempfile.TemporaryDirectory(prefix="genkit-", ignore_cleanup_errors=True) as folder,
    ):
        outputs = [Path(folder, str(index)) for index in range(len(missing))]
        jobs = [
            (str(output), *astuple(owner), point.value)
            for output, ((owner, point), _) in zip(outputs, missing, strict=True)
        ]
        codes = _run(jobs, outputs, seconds)
        for (candidate, _), output, code in zip(missing, outputs, codes, strict=True):
            text = output.read_text("utf-8", "replace") if output.exists() else ""
            if text.startswith(BEGIN):
                module = _module(candidate[1])
                verdicts[candidate] = _verdict(module, text, code)
    return verdicts


def _run(
    jobs: Sequence[tuple[str, ...]], outputs: Sequence[Path], seconds: float
) -> list[int | None]:
    """Probe plugins in new processes.

    Where processes can be forked, one new process imports genkit and is forked for each plugin.
    This takes less time than a new process for each plugin. If a plugin ends the process that is
    forked by a signal, the plugins are divided until that plugin is alone.

    Returns:
        Exit code of each plugin's process; None if it exceeded the time limit.

    Raises:
        OSError: a process cannot be created.
    """
    for file in (path for output in outputs for path in (output, output.with_suffix(".code"))):
        file.unlink(missing_ok=True)  # of the previous attempt
    groups = [jobs] if _FORKS else [[job] for job in jobs]
    processes: list[subprocess.Popen[bytes]] = []
    until, begun = time.monotonic() + _START_SECONDS, False
    try:
        for group in groups:
            processes.append(_start(group, seconds))
        while any(p.poll() is None for p in processes) and time.monotonic() < until:
            if not begun and all(limits := [_limit(output) for output in outputs]):
                until, begun = time.monotonic() + max(limits) + _GRACE_SECONDS, True
            time.sleep(0.01)
    finally:
        codes = [process.poll() for process in processes]
        for process in processes:
            _end(process)
    if not _FORKS:
        return codes
    if (codes[0] or 0) < 0:
        half = len(jobs) // 2
        parts = slice(half), slice(half, None)
        return codes if not half else [c for p in parts for c in _run(jobs[p], outputs[p], seconds)]
    if codes[0]:
        raise OSError("a process cannot be forked")
    files = [output.with_suffix(".code") for output in outputs]
    return [int(file.read_text("utf-8")) if file.exists() else None for file in files]


def _limit(output: Path) -> float:
    """Return the time limit that a process has written; 0 if it has not begun."""
    with suppress(OSError):
        found = re.match(rf"{BEGIN}(.+)\n", output.read_text("utf-8", "replace"))
        return float(found[1]) if found else 0.0
    return 0.0


def _start(jobs: Sequence[tuple[str, ...]], seconds: float) -> subprocess.Popen[bytes]:
    path = [str(place) for place in sys.path]
    arguments = jobs, seconds, time.time(), _FORKS
    call = f"from {probe_process.__name__} import serve; serve{arguments!r}"
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {call}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {_PROBING: "1"},
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, if it is running. It ends its forks when its stdin is closed."""
    if process.stdin:
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS if _FORKS else 0.0)
    process.kill()
    process.wait()


def _verdict(module: str, text: str, code: int | None) -> Verdict:
    """Return the verdict on a plugin, given its module, output and exit code.

    The exit code is None if the process exceeded the time limit.
    """
    begin = text.partition("\n")[0]
    line = re.search(r'^\{"reason".*\n', text, re.MULTILINE)
    verdict = Verdict(**json.loads(line[0])) if line else Verdict()
    if verdict.reason:
        return verdict
    # The innermost line of the plugin in the traceback of a process that was ended.
    files = {str(file) for file in _sources(module)}
    places = re.findall(r'File "(.+?)", line (\d+)', text)
    place = next((f" ({file}, line {line})" for file, line in places if file in files), "")
    reason = ""
    if code is None or "Timeout (" in text:
        slow = (
            f"must be imported within {begin.removeprefix(BEGIN)} s, but was not{place}; import "
            "large libraries on first use, or run genkit doctor, which waits longer"
        )
        alive = (
            f"must not keep the process alive, but a thread or exit handler does{place}; start it "
            "in a component or a command"
        )
        reason = alive if line else slow
    elif code != SOUND_EXIT or not line:
        end = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
        reason = f"must not end the process, but ended it with {end}{place}; raise an error"
    elif text.replace(line[0], "").strip() != begin:
        reason = "must not write to file descriptor 1, but wrote to it on import; use print"
    return Verdict(reason, verdict.seconds)
