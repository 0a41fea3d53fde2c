"""``genkit doctor``: print the result of each check, and a remedy for each problem."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from genkit.errors import UsageError
from genkit.terminal import console, say

_RUNS = Path("runs")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check packages, plugins, devices, folders and memory, and print remedies for problems.

    The exit code is 2 if there is a problem, and 0 if there are only warnings and notes.
    """
    from genkit_doctor.checks import Status, all_findings

    findings = list(all_findings(_RUNS))
    problems = [finding for finding in findings if finding.status is Status.PROBLEM]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        to = console()
        for finding in findings:
            say(to, f"{finding.status:<8} {finding.topic}: {finding.text}")
            if finding.remedy:
                say(to, f"{'':<8} {finding.remedy}")
        warnings = sum(finding.status is Status.WARNING for finding in findings)
        say(to, f"\n{_counted(len(problems), 'problem')}, {_counted(warnings, 'warning')}")
    if problems:
        raise typer.Exit(UsageError.exit_code)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
