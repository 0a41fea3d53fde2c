"""Options of ``genkit bench``, parsed without torch so that mistakes are reported at once."""

from __future__ import annotations

from typing import Annotated

import typer

from genkit.errors import Code, UsageError
from genkit.settings import quote

Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the recipe, such as denoiser.micro_batch=256; repeatable.",
    ),
]
Rounds = Annotated[
    int, typer.Option(metavar="N", min=1, help="Number of rounds; each measures every row once.")
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Data set, as a name or a table, instead of the recipe's. synthetic requires no "
        "files; its default shape is that of CIFAR-10, and "
        "'{ use = \"synthetic\", shape = [1, 8, 8] }' sets a different one.",
    ),
]


def parse_sizes(text: str, option: str = "--sizes") -> tuple[int, ...]:
    """Return the numbers in a string such as ``"256,512"``, ascending.

    Raises:
        UsageError: the string is invalid.
    """
    return tuple(sorted(set(_integers(text, option, "256,512,1024"))))


def parse_shape(text: str) -> tuple[int, ...]:
    """Return the shape in a string such as ``"3,32,32"`` or ``"3072"``.

    Raises:
        UsageError: the string is invalid.
    """
    shape = _integers(text, "--shape", "3,32,32 for images or 3072 for vectors")
    if len(shape) not in (1, 3):
        raise UsageError(
            f'--shape must be 1 or 3 numbers, got "{text}"; write channels, height and width, such '
            "as 3,32,32, or the length of a vector, such as 3072",
            Code.WRONG_LENGTH,
        )
    return shape


def _integers(text: str, option: str, example: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        # Larger numbers exceed the memory of every machine, and int() is slow for many digits.
        if not (part.isascii() and part.isdigit() and len(part) <= 9 and int(part) > 0):
            raise UsageError(
                f"{option} must be integers above 0 and below 10^9, got {quote(part)}; write "
                f"{example}",
                Code.OUT_OF_RANGE,
            )
    return tuple(int(part) for part in parts)
