"""The command line: parses, calls, prints, and is the only place that catches genkit's errors.

Everything but typer is imported inside the commands, so that help and mistakes answer at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Never

import typer

from genkit.commands.export import export
from genkit.commands.import_edm import import_edm
from genkit.commands.processes import processes, several
from genkit.commands.sample import sample
from genkit.errors import EndedElsewhere, GenkitError, InterruptedRun, RecipeError, UsageError
from genkit.plugin.commands import Commands
from genkit.terminal import check_device, console, say

if TYPE_CHECKING:
    from genkit.plugin.manager import Plugins
    from genkit.recipe.recipe import Recipe
    from genkit.recipe.source import Source

app = typer.Typer(
    name="genkit",
    cls=Commands,
    help="Train and sample diffusion models composed from plugins by a recipe.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArgument = Annotated[
    str | None,
    typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, such as denoiser.pool_size=1024; may be given several times.",
    ),
]
Kind = Annotated[str | None, typer.Option(metavar="KIND", help="Only components of this kind.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code.

    Args:
        arguments: those after the program's name; None takes the process's own, which
            then ends without waiting for threads that pair.
    """
    owned = arguments is None
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Accepted at any place: it is added to a command that failed.
    shows_traceback = "--traceback" in given
    given = [argument for argument in given if argument != "--traceback"]
    # OpenMP spins by default while it waits, which stalls torch when another process has the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        _call(given)
    except EndedElsewhere as error:
        _leave(error.exit_code, owned)
    except InterruptedRun as error:
        typer.echo(f"\n{error}. The same command goes on from there.", err=True)
        _leave(error.exit_code, owned)
    except GenkitError as error:
        if shows_traceback:
            traceback.print_exception(error)
        typer.echo(f"Error: {error}", err=True)
        _leave(error.exit_code, owned)
    except KeyboardInterrupt:
        typer.echo("\nStopped at once. The same command goes on from what was saved.", err=True)
        _leave(InterruptedRun.exit_code, owned)
    finally:
        _flush()


def _call(arguments: list[str]) -> None:
    """Run a command.

    Raises:
        PluginError: the code of a plugin raised an error, with plugin, distribution and line.
    """
    try:
        app(args=arguments, prog_name="genkit")
    except GenkitError:
        raise
    except Exception:
        from genkit.plugin.manager import load_plugins
        from genkit.run.blame import plugin_errors

        with plugin_errors(load_plugins().registry):
            raise


def _leave(code: int, owned: bool) -> Never:
    """End; where the process is owned, without waiting for threads that pair or for others."""
    _flush()
    threads = [t for t in threading.enumerate() if t is not threading.main_thread()]
    if owned and (several() or not all(thread.daemon for thread in threads)):
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"genkit {metadata.version('genkit-diffusion')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and stop."
        ),
    ] = False,
    traceback: Annotated[  # for the help; main takes it out of the arguments
        bool, typer.Option("--traceback", help="Print where in the code an error was raised.")
    ] = False,
) -> None: ...


@app.command()
def run(
    recipe: RecipeArgument = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; else runs/NAME.")
    ] = None,
    overrides: Overrides = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, and write nothing.")
    ] = False,
) -> None:
    """Run a recipe, or go on with a run that was interrupted."""
    check_device(device)
    with processes() as world:
        loaded, plugins = _load(_read(recipe), overrides)

        from genkit.machine import resolve_device
        from genkit.run.engine import default_folder, execute, finished_stages
        from genkit.world import ALONE

        world = world or ALONE
        folder = out or default_folder(loaded)
        if dry_run:
            from genkit.report.plan import plan_table
            from genkit.run.folder import RunFolder

            resolve_device(device or loaded.device, world)
            if not world.leads:
                return
            finished = finished_stages(loaded, plugins, folder)
            place = RunFolder(folder, loaded.name)
            to = console()
            say(to, f"{_summary(loaded)}, device {device or loaded.device}, in {folder}\n")
            to.print(plan_table(loaded, plugins.registry, place, finished))
            return

        from genkit.report.results import show
        from genkit.run.progress import Progress, choose_progress

        with choose_progress() if world.leads else Progress() as progress:
            results = execute(loaded, plugins, folder, device, progress, world)
        if world.leads:
            show(console(), results, folder, loaded.next)


@app.command()
def validate(recipe: RecipeArgument = None, overrides: Overrides = None) -> None:
    """Check a recipe without running it."""
    loaded, plugins = _load(_read(recipe), overrides)

    from genkit.report.plan import plan_table

    to = console()
    say(to, f"OK: {_summary(loaded)}\n")
    to.print(plan_table(loaded, plugins.registry))


@app.command("list-plugins")
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    kind: Kind = None,
) -> None:
    """List the installed plugins and their components."""
    from genkit.plugin.manager import load_plugins
    from genkit.report.components import plugin_json, plugin_table

    _check_kind(kind)
    plugins = load_plugins()
    if as_json:
        typer.echo(json.dumps(plugin_json(plugins, kind), indent=2))
    else:
        console().print(plugin_table(plugins, kind))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What a recipe writes after use.")],
    kind: Kind = None,
) -> None:
    """Show the settings of every component of a name."""
    from genkit.plugin.manager import load_plugins
    from genkit.report.components import show_component
    from genkit.settings import near_match

    _check_kind(kind)
    registry = load_plugins().registry
    entries = registry.entries(kind)
    found = [entry for entry in entries if entry.name == name]
    if not found:
        hint = near_match(name, {entry.name for entry in entries}) or "see genkit list-plugins"
        raise UsageError(f'no {kind or "component"} is called "{name}"; {hint}')
    to = console()
    for index, entry in enumerate(found):
        if index:
            to.print()
        show_component(to, registry, entry)


app.command()(sample)
app.command()(export)
app.command("import-edm")(import_edm)


def _read(recipe: str | None) -> Source:
    """Return a recipe's text, parsed; needs no torch, so that a mistake in it shows at once."""
    from genkit.recipe.source import read_source

    if recipe is None:
        raise UsageError(f"no recipe is given; name a file or one of these:\n{_shipped()}")
    try:
        return read_source(recipe)
    except RecipeError:
        raise
    except UsageError as error:
        if _exists(recipe):
            raise
        raise UsageError(f"{error}\nShipped recipes:\n{_shipped()}") from error


def _load(source: Source, overrides: list[str] | None) -> tuple[Recipe, Plugins]:
    from genkit.plugin.manager import load_plugins
    from genkit.recipe.recipe import load_recipe

    plugins = load_plugins()
    return load_recipe(source, plugins, overrides or []), plugins


def _exists(recipe: str) -> bool:
    try:
        return Path(recipe).exists()
    except OSError:  # a name that is too long
        return False


def _shipped() -> str:
    """Return the shipped recipes with the comment that each begins with, a line each."""
    from genkit.recipe.source import shipped_recipes

    lines = []
    shipped = shipped_recipes()
    width = max(map(len, shipped), default=0)
    for name, path in shipped.items():
        with path.open(encoding="utf-8") as file:
            first = file.readline()
        about = first.lstrip("#").strip() if first.startswith("#") else ""
        lines.append(f"  {name:<{width}}  {about}".rstrip())
    return "\n".join(lines)


def _summary(recipe: Recipe) -> str:
    count = len(recipe.stages)
    return f"{recipe.name}, {count} stage{'' if count == 1 else 's'}, seed {recipe.seed}"


def _check_kind(kind: str | None) -> None:
    from genkit.plugin.kinds import KINDS
    from genkit.settings import near_match

    if kind is not None and kind not in KINDS:
        hint = near_match(kind, KINDS)
        raise UsageError(f'no kind is called "{kind}"; {hint} kinds: {", ".join(KINDS)}')


def _flush() -> None:
    """Write out what is left; a reader that went away, such as ``head``, is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at the end and would complain; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
