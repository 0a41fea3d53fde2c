"""Run a recipe, sample a trained denoiser, or use a component from Python.

Components have no state: any trainer can use ``genkit.component("coupler", "hungarian")``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, overload

from genkit import interfaces
from genkit.artifacts import DenoiserFile, Run
from genkit.artifacts.layout import stages_in
from genkit.blame import plugin_errors
from genkit.denoiser import Denoiser, Table, load_denoiser
from genkit.errors import Code, DataError, UsageError
from genkit.interfaces import (
    Augmentation,
    Average,
    Callback,
    Classifier,
    Component,
    Coupler,
    Dataset,
    DatasetCoupler,
    Discriminator,
    Extractor,
    FunctionCallback,
    Guidance,
    Importer,
    Latents,
    Metric,
    NoiseDistribution,
    Objective,
    Optimizer,
    Preconditioner,
    Schedule,
    Solver,
    Stage,
    Tracker,
    TrainingFunction,
)
from genkit.items import Data, Items, Labels, with_items
from genkit.paired_loader import PairedLoader
from genkit.plugin.manager import load_plugins
from genkit.recipe import decode
from genkit.recipe.in_code import Recipe
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.run.engine import default_folder, execute
from genkit.run.progress import Progress, choose_progress
from genkit.settings import toml_value


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        folder: folder of the run.
        scores: map from the id of a stage to the rows of scores that it wrote.
    """

    folder: Path
    scores: Mapping[str, Sequence[Mapping[str, Any]]]

    def __repr__(self) -> str:
        last = [f"{stage}={dict(rows[-1])}" for stage, rows in self.scores.items() if rows]
        return f"Result({', '.join([str(self.folder), *last])})"

    def _repr_html_(self) -> str:
        return Run.load(self.folder)._repr_html_()

    def denoiser(self, stage: str = "denoiser", device: str = "auto") -> Denoiser:
        """Load the denoiser that a stage trained."""
        place = stages_in(self.folder).get(stage)
        if place is None or not (path := place / DenoiserFile.filename()).is_file():
            raise DataError(
                f"{self.folder} has no denoiser of stage {stage}; name a stage that trained one",
                Code.NOT_FOUND,
            )
        return load_denoiser(path, device)


@plugin_errors()
def run_recipe(
    recipe: str | Path | Recipe | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: bool = False,
    redo: Collection[str] = (),
    trackers: Sequence[Table] = (),
    data: Data | None = None,
    labels: Labels | None = None,
    callbacks: Sequence[TrainingFunction] = (),
    callback_images: int | None = None,
) -> Result:
    """Run a recipe, or resume a run that was stopped.

    Args:
        recipe: path of a recipe file, name of a shipped recipe such as ``edm_aot``, or a recipe
            that is written in Python: a :class:`Recipe`, or a dict with its keys.
        out: folder of the run; ``runs/NAME`` by default.
        settings: map from the key of a setting to its new value, as for ``--set``:
            ``{"denoiser.pool_size": 1024}``.
        device: device to use; None for the device in the recipe.
        progress: whether to show progress on stderr.
        redo: ids of stages to run again. All stages that depend on them also run again.
        trackers: trackers in addition to those of the recipe, as names or tables:
            ``["csv", {"use": "wandb", "mode": "offline"}]``.
        data: items that replace the top-level key ``data`` of the recipe; None for the data set in
            the recipe. A tensor or array: images ``[N, C, H, W]`` or ``[N, H, W, C]`` with 1 to 4
            channels, uint8 from 0 to 255 or floats from -1 to 1, or vectors ``[N, D]`` of floats.
            Or a data set of PyTorch or Hugging Face, or any iterable, whose rows are such items
            without the first axis, images of Pillow, tuples ``(item, label)``, or dicts with the
            keys ``image`` and ``label``. The items are written to a file in the run folder. The
            fingerprint contains their hash, so other items train again.
        labels: ``[N]`` classes of the items of ``data``, from 0; None if there are none, or if the
            rows of ``data`` contain them.
        callbacks: functions that every training stage calls with its
            :class:`~genkit.interfaces.TrainingState`, in addition to the callbacks of the recipe. A
            function may return a dict of scores, which are logged as a row of ``metrics.jsonl``.
            It changes no result, as for :class:`~genkit.interfaces.Callback`. To stop the run,
            raise :class:`~genkit.errors.InterruptedRun`.
        callback_images: number of training images between two calls of ``callbacks``, at least 1;
            None for a hundredth of the training. The last call is after training.

    Raises:
        GenkitError: a mistake that the caller can correct, such as one in the recipe, or an item of
            ``data`` that differs from the first one in shape or is not finite. If a function of
            ``callbacks`` raised an error, this is its cause; the state is saved, and the same call
            resumes the run.
    """
    plugins = load_plugins()
    overrides = [
        f"{key}={toml_value(str(value) if isinstance(value, Path) else value)}"
        for key, value in (settings or {}).items()
    ]
    if isinstance(recipe, Mapping):
        recipe = Recipe.of(recipe)
    functions = _functions(callbacks, callback_images)
    source = recipe.source if isinstance(recipe, Recipe) else read_source(recipe)
    name = (settings or {}).get("name", source.table.get("name"))
    folder = Path(out) if out is not None else default_folder(str(name))
    prepare, table = None, None
    if data is not None:
        if replaced := [key for key in settings or {} if key.partition(".")[0] == "data"]:
            raise DataError(
                f"settings must not change data if data is given, got {replaced[0]}; remove one of "
                "the two",
                Code.CONFLICT,
            )
        items = Items.of(data, labels)
        table = items.table(folder)
        overrides.insert(0, f"data={toml_value(table)}")
        prepare = partial(items.write, table)
    elif labels is not None:
        raise DataError("labels must be None without data, got labels; pass data", Code.CONFLICT)
    checked = load_recipe(source, plugins, overrides, trackers)
    if table is not None:
        checked = dataclasses.replace(checked, source=with_items(source, table))
    with choose_progress() if progress else Progress() as shown_progress:
        results = execute(
            checked,
            plugins,
            folder,
            device,
            shown_progress,
            redo=redo,
            prepare=prepare,
            functions=functions,
        )
    return Result(folder, {stage: found["rows"] for stage, found in results["stages"].items()})


def _functions(callbacks: Any, images: Any) -> list[FunctionCallback]:
    """Return the functions that training stages call; raise UsageError for a wrong argument."""
    whole = isinstance(images, Integral) and not isinstance(images, bool)  # also those of NumPy
    if images is not None and not (whole and images >= 1):
        raise UsageError(
            f"callback_images must be None or an integer of at least 1, got {images!r:.60}; write "
            "a number such as 10_000",
            Code.OUT_OF_RANGE,
        )
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise UsageError(
            f"callbacks must be a list of functions, got {callbacks!r:.60}; write a list such as "
            "[show]",
            Code.WRONG_TYPE,
        )
    every = None if images is None else int(images)
    return [FunctionCallback(function, every) for function in callbacks]


@overload
def component(kind: Literal["coupler"], name: str, **settings: Any) -> Coupler: ...
@overload
def component(kind: Literal["dataset-coupler"], name: str, **settings: Any) -> DatasetCoupler: ...
@overload
def component(kind: Literal["denoiser"], name: str, **settings: Any) -> interfaces.Denoiser: ...
@overload
def component(kind: Literal["guidance"], name: str, **settings: Any) -> Guidance: ...
@overload
def component(kind: Literal["solver"], name: str, **settings: Any) -> Solver: ...
@overload
def component(kind: Literal["discriminator"], name: str, **settings: Any) -> Discriminator: ...
@overload
def component(kind: Literal["classifier"], name: str, **settings: Any) -> Classifier: ...
@overload
def component(kind: Literal["preconditioner"], name: str, **settings: Any) -> Preconditioner: ...
@overload
def component(
    kind: Literal["noise-distribution"], name: str, **settings: Any
) -> NoiseDistribution: ...
@overload
def component(kind: Literal["schedule"], name: str, **settings: Any) -> Schedule: ...
@overload
def component(kind: Literal["latents"], name: str, **settings: Any) -> Latents: ...
@overload
def component(kind: Literal["objective"], name: str, **settings: Any) -> Objective: ...
@overload
def component(kind: Literal["optimizer"], name: str, **settings: Any) -> Optimizer: ...
@overload
def component(kind: Literal["average"], name: str, **settings: Any) -> Average: ...
@overload
def component(kind: Literal["dataset"], name: str, **settings: Any) -> Dataset: ...
@overload
def component(kind: Literal["augmentation"], name: str, **settings: Any) -> Augmentation: ...
@overload
def component(kind: Literal["callback"], name: str, **settings: Any) -> Callback: ...
@overload
def component(kind: Literal["extractor"], name: str, **settings: Any) -> Extractor: ...
@overload
def component(kind: Literal["metric"], name: str, **settings: Any) -> Metric: ...
@overload
def component(kind: Literal["importer"], name: str, **settings: Any) -> Importer: ...
@overload
def component(kind: Literal["tracker"], name: str, **settings: Any) -> Tracker: ...
@overload
def component(kind: Literal["stage"], name: str, **settings: Any) -> Stage: ...
@overload
def component(kind: str, name: str, **settings: Any) -> Component: ...
@plugin_errors()
def component(kind: str, name: str, **settings: Any) -> Component:
    """Return a component by kind and name, such as ``component("coupler", "hungarian")``.

    Args:
        kind: one of :data:`genkit.plugin.kinds.KINDS`.
        name: name of the component, which a recipe writes after ``use``.
        settings: settings of the component. A setting that is a component itself is written as a
            table, such as ``inner={"use": "pot-exact"}``.

    Raises:
        PluginError: there is no such component.
        SettingError: a setting is unknown or has an invalid value.
    """
    return decode.component(load_plugins().registry, kind, {"use": name, **settings})


__all__ = [
    "Denoiser",
    "PairedLoader",
    "Recipe",
    "Result",
    "component",
    "load_denoiser",
    "run_recipe",
]
