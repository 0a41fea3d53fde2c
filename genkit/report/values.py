"""Print the settings of a recipe with their values and defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from genkit.files import inf_as_text
from genkit.recipe.encode import Value
from genkit.settings import toml_value
from genkit.terminal import say

_MAX_WIDTH = 40  # of the keys and values that are aligned; longer ones are not padded

MARK = "*"
"""Mark of a value that differs from its default."""


def print_values(
    console: Console, values: Mapping[str, Sequence[Value]], titles: Mapping[str, str]
) -> None:
    """Print settings by stage. Values that differ from their defaults are marked, others dimmed.

    Args:
        console: console to print to.
        values: settings by the id of their stage, see :func:`genkit.recipe.encode.values`; stages
            without settings are left out.
        titles: map from the same ids to the heading of the stage.
    """
    for stage, settings in values.items():
        if settings:
            console.print(f"\n{titles[stage]}", style="bold", markup=False, highlight=False)
            for value, line in zip(settings, _lines(settings), strict=True):
                say(console, line, "" if value.differs else "dim")


def values_json(values: Mapping[str, Sequence[Value]]) -> list[dict[str, Any]]:
    """Return settings as values for JSON."""
    return [
        {
            "stage": stage or None,
            "key": value.key,
            "value": inf_as_text(value.value),
            "default": inf_as_text(value.default),
            "required": value.required,
            "differs": value.differs,
        }
        for stage, settings in values.items()
        for value in settings
    ]


def _lines(settings: Sequence[Value]) -> Iterator[str]:
    """Yield a line for each setting, with aligned values and defaults."""
    width = max(len(value.key) for value in settings)
    texts = [_text(value.value) for value in settings]
    reach = max((len(t) for t in texts if len(t) <= _MAX_WIDTH), default=0)
    for value, text in zip(settings, texts, strict=True):
        mark = MARK if value.differs else " "
        default = ""
        if value.differs:
            default = "  required" if value.required else f"  default {_text(value.default)}"
        yield f"{mark} {value.key:<{width}} = {text:<{reach}}{default}".rstrip()


def _text(value: Any) -> str:
    return "nothing" if value is None else toml_value(value)
