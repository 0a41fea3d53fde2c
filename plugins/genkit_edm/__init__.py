"""The parts of EDM: "Elucidating the Design Space of Diffusion-Based Generative Models"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add networks, preconditionings, noise levels, losses, sampling and an importer."""
    registry.add("denoiser", "ddpmpp", "genkit_edm.ddpmpp:Ddpmpp")
    registry.add("denoiser", "ncsnpp", "genkit_edm.ncsnpp:Ncsnpp")
    registry.add("denoiser", "adm", "genkit_edm.adm:Adm")
    registry.add("denoiser", "mlp", "genkit_edm.mlp:Mlp")
    registry.add("preconditioner", "edm", "genkit_edm.preconditioning:EdmPreconditioner")
    registry.add("sigma-distribution", "log-normal", "genkit_edm.sigma_distribution:LogNormal")
    registry.add("objective", "denoising", "genkit_edm.denoising:Denoising")
    registry.add("schedule", "edm", "genkit_edm.schedule:EdmSchedule")
    registry.add("solver", "heun", "genkit_edm.heun:Heun")
    registry.add("solver", "euler", "genkit_edm.euler:Euler")
    registry.add("preconditioner", "vp", "genkit_edm.preconditioning_vp:VpPreconditioner")
    registry.add("preconditioner", "ve", "genkit_edm.preconditioning_ve:VePreconditioner")
    registry.add("preconditioner", "iddpm", "genkit_edm.preconditioning_iddpm:IddpmPreconditioner")
    registry.add("preconditioner", "flow", "genkit_edm.preconditioning_flow:FlowPreconditioner")
    registry.add("denoiser", "edm2", "genkit_edm.edm2:Edm2")
    registry.add(
        "objective",
        "uncertainty-denoising",
        "genkit_edm.uncertainty_denoising:UncertaintyDenoising",
    )
    registry.add("sigma-distribution", "vp", "genkit_edm.sigma_distribution_vp:VpDistribution")
    registry.add("sigma-distribution", "ve", "genkit_edm.sigma_distribution_ve:VeDistribution")
    registry.add(
        "sigma-distribution", "iddpm", "genkit_edm.sigma_distribution_iddpm:IddpmDistribution"
    )
    registry.add(
        "sigma-distribution", "flow", "genkit_edm.sigma_distribution_flow:FlowDistribution"
    )
    registry.add("schedule", "vp", "genkit_edm.schedule_vp:VpSchedule")
    registry.add("schedule", "ve", "genkit_edm.schedule_log_linear:VeSchedule")
    registry.add("schedule", "iddpm", "genkit_edm.schedule_iddpm:IddpmSchedule")
    registry.add("schedule", "linear", "genkit_edm.schedule_linear:LinearSchedule")
    registry.add("schedule", "log-linear", "genkit_edm.schedule_log_linear:LogLinearSchedule")
    registry.add("schedule", "flow", "genkit_edm.schedule_flow:FlowSchedule")
    registry.add("solver", "dpmpp-2m", "genkit_edm.dpmpp_2m:Dpmpp2m")
    registry.add("solver", "dpmpp-2s", "genkit_edm.dpmpp_2s:Dpmpp2s")
    registry.add("solver", "adaptive", "genkit_edm.adaptive:Adaptive")
    registry.add("latents", "edm", "genkit_edm.latents:EdmLatents")
    registry.add("importer", "edm", "genkit_edm.importer:EdmImporter")
