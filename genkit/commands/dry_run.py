"""Show what a run would do: states of stages, values, and what the stages require."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.filesize import decimal

from genkit.commands.recipes import summary
from genkit.parts.memory import available_memory
from genkit.parts.sheet import print_sheet
from genkit.parts.text_table import Cells
from genkit.plugin.manager import Plugins
from genkit.recipe.encode import values
from genkit.recipe.recipe import Recipe
from genkit.report.plan import stages_json
from genkit.report.values import print_values, values_json
from genkit.run.engine import stage_states
from genkit.run.forecast import Forecast, forecast
from genkit.run.progress import duration
from genkit.terminal import console, say


def plan(
    recipe: Recipe,
    plugins: Plugins,
    folder: Path,
    device: torch.device,
    redo: Collection[str],
    measured: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Print what a run would do, or return it for JSON. Write nothing.

    Args:
        recipe: recipe without mistakes.
        plugins: plugins with its components.
        folder: folder of the run.
        device: device of the run.
        redo: ids of stages to run again.
        measured: whether to time a few steps of each network on the device.
        as_json: whether to return JSON, and print nothing.

    Returns:
        Content for JSON; empty without ``as_json``.
    """
    states = stage_states(recipe, plugins, folder, redo)
    stages = stages_json(recipe, plugins.registry, folder, states)
    settings = {
        stage_id: [value for value in found if value.differs]
        for stage_id, found in values(recipe, plugins.registry).items()
    }
    required = forecast(recipe, device if measured else None)
    free = {"memory": _free_memory(device), "disk": _free_disk(folder)}
    if as_json:
        return {
            "name": recipe.name,
            "folder": str(folder),
            "device": str(device),
            "stages": [stage | asdict(required[stage["id"]]) for stage in stages],
            "available": free,
            "settings": values_json(settings),
        }
    to = console()
    say(to, f"{summary(recipe, f'device {device}', f'in {folder}')}\n")
    rows = [(str(k), s["id"], s["use"], s["state"], s["folder"]) for k, s in enumerate(stages, 1)]
    print_sheet(to, [("", "stage", "use", "state", "folder"), *rows], keys=2)
    say(to, "\nValues that differ from their defaults")
    titles = {"": recipe.source.label} | {s["id"]: f"{s['id']}: {s['use']}" for s in stages}
    print_values(to, settings, titles)
    to.print()
    print_sheet(to, _cells(required))
    to.print()
    say(to, "\n".join(_totals(required, states, free, measured)))
    return {}


def _cells(required: Mapping[str, Forecast]) -> Cells:
    """Return a table of what each stage requires."""
    cells: list[list[str]] = [["stage", "parameters", "memory", "disk", "time"]]
    formats: dict[str, Callable[[Any], str]]
    formats = {"parameters": "{:,}".format, "memory": decimal, "disk": decimal, "seconds": duration}
    for stage, one in required.items():
        row = [stage]
        for name, text in formats.items():
            value = getattr(one, name)
            row.append("unknown" if name in one.unknown else "" if value is None else text(value))
        cells.append(row)
    return cells


def _totals(
    required: Mapping[str, Forecast],
    states: Mapping[str, str],
    free: Mapping[str, int | None],
    measured: bool,
) -> Iterator[str]:
    """Yield a line each about memory, disk space and time of the stages that would run."""
    pending = {stage: one for stage, one in required.items() if states[stage] != "finished"}
    available = {
        name: "" if size is None else f"; {decimal(size)} available" for name, size in free.items()
    }
    memory = max((one.memory or 0 for one in pending.values()), default=0)
    unknown = _unknown(pending, "memory")
    if memory or unknown:
        yield (
            f"Memory: {unknown}{decimal(memory)} for weights, gradients, optimizer and average, "
            f"and more for data and activations{available['memory']}"
        )
    disk = sum(one.disk or 0 for one in pending.values())
    yield (
        f"Disk: {_unknown(pending, 'disk')}{decimal(disk)} for checkpoints, networks and samples, "
        f"and more for snapshots and pictures{available['disk']}"
    )
    if measured:
        seconds = sum(one.seconds or 0 for one in pending.values())
        yield (
            f"Time: {_unknown(pending, 'seconds')}{duration(seconds)} for network calls and "
            "optimizer steps, and more for data, coupling, pictures and scores"
        )
    else:
        yield "Time: add --measure to time a few steps on this machine"


def _unknown(pending: Mapping[str, Forecast], name: str) -> str:
    """Return the stages for which a value is unknown, as the beginning of its total."""
    stages = [stage for stage, one in pending.items() if name in one.unknown]
    return f"unknown for {', '.join(stages)}; for the other stages " if stages else ""


def _free_memory(device: torch.device) -> int | None:
    """Return the free memory of a device in bytes; None if unknown."""
    on_gpu = device.type == "cuda"
    return torch.cuda.mem_get_info(device)[0] if on_gpu else available_memory()


def _free_disk(folder: Path) -> int | None:
    """Return the free space in bytes for a folder, which need not exist; None if unknown."""
    around = (folder.absolute(), *folder.absolute().parents)
    try:
        return shutil.disk_usage(next(path for path in around if path.is_dir())).free
    except OSError:
        return None
