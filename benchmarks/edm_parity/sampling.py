"""Compare samplers, and images of the same seeds, with EDM's generate.py."""

from __future__ import annotations

import itertools
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import genkit
from genkit.denoiser import Denoiser, sampling_parts
from genkit.tensors import to_uint8
from genkit.testing import ClosedForm

Settings = dict[str, Any]
IMAGES = 16
STEPS = 12


class BlurredPoints(nn.Module):
    """The exact denoiser of points blurred with standard deviation 0.35, for both samplers."""

    sigma_min, sigma_max = 0.0, float("inf")

    def __init__(self) -> None:
        super().__init__()
        self.points = torch.randn(7, 48, generator=torch.Generator().manual_seed(0)).double()

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        total = 0.35**2 + sigma**2
        distance = (x.flatten(1)[:, None] - self.points).square().sum(2)
        mean = (torch.softmax(-distance / (2 * total), dim=1) @ self.points).reshape(x.shape)
        return mean + 0.35**2 / total * (x - mean)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return torch.as_tensor(sigma)


def cases() -> Iterator[Settings]:
    """Yield settings of the reference's general sampler."""
    ranges: list[Settings] = [{}, {"sigma_min": 0.01, "sigma_max": 50.0}]
    churns: list[Settings] = [{}, {"S_churn": 15, "S_min": 0.05, "S_max": 30, "S_noise": 1.003}]
    for levels, schedule, scaling, solver, ends, churn in itertools.product(
        ("edm", "vp", "ve", "iddpm"),
        ("linear", "vp", "ve"),
        ("none", "vp"),
        ("euler", "heun"),
        ranges,
        churns,
    ):
        how = {"discretization": levels, "schedule": schedule, "scaling": scaling}
        yield {"num_steps": STEPS, **how, "solver": solver, **ends, **churn}
    for rho, alpha in ((3.5, 1.0), (72, 1.0), (90, 0.5)):
        yield {"num_steps": STEPS, "rho": rho, "alpha": alpha, "schedule": "vp", "scaling": "vp"}


def tables(how: Settings) -> tuple[Settings, Settings]:
    """Return genkit's tables of the schedule and the solver for settings of the reference."""
    given = {name: how[name] for name in ("sigma_min", "sigma_max", "rho") if name in how}
    schedule = {"use": how.get("discretization", "edm"), "steps": how["num_steps"], **given}
    solver = {"use": how.get("solver", "heun")}
    solver |= {name.lower(): float(value) for name, value in how.items() if name.startswith("S_")}
    solver["path"], solver["scaling"] = how.get("schedule", "linear"), how.get("scaling", "none")
    if solver["use"] == "heun":
        solver["alpha"] = how.get("alpha", 1.0)
    return schedule, solver


def samplers(reference: ModuleType) -> Iterator[tuple[str, int, float]]:
    """Yield the name, number of settings and maximum difference for each schedule and scaling."""
    net, seeds = BlurredPoints(), range(4)
    differences: dict[str, list[float]] = {}
    for how in cases():
        theirs = reference.StackedRandomGenerator("cpu", seeds)
        latents = theirs.randn([4, 3, 4, 4])
        # Without churn, the reference still adds noise, up to 3e-7 of a sample. Its standard
        # deviation is the root of the rounding error of a noise level that is converted to a time and
        # back. This noise is set to 0 here, so that other differences are visible.
        noise = theirs.randn_like if "S_churn" in how else torch.zeros_like
        expected = reference.ablation_sampler(net, latents, randn_like=noise, **how)
        schedule, solver, seeded = sampling_parts(*tables(how), "edm")
        draws = seeded.draw((3, 4, 4), seeds, 0, torch.device("cpu"), 0)
        sigmas = schedule.sigmas()
        start = draws.latents.double() * sigmas[0]
        solver = solver.between(*schedule.sigma_range(), sigmas)
        *_, last = solver.solve(ClosedForm(net), start, sigmas, draws.randn_like)
        name = f"schedule {how['schedule']}, scaling {how['scaling']}"
        differences.setdefault(name, []).append(float((last.x - expected).abs().max()))
    for name, values in differences.items():
        yield name, len(values), max(values)


class Images(NamedTuple):
    """Differences of images of the same seeds.

    Attributes:
        identical: number of equal images among :data:`IMAGES` images.
        levels: maximum difference of a pixel, in gray levels.
        inside: share of pixels that are neither 0 nor 255.
        error: relative difference of the samples before rounding to 8 bits.
    """

    identical: int
    levels: int
    inside: float
    error: float


def images(
    reference: ModuleType, networks: Iterator[tuple[str, nn.Module]]
) -> Iterator[tuple[str, Images]]:
    """Yield the comparison for each network and path.

    Each network is pickled as in the reference's training, imported, and sampled from the same
    seeds: along the default path, and along the path of VP with churn. Networks with a limited
    range of noise levels are also sampled beyond it, where all pixels are 0 or 255.

    Args:
        reference: module ``generate`` of the checkout.
        networks: name and denoiser of each network of the reference, with random weights.
    """
    for name, net in networks:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network-snapshot-000001.pkl"
            with file.open("wb") as stream:
                pickle.dump({"ema": net.eval().requires_grad_(False)}, stream)
            denoiser = imported(file)
        # From 80, all pixels are 0 or 255 for other preconditionings with random weights.
        sigma_max = 80.0 if type(net).__name__ == "EDMPrecond" else 1.0
        churn = {"S_churn": 10.0, "S_min": 0.05, "S_max": 50.0}
        how = {"num_steps": 18, "sigma_max": sigma_max, **churn}
        vp = {"schedule": "vp", "scaling": "vp"}
        yield name, _compared(net, denoiser, reference, reference.edm_sampler, how)
        yield (
            f"{name}, path vp",
            _compared(net, denoiser, reference, reference.ablation_sampler, {**how, **vp}),
        )
        if type(net).__name__ != "EDMPrecond":
            beyond = {"num_steps": 18, "sigma_min": 1e-3, "sigma_max": 1e4, "S_churn": 10.0}
            yield (
                f"{name}, beyond the range",
                _compared(net, denoiser, reference, reference.edm_sampler, beyond),
            )


def _compared(
    net: nn.Module, denoiser: Denoiser, reference: ModuleType, sampler: Any, how: Settings
) -> Images:
    theirs = reference.StackedRandomGenerator("cpu", range(IMAGES))
    size = [IMAGES, net.img_channels, net.img_resolution, net.img_resolution]
    latents, labels = theirs.randn(size), None
    if net.label_dim:
        labels = torch.eye(net.label_dim)[theirs.randint(net.label_dim, size=[IMAGES])]
    samples = sampler(net, latents, labels, randn_like=theirs.randn_like, **how)
    expected = (samples * 127.5 + 128).clip(0, 255).to(torch.uint8)
    schedule, solver = tables(how)
    drawn = denoiser.sample(
        IMAGES, schedule=schedule, solver=solver, latents="edm", dtype=torch.float64
    )
    pixels = to_uint8(drawn)
    same = int((pixels == expected).flatten(1).all(1).sum())
    apart = int((pixels.int() - expected.int()).abs().max())
    inside = float(((expected > 0) & (expected < 255)).double().mean())
    error = float((drawn - samples).norm() / samples.norm())
    return Images(same, apart, inside, error)


def imported(file: Path) -> Denoiser:
    """Import a snapshot, and return the denoiser."""
    read = genkit.component("importer", "edm").read(file)
    module = read.network.build(read.spec)
    module.load_state_dict(read.weights)
    trained = SimpleNamespace(
        module=module.eval(),
        spec=read.spec,
        settings=read.network,
        classes=read.spec.classes if read.network.class_conditional else 0,
    )
    return Denoiser(trained, torch.device("cpu"))  # type: ignore[arg-type]
