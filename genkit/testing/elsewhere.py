"""The law that a coupler pairs alike in other threads and in another process."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from genkit.interfaces import AnyCoupler, Component
from genkit.testing.laws import LawBroken, require
from genkit.testing.pools import Subject, noise_for, pair, pool, same
from genkit.types import Pairs

THREADS = 4

SIZES = (2, 16, 64)
"""Of the pools that another process pairs. No two of their costs are alike."""


def check_threads(subject: Subject) -> None:
    """Require the same pairs from several threads that pair the same pool at a time."""
    batch = pool(16)
    coupler = subject.ready(batch)
    noise = noise_for(subject.settings, batch)
    here = pair(coupler, batch, noise)
    with ThreadPoolExecutor(THREADS) as threads:
        found = [threads.submit(pair, coupler, batch, noise) for _ in range(THREADS)]
        alike = sum(same(here, future.result()) for future in found)
    law = "threads: other threads, several at a time, get the same pairs"
    subject.require(alike == THREADS, law, f"other pairs in {THREADS - alike} of {THREADS}")


def check_processes(couplers: Sequence[AnyCoupler]) -> None:
    """Require the same pairs from a new process, one for all couplers: torch starts slowly.

    The process is told each coupler's class and settings in JSON, imports the class by its name,
    or from its file where it has no importable name, and builds the coupler anew.

    Raises:
        LawBroken: other pairs, or none.
        TypeError: a coupler cannot be told so; :func:`can_be_told` is false of it.
    """
    told = json.dumps([_told(coupler) for coupler in couplers])
    answered = subprocess.run(
        [sys.executable, "-c", f"import {__name__} as here; here.answer()"],
        input=told,
        capture_output=True,
        text=True,
        # Another order of sets and of dictionaries by hash, which no result may follow.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"},
    )
    law = "processes: another process gets the same pairs"
    if answered.returncode:
        seen = answered.stderr.strip().splitlines()[-1:] or f"exit {answered.returncode}"
        raise LawBroken(list(couplers), law, seen)
    for coupler, there in zip(couplers, json.loads(answered.stdout), strict=True):
        require(_found(coupler) == there, coupler, law, "others")


def can_be_told(coupler: AnyCoupler) -> bool:
    """Whether another process can build a coupler: its class is no local one, its settings plain.

    A class is reached through its module; one of the script that runs, of an interactive session
    or of a function is not. Settings are what a recipe can write, and other components.
    """
    try:
        json.dumps(_told(coupler))
    except TypeError:
        return False
    return True


def answer() -> None:
    """Pair in the new process: reads couplers from stdin, writes pairs to stdout, all in JSON."""
    json.dump([_found(_built(told)) for told in json.load(sys.stdin)], sys.stdout)


def _found(coupler: AnyCoupler) -> list[list[list[int]]]:
    found: list[Pairs] = []
    for size in SIZES:
        batch = pool(size)
        ready = Subject(coupler, None).ready(batch)
        found.append(pair(ready, batch, noise_for(coupler, batch)))
    return [[pairs.data.tolist(), pairs.noise.tolist()] for pairs in found]


def _told(value: Any) -> Any:
    if isinstance(value, Component):
        cls = type(value)
        module = sys.modules.get(cls.__module__)
        if cls.__module__ == "__main__" or getattr(module, cls.__qualname__, None) is not cls:
            raise TypeError(f"another process cannot reach {cls.__module__}.{cls.__qualname__}")
        settings = {f.name: _told(getattr(value, f.name)) for f in dataclasses.fields(value)}
        place = [cls.__module__, getattr(module, "__file__", None), cls.__qualname__]
        return {"place": place, "settings": settings}
    if isinstance(value, Mapping):
        return {"table": {key: _told(item) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_told(item) for item in value]
    return value


def _built(told: Any) -> Any:
    if isinstance(told, list):
        return tuple(_built(item) for item in told)
    if not isinstance(told, dict):
        return told
    if "table" in told:
        return {key: _built(item) for key, item in told["table"].items()}
    name, file, cls = told["place"]
    made = getattr(_module(name, file), cls)
    return made(**{key: _built(item) for key, item in told["settings"].items()})


def _module(name: str, file: str | None) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        spec = importlib.util.spec_from_file_location(name, file) if file else None
        if spec is None or spec.loader is None:
            raise
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
