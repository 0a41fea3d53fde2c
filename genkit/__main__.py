"""Lets ``python -m genkit`` stand for ``genkit``."""

from genkit.cli import main

main()
