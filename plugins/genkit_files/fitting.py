"""Fit the noise levels of a sampling command, and store them in the user's cache."""

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

    Args:
        denoiser: denoiser that is sampled.
        data: table of the data set to which the distance of the samples is minimized.
        solver: table of the solver.
        start: state at the first noise level.
        steps: number of solver steps; None for the default of the stage `fit-schedule`.

    Raises:
        DataError: the data has another shape than the denoiser, or no candidate gives finite
            samples.
        SettingError: a setting of data or solver is unknown or invalid.
    """
    registry = load_plugins().registry
    checked(registry, "dataset", data)  # first: its mistakes would be reported as the stage's
    table: dict[str, Any] = {"use": "fit-schedule", "denoiser": "", "start": start}
    table |= {"solver": dict(solver), "data": dict(data)}
    table |= {} if steps is None else {"steps": steps}
    stage: Any = checked(registry, "stage", table)
    outside = FileContext(denoiser.device, registry=registry, warn=warn)
    identity = [
        stage.identity(denoiser.trained, outside),
        versions_of(components(stage), registry),
        torch.__version__,
        denoiser.device.type,  # rounding differs between types
    ]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = cache_folder() or Path(tempfile.gettempdir())
    file = folder / "schedules" / f"{key}.json"
    try:
        stage.output.load(file)
    except DataError:  # the file does not exist, or is corrupt
        file.parent.mkdir(parents=True, exist_ok=True)
        stage.fit(denoiser.trained, outside).save(file)
    return {"use": "fitted", "levels": str(file), "steps": stage.steps}
