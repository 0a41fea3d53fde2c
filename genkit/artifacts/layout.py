"""Define the names of all files in a run folder.

::

    runs/NAME/
        recipe.toml          the recipe file
        resolved.toml        the recipe with all defaults and every --set
        environment.json     versions, hardware, command
        results.json         scores and pictures of all stages
        state.json           name of the recipe, and stages that --redo requested
        01-denoiser/         a stage: its artifact, pictures, and
            state.json           fingerprint, whether it is finished, digests of results
            metrics.jsonl        one row per line, appended; rewritten on resume
            cost.json            cost of samples
            during-training/     pictures of callbacks, with the number of training images
            checkpoint*.safetensors  checkpoints; the newest has no number
        replaced/            results of earlier settings; after --redo with the suffix .redone
        trackers/            files of trackers, one folder each
"""

from __future__ import annotations

import re
from pathlib import Path

from genkit.artifacts.artifact import Artifact
from genkit.artifacts.cost import SamplingCosts
from genkit.artifacts.scores import Scores
from genkit.errors import Code, PluginError
from genkit.settings import quote

RECIPE = "recipe.toml"
RESOLVED = "resolved.toml"
ENVIRONMENT = "environment.json"
RESULTS = "results.json"
STATE = "state.json"
REPLACED = "replaced"
TRACKERS = "trackers"
METRICS = "metrics.jsonl"
WARNINGS = "warnings.jsonl"
DURING_TRAINING = "during-training"
CHECKPOINT = "checkpoint.safetensors"
LOCK = ".lock"
HOLDER = ".running.json"
"""Process, host and time of the run that holds the lock."""

_STAGE = re.compile(r"[0-9]{2}-(?P<id>.+)")


def stage_folder(run: Path, number: int, stage: str) -> Path:
    """Return the folder of a stage, such as ``02-fakes``."""
    return run / f"{number:02d}-{stage}"


def stage_folders(run: Path) -> list[tuple[str, Path]]:
    """Return the id and the folder of each stage of a run, in order.

    After a change of the recipe, two folders may have the same id.
    """
    numbered = [(_STAGE.fullmatch(path.name), path) for path in sorted(run.glob("[0-9][0-9]-*"))]
    return [(match["id"], path) for match, path in numbered if match and path.is_dir()]


def stages_in(run: Path) -> dict[str, Path]:
    """Return a map from the id of each stage of a run to its folder, in order.

    If several folders have the same id, the first is returned.
    """
    folders: dict[str, Path] = {}
    for stage, folder in stage_folders(run):
        folders.setdefault(stage, folder)
    return folders


def checkpoint_name(age: int) -> str:
    """Return the file name of a checkpoint. The newest checkpoint has age 0."""
    stem, suffix = CHECKPOINT.split(".")
    return CHECKPOINT if age == 0 else f"{stem}-{age}.{suffix}"


def is_checkpoint(path: Path) -> bool:
    """Return whether a file is a checkpoint, according to its name."""
    return re.fullmatch(r"checkpoint(-[0-9]+)?\.safetensors", path.name) is not None


def require_file_name(output: type[Artifact]) -> None:
    """Raise PluginError unless the file name of a type of artifact is valid and not reserved."""
    is_artifact = isinstance(output, type) and issubclass(output, Artifact)
    if not (is_artifact and hasattr(output, "name")):
        got = output.__name__ if isinstance(output, type) else quote(str(output))
        raise PluginError(
            f"output must be a subclass of Artifact with a name, got {got}; write, for example, "
            "DenoiserFile or Samples"
        )
    file = output.filename()
    path = Path(file)
    reserved = file == STATE or path.suffix == ".jsonl" or is_checkpoint(path)
    reserved |= any(
        file == t.filename() and not issubclass(output, t) for t in (Scores, SamplingCosts)
    )
    if reserved or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9]+)+", file):
        raise PluginError(
            f"the file name of {output.__name__} must be a name in lower case with an extension, "
            f"not reserved for genkit, got {quote(file)}; write, for example, features.safetensors",
            Code.INVALID_NAME,
        )


def results_in(stage: Path) -> dict[str, int]:
    """Return a map from the name of each result file of a stage to its size in bytes.

    State, checkpoints and logs are not results. They may be deleted after the stage is finished.
    Hidden files are those of other programs, or are being written.
    """
    return {
        path.name: path.stat().st_size
        for path in _files_in(stage)
        if path.name != STATE and not _is_log(path) and not is_checkpoint(path)
    }


def logs_in(stage: Path) -> list[Path]:
    """Return the logs of a stage: rows, warnings and costs."""
    return [path for path in _files_in(stage) if _is_log(path)]


def _files_in(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.glob("*") if not path.name.startswith("."))
    return [path for path in paths if path.is_file()]


def _is_log(path: Path) -> bool:
    return path.suffix == ".jsonl" or path.name == SamplingCosts.filename()
