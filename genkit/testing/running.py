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
    """Raised inside a stage to end it as a kill would; the stage must not catch it."""


@dataclass
class _Ending(Progress):
    """Progress that stops or kills a stage at a chosen call, and counts the calls.

    Attributes:
        stop_at: number of the first call of ``stop_requested`` that returns True; 0 for never.
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
        """Call the function; rank 0 would compute the same result from the same folder."""
        return function()


def check_stage(stage: Stage, earlier: Stages | None = None) -> None:
    """Check every law of a stage.

    The stage saves the artifact that it declares; loading and saving it again gives the same bytes.
    It writes only to its own folder. Results have the same bytes in another folder, after a
    requested stop, and after a kill. Ranks other than 0 write no result. `design` and `drawn_by`
    describe the artifact.

    Args:
        stage: stage to check. It is run several times, so one run should take about a second.
        earlier: stages to which the stage refers, by id; they are run once.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    with workplace(earlier) as place:
        with writes_below(stage, place.root):
            problems = list(stage.check(place.stages))
        law = "accepts-what-runs: check yields no problem for a stage that can run"
        require(not problems, stage, law, problems)
        whole = _Ending()
        _run(stage, place, "whole", whole)
        _check_artifact(stage, place)
        results = _results(place, "whole")

        def resumed(after: str, ending: _Ending) -> bool:
            """Run the stage, resume it if it was stopped or killed, and return whether it was."""
            ended = _run(stage, place, after, ending)
            if ended:
                _run(stage, place, after, _Ending())
            differing = results.items() ^ _results(place, after).items()
            names = sorted(name for name, _ in differing)
            law = f"same-bytes: results after {after} are byte-identical to those of the first run"
            require(not names, stage, law, names)
            return ended

        resumed("a second run", _Ending())
        for query in _some(whole.queries):
            after = f"a stop at {query} of {whole.queries} queries"
            ended = resumed(after, _Ending(stop_at=query))
            law = "stops: a stage raises InterruptedRun after stop_requested returned True"
            # After its last step a stage may finish instead.
            require(ended or query == whole.queries, stage, law, f"no error after {after}")
        for report in _some(whole.reports):
            resumed(f"a kill at {report} of {whole.reports} reports", _Ending(kill_at=report))
        if stage.shared:
            _run(stage, place, "other", _Ending(), _Follower())
            written = sorted(results.keys() & _results(place, "other").keys())
            law = "rank-0-writes: ranks other than 0 write no result"
            require(not written, stage, law, written)


def _run(
    stage: Stage, place: Workplace, name: str, ending: _Ending, world: World = SINGLE_PROCESS
) -> bool:
    """Run a stage in the folder ``name``; return whether it was stopped or killed."""
    context = place.context(stage, name, progress=ending, stop=ending.stop, world=world)
    try:
        with writes_below(stage, place.root, context.folder), require_pure(stage):
            stage.run(context)
    except (InterruptedRun, Killed):
        return True
    law = "saves-artifact: a stage saves its declared artifact with context.record"
    needed = stage.output is not None and world.is_main
    require(context.record.saved is not None or not needed, stage, law, "no artifact")
    return False


def _some(count: int) -> set[int]:
    """Return the first, a middle and the last of the numbers from 1 to ``count``."""
    return {1, (count + 1) // 2, count} if count else set()


def _results(place: Workplace, name: str) -> dict[str, bytes]:
    """Return the results in a folder, without pictures, which may contain times."""
    files = [place.root / name / file for file in results_in(place.root / name)]
    return {file.name: file.read_bytes() for file in files if file.suffix != ".png"}


def _check_artifact(stage: Stage, place: Workplace) -> None:
    """Check the artifact in the folder ``whole``, and the stage's descriptions of the artifact."""
    if stage.output is None:
        return
    path = place.root / "whole" / stage.output.filename()
    artifact = stage.output.load(path)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        artifact.save(copy)
        law = "artifact-bytes: an artifact that is loaded and saved again has the same bytes"
        require(copy.read_bytes() == path.read_bytes(), stage, law, "different bytes")
    if isinstance(artifact, NetworkFile):
        trained = design_of(artifact, load_plugins().registry)
        design = stage.design(place.stages)
        declared = design and (design.settings, design.spec)
        law = "design: design returns the settings and the data of the saved network"
        require(declared == (trained.settings, trained.spec), stage, law, declared)
    if isinstance(artifact, Samples):
        named = stage.drawn_by(place.stages)
        law = "drawn-by: drawn_by returns the denoiser that is recorded in the samples"
        require(artifact.denoiser == named, stage, law, (named, artifact.denoiser))
    if isinstance(artifact, Samples) and isinstance(stage, SamplingStage):
        drawn = stage.draw(place.context(stage, "drawn")).batch.data
        law = "draws-what-it-writes: draw returns the samples that run writes"
        require(torch.equal(drawn, artifact.batch.data), stage, law, "different samples")


def check_tracker(tracker: Tracker) -> None:
    """Check every law of a tracker.

    The tracker creates its folder, accepts rows, scores and pictures, and closes, all in one
    thread. Opened again for a resumed run, it keeps the rows in its files. It modifies neither its
    arguments nor torch's global generator, and writes only below its folder.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
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
            law = "keeps-rows: files do not become shorter or disappear when a run is resumed"
            require(not lost, tracker, law, lost)
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
        law = f"tracker-takes: rows, scores and pictures of {what} are accepted"
        raise LawBroken(tracker, law, f"{type(error).__name__}: {error}") from error
    changed = repr((rows, scores)) != passed
    law = "leaves-inputs: inputs are not modified"
    require(not changed, tracker, law, (rows, scores))
