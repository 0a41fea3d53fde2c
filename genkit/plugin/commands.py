"""Add the commands of plugins to the command line."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Commands(TyperGroup):
    """Group of genkit's own commands and the commands that plugins add.

    Plugins are loaded only to list all commands, or to find a command that is not genkit's own.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        from genkit.plugin.manager import load_plugins

        return [*super().list_commands(ctx), *sorted(load_plugins().registry.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from genkit.plugin.manager import load_plugins

        return super().get_command(ctx, cmd_name) or load_plugins().registry.command(cmd_name)
