"""Read recipes: parse TOML, and decode it into checked components.

This package exports only names whose import does not import torch. The others are imported from
their modules: :mod:`genkit.recipe.recipe` (``load_recipe``, ``Recipe``),
:mod:`genkit.recipe.decode` (``component``) and :mod:`genkit.recipe.encode` (``table``,
``resolved``).
"""

from genkit.recipe.source import Source, read_source, shipped_recipes

__all__ = ["Source", "read_source", "shipped_recipes"]
