"""A user's script, which mypy --strict accepts where the installed genkit has its types."""

import torch
from torch.utils.data import TensorDataset

import genkit
from genkit.plugin import Batch, Coupler, Pairs, Schedule, TrainingState


def mean_cost(coupler: Coupler, images: torch.Tensor, noise: torch.Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    pairs: Pairs = coupler.pair(Batch(images), noise, generator)
    return float((images - noise[pairs.noise]).square().mean())


def watch(training: TrainingState) -> dict[str, float]:
    return {"spread": float(genkit.Denoiser(training.averaged).sample(16).std())}


recipe: genkit.Recipe = genkit.Recipe.read("smoke")
seeded: genkit.Recipe = genkit.Recipe(**{**recipe.table, "seed": 1})
text: str = seeded.toml()
schedule: Schedule = genkit.component("schedule", "edm", steps=7)
points: torch.Tensor = torch.randn(100, 2)
result: genkit.Result = genkit.run_recipe(
    seeded,
    settings={"samples.count": 16},
    data=TensorDataset(points, torch.zeros(100).long()),
    callbacks=[watch],
    callback_images=10_000,
)
denoiser: genkit.Denoiser = result.denoiser()
samples: torch.Tensor = denoiser.sample(16, schedule={"use": "edm", "steps": 7})
states: torch.Tensor = denoiser.sample(16, schedule={"use": "edm", "steps": 7}, trajectory=True)
levels: torch.Tensor = denoiser.noise_levels({"use": "edm", "steps": 7})
paired: genkit.PairedLoader = genkit.PairedLoader([samples], "hungarian", seed=0)
for batch, assigned in paired:
    distance: torch.Tensor = batch - assigned
noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(1))
cost: float = mean_cost(genkit.component("coupler", "hungarian"), samples, noise)
