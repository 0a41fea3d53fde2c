"""Import a plugin and call its hooks."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pluggy

from genkit.errors import PluginError
from genkit.plugin import hookspec
from genkit.plugin.registry import Owner, Registration

_ARGUMENTS = {
    "genkit_register": "registry",
    "genkit_commands": "app",
    "genkit_after_run": "folder",
}


def register(owner: Owner, point: metadata.EntryPoint) -> Registration:
    """Return the components, commands and hooks of a plugin.

    Each plugin has its own pluggy manager, so that an error in one plugin does not affect others.

    Args:
        owner: plugin with its distribution.
        point: entry point that refers to the module or object with the hooks.

    Raises:
        PluginError: the plugin has no hook, or a hook is invalid. The import and the hooks may
            raise any other error, including SystemExit.
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
