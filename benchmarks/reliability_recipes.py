"""Mutate the shipped recipes and set every setting of every component to extreme values.

    OMP_NUM_THREADS=1 python benchmarks/reliability_recipes.py --mutations 10000 --seed 0

Each mutated recipe is read and checked as by `genkit validate`, in this process, with all libraries imported. It must be accepted, or refused
with one of genkit's own errors, within 2 s of CPU time. The same holds for each setting of each component of all
installed plugins, each component in a forked process. The exit code is 1 if there is any other outcome. A check that does
not end is counted as a failure; only if it blocks Python in the check of a recipe, the measurement ends with its traceback.

Files that recipes name are replaced by empty ones of the same form, so that a check goes beyond missing data.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import heapq
import importlib
import json
import os
import signal
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from digits_judge import made_with
from recipe_mutations import Mutator
from simplest_components import Simplest

from genkit.artifacts import ClassifierFile, DenoiserFile
from genkit.errors import GenkitError
from genkit.plugin.manager import Plugins, load_plugins
from genkit.random import seeded
from genkit.recipe.decode import component
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source, shipped_recipes
from genkit.testing.extremes import EXTREMES, MOST_SECONDS, check_settings
from genkit.types import DataSpec
from genkit_data.cifar10_batches import BINARY
from genkit_data.fashion_mnist import FILES as FASHION_FILES

HANG_SECONDS = 30
"""Wall-clock seconds after which the check of a recipe is ended and counted as a failure."""

COMPONENT_SECONDS = 300
"""Wall-clock seconds after which the checks of a component are ended and counted as a failure."""


class Hang(BaseException):
    """A check does not end."""


@dataclass
class Outcome:
    """Outcomes of many checks.

    Attributes:
        checks: number of checks.
        accepted: number of accepted inputs.
        codes: number of refused inputs by the code of the first mistake.
        slowest: CPU seconds and description of the slowest checks.
        failures: description of each check that raised another error, or took too long.
    """

    checks: int = 0
    accepted: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def check(self, what: str, keep: Path | None = None) -> Iterator[None]:
        """Count the outcome of the block.

        Args:
            what: description of the input.
            keep: file of the input, whose content is printed with a failure.
        """
        self.checks += 1
        begin, failure = _cpu_seconds(), ""
        if keep is not None:  # written in C: it works if a check blocks Python and its signals
            faulthandler.dump_traceback_later(2 * HANG_SECONDS, exit=True)
        signal.alarm(HANG_SECONDS if keep else 0)
        try:
            yield
            self.accepted += 1
        except GenkitError as error:
            self.codes[error.mistakes[0].problem.code.value] += 1
        except (Exception, Hang) as error:  # noqa: BLE001, what is looked for
            failure = f"{type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
        seconds = _cpu_seconds() - begin
        heapq.heappush(self.slowest, (round(seconds, 3), what))
        self.slowest = heapq.nlargest(10, self.slowest)
        if not failure and seconds > MOST_SECONDS and keep is not None:
            failure = f"{seconds:.1f} s"
        if failure:
            self.failures.append(f"{what}: {failure:.500}")
            content = keep.read_bytes().decode(errors="replace") if keep else ""
            print(f"FAILED {what}: {failure:.2000}\n{content:.20000}", file=sys.stderr, flush=True)

    def as_json(self) -> dict[str, Any]:
        """Return the outcome for JSON."""
        return {**asdict(self), "codes": dict(self.codes.most_common())}


def mutated_recipes(count: int, seed: int, plugins: Plugins) -> Outcome:
    """Check mutated recipes in the working directory, which must contain their files."""
    outcome, path = Outcome(), Path("mutated.toml")
    sources = [read_source(name) for name in shipped_recipes()]
    mutator = Mutator(sources, plugins.registry, seed)
    for number in range(count):
        what, text = mutator.mutate()
        path.write_bytes(text)
        with outcome.check(f"{number}, {what}", path):
            load_recipe(read_source(path), plugins)
        if number % 1000 == 999:
            print(f"{number + 1} recipes, {len(outcome.failures)} failures", file=sys.stderr)
    return outcome


def extreme_settings(plugins: Plugins) -> Outcome:
    """Check all settings of all components; a check is that of one component."""
    outcome, simplest = Outcome(), Simplest(plugins)
    for entry in plugins.registry.entries():
        with outcome.check(f"{entry.kind} {entry.name}"):
            part = simplest.component(entry)
            end_within(COMPONENT_SECONDS, partial(check_settings, part, simplest.stages))
    return outcome


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its forks that ended."""
    return sum(os.times()[:4])


def end_within(seconds: float, check: Callable[[], None]) -> None:
    """Run a check in a forked process, which is ended if it exceeds a time limit.

    Raises:
        Hang: the check does not end in time; the message contains the traceback.
        RuntimeError: the check raises an error, or ends its process.
    """
    with tempfile.TemporaryFile("w+") as answer:
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(seconds, exit=True, file=answer)
            try:
                check()
            except BaseException as error:  # noqa: BLE001, reported by the process that forked
                answer.write(f"{type(error).__name__}: {error}")
                answer.flush()
                os._exit(1)
            os._exit(0)
        _, status = os.wait()
        answer.seek(0)
        text = answer.read()
    if text.startswith("Timeout"):
        raise Hang(f"no end after {seconds:g} s: {text}")
    if status:
        raise RuntimeError(text or f"ended with {os.waitstatus_to_exitcode(status)}")


@contextmanager
def files_of_recipes(plugins: Plugins) -> Iterator[None]:
    """Work in a temporary directory with files of the names and sizes in the shipped recipes."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            _write_files(plugins)
            yield
        finally:
            os.chdir(before)


def _write_files(plugins: Plugins) -> None:
    batches = Path("data/cifar10") / BINARY.folder
    batches.mkdir(parents=True)
    for name in (*BINARY.batches["train"], *BINARY.batches["test"]):
        with (batches / name).open("wb") as file:
            file.truncate(BINARY.images * 3073)
    fashion = Path("data/fashion-mnist")
    fashion.mkdir()
    for name in (name for pair in FASHION_FILES.values() for name in pair):
        shape = (20, 28, 28) if "images" in name else (20,)
        header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
        (fashion / name).write_bytes(gzip.compress(header + bytes(20 * 784)))
    networks = {
        "fashion-classifier": ("classifier", {"use": "cnn-classifier"}, DataSpec((1, 28, 28), 10)),
        "classifier": (
            "classifier",
            {"use": "noisy-classifier", "channels": 64, "multipliers": [1], "blocks": 1},
            DataSpec((3, 32, 32), 4),
        ),
    }
    for name in ("edm", "edm-aot"):
        networks[name] = ("denoiser", {"use": "mlp", "width": 8}, DataSpec((3, 32, 32)))
    for name, (kind, table, spec) in networks.items():
        with seeded(0):
            weights = component(plugins.registry, kind, table).build(spec).state_dict()
        file = DenoiserFile if kind == "denoiser" else ClassifierFile
        file(table, spec, weights).save(Path(f"{name}.safetensors"))


def raise_hang(*_: object) -> None:
    """Raise Hang in a check that does not end."""
    raise Hang(f"no end after {HANG_SECONDS} s")


def main() -> None:
    """Parse the command line, run all checks, and print and write the outcomes as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000, help="number of mutated recipes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    options = parser.parse_args()
    out = options.out and options.out.absolute()
    os.environ["HF_HUB_OFFLINE"] = "1"  # a data set of a mutated name would be searched on the net
    # Some functions of PyTorch import its compiler when they are first called, for seconds.
    importlib.import_module("torch._dynamo")
    signal.signal(signal.SIGALRM, raise_hang)
    plugins, made = load_plugins(), made_with()
    with files_of_recipes(plugins):
        settings = extreme_settings(plugins)
        recipes = mutated_recipes(options.mutations, options.seed, plugins)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "made_with": made,
        "seed": options.seed,
        "components": [str(status.owner) for status in plugins.loaded],
        "values_per_setting": len(EXTREMES),
        "settings": settings.as_json(),
        "recipes": recipes.as_json(),
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")
    if settings.failures or recipes.failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
