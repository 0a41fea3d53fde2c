"""Couplers that use POT, Python Optimal Transport (https://pythonot.github.io)."""

from __future__ import annotations

from genkit.plugin import hookimpl
from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the exact and the entropic coupler."""
    registry.add("coupler", "pot-exact", "genkit_pot.exact:Exact")
    registry.add("coupler", "pot-sinkhorn", "genkit_pot.sinkhorn:Sinkhorn")
