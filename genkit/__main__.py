"""Run the command line for ``python -m genkit``."""

from genkit.cli import main

main()
