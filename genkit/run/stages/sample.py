"""The sample stage: draws from a trained denoiser, guided or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genkit import tensors
from genkit.errors import InterruptedRun, UsageError
from genkit.interfaces import Context, Guidance, Schedule, Solver, Stage
from genkit.report.grid import save_grid
from genkit.sample import Drawn, sample
from genkit.settings import DenoiserRef, setting
from genkit.types import Batch

SAMPLES = "samples.safetensors"


@dataclass(frozen=True, kw_only=True)
class Sample(Stage):
    """Draws samples from a trained denoiser."""

    source = "EDM, arXiv 2206.00364, algorithms 1 and 2"
    output = "samples"

    denoiser: DenoiserRef = setting(doc="stage that trained the denoiser")
    count: int = setting(64, doc="samples to draw", at_least=1)
    batch_size: int = setting(256, doc="samples drawn at a time", at_least=1)
    schedule: Schedule = setting(doc="noise levels", use={"use": "edm"})
    solver: Solver = setting(doc="integrates over the noise levels", use={"use": "heun"})
    guidance: tuple[Guidance, ...] = setting((), doc="corrections of the denoiser, in turn")

    def run(self, context: Context) -> None:
        parts = []
        for begin in range(0, self.count, self.batch_size):
            part = context.folder / f"part-{begin:08d}.safetensors"
            if not part.exists():
                if context.stop_requested():
                    raise InterruptedRun(f"{begin:,} of {self.count:,} samples")
                indices = range(begin, min(begin + self.batch_size, self.count))
                save_samples(part, self.draw(context, indices))
            parts.append(part)
            context.advance(min(begin + self.batch_size, self.count), self.count, "samples")
        drawn = _joined([load_samples(part) for part in parts])
        save_samples(context.folder / SAMPLES, drawn)
        save_grid(context.folder / "samples.png", drawn.batch.data)
        for part in parts:
            part.unlink()

    def draw_all(self, context: Context) -> Drawn:
        """Draw all samples at once, without touching the disk."""
        starts = range(0, self.count, self.batch_size)
        return _joined(
            [
                self.draw(context, range(begin, min(begin + self.batch_size, self.count)))
                for begin in starts
            ]
        )

    def draw(self, context: Context, indices: Sequence[int]) -> Drawn:
        """Draw the samples of some indices; class k is asked of every k-th where there are any."""
        denoiser = context.network(self.denoiser)
        labels = torch.tensor(indices) % denoiser.classes if denoiser.classes else None
        return sample(
            denoiser.module,
            denoiser.spec.shape,
            indices,
            schedule=self.schedule,
            solver=self.solver,
            guidance=[g.bind(context) for g in self.guidance],
            labels=labels,
            seed=context.seed("samples"),
            device=context.device,
        )


def sample_stage(stage: Stage) -> Sample:
    """Return a stage as the sample stage it must be.

    Raises:
        UsageError: it is another one, brought by a plugin.
    """
    if not isinstance(stage, Sample):
        raise UsageError(f"{type(stage).__name__} is not the stage `sample` of the core")
    return stage


def save_samples(path: Path, drawn: Drawn) -> None:
    """Write samples (float32, in [-1, 1] for images), their labels and what they cost."""
    named: dict[str, Tensor] = {"samples": drawn.batch.data}
    if drawn.batch.labels is not None:
        named["labels"] = drawn.batch.labels
    cost = {"nfe": drawn.nfe, "guidance_nfe": drawn.guidance_nfe}
    tensors.save(path, named, {name: json.dumps(value) for name, value in cost.items()})


def load_samples(path: Path) -> Drawn:
    """Read what :func:`save_samples` wrote."""
    named, metadata = tensors.load(path)
    batch = Batch(named["samples"], labels=named.get("labels"))
    return Drawn(batch, int(metadata["nfe"]), int(metadata["guidance_nfe"]))


def _joined(parts: Sequence[Drawn]) -> Drawn:
    labels = [part.batch.labels for part in parts if part.batch.labels is not None]
    batch = Batch(
        torch.cat([part.batch.data for part in parts]), labels=torch.cat(labels) if labels else None
    )
    return Drawn(batch, parts[0].nfe, parts[0].guidance_nfe)
