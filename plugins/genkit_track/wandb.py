"""The tracker ``wandb``: runs in Weights & Biases (W&B)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import Any, Literal

from PIL import Image

from genkit.artifacts import Scores
from genkit.errors import Problem, UsageError
from genkit.interfaces import BoundTracker, Stages, TrackedRun, Tracker
from genkit.parts.packages import missing_packages
from genkit.settings import setting
from genkit_track.values import numbers, table_of


@dataclass(frozen=True, kw_only=True)
class WandB(Tracker):
    """Log to a run of Weights & Biases, which is uploaded, or stored in the run folder if offline.

    Requires the package wandb (extra ``wandb``). The API key is not a setting; use ``wandb login``
    or the environment variable ``WANDB_API_KEY``. A resumed run is a new W&B run in the same group,
    to which all valid rows of the stage are logged first.
    """

    project: str = setting("genkit", doc="name of the W&B project")
    mode: Literal["online", "offline"] | None = setting(
        None,
        doc="online uploads, offline writes files for a later `wandb sync`; by default the value "
        "of WANDB_MODE, or online",
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from missing_packages(["wandb"], "wandb")

    def open(self, run: TrackedRun) -> BoundTracker:
        wandb = import_module("wandb")
        mode = self.mode or os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
        keys = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
        # Without an API key, W&B would prompt for one on the terminal, from this thread.
        if mode == "online" and not any(map(os.environ.get, keys)) and not wandb.api.api_key:
            raise UsageError(
                "tracker wandb requires an API key; run wandb login, or set WANDB_MODE=offline"
            )
        run.folder.mkdir(parents=True, exist_ok=True)
        return WandBRun(
            wandb,
            wandb.init(
                project=self.project,
                mode=mode,
                dir=str(run.folder),
                name=run.name,
                group=run.name,
                config=dict(run.recipe),
                # W&B must neither print to the terminal nor upload the output on the terminal.
                settings=wandb.Settings(console="off", silent=True, disable_git=True),
            ),
        )


class WandBRun(BoundTracker):
    """A W&B run.

    The names of values start with the stage. The step of a stage is its number of training images.

    Args:
        wandb: module wandb.
        run: run that ``wandb.init`` returned.
    """

    def __init__(self, wandb: Any, run: Any) -> None:
        self._wandb = wandb
        self._run = run
        self._training: set[str] = set()

    def resume(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self.row(stage, row)

    def row(self, stage: str, row: Mapping[str, Any]) -> None:
        values = numbers(row)
        if "images" in row:
            values["images"] = row["images"]
            if stage not in self._training:
                self._training.add(stage)
                self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/images")
        self._run.log({f"{stage}/{name}": value for name, value in values.items()})

    def scores(self, stage: str, scores: Scores) -> None:
        names, lines = table_of(scores)
        # A column of numbers may contain strings, such as "inf".
        table = self._wandb.Table(columns=names, data=lines, allow_mixed_types=True)
        self._run.log({f"{stage}/scores": table})
        for row in scores.rows:
            self._run.log({f"{stage}/{name}": value for name, value in numbers(row).items()})

    def picture(self, stage: str, name: str, png: bytes) -> None:
        with Image.open(BytesIO(png)) as image:
            self._run.log({f"{stage}/{name}": self._wandb.Image(image)})

    def close(self) -> None:
        self._run.finish()
