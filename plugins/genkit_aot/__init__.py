"""Approximated optimal transport: images meet the noise that is near them (arXiv 2403.05069)."""

from __future__ import annotations

from genkit.plugin import hookimpl
from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add the exact assignment and its class-aware wrapper."""
    registry.add("coupler", "hungarian", "genkit_aot.hungarian:Hungarian")
    registry.add("coupler", "partitioned", "genkit_aot.partitioned:Partitioned")
