"""Guidance by a second denoiser: the same one without labels, or a weaker one."""
