"""Discriminator guidance (Kim et al., arXiv 2211.17091)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the components of discriminator guidance."""
    registry.add("guidance", "discriminator", "genkit_dg.guidance:DiscriminatorGuidance")
    registry.add("discriminator", "scratch", "genkit_dg.scratch:ScratchDiscriminator")
    registry.add(
        "discriminator", "mlp-discriminator", "genkit_dg.mlp_discriminator:MlpDiscriminator"
    )
    registry.add(
        "discriminator", "denoiser-encoder", "genkit_dg.encoder_discriminator:DenoiserEncoder"
    )
    registry.add(
        "discriminator",
        "adm-classifier",
        "genkit_dg.encoder_discriminator:AdmClassifierDiscriminator",
    )
    registry.add("classifier", "noisy-classifier", "genkit_dg.adm_classifier:AdmClassifier")
    registry.add("importer", "adm-classifier", "genkit_dg.adm_importer:AdmClassifierImporter")
    registry.add("objective", "discrimination", "genkit_dg.discrimination:Discrimination")
    registry.add("objective", "guided-denoising", "genkit_dg.guided_denoising:GuidedDenoising")
    registry.add("noise-distribution", "dg-importance", "genkit_dg.noise_distribution:DgImportance")
    registry.add("stage", "choose-discriminator", "genkit_dg.choose:ChooseDiscriminator")
    registry.add("stage", "fit-weight", "genkit_dg.fit_weight:FitWeight")
