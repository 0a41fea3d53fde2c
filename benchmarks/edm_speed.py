"""Compare the time of a training step of the full CIFAR-10 network with EDM's reference.

    python benchmarks/edm_speed.py --edm DIR --rounds 8

DIR is a checkout of https://github.com/NVlabs/edm, from which networks and loss are imported. Both
implementations train DDPM++ (55,733,891 weights, dropout 0.13, augmentation labels) on the same random
images in float32. A step consists of loss, gradient, Adam and weight average. The implementations
alternate within one run, and medians are compared. The reference uses the code of its training loop,
with and without channels-last images; genkit uses its trainer with ``channels_last = true``.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from genkit.random import derive_seed, seeded
from genkit.train.trainer import Compute, Trainer
from genkit.types import Batch, DataSpec
from genkit.world import SINGLE_PROCESS
from genkit_edm.denoising import Denoising
from genkit_edm.edm import EdmPreconditioner, LogNormal
from genkit_edm.unet.denoisers import Ddpmpp
from genkit_optim.adam import Adam
from genkit_optim.ema import Ema

SPEC = DataSpec((3, 32, 32), augment_labels=9)
DROPOUT = 0.13


def images(batch_size: int) -> tuple[Batch, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    data = torch.randn(batch_size, *SPEC.shape, generator=g)
    quantile = torch.rand(batch_size, generator=g, dtype=torch.float64)
    labels = torch.randn(batch_size, SPEC.augment_labels, generator=g)
    noise = torch.randn(data.shape, generator=g)
    return Batch(data, quantile=quantile, augment_labels=labels), noise


def genkit_step(batch_size: int) -> Callable[[], object]:
    with seeded(0):
        model = Ddpmpp(preconditioner=EdmPreconditioner(), dropout=DROPOUT).build(SPEC)
    trainer = Trainer(
        SimpleNamespace(
            device=torch.device("cpu"), world=SINGLE_PROCESS, seed=partial(derive_seed, 0)
        ),
        model,
        Denoising(noise_distribution=LogNormal()),
        Adam(learning_rate_ramp=10_000_000),
        Ema(),
        SPEC.shape,
        Compute(channels_last=True),
    )
    batch, noise = images(batch_size)
    return lambda: trainer.step(batch, noise)


def reference_step(batch_size: int, layout: torch.memory_format) -> Callable[[], object]:
    networks = importlib.import_module("training.networks")
    loss_of = importlib.import_module("training.loss").EDMLoss()
    with seeded(0):
        model = networks.EDMPrecond(
            img_resolution=32, img_channels=3, model_type="SongUNet", channel_mult=[2, 2, 2],
            augment_dim=9, dropout=DROPOUT,
        ).train().requires_grad_(True).to(memory_format=layout)  # fmt: skip
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    batch, _ = images(batch_size)
    data = batch.data.contiguous(memory_format=layout)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(net=model, images=data, augment_pipe=lambda x: (x, batch.augment_labels))
        loss.sum().mul(1 / batch_size).backward()
        for weights in model.parameters():
            torch.nan_to_num(weights.grad, nan=0, posinf=1e5, neginf=-1e5, out=weights.grad)
        optimizer.step()
        for mean, weights in zip(average.parameters(), model.parameters(), strict=True):
            mean.copy_(weights.detach().lerp(mean, 0.999))

    return step


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--edm", type=Path, required=True, help="a checkout of NVlabs/edm")
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument("--threads", type=int, default=2)
    arguments = options.parse_args()
    sys.path.insert(0, str(arguments.edm))
    torch.set_num_threads(arguments.threads)
    sides = {
        "reference": reference_step(arguments.batch_size, torch.contiguous_format),
        "reference, channels-last": reference_step(arguments.batch_size, torch.channels_last),
        "genkit, channels-last": genkit_step(arguments.batch_size),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(arguments.rounds + 1):
        for name, step in sides.items():
            start = time.perf_counter()
            step()
            if turn:  # the first round is a warm-up
                seconds[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    ours = middle["genkit, channels-last"]
    rows = {
        name: {
            "seconds": [round(t, 3) for t in seconds[name]],
            "images_per_second": round(arguments.batch_size / median, 3),
            "genkit_is_faster_by": round(median / ours, 3),
        }
        for name, median in middle.items()
    }
    report = {
        "torch": torch.__version__,
        "threads": arguments.threads,
        "batch_size": arguments.batch_size,
    }
    print(json.dumps({**report, "sides": rows}, indent=2))


if __name__ == "__main__":
    main()
