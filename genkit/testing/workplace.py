"""Temporary folders for checks of components that need earlier stages or write files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from genkit.artifacts import Record
from genkit.artifacts.layout import WARNINGS
from genkit.interfaces import Component, Stage, Stages
from genkit.plugin.manager import load_plugins
from genkit.run.context import StageContext
from genkit.run.progress import Progress
from genkit.settings import setting
from genkit.testing.laws import require
from genkit.world import SINGLE_PROCESS, World


@dataclass(frozen=True, kw_only=True)
class Holder(Stage):
    """A stage that contains the component to check, and does nothing."""

    output = None
    part: Component = setting(doc="component to check")

    def run(self, context: object) -> None:
        return


@dataclass(frozen=True)
class Workplace:
    """A folder in which earlier stages have run.

    Attributes:
        root: folder of the stages.
        stages: earlier stages by id.
        seed: seed of the run.
    """

    root: Path
    stages: Stages
    seed: int = 0

    def context(
        self,
        stage: Stage,
        name: str,
        *,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
        world: World = SINGLE_PROCESS,
    ) -> StageContext:
        """Return the context of a stage that runs in the folder ``root / name``."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        record = Record(name, folder, stage.output, is_main=world.is_main)
        return StageContext(
            # Random numbers depend on the id of the stage, so it is the same in all folders.
            name if name in self.stages else "checked",
            folder,
            record,
            torch.device("cpu"),
            self.seed,
            {**self.stages, "checked": stage},
            {earlier: self.root / earlier for earlier in self.stages},
            load_plugins().registry,
            progress or Progress(),
            stop,
            world,
        )

    def holding(self, part: Component) -> StageContext:
        """Return the context of a stage that contains a component."""
        return self.context(Holder(part=part), "checked")


@contextmanager
def workplace(earlier: Stages | None, seed: int = 0) -> Iterator[Workplace]:
    """Run the earlier stages in a temporary folder, in the order of the mapping."""
    with TemporaryDirectory() as folder:
        place = Workplace(Path(folder), earlier or {}, seed)
        for name, stage in place.stages.items():
            stage.run(place.context(stage, name))
        yield place


@contextmanager
def writes_below(component: object, root: Path, *allowed: Path) -> Iterator[None]:
    """Require that the block changes no file in a folder, except below the allowed folders.

    Files in the current directory are checked as well, but not those in its subfolders.
    """

    def files() -> dict[Path, tuple[int, int]]:
        places = (*root.rglob("*"), *(p for p in Path.cwd().glob("*") if p.is_file()))
        kept = [p for p in places if not any(p.is_relative_to(folder) for folder in allowed)]
        sizes = {p: p.stat() for p in kept}
        # Not warnings: the context writes them.
        files = {p: s for p, s in sizes.items() if p.is_file() and p.name != WARNINGS}
        return {p: (s.st_size, s.st_mtime_ns) for p, s in files.items()}

    before = files()
    yield
    changed = sorted(path.name for path, _ in before.items() ^ files().items())
    law = "own-folder: files are written only below the folder that is passed, if any"
    require(not changed, component, law, changed)
