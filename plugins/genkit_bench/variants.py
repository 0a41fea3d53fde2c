"""Ways to compute one training, by name; needs no torch."""

from __future__ import annotations

from typing import Any

from genkit.errors import Code, UsageError
from genkit.settings import near_match, quote

PLAIN = "plain"
RECIPE = "recipe"

_PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
_SWITCHES = {"channels-last": "channels_last", "compiled": "compile"}


def parse_variants(text: str) -> tuple[str, ...]:
    """Return the names of ``"plain,float32,tf32+channels-last"``, each once, in their order.

    Raises:
        UsageError: one is unknown.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        settings_of(name)
    return names


def settings_of(name: str) -> dict[str, Any]:
    """Return the settings of the stage ``train`` that make a variant; none for ``recipe``.

    Raises:
        UsageError: it is unknown.
    """
    if name == RECIPE:
        return {}
    words = [] if name == PLAIN else name.split("+")
    known = (*_PRECISIONS, *_SWITCHES)
    for word in words:
        if word not in known:
            hint = near_match(word, (PLAIN, RECIPE, *known))
            raise UsageError(
                f"--variants: {quote(word)} is unknown; {hint + ' ' if hint else ''}"
                f"write {PLAIN}, {RECIPE}, or some of {', '.join(known)} joined by +",
                Code.UNKNOWN_CHOICE,
            )
    precisions = [word for word in words if word in _PRECISIONS] or ["float32"]
    if len(precisions) > 1 or len(set(words)) < len(words):
        raise UsageError(
            f"--variants: {quote(name)} names more than one precision, or one twice", Code.DUPLICATE
        )
    switches = {setting: word in words for word, setting in _SWITCHES.items()}
    return {"precision": precisions[0], **switches}


def usual_variants(on_gpu: bool) -> tuple[str, ...]:
    """Return what is compared where nothing else is asked, each gain by itself and all together."""
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
