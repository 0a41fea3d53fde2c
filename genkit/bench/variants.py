"""Ways to compute one training, by name; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genkit.errors import UsageError
from genkit.settings import near_match, shown

if TYPE_CHECKING:
    from genkit.train.precision import Precision

PLAIN = "plain"
RECIPE = "recipe"

_PRECISIONS: dict[str, Precision] = {
    "float32": "float32",
    "tf32": "tf32",
    "bfloat16": "bfloat16",
    "float16": "float16",
}
_SWITCHES = ("channels-last", "compiled")


@dataclass(frozen=True)
class Variant:
    """How a training is computed.

    Attributes:
        precision: of the network's arithmetic.
        channels_last: lay images out as NHWC.
        compiled: compile the network.
    """

    precision: Precision = "float32"
    channels_last: bool = False
    compiled: bool = False


def parse_variants(text: str) -> tuple[str, ...]:
    """Return the names of ``"plain,float32,tf32+channels-last"``, each once, in their order.

    Raises:
        UsageError: one is unknown.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        variant_of(name)
    return names


def variant_of(name: str) -> Variant | None:
    """Return a variant by its name; None for ``recipe``, which is what the recipe says.

    Raises:
        UsageError: it is unknown.
    """
    if name == RECIPE:
        return None
    if name == PLAIN:
        return Variant()
    words = name.split("+")
    known = (*_PRECISIONS, *_SWITCHES)
    for word in words:
        if word not in known:
            hint = near_match(word, (PLAIN, RECIPE, *known))
            raise UsageError(
                f"--variants: {shown(word)} is unknown; {hint + ' ' if hint else ''}"
                f"write {PLAIN}, {RECIPE}, or some of {', '.join(known)} joined by +"
            )
    precisions = [word for word in words if word in _PRECISIONS] or ["float32"]
    if len(precisions) > 1 or len(set(words)) < len(words):
        raise UsageError(f"--variants: {shown(name)} names more than one precision, or one twice")
    return Variant(_PRECISIONS[precisions[0]], "channels-last" in words, "compiled" in words)


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
