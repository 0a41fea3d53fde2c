"""Run the stages of a recipe in order: skip finished stages and resume unfinished ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genkit.artifacts import Record, Samples
from genkit.artifacts.layout import RESULTS, STATE
from genkit.artifacts.runs import Failure
from genkit.blame import label_of, plugin_errors
from genkit.errors import Code, GenkitError, InterruptedRun, PluginError, UsageError
from genkit.files import write_json
from genkit.interfaces import FunctionCallback, Stage, Stages, TrackedRun
from genkit.machine import hardware, is_of_the_machine, is_out_of_memory, resolve_device
from genkit.plugin.manager import Plugins
from genkit.plugin.registry import Registry, in_words
from genkit.recipe.encode import resolved
from genkit.recipe.recipe import Recipe
from genkit.report.pictures import pictures_of
from genkit.report.results import gather
from genkit.run.context import StageContext
from genkit.run.description import describe, restore_description
from genkit.run.fingerprint import dependents, fingerprint
from genkit.run.folder import RunFolder, is_begun
from genkit.run.interrupt import stop_on_signal
from genkit.run.progress import Progress
from genkit.run.repair import restart
from genkit.run.tracking import Relay, open_trackers
from genkit.world import SINGLE_PROCESS, World


def default_folder(name: str) -> Path:
    """Return the default folder of the run of a recipe, ``runs/NAME``."""
    return Path("runs") / name


def fingerprints(recipe: Recipe, registry: Registry) -> dict[str, str]:
    """Return a map from the id of every stage to its fingerprint."""
    prints: dict[str, str] = {}
    for stage_id, stage in recipe.stages.items():
        prints[stage_id] = fingerprint(stage_id, stage, recipe.seed, registry, prints)
    return prints


def stage_states(
    recipe: Recipe, plugins: Plugins, folder: Path, redo: Collection[str] = ()
) -> dict[str, str]:
    """Return what a run would do with each stage, without writing anything.

    Returns:
        Map from id to ``finished`` for a stage that a run would skip, and for stages that it would
        run: ``new`` if the stage never ran, ``resume`` if it was stopped, ``changed`` if its
        settings, code or inputs changed, ``restored`` if they changed back, and ``redo`` if it was
        requested to run again.
    """
    run = RunFolder(folder, recipe.name)
    prints = fingerprints(recipe, plugins.registry)
    again = run.redo.including(redo, dependents(redo, recipe.stages))
    states: dict[str, str] = {}
    for number, stage_id in enumerate(recipe.stages, 1):
        state = run.state(number, stage_id, prints[stage_id])
        # Once the earlier results are moved, the folder of a pending stage has new results.
        new = ("finished", "resume") if again.set_aside else ()
        states[stage_id] = "redo" if stage_id in again.pending and state not in new else state
    return states


def execute(
    recipe: Recipe,
    plugins: Plugins,
    folder: Path,
    device: str | None,
    progress: Progress,
    world: World = SINGLE_PROCESS,
    redo: Collection[str] = (),
    prepare: Callable[[], None] | None = None,
    functions: Sequence[FunctionCallback] = (),
) -> dict[str, Any]:
    """Run a recipe in a folder, or resume it.

    Args:
        recipe: recipe without mistakes.
        plugins: plugins with the components.
        folder: folder of the run, which must be accessible to all processes.
        device: device to use; None for the device in the recipe.
        progress: display of the position in each stage.
        world: processes of the run. Rank 0 determines which stages are finished, and writes the
            files of the run.
        redo: ids of stages to run again. All stages that depend on them also run again. If the run
            is stopped, the next call runs those of them that are not finished.
        prepare: function that rank 0 calls before the first stage, if a stage is not finished. It
            may write files to the folder, which is locked.
        functions: functions that training stages call.

    Returns:
        Content of ``results.json``.

    Raises:
        GenkitError: a mistake that the user can correct; finished stages are kept.
    """
    where = resolve_device(device or recipe.device, world)
    if world.size > 1 and where.type == "cuda":
        torch.cuda.set_device(where)
    devices = world.all_gather(hardware(where))
    again = dependents(redo, recipe.stages)
    folders: dict[str, Path] = {}
    with ExitStack() as stack:
        stack.enter_context(plugin_errors(plugins.registry))
        prints = fingerprints(recipe, plugins.registry)
        run = world.on_main(lambda: RunFolder(folder, recipe.name))
        stack.enter_context(run.locked() if world.is_main else nullcontext())
        if world.is_main and run.is_damaged:
            text = "was damaged and is written again; if you wrote --redo, write it again"
            progress.note(f"{folder / STATE} {text}")
        stopping = stack.enter_context(stop_on_signal(world))
        order = list(enumerate(recipe.stages.items(), 1))
        if world.is_main:
            for stage_id in run.set_aside(run.redo.including(redo, again), recipe.stages):
                progress.note(f"{stage_id}: runs again; the earlier result is kept in replaced/")
        relays: Sequence[Relay] = ()
        # These files describe how the results were computed, so a call for a finished run must not
        # change them.
        if world.is_main and all(run.finished(n, i, prints[i]) for n, (i, _) in order):
            restore_description(run, recipe, plugins.registry, progress.note)
        elif world.is_main:
            describe(run, recipe, plugins, where, devices)
            if prepare is not None:
                prepare()
            followed = TrackedRun(recipe.name, folder, resolved(recipe, plugins.registry))
            relays = stack.enter_context(
                open_trackers(recipe.trackers, followed, plugins.registry, progress.warn)
            )
        if world.is_main:
            progress.plan(_work(recipe.stages, plugins.registry, progress.warn))
        for number, (stage_id, stage) in order:
            opening = partial(_open, run, number, stage_id, prints[stage_id], progress)
            place, finished = world.on_main(opening)
            folders[stage_id] = place
            if finished:
                progress.skip(number, len(recipe.stages), stage_id)
                continue
            name = plugins.registry.name_of(stage)
            progress.begin(number, len(recipe.stages), stage_id, name, is_begun(place))
            together = world if stage.shared else SINGLE_PROCESS
            record = Record(
                stage_id,
                place,
                stage.output,
                is_main=world.is_main,
                observers=relays,
                draw=partial(pictures_of, stages=recipe.stages),
                called=label_of(stage, plugins.registry),
                fingerprint=prints[stage_id],
                caption=f"run {recipe.name}, stage {stage_id}, seed {recipe.seed}",
            )
            context = StageContext(
                stage_id,
                place,
                record,
                where,
                recipe.seed,
                recipe.stages,
                folders,
                plugins.registry,
                progress,
                _stop(stopping, together),
                together,
                functions,
            )
            with (
                _recorded(run, stage_id, world),
                _named(stage_id),
                plugin_errors(plugins.registry),
            ):
                if world.any(stopping()):
                    raise InterruptedRun("not yet begun")
                resumed = world.on_main(partial(is_begun, place))
                if stage.shared or world.is_main:
                    stage.run(context)
                if resumed and (lost := world.on_main(partial(restart, place))):
                    progress.note(f"{stage_id}: runs from its beginning to write {lost} again")
                    record.restart()
                    if stage.shared or world.is_main:
                        stage.run(context)
                if world.is_main:
                    _require_declared(stage, record, recipe.stages)
            if world.is_main:
                run.mark(place, prints[stage_id], finished=True)
                run.end(stage_id)
            progress.end()
        return world.on_main(partial(_results, recipe.name, folder, folders))


def _work(stages: Stages, registry: Registry, warn: Callable[[str], None]) -> list[float]:
    """Return the work of each stage; warn and return 0 for a stage whose result is invalid.

    Work is only used for display, so a mistake in it must not end a run.
    """
    works = []
    for stage in stages.values():
        try:
            work = stage.work(stages)
            got = None if math.isfinite(work) and work >= 0 else f"got {work!r}"
        except (Exception, SystemExit) as error:  # noqa: BLE001
            got = f"but raised {in_words(error)}"
        if got is not None:
            warn(
                f"{label_of(stage, registry)} must return a finite number of at least 0 from work, "
                f"{got}; the display counts it as 0"
            )
        works.append(0.0 if got else float(work))
    return works


def _open(
    run: RunFolder, number: int, stage_id: str, fingerprint: str, progress: Progress
) -> tuple[Path, bool]:
    """Return the folder of a stage, and whether the stage is finished."""
    change = run.change(number, stage_id, fingerprint)
    if not change and (damage := run.damage(number, stage_id)):
        progress.note(f"{stage_id}: {damage}; the stage runs again")
    if not change and run.has_damaged_state(number, stage_id):
        progress.note(f"{stage_id}: its state is damaged; the stage resumes from its checkpoint")
    place = run.open_stage(number, stage_id, fingerprint)
    finished = run.finished(number, stage_id, fingerprint)
    if change:
        back = ", and its result with the present ones is back" if finished else ""
        progress.note(f"{stage_id}: {change}; the earlier result is kept in replaced/{back}")
    if finished:
        run.end(stage_id)
    return place, finished


def _require_declared(stage: Stage, record: Record, stages: Stages) -> None:
    """Raise PluginError unless a stage wrote the artifact that it declares."""
    saved = record.saved
    if stage.output is not None and saved is None:
        raise PluginError(
            f"{record.called} must write the artifact that it declares, {stage.output.__name__}, "
            "got none; call context.record.save in its method run"
        )
    # Checks before the run use drawn_by, and metrics use the denoiser of the samples.
    if isinstance(saved, Samples) and saved.denoiser != (drawn_by := stage.drawn_by(stages)):
        raise PluginError(
            f"{record.called} must return the denoiser of its samples, {saved.denoiser!r}, from "
            f"drawn_by, got {drawn_by!r}; correct one of the two"
        )


def _stop(stopping: Callable[[], bool], world: World) -> Callable[[], bool]:
    """Return a function that returns whether any rank received a signal, so that all ranks stop."""
    return lambda: world.any(stopping())


def _results(name: str, folder: Path, folders: dict[str, Path]) -> dict[str, Any]:
    results = {"name": name, **gather(folder, folders)}
    write_json(folder / RESULTS, results)
    return results


@contextmanager
def _recorded(run: RunFolder, stage_id: str, world: World) -> Iterator[None]:
    """Record an error that is raised inside the block in the folder of the run."""
    try:
        yield
    except Exception as error:
        failure = Failure(stage_id, in_words(error))
        if isinstance(error, GenkitError):
            error.stage = stage_id
            failure = Failure(stage_id, str(error), error.code)
        if world.is_main:
            with suppress(OSError, GenkitError):  # a full disk must not hide the error of the run
                run.fail(failure)
        raise


@contextmanager
def _named(stage_id: str) -> Iterator[None]:
    """Add the id of the stage to errors that are raised inside the block."""
    try:
        yield
    except InterruptedRun as error:
        raise InterruptedRun(f"stopped in stage {stage_id}: {error}; all is saved") from error
    except GenkitError as error:
        error.args = (f"stage {stage_id}: {error}",)
        raise
    except OSError as error:
        if not is_of_the_machine(error):
            raise
        raise UsageError(
            f"stage {stage_id}: {error.filename or 'a file'}: {error.strerror}; "
            "correct this and run the same command to resume",
            Code.IO_ERROR,
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError(
            f"stage {stage_id}: out of memory; write a smaller micro_batch or pool_size, or a "
            "smaller network",
            Code.OUT_OF_MEMORY,
        ) from error
