"""The random numbers of EDM's sampling script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Latents
from genkit.types import Draws


@dataclass(frozen=True, kw_only=True)
class EdmLatents(Latents):
    """Draws a sample's random numbers from one generator, seeded as in EDM's generate.py.

    The order is: the latent in float32; a uniform class, if the denoiser has classes; the noise of
    each solver step in the precision of the states. A class is drawn even if the user chooses the
    class, because the draw advances the generator. The generator is on the sampling device, so
    CPU and GPU give different samples. The seed of the run has no effect. Seeds that differ by 2^32
    give the same sample.
    """

    depends_on_device = True
    source = "EDM, arXiv 2206.00364, generate.py of its reference implementation"

    def require(self, shape: tuple[int, ...], seeds: Sequence[int]) -> None:
        super().require(shape, seeds)
        if len(shape) != 3:
            raise DataError(
                f'latents "edm" must be used with images, got items of shape {list(shape)}; '
                'write latents = { use = "derived" }',
                Code.WRONG_SHAPE,
            )

    def draw(
        self,
        shape: tuple[int, ...],
        seeds: Sequence[int],
        classes: int,
        device: torch.device,
        run_seed: int,
    ) -> Draws:
        # The reference takes seeds modulo 2^32.
        generators = [torch.Generator(device).manual_seed(seed % 2**32) for seed in seeds]

        def randn(size: Sequence[int], dtype: torch.dtype) -> Tensor:
            return torch.stack(
                [torch.randn(size, generator=g, dtype=dtype, device=device) for g in generators]
            )

        latents = randn(shape, torch.float32)
        labels = (
            torch.stack(
                [torch.randint(classes, (), generator=g, device=device) for g in generators]
            )
            if classes
            else None
        )
        return Draws(latents, labels, lambda x: randn(x.shape[1:], x.dtype))
