"""Define ``genkit run``, which runs or resumes a recipe, or shows what a run would do."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genkit import completion
from genkit.commands.recipes import Overrides, RecipeArgument, load_recipe
from genkit.errors import Code, GenkitError, UsageError
from genkit.terminal import check_device, console, processes, warn

if TYPE_CHECKING:
    from genkit.plugin.manager import Plugins
    from genkit.plugin.registry import Registry
    from genkit.recipe.recipe import Recipe
    from genkit.world import World


def run(
    recipe: RecipeArgument = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; default: runs/NAME.")
    ] = None,
    overrides: Overrides = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="auto, cpu, cuda, cuda:N or mps.",
            autocompletion=completion.devices,
        ),
    ] = None,
    redo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE",
            help="Run a stage and all stages that depend on it again; can be repeated.",
            autocompletion=completion.stages,
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
        bool,
        typer.Option("--dry-run", help="Show what would run, and what it requires; write nothing."),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="With --dry-run, time a few steps to estimate the time."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON for programs.")
    ] = False,
) -> None:
    """Run a recipe, or resume a run that was interrupted."""
    with processes() as world:
        is_main = world is None or world.is_main
        content: dict[str, Any] = {}
        try:
            # The code of components and plugins may print, but stdout has the JSON alone.
            with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
                check_device(device)
                if measure and not dry_run:
                    raise UsageError(
                        "--measure must be with --dry-run; add --dry-run", Code.CONFLICT
                    )
                loaded, plugins = load_recipe(recipe, overrides, trackers, is_main and not dry_run)

                from genkit.machine import resolve_device
                from genkit.run.engine import default_folder
                from genkit.world import SINGLE_PROCESS

                world = world or SINGLE_PROCESS
                folder = out or default_folder(loaded.name)
                content |= {"name": loaded.name, "folder": str(folder)}
                if dry_run:
                    from genkit.commands.dry_run import plan

                    where = resolve_device(device or loaded.device, world)
                    if is_main:
                        content |= plan(
                            loaded, plugins, folder, where, redo or (), measure, as_json
                        )
                else:
                    _execute(loaded, plugins, folder, device, world, redo or (), as_json, content)
        except GenkitError as error:  # its message is printed on stderr
            content["mistakes"] = [mistake.as_json() for mistake in error.mistakes]
            if as_json and is_main:
                typer.echo(json.dumps(content, indent=2))
            raise
        if as_json and is_main:
            typer.echo(json.dumps(content, indent=2))


def _execute(
    loaded: Recipe,
    plugins: Plugins,
    folder: Path,
    device: str | None,
    world: World,
    redo: Collection[str],
    as_json: bool,
    content: dict[str, Any],
) -> None:
    """Run a recipe; print its results, or add them to the content of the JSON."""
    from genkit.report.plan import stages_json
    from genkit.report.results import print_results
    from genkit.run.engine import execute, stage_states
    from genkit.run.progress import Progress, choose_progress

    try:
        with choose_progress() if world.is_main else Progress() as progress:
            results = execute(loaded, plugins, folder, device, progress, world, redo)
        scores = {stage: found["rows"] for stage, found in results["stages"].items()}
        content |= {"scores": scores, "pictures": results["pictures"]}
        if world.is_main and not as_json:
            print_results(console(), results, folder)
    finally:
        # Not after a second Ctrl-C, nor after a refusal: the folder may belong to another run.
        error = sys.exception()
        refused = isinstance(error, UsageError) and not error.stage
        if world.is_main and not refused and not isinstance(error, KeyboardInterrupt):
            _after_run(plugins.registry, folder)
        if world.is_main and as_json:
            with contextlib.suppress(GenkitError):  # the folder belongs to another run
                states = stage_states(loaded, plugins, folder)
                content["stages"] = stages_json(loaded, plugins.registry, folder, states)


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
