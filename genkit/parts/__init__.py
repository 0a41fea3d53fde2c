"""Public building blocks that the core and several plugins have in common."""
