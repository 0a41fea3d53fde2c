"""Format tables of plugins, components and their settings for the command line."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from genkit.fields import Field, fields_of
from genkit.parts.sheet import print_sheet
from genkit.parts.text_table import Cells
from genkit.plugin.kinds import KINDS
from genkit.plugin.manager import Plugins, PluginStatus
from genkit.plugin.registry import Entry, Registry
from genkit.settings import quote
from genkit.terminal import say

_HEAD = ("setting", "type", "default", "range", "meaning")


def plugin_cells(plugins: Plugins, kind: str | None = None) -> Cells:
    """Return a table of all plugins, with their components of one kind or of all kinds."""
    cells = [("plugin", "distribution", "version", "status", "components")]
    for word, status in _statuses(plugins):
        names: dict[str, list[str]] = {}
        for entry in _entries(status, kind):
            names.setdefault(entry.kind, []).append(entry.name)
        lines = [f"{k}: {', '.join(sorted(names[k]))}" for k in KINDS if k in names]
        if status.commands and kind is None:
            lines.append(f"command: {', '.join(sorted(status.commands))}")
        what = status.reason or "\n".join(lines)
        owner = status.owner
        cells.append((owner.plugin, owner.distribution, owner.version, word, what))
    return cells


def plugin_json(plugins: Plugins, kind: str | None = None) -> dict[str, Any]:
    """Return the content of :func:`plugin_cells` as values for JSON."""
    return {
        "plugins": [
            {
                "plugin": status.owner.plugin,
                "distribution": status.owner.distribution,
                "version": status.owner.version,
                "status": word,
                "reason": status.reason,
                "components": [
                    {"kind": entry.kind, "name": entry.name, "target": entry.target}
                    for entry in _entries(status, kind)
                ],
                "commands": sorted(status.commands),
            }
            for word, status in _statuses(plugins)
        ]
    }


def settings_of(cls: type) -> list[tuple[str, str, str, str, str]]:
    """Return the settings of a component's class: name, type, default, range and meaning."""
    return [
        (f.name, f.type.words(), _default(f), f.setting.bounds, f.setting.doc)
        for f in fields_of(cls)
    ]


def description(registry: Registry, entry: Entry) -> dict[str, Any]:
    """Return the description of a component for :func:`show_component`, as values for JSON."""
    cls = registry.load(entry)
    return {
        "kind": entry.kind,
        "name": entry.name,
        "summary": (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " "),
        "owner": str(entry.owner),
        "class": entry.target,
        "source": cls.source,
        "settings": [dict(zip(_HEAD, row, strict=True)) for row in settings_of(cls)],
    }


def show_component(console: Console, described: Mapping[str, Any]) -> None:
    """Print summary, owner, source and settings of a component."""
    console.print(f"{described['kind']} {described['name']}", style="bold", highlight=False)
    say(console, described["summary"])
    for name in ("owner", "class", "source"):
        if described[name]:
            say(console, f"{name}: {described[name]}")
    settings = described["settings"]
    if not settings:
        console.print("no settings")
        return
    print_sheet(console, [_HEAD, *(list(row.values()) for row in settings)])


def _default(field: Field) -> str:
    if field.setting.use is not None:
        return quote(dict(field.setting.use))
    if field.setting.inherit:
        return f"the recipe's {field.setting.inherit}"
    if field.default is dataclasses.MISSING:
        return "required"
    return "nothing" if field.default is None else quote(field.default)


def _statuses(plugins: Plugins) -> list[tuple[str, PluginStatus]]:
    words = {"loaded": plugins.loaded, "failed": plugins.failed, "disabled": plugins.disabled}
    return [(word, status) for word, statuses in words.items() for status in statuses]


def _entries(status: PluginStatus, kind: str | None) -> list[Entry]:
    return [entry for entry in status.entries if kind in (None, entry.kind)]
