"""Options of ``genkit bench``; needs no torch, so that a mistake shows at once."""

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
        help="Change a setting of the recipe, such as denoiser.micro_batch=256; may be given "
        "several times.",
    ),
]
Rounds = Annotated[
    int, typer.Option(metavar="N", min=1, help="In which what is compared takes turns.")
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A data set by name or by its table in place of the recipe's; synthetic needs no "
        "files and has the shape of CIFAR-10, '{ use = \"synthetic\", shape = [1, 8, 8] }' "
        "another.",
    ),
]


def parse_sizes(text: str, option: str = "--sizes") -> tuple[int, ...]:
    """Return the numbers of ``"256,512"``, ascending.

    Raises:
        UsageError: something else is written.
    """
    return tuple(sorted(set(_integers(text, option, "256,512,1024"))))


def parse_shape(text: str) -> tuple[int, ...]:
    """Return the shape of ``"3,32,32"`` or ``"3072"``.

    Raises:
        UsageError: something else is written.
    """
    shape = _integers(text, "--shape", "3,32,32 for images or 3072 for vectors")
    if len(shape) not in (1, 3):
        raise UsageError(
            f'--shape "{text}" has {len(shape)} numbers; write channels, height and width, such as '
            "3,32,32, or the length of a vector, such as 3072",
            Code.WRONG_LENGTH,
        )
    return shape


def _integers(text: str, option: str, example: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        # Nine digits are more than any machine holds, and int() takes long for many.
        if not (part.isascii() and part.isdigit() and len(part) <= 9 and int(part) > 0):
            raise UsageError(
                f"{option}: {quote(part)} is no whole number above 0 and below 10^9; "
                f"write {example}",
                Code.OUT_OF_RANGE,
            )
    return tuple(int(part) for part in parts)
