"""Checks of ``genkit doctor``. A check does not depend on the success of other checks."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from genkit.files import cache_folder
from genkit.parts.memory import available_memory
from genkit.plugin.manager import DISABLE, OURS, disabled_names, load_plugins
from genkit.plugin.registry import in_words
from genkit_doctor.imports import failed_imports

GIB = 1 << 30
MIN_DISK = GIB
"""Free bytes of a folder below which a warning is reported. Chosen, not tuned; a run on the digits
writes 100 MB."""
MIN_MEMORY = 2 * GIB
"""Bytes of available memory below which a warning is reported. Chosen, not tuned; a run on the
digits uses 1 GB."""

PROBE_SECONDS = 30.0
"""Time limit in seconds to import a plugin, which is longer than that of other commands. Chosen."""
MAX_IMPORT = 1.0
"""Seconds to import a plugin above which a warning is reported. Chosen: without large libraries, an
import takes 0.1 s."""

_DEVELOPMENT = ("test", "docs", "lint")  # extras that users do not need
_DRIVER = Path("/proc/driver/nvidia/version")


class Status(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        topic: object of the check, such as ``device``.
        status: severity.
        text: description of the result.
        remedy: action that solves the problem; empty if none is required.
    """

    topic: str
    status: Status
    text: str
    remedy: str = ""


def all_findings(runs: Path) -> Iterator[Finding]:
    """Yield the findings of all checks.

    Args:
        runs: folder in which runs are written, which need not exist.
    """
    yield from versions()
    yield from packages()
    yield from devices()
    yield from plugins()
    yield from folders(runs)
    yield from memory()


def versions() -> Iterator[Finding]:
    """Yield the versions of genkit, Python and the system."""
    text = f"genkit {metadata.version(OURS)}, Python {platform.python_version()}"
    yield Finding("versions", Status.OK, f"{text}, {platform.platform()}")


def packages() -> Iterator[Finding]:
    """Yield the packages that are missing or have an unsupported version."""
    required, sound = [Requirement(text) for text in metadata.requires(OURS) or ()], 0
    for requirement in required:
        extra = _extra_of(requirement)
        if extra in _DEVELOPMENT:
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            status = Status.NOTE if extra else Status.PROBLEM
            text = "not installed" + (", which is optional" if extra else "")
            yield Finding(requirement.name, status, text, f"pip install '{wanted}'")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            sound += 1
            continue
        text = f"must have a version {requirement.specifier}, got {version}"
        yield Finding(requirement.name, Status.PROBLEM, text, f"pip install '{wanted}'")
    yield Finding("packages", Status.OK, f"{sound} packages with supported versions")


def _extra_of(requirement: Requirement) -> str:
    """Return the extra that a requirement belongs to; empty for one that is always required."""
    found = re.search(r"""extra == ["'](.+?)["']""", str(requirement.marker or ""))
    return found[1] if found else ""


def devices() -> Iterator[Finding]:
    """Yield the devices of PyTorch, and a GPU that PyTorch cannot use."""
    try:
        import torch
    except Exception as error:  # noqa: BLE001  (a damaged installation)
        remedy = "reinstall it: pip install --force-reinstall torch"
        yield Finding("torch", Status.PROBLEM, f"cannot be imported: {in_words(error)}", remedy)
        return
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    yield Finding("torch", Status.OK, f"{torch.__version__}, {threads}")
    for index in range(torch.cuda.device_count()):
        size = torch.cuda.get_device_properties(index).total_memory / GIB
        name = torch.cuda.get_device_name(index)
        yield Finding("device", Status.OK, f"cuda:{index}: {name}, {size:.0f} GiB")
    if torch.backends.mps.is_available():
        yield Finding("device", Status.OK, "mps")
    elif not torch.cuda.is_available():
        yield from _without_gpu(torch.version.cuda)


def _without_gpu(cuda: str | None) -> Iterator[Finding]:
    """Yield the reason why no GPU is used.

    Args:
        cuda: version of CUDA that PyTorch was built for; None for a build for the CPU.
    """
    if not (_DRIVER.exists() or shutil.which("nvidia-smi")):
        yield Finding("device", Status.NOTE, "cpu; no driver of an NVIDIA GPU was found")
    elif cuda is None:
        text = "cpu: there is an NVIDIA driver, but this PyTorch is built for the CPU"
        remedy = "install PyTorch for CUDA: https://pytorch.org/get-started/locally"
        yield Finding("device", Status.WARNING, text, remedy)
    else:
        text = f"cpu: PyTorch for CUDA {cuda} found no GPU that it can use"
        remedy = "update the NVIDIA driver, and check CUDA_VISIBLE_DEVICES"
        yield Finding("device", Status.WARNING, text, remedy)


def plugins() -> Iterator[Finding]:
    """Yield each plugin that is third-party, disabled or failed to load, and the number of all.

    Third-party plugins are probed again, to measure the time of their import, and the components of
    those that are loaded are imported in other processes.
    """
    found = load_plugins(PROBE_SECONDS)
    for status in found.failed:
        name = status.owner.distribution
        remedy = f"correct or update it, or remove it: pip uninstall {name}"
        yield Finding(str(status.owner), Status.PROBLEM, status.reason, remedy)
    for status in found.disabled:
        yield Finding(str(status.owner), Status.NOTE, status.reason, f"unset {DISABLE} to use it")
    for name in sorted(disabled_names() - {status.owner.plugin for status in found.disabled}):
        remedy = "genkit list-plugins prints the names"
        yield Finding(DISABLE, Status.WARNING, f"no plugin is called {name}", remedy)
    for status in found.loaded:
        if status.seconds is None:
            continue
        text, slow = f"imported in {status.seconds:.2f} s", status.seconds > MAX_IMPORT
        remedy = "ask its author to import large libraries on first use" if slow else ""
        severity = Status.WARNING if slow else Status.OK
        yield Finding(str(status.owner), severity, text, remedy)
        for reason in failed_imports(status.owner.plugin).values():
            remedy = f"install what it requires, or update {status.owner.distribution}"
            yield Finding(str(status.owner), Status.PROBLEM, reason, remedy)
    count = sum(len(status.entries) for status in found.loaded)
    yield Finding("plugins", Status.OK, f"{len(found.loaded)} loaded, with {count} components")


def folders(runs: Path) -> Iterator[Finding]:
    """Yield, for each folder to which genkit writes, whether it is writable and its free space."""
    places = {"runs": runs, "temporary files": Path(tempfile.gettempdir()), "cache": cache_folder()}
    for topic, place in places.items():
        if place is None:
            remedy = "set XDG_CACHE_HOME to a folder"
            yield Finding(topic, Status.WARNING, "there is no home folder", remedy)
            continue
        around = (place.absolute(), *place.absolute().parents)
        folder = next(path for path in around if path.is_dir())
        try:
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                file.write(bytes(1 << 16))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            text = f"{folder} is not writable: {error.strerror}"
            yield Finding(topic, Status.PROBLEM, text, _remedy(topic))
            continue
        free = shutil.disk_usage(folder).free
        status = Status.OK if free >= MIN_DISK else Status.WARNING
        text = f"{folder} is writable, with {free / GIB:.1f} GiB of free space"
        yield Finding(topic, status, text, "" if status is Status.OK else _remedy(topic))


def _remedy(topic: str) -> str:
    change = {
        "runs": "run genkit in another folder, or name one with --out",
        "temporary files": "set TMPDIR to another folder",
        "cache": "set XDG_CACHE_HOME to another folder",
    }
    return f"free space or change its permissions; or {change[topic]}"


def memory() -> Iterator[Finding]:
    """Yield the memory that is available, on Linux."""
    available = available_memory()
    if available is None:
        return
    text = f"{available / GIB:.1f} GiB available"
    if available >= MIN_MEMORY:
        yield Finding("memory", Status.OK, text)
    else:
        remedy = "end other programs, or write smaller batch_size and pool_size"
        yield Finding("memory", Status.WARNING, text, remedy)
