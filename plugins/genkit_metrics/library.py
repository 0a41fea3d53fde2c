"""Import torchmetrics on first use, since the import takes seconds."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from genkit.errors import Code, PluginError


def torchmetrics_image(name: str) -> Any:
    """Import a module of ``torchmetrics.image``.

    Raises:
        PluginError: the module cannot be imported.
    """
    try:
        return import_module(f"torchmetrics.image.{name}")
    except ImportError as error:
        raise PluginError(
            f"torchmetrics cannot be imported: {error}; if torch-fidelity is installed, also "
            "install torchvision, which torchmetrics then requires",
            Code.MISSING_PACKAGE,
        ) from error
