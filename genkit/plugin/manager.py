"""Find and load the installed plugins."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

from genkit.errors import PluginError
from genkit.plugin import hookspec
from genkit.plugin.hookspec import OURS as OURS
from genkit.plugin.loading import register
from genkit.plugin.registry import Entry, Owner, Registration, Registry, in_words, place_of

if TYPE_CHECKING:
    from genkit.plugin.probe_process import Verdict

DISABLE = "GENKIT_DISABLE_PLUGINS"
"""Environment variable with the names of plugins to skip, separated by commas."""


@dataclass(frozen=True)
class PluginStatus:
    """Result of loading a plugin.

    Attributes:
        owner: plugin with its distribution.
        entries: components of the plugin; empty if loading failed.
        commands: names of its commands; empty if loading failed.
        reason: error of loading, or that the plugin is disabled; empty if loading succeeded.
        seconds: time in seconds to import a third-party plugin and to call its hooks; None if it
            was not measured.
    """

    owner: Owner
    entries: tuple[Entry, ...] = ()
    commands: tuple[str, ...] = ()
    reason: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Plugins:
    """Registry and status of the installed plugins.

    Attributes:
        registry: registry with all components of the loaded plugins.
        loaded: plugins that were loaded.
        failed: plugins that failed to load, each with a reason.
        disabled: plugins that the environment variable ``GENKIT_DISABLE_PLUGINS`` skips.
    """

    registry: Registry
    loaded: tuple[PluginStatus, ...]
    failed: tuple[PluginStatus, ...]
    disabled: tuple[PluginStatus, ...] = ()


def load_plugins(probe_seconds: float | None = None) -> Plugins:
    """Load every plugin of the entry-point group ``genkit.plugins``.

    A plugin that cannot be imported, validated or registered adds nothing, and is returned in
    ``failed`` with the reason. genkit's own plugins are loaded first, so that their names cannot be
    taken; the others are loaded in the order of distribution and plugin.

    A third-party plugin is first probed in another process, see :mod:`genkit.plugin.probe`. Its
    output to stdout is printed to stderr if this is called in the main thread, since stdout has the
    output of the command.

    Args:
        probe_seconds: time limit of new probes of all third-party plugins. None to probe only
            plugins without a stored result.
    """
    registry = Registry()
    loaded: list[PluginStatus] = []
    failed: list[PluginStatus] = []
    disabled: list[PluginStatus] = []

    def fail(owner: Owner, reason: str) -> None:
        failed.append(PluginStatus(owner, reason=reason))
        registry.note_absent(owner, f"failed to load: {reason}")

    candidates: list[tuple[Owner, metadata.EntryPoint]] = []
    for distribution in _distributions():
        if distribution.reason:
            fail(Owner("?", distribution.name, "?"), distribution.reason)
        for point in distribution.points:
            owner = Owner(point.name, distribution.name, distribution.version)
            if owner.plugin in disabled_names():
                reason = f"is disabled by {DISABLE}"
                disabled.append(PluginStatus(owner, reason=reason))
                registry.note_absent(owner, reason)
            else:
                candidates.append((owner, point))
    verdicts = _verdicts(candidates, probe_seconds)
    for owner, point in candidates:
        verdict = verdicts.get((owner, point))
        if verdict and verdict.reason:
            fail(owner, verdict.reason)
            continue
        try:
            registration = _register(owner, point)
            registry.accept(registration)
        # Third-party code may raise anything, and may call sys.exit().
        except (Exception, SystemExit) as error:  # noqa: BLE001
            own = isinstance(error, PluginError)
            fail(owner, str(error) if own else in_words(error) + place_of(error))
        else:
            entries, commands = registration.entries.values(), registration.commands
            seconds = verdict.seconds if verdict else None
            loaded.append(PluginStatus(owner, tuple(entries), tuple(commands), seconds=seconds))
    return Plugins(registry, tuple(loaded), tuple(failed), tuple(disabled))


def disabled_names() -> set[str]:
    """Return the names in the environment variable ``GENKIT_DISABLE_PLUGINS``."""
    return {name.strip() for name in os.environ.get(DISABLE, "").split(",")} - {""}


def _verdicts(
    candidates: list[tuple[Owner, metadata.EntryPoint]], seconds: float | None
) -> dict[tuple[Owner, metadata.EntryPoint], Verdict]:
    """Return the results of probing the third-party plugins."""
    others = [candidate for candidate in candidates if candidate[0].distribution != OURS]
    if not others:
        return {}
    from genkit.plugin.probe import probe  # not imported if there are only genkit's own plugins

    return probe(others, seconds)


def _register(owner: Owner, point: metadata.EntryPoint) -> Registration:
    """Register a plugin; in the main thread, a third-party plugin prints to stderr."""
    if owner.distribution == OURS:
        return _register_once(owner, point)
    # stdout belongs to the process: only the main thread may replace it, as it may end first.
    if threading.current_thread() is not threading.main_thread():
        return register(owner, point)
    with contextlib.redirect_stdout(sys.stderr):
        return register(owner, point)


_register_once = cache(register)
"""Register a plugin of genkit, which does not change while a process runs. A check of a recipe
loads the plugins up to 44 times, and most of the time is that of typer's commands."""


class _Distribution(NamedTuple):
    """Distribution with plugins, or the reason why its metadata cannot be read."""

    name: str
    version: str = "?"
    points: tuple[metadata.EntryPoint, ...] = ()
    reason: str = ""


def _distributions() -> list[_Distribution]:
    """Return the distributions with plugins, in the order of loading.

    They are read again only if the path or a folder on it has changed, as importlib.metadata does.
    """
    path = tuple(map(os.path.abspath, sys.path))
    return _distributions_on(path, tuple(map(_changed, path)), tuple(map(id, sys.meta_path)))


def _changed(folder: str) -> int:
    """Return the time of the last change of a folder in nanoseconds; 0 if it does not exist."""
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116, a Path for each would take longer
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _distributions_on(*_state: object) -> list[_Distribution]:
    """Read the metadata of all distributions, which takes most of the time of loading plugins."""
    names = set()
    for distribution in metadata.distributions():
        # The entry points are searched as text, since parsing those of every distribution is slow.
        # A damaged distribution that is unrelated to genkit must not end the search.
        with contextlib.suppress(UnicodeDecodeError, KeyError):
            text = distribution.read_text("entry_points.txt") or ""
            if f"[{hookspec.GROUP}]" in text and distribution.name:
                names.add(re.sub(r"[-_.]+", "-", distribution.name).lower())
    return [_read(name) for name in sorted(names, key=lambda name: (name != OURS, name))]


def _read(name: str) -> _Distribution:
    try:
        distribution = metadata.distribution(name)
        points = [p for p in distribution.entry_points if p.group == hookspec.GROUP]
        points.sort(key=lambda p: (p.name, p.value))
        return _Distribution(name, str(distribution.version), tuple(points))
    except Exception as error:  # noqa: BLE001  (a damaged installation may raise any error)
        return _Distribution(name, reason=in_words(error) + place_of(error))
