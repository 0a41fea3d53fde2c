"""Writes ADM classifiers as guided-diffusion publishes them."""

from __future__ import annotations

from pathlib import Path

import torch

from genkit.random import seeded
from genkit.types import DataSpec
from genkit_dg.adm_classifier import AdmClassifier

BLOCK = {
    "block.norm0": "0.in_layers.0",
    "block.conv0": "0.in_layers.2",
    "block.affine": "0.emb_layers.1",
    "block.norm1": "0.out_layers.0",
    "block.conv1": "0.out_layers.3",
    "block.skip": "0.skip_connection",
    "attention.norm": "1.norm",
    "attention.qkv": "1.qkv",
    "attention.out": "1.proj_out",
}
OTHERS = {
    "stem": "input_blocks.0.0",
    "embed_time": "time_embed",
    "norm": "out.0",
    "pool.positions": "out.2.positional_embedding",
    "pool.qkv": "out.2.qkv_proj",
    "pool.out": "out.2.c_proj",
}


def published_name(name: str) -> str:
    """Return the name of a tensor in a published file."""
    for ours, theirs in BLOCK.items():
        place, found, tensor = name.partition(f".{ours}.")
        if not found:
            continue
        if place == "middle.1":
            return f"middle_block.2.{theirs.removeprefix('0.')}.{tensor}"
        if place == "middle.0":
            return f"middle_block.{theirs}.{tensor}"
        return f"input_blocks.{1 + int(place.removeprefix('units.'))}.{theirs}.{tensor}"
    ours = next(ours for ours in OTHERS if name.startswith(ours))
    return OTHERS[ours] + name.removeprefix(ours)


def write_published(path: Path, settings: AdmClassifier, size: int) -> None:
    """Write a classifier of random weights and two classes of images with three channels."""
    with seeded(0):
        module = settings.build(DataSpec((3, size, size), classes=2))
    torch.save({published_name(n): t for n, t in module.encoder.state_dict().items()}, path)
