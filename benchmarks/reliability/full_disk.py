"""Fail the disk at every operation of a run: one message, exit code 2, and the run continues."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path

from runs import Outcome, Place, Tally, contents

from disk import Disk

RUN = "full"

COMMANDS: Mapping[str, Sequence[str]] = {
    "show": (),
    "runs": (),
    "verify": (),
    "report": ("--out", "page.html"),
}
"""Commands that show a run, with the options that are required where it cannot be written."""


def fail(place: Place, error: int, every: int, *, lasting: bool = True) -> Tally:
    """Fail each ``every``-th operation of a run, and run it again without a fault.

    Args:
        place: folder in which the recipe runs.
        error: ``errno`` of the failure.
        every: distance of the operations that fail; 1 for all.
        lasting: whether all later operations fail, too.
    """
    tally = Tally()
    _renew(place)
    operations = place.run(RUN, Disk(place.folder, error=error)).operations
    for at in range(0, len(operations), every):
        _renew(place)
        outcome = place.run(RUN, Disk(place.folder, at, error, lasting))
        case = f"{errno.errorcode[error]} at operation {at}, {' '.join(operations[at])}"
        # What is not a result, such as a cache, may fail without an effect.
        expected = outcome.code == 0 or _names_a_file(outcome)
        tally.require(expected, case, outcome)
        tally.add("failpoints", "refused" if outcome.code else "finished without the file")
        again = place.run(RUN)
        if not tally.require(again.code == 0 and contents(RUN) == place.wanted, case, again):
            tally.add("lost")
    return tally


def _renew(place: Place) -> None:
    place.clean(RUN, "images/.genkit", "cache")


def _names_a_file(outcome: Outcome) -> bool:
    """Return whether a command ended with exit code 2 and one message with the path of a file."""
    error = outcome.err.partition("Error: ")[2]
    paths = [word.strip(":;,") for word in error.split() if RUN in word or "images" in word]
    return outcome.code == 2 and outcome.refused and bool(paths)


def read_only(place: Place) -> Tally:
    """Show a finished run in a folder that cannot be written."""
    tally = Tally()
    for command, options in COMMANDS.items():
        outcome = place.call(command, "whole", *options, disk=Disk(Path("whole"), 0, errno.EROFS))
        tally.require(outcome.code == 0, f"{command} of a read-only run", outcome)
        tally.add("commands")
    refused = [place.call("report", "whole", disk=Disk(Path("whole"), 0, errno.EROFS))]
    refused.append(place.run("whole", Disk(Path("whole"), 0, errno.EROFS)))
    for outcome in refused:
        names = "whole" in outcome.err and "--out" in outcome.err
        tally.require(outcome.refused and names, "write to a read-only run", outcome)
        tally.add("commands")
    return tally
