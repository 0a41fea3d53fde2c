"""Runs the stages of a recipe in order: skips what is finished, goes on with what is not."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w
import torch

from genkit.errors import GenkitError, InterruptedRun, UsageError
from genkit.files import write_json, write_text
from genkit.plugin.manager import Plugins
from genkit.plugin.registry import Registry
from genkit.recipe.encode import resolved
from genkit.recipe.recipe import Recipe
from genkit.report.results import gather
from genkit.run.context import StageContext
from genkit.run.environment import environment
from genkit.run.fingerprint import fingerprint
from genkit.run.folder import RECIPE, RunFolder
from genkit.run.interrupt import stop_on_signal
from genkit.run.progress import Progress

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


def default_folder(recipe: Recipe) -> Path:
    """Return where a recipe runs unless told otherwise: ``runs/NAME``."""
    return Path("runs") / recipe.name


def resolve_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` takes a GPU where there is one.

    Raises:
        UsageError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    match = re.fullmatch(r"(cpu|cuda|mps)(?::([0-9]{1,3}))?", name)
    if match is None or int(match[2] or 0) >= counts[match[1]]:
        raise UsageError(f'this machine has no device "{name}"; write device = "auto"')
    return torch.device(name)


def fingerprints(recipe: Recipe, registry: Registry) -> dict[str, str]:
    """Return the fingerprint of every stage by id."""
    found: dict[str, str] = {}
    for stage_id, stage in recipe.stages.items():
        found[stage_id] = fingerprint(stage_id, stage, recipe.seed, registry, found)
    return found


def finished_stages(recipe: Recipe, plugins: Plugins, folder: Path) -> set[str]:
    """Return the ids of the stages that a run in this folder would skip."""
    run = RunFolder(folder, recipe.name)
    prints = fingerprints(recipe, plugins.registry)
    return {
        stage_id
        for number, stage_id in enumerate(recipe.stages, 1)
        if run.finished(number, stage_id, prints[stage_id])
    }


def execute(
    recipe: Recipe,
    plugins: Plugins,
    folder: Path,
    device: str | None,
    progress: Progress,
) -> dict[str, Any]:
    """Run a recipe in a folder, or go on with it.

    Args:
        recipe: checked.
        plugins: that it was checked against.
        folder: of the run.
        device: overrides the recipe's; None leaves it.
        progress: is told how far each stage is.

    Returns:
        What ``results.json`` holds.

    Raises:
        GenkitError: for everything a user can mend; what is finished is kept.
    """
    where = resolve_device(device or recipe.device)
    run = RunFolder(folder, recipe.name)
    prints = fingerprints(recipe, plugins.registry)
    folders: dict[str, Path] = {}
    with run.locked(), stop_on_signal() as stop_requested:
        order = list(enumerate(recipe.stages.items(), 1))
        # What is written down belongs to the results: a call that only shows them changes nothing.
        if not all(run.finished(n, stage_id, prints[stage_id]) for n, (stage_id, _) in order):
            _write_down(recipe, plugins, run, where)
        for number, (stage_id, stage) in order:
            if run.changed(number, stage_id, prints[stage_id]):
                progress.note(f"{stage_id}: settings changed; what it left is kept in replaced/")
            place = folders[stage_id] = run.open_stage(number, stage_id, prints[stage_id])
            if run.finished(number, stage_id, prints[stage_id]):
                progress.skip(number, len(recipe.stages), stage_id)
                continue
            progress.begin(number, len(recipe.stages), stage_id, plugins.registry.name_of(stage))
            context = StageContext(
                stage_id,
                place,
                where,
                recipe.seed,
                recipe.stages,
                folders,
                plugins.registry,
                progress,
                stop_requested,
            )
            with _named(stage_id):
                if stop_requested():
                    raise InterruptedRun("not yet begun")
                stage.run(context)
            run.mark(place, prints[stage_id], finished=True)
            progress.end()
        results = {"name": recipe.name, **gather(folder, folders)}
        write_json(folder / "results.json", results)
    return results


@contextmanager
def _named(stage_id: str) -> Iterator[None]:
    """Say in which stage an error arose."""
    try:
        yield
    except InterruptedRun as error:
        raise InterruptedRun(f"stopped in stage {stage_id}: {error}; all is saved") from error
    except GenkitError as error:
        error.args = (f"stage {stage_id}: {error}",)
        raise
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        raise UsageError(
            f"stage {stage_id}: {error.filename or 'a file'}: {error.strerror}; "
            "when that is mended, the same command goes on"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and (
            "can't allocate memory" not in str(error)
        ):
            raise
        raise UsageError(
            f"stage {stage_id}: out of memory; write a smaller micro_batch, pool_size or network"
        ) from error


def _write_down(recipe: Recipe, plugins: Plugins, run: RunFolder, device: torch.device) -> None:
    write_text(run.root / RECIPE, recipe.source.text)
    write_text(run.root / "resolved.toml", tomli_w.dumps(resolved(recipe, plugins.registry)))
    found = {"set": list(recipe.overrides), **environment(device, plugins)}
    write_json(run.root / "environment.json", found)
