"""What a run depends on besides its recipe, written down with it."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from genkit.plugin.manager import Plugins

PACKAGES = ("genkit-diffusion", "torch", "numpy", "scipy", "POT", "safetensors", "torchmetrics")


def environment(device: torch.device, plugins: Plugins) -> dict[str, Any]:
    """Return versions, hardware and the command."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "hardware": hardware or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        "plugins": [str(status.owner) for status in plugins.loaded],
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
