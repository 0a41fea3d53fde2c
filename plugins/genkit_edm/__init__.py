"""The components of EDM, "Elucidating the Design Space of Diffusion-Based Generative Models"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register networks, preconditioners, losses, noise distributions, samplers and guidance."""
    registry.add("denoiser", "ddpmpp", "genkit_edm.unet.denoisers:Ddpmpp")
    registry.add("denoiser", "ncsnpp", "genkit_edm.unet.denoisers:Ncsnpp")
    registry.add("denoiser", "adm", "genkit_edm.unet.denoisers:Adm")
    registry.add("denoiser", "edm2", "genkit_edm.edm2.denoiser:Edm2")
    registry.add("denoiser", "mlp", "genkit_edm.mlp:Mlp")
    registry.add("objective", "denoising", "genkit_edm.denoising:Denoising")
    registry.add(
        "objective", "uncertainty-denoising", "genkit_edm.edm2.uncertainty:UncertaintyDenoising"
    )
    registry.add("preconditioner", "edm", "genkit_edm.edm:EdmPreconditioner")
    registry.add("noise-distribution", "log-normal", "genkit_edm.edm:LogNormal")
    registry.add("schedule", "edm", "genkit_edm.edm:EdmSchedule")
    registry.add("schedule", "linear", "genkit_edm.edm:LinearSchedule")
    registry.add("schedule", "log-linear", "genkit_edm.edm:LogLinearSchedule")
    for name, family in (("vp", "Vp"), ("ve", "Ve"), ("iddpm", "Iddpm"), ("flow", "Flow")):
        module = f"genkit_edm.{name}"
        registry.add("preconditioner", name, f"{module}:{family}Preconditioner")
        registry.add("noise-distribution", name, f"{module}:{family}Distribution")
        registry.add("schedule", name, f"{module}:{family}Schedule")
    registry.add("solver", "euler", "genkit_edm.solvers.heun:Euler")
    registry.add("solver", "heun", "genkit_edm.solvers.heun:Heun")
    registry.add("solver", "dpmpp-2m", "genkit_edm.solvers.dpmpp:Dpmpp2m")
    registry.add("solver", "dpmpp-2s", "genkit_edm.solvers.dpmpp:Dpmpp2s")
    registry.add("solver", "adaptive", "genkit_edm.solvers.adaptive:Adaptive")
    guidance = "genkit_edm.guidance"
    registry.add("guidance", "classifier-free", f"{guidance}.classifier_free:ClassifierFree")
    registry.add("guidance", "autoguidance", f"{guidance}.autoguidance:Autoguidance")
    registry.add("latents", "edm", "genkit_edm.latents:EdmLatents")
    registry.add("importer", "edm", "genkit_edm.reference.importer:EdmImporter")
