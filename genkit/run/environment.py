"""What a run depends on besides its recipe, written down with it."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from genkit.plugin.manager import Plugins

PACKAGES = ("genkit-diffusion", "torch", "numpy", "scipy", "POT", "safetensors", "torchmetrics")


def environment(device: torch.device, plugins: Plugins) -> dict[str, Any]:
    """Return versions, hardware and the command."""
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
    """Return where one process of a run computes."""
    return {"host": platform.node(), "device": str(device), "hardware": _named(device)}


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def _processor() -> str:
    """Return the processor's model where Linux tells it, else its architecture."""
    found = Path("/proc/cpuinfo")
    text = found.read_text(encoding="utf-8", errors="replace") if found.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
