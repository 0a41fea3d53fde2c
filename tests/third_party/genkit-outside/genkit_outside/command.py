"""The command ``genkit spread``."""

from __future__ import annotations

from pathlib import Path

import typer

from genkit.plugin import Samples, UsageError


def spread(run: Path, stage: str) -> None:
    """Print the standard deviation of the samples of a stage."""
    files = list(run.glob(f"[0-9][0-9]-{stage}/{Samples.filename()}"))
    if not files:
        raise UsageError(f"stage must have samples in {run}, got {stage}; write another one")
    typer.echo(f"{float(Samples.load(files[0]).batch.data.std()):.3f}")
