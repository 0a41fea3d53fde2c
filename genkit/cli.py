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
from typing import Annotated, Never

import typer

from genkit import completion
from genkit.commands.run import run
from genkit.commands.show import check_kind, show
from genkit.commands.validate import validate
from genkit.errors import Code, EndedElsewhere, GenkitError, InterruptedRun, UsageError
from genkit.plugin.commands import Commands
from genkit.terminal import console, fit, json_mistakes, several

app = typer.Typer(
    name="genkit",
    cls=Commands,
    help="Train and sample diffusion models composed from plugins by a recipe.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Kind = Annotated[
    str | None,
    typer.Option(
        metavar="KIND", help="Only components of this kind.", autocompletion=completion.kinds
    ),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code.

    Args:
        arguments: arguments after the program's name. None to use those of the process, which then
            exits without waiting for threads that compute pairs.
    """
    owned = arguments is None
    _open_standard_streams()
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
        from genkit.machine import is_of_the_machine

        if found := plugin_error_of(error):
            raise found from error
        if is_of_the_machine(error) and isinstance(error, OSError):
            raise UsageError(
                f"{error.filename or 'the output'}: {error.strerror}; correct this and run the "
                "same command again",
                Code.IO_ERROR,
            ) from error
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


app.command()(run)
app.command()(validate)


@app.command("list-plugins")
@json_mistakes
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    kind: Kind = None,
) -> None:
    """List the installed plugins and their components."""
    from genkit.parts.sheet import print_sheet
    from genkit.plugin.manager import load_plugins
    from genkit.report.components import plugin_cells, plugin_json

    check_kind(kind)
    plugins = load_plugins()
    if as_json:
        typer.echo(json.dumps(plugin_json(plugins, kind), indent=2))
    else:
        print_sheet(console(), plugin_cells(plugins, kind))


app.command()(show)


def _open_standard_streams() -> None:
    """Replace closed standard streams by the null device.

    Otherwise printing fails, and the next file that is opened gets the descriptor of the stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)


def _flush() -> None:
    """Flush stdout; a closed pipe, as after ``head``, is not an error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes again at exit and would print an error: redirect that to devnull.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
