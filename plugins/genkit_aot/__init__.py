"""Approximated optimal transport: couplers that minimize cost (EDM-AOT, arXiv 2403.05069)."""

from __future__ import annotations

from genkit.plugin import hookimpl
from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the couplers, and a preconditioner and a noise distribution for assigned noise."""
    registry.add("coupler", "hungarian", "genkit_aot.hungarian:Hungarian")
    registry.add("coupler", "partitioned", "genkit_aot.partitioned:Partitioned")
    registry.add("coupler", "conditional", "genkit_aot.conditional:Conditional")
    registry.add("coupler", "sinkhorn", "genkit_aot.sinkhorn:Sinkhorn")
    registry.add("preconditioner", "coupled", "genkit_aot.preconditioner:CoupledPreconditioner")
    registry.add("noise-distribution", "coupled", "genkit_aot.noise_distribution:CoupledLogNormal")
