"""Small stand-ins for the data and the networks that recipes download or import."""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import replace

import numpy as np
import torch

from genkit.artifacts import ClassifierFile, DenoiserFile
from genkit.plugin.manager import load_plugins
from genkit.random import generator, seeded
from genkit.recipe.decode import component
from genkit.types import DataSpec
from genkit_data.cifar10 import CIFAR10
from genkit_data.cifar10_batches import BINARY
from genkit_data.fashion_mnist import FILES as FASHION_FILES
from genkit_metrics.inception import Inception


class Colour(torch.nn.Module):
    """Stands in for Inception, whose weights are no part of genkit."""

    def forward(self, x):
        return x.mean((2, 3))


def write_published_data(root, monkeypatch):
    """Write what the shipped recipes expect in the current directory, ``root``."""
    few = replace(BINARY, images=20)
    monkeypatch.setattr(CIFAR10, "versions", (few,))
    folder = root / "data" / "cifar10" / few.folder
    folder.mkdir(parents=True)
    draw = generator(0, "cifar10")
    for name in (*few.batches["train"], *few.batches["test"]):
        records = torch.randint(256, (few.images, 3073), generator=draw, dtype=torch.uint8)
        records[:, 0] = torch.arange(few.images) % 10
        (folder / name).write_bytes(records.numpy().tobytes())
    fashion = root / "data" / "fashion-mnist"
    fashion.mkdir()
    for name in (name for pair in FASHION_FILES.values() for name in pair):
        shape = (20, 28, 28) if "images" in name else (20,)
        header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
        content = bytes(k % 10 for k in range(math.prod(shape)))
        (fashion / name).write_bytes(gzip.compress(header + content))
    registry = load_plugins().registry
    judge = component(registry, "classifier", {"use": "cnn-classifier"})
    grey = DataSpec((1, 28, 28), classes=10)
    ClassifierFile({"use": "cnn-classifier"}, grey, judge.build(grey).state_dict()).save(
        root / "fashion-classifier.safetensors"
    )
    network = {"use": "mlp", "width": 8, "blocks": 1}
    spec = DataSpec((3, 32, 32))
    with seeded(0):
        weights = component(registry, "denoiser", network).build(spec).state_dict()
    for name in ("edm", "edm-aot"):
        DenoiserFile(network, spec, weights).save(root / f"{name}.safetensors")
    noisy = {"use": "noisy-classifier", "channels": 64, "multipliers": [1], "blocks": 1}
    labelled = replace(spec, classes=4)
    classifier = component(registry, "classifier", noisy).build(labelled)
    ClassifierFile(noisy, labelled, classifier.state_dict()).save(root / "classifier.safetensors")
    np.savez(root / "cifar10-32x32.npz", mu=np.zeros(3), sigma=np.eye(3))
    monkeypatch.setattr(Inception, "bind", lambda self, inputs: Colour())
    monkeypatch.setattr(Inception, "identity", lambda self, inputs: "colour")
