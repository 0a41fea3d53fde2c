"""Names of the variants of a train stage, which are parsed before torch is imported."""

from __future__ import annotations

from typing import Any

from genkit.errors import Code, UsageError
from genkit.settings import near_match, quote

PLAIN = "plain"
RECIPE = "recipe"

_PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
_SWITCHES = {"channels-last": "channels_last", "compiled": "compile"}


def parse_variants(text: str) -> tuple[str, ...]:
    """Return the names in a string such as ``"plain,float32,tf32+channels-last"``.

    Each name is returned once, in the order of its first occurrence.

    Raises:
        UsageError: a name is unknown.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        settings_of(name)
    return names


def settings_of(name: str) -> dict[str, Any]:
    """Return the settings of the stage ``train`` that a variant changes; empty for ``recipe``.

    Raises:
        UsageError: the name is unknown.
    """
    if name == RECIPE:
        return {}
    words = [] if name == PLAIN else name.split("+")
    options = (*_PRECISIONS, *_SWITCHES)
    for word in words:
        if word not in options:
            hint = near_match(word, (PLAIN, RECIPE, *options))
            raise UsageError(
                f"--variants must be names of variants, got {quote(word)}; "
                f"{hint + ' ' if hint else ''}"
                f"write {PLAIN}, {RECIPE}, or one or several of {', '.join(options)} joined by +",
                Code.UNKNOWN_CHOICE,
            )
    precisions = [word for word in words if word in _PRECISIONS] or ["float32"]
    if len(precisions) > 1 or len(set(words)) < len(words):
        raise UsageError(
            f"--variants must have one precision and no repeated options, got {quote(name)}; "
            "write, for example, tf32+compiled",
            Code.DUPLICATE,
        )
    switches = {setting: word in words for word, setting in _SWITCHES.items()}
    return {"precision": precisions[0], **switches}


def default_variants(on_gpu: bool) -> tuple[str, ...]:
    """Return the default variants: each optimization alone, and on a GPU also combinations."""
    common = (PLAIN, "float32", "channels-last", "compiled")
    if not on_gpu:
        return common
    return (
        *common,
        "tf32",
        "tf32+channels-last+compiled",
        "bfloat16",
        "bfloat16+channels-last",
        "bfloat16+channels-last+compiled",
    )
