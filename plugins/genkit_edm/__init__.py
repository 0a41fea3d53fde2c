"""The parts of EDM: "Elucidating the Design Space of Diffusion-Based Generative Models"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add preconditioning, noise levels, solvers, the denoising loss and two denoisers."""
    registry.add("denoiser", "ddpmpp", "genkit_edm.ddpmpp:Ddpmpp")
    registry.add("denoiser", "mlp", "genkit_edm.mlp:Mlp")
    registry.add("preconditioner", "edm", "genkit_edm.preconditioning:EdmPreconditioner")
    registry.add("sigma-distribution", "log-normal", "genkit_edm.sigma_distribution:LogNormal")
    registry.add("objective", "denoising", "genkit_edm.denoising:Denoising")
    registry.add("schedule", "edm", "genkit_edm.schedule:EdmSchedule")
    registry.add("solver", "heun", "genkit_edm.heun:Heun")
    registry.add("solver", "euler", "genkit_edm.euler:Euler")
