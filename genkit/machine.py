"""Describe devices, hardware and memory, and recognize errors of the machine."""

from __future__ import annotations

import errno
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genkit.errors import Code, UsageError
from genkit.world import SINGLE_PROCESS, World

if TYPE_CHECKING:
    from genkit.plugin.manager import Plugins

PACKAGES = ("genkit-diffusion", "torch", "numpy", "scipy", "POT", "safetensors", "torchmetrics")

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_OF_FILES = (
    errno.EPERM,
    errno.EBUSY,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EMFILE,
    errno.ENFILE,
)
_STATUS = Path("/proc/self/status")


def is_of_the_disk(error: BaseException) -> bool:
    """Return whether an error means that a disk is full, damaged or not writable."""
    return isinstance(error, OSError) and error.errno in _OF_THE_DISK


def is_of_the_machine(error: BaseException) -> bool:
    """Return whether the user must correct something on the machine, if no plugin raised the error.

    Besides faults of the disk, these are a folder in place of a file, or the reverse; names that
    are too long; and too many open files. A faulty plugin raises these errors, too.
    """
    errors = (*_OF_THE_DISK, *_OF_FILES)
    return isinstance(error, OSError) and error.errno in errors


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of the machine or of its GPU is exhausted."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def resolve_device(name: str, world: World = SINGLE_PROCESS) -> torch.device:
    """Return the device with a name; ``auto`` is a CUDA GPU if there is one, else the CPU.

    Args:
        name: ``auto``, or a name of PyTorch such as ``cpu`` or ``cuda:1``.
        world: processes of the run; each uses its own GPU.

    Raises:
        UsageError: this machine has no such device, or too few for its processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    match = re.fullmatch(r"(cpu|cuda|mps)(?::([0-9]{1,3}))?", name)
    if match is None or int(match[2] or 0) >= counts[match[1]]:
        raise UsageError(f'this machine has no device "{name}"; choose auto or cpu', Code.NO_DEVICE)
    if world.size == 1 or name == "cpu":
        return torch.device(name)
    if name != "cuda":
        raise UsageError(
            f'{world.size} processes cannot share the device "{name}"; '
            "choose cuda, which uses a separate GPU for each process, or cpu",
            Code.NO_DEVICE,
        )
    if world.local_rank >= counts["cuda"]:
        raise UsageError(
            f"each process must have a GPU, got {counts['cuda']} GPUs for local rank "
            f"{world.local_rank}; start torchrun with --nproc-per-node={counts['cuda']} or less",
            Code.NO_DEVICE,
        )
    return torch.device("cuda", world.local_rank)


def environment(device: torch.device, plugins: Plugins) -> dict[str, Any]:
    """Return the command, versions and hardware of this process as values for JSON."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "hardware": _named(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        "plugins": [str(status.owner) for status in plugins.loaded],
    }


def hardware(device: torch.device) -> dict[str, str]:
    """Return host, device and hardware of this process."""
    return {"host": platform.node(), "device": str(device), "hardware": _named(device)}


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def _processor() -> str:
    """Return the processor's model on Linux, otherwise its architecture."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def resident(name: str) -> int | None:
    """Return the resident memory of this process in bytes; None on systems other than Linux.

    Args:
        name: ``VmRSS`` for the current value, ``VmHWM`` for the peak.
    """
    if not _STATUS.exists():
        return None
    found = re.search(rf"^{name}:\s*(\d+) kB$", _STATUS.read_text(errors="replace"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
