"""How components are found: kinds, the registry, and the plugins that fill it."""

from genkit.plugin.hookspec import hookimpl

__all__ = ["hookimpl"]
