"""Damage each kind of file: the damage must be detected, or have no effect on any result."""

from __future__ import annotations

import functools
import hashlib
import random
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runs import Outcome, Place, Tally, contents

from damage import damaged
from disk import Disk

RUN = "damaged"
NOTES = (
    "damaged",
    "differs from what was written",
    "bytes, and was written with",
    "is missing",
    "not drawn",
)
"""Parts of the notes of a run that repeats a stage, or ignores a file, because of damage."""


@dataclass(frozen=True)
class Kind:
    """Files of one kind, and the commands that read them.

    Attributes:
        flips: number of flips.
        cuts: number of truncations.
        files: files to damage.
        renew: function that restores the files and removes the results.
        use: function that calls the commands; returns the outcome of each.
        results: function that returns the results.
    """

    flips: int
    cuts: int
    files: tuple[Path, ...]
    renew: Callable[[], object]
    use: Callable[[], list[Outcome]]
    results: Callable[[], Mapping[str, str]]


def damage(name: str, kind: Kind, share: float) -> Tally:
    """Flip a bit of a file, or cut the file off, and use it.

    Args:
        name: name of the kind.
        kind: files to damage.
        share: share of the flips and cuts.
    """
    tally, choose = Tally(), random.Random(name)  # noqa: S311
    kind.renew()
    for outcome in kind.use():
        tally.require(outcome.code == 0, f"{name} without damage", outcome)
    wanted = kind.results()
    flips = ["flip"] * max(1, round(kind.flips * share))
    for turn, how in enumerate([*flips, *["cut"] * max(1, round(kind.cuts * share))]):
        kind.renew()
        path = kind.files[turn % len(kind.files)]
        content = path.read_bytes()
        # Half of the flips are in the first bytes, where the header of a file of tensors is.
        reach = min(len(content), 2048) if turn % 2 else len(content)
        at, bit = choose.randrange(reach), choose.randrange(8)
        path.write_bytes(damaged(content, how, at, bit))
        outcomes = kind.use()
        refused = any(outcome.refused for outcome in outcomes)
        found = refused or any(outcome.code == 4 for outcome in outcomes)
        found |= any(note in outcome.err for outcome in outcomes for note in NOTES)
        same = kind.results() == wanted
        case = f"{how} of byte {at}, bit {bit} of {path}"
        for outcome in outcomes:
            tally.require(outcome.code in (0, 2, 4), case, outcome)
        tally.add(how, "detected" if found else "without effect" if same else "silent")
        if not (same or refused):
            tally.failures.append(f"{case}: another result with exit code 0")
    return tally


def kinds(place: Place) -> Mapping[str, Kind]:
    """Return each kind of file; the files themselves are written first."""
    stopped, out = Path("stopped"), Path("out")
    _stop(place, stopped)
    whole = _files(Path("whole"))
    network, real = Path("network.safetensors"), Path("real.safetensors")
    place.call("export", "whole", str(network))
    statistics = ("stats", '{ use = "image-folder", root = "images" }', str(real))
    place.call(*statistics, "--extractor", "pixels", "--device", "cpu")
    (cache,) = Path("images/.genkit").glob("*.safetensors")
    kept = {path: path.read_bytes() for path in (network, real, cache)}
    averages = sorted(Path("whole").glob("*/ema-*.safetensors"))

    def copy(run: Path) -> None:
        place.clean(RUN)
        shutil.copytree(run, RUN)

    def restore() -> None:
        place.clean(str(out), "out.safetensors", RUN)
        for path, content in kept.items():
            path.write_bytes(content)

    def compare() -> None:
        restore()
        copy(Path("whole"))

    def run() -> list[Outcome]:
        return [place.call("verify", RUN), place.run(RUN)]

    def sample() -> list[Outcome]:
        command = ("sample", str(network), "--out", str(out), "--seeds", "0-3", "--device", "cpu")
        return [place.call("verify", str(network)), place.call(*command)]

    def export() -> list[Outcome]:
        return [place.call("export", RUN, "out.safetensors", "--ema-length", "0.08")]

    def measure() -> list[Outcome]:
        command = (*statistics[:2], "out.safetensors", "--extractor", "pixels", "--device", "cpu")
        return [place.call(*command)]

    def score() -> list[Outcome]:
        command = place.command(RUN, f"scores.statistics={real}")
        return [place.call("verify", str(real)), place.call(*command)]

    ran, drawn = functools.partial(contents, RUN), functools.partial(_digests, out)
    written = functools.partial(_digests, Path("out.safetensors"))
    moved = functools.partial(_below, Path(RUN))
    return {
        "finished run": Kind(500, 130, moved(whole), lambda: copy(Path("whole")), run, ran),
        "stopped run": Kind(200, 70, moved(_files(stopped)), lambda: copy(stopped), run, ran),
        "snapshots": Kind(90, 30, moved(averages), lambda: copy(Path("whole")), export, written),
        "export": Kind(90, 30, (network,), restore, sample, drawn),
        "data cache": Kind(90, 30, (cache,), restore, measure, written),
        "statistics": Kind(30, 10, (real,), compare, score, ran),
    }


def _stop(place: Place, folder: Path) -> None:
    """Kill a run after several checkpoints."""
    operations = place.run(str(folder), Disk(folder)).operations
    saved = [k for k, (kind, path) in enumerate(operations) if (kind, path) == _CHECKPOINT]
    place.clean(str(folder))
    outcome = place.run(str(folder), Disk(folder, saved[-1]))
    if outcome.code != -signal.SIGKILL:
        raise RuntimeError(f"the run must be killed: {outcome}")


_CHECKPOINT = ("rename", "01-denoiser/checkpoint-2.safetensors")


def _files(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size)


def _below(folder: Path, files: list[Path]) -> tuple[Path, ...]:
    """Return the paths of files of a run in a copy of the run."""
    return tuple(folder.joinpath(*path.parts[1:]) for path in files)


def _digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, or of each file in a folder."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()
    }
