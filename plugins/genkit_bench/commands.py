"""The command group ``genkit bench``."""

from __future__ import annotations

import typer

from genkit_bench.couplers_command import couplers
from genkit_bench.sample_command import sample
from genkit_bench.train_command import train

app = typer.Typer(
    help="Measure components on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(couplers)
app.command()(train)
app.command()(sample)
