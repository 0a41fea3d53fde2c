"""Measure whether a preconditioner that knows the pairs helps, on the digits.

    OMP_NUM_THREADS=1 python benchmarks/coupled_preconditioning.py --seeds 0 1 2

trains EDM-AOT in pools of 512 with EDM's preconditioner and with one whose coefficients count the
covariance a = E<y, n> / d of images and assigned noise:

    c_in = (s^2 + 2 sigma a + sigma^2)^-1/2, c_skip = (s^2 + sigma a) c_in^2,
    c_out^2 = s^2 - (s^2 + sigma a)^2 c_in^2

so that the network's input and target have unit variance again. It prints the loss, the distances and
the spread of samples. Finished trainings are not repeated.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from digits_judge import Judge, draw, provenance
from pairs_trainings import RECIPE, folder, settings
from torch import Tensor

from genkit import component
from genkit.artifacts import DenoiserFile
from genkit.denoiser import Denoiser
from genkit.networks import load_network
from genkit.plugin import Batch, Coefficients, Preconditioner, setting
from genkit.plugin.manager import Plugins, load_plugins
from genkit.plugin.registry import Owner, Registration
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.run.engine import execute
from genkit.run.progress import choose_progress
from genkit.tensors import decoded


@dataclass(frozen=True, kw_only=True)
class Coupled(Preconditioner):
    """Scales the network as EDM's does, for noise that is not independent of the data."""

    sigma_data: float = setting(0.5, doc="root of E|y|^2 / d", above=0)
    covariance: float = setting(0.0, doc="E<y, n> / d of the pairs")

    def _moments(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        data = self.sigma_data**2
        return data + sigma * self.covariance, data + 2 * sigma * self.covariance + sigma**2

    def coefficients(self, sigma: Tensor) -> Coefficients:
        shared, total = self._moments(sigma)
        return Coefficients(
            c_skip=shared / total,
            c_out=(self.sigma_data**2 - shared**2 / total).sqrt(),
            c_in=total.rsqrt(),
            c_noise=sigma.log() / 4,
        )

    def weight(self, sigma: Tensor) -> Tensor:
        shared, total = self._moments(sigma)
        return 1 / (self.sigma_data**2 - shared**2 / total)


def covariance(judge: Judge, pools: int = 16) -> tuple[float, float]:
    """Return E|y|^2 / d and E<y, n> / d of exact pairs in pools of 512."""
    images = decoded(component("dataset", "digits").load(judge.place).data)
    generator, coupler = torch.Generator().manual_seed(0), component("coupler", "hungarian")
    products = []
    for _ in range(pools):
        chosen = images[torch.randperm(len(images), generator=generator)[:512]]
        noise = torch.randn(chosen.shape, generator=generator)
        pairs = coupler.pair(Batch(chosen), noise, generator)
        products.append((chosen[pairs.data] * noise[pairs.noise]).mean())
    return float(images.square().mean()), float(torch.stack(products).mean())


def plugins() -> Plugins:
    """Return all plugins with the preconditioner of this file."""
    found = load_plugins()
    registration = Registration(Owner("benchmark", "benchmarks", "0"))
    registration.add("preconditioner", "coupled", "coupled_preconditioning:Coupled")
    found.registry.accept(registration)
    return found


def main() -> None:
    """Parse the command line, train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, default=600_000)
    parser.add_argument("--out", type=Path, default=Path("runs/pairs"))
    parser.add_argument("--samples", type=int, default=4096)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    judge, known = Judge(), plugins()
    power, shared = covariance(judge)
    print(provenance())
    print(f"\nE|y|^2 / d = {power:.4f}, E<y, n> / d = {shared:.4f}; EDM takes 0.25 and 0\n")
    variants = {
        "edm": '{ use = "edm" }',
        "edm-power": f'{{ use = "edm", sigma_data = {power**0.5:.4f} }}',
        "coupled": f'{{ use = "coupled", covariance = {shared:.4f} }}',
        "coupled-power": f'{{ use = "coupled", sigma_data = {power**0.5:.4f}, covariance = {shared:.4f} }}',
    }
    print("| preconditioner | seed | steps | NFE | classifier | pixels | spread |")
    print("|---" * 7 + "|")
    for seed in chosen.seeds:
        for name, table in variants.items():
            where = folder(chosen.out, f"preconditioner/{name}", chosen.images, seed)
            recipe = where.with_name(where.name + ".toml")
            network = {"network": f'{{ use = "mlp", preconditioner = {table} }}'}
            chosen_settings = settings("edm-aot-512") | network
            recipe.write_text(
                RECIPE.format(method=where.name, images=chosen.images, seed=seed, **chosen_settings)
            )
            with choose_progress() as shown:
                execute(load_recipe(read_source(recipe), known, [], []), known, where, "cpu", shown)
            file = where / "01-denoiser" / "denoiser.safetensors"
            place = torch.device("cpu")
            denoiser = Denoiser(load_network(file, known.registry, place, DenoiserFile), place)
            for steps in (4, 7, 18):
                schedule = component("schedule", "edm", steps=steps)
                items, nfe = draw(denoiser, schedule, range(chosen.samples), start="corrected")
                found = judge.scores(items)
                cells = [name, seed, steps, f"{nfe:g}", f"{found['classifier']:.2f}"]
                cells += [f"{found['pixels']:.3f}", ", ".join(f"{s:.3f}" for s in found["spread"])]
                print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
