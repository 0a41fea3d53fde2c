"""Sphinx configuration. All pages are Markdown; ``generate.py`` writes those taken from the code."""

from __future__ import annotations

from importlib import metadata

project = "genkit"
author = "the genkit authors"
version = release = metadata.version("genkit-diffusion")

extensions = ["myst_parser"]
exclude_patterns = ["_build", "results/*_reading.md"]  # parts of other pages
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "genkit"
