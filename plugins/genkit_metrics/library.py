"""torchmetrics, imported where a metric uses it: it takes seconds."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from genkit.errors import Code, PluginError


def torchmetrics_image(name: str) -> Any:
    """Return a module of ``torchmetrics.image``.

    Raises:
        PluginError: it cannot be imported.
    """
    try:
        return import_module(f"torchmetrics.image.{name}")
    except ImportError as error:
        raise PluginError(
            f"torchmetrics cannot be imported: {error}; it fails with torch-fidelity without "
            "torchvision: install both, or neither",
            Code.MISSING_PACKAGE,
        ) from error
