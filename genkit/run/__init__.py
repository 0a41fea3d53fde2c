"""Runs a recipe: the engine, the run folder and the stages."""
