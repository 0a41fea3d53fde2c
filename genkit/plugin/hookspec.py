"""The hooks of a plugin: for components, for commands, and after a run.

A plugin is a module or object behind an entry point in the group ``genkit.plugins``::

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

A plugin implements one or more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    import typer

    from genkit.plugin.registry import Registration

GROUP = "genkit.plugins"

hookspec = pluggy.HookspecMarker("genkit")
hookimpl = pluggy.HookimplMarker("genkit")


@hookspec
def genkit_register(registry: Registration) -> None:
    """Register components of a plugin with ``registry.add(kind, name, "module:Class")``.

    Must not import torch or other large modules: components are imported on first use.
    """


@hookspec
def genkit_commands(app: typer.Typer) -> None:
    """Add commands or groups of commands with ``app.command()`` and ``app.add_typer()``.

    ``app`` is used by this plugin only. Its commands are added to ``genkit`` if none of their names
    is taken. Must not import torch or other large modules: the help of genkit lists every command.
    """


@hookspec
def genkit_after_run(folder: Path) -> None:
    """Use the folder of a run after ``genkit run``, whether it finished, failed or was stopped.

    Called on rank 0. An error is printed as a warning and changes nothing else.
    """
