"""Settings of the NCSN++ denoiser."""

from __future__ import annotations

from dataclasses import dataclass

from genkit.settings import setting
from genkit_edm.ddpmpp import Ddpmpp, Embedding
from genkit_edm.progressive import Encoder


@dataclass(frozen=True, kw_only=True)
class Ncsnpp(Ddpmpp):
    """The NCSN++ U-Net: DDPM++ with Fourier features, smoother resampling and residual input."""

    embedding: Embedding = setting("fourier", doc="of the noise level")
    channel_mult_noise: int = setting(
        2, doc="width of the embedded noise level, in units of width", at_least=1
    )
    resample_filter: tuple[float, ...] = setting(
        (1, 3, 3, 1), doc="taps of the filter that halves and doubles sizes, an even number of them"
    )
    encoder: Encoder = setting("residual", doc="how the image itself reaches the smaller levels")
