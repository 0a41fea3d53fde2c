"""Compare training steps with those of EDM, EDM-AOT and EDM2.

The network and the loss of the reference are trained with torch.optim.Adam as in the reference's
training loop: the loss is the sum over elements divided by the batch size, and learning rate and
weight average are those of the reference. genkit's stage `train` uses the same initial weights,
images, noise and noise levels.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import genkit
from genkit.random import derive_seed
from genkit.train.trainer import Trainer
from genkit.types import Batch, Pairs
from genkit.world import SINGLE_PROCESS
from genkit_edm.reference.networks import (
    from_reference,
    network_from_reference,
)
from genkit_stages.train import Train

STEPS, BATCH = 12, 16
SHAPE = (3, 16, 16)
SONG = {
    "img_resolution": 16,
    "img_channels": 3,
    "model_type": "SongUNet",
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
    "dropout": 0.0,  # the implementations draw different dropout masks
}
EDM2 = {
    "img_resolution": 16,
    "img_channels": 3,
    "label_dim": 4,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
    "channels_per_head": 16,
}
RATE, RAMP, HALF_LIFE = 1e-3, 64, 1000
EDM2_RATE, EDM2_DECAY, EDM2_RAMP, LENGTHS = 0.01, 96, 64, (0.05, 0.1)


@dataclass(frozen=True)
class Errors:
    """Relative differences after the last step.

    Attributes:
        loss: maximum relative difference of the loss over the steps.
        weights: relative difference of the changes of all weights since initialization.
        averages: the same for averaged weights; maximum over the averages.
        pairs: number of noise samples that are assigned to different images; None if the method
            does not assign noise.
    """

    loss: float
    weights: float
    averages: float
    pairs: int | None = None


def genkit_trainer(
    weights: Mapping[str, Tensor], precond: str, arguments: dict[str, Any], **settings: Any
) -> Trainer:
    """Return the trainer of a stage `train` with the weights of the reference."""
    network, spec = network_from_reference(precond, arguments)
    stage = Train(
        data=genkit.component("dataset", "digits"),  # not read
        network=network,
        coupler=genkit.component("coupler", "random"),
        images=STEPS * BATCH,
        batch_size=BATCH,
        **settings,
    )
    seed = partial(derive_seed, 0)
    context = SimpleNamespace(device=torch.device("cpu"), world=SINGLE_PROCESS, seed=seed)
    trainer = stage.trainer(context, spec)  # type: ignore[arg-type]
    _, _, ours = from_reference(weights, precond, arguments)
    trainer.model.load_state_dict(ours)
    trainer.average = stage.average.build(trainer.model)
    return trainer


def apart(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], before: Any) -> float:
    """Return the relative difference between two changes of the weights ``before``."""
    error, change = (
        torch.cat([(one[name] - other[name]).double().flatten() for name in before])
        for one, other in ((actual, expected), (expected, before))
    )
    return float(error.norm() / change.norm())


def images_of(step: int) -> Tensor:
    """Return the images of a step, which are smooth, so that assigned noise is not random."""
    drawn = torch.randn(BATCH, 3, 4, 4, generator=torch.Generator().manual_seed(step))
    return nn.functional.interpolate(drawn, scale_factor=4, mode="bilinear").tanh()


def edm(losses: str = "training.loss") -> Iterator[tuple[str, Errors]]:
    """Compare with the three losses in EDM's code: EDMLoss, VPLoss and VELoss."""
    reference = importlib.import_module(losses)
    networks = importlib.import_module("training.networks")
    for name, precond, distribution in (
        ("EDMLoss", "EDMPrecond", {"use": "log-normal"}),
        ("VPLoss", "VPPrecond", {"use": "vp"}),
        ("VELoss", "VEPrecond", {"use": "ve"}),
    ):
        torch.manual_seed(0)
        net = getattr(networks, precond)(**SONG)
        loss_fn = getattr(reference, name)()

        def step(k: int, net: nn.Module, name: str = name, loss_fn: Any = loss_fn) -> Any:
            images = images_of(k)
            torch.manual_seed(k)  # the loss draws the noise levels first, then the noise
            draw = torch.randn if name == "EDMLoss" else torch.rand
            drawn = draw([BATCH, 1, 1, 1])
            noise = torch.randn_like(images)
            torch.manual_seed(k)
            loss = loss_fn(net=net, images=images, labels=None)
            return images, noise, drawn, loss, None

        yield name, _compared(net, precond, distribution, step)


def edm_aot() -> Iterator[tuple[str, Errors]]:
    """Compare with EDM-AOT, whose function assigns noise; genkit uses `hungarian`."""
    reference = importlib.import_module("training.loss")
    networks = importlib.import_module("training.networks")
    for classes, assign in ((0, "assignment_problem"), (4, "assignment_problem_label")):
        torch.manual_seed(0)
        net = networks.EDMPrecond(**SONG, label_dim=classes)
        loss_fn = reference.EDMLoss(batch=BATCH)
        labels = torch.arange(BATCH) % max(classes, 1)
        one_hot = torch.eye(max(classes, 1))[labels] if classes else None
        hungarian = {"use": "hungarian"}
        coupler = (
            genkit.component("coupler", "partitioned", by=["label"], inner=hungarian)
            if classes
            else genkit.component("coupler", "hungarian")
        )
        moved: list[int] = []

        def step(
            k: int, net: nn.Module, assign: str = assign, loss_fn: Any = loss_fn,
            labels: Any = labels, one_hot: Any = one_hot, coupler: Any = coupler, moved: Any = moved,
        ) -> Any:  # fmt: skip
            images = images_of(k)
            unpaired = torch.randn(images.shape, generator=torch.Generator().manual_seed(k))
            theirs = getattr(reference, assign)(unpaired, images, one_hot)
            batch = Batch(images, labels=labels if one_hot is not None else None)
            pairs: Pairs = coupler.pair(batch, unpaired, torch.Generator())
            ours = torch.empty_like(unpaired)
            ours[pairs.data] = unpaired[pairs.noise]
            moved.append(int((ours != theirs).flatten(1).any(1).sum()))
            torch.manual_seed(k)
            drawn = torch.randn([BATCH, 1, 1, 1])
            torch.manual_seed(k)
            loss = loss_fn(net=net, images=images, labels=one_hot, noise=theirs)
            return images, ours, drawn, loss, batch.labels

        errors = _compared(net, "EDMPrecond", {"use": "log-normal"}, step, classes)
        name = f"EDM-AOT, {f'{classes} classes' if classes else 'no classes'}"
        yield name, Errors(errors.loss, errors.weights, errors.averages, sum(moved))


def _compared(
    net: nn.Module, precond: str, distribution: dict[str, Any], step: Any, classes: int = 0
) -> Errors:
    """Train with the reference and with genkit, and return the differences."""
    arguments = {**SONG, "label_dim": classes}
    before = dict(net.state_dict())
    trainer = genkit_trainer(
        before,
        precond,
        arguments,
        objective=genkit.component("objective", "denoising", noise_distribution=distribution),
        optimizer=genkit.component(
            "optimizer", "adam", learning_rate=RATE, learning_rate_ramp=RAMP
        ),
        average=genkit.component("average", "ema", half_life=HALF_LIFE, ramp_up=0.05),
    )
    start = from_reference({k: v.clone() for k, v in before.items()}, precond, arguments)[2]
    net = net.train()
    average = copy.deepcopy(net).eval()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    worst = 0.0
    for k in range(STEPS):
        seen = k * BATCH
        optimizer.zero_grad()
        images, noise, drawn, loss, labels = step(k, net)
        loss.sum().mul(1 / BATCH).backward()
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(seen / RAMP, 1)
        optimizer.step()
        half_life = min(HALF_LIFE, seen * 0.05)
        beta = 0.5 ** (BATCH / max(half_life, 1e-8))
        with torch.no_grad():
            for mine, theirs in zip(average.parameters(), net.parameters(), strict=True):
                mine.copy_(theirs.lerp(mine, beta))
        u = drawn.flatten().double()
        # The VP time of the reference decreases from 1 to epsilon_t as u increases from 0 to 1.
        quantile = {"log-normal": torch.special.ndtr(u), "vp": 1 - u, "ve": u}[distribution["use"]]
        found = trainer.step(Batch(images, labels=labels, quantile=quantile), noise)
        expected = float(loss.detach().flatten(1).mean(1).mean())
        worst = max(worst, abs(float(found) / expected - 1))
    after, averaged = (
        from_reference(dict(model.state_dict()), precond, arguments)[2] for model in (net, average)
    )
    return Errors(
        worst,
        apart(trainer.model.state_dict(), after, start),
        apart(trainer.average.model.state_dict(), averaged, start),
    )


def edm2() -> Iterator[tuple[str, Errors]]:
    """Compare with EDM2: its loss, its learning rate and its averages."""
    loop = importlib.import_module("training.training_loop")
    networks = importlib.import_module("training.networks_edm2")
    phema = importlib.import_module("training.phema")
    torch.manual_seed(0)
    net = networks.Precond(**EDM2).train()
    with torch.no_grad():  # with the initial gains of 0, other weights would have no gradient
        for name, p in net.named_parameters():
            if name.endswith("gain"):
                p.fill_(0.5)
    start = from_reference({k: v.clone() for k, v in net.state_dict().items()}, "Precond", EDM2)[2]
    trainer = genkit_trainer(
        dict(net.state_dict()),
        "Precond",
        EDM2,
        objective=genkit.component(
            "objective",
            "uncertainty-denoising",
            noise_distribution={"use": "log-normal", "p_mean": -0.4, "p_std": 1.0},
        ),
        optimizer=genkit.component(
            "optimizer",
            "adam",
            learning_rate=EDM2_RATE,
            learning_rate_ramp=EDM2_RAMP,
            learning_rate_decay=EDM2_DECAY,
            beta2=0.99,
        ),
        average=genkit.component("average", "power-ema", lengths=LENGTHS),
    )
    averages = phema.PowerFunctionEMA(net, stds=list(LENGTHS))
    optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99))
    loss_fn, worst = loop.EDM2Loss(), 0.0
    labels = torch.arange(BATCH) % 4
    for k in range(STEPS):
        seen, images = k * BATCH, images_of(k)
        torch.manual_seed(k)
        drawn, noise = torch.randn([BATCH, 1, 1, 1]), torch.randn_like(images)
        torch.manual_seed(k)
        optimizer.zero_grad()
        loss = loss_fn(net=net, images=images, labels=torch.eye(4)[labels])
        loss.sum().mul(1 / BATCH).backward()
        rate = loop.learning_rate_schedule(
            seen,
            BATCH,
            ref_lr=EDM2_RATE,
            ref_batches=EDM2_DECAY / BATCH,
            rampup_Mimg=EDM2_RAMP / 1e6,
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        averages.update(cur_nimg=seen + BATCH, batch_size=BATCH)
        quantile = torch.special.ndtr(drawn.flatten().double())
        found = trainer.step(Batch(images, labels=labels, quantile=quantile), noise)
        expected = float(loss.detach().flatten(1).mean(1).mean())
        worst = max(worst, abs(float(found) - expected) / abs(expected))
    after = from_reference(dict(net.state_dict()), "Precond", EDM2)[2]
    ours = trainer.average.state()
    differences = []
    for (theirs, _), length in zip(averages.get(), LENGTHS, strict=True):
        expected_average = from_reference(dict(theirs.state_dict()), "Precond", EDM2)[2]
        mine = {name: ours.get(f"{length!r}:{name}", start[name]) for name in start}
        differences.append(apart(mine, expected_average, start))
    yield "EDM2", Errors(worst, apart(trainer.model.state_dict(), after, start), max(differences))
