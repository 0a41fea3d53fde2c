"""Optimizers and averages of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register optimizers and averages of the weights."""
    registry.add("optimizer", "adam", "genkit_optim.adam:Adam")
    registry.add("optimizer", "adamw", "genkit_optim.adam:AdamW")
    registry.add("average", "ema", "genkit_optim.ema:Ema")
    registry.add("average", "power-ema", "genkit_optim.power_ema:PowerEma")
