"""genkit from Python: run a recipe, sample a trained denoiser, use any component alone.

Components hold no state: ``genkit.component("coupler", "hungarian")`` works in any trainer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genkit.artifacts import DenoiserFile
from genkit.artifacts.layout import stages_in
from genkit.blame import plugin_errors
from genkit.denoiser import Denoiser, Table, load_denoiser
from genkit.errors import Code, DataError
from genkit.plugin.manager import load_plugins
from genkit.recipe import decode
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.run.engine import default_folder, execute
from genkit.run.progress import Progress, choose_progress
from genkit.settings import toml_value


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        folder: of the run.
        scores: rows of every scoring stage, by its id.
    """

    folder: Path
    scores: Mapping[str, Sequence[Mapping[str, Any]]]

    def denoiser(self, stage: str = "denoiser", device: str = "auto") -> Denoiser:
        """Load the denoiser that a stage trained."""
        place = stages_in(self.folder).get(stage)
        if place is None or not (path := place / DenoiserFile.filename()).is_file():
            raise DataError(f"{self.folder}: no stage {stage} wrote a denoiser", Code.NOT_FOUND)
        return load_denoiser(path, device)


@plugin_errors()
def run_recipe(
    recipe: str | Path,
    *,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: bool = False,
    redo: Collection[str] = (),
    trackers: Sequence[Table] = (),
) -> Result:
    """Run a recipe, or go on with a run that was stopped.

    Args:
        recipe: a file, or the name of a shipped recipe such as ``edm_aot``.
        out: folder of the run; ``runs/NAME`` by default.
        settings: values by key path, as ``--set`` takes them: ``{"denoiser.pool_size": 1024}``.
        device: overrides the recipe's.
        progress: show it on stderr.
        redo: ids of stages to run again, with all that depend on them.
        trackers: trackers besides those of the recipe, by name or by table:
            ``["csv", {"use": "wandb", "mode": "offline"}]``.

    Raises:
        GenkitError: for everything the caller can mend, a mistake in the recipe above all.
    """
    plugins = load_plugins()
    overrides = [
        f"{key}={toml_value(str(value) if isinstance(value, Path) else value)}"
        for key, value in (settings or {}).items()
    ]
    checked = load_recipe(read_source(recipe), plugins, overrides, trackers)
    folder = Path(out) if out is not None else default_folder(checked)
    with choose_progress() if progress else Progress() as shown_progress:
        results = execute(checked, plugins, folder, device, shown_progress, redo=redo)
    return Result(folder, {stage: found["rows"] for stage, found in results["stages"].items()})


@plugin_errors()
def component(kind: str, name: str, **settings: Any) -> Any:
    """Return a component by kind and name, such as ``component("coupler", "hungarian")``.

    Args:
        kind: one of :data:`genkit.plugin.kinds.KINDS`.
        name: as recipes write it after ``use``.
        settings: its settings; a slot takes a table, such as ``inner={"use": "pot-exact"}``.

    Raises:
        PluginError: there is none of this name.
        SettingError: a setting is unknown or has a wrong value.
    """
    return decode.component(load_plugins().registry, kind, {"use": name, **settings})


__all__ = ["Denoiser", "Result", "component", "load_denoiser", "run_recipe"]
