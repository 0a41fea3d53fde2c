"""The one hook of a plugin.

A plugin is a module or object behind an entry point in the group ``genkit.plugins``::

    from genkit.plugin import hookimpl

    @hookimpl
    def genkit_register(registry):
        registry.add("coupler", "greedy", "my_package.greedy:Greedy")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration

GROUP = "genkit.plugins"

hookspec = pluggy.HookspecMarker("genkit")
hookimpl = pluggy.HookimplMarker("genkit")


@hookspec
def genkit_register(registry: Registration) -> None:
    """Name the components of a plugin with ``registry.add(kind, name, "module:Class")``.

    Import nothing heavy here: a component is imported when a recipe names it.
    """
