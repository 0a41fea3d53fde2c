"""Fit noise levels for ``genkit sample``, and store them in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genkit.designs import components
from genkit.errors import DataError
from genkit.features import FileContext
from genkit.files import cache_folder
from genkit.plugin.manager import load_plugins
from genkit.recipe.decode import checked
from genkit.terminal import warn
from genkit.versions import versions_of

if TYPE_CHECKING:
    from genkit.api import Denoiser


def fit_schedule(
    denoiser: Denoiser,
    data: Mapping[str, Any],
    solver: Mapping[str, Any],
    start: str,
    steps: int | None,
) -> dict[str, Any]:
    """Return the table of a schedule whose noise levels are fitted to a denoiser.

    The levels minimize the distance between samples and data.

    Args:
        denoiser: denoiser from which samples are drawn.
        data: table of the data set.
        solver: table of the solver.
        start: start of sampling, such as ``corrected``.
        steps: number of solver steps; None for the default of the stage `fit-schedule`.

    Raises:
        DataError: the items of the data do not have the shape of the denoiser's, or no candidate
            schedule gives finite samples.
        SettingError: a setting of the data set or the solver is unknown or invalid.
    """
    registry = load_plugins().registry
    checked(registry, "dataset", data)  # first, or its mistakes are reported as those of the stage
    table: dict[str, Any] = {"use": "fit-schedule", "denoiser": "", "start": start}
    table |= {"solver": dict(solver), "data": dict(data)}
    table |= {} if steps is None else {"steps": steps}
    stage: Any = checked(registry, "stage", table)
    outside = FileContext(denoiser.device, registry=registry, warn=warn)
    identity = [
        stage.identity(denoiser.trained, outside),
        versions_of(components(stage), registry),
        torch.__version__,
        denoiser.device.type,  # rounding differs between types of device
    ]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = cache_folder() or Path(tempfile.gettempdir())
    file = folder / "schedules" / f"{key}.json"
    try:
        stage.output.load(file)
    except DataError:  # the file is missing or corrupt
        file.parent.mkdir(parents=True, exist_ok=True)
        stage.fit(denoiser.trained, outside).save(file)
    return {"use": "fitted", "levels": str(file), "steps": stage.steps}
