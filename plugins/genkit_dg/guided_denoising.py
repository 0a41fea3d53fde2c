"""The objective that trains a discriminator by the denoising loss of the guided denoiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from genkit.artifacts import DenoiserRef
from genkit.errors import Code, DataError
from genkit.interfaces import Discriminator, Inputs, NoiseDistribution, Objective, Preconditioned
from genkit.settings import setting
from genkit.tensors import as_column
from genkit.types import Batch


@dataclass(frozen=True, kw_only=True)
class GuidedDenoising(Objective):
    """Computes the mean weighted squared error of the guided denoiser on real items.

    Guidance adds sigma^2 grad_x L to the denoised image, where L is the discriminator's output.
    Cross-entropy fits L, not its gradient. This objective fits the gradient, for guidance with
    weight 1, to the denoiser's error on real items. Guidance then corrects the score if noise is
    independent, and the velocity of the ODE if noise is assigned. No generated items are required.
    Stages that evaluate the discriminator require generated items in the data. These have loss 0,
    and real items twice their loss: real items are half of the data, so the mean is theirs.
    Each step computes second derivatives.
    """

    source = "arXiv 2503.16117, with the weight and the average over elements of EDM's loss"
    trains = Discriminator
    conditions = frozenset({"realness"})
    gradient_only = True
    renamed = MappingProxyType({"sigma_distribution": 'noise_distribution = { use = "..." }'})

    denoiser: DenoiserRef = setting(doc="stage that trained the guided denoiser")
    noise_distribution: NoiseDistribution = setting(
        doc="distribution of noise levels in training", use={"use": "dg-importance"}
    )

    def bind(self, inputs: Inputs) -> BoundGuidedDenoising:
        module = inputs.network(self.denoiser).module
        if not isinstance(module, Preconditioned):
            raise DataError(
                f"denoiser must have a preconditioner, got {type(module).__name__}; choose another",
                Code.CONFLICT,
            )
        return BoundGuidedDenoising(self, module)

    def noise_levels(self, quantile: Tensor) -> Tensor:
        return self.noise_distribution.quantile(quantile)

    def terms(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape)


@dataclass(frozen=True)
class BoundGuidedDenoising:
    """The objective, bound to the guided denoiser.

    Attributes:
        settings: settings of the objective.
        denoiser: frozen denoiser, in eval mode.
    """

    settings: GuidedDenoising
    denoiser: Preconditioned

    def loss(
        self, model: nn.Module, batch: Batch, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of each item, see :meth:`Objective.loss`."""
        sigma = self.settings.noise_distribution.levels(batch)
        x = batch.data + as_column(sigma, noise) * noise
        with torch.no_grad():
            denoised = self.denoiser(x, sigma, batch.labels)
        # Fused attention kernels do not implement second derivatives.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            point = x.detach().requires_grad_()
            output = model(point, sigma, batch.labels).sum()
            (gradient,) = torch.autograd.grad(output, point, create_graph=True)
        guided = denoised.float() + as_column(sigma.square(), x) * gradient.float()
        error = (guided - batch.data).square().flatten(1).mean(1)
        loss: Tensor = self.denoiser.preconditioner.weight(sigma) * error
        # A constant factor, since the number of real items in a batch would depend on micro-batches
        # and processes, and may be 0.
        return loss if batch.realness is None else 2 * batch.realness * loss
