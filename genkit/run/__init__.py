"""Run a recipe: the engine, the run folder and the context of stages."""
