"""genkit: diffusion models with optimal-transport couplings.

Names are imported on first use, so that ``import genkit`` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genkit.api import (
        Denoiser,
        PairedLoader,
        Recipe,
        Result,
        component,
        load_denoiser,
        run_recipe,
    )
    from genkit.types import Batch, Pairs

_PUBLIC = {
    "Batch": "genkit.types",
    "Denoiser": "genkit.api",
    "Pairs": "genkit.types",
    "PairedLoader": "genkit.api",
    "Recipe": "genkit.api",
    "Result": "genkit.api",
    "component": "genkit.api",
    "load_denoiser": "genkit.api",
    "run_recipe": "genkit.api",
}

__all__ = [
    "Batch",
    "Denoiser",
    "PairedLoader",
    "Pairs",
    "Recipe",
    "Result",
    "component",
    "load_denoiser",
    "run_recipe",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'genkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
