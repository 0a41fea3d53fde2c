"""Derive random generators from a seed and a purpose.

A generator is a function of ``(seed, stage, purpose, index)``. The state of generators is therefore
not saved, and the results of a resumed run are bit-identical to those of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed that is a pure function of its arguments."""
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in purpose)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for a purpose, such as ``generator(0, "denoiser", "noise", 17)``."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators inside the block, and restore them afterwards.

    Weight initialization and ``torch.nn.Dropout`` have no argument for a generator. genkit uses the
    global generators for nothing else.
    """
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class PerSample:
    """Unit Gaussian noise with a separate generator for every sample.

    The noise of a sample depends on its index and not on its batch.

    Args:
        seed: seed of the run.
        purpose: purpose of the noise, such as ``("samples", "latent")``.
        indices: indices of the samples in this batch.
    """

    def __init__(self, seed: int, purpose: Sequence[str | int], indices: Sequence[int]) -> None:
        self._generators = [generator(seed, *purpose, int(index)) for index in indices]

    def draw(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the next noise of every sample, ``[B, *shape]`` on the CPU."""
        return torch.stack(
            [torch.randn(tuple(shape), generator=g, dtype=dtype) for g in self._generators]
        )

    def randn_like(self, x: Tensor) -> Tensor:
        """Return noise of the shape, dtype and device of ``x`` (``[B, *shape]``)."""
        return self.draw(x.shape[1:], x.dtype).to(x.device)
