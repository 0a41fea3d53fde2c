"""Contract test that a coupler gives the same pairs in other threads and in another process."""

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
"""Sizes of the pools that the new process couples. No two costs in a pool are equal."""


def check_threads(subject: Subject) -> None:
    """Require the same pairs from several threads that couple the same pool concurrently."""
    batch = pool(16)
    coupler = subject.ready(batch)
    noise = noise_for(subject.settings, batch)
    here = pair(coupler, batch, noise)
    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(pair, coupler, batch, noise) for _ in range(THREADS)]
        alike = sum(same(here, future.result()) for future in futures)
    law = "threads: concurrent calls in several threads return the same pairs"
    seen = f"different pairs in {THREADS - alike} of {THREADS} threads"
    subject.require(alike == THREADS, law, seen)


def check_processes(couplers: Sequence[AnyCoupler]) -> None:
    """Require the same pairs from a new process.

    One process is started for all couplers, since importing torch takes seconds. Class and settings
    of each coupler are sent as JSON. The process imports the class by its name, or from its file if
    the name is not importable, and constructs the coupler again.

    Raises:
        LawBroken: the pairs differ, or the process fails.
        TypeError: a coupler cannot be sent; see :func:`is_serializable`.
    """
    process = subprocess.run(
        [sys.executable, "-c", f"import {__name__} as here; here.serve()"],
        input=json.dumps([_encode(coupler) for coupler in couplers]),
        capture_output=True,
        text=True,
        # A different hash seed changes the order of sets, on which no result may depend.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"},
    )
    law = "processes: a new process returns the same pairs"
    if process.returncode:
        seen = process.stderr.strip().splitlines()[-1:] or f"exit {process.returncode}"
        raise LawBroken(list(couplers), law, seen)
    for coupler, there in zip(couplers, json.loads(process.stdout), strict=True):
        require(_pair_pools(coupler) == there, coupler, law, "different pairs")


def is_serializable(coupler: AnyCoupler) -> bool:
    """Return whether another process can construct a coupler from its class and settings.

    The class must be an attribute of a module. Classes of the main script, of an interactive
    session and inside functions are not. Settings must be values that a recipe can contain, or
    other components.
    """
    try:
        json.dumps(_encode(coupler))
    except TypeError:
        return False
    return True


def serve() -> None:
    """Couple pools in the new process: read couplers from stdin and write pairs to stdout."""
    json.dump([_pair_pools(_decode(value)) for value in json.load(sys.stdin)], sys.stdout)


def _pair_pools(coupler: AnyCoupler) -> list[list[list[int]]]:
    results: list[Pairs] = []
    for size in SIZES:
        batch = pool(size)
        ready = Subject(coupler, None).ready(batch)
        results.append(pair(ready, batch, noise_for(coupler, batch)))
    return [[pairs.data.tolist(), pairs.noise.tolist()] for pairs in results]


def _encode(value: Any) -> Any:
    if isinstance(value, Component):
        cls = type(value)
        module = sys.modules.get(cls.__module__)
        if cls.__module__ == "__main__" or getattr(module, cls.__qualname__, None) is not cls:
            raise TypeError(f"another process cannot import {cls.__module__}.{cls.__qualname__}")
        settings = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        place = [cls.__module__, getattr(module, "__file__", None), cls.__qualname__]
        return {"place": place, "settings": settings}
    if isinstance(value, Mapping):
        return {"table": {key: _encode(item) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "table" in value:
        return {key: _decode(item) for key, item in value["table"].items()}
    name, file, cls = value["place"]
    settings = {key: _decode(item) for key, item in value["settings"].items()}
    return getattr(_module(name, file), cls)(**settings)


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
