"""Contract tests of stages and trackers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch

from genkit.artifacts import NetworkFile, Samples, Scores
from genkit.artifacts.layout import results_in
from genkit.errors import InterruptedRun
from genkit.interfaces import BoundTracker, SamplingStage, Stage, Stages, TrackedRun, Tracker
from genkit.networks import design_of
from genkit.plugin.manager import load_plugins
from genkit.run.progress import Progress
from genkit.testing.laws import LawBroken, require, require_pure
from genkit.testing.workplace import Workplace, workplace, writes_below
from genkit.world import SINGLE_PROCESS, World

T = TypeVar("T")

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63f8"
    "0f00010101001bb6ee560000000049454e44ae426082"
)
"""A picture of one white pixel."""


class Killed(BaseException):
    """Ends a stage like a kill: no code of the stage may handle it."""


@dataclass
class _Ending(Progress):
    """Stops or kills a stage at a chosen call, and counts the calls.

    Attributes:
        stop_at: number of the call of ``stop_requested`` from which on it is true; 0 for never.
        kill_at: number of the call of ``advance`` at which the stage is killed; 0 for never.
        queries: number of calls of ``stop_requested``.
        reports: number of calls of ``advance``.
    """

    stop_at: int = 0
    kill_at: int = 0
    queries: int = 0
    reports: int = 0

    def stop(self) -> bool:
        self.queries += 1
        return 0 < self.stop_at <= self.queries

    def advance(self, *position: Any) -> None:
        self.reports += 1
        if self.reports == self.kill_at:
            raise Killed


class _Follower(World):
    """A process other than rank 0, without communication."""

    @property
    def is_main(self) -> bool:
        return False

    def on_main(self, function: Callable[[], T]) -> T:
        """Return the result of rank 0, which sees the same folder."""
        return function()


def check_stage(stage: Stage, earlier: Stages | None = None) -> None:
    """Check every law of a stage, with settings for which it runs for about a second.

    It saves the artifact that it declares, which is loaded as it was saved; writes only to its own
    folder; gives the same bytes in another folder, after a requested stop, and after a kill; writes
    no result on another rank than 0; and `design` and `drawn_by` describe its artifact.

    Args:
        stage: stage to check.
        earlier: stages to which it refers, by id; they are run once.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    with workplace(earlier) as place:
        with writes_below(stage, place.root):
            problems = list(stage.check(place.stages))
        require(not problems, stage, "accepts-what-runs: check accepts what runs", problems)
        whole = _Ending()
        _run(stage, place, "whole", whole)
        _check_artifact(stage, place)
        results = _results(place, "whole")

        def resumed(after: str, ending: _Ending) -> bool:
            """Run the stage, and resume it if it was ended; return whether it was."""
            ended = _run(stage, place, after, ending)
            if ended:
                _run(stage, place, after, _Ending())
            found = _results(place, after)
            others = sorted(name for name, _ in found.items() ^ results.items())
            require(not others, stage, f"same-bytes: results after {after}", others)
            return ended

        resumed("nothing", _Ending())
        for query in _some(whole.queries):
            after = f"a stop at {query} of {whole.queries} queries"
            ended = resumed(after, _Ending(stop_at=query))
            law = "stops: a stage that is to stop raises InterruptedRun"
            # After its last step a stage may finish instead.
            require(ended or query == whole.queries, stage, law, f"none after {after}")
        for report in _some(whole.reports):
            resumed(f"a kill at {report} of {whole.reports} reports", _Ending(kill_at=report))
        if stage.shared:
            _run(stage, place, "other", _Ending(), _Follower())
            written = sorted(results.keys() & _results(place, "other").keys())
            law = "rank-0-writes: a process other than rank 0 writes no result"
            require(not written, stage, law, written)


def _run(
    stage: Stage, place: Workplace, name: str, ending: _Ending, world: World = SINGLE_PROCESS
) -> bool:
    """Run a stage in the folder of a name; return whether it was ended."""
    context = place.context(stage, name, progress=ending, stop=ending.stop, world=world)
    try:
        with writes_below(stage, place.root, context.folder), require_pure(stage):
            stage.run(context)
    except (InterruptedRun, Killed):
        return True
    law = "saves-artifact: a stage saves its declared artifact with context.record"
    needed = stage.output is not None and world.is_main
    require(context.record.saved is not None or not needed, stage, law, "none")
    return False


def _some(count: int) -> set[int]:
    """Return the first, a middle and the last of the numbers from 1 to ``count``."""
    return {1, (count + 1) // 2, count} if count else set()


def _results(place: Workplace, name: str) -> dict[str, bytes]:
    """Return the results in a folder, without pictures, which may contain times."""
    files = [place.root / name / file for file in results_in(place.root / name)]
    return {file.name: file.read_bytes() for file in files if file.suffix != ".png"}


def _check_artifact(stage: Stage, place: Workplace) -> None:
    """Check the artifact in the folder ``whole``, and what the stage states of it beforehand."""
    if stage.output is None:
        return
    path = place.root / "whole" / stage.output.filename()
    artifact = stage.output.load(path)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        artifact.save(copy)
        law = "artifact-bytes: an artifact that was read is written as the same bytes"
        require(copy.read_bytes() == path.read_bytes(), stage, law, "others")
    if isinstance(artifact, NetworkFile):
        trained = design_of(artifact, load_plugins().registry)
        design = stage.design(place.stages)
        known = design and (design.settings, design.spec)
        law = "design: design returns settings and data of the network that is written"
        require(known == (trained.settings, trained.spec), stage, law, known)
    if isinstance(artifact, Samples):
        named = stage.drawn_by(place.stages)
        law = "drawn-by: drawn_by names the denoiser that the samples name"
        require(artifact.denoiser == named, stage, law, (named, artifact.denoiser))
    if isinstance(artifact, Samples) and isinstance(stage, SamplingStage):
        drawn = stage.draw(place.context(stage, "drawn")).batch.data
        law = "draws-what-it-writes: draw returns the samples that run writes"
        require(torch.equal(drawn, artifact.batch.data), stage, law, "others")


def check_tracker(tracker: Tracker) -> None:
    """Check every law of a tracker.

    It opens in a folder that is not there, takes rows, scores and pictures, and closes, all in one
    thread; is opened again for a resumed run, and keeps what it wrote; leaves what it is passed and
    torch's global generator alone; and writes below its folder.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    with TemporaryDirectory() as root:
        folder = Path(root) / "trackers" / "checked"
        run = TrackedRun("laws", folder, {"name": "laws", "stage": [{"id": "one", "use": "load"}]})
        before: dict[Path, int] = {}
        for opened in ("a new run", "a resumed run"):
            with (
                writes_below(tracker, Path(root), folder),
                require_pure(tracker),
                ThreadPoolExecutor(1) as thread,  # as in a run, where it is not the main thread
            ):
                thread.submit(_follow, tracker, run, opened).result()
            # A link may point to the newest run, as W&B's do.
            real = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
            files = {path: path.stat().st_size for path in real}
            lost = [path.name for path, size in before.items() if files.get(path, 0) < size]
            require(not lost, tracker, "keeps-rows: a resumed run keeps what was written", lost)
            before = files


def _follow(tracker: Tracker, run: TrackedRun, what: str) -> None:
    rows: list[dict[str, Any]] = [
        {"images": 64, "loss": 0.5, "note": "é, \n", "levels": [0.1, 1.0]},
        {"images": 128, "rate": 1e-3},
        {"images": 128, "rate": 1e-3},  # again, as after a kill
    ]
    scores = Scores([{"nfe": 5, "guidance_nfe": 0, "distance": 0.25}])
    passed = repr((rows, scores))
    try:
        bound = tracker.open(run)
        sound = isinstance(bound, BoundTracker)
        require(sound, tracker, "bound-tracker: open returns a BoundTracker", type(bound).__name__)
        bound.resume("one", rows[:2] if "resumed" in what else [])
        for row in rows:
            bound.row("one", row)
        bound.scores("two", scores)
        bound.picture("two", "samples", PNG)
        bound.close()
    except LawBroken:
        raise
    except Exception as error:
        law = f"tracker-takes: rows, scores and pictures of {what} are taken"
        raise LawBroken(tracker, law, f"{type(error).__name__}: {error}") from error
    changed = repr((rows, scores)) != passed
    require(not changed, tracker, "leaves-inputs: what is passed is left as it is", (rows, scores))
