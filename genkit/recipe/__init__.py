"""Recipes: from TOML to checked components.

``Source``, ``read_source`` and ``shipped_recipes`` import nothing heavy; the others import torch,
and lie in their modules: :mod:`genkit.recipe.recipe` (``load_recipe``, ``Recipe``),
:mod:`genkit.recipe.decode` (``component``) and :mod:`genkit.recipe.encode` (``table``,
``resolved``).
"""

from genkit.recipe.source import Source, read_source, shipped_recipes

__all__ = ["Source", "read_source", "shipped_recipes"]
