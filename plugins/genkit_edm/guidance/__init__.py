"""Guidance by a second denoiser: one that is given no class, or a weaker one."""
