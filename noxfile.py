"""The test matrix. `nox` runs all of it; `nox -s tests-3.11` a part.

Every install goes through a constraints file, so that all sessions see the same versions.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.error_on_missing_interpreters = False
nox.options.stop_on_first_error = False

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
LOWEST = ROOT / "constraints-lowest.txt"
# The separate distributions, such as plugins/genkit-immiscible: installed only where wanted.
SEPARATE = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
# One thread a test: sums in another order are other bits.
ENV = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
# One process a core, at most four: each takes about 1 GB of memory, and tests start others.
PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "worksteal")
# Only for all tests of a package; a selection after `--` covers less.
COVERAGE = ("--cov", "--cov-report=term:skip-covered", "--cov-fail-under=90")
# Optional libraries without which tests are skipped.
WITH_EXTRAS = ".[test,huggingface,tensorboard,transformers,wandb]"
finished: list[str] = []
failed: list[str] = []


def install(session: nox.Session, *what: str, constraints: Path = CONSTRAINTS) -> None:
    session.install("-c", str(constraints), *what)


def run_tests(session: nox.Session, *arguments: str) -> None:
    """Run pytest, and keep the names of failed tests for the end of the run."""
    cache = ROOT / ".nox" / "pytest" / session.name
    try:
        session.run("pytest", "-o", f"cache_dir={cache}", *arguments, env=ENV)
    except nox.command.CommandFailed:
        found = cache / "v" / "cache" / "lastfailed"
        names = json.loads(found.read_text()) if found.exists() else ["pytest ended early"]
        failed.extend(f"{session.name}: {name}" for name in names)
        raise


def require_cpu_torch(session: nox.Session) -> None:
    """Skip where pip would fetch the CUDA build of torch, unless GENKIT_NOX_CUDA=1 allows it."""
    if os.environ.get("GENKIT_NOX_CUDA") == "1":
        return
    report = Path(session.create_tmp()) / "torch.json"
    pip = ("python", "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed")
    wanted = ("--no-deps", "--only-binary=:all:", "-c", str(CONSTRAINTS), "torch")
    session.run(*pip, *wanted, "--report", str(report), success_codes=[0, 1], silent=True)
    found = json.loads(report.read_text())["install"] if report.exists() else []
    version = found[0]["metadata"]["version"] if found else None
    if version is None:
        session.skip(f"no wheel of torch for Python {session.python}")
    if "+cpu" not in version and Path("/proc").exists():
        session.skip(
            f"torch {version} for Python {session.python} is the CUDA build of several GB; "
            "GENKIT_NOX_CUDA=1 installs it"
        )


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """All tests."""
    require_cpu_torch(session)
    install(session, WITH_EXTRAS)
    run_tests(session, *PARALLEL, *session.posargs)
    finished.append(session.name)


@nox.session(python="3.11", default=False)
def coverage(session: nox.Session) -> None:
    """All tests, which must run 90 % of the lines and branches; slower than `tests` by 70 %."""
    require_cpu_torch(session)
    install(session, WITH_EXTRAS)
    run_tests(session, *PARALLEL, *COVERAGE)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The quick tests on the lowest versions that pyproject.toml allows."""
    require_cpu_torch(session)
    install(session, ".[test,tensorboard,wandb]", constraints=LOWEST)
    run_tests(session, *PARALLEL, "-m", "not slow", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    install(session, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python="3.11")
def types(session: nox.Session) -> None:
    """Mypy, strict, on the core and the plugins."""
    require_cpu_torch(session)
    install(session, ".[lint]")
    session.run("mypy")
    # Outside of the repository, as for a user of the installed wheel: only then is py.typed read.
    session.chdir(session.create_tmp())
    session.run("mypy", "--config-file=", "--strict", str(ROOT / "tests/typed/script.py"))


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """Pages taken from the code are up to date; Sphinx, where a warning is an error."""
    require_cpu_torch(session)
    install(session, ".[docs]")
    session.run("python", "docs/generate.py", "--check")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session(python="3.11")
def build(session: nox.Session) -> None:
    """The wheel in a clean environment; beside it the separate distributions, and their tests."""
    require_cpu_torch(session)
    install(session, "build")
    place = Path(session.create_tmp()).resolve()
    session.run(
        "python", "-m", "build", "--outdir", str(place), env={"PIP_CONSTRAINT": str(CONSTRAINTS)}
    )
    wheel = max(place.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    install(session, "--force-reinstall", "--no-deps", str(wheel))
    install(session, str(wheel))
    session.chdir(place)
    session.run("genkit", "list-plugins")
    out = place / "smoke"
    session.run("genkit", "run", "smoke", "--out", str(out), env=ENV)
    if not list(out.glob("*/samples.png")):
        session.error("the smoke recipe wrote no picture")
    install(session, *(f"{folder}[test]" for folder in SEPARATE))
    listed = str(session.run("genkit", "list-plugins", "--json", silent=True))
    loaded = {
        plugin["distribution"]
        for plugin in json.loads(listed)["plugins"]
        if plugin["status"] == "loaded"
    }
    for folder in SEPARATE:
        if folder.name not in loaded:
            session.error(f"genkit list-plugins does not show {folder.name} as loaded")
        with session.chdir(folder):
            run_tests(session, *(session.posargs or COVERAGE))


@nox.session(python="3.11", default=False)
def torchcfm(session: nox.Session) -> None:
    """genkit's couplers beside those of torchcfm, on the same pools; takes minutes."""
    require_cpu_torch(session)
    install(session, ".")
    # Alone: its couplers import torch and POT, which genkit brings, and nothing else it asks for.
    install(session, "--no-deps", "torchcfm")
    session.run("python", "benchmarks/couplers_torchcfm.py", *session.posargs)


@nox.session(name="at-least-one")
def at_least_one(session: nox.Session) -> None:
    """List the failed tests; fail where every tests session was skipped, which tested nothing."""
    for name in failed:
        session.warn(f"failed: {name}")
    if not finished:
        session.error("no tests session ran to its end; see above why")
    session.log(f"ran: {', '.join(finished)}")
