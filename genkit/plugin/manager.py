"""Find and load the installed plugins."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pluggy

from genkit.errors import PluginError
from genkit.plugin import hookspec
from genkit.plugin.registry import Entry, Owner, Registration, Registry, in_words, place_of

OURS = "genkit-diffusion"

_ARGUMENTS = {
    "genkit_register": "registry",
    "genkit_commands": "app",
    "genkit_after_run": "folder",
}


@dataclass(frozen=True)
class PluginStatus:
    """Result of loading a plugin.

    Attributes:
        owner: plugin with its distribution.
        entries: components of the plugin; empty if loading failed.
        commands: names of its commands; empty if loading failed.
        reason: error of loading; empty if it succeeded.
    """

    owner: Owner
    entries: tuple[Entry, ...] = ()
    commands: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Plugins:
    """Registry and status of the installed plugins.

    Attributes:
        registry: registry with all components of the loaded plugins.
        loaded: plugins that were loaded.
        failed: plugins that failed to load, each with a reason.
    """

    registry: Registry
    loaded: tuple[PluginStatus, ...]
    failed: tuple[PluginStatus, ...]


def load_plugins() -> Plugins:
    """Load every plugin of the entry-point group ``genkit.plugins``.

    A plugin that cannot be imported, validated or registered adds nothing, and is returned in
    ``failed`` with the reason. genkit's own plugins are loaded first, so that their names cannot be
    taken; the others are loaded in the order of distribution and plugin.
    """
    registry = Registry()
    loaded: list[PluginStatus] = []
    failed: list[PluginStatus] = []

    def fail(owner: Owner, error: BaseException) -> None:
        own = isinstance(error, PluginError)
        reason = str(error) if own else in_words(error) + place_of(error)
        failed.append(PluginStatus(owner, reason=reason))
        registry.note_absent(owner, reason)

    for name in _distributions():
        try:
            distribution = metadata.distribution(name)
            version = str(distribution.version)
            points = [p for p in distribution.entry_points if p.group == hookspec.GROUP]
        except Exception as error:  # noqa: BLE001  (a damaged installation may raise any error)
            fail(Owner("?", name, "?"), error)
            continue
        for point in sorted(points, key=lambda p: (p.name, p.value)):
            owner = Owner(point.name, name, version)
            try:
                registration = _register(owner, point)
                registry.accept(registration)
            # Third-party code may raise anything, and may call sys.exit().
            except (Exception, SystemExit) as error:  # noqa: BLE001
                fail(owner, error)
            else:
                entries = tuple(registration.entries.values())
                loaded.append(PluginStatus(owner, entries, tuple(registration.commands)))
    return Plugins(registry, tuple(loaded), tuple(failed))


def _register(owner: Owner, point: metadata.EntryPoint) -> Registration:
    """Return the components, commands and hooks of a plugin.

    Each plugin has its own pluggy manager, so that an error in one plugin does not affect others.
    """
    plugin = point.load()
    manager = pluggy.PluginManager("genkit")
    manager.add_hookspecs(hookspec)
    manager.register(plugin, name=owner.plugin)
    manager.check_pending()
    registration = Registration(owner, point.module.partition(".")[0])
    hooks = manager.get_hookcallers(plugin)
    if not hooks:
        raise PluginError(f"{point.value} has no hook; decorate genkit_register with @hookimpl")
    for hook in hooks:
        argument = _ARGUMENTS[hook.name]
        # pluggy also accepts an implementation with fewer arguments than the specification.
        if argument not in hook.get_hookimpls()[0].argnames:
            raise PluginError(
                f"{hook.name} must have the argument {argument}; write def {hook.name}({argument})"
            )
    manager.hook.genkit_register(registry=registration)
    if manager.hook.genkit_commands.get_hookimpls():
        registration.commands = _commands(manager)
    if manager.hook.genkit_after_run.get_hookimpls():
        registration.after_run = manager.hook.genkit_after_run
    return registration


def _commands(manager: pluggy.PluginManager) -> dict[str, Any]:
    """Return a map from name to command, for the commands that a plugin adds to an empty app."""
    import typer
    from typer.main import get_group

    app = typer.Typer(rich_markup_mode=None)
    manager.hook.genkit_commands(app=app)
    return dict(get_group(app).commands)


def _distributions() -> list[str]:
    """Return the distributions with plugins, in the order of loading."""
    names = set()
    for distribution in metadata.distributions():
        # The entry points are searched as text, since parsing those of every distribution is slow.
        # A damaged distribution that is unrelated to genkit must not end the search.
        with contextlib.suppress(UnicodeDecodeError, KeyError):
            text = distribution.read_text("entry_points.txt") or ""
            if f"[{hookspec.GROUP}]" in text and distribution.name:
                names.add(re.sub(r"[-_.]+", "-", distribution.name).lower())
    return sorted(names, key=lambda name: (name != OURS, name))
