"""Inject faults into runs, and count what is lost, silent, or ends in a traceback.

    export OMP_NUM_THREADS=1 PYTHONPATH=tests/support:benchmarks
    python benchmarks/reliability --out reliability.json
    python benchmarks/reliability --share 0.02 --only kills disk

It prints a table, and writes all counts to ``--out`` as JSON. The exit code is 1 if a case failed, or
if no run was lost by a writer that overwrites files in place. Linux only: commands run in forked
processes. Files are written to a temporary folder; with ``TMPDIR=/dev/shm``, they are synced faster.
"""

from __future__ import annotations

import argparse
import errno
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import damages
import full_disk
import kills
from digits_judge import made_with
from misbehaving_plugins import misbehave
from runs import Place, Tally

PARTS = ("kills", "damages", "disk", "races", "plugins")


def main() -> None:
    """Parse the command line, inject the faults, and print and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the cases, above 0; default 1"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    out = arguments.out.resolve() if arguments.out else None
    found: dict[str, object] = {
        "made_with": made_with(),
        "machine": platform.platform(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "share": arguments.share,
    }
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder) / "place")
        for name, measure in _parts(place, arguments.share, arguments.only).items():
            begin = time.monotonic()
            tally = measure()
            content = {"counts": dict(tally.counts), "failures": tally.failures}
            found[name] = content | {"seconds": round(time.monotonic() - begin)}
            unsafe = name == UNSAFE
            failed |= unsafe != bool(tally.failures)
            verdict = "as required" if unsafe == bool(tally.failures) else "FAILED"
            counts = ", ".join(f"{key}: {count:,}" for key, count in tally.counts.items())
            print(f"{name:<32} {verdict:<12} {counts}", flush=True)
            for failure in () if unsafe else tally.failures:
                print(f"    {failure}", flush=True)
            if out:
                out.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(int(failed))


UNSAFE = "kills, files written in place"
"""Part that must lose runs, which shows that a loss is detected."""


def _parts(place: Place, share: float, only: tuple[str, ...]) -> Mapping[str, Callable[[], Tally]]:
    """Return a function for each part of the measurement."""

    def some(count: int) -> int:
        return max(4, round(count * share))

    every = max(1, round(1 / share))
    parts: dict[str, Callable[[], Tally]] = {}
    if "kills" in only:
        parts["kills"] = lambda: kills.kill(place, some(200))
        parts[UNSAFE] = lambda: kills.kill(place, some(40), in_place=True)
    if "damages" in only:
        for name, kind in damages.kinds(place).items():
            parts[f"damage: {name}"] = lambda n=name, k=kind: damages.damage(n, k, share)
    if "disk" in only:
        parts["disk full"] = lambda: full_disk.fail(place, errno.ENOSPC, every)
        parts["no permission"] = lambda: full_disk.fail(place, errno.EACCES, every)
        parts["one input/output error"] = lambda: full_disk.fail(
            place, errno.EIO, 2 * every, lasting=False
        )
        parts["read-only run"] = lambda: full_disk.read_only(place)
    if "races" in only:
        parts["signals"] = lambda: kills.signals(place, some(40))
        parts["races"] = lambda: kills.races(place, some(20))
    if "plugins" in only:
        parts["plugins"] = lambda: misbehave(place.folder / "plugins")
    return parts


if __name__ == "__main__":
    main()
