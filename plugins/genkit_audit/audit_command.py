"""``genkit audit``: parse arguments, measure and print."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from genkit.errors import Code, UsageError
from genkit.files import write_bytes
from genkit.terminal import check_device, console, json_mistakes, say, writable


@json_mistakes
def audit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN|NETWORK",
            help="Recipe or folder of a run, of which pairs are measured; or .safetensors file of "
            "a network, from which recorded statistics are printed.",
        ),
    ],
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Id of a train stage; by default all stages that train a denoiser."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of the recipe, such as denoiser.pool_size=2048; repeatable.",
        ),
    ] = None,
    sigma_max: Annotated[
        float, typer.Option(metavar="SIGMA", help="Noise level at which sampling starts.")
    ] = 80.0,
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Maximum relative error of the samples' standard deviation with a safe start.",
        ),
    ] = 0.02,
    pairs: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Number of pairs; by default as many as training measures."
        ),
    ] = None,
    pools: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of pools, instead of --pairs.")
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a plot of the statistics, .png.")
    ] = None,
) -> None:
    """Audit a coupling: measure its effect on samples, on the noise, and on classes."""
    check_device(device)
    if pairs is not None and pools is not None:
        raise UsageError(
            "--pairs must not be combined with --pools, got both; remove one", Code.CONFLICT
        )
    if not 0 < sigma_max < math.inf:
        raise UsageError(
            f"--sigma-max must be a finite noise level above 0, got {sigma_max:g}; write 80",
            Code.OUT_OF_RANGE,
        )
    if not 0 < tolerance < 1:
        raise UsageError(
            f"--tolerance must be above 0 and below 1, got {tolerance:g}; write 0.02",
            Code.OUT_OF_RANGE,
        )
    if picture is not None and picture.suffix != ".png":
        raise UsageError(
            f"--picture must end in .png, got {picture}; write, for example, audit.png",
            Code.UNKNOWN_CHOICE,
        )
    if picture is not None and picture.exists():
        raise UsageError(
            f"--picture must be a new file, got {picture}; move it away, or write another name",
            Code.OCCUPIED,
        )
    recorded = target.endswith(".safetensors")
    measuring = {"--stage": stage, "--set": overrides, "--pairs": pairs, "--pools": pools}
    if recorded and (given := [name for name, value in measuring.items() if value is not None]):
        raise UsageError(
            f"{', '.join(given)} require a recipe or a run, got the file of a network; remove them",
            Code.CONFLICT,
        )

    from rich.console import Console

    from genkit.machine import resolve_device
    from genkit.plugin.manager import load_plugins
    from genkit_audit.prediction import StartLimits
    from genkit_audit.subjects import audit_stages, recorded_audit
    from genkit_audit.text import lines_of, report_of

    start = StartLimits(sigma_max, tolerance)
    if recorded:
        audits = [recorded_audit(Path(target))]
    else:
        place, plugins = resolve_device(device), load_plugins()
        with Console(stderr=True).status("measuring pairs"):
            audits = audit_stages(target, plugins, overrides or (), stage, place, pairs, pools)
    if picture is not None:
        from genkit_audit.picture import picture_of

        with writable("--picture", picture):
            write_bytes(picture, picture_of(audits, start))
    if as_json:
        typer.echo(json.dumps([report_of(one, start) for one in audits], indent=2))
        return
    to = console()
    for index, one in enumerate(audits):
        say(to, "\n".join(["", *lines_of(one, start)] if index else lines_of(one, start)))
