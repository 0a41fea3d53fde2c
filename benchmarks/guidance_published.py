"""Count the arithmetic of the published guidance on CIFAR-10, with untrained networks of full size.

python benchmarks/guidance_published.py
"""

from __future__ import annotations

import torch

from genkit import component
from genkit.interfaces import Trained
from genkit.networks import NetworkInputs
from genkit.parts.flops import call_flops, counting_flops
from genkit.random import seeded
from genkit.types import DataSpec
from genkit_dg.log_ratio import compute_log_ratio

CPU = torch.device("cpu")
LOWEST, HIGHEST = 0.0447, 152.2
"""Range of noise levels in which the published method guides the first slope of a step."""

SAMPLERS = {"EDM + DG": (18, 7.0), "EDM-AOT + AOT-DG": (15, 90.0)}
"""Dict from each sampler to its number of Heun steps and rho."""


def calls() -> tuple[float, float]:
    """Return the GFLOP of a denoiser call, and of a discriminator call with its gradient."""
    shape = (3, 32, 32)
    x, sigma = torch.zeros(1, *shape), torch.ones(1)
    with seeded(0):
        denoiser = component("denoiser", "ddpmpp").build(DataSpec(shape))
        settings = component("classifier", "noisy-classifier")
        spec = DataSpec(shape, classes=1000)
        classifier = Trained(settings, spec, settings.build(spec))
        inputs = NetworkInputs(CPU, given={"classifier": classifier})
        discriminator = component("discriminator", "adm-classifier", classifier="classifier")
        module = discriminator.bind(inputs).build(DataSpec(shape, realness=True))
    module.eval().requires_grad_(False)
    with counting_flops() as count:
        compute_log_ratio(module, x, sigma, None)
    return call_flops(denoiser.eval(), x, sigma, None) / 1e9, count.total / 1e9


def table() -> str:
    """Return the cost of the published samplers, in Markdown."""
    denoiser, discriminator = calls()
    share = discriminator / denoiser
    lines = [
        f"A call of the denoiser `ddpmpp` takes {denoiser:.1f} GFLOP. A call of the discriminator with "
        f"its gradient takes {discriminator:.1f} GFLOP, {share:.2f} times as much.",
        "",
        "| sampler | NFE | calls of the discriminator | NFE-equivalents | GFLOP | share of guidance |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, (steps, rho) in SAMPLERS.items():
        levels = component("schedule", "edm", steps=steps, rho=rho).sigmas()[:-1]
        guided = int(((levels >= LOWEST) & (levels <= HIGHEST)).sum())
        nfe = 2 * steps - 1
        whole = nfe + guided * share
        lines.append(
            f"| {name} | {nfe} | {guided} | {whole:.1f} | {whole * denoiser:.0f} | "
            f"{1 - nfe / whole:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
