"""Analyze why EDM-AOT has worse scores than EDM on the digits with many steps.

    OMP_NUM_THREADS=1 python benchmarks/pairs_why.py EDM.safetensors AOT.safetensors

takes denoisers that `pairs_trainings.py` trained with random pairs and with noise assigned in pools of
512. It draws samples of both with 18 Heun steps, of EDM-AOT from the corrected start, and prints three
tables:

- the variance of the states along the trajectories, divided by that of training states `y + sigma n`;
- the scores of samples whose deviations from the mean of the data are multiplied by a factor;
- the scores if one denoiser is used above a noise level and the other denoiser below it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from digits_judge import Judge, draw, provenance
from torch import Tensor, nn

from genkit import Batch, Denoiser, component, load_denoiser
from genkit.start import ResolvedStart
from genkit.tensors import to_float

STEPS, POOL = 18, 512
SWITCHES = (20.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05)
FACTORS = (1.0, 1.02, 1.04, 1.06, 1.08)


class Recorded(nn.Module):
    """A denoiser that stores the states with which it is called, by noise level."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.preconditioner = denoiser.preconditioner
        self.states: dict[float, list[Tensor]] = {}

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, **more: Any) -> Any:
        """Return the denoised images."""
        self.states.setdefault(float(sigma.flatten()[0]), []).append(x.clone())
        return self.denoiser(x, sigma, labels, **more)

    def settled(self, level: float, batches: int) -> Tensor:
        """Return the states at a noise level, ``[N, D]``, from the last call in each batch."""
        calls = self.states[level]
        each = len(calls) // batches
        return torch.cat(calls[each - 1 :: each]).flatten(1).double()


class Switched(nn.Module):
    """One denoiser above a noise level, and a second one at and below it."""

    def __init__(self, above: nn.Module, below: nn.Module, level: float) -> None:
        super().__init__()
        self.above, self.below, self.level = above, below, level
        self.preconditioner = above.preconditioner

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, **more: Any) -> Any:
        """Return the denoised images."""
        chosen = self.above if float(sigma.flatten()[0]) > self.level else self.below
        return chosen(x, sigma, labels, **more)


@dataclass
class Study:
    """Draw and score samples of both denoisers."""

    edm: Denoiser
    aot: Denoiser
    samples: int
    judge: Judge = field(default_factory=Judge)

    def __post_init__(self) -> None:
        self.data = to_float(component("dataset", "digits").load(self.judge.place).data)

    def drawn(self, denoiser: Denoiser, module: nn.Module, start: ResolvedStart) -> Tensor:
        """Return samples of a denoiser whose module is replaced."""
        trained = replace(denoiser.trained, module=module)
        schedule = component("schedule", "edm", steps=STEPS)
        found = draw(Denoiser(trained, denoiser.device), schedule, range(self.samples), start=start)
        return found[0]

    def pairs(self, coupled: bool) -> tuple[Tensor, Tensor]:
        """Return images and their noise as in training, ``[N, D]`` each.

        Args:
            coupled: whether noise is assigned by the Hungarian algorithm; otherwise at random.
        """
        generator, coupler = torch.Generator().manual_seed(5), component("coupler", "hungarian")
        images, noises = [], []
        for _ in range(24):
            chosen = self.data[torch.randperm(len(self.data), generator=generator)[:POOL]]
            noise = torch.randn(chosen.shape, generator=generator)
            if coupled:
                found = coupler.pair(Batch(chosen), noise, generator)
                chosen, noise = chosen[found.data], noise[found.noise]
            images.append(chosen)
            noises.append(noise)
        return torch.cat(images).flatten(1).double(), torch.cat(noises).flatten(1).double()

    def line(self, name: str, items: Tensor) -> None:
        """Print a row with the scores of samples."""
        found = self.judge.scores(items)
        spread = ", ".join(f"{value:.3f}" for value in found["spread"])
        cells = [name, f"{found['classifier']:.2f}", f"{found['pixels']:.3f}", spread]
        print("|", " | ".join(cells), "|", flush=True)

    def along(self) -> list[Tensor]:
        """Print the variances along the trajectories, and return the samples of both denoisers."""
        columns, ends = {}, []
        arms = (("EDM", self.edm, "noise"), ("EDM-AOT", self.aot, "corrected"))
        for name, denoiser, start in arms:
            recorded = Recorded(denoiser.module)
            ends.append(self.drawn(denoiser, recorded, start))  # type: ignore[arg-type]
            images, noise = self.pairs(coupled=name == "EDM-AOT")
            batches = -(-self.samples // 256)
            columns[name] = {
                level: float(
                    recorded.settled(level, batches).var(0).sum()
                    / (images + level * noise).var(0).sum()
                )
                for level in sorted(recorded.states, reverse=True)
            }
            columns[name][0.0] = float(
                ends[-1].flatten(1).double().var(0).sum() / images.var(0).sum()
            )
        print("| sigma | EDM | EDM-AOT |\n|--:|--:|--:|")
        for level in columns["EDM"]:
            print(
                f"| {level:.3g} | {columns['EDM'][level]:.3f} | {columns['EDM-AOT'][level]:.3f} |"
            )
        return ends

    def scaled(self, ends: list[Tensor]) -> None:
        """Print the scores of samples that are scaled around the mean of the data."""
        print("\n| samples | classifier | pixels | spread |\n|---|--:|--:|---|")
        mean = self.data.mean(0)
        for name, items in zip(("EDM", "EDM-AOT"), ends, strict=True):
            for factor in FACTORS:
                self.line(f"{name}, times {factor:g}", (items - mean) * factor + mean)

    def switched(self) -> None:
        """Print the scores if one denoiser is used above a noise level and the other below."""
        print("\n| denoisers | classifier | pixels | spread |\n|---|--:|--:|---|")
        for level in SWITCHES:
            module = Switched(self.aot.module, self.edm.module, level)
            self.line(
                f"EDM-AOT above {level:g}, EDM below", self.drawn(self.aot, module, "corrected")
            )
            module = Switched(self.edm.module, self.aot.module, level)
            self.line(f"EDM above {level:g}, EDM-AOT below", self.drawn(self.edm, module, "noise"))


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("edm", type=Path)
    parser.add_argument("aot", type=Path)
    parser.add_argument("--samples", type=int, default=4096)
    chosen = parser.parse_args()
    study = Study(
        load_denoiser(chosen.edm, "cpu"), load_denoiser(chosen.aot, "cpu"), chosen.samples
    )
    print(f"{provenance()}\n")
    study.scaled(study.along())
    study.switched()


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
