"""The two hooks of a plugin: one for components, one for commands.

A plugin is a module or object behind an entry point in the group ``genkit.plugins``::

    from genkit.plugin import hookimpl

    @hookimpl
    def genkit_register(registry):
        registry.add("coupler", "greedy", "my_package.greedy:Greedy")

    @hookimpl
    def genkit_commands(app):
        from my_package.command import compare

        app.command()(compare)

A plugin implements one hook or both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import typer

    from genkit.plugin.registry import Registration

GROUP = "genkit.plugins"

hookspec = pluggy.HookspecMarker("genkit")
hookimpl = pluggy.HookimplMarker("genkit")


@hookspec
def genkit_register(registry: Registration) -> None:
    """Name the components of a plugin with ``registry.add(kind, name, "module:Class")``.

    Import nothing heavy here: a component is imported when a recipe names it.
    """


@hookspec
def genkit_commands(app: typer.Typer) -> None:
    """Add commands or groups of commands with ``app.command()`` and ``app.add_typer()``.

    ``app`` belongs to this plugin alone. Its commands join ``genkit`` if all their names are free.
    Import nothing heavy here: the help of genkit lists every command.
    """
