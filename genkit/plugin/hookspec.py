"""Define the hooks of a plugin: to register components, to add commands, and after a run.

A plugin is a module or object to which an entry point in the group ``genkit.plugins`` refers::

    from genkit.plugin import hookimpl

    @hookimpl
    def genkit_register(registry):
        registry.add("coupler", "greedy", "my_package.greedy:Greedy")

    @hookimpl
    def genkit_commands(app):
        from my_package.command import compare

        app.command()(compare)

    @hookimpl
    def genkit_after_run(folder):
        ...

A plugin implements at least one of these hooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    import typer

    from genkit.plugin.registry import Registration

GROUP = "genkit.plugins"
OURS = "genkit-diffusion"

hookspec = pluggy.HookspecMarker("genkit")
hookimpl = pluggy.HookimplMarker("genkit")


@hookspec
def genkit_register(registry: Registration) -> None:
    """Register components of a plugin with ``registry.add(kind, name, "module:Class")``.

    The hook must not import torch or other large modules. Components are imported on first use.
    """


@hookspec
def genkit_commands(app: typer.Typer) -> None:
    """Add commands or groups of commands with ``app.command()`` and ``app.add_typer()``.

    Each plugin has its own ``app``. Its commands are added to ``genkit`` if none of their names is
    taken. The hook must not import torch or other large modules, since ``genkit --help`` calls it.
    """


@hookspec
def genkit_after_run(folder: Path) -> None:
    """Process the folder of a run after ``genkit run`` finished, failed or was stopped.

    The hook is called on rank 0, but not if the run is refused. Its errors are only warnings.
    """
