"""Define the command line, the only code that catches genkit's errors.

Most modules are imported inside of the commands, so that help and error messages appear at once.
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
from typing import TYPE_CHECKING, Annotated, Any, Never

import typer

from genkit.commands.recipes import Overrides, RecipeArgument, load_recipe, summary
from genkit.commands.validate import validate
from genkit.errors import Code, EndedElsewhere, GenkitError, InterruptedRun, UsageError
from genkit.plugin.commands import Commands
from genkit.terminal import check_device, console, fit, processes, say, several, warn

if TYPE_CHECKING:
    from genkit.plugin.registry import Registry

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

Kind = Annotated[str | None, typer.Option(metavar="KIND", help="Only components of this kind.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code.

    Args:
        arguments: arguments after the program's name. None to use those of the process, which then
            exits without waiting for threads that compute pairs.
    """
    owned = arguments is None
    rest = list(sys.argv[1:] if arguments is None else arguments)
    # Accepted at any position, since users append it to a command that failed.
    shows_traceback = "--traceback" in rest
    rest = [argument for argument in rest if argument != "--traceback"]
    # Idle OpenMP threads spin by default, which stalls torch if another process uses the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        _call(rest)
    except EndedElsewhere as error:
        _leave(error.exit_code, owned)
    except InterruptedRun as error:
        typer.echo(f"\n{error}. Run the same command to resume.", err=True)
        _leave(error.exit_code, owned)
    except GenkitError as error:
        if shows_traceback:
            traceback.print_exception(error)
        typer.echo(fit(f"Error: {error}", sys.stderr), err=True)
        _leave(error.exit_code, owned)
    except KeyboardInterrupt:
        typer.echo(
            "\nStopped at once. Run the same command to resume from what was saved.", err=True
        )
        _leave(InterruptedRun.exit_code, owned)
    except SystemExit as end:  # how typer ends every command
        if not _tracker_hangs():
            raise
        _leave(end.code if isinstance(end.code, int) else 0, owned)
    finally:
        _flush()


def _call(arguments: list[str]) -> None:
    """Run a command.

    Raises:
        PluginError: the code of a plugin raised an error; the message contains plugin,
            distribution and line.
        UsageError: a disk is full, damaged or not writable; the message contains the file.
    """
    try:
        app(args=arguments, prog_name="genkit")
    except GenkitError:
        raise
    except Exception as error:
        from genkit.blame import plugin_error_of
        from genkit.machine import is_of_the_disk

        if is_of_the_disk(error) and isinstance(error, OSError):
            raise UsageError(
                f"{error.filename or 'a file'}: {error.strerror}; correct this and run the same "
                "command again",
                Code.IO_ERROR,
            ) from error
        if found := plugin_error_of(error):
            raise found from error
        raise


def _leave(code: int, owned: bool) -> Never:
    """Exit with a code; if genkit owns the process, do not wait for threads or other processes."""
    _flush()
    threads = [t for t in threading.enumerate() if t is not threading.main_thread()]
    waits = several() or _tracker_hangs() or not all(thread.daemon for thread in threads)
    if owned and waits:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _tracker_hangs() -> bool:
    """Return whether a tracker hangs, which could prevent the process from exiting."""
    tracking = sys.modules.get("genkit.run.tracking")  # without this module there is no tracker
    return tracking is not None and tracking.unfinished()


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
    traceback: Annotated[  # only for the help: main removes it from the arguments
        bool, typer.Option("--traceback", help="Print the Python traceback of an error.")
    ] = False,
) -> None: ...


@app.command()
def run(
    recipe: RecipeArgument = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; default: runs/NAME.")
    ] = None,
    overrides: Overrides = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = None,
    redo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE",
            help="Run a stage and all stages that depend on it again; can be repeated.",
        ),
    ] = None,
    trackers: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="NAME",
            help="Log rows, scores and pictures to a tracker: a name, such as tensorboard, or a "
            "table; can be repeated.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the stages that would run; write nothing.")
    ] = False,
) -> None:
    """Run a recipe, or resume a run that was interrupted."""
    check_device(device)
    with processes() as world:
        announced = not dry_run and (world is None or world.is_main)
        loaded, plugins = load_recipe(recipe, overrides, trackers, announced)

        from genkit.machine import resolve_device
        from genkit.run.engine import default_folder, execute, stage_states
        from genkit.world import SINGLE_PROCESS

        world = world or SINGLE_PROCESS
        folder = out or default_folder(loaded.name)
        if dry_run:
            from genkit.parts.sheet import print_sheet
            from genkit.report.plan import plan_cells

            resolve_device(device or loaded.device, world)
            if not world.is_main:
                return
            states = stage_states(loaded, plugins, folder, redo or ())
            to = console()
            where = f"device {device or loaded.device}", f"in {folder}"
            say(to, f"{summary(loaded, *where)}\n")
            print_sheet(to, plan_cells(loaded, plugins.registry, folder, states), keys=2)
            return

        from genkit.report.results import show
        from genkit.run.progress import Progress, choose_progress

        try:
            with choose_progress() if world.is_main else Progress() as progress:
                results = execute(loaded, plugins, folder, device, progress, world, redo or ())
            if world.is_main:
                show(console(), results, folder)
        finally:
            # Not after a second Ctrl-C, nor after a refusal: the folder may belong to another run.
            error = sys.exception()
            refused = isinstance(error, UsageError) and not error.stage
            if world.is_main and not refused and not isinstance(error, KeyboardInterrupt):
                _after_run(plugins.registry, folder)


def _after_run(registry: Registry, folder: Path) -> None:
    """Call the plugins' hooks for a run that ended. An error of a hook is printed as a warning."""
    from genkit.artifacts.runs import is_run
    from genkit.plugin.registry import in_words, place_of

    for owner, hook in registry.after_run if is_run(folder) else ():
        try:
            hook(folder=folder)
        except (Exception, SystemExit) as error:  # noqa: BLE001  (third-party code)
            own = isinstance(error, GenkitError)
            reason = str(error) if own else f"{in_words(error)}{place_of(error)}"
            warn(f"{owner} failed after the run: {reason}")


app.command()(validate)


@app.command("list-plugins")
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    kind: Kind = None,
) -> None:
    """List the installed plugins and their components."""
    from genkit.parts.sheet import print_sheet
    from genkit.plugin.manager import load_plugins
    from genkit.report.components import plugin_cells, plugin_json

    _check_kind(kind)
    plugins = load_plugins()
    if as_json:
        typer.echo(json.dumps(plugin_json(plugins, kind), indent=2))
    else:
        print_sheet(console(), plugin_cells(plugins, kind))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a component in recipes.")],
    kind: Kind = None,
) -> None:
    """Show the settings of each component called NAME."""
    from genkit.plugin.declarations import declared
    from genkit.plugin.manager import load_plugins
    from genkit.report.components import description, show_component
    from genkit.settings import near_match

    _check_kind(kind)
    registry = load_plugins().registry
    entries = registry.entries(kind)
    matches = [entry for entry in entries if entry.name == name]
    if not matches:
        hint = near_match(name, {entry.name for entry in entries}) or "see genkit list-plugins"
        raise UsageError(f'no {kind or "component"} is called "{name}"; {hint}')

    def describe(registry: Registry) -> list[dict[str, Any]]:
        return [description(registry, entry) for entry in matches]

    to = console()
    for index, described in enumerate(declared(describe, registry) or describe(registry)):
        if index:
            to.print()
        show_component(to, described)


def _check_kind(kind: str | None) -> None:
    from genkit.plugin.kinds import KINDS
    from genkit.settings import near_match

    if kind is not None and kind not in KINDS:
        hint = near_match(kind, KINDS)
        raise UsageError(f'no kind is called "{kind}"; {hint} kinds: {", ".join(KINDS)}')


def _flush() -> None:
    """Flush stdout; a closed pipe, as after ``head``, is not an error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes again at exit and would print an error: redirect that to devnull.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
