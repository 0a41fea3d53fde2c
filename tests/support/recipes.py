"""Recipes that several tests change."""

from __future__ import annotations

QUICK = """
name = "quick"
data = { use = "digits" }

[[stage]]
id = "denoiser"
use = "train"
network = { use = "mlp" }
objective = { use = "denoising" }
images = 100
"""
