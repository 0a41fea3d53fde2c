"""Discriminator guidance (Kim et al., arXiv 2211.17091)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add the components of discriminator guidance."""
    registry.add("guidance", "discriminator", "genkit_dg.guidance:DiscriminatorGuidance")
    registry.add("discriminator", "dg-discriminator", "genkit_dg.discriminator:ConvDiscriminator")
    registry.add(
        "discriminator", "mlp-discriminator", "genkit_dg.mlp_discriminator:MlpDiscriminator"
    )
    registry.add("objective", "discrimination", "genkit_dg.discrimination:Discrimination")
    registry.add("sigma-distribution", "dg-importance", "genkit_dg.sigma_distribution:DgImportance")
